"""The server: accepts, counts, sweeps, drains. What it serves is an `App`."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from email.utils import formatdate
from ssl import SSLContext
from time import time
from typing import NamedTuple, Protocol

from ...errors import FirewallError
from .connection import NEVER, Connection
from .door import Door
from .limits import RESERVE, Limits
from .reply import CLOSE, Reply, status_line
from .request import Request

NOT_SENT = 131072  # unsent bytes the kernel keeps a connection: megabytes would hide a client that stopped reading,
#                    and make one that reads slowly look as if it had (the kernel wakes us by thirds of its buffer)


class Refusal(NamedTuple):
    """An answer given before the body is read; the connection closes after it."""

    status: int
    headers: bytes
    body: bytes


class App(Protocol):
    """What is served. No method may block; all run on the loop's thread."""

    def head(self, request: Request) -> Refusal | tuple[int, bytes, bytes] | None:
        """The head is complete, the body is not read. None: go on. May set `request.limit` (bytes)."""

    def request(self, request: Request, reply: Reply) -> None:
        """The request is whole. Start the work and return; answer through `reply`, now or later."""

    def refused(self, error: FirewallError, request: Request | None) -> tuple[int, bytes, bytes]:
        """Shape the answer (status, header lines, body) to a request that could not be taken."""


class Server:
    """An HTTP/1.1 server over TCP or TLS. One object, one event loop."""

    def __init__(self, app: App, limits: Limits | None = None, ssl: SSLContext | None = None) -> None:
        self.app = app
        self.limits = limits or Limits()
        self.keep_alive = True           # False: every answer closes its connection (memory pressure, R13)
        self.shedding = False            # True: every new request is answered 503 before its body is read (R13)
        self.draining = False
        self.in_flight = 0               # requests handed to the app and not ended, or with much of the answer here
        self.most: float = self.limits.max_in_flight or float("inf")
        self.held = 0                    # bytes counted against `body_budget`
        self.now = 0.0                   # loop time of the last sweep
        self.date = b""
        self.port = 0                    # listened on, after `start`
        self.loop: asyncio.AbstractEventLoop
        self._door: Door | None = None
        self._ssl = ssl
        self.most_connections = self.limits.connections
        self.shaking: dict[Connection, asyncio.Task[None]] = {}  # accepted, in their TLS handshake
        self._open: set[Connection] = set()
        self.dirty: list[Connection] = []   # have bytes to `flush`, which the first of them in a turn asks the loop for
        self._listener: asyncio.Server | None = None
        self._timer: asyncio.TimerHandle | None = None

    async def start(self, host: str = "127.0.0.1", port: int = 0, *, reuse_port: bool = False,
                    sock: socket.socket | None = None, backlog: int = 1024) -> None:
        """Listen. Port 0 takes a free one (`port` tells which). Raises OSError when the address is taken."""
        self.loop = asyncio.get_running_loop()
        self._tick()
        plain = self._ssl is None
        if sock is not None:
            self._listener = await self.loop.create_server(
                self._connection, sock=sock, backlog=backlog, start_serving=plain)
        else:
            self._listener = await self.loop.create_server(
                self._connection, host, port, backlog=backlog, reuse_port=reuse_port or None, start_serving=plain)
        self.port = int(self._listener.sockets[0].getsockname()[1])
        for each in self._listener.sockets:  # inherited by what is accepted
            with suppress(OSError, AttributeError):
                each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT, NOT_SENT)
        if self._ssl is not None:
            self._door = Door(self, self._ssl, backlog)
            self._door.open(list(self._listener.sockets))

    def _connection(self) -> Connection:
        return Connection(self)

    @property
    def connections(self) -> int:
        """Open connections, those in their handshake included."""
        return len(self._open) + len(self.shaking)

    def stop_accepting(self) -> None:
        """Close the listening socket; open connections go on."""
        if self._door is not None:
            self._door.close()
        if self._listener is not None:
            self._listener.close()

    async def drain(self, timeout: float) -> bool:
        """Stop accepting, close idle connections, let busy ones finish with `connection: close`. True: all done."""
        self.stop_accepting()
        self.draining = True
        for connection in list(self._open):
            connection.close_idle()
        for task in self.shaking.values():
            self.loop.call_later(1.0, task.cancel)
        until = self.loop.time() + timeout
        while self.connections and self.loop.time() < until:
            await asyncio.sleep(min(0.02, timeout))
        return not self.connections

    def close(self) -> None:
        """Close everything now. Idempotent."""
        self.stop_accepting()
        self.draining = True
        for connection in list(self._open):
            connection.kill()
        for task in self.shaking.values():
            task.cancel()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # -- for connections

    def joined(self, connection: Connection) -> None:
        """A connection opened. Beyond the cap it is told so and closed; far beyond it is just closed."""
        if self.shaking:
            self.shaking.pop(connection, None)
        self._open.add(connection)
        count = len(self._open)
        if count > self.most_connections:
            if count <= self.most_connections + RESERVE // 2:
                connection.transport.write(b"%bretry-after: 1\r\ncontent-length: 0\r\n%b%b\r\n" % (
                    status_line(503), self.date, CLOSE))
                connection._linger()
                connection.deadline, connection.stall = self.now + min(0.5, self.limits.linger), NEVER
            else:
                connection.transport.abort()

    def left(self, connection: Connection) -> None:
        """A connection closed."""
        self._open.discard(connection)

    def flush(self) -> None:
        """The end of a turn of the loop: what was written in it leaves."""
        dirty, self.dirty = self.dirty, []
        for connection in dirty:
            connection.flush()

    def _tick(self) -> None:
        self.now = now = self.loop.time()
        self.date = b"date: %b\r\n" % formatdate(time(), usegmt=True).encode()
        period = self.limits.period
        for connection in list(self._open):
            connection.sweep(now + period)
        self._timer = self.loop.call_later(period, self._tick)
