"""The upstream client: a pool of keep-alive connections to one origin.

No redirects, no cookies, no proxies from the environment, no decompression, no header that the caller did not
write except Host and Content-Length. One sweep per pool keeps all deadlines; a task exists only while a
connection is being opened.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections import deque
from typing import Any

from aiohappyeyeballs import start_connection

from ...errors import FirewallError
from .addresses import Addresses
from .call import Call, Sink
from .limits import UpstreamLimits
from .link import Link, late
from .origin import Origin

__all__ = ["Call", "Origin", "Pool", "Sink"]

JOIN = 65536  # requests up to this size leave as one buffer
STAGGER = 0.25  # seconds after which the next address is tried beside one that is silent (RFC 8305 5)
BODY_METHODS = frozenset((b"POST", b"PUT", b"PATCH"))


class Pool:
    """Connections to one origin. Use on one event loop."""

    def __init__(self, origin: Origin, limits: UpstreamLimits | None = None) -> None:
        self.origin = origin
        self.limits = limits or UpstreamLimits()
        self.now = 0.0                       # loop time of the last sweep
        self.pending: set[Call] = set()      # calls without a connection yet
        self._host = b"host: " + origin.authority + b"\r\n"
        self._addresses = Addresses(origin.host, origin.port)
        self._tls: dict[str, Any] = {} if origin.ssl is None else {
            "ssl": origin.ssl, "server_hostname": origin.sni or origin.host,
            "ssl_handshake_timeout": self.limits.connect_timeout}
        self._links: set[Link] = set()
        self._idle: list[Link] = []
        self._opening = 0
        self._waiting: deque[Call] = deque()
        self._tasks: set[asyncio.Task[None]] = set()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """Open connections, idle ones included."""
        return len(self._links)

    @property
    def idle(self) -> int:
        """Idle connections."""
        return len(self._idle)

    def send(self, method: bytes, target: bytes, headers: bytes, body: bytes, sink: Sink) -> Call:
        """Send a request. `headers`: whole lines `name: value\\r\\n` without host, content-length, connection and
        transfer-encoding. `target`: origin-form, sent as it is."""
        if self._timer is None:
            self._arm()
        length = b"content-length: %d\r\n" % len(body) if body or method in BODY_METHODS else b""
        head = b"%b %b HTTP/1.1\r\n%b%b%b\r\n" % (method, target, self._host, headers, length)
        call = Call(self, method, (head + body,) if len(body) <= JOIN else (head, body), sink)
        if self._closed:
            assert self._loop is not None
            self._loop.call_soon(call.fail, closing())
            return call
        idle = self._idle
        while idle:
            link = idle.pop()
            if link.healthy:
                link.used = True
                link.begin(call)
                return call
            link.close()
        self.connect(call)
        return call

    async def close(self) -> None:
        """Fail what is under way, close every connection."""
        self._closed = True
        for call in [link.call for link in self._links if link.call] + list(self.pending):
            call.fail(closing())
        for link in list(self._links):
            link.drop()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for _ in range(200):  # until the transports have said so
            if not self._links:
                break
            await asyncio.sleep(0.005)

    # -- for calls and links

    def connect(self, call: Call) -> None:
        """Get a new connection for this call, or let it wait for one."""
        call.last = self.now
        self.pending.add(call)
        limit = self.limits.max_connections
        if limit and len(self._links) + self._opening >= limit:
            self._waiting.append(call)
            return
        assert self._loop is not None
        self._opening += 1
        call.task = task = self._loop.create_task(self._open(call))
        self._tasks.add(task)
        task.add_done_callback(self._opened)

    def joined(self, link: Link) -> None:
        """A connection opened."""
        self._links.add(link)

    def left(self, link: Link) -> None:
        """A connection closed."""
        self._links.discard(link)
        if link.call is None and link in self._idle:
            self._idle.remove(link)
        self._next()

    def release(self, link: Link, ok: bool) -> None:
        """A call is over; its link idles, carries the next waiting call, or closes."""
        if not ok or self._closed or len(self._idle) >= self.limits.max_idle:
            link.close()
            return
        link.used = True
        link.idle_since = self.now
        if self._waiting and not link.healthy:
            link.close()      # who waits gets a new one when this has left
            return
        while self._waiting:
            call = self._waiting.popleft()
            if not call.done:
                self.pending.discard(call)
                link.begin(call)
                return
        self._idle.append(link)

    def _next(self) -> None:
        limit = self.limits.max_connections
        while self._waiting and len(self._links) + self._opening < limit and not self._closed:
            call = self._waiting.popleft()
            if not call.done:
                self.connect(call)

    def _opened(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        self._opening -= 1
        self._next()

    async def _open(self, call: Call) -> None:
        origin = self.origin
        assert self._loop is not None
        link = Link(self)
        while True:
            try:
                found = await self._addresses.get()
                if len(found) == 1:  # the loop's own way, at two thirds of the cost
                    where: dict[str, Any] = {"host": found[0][4][0], "port": origin.port}
                else:
                    where = {"sock": await start_connection(found, happy_eyeballs_delay=STAGGER, loop=self._loop)}
                await self._loop.create_connection(lambda: link, **where, **self._tls)
                break
            except asyncio.CancelledError:
                # uvloop closes a transport that was just connected without telling its protocol
                if link in self._links:
                    link.drop()
                    self.left(link)
                if not call.done:
                    raise
                return
            except ssl.SSLError as error:
                reason = getattr(error, "verify_message", "") or error.reason or "handshake failed"
                self._fail(call, FirewallError("upstream_tls", "The upstream's identity could not be verified.",
                                               fault="upstream", status=502, detail=f"TLS to {origin.host}: {reason}"))
                return
            except (OSError, UnicodeError, RuntimeError) as error:  # the last: uvloop, of a socket it knows otherwise
                if call.attempt or call.done:
                    self._fail(call, FirewallError(
                        "upstream_connect", "The upstream cannot be reached.", fault="upstream", status=502,
                        detail=f"connect to {origin.host}:{origin.port}: "
                               f"{_reason(error)}"))
                    return
                call.attempt += 1
                call.last = self.now
        if call.done or self._closed:
            link.drop()
            return
        self.pending.discard(call)
        call.task = None
        link.begin(call)

    def _fail(self, call: Call, error: FirewallError) -> None:
        call.task = None
        call.fail(error)

    def _arm(self) -> None:
        self._loop = asyncio.get_running_loop()
        self.now = self._loop.time()
        self._timer = self._loop.call_later(self.limits.period, self._tick)

    def _tick(self) -> None:
        self._timer = None
        if not self._links and not self.pending:
            return  # `send` arms it again
        self._arm()
        for link in list(self._links):
            link.sweep(self.now)
        for call in list(self.pending):
            if self.now - call.last > self.limits.connect_timeout:
                call.fail(late("connect"))


def _reason(error: Exception) -> str:
    """One line, without the addresses (several may have failed)."""
    number = getattr(error, "errno", None) or 0
    return os.strerror(number) if number > 0 else getattr(error, "strerror", None) or type(error).__name__


def closing() -> FirewallError:
    """The pool was closed under a call."""
    return FirewallError("upstream_unavailable", "The firewall is shutting down.", fault="ours", status=503)
