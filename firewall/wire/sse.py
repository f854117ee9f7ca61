r"""Server-sent events, incrementally (WHATWG HTML 9.2): bytes in, (raw slice, event name, data, rest) out.

The joined raw slices are the input, for every cut of it. A slice ends after an empty line, that is where one line end
follows another; an empty line at the very start of a slice is part of it. LF, CRLF and CR end a line, U+2028 and
friends do not. A CR at the end of what came waits for what follows, since an LF would belong to it.

Nothing is skipped: comments, ids, unknown fields and lines without a colon come out as `rest`, because a client reads
them too. `data` is None for a slice without a data line.

The fast path (no CR ever seen, one `data: ` line, or one after an `event: ` line) is two finds and two slices.
"""

from __future__ import annotations

from typing import NamedTuple

from firewall.errors import FirewallError

BOM = b"\xef\xbb\xbf"


class Event(NamedTuple):
    """One slice. `rest` holds what stood in comments and other fields, joined by line feeds."""

    raw: bytes
    name: bytes
    data: bytes | None
    rest: bytes = b""


class Events:
    """The incremental framer.

    Args:
        limit: bytes of one event; more is `event_too_large`.
    """

    __slots__ = ("_cr", "_first", "_limit", "_line", "_tail", "_wait")

    def __init__(self, limit: int = 1_048_576) -> None:
        self._limit = limit
        self._tail = bytearray()        # the unfinished slice
        self._wait = 0                  # bytes of it known to hold no end
        self._line = 0                  # where its last line begins (general scan only)
        self._cr = False                # a CR was seen: the general scan from then on
        self._first = True

    def feed(self, data: bytes) -> list[Event]:
        """The slices that ended in `data`. Raises FirewallError `event_too_large`."""
        buffer: bytes | bytearray = data
        if self._tail:
            self._tail += data
            buffer = self._tail
        if not self._cr and b"\r" in data:
            self._cr, self._wait, self._line = True, 0, 0
        out: list[Event] = []
        start, scan = 0, self._wait
        if self._cr:
            while (end := self._end(buffer, start)) >= 0:
                out.append(self._event(bytes(buffer[start:end])))
                start = end
        else:
            while (end := buffer.find(b"\n\n", scan)) >= 0:
                raw = bytes(buffer[start:end + 2])
                line = raw.find(b"\n")
                if raw.startswith(b"data: ") and line == end - start:
                    self._first = False
                    out.append(Event(raw, b"", raw[6:-2]))
                elif raw.startswith(b"event: ") and raw.startswith(b"data: ", line + 1) and (
                        raw.find(b"\n", line + 1) == end - start):
                    self._first = False
                    out.append(Event(raw, raw[7:line], raw[line + 7:-2]))
                else:
                    out.append(self._event(raw))
                start = scan = end + 2
        size = len(buffer)
        rest = size - start
        if rest > self._limit:
            raise large()
        if buffer is self._tail:
            del self._tail[:start]
        elif rest:
            self._tail += data[start:]
        if not self._cr:
            self._wait = max(0, rest - 1)
        if out and size > self._limit and max(len(event.raw) for event in out) > self._limit:
            raise large()
        return out

    def close(self) -> Event | None:
        """What is left at the end of the stream, read as if a line end followed; None where nothing is left."""
        if not self._tail:
            return None
        raw, self._tail = bytes(self._tail), bytearray()
        return self._event(raw)

    def _end(self, buffer: bytes | bytearray, start: int) -> int:
        """Where the slice from `start` ends, or -1: general line ends. Looks at no byte twice."""
        at, seen, size = start + self._line, start + self._wait, len(buffer)
        while True:
            lf, cr = buffer.find(b"\n", seen), buffer.find(b"\r", seen)
            stop = lf if cr < 0 or 0 <= lf < cr else cr
            if stop < 0 or (stop == cr and stop + 1 == size):
                self._line, self._wait = at - start, (size if stop < 0 else stop) - start
                return -1
            after = stop + (2 if stop == cr and buffer[stop + 1] == 10 else 1)
            if stop == at and at > start:
                self._line = self._wait = 0
                return after
            at = seen = after

    def _event(self, raw: bytes) -> Event:
        text = raw
        if self._first:
            self._first = False
            text = text.removeprefix(BOM)
        if self._cr and b"\r" in text:
            text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
        name, data, rest = b"", [], []
        for line in text.split(b"\n"):
            if line.startswith(b"data:"):
                data.append(line[6:] if line.startswith(b"data: ") else line[5:])
            elif line.startswith(b"event:"):
                name = line[7:] if line.startswith(b"event: ") else line[6:]
            elif line == b"data":
                data.append(b"")
            elif line:
                rest.append(line)
        return Event(raw, name, b"\n".join(data) if data else None, b"\n".join(rest))


def large() -> FirewallError:
    return FirewallError("event_too_large", "The upstream sent an event that is too large.", fault="upstream",
                         status=502, detail="one event of the upstream's stream is larger than the limit")
