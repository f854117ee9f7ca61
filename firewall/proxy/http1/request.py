"""Request framing: bytes in, requests out, nothing else. The strict half of the firewall's front door.

The idea. A proxy is smuggled past when two parsers disagree about where a message ends or what it says. So
this file makes disagreement an error instead of a vulnerability. Every head is read twice: by llhttp, which
knows the grammar of header fields (no bare CR or LF, no NUL or control bytes, no obs-fold, no space before
the colon, no Content-Length beside Transfer-Encoding, one Content-Length), and by us, from the raw bytes,
for what llhttp lets pass (measured, httptools 0.9):

    accepted by llhttp                         here
    `Transfer-Encoding: ,chunked` / `gzip, chunked`, TE in HTTP/1.0      400
    `HTTP/2.0`, `HTTP/0.9`, no version at all                            505, 505, 400
    two spaces in the request line, any number of empty lines before it   400, one CRLF is taken
    absolute-form, `#`, CONNECT, Upgrade tunnels                         400, 400, 405, never a tunnel
    two Host fields, no Host, `Host: a/?x#`, names with `_`              400
    heads and lines without end                                          414 / 431
    17 digits of chunk size, extensions without end                      400 (chunked.py)

Then the two must agree on the end: llhttp is fed exactly the bytes we believe are this message and must say
"complete" at the last of them, not before and not after, or the connection ends with 400. Bodies in chunks
are read by chunked.py alone. Nothing that failed is ever shown: errors carry constant sentences.

A kept connection mostly brings the same head again. What our reading makes of a head follows from its bytes, so for the
same bytes it is not done again (repeat.py). llhttp reads every message.

Laws (tests/proxy/http1/test_request.py)
1. Cut-blind: any cutting of the input gives the same requests and the same error.
2. First fault wins: the error is the one a reader going byte by byte meets first. The fast path reads whole
   heads at once; when anything is wrong it hands over to `_scan`, the slow reader, which goes line by line
   and is also what watches a head that comes in pieces. `_scan` refuses nothing that the fast path takes.
3. Bounded: at most `max_head` plus one segment is held for a head, at most the limit for a body, and
   nothing is reserved because a client announced it.
4. One at a time: nothing behind the current request is looked at until `head()` is called again.

Refused on purpose: repeated fields of which only one can be meant (Host, Content-Type, Authorization, ...),
because the first and the last are the two answers that parsers give. Upgrade to h2c is ignored, as RFC 9110
allows, because Java's client always asks; every other Upgrade is 403. A request is not "repaired", ever.

Use: `feed(data)`, then `head()` until it gives a Request, then `body(request)` until True, then `head()` ...
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import partial
from typing import Any, NamedTuple

import httptools

from ...errors import FirewallError
from .chunked import Chunked
from .grammar import FIELD, HOSTS, LINES, NAMES, Header, check_host, checked_name, joined, refusal, request_line
from .limits import Limits
from .repeat import DIGITS, LENGTH, LONGEST, around

HOPE = 3  # some clients never say the same head twice (an id in each), and keeping it costs as much as it saves
HOP = frozenset((b"upgrade", b"http2-settings", b"connection"))


@dataclass(slots=True)
class Request:
    """One request. `path` and `target` are as sent, never decoded; header names are lower-case, values without
    outer white space; `limit` may be lowered or raised by `App.head` before the body is read."""

    method: str
    target: bytes
    path: str
    query: bytes
    version: str
    headers: tuple[Header, ...]
    body: bytes = b""
    peer: str = ""
    limit: int = 0
    keep_alive: bool = True
    expect: bool = False
    length: int = 0          # announced Content-Length; -1: chunked
    _fields: dict[bytes, bytes] = field(default_factory=dict, repr=False)
    matched: Any = None      # the app's own, from `App.head` to `App.request`

    def get(self, name: bytes) -> bytes | None:
        """The value of a header by its lower-case name; repeated ones joined by `, ` (RFC 9110 5.3)."""
        return self._fields.get(name)


class _Ear:
    """What llhttp tells us: that a message ended and, where it is asked, the header fields as it sees them. No Python
    frame stands between llhttp and dict or list; repeated names show in the dict's length and are read by us."""

    __slots__ = ("on_header", "on_message_complete")

    def __init__(self, ended: list[None], fields: dict[bytes, bytes] | None) -> None:
        self.on_header = None if fields is None else fields.__setitem__
        self.on_message_complete = partial(ended.append, None)


class _Last(NamedTuple):
    """The head that was taken last, around the digits of its Content-Length, and what it says."""

    before: bytes
    at: int             # len(before)
    far: int            # how far `after` may end
    after: bytes
    said: tuple[str, bytes, str, bytes, str]
    front: tuple[Header, ...]
    back: tuple[Header, ...]
    fields: dict[bytes, bytes]
    expect: bool
    llhttp: httptools.HttpRequestParser


class Reader:
    """Framing of one connection's requests. Not reusable after an error."""

    __slots__ = ("_alone", "_at", "_body", "_chunked", "_crlf", "_ended", "_fields", "_full", "_hope", "_last",
                 "_left", "_limits", "_lines", "_llhttp", "buf", "peer")

    def __init__(self, limits: Limits, peer: str = "") -> None:
        self.peer = peer
        self._limits = limits
        self.buf = b""                    # fed and not consumed
        self._at = self._lines = 0        # `_scan`: start of the first unread line, lines read
        self._crlf = False                # one empty line before this request was taken
        self._alone = False               # llhttp gave up at an Upgrade we ignore: one opinion, once
        self._left = 0                    # body bytes still to come, Content-Length only
        self._body: bytearray | None = None
        self._chunked: Chunked | None = None
        self._last: _Last | None = None
        self._hope = HOPE                 # heads that will be kept before one must have come again
        self._ended: list[None] = []      # one for each end that llhttp saw
        self._fields: dict[bytes, bytes] = {}
        self._full = httptools.HttpRequestParser(_Ear(self._ended, self._fields))
        self._llhttp = self._full         # which reads the message under way: this, or the one of `_last`

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Never raises."""
        self.buf = self.buf + data if self.buf else data

    @property
    def waiting(self) -> int:
        """Bytes fed and not consumed."""
        return len(self.buf)

    @property
    def received(self) -> int:
        """Bytes of the current body so far."""
        if self._chunked is not None:
            return len(self._chunked.body)
        return len(self._body) if self._body is not None else 0

    def head(self) -> Request | None:
        """The next request, its body still empty, or None while its head is incomplete. Raises FirewallError."""
        buf, limits = self.buf, self._limits
        if not buf:
            return None
        last = self._last
        if last is not None and buf.startswith(last.before) and (request := self._again(last)) is not None:
            return request
        at = self._at
        if buf[0] == 13 and not self._crlf and not at:
            if len(buf) < 2:
                return None
            if buf[1] == 10:
                self._crlf = True
                self.buf = buf = buf[2:]
        end = buf.find(b"\r\n\r\n", at - 2 if at else 0) + 4
        if end < 4:
            if buf:
                self._scan()
            return None
        head = buf if end == len(buf) else buf[:end]
        if end > limits.max_line:
            self._scan()
        line = head[:head.find(b"\r\n")]
        try:
            said = LINES.get(line) or request_line(line)
        except FirewallError:
            self._scan()
            raise
        raw = self._fields
        raw.clear()
        self._ended.clear()
        self._llhttp = self._full
        try:
            self._llhttp.feed_data(head)
        except httptools.HttpParserUpgrade:  # llhttp stops here, even when a body follows
            self._renew()
            self._alone = True
        except httptools.HttpParserError:
            self._scan()
            raise refusal("bad_header", "The request head is malformed.") from None
        count = head.count(b"\r\n") - 2
        if count > limits.max_headers or end > limits.max_head:
            self._scan()
            raise refusal("head_too_large", "The request head is too large.", 431)
        names: list[Any] = [*map(NAMES.get, raw)]
        if len(raw) != count or None in names or b" \r\n" in head or b"\t\r\n" in head:
            headers = self._listed(head)
        else:
            headers = [*zip(names, raw.values(), strict=True)]
        request = self._request(said, headers)
        self.buf = buf[end:]
        self._at = self._lines = 0
        self._crlf = False
        if self._hope and request.length > 0 and request.keep_alive and not self._alone \
                and end + DIGITS <= min(LONGEST, limits.max_line):
            self._remember(head, said, request)
        if not request.length:
            self._alone = False
        return request

    def _remember(self, head: bytes, said: tuple[str, bytes, str, bytes, str], request: Request) -> None:
        self._hope -= 1
        headers, fields = request.headers, request._fields
        value = fields[LENGTH]
        where = headers.index((LENGTH, value))
        llhttp = self._last.llhttp if self._last is not None else httptools.HttpRequestParser(_Ear(self._ended, None))
        before, after = around(head, value)
        self._last = _Last(before, len(before), len(before) + DIGITS + len(after), after, said, headers[:where],
                           headers[where + 1:], fields, request.expect, llhttp)

    def _again(self, last: _Last) -> Request | None:
        """The last head once more, with whatever Content-Length; None: it is another, and read like any other. llhttp reads
        head and body of both, and must see the message end where we do."""
        buf = self.buf
        _, at, far, after, said, front, back, fields, expect, llhttp = last
        stop = buf.find(after, at, far)
        digits = buf[at:stop]
        if stop < 0 or not digits.isdigit() or not (length := int(digits)):
            return None
        self._ended.clear()
        self._hope, self._llhttp = HOPE, llhttp
        end = stop + len(after)
        try:
            llhttp.feed_data(buf[:end])
        except httptools.HttpParserError:
            raise refusal("bad_header", "The request head is malformed.") from None
        self.buf = buf[end:]
        self._at = self._lines = 0
        self._crlf = False
        return Request(*said, (*front, (LENGTH, digits), *back), b"", self.peer, self._limits.max_body, True, expect, length,
                       {**fields, LENGTH: digits})

    def body(self, request: Request) -> bool:
        """True when `request.body` is whole. Raises FirewallError 400, 413 (announced or counted) or 431."""
        length = request.length
        ended = self._ended
        if length == 0:
            if len(ended) != 1:
                raise refusal("bad_framing", "The end of the request is ambiguous.")
            return True
        if length < 0:
            return self._chunks(request, self.buf)
        if length > request.limit:
            raise refusal("body_too_large", "The request body is too large.", 413)
        buf = self.buf
        if self._body is None and len(buf) >= length:
            body = buf[:length]  # the same object when nothing follows
            self.buf = buf[length:]
        else:
            if self._body is None:
                self._body, self._left = bytearray(), length
            take = buf[:self._left]
            self.buf = buf[len(take):]
            self._left -= len(take)
            self._body += take
            if self._left:
                return False
            body, self._body = bytes(self._body), None
        request.body = body
        if self._alone:
            self._alone = False
            return True
        if not ended:  # llhttp, fed the same body, must see the message end at its last byte
            try:
                self._llhttp.feed_data(body)
            except httptools.HttpParserError:
                ended.clear()
            if len(ended) == 1:
                return True
        raise refusal("bad_framing", "The end of the request is ambiguous.")

    def _chunks(self, request: Request, buf: bytes) -> bool:
        chunked = self._chunked
        if chunked is None:
            limits = self._limits
            chunked = self._chunked = Chunked(request.limit, limits.max_chunks, limits.max_trailer)
            self._renew()
            self._alone = False
        self.buf = b""
        chunked.feed(buf)
        if not chunked.done:
            return False
        request.body, self.buf, self._chunked = bytes(chunked.body), chunked.rest, None
        return True

    def _renew(self) -> None:
        self._full = httptools.HttpRequestParser(_Ear(self._ended, self._fields))
        self._ended[:] = [None]

    def _request(self, said: tuple, headers: list[Header]) -> Request:
        """What the head means, or FirewallError for what no strict reader would take."""
        method, target, path, query, version = said
        fields = dict(headers)
        if len(fields) != len(headers):
            fields = joined(headers)
        host = fields.get(b"host")
        if host is None:
            if version == "1.1":
                raise refusal("bad_host", "The request must have one Host header.")
        elif host not in HOSTS:
            check_host(host)
        length = 0
        announced, coding = fields.get(b"content-length"), fields.get(b"transfer-encoding")
        if coding is not None:
            if version == "1.0" or announced is not None or coding.lower() != b"chunked":
                raise refusal("bad_framing", "Transfer-Encoding must be exactly `chunked`, in HTTP/1.1, alone.")
            length = -1
        elif announced is not None:
            if not announced.isdigit() or len(announced) > 18:
                raise refusal("bad_framing", "Content-Length must be a number.")
            length = int(announced)
        keep = version == "1.1"
        connection = fields.get(b"connection")
        if connection is not None:
            tokens = connection.lower().replace(b" ", b"").split(b",")
            keep = b"close" not in tokens and (keep or b"keep-alive" in tokens)
        expect = fields.get(b"expect")
        if expect is not None and version == "1.1" and expect.lower() != b"100-continue":
            raise refusal("bad_expect", "Only `Expect: 100-continue` is understood.", 417)
        if b"upgrade" in fields:
            if fields[b"upgrade"].lower() != b"h2c":
                raise refusal("upgrade_not_allowed", "Protocol upgrades are not allowed.", 403)
            headers = [pair for pair in headers if pair[0] not in HOP]
            fields = joined(headers)
        return Request(method, target, path, query, version, tuple(headers), b"", self.peer,
                       self._limits.max_body, keep, expect is not None and version == "1.1", length, fields)

    def _listed(self, head: bytes) -> list[Header]:
        """The header fields of a head that llhttp took, read by us: names seen for the first time, or repeated, or
        white space behind values (which llhttp leaves there)."""
        fields = []
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            lower = NAMES.get(name) or checked_name(name)
            if lower is None:
                self._scan()
                raise refusal("bad_header", "A header line is malformed.")
            fields.append((lower, value.strip(b" \t")))
        return fields

    def _scan(self) -> None:
        """Read the lines that are complete, one by one, and raise what is wrong with the first bad one."""
        buf, limits, at = self.buf, self._limits, self._at
        if not self._lines and not 65 <= buf[0] <= 90:
            raise refusal("bad_request_line", "The request line is malformed.")
        while True:
            end = buf.find(b"\n", at)
            length = (end - 1 if end >= 0 else len(buf) - 1) - at
            if length > limits.max_line:
                if not self._lines:
                    raise refusal("uri_too_long", "The request line is too long.", 414)
                raise refusal("head_too_large", "The request head is too large.", 431)
            if (end if end >= 0 else len(buf) - 1) >= limits.max_head:
                raise refusal("head_too_large", "The request head is too large.", 431)
            if end < 0:
                return
            line = buf[at:end - 1] if end > at else b""
            if end == at or buf[end - 1] != 13:
                raise refusal("bad_header" if self._lines else "bad_request_line", "Lines must end in CRLF.")
            if not self._lines:
                request_line(line)
            elif not line:
                return
            elif self._lines > limits.max_headers:
                raise refusal("head_too_large", "The request head is too large.", 431)
            elif FIELD.fullmatch(line) is None:
                raise refusal("bad_header", "A header line is malformed.")
            self._lines += 1
            self._at = at = end + 1


def incomplete() -> FirewallError:
    """The client left inside its body."""
    return FirewallError("body_incomplete", "The request body ended early.")
