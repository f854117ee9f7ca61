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

import re
from dataclasses import dataclass, field
from typing import Any

import httptools

from ...errors import FirewallError
from .chunked import Chunked
from .limits import Limits

Header = tuple[bytes, bytes]

LINE = re.compile(rb"([A-Z]++) (/[\x21\x22\x24-\x7e]*+) HTTP/1\.([01])")
OTHER_VERSION = re.compile(rb"[A-Z]+ [\x21-\x7e]+ HTTP/[0-9]+(?:\.[0-9]+)?")
FIELD = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]++:[\t\x20-\x7e\x80-\xff]*+")
NAME = re.compile(rb"[!#$%&'*+\-.^`|~0-9A-Za-z]++")
HOST = re.compile(rb"(?:[0-9A-Za-z._~-]++|\[[0-9A-Fa-f:.]++\])(?::([0-9]{1,5}+))?")
METHODS = frozenset((b"GET", b"HEAD", b"POST", b"PUT", b"PATCH", b"DELETE", b"OPTIONS"))
FORBIDDEN = frozenset((b"CONNECT", b"TRACE", b"TRACK"))
SINGLE = frozenset((b"host", b"content-length", b"transfer-encoding", b"content-type", b"content-encoding", b"expect",
                    b"authorization", b"x-api-key", b"api-key", b"x-goog-api-key", b"upgrade"))
HOP = frozenset((b"upgrade", b"http2-settings", b"connection"))

_names: dict[bytes, bytes] = {}       # header name as sent -> checked and lower-case
_lines: dict[bytes, tuple] = {}       # request line without query -> what it says
_hosts: set[bytes] = set()
_CACHE = 512                          # entries; a full cache is simply no longer added to


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


def refusal(code: str, public: str, status: int = 400) -> FirewallError:
    """A client's fault with one of our constant sentences."""
    return FirewallError(code, public, status=status)


class _Ends:
    """What llhttp tells us: header fields as it sees them, and how many messages it saw end. A header goes from
    llhttp into the dict without a Python frame; repeated names show in the dict's length and are read by us."""

    __slots__ = ("ends", "headers", "on_header")

    def __init__(self) -> None:
        self.headers: dict[bytes, bytes] = {}
        self.on_header = self.headers.__setitem__
        self.ends = 0

    def on_message_complete(self) -> None:
        self.ends += 1


class Reader:
    """Framing of one connection's requests. Not reusable after an error."""

    __slots__ = ("_alone", "_at", "_body", "_buf", "_chunked", "_crlf", "_ends", "_left", "_limits", "_lines",
                 "_llhttp", "peer")

    def __init__(self, limits: Limits, peer: str = "") -> None:
        self.peer = peer
        self._limits = limits
        self._buf = b""
        self._at = self._lines = 0        # `_scan`: start of the first unread line, lines read
        self._crlf = False                # one empty line before this request was taken
        self._alone = False               # llhttp gave up at an Upgrade we ignore: one opinion, once
        self._left = 0                    # body bytes still to come, Content-Length only
        self._body: bytearray | None = None
        self._chunked: Chunked | None = None
        self._ends = _Ends()
        self._llhttp = httptools.HttpRequestParser(self._ends)

    def feed(self, data: bytes) -> None:
        """Take bytes from the wire. Never raises."""
        self._buf = self._buf + data if self._buf else data

    @property
    def waiting(self) -> int:
        """Bytes fed and not consumed."""
        return len(self._buf)

    @property
    def received(self) -> int:
        """Bytes of the current body so far."""
        if self._chunked is not None:
            return len(self._chunked.body)
        return len(self._body) if self._body is not None else 0

    def head(self) -> Request | None:
        """The next request, its body still empty, or None while its head is incomplete. Raises FirewallError."""
        buf, limits = self._buf, self._limits
        if not buf:
            return None
        at = self._at
        if buf[0] == 13 and not self._crlf and not at:
            if len(buf) < 2:
                return None
            if buf[1] == 10:
                self._crlf = True
                self._buf = buf = buf[2:]
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
            said = _lines.get(line) or _request_line(line)
        except FirewallError:
            self._scan()
            raise
        ends = self._ends
        raw = ends.headers
        raw.clear()
        ends.ends = 0
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
        names: list[Any] = [*map(_names.get, raw)]
        if len(raw) == count and None not in names:
            headers = [*zip(names, map(bytes.rstrip, raw.values()), strict=True)]
        else:
            headers = self._fields(head)
        request = self._request(said, headers)
        self._buf = buf[end:]
        self._at = self._lines = 0
        self._crlf = False
        if not request.length:
            self._alone = False
        return request

    def body(self, request: Request) -> bool:
        """True when `request.body` is whole. Raises FirewallError 400, 413 (announced or counted) or 431."""
        length = request.length
        if length == 0:
            if self._ends.ends != 1:
                raise refusal("bad_framing", "The end of the request is ambiguous.")
            return True
        buf = self._buf
        if length < 0:
            return self._chunks(request, buf)
        if length > request.limit:
            raise refusal("body_too_large", "The request body is too large.", 413)
        if self._body is None:
            if len(buf) >= length:
                request.body = whole = buf[:length]  # the same object when nothing follows
                self._buf = buf[length:]
                return self._end(whole)
            self._body, self._left = bytearray(), length
        take = buf[:self._left]
        self._buf = buf[len(take):]
        self._left -= len(take)
        self._body += take
        if self._left:
            return False
        request.body = bytes(self._body)
        self._body = None
        return self._end(request.body)

    def _end(self, body: bytes) -> bool:
        """llhttp, fed the same body, must see the message end at its last byte."""
        if self._alone:
            self._alone = False
            return True
        ends = self._ends
        if ends.ends:
            raise refusal("bad_framing", "The end of the request is ambiguous.")
        try:
            self._llhttp.feed_data(body)
        except httptools.HttpParserError:
            ends.ends = -1
        if ends.ends != 1:
            raise refusal("bad_framing", "The end of the request is ambiguous.")
        return True

    def _chunks(self, request: Request, buf: bytes) -> bool:
        chunked = self._chunked
        if chunked is None:
            limits = self._limits
            chunked = self._chunked = Chunked(request.limit, limits.max_chunks, limits.max_trailer)
            self._renew()
            self._alone = False
        self._buf = b""
        chunked.feed(buf)
        if not chunked.done:
            return False
        request.body, self._buf, self._chunked = bytes(chunked.body), chunked.rest, None
        return True

    def _renew(self) -> None:
        self._llhttp = httptools.HttpRequestParser(self._ends)
        self._ends.ends = 1

    def _request(self, said: tuple, headers: list[Header]) -> Request:
        """What the head means, or FirewallError for what no strict reader would take."""
        method, target, path, query, version = said
        fields = dict(headers)
        if len(fields) != len(headers):
            fields = _joined(headers)
        host = fields.get(b"host")
        if host is None:
            if version == "1.1":
                raise refusal("bad_host", "The request must have one Host header.")
        elif host not in _hosts:
            _check_host(host)
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
            fields = _joined(headers)
        return Request(method, target, path, query, version, tuple(headers), b"", self.peer,
                       self._limits.max_body, keep, expect is not None and version == "1.1", length, fields)

    def _fields(self, head: bytes) -> list[Header]:
        """The header fields of a head that llhttp took, read by us: names seen for the first time, or repeated."""
        fields = []
        for line in head.split(b"\r\n")[1:-2]:
            name, _, value = line.partition(b":")
            lower = _names.get(name) or _checked_name(name)
            if lower is None:
                self._scan()
                raise refusal("bad_header", "A header line is malformed.")
            fields.append((lower, value.strip(b" \t")))
        return fields

    def _scan(self) -> None:
        """Read the lines that are complete, one by one, and raise what is wrong with the first bad one."""
        buf, limits, at = self._buf, self._limits, self._at
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
                _request_line(line)
            elif not line:
                return
            elif self._lines > limits.max_headers:
                raise refusal("head_too_large", "The request head is too large.", 431)
            elif FIELD.fullmatch(line) is None:
                raise refusal("bad_header", "A header line is malformed.")
            self._lines += 1
            self._at = at = end + 1


def _checked_name(name: bytes) -> bytes | None:
    if NAME.fullmatch(name) is None:
        return None
    lower = name.lower()
    if len(_names) < _CACHE and len(name) <= 64:
        _names[name] = lower
    return lower


def _request_line(line: bytes) -> tuple:
    match = LINE.fullmatch(line)
    if match is None:
        if OTHER_VERSION.fullmatch(line) and not line.endswith((b" HTTP/1.1", b" HTTP/1.0")):
            raise refusal("bad_version", "Only HTTP/1.1 and HTTP/1.0 are spoken here.", 505)
        if line.partition(b" ")[0] in FORBIDDEN:
            raise refusal("method_not_allowed", "The method is not allowed.", 405)
        raise refusal("bad_request_line", "The request line is malformed.")
    verb, target, minor = match.groups()
    if verb not in METHODS:
        known = verb in FORBIDDEN
        raise refusal("method_not_allowed" if known else "method_unknown", "The method is not allowed.",
                      405 if known else 501)
    path, _, query = target.partition(b"?")
    said = (verb.decode(), target, path.decode("ascii"), query, "1.1" if minor == b"1" else "1.0")
    if not query and len(_lines) < _CACHE and len(line) <= 256:
        _lines[line] = said
    return said


def _check_host(host: bytes) -> None:
    match = HOST.fullmatch(host)
    if match is None or int(match[1] or 0) > 65535:
        raise refusal("bad_host", "The Host header must be host or host:port.")
    if len(_hosts) < _CACHE:
        _hosts.add(host)


def _joined(headers: list[Header]) -> dict[bytes, bytes]:
    fields: dict[bytes, bytes] = {}
    for name, value in headers:
        if name in fields:
            if name in SINGLE:
                raise refusal("duplicate_header", "A header that may stand only once was repeated.")
            value = fields[name] + b", " + value
        fields[name] = value
    return fields


def incomplete() -> FirewallError:
    """The client left inside its body."""
    return FirewallError("body_incomplete", "The request body ended early.")
