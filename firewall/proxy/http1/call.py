"""One request to an upstream, and who hears of its answer."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol

from ...errors import FirewallError

if TYPE_CHECKING:
    from .client import Pool
    from .link import Link


class Sink(Protocol):
    """Who receives an answer. Order: head, data..., end; or `fail` at any point instead of what was to come.
    Exactly one `end` or `fail`, none after `Call.cancel()`, and never inside `Pool.send`. Must not block."""

    def head(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None:
        """The final head (1xx were skipped); names lower-case, values as sent."""

    def data(self, raw: bytes) -> None:
        """Body bytes without chunked coding; still in their content coding."""

    def end(self, complete: bool) -> None:
        """False: the connection ended before the framing said so. See `Call.eof_delimited`."""

    def fail(self, error: FirewallError) -> None:
        """No (whole) answer: connect, TLS, timeout, protocol."""


class Call:
    """A request under way."""

    __slots__ = ("attempt", "begun", "done", "eof_delimited", "heard", "last", "link", "method", "paused", "pieces",
                 "pool", "sink", "task")

    def __init__(self, pool: Pool, method: bytes, pieces: tuple[bytes, ...], sink: Sink) -> None:
        self.pool, self.method, self.pieces, self.sink = pool, method, pieces, sink
        self.link: Link | None = None
        self.task: asyncio.Task[None] | None = None
        self.done = self.paused = self.heard = False
        self.eof_delimited = False       # true at `end`: only the end of the connection ended the body
        self.attempt = 0                 # retries made; at most one
        self.begun = self.last = pool.now

    def pause(self) -> None:
        """Stop reading from the upstream. What one segment already brought may still arrive."""
        if not self.paused and not self.done:
            self.paused = True
            if self.link is not None and not self.link.transport.is_closing():
                self.link.transport.pause_reading()

    def resume(self) -> None:
        """Read again."""
        if self.paused and not self.done:
            self.paused = False
            self.last = self.pool.now
            if self.link is not None and not self.link.transport.is_closing():
                self.link.transport.resume_reading()

    def cancel(self) -> None:
        """Close the upstream socket at once; the sink hears nothing more. Idempotent."""
        if self.done:
            return
        link = self.close()
        if link is not None:
            link.drop()

    def close(self) -> Link | None:
        """Mark as over and let go of the sink and of the link (returned) or the attempt to get one."""
        self.done = True
        self.pieces = ()
        self.sink = DEAF  # sinks hold their call: without this each exchange would wait for the cycle collector
        link, self.link = self.link, None
        if link is not None:
            link.call = None
            return link
        if self.task is not None:
            self.task.cancel()
        self.pool.pending.discard(self)
        return None

    def fail(self, error: FirewallError) -> None:
        """End with an error: the link is closed, the sink told."""
        if self.done:
            return
        sink = self.sink
        link = self.close()
        if link is not None:
            link.drop()
        sink.fail(error)


class _Deaf:
    """The sink of a call that is over."""

    def head(self, status: int, headers: tuple[tuple[bytes, bytes], ...]) -> None: ...
    def data(self, raw: bytes) -> None: ...
    def end(self, complete: bool) -> None: ...
    def fail(self, error: FirewallError) -> None: ...


DEAF = _Deaf()
