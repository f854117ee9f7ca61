"""Request framing: the laws of request.py, its table line by line, and h11 and http.client as other opinions."""

from __future__ import annotations

import http.client
import io
from http.server import BaseHTTPRequestHandler

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.proxy.http1 import Limits, Reader, Request

SMALL = Limits(max_line=200, max_head=600, max_headers=12, max_body=4000, max_chunks=50, max_trailer=120)


def read(pieces: list[bytes], limits: Limits = SMALL) -> list[tuple]:
    """Requests in order, as tuples, and the error's code and status at the end if there was one."""
    reader, out = Reader(limits, "peer"), []
    request: Request | None = None
    try:
        for piece in pieces:
            reader.feed(piece)
            while True:
                if request is None:
                    request = reader.head()
                    if request is None:
                        break
                if not reader.body(request):
                    break
                out.append((request.method, request.target, request.path, request.query, request.version,
                            request.headers, request.body, request.keep_alive, request.expect))
                if not request.keep_alive:
                    return out
                request = None
    except FirewallError as error:
        out.append((error.code, error.status))
    return out


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({p % (len(data) + 1) for p in places})
    return [p for p in (data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)) if p]


def one(raw: bytes, limits: Limits = SMALL) -> tuple:
    (result,) = read([raw], limits)
    return result


GET = b"GET /v1/models HTTP/1.1\r\nHost: a\r\n"
POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"

REFUSED = {
    "A01 length and chunked": (POST + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "A02 chunked and length": (POST + b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 400),
    "A03 same length twice": (POST + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", 400),
    "A03 two lengths": (POST + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", 400),
    "A03 list of lengths": (POST + b"Content-Length: 5, 5\r\n\r\nhello", 400),
    "A04 length with sign": (POST + b"Content-Length: +5\r\n\r\nhello", 400),
    "A04 length in hex": (POST + b"Content-Length: 0x5\r\n\r\nhello", 400),
    "A04 length of 19 digits": (POST + b"Content-Length: 0000000000000000005\r\n\r\nhello", 400),
    "A04 empty length": (POST + b"Content-Length: \r\n\r\n", 400),
    "A05 comma chunked": (POST + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n", 400),
    "A05 gzip, chunked": (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 400),
    "A05 chunked, gzip": (POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n", 400),
    "A05 identity": (POST + b"Transfer-Encoding: identity\r\n\r\n", 400),
    "A05 empty coding": (POST + b"Transfer-Encoding:\r\n\r\n", 400),
    "A05 coding twice": (POST + b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "A05 vertical tab": (POST + b"Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", 400),
    "A05 quoted": (POST + b'Transfer-Encoding: "chunked"\r\n\r\n0\r\n\r\n', 400),
    "A07 chunked in 1.0": (b"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400),
    "A10 long extension": (CHUNKED + b"1;" + b"a" * 257 + b"\r\nx\r\n0\r\n\r\n", 400),
    "A10 endless extension": (CHUNKED + b"1;" + b"a" * 2000, 400),
    "A10 newline in extension": (CHUNKED + b"1;a\nb\r\nx\r\n0\r\n\r\n", 400),
    "A11 underscore": (CHUNKED + b"0_1\r\nx\r\n0\r\n\r\n", 400),
    "A11 plus": (CHUNKED + b"+1\r\nx\r\n0\r\n\r\n", 400),
    "A11 0x": (CHUNKED + b"0x1\r\nx\r\n0\r\n\r\n", 400),
    "A11 space before": (CHUNKED + b" 1\r\nx\r\n0\r\n\r\n", 400),
    "A11 space after": (CHUNKED + b"1 \r\nx\r\n0\r\n\r\n", 400),
    "A11 17 digits": (CHUNKED + b"00000000000000001\r\nx\r\n0\r\n\r\n", 400),
    "A11 empty size": (CHUNKED + b"\r\nx\r\n0\r\n\r\n", 400),
    "A11 not a digit": (CHUNKED + b"g\r\nx\r\n0\r\n\r\n", 400),
    "A12 bare LF in chunks": (CHUNKED + b"1\nx\n0\n\n", 400),
    "A12 no CRLF after data": (CHUNKED + b"1\r\nxy\r\n0\r\n\r\n", 400),
    "A12 bare CR after data": (CHUNKED + b"1\r\nx\r0\r\n\r\n", 400),
    "A12 huge chunk": (CHUNKED + b"fffffffffffffff\r\nx", 413),
    "A12 too many chunks": (CHUNKED + b"1\r\nx\r\n" * 51, 400),
    "A14 many trailers": (CHUNKED + b"0\r\n" + b"X-A: b\r\n" * 30, 431),
    "A14 endless trailer": (CHUNKED + b"0\r\nX-A: " + b"b" * 200, 431),
    "A14 folded trailer": (CHUNKED + b"0\r\nX-A: b\r\n c\r\n\r\n", 400),
    "A15 bare CR": (GET + b"X: a\rb\r\n\r\n", 400),
    "A15 NUL": (GET + b"X: a\0b\r\n\r\n", 400),
    "A15 obs-fold": (GET + b"X: a\r\n b\r\n\r\n", 400),
    "A15 tab fold": (GET + b"X: a\r\n\tb\r\n\r\n", 400),
    "A15 space before colon": (GET + b"X : a\r\n\r\n", 400),
    "A15 leading space": (b"GET / HTTP/1.1\r\n Host: a\r\n\r\n", 400),
    "A15 bare LF": (b"GET / HTTP/1.1\nHost: a\n\n", 400),
    "A15 one bare LF": (GET + b"X: a\nY: b\r\n\r\n", 400),
    "A15 no colon": (GET + b"X\r\n\r\n", 400),
    "A15 no name": (GET + b": x\r\n\r\n", 400),
    "A15 DEL": (GET + b"X: a\x7fb\r\n\r\n", 400),
    "A16 underscore name": (GET + b"Content_Length: 5\r\n\r\n", 400),
    "A16 name outside ASCII": (GET + b"X\xc4: 5\r\n\r\n", 400),
    "A17 two hosts": (GET + b"Host: a\r\n\r\n", 400),
    "A17 two hosts, cases": (GET + b"hOST: b\r\n\r\n", 400),
    "A17 no host": (b"GET / HTTP/1.1\r\nX: a\r\n\r\n", 400),
    "A17 no header": (b"GET / HTTP/1.1\r\n\r\n", 400),
    "A18 host with path": (b"GET / HTTP/1.1\r\nHost: a/?x#\r\n\r\n", 400),
    "A18 host with user": (b"GET / HTTP/1.1\r\nHost: u@a\r\n\r\n", 400),
    "A18 empty host": (b"GET / HTTP/1.1\r\nHost:\r\n\r\n", 400),
    "A18 host and space": (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
    "A18 port out of range": (b"GET / HTTP/1.1\r\nHost: a:65536\r\n\r\n", 400),
    "A18 host list": (b"GET / HTTP/1.1\r\nHost: a, b\r\n\r\n", 400),
    "A19 absolute-form": (b"POST http://evil/v1/x HTTP/1.1\r\nHost: evil\r\n\r\n", 400),
    "A19 authority": (b"CONNECT evil:443 HTTP/1.1\r\nHost: evil\r\n\r\n", 405),
    "A19 asterisk": (b"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A19 fragment": (b"GET /a#b HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A19 outside ASCII": (b"GET /\xc3\xa4 HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A20 TRACE": (b"TRACE / HTTP/1.1\r\nHost: a\r\n\r\n", 405),
    "A20 unknown method": (b"BREW / HTTP/1.1\r\nHost: a\r\n\r\n", 501),
    "A20 lower-case method": (b"get / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A22 websocket": (GET + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n", 403),
    "A25 HTTP/2.0": (b"GET / HTTP/2.0\r\nHost: a\r\n\r\n", 505),
    "A25 HTTP/1.32": (b"GET / HTTP/1.32\r\nHost: a\r\n\r\n", 505),
    "A25 HTTP/0.9": (b"GET / HTTP/0.9\r\nHost: a\r\n\r\n", 505),
    "A25 HTTP/1.2": (b"GET / HTTP/1.2\r\nHost: a\r\n\r\n", 505),
    "A25 preface": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
    "A25 no version": (b"GET /\r\n\r\n", 400),
    "A25 lower-case": (b"GET / http/1.1\r\nHost: a\r\n\r\n", 400),
    "A25 two spaces": (b"GET  / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A25 tabs": (b"GET\t/\tHTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A25 space at the end": (b"GET / HTTP/1.1 \r\nHost: a\r\n\r\n", 400),
    "A25 two empty lines": (b"\r\n\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n", 400),
    "A25 TLS on the plain port": (b"\x16\x03\x01\x02\x00\x01\x00", 400),
    "A26 long target": (b"GET /" + b"a" * 200 + b" HTTP/1.1\r\nHost: a\r\n\r\n", 414),
    "A26 endless target": (b"GET /" + b"a" * 300, 414),
    "A26 long header": (GET + b"X: " + b"a" * 200 + b"\r\n\r\n", 431),
    "A26 endless header": (GET + b"X: " + b"a" * 300, 431),
    "A26 large head": (GET + (b"X: " + b"a" * 150 + b"\r\n") * 4 + b"\r\n", 431),
    "A26 many headers": (GET + b"X: a\r\n" * 12 + b"\r\n", 431),
    "A27 control in a key": (GET + b"Authorization: Bearer KEY\x01\r\n\r\n", 400),
    "A28 two keys": (GET + b"Authorization: a\r\nAuthorization: b\r\n\r\n", 400),
    "A28 two types": (GET + b"Content-Type: a/b\r\nContent-Type: c/d\r\n\r\n", 400),
    "expect": (POST + b"Expect: the-unexpected\r\nContent-Length: 1\r\n\r\nx", 417),
    "C08 announced too large": (POST + b"Content-Length: 4001\r\n\r\n", 413),
    "C08 chunks too large": (CHUNKED + b"800\r\n" + b"x" * 2048 + b"\r\n800\r\n", 413),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses(name: str) -> None:
    raw, status = REFUSED[name]
    code, got = one(raw)
    assert got == status, (code, got)
    assert b"KEY" not in code.encode()


@pytest.mark.parametrize("name", REFUSED)
def test_first_fault_wins_however_it_is_cut(name: str) -> None:
    raw, _ = REFUSED[name]
    whole = read([raw])
    assert read([raw[i:i + 1] for i in range(len(raw))]) == whole
    for size in (2, 3, 7):
        assert read([raw[i:i + size] for i in range(0, len(raw), size)]) == whole
    for at in range(1, len(raw)):
        assert read([raw[:at], raw[at:]]) == whole


LEGAL = {
    "plain": GET + b"\r\n",
    "empty line before": b"\r\n" + GET + b"\r\n",
    "1.0 without host": b"GET / HTTP/1.0\r\n\r\n",
    "white space around": GET + b"X: \t a b \t\r\nY:\r\nZ:z\r\n\r\n",
    "bytes above ASCII": GET + b"X: \xc3\xa4\r\n\r\n",
    "query": b"GET /v1/x?key=1&b=/?:@ HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
    "encoded path": b"GET /v1/%2e%2e/%00//x HTTP/1.1\r\nHost: a.b-c:8080\r\n\r\n",
    "odd names": GET + b"!#$%&'*+-.^`|~1: x\r\n\r\n",
    "repeated list header": GET + b"Accept: a\r\nAccept: b\r\n\r\n",
    "length": POST + b"content-LENGTH:5\r\n\r\nhello",
    "zero length": POST + b"Content-Length: 0\r\n\r\n",
    "post without body": POST + b"\r\n",
    "body with CRLFs": POST + b"Content-Length: 8\r\n\r\n\r\n\r\nGET ",
    "chunks": CHUNKED + b"5\r\nhello\r\n00A\r\n0123456789\r\n0\r\n\r\n",
    "A09 extension": CHUNKED + b"1;a=b\r\nx\r\n1 ;c=\"d;e\"\r\ny\r\n0;z\r\n\r\n",
    "A13 trailers": CHUNKED + b"1\r\nx\r\n0\r\nX-A: b\r\nAuthorization: c\r\nContent-Length: 3\r\n\r\n",
    "coding in capitals": POST + b"Transfer-Encoding: CHUNKED\r\n\r\n0\r\n\r\n",
    "expect": POST + b"Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
    "close": GET + b"Connection: close\r\n\r\n",
    "A21 h2c": GET + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n\r\n",
    "A21 h2c with body": POST + b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AA\r\n"
                                b"Content-Length: 5\r\n\r\nhello",
    "A21 h2c with chunks": POST + b"Upgrade: h2c\r\nConnection: Upgrade\r\nTransfer-Encoding: chunked\r\n\r\n"
                                  b"1\r\nx\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("name", LEGAL)
def test_takes_and_takes_the_next(name: str) -> None:
    raw = LEGAL[name]
    stream = raw + GET + b"Next: 1\r\n\r\n"
    whole = read([stream])
    assert not whole[0][7] or whole[1][5] == ((b"host", b"a"), (b"next", b"1")), whole
    assert len(whole[0]) == 9
    assert read([stream[i:i + 1] for i in range(len(stream))]) == whole
    for at in range(1, len(stream)):
        assert read([stream[:at], stream[at:]]) == whole


def test_what_a_request_says() -> None:
    reader = Reader(SMALL, "10.0.0.1")
    reader.feed(b"POST /v1/x%20?a=b?c HTTP/1.1\r\nHost: a\r\nAccept: x\r\nACCEPT: y\r\nContent-Length: 2\r\n\r\nhi")
    request = reader.head()
    assert request is not None and reader.body(request)
    assert (request.method, request.path, request.query, request.target, request.version, request.peer) == (
        "POST", "/v1/x%20", b"a=b?c", b"/v1/x%20?a=b?c", "1.1", "10.0.0.1")
    assert request.get(b"accept") == b"x, y" and request.get(b"nope") is None
    assert request.headers.count((b"accept", b"y")) == 1
    assert request.body == b"hi" and request.keep_alive and not request.expect and reader.waiting == 0


def test_trailers_never_become_headers() -> None:
    (request,) = read([LEGAL["A13 trailers"]])
    assert {name for name, _ in request[5]} == {b"host", b"transfer-encoding"}


def test_h2c_leaves_no_trace() -> None:
    (request,) = read([LEGAL["A21 h2c"]])
    assert request[5] == ((b"host", b"a"),)


@pytest.mark.parametrize(("raw", "keep"), [
    (GET + b"\r\n", True), (GET + b"Connection: close\r\n\r\n", False), (GET + b"Connection: x, CLOSE\r\n\r\n", False),
    (b"GET / HTTP/1.0\r\n\r\n", False), (b"GET / HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n", True)])
def test_keep_alive(raw: bytes, keep: bool) -> None:
    assert one(raw)[7] is keep


def test_the_limit_of_one_request_may_be_lowered_and_raised() -> None:
    for limit, ok in ((3, False), (5000, True)):
        for raw in (POST + b"Content-Length: 4500\r\n\r\n" + b"x" * 4500,
                    CHUNKED + b"1194\r\n" + b"x" * 4500 + b"\r\n0\r\n\r\n"):
            reader = Reader(SMALL)
            reader.feed(raw)
            request = reader.head()
            assert request is not None
            request.limit = limit
            if ok:
                assert reader.body(request) and len(request.body) == 4500
            else:
                with pytest.raises(FirewallError) as caught:
                    reader.body(request)
                assert caught.value.status == 413


def test_an_announced_body_reserves_nothing() -> None:
    reader = Reader(Limits())
    reader.feed(POST + b"Content-Length: 16000000\r\n\r\nx")
    request = reader.head()
    assert request is not None and not reader.body(request)
    assert reader.received == 1 and reader.waiting == 0


# -- laws

lines = st.sampled_from([
    b"Host: a\r\n", b"Host: b:80\r\n", b"Content-Length: 3\r\n", b"Content-Length: 0\r\n", b"X: y\r\n",
    b"Expect: x\r\n",
    b"Transfer-Encoding: chunked\r\n", b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"X_Y: z\r\n", b" fold\r\n",
    b"Bad\n", b"Big: " + b"x" * 190 + b"\r\n", b"Authorization: q\r\n", b"\r\n", b"K : v\r\n", b"C: \x01\r\n"])
starts = st.sampled_from([
    b"GET / HTTP/1.1\r\n", b"POST /a?b HTTP/1.1\r\n", b"POST / HTTP/1.0\r\n", b"GET / HTTP/2.0\r\n", b"\r\n",
    b"GET /\n", b"CONNECT a HTTP/1.1\r\n", b"PUT http://x/ HTTP/1.1\r\n"])
tails = st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"1;x\r\na\r\n0\r\nT: u\r\n\r\n", b"fff\r\n",
                         b"z\r\n", b"\r\n"])
message = st.builds(lambda s, h, t: s + b"".join(h) + b"\r\n" + t, starts, st.lists(lines, max_size=14), tails)
stream = st.builds(lambda ms, junk: b"".join(ms) + junk, st.lists(message, max_size=3), st.binary(max_size=6))


@settings(max_examples=300, deadline=None)
@given(stream, st.lists(st.integers(0, 4000), max_size=8))
def test_law_cut_blind(data: bytes, places: list[int]) -> None:
    assert read(cut(data, places)) == read([data])


@settings(max_examples=150, deadline=None)
@given(stream)
def test_law_cut_blind_at_every_byte(data: bytes) -> None:
    assert read([data[i:i + 1] for i in range(len(data))]) == read([data])


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=400), st.lists(st.integers(0, 400), max_size=3))
def test_law_any_bytes_end_in_requests_or_one_client_fault(data: bytes, places: list[int]) -> None:
    result = read(cut(data, places))
    assert result == read([data])
    for entry in result[:-1]:
        assert len(entry) == 9


# -- other opinions (A29)

token = st.text("abcXYZ019!#$%&'*+-.^`|~", min_size=1, max_size=12).map(str.encode)
value = st.text("ab \t:;,\"=/()é", max_size=20).map(lambda t: t.encode("latin-1").strip(b" \t"))
names = token.filter(lambda n: n.lower() not in {b"host", b"connection", b"upgrade", b"expect"})
body = st.binary(max_size=200)
target = st.text("ab/%20.-_~:@!$&'()*+,;=?", max_size=20).map(lambda t: b"/" + t.encode())


def framed(data: bytes, chunks: list[int]) -> bytes:
    pieces = cut(data, chunks)
    return b"".join(b"%x;n=%d\r\n%b\r\n" % (len(p), i, p) for i, p in enumerate(pieces)) + b"0\r\nT: u\r\n\r\n"


def by_h11(raw: bytes) -> tuple:
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(raw)
    request = connection.next_event()
    assert isinstance(request, h11.Request)
    data = b""
    while True:
        event = connection.next_event()
        if isinstance(event, h11.EndOfMessage):
            break
        assert isinstance(event, h11.Data)
        data += bytes(event.data)
    return request.method.decode(), request.target, [(n, v) for n, v in request.headers], data


def by_stdlib(raw: bytes) -> tuple:
    handler = BaseHTTPRequestHandler.__new__(BaseHTTPRequestHandler)
    handler.rfile = io.BytesIO(raw)
    handler.raw_requestline = handler.rfile.readline()
    assert handler.parse_request()
    fields = [(n.lower().encode("latin-1"), v.strip(" \t").encode("latin-1")) for n, v in handler.headers.items()]
    return handler.command, handler.path.encode(), fields, handler.rfile.read()


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([b"GET", b"POST", b"PUT"]), target, st.lists(st.tuples(names, value), max_size=6), body,
       st.one_of(st.none(), st.lists(st.integers(0, 200), max_size=4)))
def test_h11_and_the_standard_library_read_the_same(verb: bytes, where: bytes, fields: list, data: bytes,
                                                    chunks: list[int] | None) -> None:
    head = b"%b %b HTTP/1.1\r\nHost: a.b:1\r\n" % (verb, where)
    head += b"".join(b"%b: \t%b \r\n" % pair for pair in fields)
    if chunks is None:
        raw = head + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
    else:
        raw = head + b"Transfer-Encoding: chunked\r\n\r\n" + framed(data, chunks)
    method, got, path, query, _, headers, whole, *_ = one(raw, Limits())
    assert (method, got, list(headers), whole) == by_h11(raw)
    assert path.encode() + (b"?" + query if b"?" in where else b"") == where and whole == data
    if not where.startswith(b"//"):  # the standard library folds leading slashes
        command, its, theirs, rest = by_stdlib(raw)
        assert (command, its, theirs) == (method, got, list(headers))
        if chunks is None:
            assert rest == whole


def test_http_client_reads_what_the_firewall_would_read_from_it() -> None:
    """What http.client writes is legal here."""
    sent = io.BytesIO()

    class Socket:
        def sendall(self, data: bytes) -> None:
            sent.write(data)

    connection = http.client.HTTPConnection("a", 80)
    connection.sock = Socket()  # type: ignore[assignment]
    connection.request("POST", "/v1/x", body=iter([b"ab", b"c"]), headers={"X": "y"}, encode_chunked=True)
    assert one(sent.getvalue(), Limits())[6] == b"abc"
