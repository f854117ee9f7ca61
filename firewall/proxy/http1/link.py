"""One connection to an upstream: writes a call's request, reads its answer, tells the sink.

Reuse only after an answer was read to its end, with no byte too many, while everything of ours had left.
A byte on an idle connection closes it, read or still in the kernel: an answer that came before the next question must
never meet it. (One that comes after the question was written looks like its answer: nobody can tell them apart.)

Retry (R15). A request on a reused connection may meet a server that just closed it. Sending a prompt twice
costs money, so a POST is sent again only when the kernel can show that the other side never acknowledged a
byte of it (TCP_INFO, Linux, plain TCP); GET, HEAD and OPTIONS also without that proof. Once at most, and never
after a byte of an answer.

A body that ends with the connection is whole only when the other side ended it: over TLS that is its close_notify, since
anybody on the path can forge the end of a TCP stream (RFC 8446 6.1, RFC 9112 9.8).
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, cast

from ...errors import FirewallError
from . import kernel
from .call import Call
from .response import Response

if TYPE_CHECKING:
    from .client import Pool

SAFE = frozenset((b"GET", b"HEAD", b"OPTIONS"))


class Link(asyncio.Protocol):
    """An upstream connection of a pool, idle or carrying one call."""

    __slots__ = ("_before", "_ear", "_ended", "_sent", "_unseen", "call", "idle_since", "pool", "response", "transport",
                 "used")

    def __init__(self, pool: Pool) -> None:
        self.pool = pool
        self.call: Call | None = None
        self.response = Response(pool.limits)
        self.used = False            # carries its second or later request
        self.idle_since = 0.0
        self._sent = self._before = 0
        self._unseen = False
        self._ended = False          # the other side said that it ends; TLS calls `eof_received` at close_notify alone

    @property
    def healthy(self) -> bool:
        """An idle link may be used: open, silent, and not too old."""
        return not (self.transport.is_closing() or self.pool.now - self.idle_since >= self.pool.limits.keepalive
                    or self._ear.poll(0))

    def begin(self, call: Call) -> None:
        """Send the call's request."""
        self.call, call.link = call, self
        call.last = self.pool.now
        self._before = self._sent
        for piece in call.pieces:
            self._sent += len(piece)
            self.transport.write(piece)
        bodyless = call.method == b"HEAD"
        if bodyless or self.used:
            self.response.again(bodyless)
        if call.paused:
            self.transport.pause_reading()

    def close(self) -> None:
        """Let go. Of bytes that are still ours nobody would ask when they leave: an answer came before they did."""
        self.idle_since = self.pool.now
        if self.transport.get_write_buffer_size():
            self.transport.abort()
        else:
            self.transport.close()

    def drop(self) -> None:
        """Close at once."""
        self.transport.abort()

    # -- what the transport says

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)
        self._ear = kernel.ear(self.transport)
        self.idle_since = self.pool.now     # a sweep may come before the call that it was opened for
        self.pool.joined(self)

    def data_received(self, data: bytes) -> None:
        call = self.call
        if call is None:
            self.transport.abort()
            return
        response = self.response
        call.last = self.pool.now
        call.heard = True
        try:
            response.feed(data)
            sink = call.sink
            if response.fresh:
                response.fresh = False
                call.pieces = ()
                sink.head(response.status, response.headers)
                if self.call is not call:
                    return
            parts = response.parts
            if parts:
                raw = b"".join(parts)   # of one it is that one, not a copy
                parts.clear()
                sink.data(raw)
        except FirewallError as error:
            call.fail(error)
            return
        except Exception as error:  # a sink that breaks must not leave the call hanging
            call.fail(FirewallError("internal", "The firewall failed.", fault="ours", status=500,
                                    detail=type(error).__name__))
            return
        if response.done and self.call is call:
            self._finish(call)

    def _finish(self, call: Call) -> None:
        transport = self.transport
        ok = self.response.reusable and not transport.get_write_buffer_size()  # all of ours has left
        if call.paused:
            call.resume()
        sink = call.sink
        call.close()
        self.pool.release(self, ok)
        sink.end(True)

    def eof_received(self) -> None:
        call = self.call
        self._ended = True
        if call is not None and not call.heard and self.used:
            self._unseen = _unacknowledged(self.transport, self._before)

    def connection_lost(self, exc: Exception | None) -> None:
        self.pool.left(self)
        call = self.call
        response = self.response
        if call is None:
            return
        if response.started:
            honest = self._ended or self.pool.origin.ssl is None
            complete = exc is None and honest and response.eof()
            call.eof_delimited = response.eof_delimited
            sink = call.sink
            call.close()
            sink.end(complete)
        elif self.used and not call.heard and not call.attempt and (self._unseen or call.method in SAFE):
            call.attempt += 1
            self.call = call.link = None
            self.pool.connect(call)
        else:
            call.fail(FirewallError("upstream_closed", "The upstream closed the connection without an answer.",
                                    fault="upstream", status=502))

    def sweep(self, now: float) -> None:
        """Compare the clocks."""
        call, limits = self.call, self.pool.limits
        if call is None:
            if now - self.idle_since > limits.keepalive:
                (self.drop if self.transport.is_closing() else self.close)()    # behind TLS more may wait than it says
        elif limits.total and now - call.begun > limits.total:
            call.fail(late("whole call"))
        elif not self.response.started:
            if now - call.begun > limits.head_timeout:
                call.fail(late("head"))
        elif not call.paused and now - call.last > limits.idle_timeout:
            call.fail(late("idle"))


def late(what: str) -> FirewallError:
    """The upstream took too long."""
    return FirewallError("upstream_timeout", "The upstream took too long.", fault="upstream", status=504, detail=what)


def _unacknowledged(transport: asyncio.Transport, before: int) -> bool:
    """True when the peer's kernel acknowledged nothing beyond the first `before` bytes we sent."""
    if transport.get_extra_info("ssl_object") is not None:
        return False
    acked = kernel.acked(transport)
    return acked is not None and acked <= before + 1  # the handshake counts as one
