"""Newline-delimited JSON, incrementally: bytes in, (raw slice, line) out; the joined slices are the input.

A slice ends with LF; CR before it and blank lines are white space. The last line may lack its end.
"""

from __future__ import annotations

from typing import NamedTuple

from firewall.wire.sse import large


class Line(NamedTuple):
    """One slice; `data` is None for a blank one."""

    raw: bytes
    data: bytes | None


class Lines:
    """The incremental framer.

    Args:
        limit: bytes of one line; more is `event_too_large`.
    """

    __slots__ = ("_limit", "_tail")

    def __init__(self, limit: int = 1_048_576) -> None:
        self._limit, self._tail = limit, bytearray()

    def feed(self, data: bytes) -> list[Line]:
        """The lines that ended in `data`. Raises FirewallError `event_too_large`."""
        out: list[Line] = []
        start = 0
        while (end := data.find(b"\n", start)) >= 0:
            raw = data[start:end + 1]
            if self._tail:
                raw, self._tail = bytes(self._tail) + raw, bytearray()
            if len(raw) > self._limit:
                raise large()
            out.append(Line(raw, raw.strip() or None))
            start = end + 1
        self._tail += data[start:] if start else data
        if len(self._tail) > self._limit:
            raise large()
        return out

    def close(self) -> Line | None:
        """The last line, where it lacks its end."""
        if not self._tail:
            return None
        raw, self._tail = bytes(self._tail), bytearray()
        return Line(raw, raw.strip() or None)
