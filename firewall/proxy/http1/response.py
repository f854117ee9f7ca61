"""Response framing: upstream bytes in; a status, headers, body bytes and an end out. Sans-io, pull-based.

After each `feed` look at: `fresh` (the head is complete: `status`, `headers`), `parts` (body bytes since the
last look; take them and clear the list), `done`. At the end of the connection `eof()` tells whether the answer
was whole. llhttp reads the bytes (no bare LF, no obs-fold, no CL beside TE, no second CL); we add: lines, heads
and header counts are bounded, the status line is exact, any Transfer-Encoding but `chunked` is refused, 101 and
a flood of 1xx are refused, bytes after the end are noticed. `parts.append` is llhttp's own body callback, so a
token costs no Python frame here.

Laws: cut-blind (joined parts, end and error do not depend on the cutting; when a faulty answer is cut
differently more of its good bytes may have come out before the error), bounded, and `done` at most once.
Trailers are dropped. llhttp does not tell where they begin, so they, and chunk lines without end, are bounded as
segments in a row that bring nothing of the body: `max_head` bytes of them (and one segment) are the most.

On a kept connection a head is read by its lines, and those that the last one had too are known; a head that is likely to
come again whole is known as a whole (repeat.py). llhttp reads every byte of every answer, without telling its fields.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any, NamedTuple

import httptools

from ...errors import FirewallError
from .grammar import EMPTY
from .limits import UpstreamLimits
from .repeat import DIGITS, LENGTH, LONGEST, around

Header = tuple[bytes, bytes]

STATUS = re.compile(rb"HTTP/1\.([01]) ([1-9][0-9]{2})(?: [\t\x20-\x7e\x80-\xff]*+)?")
_names: dict[bytes, bytes] = {}                # header name as sent -> lower-case
_statuses: dict[bytes, tuple[str, int]] = {}   # status line -> version, status
_CACHE = 512


def protocol_error(detail: str) -> FirewallError:
    """The upstream broke HTTP. One code for all of it; the operator's `detail` tells what."""
    return FirewallError("upstream_protocol", "The upstream sent an answer that could not be read.",
                         fault="upstream", status=502, detail=detail)


class _Last(NamedTuple):
    """A head that is likely to come again, around the digits of its Content-Length (no `after`: it has none)."""

    before: bytes
    at: int             # len(before)
    far: int            # how far `after` may end
    after: bytes
    status: int
    front: tuple[Header, ...]
    back: tuple[Header, ...]


class Response:
    """One answer. `bodyless`: the request was HEAD."""

    __slots__ = ("_barren", "_begin", "_bodyless", "_buf", "_ended", "_interim", "_keep", "_last", "_left", "_limits",
                 "_llhttp", "_said", "_tail", "done", "eof_delimited", "extra", "fresh", "headers", "on_body",
                 "on_message_begin", "on_message_complete", "parts", "started", "status", "version")

    def __init__(self, limits: UpstreamLimits, bodyless: bool = False) -> None:
        self.status = 0
        self.version = ""
        self.headers: tuple[Header, ...] = ()
        self._last: _Last | None = None
        self._said: dict[bytes, Header] = {}    # the lines of the last head, and what each says
        self.parts: list[bytes] = []
        self.on_body = self.parts.append
        self.started = False         # a whole final head was seen
        self.fresh = False           # ... and nobody has looked yet; the caller sets it back
        self.done = False
        self.eof_delimited = False   # the body ends with the connection
        self.extra = False           # bytes came after the end
        self._limits = limits
        self._bodyless = bodyless
        self._keep = False
        self._buf = self._tail = b""
        self._left = -1              # bytes of a body by Content-Length still to come
        self._interim = 0
        self._barren = 0             # bytes since the last of the body
        # llhttp's callbacks: C functions all of them, a Python frame each would cost as much as the reading
        self._begin: list[None] = [None]    # one answer may begin; behind it, not one byte of a second is taken
        self._ended: list[None] = []        # one for each end that llhttp saw
        self.on_message_begin = self._begin.pop
        self.on_message_complete = partial(self._ended.append, None)
        self._llhttp = httptools.HttpResponseParser(self)

    def again(self, bodyless: bool) -> None:
        """Ready for the next answer on the same connection; only after `reusable`."""
        self.headers = ()
        self.parts.clear()
        self.started = self.fresh = self.done = self.eof_delimited = False
        self._bodyless = bodyless
        self._interim = self._barren = 0
        self._begin.append(None)
        self._ended.clear()

    # -- for the owner of the connection

    @property
    def reusable(self) -> bool:
        """True when the connection may carry another request."""
        return self.done and self._keep and not self.extra and not self.eof_delimited and not self._bodyless

    def feed(self, data: bytes) -> None:
        """Take bytes. Raises FirewallError 502 `upstream_protocol`."""
        if self.done:
            self.extra = True
            return
        rest = data                     # of these bytes: what follows the head
        if not self.started:
            seen = len(self._buf)
            known = self._again(data) if self._last is not None and not seen else None
            if known is None:
                known = self._head(self._buf + data if seen else data, seen)
                if known is None:
                    return
                data = b""              # llhttp has read them together with their head
            rest = known
        if data:
            try:
                self._llhttp.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade):
                if not self._ended:
                    raise protocol_error("malformed body") from None
                self.extra = True  # the answer was whole; what followed was not HTTP
        # was it the end, and is there more?
        if not self.parts and not self._ended:      # trailers as far as they came; what follows the end is none
            self._barren += len(rest)
            if self._barren > self._limits.max_head:
                raise protocol_error("trailers too large")
        elif self._barren:
            self._barren = 0
        # llhttp skips line ends before a message, so those behind this one are looked for here
        if self._left >= 0:
            self._left -= len(rest)
            if self._ended:
                self.done = True
                if self._left < 0:
                    self.extra = True
        else:
            self._tail = rest if len(rest) > 5 else (self._tail + rest)[-6:]
            if self._ended:
                self.done = True
                if len(self._tail) - len(self._tail.rstrip(b"\r\n")) != 4:
                    self.extra = True
                self._tail = b""

    def _again(self, data: bytes) -> bytes | None:
        """The last head once more, with whatever Content-Length: what follows it. None: it is another."""
        last = self._last
        if last is None or self._bodyless or not data.startswith(last.before):
            return None
        _, end, far, after, status, headers, back = last
        left = -1
        if after:
            stop = data.find(after, end, far)
            digits = data[end:stop]
            if stop < 0 or not digits.isdigit() or not (left := int(digits)):
                return None
            end = stop + len(after)
            headers = (*headers, (LENGTH, digits), *back)
        self.status, self.version, self.headers, self._left = status, "1.1", headers, left
        self._keep = self.started = self.fresh = True
        return data[end:]

    def _remember(self, head: bytes, length: bytes | None) -> None:
        """Keep a head whose body has an end that it tells, and behind which the connection goes on."""
        if (self._keep and self._left and not self.eof_delimited and not self._bodyless and self.status not in EMPTY
                and len(head) + DIGITS <= min(LONGEST, self._limits.max_line)):
            before, after, where = head, b"", len(self.headers)
            if length is not None:
                before, after = around(head, length)
                where = self.headers.index((LENGTH, length))
            front, back = self.headers[:where], self.headers[where + 1:]
            self._last = _Last(before, len(before), len(before) + DIGITS + len(after), after, self.status, front, back)

    def eof(self) -> bool:
        """The connection ended. True when the answer is whole."""
        if not self.done and self.started and self.eof_delimited:
            self.done = True
        return self.done

    def _head(self, buf: bytes, seen: int) -> bytes | None:
        """Read a head, and what part of the body came with it: that part. None: no head yet, or none of a body."""
        limits = self._limits
        while True:
            end = buf.find(b"\r\n\r\n", seen - 3 if seen > 3 else 0) + 4
            if end < 4:
                self._unfinished(buf, seen)
                self._buf = buf
                return None
            if end > limits.max_head:
                raise protocol_error("head too large")
            head = buf[:end]
            lines = head.split(b"\r\n")
            self.version, self.status = _statuses.get(lines[0]) or _status(lines[0])
            if self.status >= 200:
                break
            if self.status == 101:
                raise protocol_error("unasked 101")
            self._interim += 1
            if self._interim > limits.max_interim:
                raise protocol_error("too many 1xx answers")
            self._read(lines, head, head)
            buf, seen = buf[end:], 0
            self._begin.append(None)
            self._ended.clear()
            self._llhttp = httptools.HttpResponseParser(self)
        self._buf = b""
        rest = buf[end:]
        bare = not rest or self._bodyless or self.status in EMPTY
        sound = self._read(lines, head, head if bare else buf)
        self._framing(head, lines)
        if not sound:
            raise protocol_error("malformed body")
        self.started = self.fresh = True
        if not bare:
            return rest
        if self._bodyless or self._ended:
            self.done, self.extra = True, bool(rest)
        return None

    def _read(self, lines: list[bytes], head: bytes, data: bytes) -> bool:
        """Let llhttp read a head, and in one go the part of the body that came with it. False: that part is malformed."""
        limits = self._limits
        if len(head) > limits.max_line and max(map(len, lines)) > limits.max_line:
            raise protocol_error("line too long")
        sound = True
        try:
            self._llhttp.feed_data(data)
        except httptools.HttpParserUpgrade:
            raise protocol_error("unasked upgrade") from None
        except httptools.HttpParserError:
            if self._ended:
                self.extra = True  # the answer was whole; what followed was not HTTP
            else:
                sound = False
                try:
                    httptools.HttpResponseParser(None).feed_data(head)
                except httptools.HttpParserError:
                    raise protocol_error("malformed head") from None
        if len(lines) - 3 > limits.max_headers:
            raise protocol_error("too many headers")
        return sound

    def _framing(self, head: bytes, lines: list[bytes]) -> None:
        """Set `headers`, and where the body ends, judged by us; llhttp alone takes `gzip, chunked` and reads `gzip` to the
        end. Most lines of a head are those of the last one on this connection: what they say is known."""
        del lines[-2:], lines[0]
        headers: list[Any] = [*map(self._said.get, lines)]
        if unknown := headers.count(None):
            headers = [pair or _pair(line) for pair, line in zip(headers, lines, strict=True)]
            self._said = dict(zip(lines, headers, strict=True))
        self.headers = (*headers,)
        fields = dict(headers)
        coding, length = fields.get(b"transfer-encoding"), fields.get(b"content-length")
        if len(fields) != len(headers):
            for name in (b"transfer-encoding", b"content-length"):
                if sum(name == n for n, _ in headers) > 1:
                    raise protocol_error("repeated framing header")
        if coding is not None and (coding.lower() != b"chunked" or self.version == "1.0" or length is not None):
            raise protocol_error("Transfer-Encoding is not exactly chunked, in HTTP/1.1, alone")
        if length is not None and (not length.isdigit() or len(length) > 18):
            raise protocol_error("bad Content-Length")
        self._left = int(length) if length is not None else -1
        self._keep = self.version == "1.1"
        if b"connection" in fields:  # several of them: any that says close
            self._keep &= not any(n == b"connection" and b"close" in v.lower() for n, v in headers)
        if coding is None and length is None:
            self.eof_delimited = not (self._bodyless or self.status in EMPTY)
        if unknown < 2:  # it is likely to come again
            self._remember(head, length)

    def _unfinished(self, buf: bytes, seen: int) -> None:
        """Refuse early what can no longer become a legal head."""
        if len(buf) > self._limits.max_head:
            raise protocol_error("head too large")
        if not b"HTTP/1.1 ".startswith(buf[:9]) and not b"HTTP/1.0 ".startswith(buf[:9]):
            raise protocol_error("malformed status line")
        at = buf.find(b"\n", seen)
        while at >= 0:
            if buf[at - 1] != 13:
                raise protocol_error("bare line feed in the head")
            at = buf.find(b"\n", at + 1)


def _pair(line: bytes) -> Header:
    """What a header line says that llhttp took."""
    name, _, value = line.partition(b":")
    lower = _names.get(name)
    if lower is None:
        lower = name.lower()
        if len(_names) < _CACHE and len(name) <= 64:
            _names[name] = lower
    return lower, value.strip(b" \t")


def _status(line: bytes) -> tuple[str, int]:
    match = STATUS.fullmatch(line)
    if match is None:
        raise protocol_error("malformed status line")
    said = ("1.1" if match[1] == b"1" else "1.0", int(match[2]))
    if len(_statuses) < _CACHE and len(line) <= 64:
        _statuses[line] = said
    return said
