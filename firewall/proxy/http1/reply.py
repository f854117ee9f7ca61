"""One answer: status, head, body bytes, legal end. Framing, date and connection lines are added here.

What is written during one turn of the event loop leaves in one `transport.write`: head and first bytes
together, last bytes and last chunk together. After the client left every method is silent and does nothing,
so a pump never has to ask first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import TYPE_CHECKING

from .grammar import EMPTY

if TYPE_CHECKING:
    from .connection import Connection

LINES = {s.value: b"HTTP/1.1 %d %b\r\n" % (s.value, s.phrase.encode()) for s in HTTPStatus}
CLOSE = b"connection: close\r\n"
KEEP = b"connection: keep-alive\r\n"   # only said to HTTP/1.0


def status_line(status: int) -> bytes:
    """The status line with its CRLF; statuses without a registered phrase get none."""
    return LINES.get(status) or b"HTTP/1.1 %d \r\n" % status


class Reply:
    """The answer to one request. States: fresh -> started -> ended; `gone` when the client left before the end."""

    __slots__ = ("_bare", "_chunked", "_conn", "_left", "ended", "gone", "on_gone", "on_writable", "started",
                 "version")

    def __init__(self, conn: Connection, version: str, bare: bool) -> None:
        self._conn = conn
        self._bare = bare              # no body may leave: HEAD, 204, 304
        self._chunked = False
        self._left = -1                # announced bytes still to come; -1: not announced
        self.version = version
        self.started = self.ended = self.gone = False
        self.on_writable: Callable[[], None] | None = None
        self.on_gone: Callable[[], None] | None = None

    @property
    def writable(self) -> bool:
        """False while more than `high_water` bytes wait for the client (or the client is gone)."""
        return not self._conn.paused and not self.gone

    def start(self, status: int, headers: bytes, length: int | None = None) -> None:
        """Begin: `headers` are whole lines `name: value\\r\\n` without content-length, transfer-encoding, connection
        and date. `length` None: chunked, or to the end of the connection for HTTP/1.0. A second start is a bug."""
        if self.gone:
            return
        if self.started:
            raise RuntimeError("reply already started")
        self.started = True
        conn = self._conn
        if status in EMPTY:
            self._bare = True
            framing = b""
        elif length is not None:
            self._left = length
            framing = b"content-length: %d\r\n" % length
        elif self.version == "1.1":
            self._chunked = True
            framing = b"transfer-encoding: chunked\r\n"
        else:
            conn.keep = self._bare and conn.keep
            framing = b""
        conn.out(b"%b%b%b%b%b\r\n" % (status_line(status), headers, framing, conn.server.date, conn.persistence(self)))

    def write(self, data: bytes) -> None:
        """Body bytes; nothing for HEAD, 204 and 304. More than was announced is a bug and raises RuntimeError."""
        if self.gone or not data:
            return
        if not self.started or self.ended:
            raise RuntimeError("reply written before its start or after its end")
        if self._bare:
            return
        if self._chunked:
            self._conn.out(b"%x\r\n%b\r\n" % (len(data), data))
            return
        if self._left >= 0:
            self._left -= len(data)
            if self._left < 0:
                self.abort()
                raise RuntimeError("reply longer than announced")
        self._conn.out(data)

    def end(self) -> None:
        """The legal end. Fewer bytes than announced: the connection is closed instead, so that the client knows."""
        if self.gone or self.ended:
            return
        if not self.started:
            raise RuntimeError("reply ended before its start")
        if self._left > 0 and not self._bare:
            self.abort()
            return
        self.ended = True
        if self._chunked and not self._bare:
            self._conn.out(b"0\r\n\r\n")
        self._conn.finished()

    def answer(self, status: int, headers: bytes, body: bytes) -> None:
        """The whole answer at once, with Content-Length."""
        if self.gone:
            return
        if self.started or self._bare or status in EMPTY:
            self.start(status, headers, len(body))
            self.end()
            return
        conn = self._conn
        whole = b"%b%bcontent-length: %d\r\n%b%b\r\n%b" % (
            LINES.get(status) or status_line(status), headers, len(body), conn.server.date, conn.persistence(self), body)
        self.started = self.ended = True
        conn.finished(whole)

    async def taken(self) -> bool:
        """Once this has ended: whether the client takes what still waits here for it (not what the kernel has). False
        when it leaves instead, or is cut by the stall rule."""
        conn = self._conn
        if not conn.paused or conn.state == "closed":
            return not conn.paused
        told: asyncio.Future[bool] = conn.server.loop.create_future()
        conn.untaken = lambda taken: None if told.done() else told.set_result(taken)
        return await told

    def abort(self) -> None:
        """Close the connection without a legal end: what was written still leaves."""
        if self.gone or self.ended:
            return
        self.ended = True
        # a body that ends with the connection has no illegal end but a reset
        self._conn.cut(reset=self.started and not self._chunked and self._left < 0 and not self._bare)
