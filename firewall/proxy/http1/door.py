"""Where TLS connections come in: each counts against the cap when it is accepted, not when it has shaken hands.

asyncio's own TLS server shows a connection only after the handshake. Until then a socket that says nothing belongs to
nobody, ten seconds long, and a few hundred of them take every file descriptor (R13, K11). So the accepting is done here
and the rest is asyncio's: `connect_accepted_socket` shakes hands in the loop's own TLS, and a task exists only so long.
"""

from __future__ import annotations

import asyncio
import os
import socket
from functools import partial
from ssl import SSLContext
from typing import TYPE_CHECKING

from .connection import Connection
from .limits import RESERVE

if TYPE_CHECKING:
    from .server import Server

BATCH = 64  # connections accepted before other events get their turn
RETRY = 1.0  # seconds until accepting is tried again when no file descriptor was left
NEVER = 1e9  # seconds for a close_notify to be answered: the server's sweep decides, it knows whether bytes still leave


class Door:
    """Accepts on bound sockets (duplicates of them: closing the door closes nobody else's)."""

    def __init__(self, server: Server, context: SSLContext, backlog: int) -> None:
        self._server, self._context, self._backlog = server, context, backlog
        self._sockets: list[socket.socket] = []

    def open(self, bound: list[socket.socket]) -> None:
        """Listen. Raises OSError."""
        for each in bound:
            sock = socket.socket(fileno=os.dup(each.fileno()))
            self._sockets.append(sock)
            sock.setblocking(False)
            sock.listen(self._backlog)
            self._listen(sock)

    def close(self) -> None:
        """Accept no more. Idempotent."""
        while self._sockets:
            sock = self._sockets.pop()
            self._server.loop.remove_reader(sock)
            sock.close()

    def _listen(self, sock: socket.socket) -> None:
        if sock in self._sockets:
            self._server.loop.add_reader(sock, self._accept, sock)

    def _accept(self, sock: socket.socket) -> None:
        server, loop = self._server, self._server.loop
        limits = server.limits
        for _ in range(BATCH):
            try:
                accepted, _ = sock.accept()
            except (BlockingIOError, InterruptedError, ConnectionAbortedError):
                return
            except OSError:  # no descriptor: the socket stays readable, so look away for a moment
                loop.remove_reader(sock)
                loop.call_later(RETRY, self._listen, sock)
                return
            count = server.connections
            if count >= server.most_connections + RESERVE // 2:
                accepted.close()
                continue
            # beyond the cap there is no time for silence: shake hands, to be served or told so
            patience = limits.header_timeout if count < server.most_connections else limits.linger
            accepted.setblocking(False)
            connection = Connection(server)
            task = loop.create_task(self._shake(connection, accepted, max(1.0, patience)))
            server.shaking[connection] = task
            task.add_done_callback(partial(self._shaken, connection, accepted))

    async def _shake(self, connection: Connection, sock: socket.socket, patience: float) -> None:
        try:
            await self._server.loop.connect_accepted_socket(
                lambda: connection, sock, ssl=self._context, ssl_handshake_timeout=patience,
                ssl_shutdown_timeout=NEVER)
        except OSError:  # reset, late, or not TLS: nobody to answer
            pass

    def _shaken(self, connection: Connection, sock: socket.socket, task: asyncio.Task[None]) -> None:
        self._server.shaking.pop(connection, None)
        if task.cancelled():
            sock.close()
