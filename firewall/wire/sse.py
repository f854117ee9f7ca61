r"""Server-sent events, incrementally (WHATWG HTML 9.2): bytes in, raw slices out; a slice is read on its own.

The joined raw slices are the input, for every cut of it. A slice ends after an empty line, that is where one line end
follows another; an empty line at the very start of a slice is part of it. LF, CRLF and CR end a line, U+2028 and
friends do not. A CR at the end of what came waits for what follows, since an LF would belong to it.

Nothing is skipped: comments, ids, unknown fields and lines without a colon come out as `rest`, because a client reads
them too. `data` is None for a slice without a data line.

While no CR was ever seen a slice costs one find and one copy.
"""

from __future__ import annotations

from bisect import bisect_left
from typing import NamedTuple

from firewall.errors import FirewallError

EVENTS = b"text/event-stream"
SIZES = [256 << n for n in range(16)]           # to 8 MiB
END = (b"\n\n", b"\r\r", b"\n\r\n")
BOM = b"\xef\xbb\xbf"
# Comments and fields that are nobody's words.
SILENT = frozenset((b":", b": ping", b":ping", b": keep-alive", b":keep-alive", b": keepalive", b":keepalive",
                    b": heartbeat", b":heartbeat", b": OPENROUTER PROCESSING", b"event", b"id", b"retry"))


class Event(NamedTuple):
    """One slice, read. `rest` holds what stood in comments and other fields, joined by line feeds."""

    name: bytes
    data: bytes | None
    rest: bytes = b""


class Events:
    """The incremental framer.

    Args:
        limit: bytes of one event; more is `event_too_large`.
    """

    __slots__ = ("_cr", "_limit", "_line", "_tail", "_wait")

    def __init__(self, limit: int = 1_048_576) -> None:
        self._limit = limit
        self._tail = bytearray()        # the unfinished slice
        self._wait = 0                  # bytes of it known to hold no end
        self._line = 0                  # where its last line begins (general scan only)
        self._cr = False                # a CR was seen: the general scan from then on

    @property
    def between(self) -> bool:
        """No slice is under way, and line ends have only been LF."""
        return not self._tail and not self._cr

    def feed(self, data: bytes) -> list[bytes]:
        """The slices that ended in `data`. Raises FirewallError `event_too_large`."""
        buffer: bytes | bytearray = data
        if self._tail:
            self._tail += data
            buffer = self._tail
        if not self._cr and b"\r" in data:
            self._cr, self._wait, self._line = True, 0, 0
        out: list[bytes] = []
        start = 0
        if self._cr:
            while (end := self._end(buffer, start)) >= 0:
                out.append(bytes(buffer[start:end]))
                start = end
        else:
            scan = self._wait
            while (end := buffer.find(b"\n\n", scan)) >= 0:
                scan = end + 2
                out.append(bytes(buffer[start:scan]))
                start = scan
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
        if out and size > self._limit and max(map(len, out)) > self._limit:
            raise large()
        return out

    def close(self) -> bytes:
        """What is left at the end of the stream: a slice without its end, or nothing."""
        raw, self._tail = bytes(self._tail), bytearray()
        return raw

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


def event(raw: bytes) -> Event:
    """Reads one slice. A byte order mark is skipped: it can only stand at the start of a stream."""
    text = raw.removeprefix(BOM)
    if b"\r" in text:
        text = text.replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    name, data, rest = b"", [], []
    for line in text.split(b"\n"):
        if line.startswith(b"data:"):
            data.append(line[6:] if line.startswith(b"data: ") else line[5:])
        elif line.startswith(b"event:"):
            if name:            # the last one counts; those before it come out too
                rest.append(b"event: " + name)
            name = line[7:] if line.startswith(b"event: ") else line[6:]
        elif line == b"data":
            data.append(b"")
        elif line:
            rest.append(line)
    return Event(name, b"\n".join(data) if data else None, b"\n".join(rest))


def spoken(rest: bytes) -> str:
    """What stands in comments and other fields, unless it is a heartbeat, a number or an id."""
    said = []
    for line in rest.split(b"\n"):
        field, _, value = line.partition(b":")
        value = value.strip()
        if line.rstrip() in SILENT or (field == b"retry" and value.isdigit()) or (
                field == b"id" and value.replace(b"-", b"").replace(b"_", b"").isalnum() and len(value) <= 64):
            continue
        said.append(line.decode("utf-8", "replace"))
    return "\n".join(said)


def padded(data: bytes) -> bytes:
    """Whole events, filled up to one of `SIZES`: who counts bytes on the way learns next to nothing about the words
    (lengths of encrypted tokens give answers away: arXiv 2403.09751). What is larger, or ends inside an event, stays as
    it is.

    The filling is white space behind the last event's JSON, else a comment inside of that event. It is no event of its
    own: clients that keep an `id` (openai-python) take the empty line behind it for an event without data.
    """
    at = bisect_left(SIZES, len(data) + 2)
    if at == len(SIZES) or not data.endswith(END):
        return data
    room = SIZES[at] - len(data)
    body = data.rstrip(b"\r\n")
    if body.endswith(b"}") and body.startswith(b"data:", max(body.rfind(b"\n"), body.rfind(b"\r")) + 1):
        return body + b" " * room + data[len(body):]
    end = len(data) - (2 if data.endswith(b"\r\n") else 1)
    return data[:end] + b":" + b" " * (room - 2) + data[-1:] + data[end:]


def large() -> FirewallError:
    return FirewallError("event_too_large", "The upstream sent an event that is too large.", fault="upstream",
                         status=502, detail="one event of the upstream's stream is larger than the limit (stream.event)")
