"""Response framing: the laws of response.py, hostile upstreams, and h11 and http.client as other opinions."""

from __future__ import annotations

import http.client
import io

import h11
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.proxy.http1 import Response, UpstreamLimits

SMALL = UpstreamLimits(max_line=300, max_head=900, max_headers=10, max_interim=3)


def read(pieces: list[bytes], *, head: bool = False, ends: bool = True) -> tuple:
    """(status, headers, body, whole, reusable), or (error code,)."""
    response, got = Response(SMALL, head), []
    try:
        for piece in pieces:
            response.feed(piece)
            got += response.parts
            response.parts.clear()
    except FirewallError as error:
        assert error.fault == "upstream" and error.status == 502
        return (error.code,)
    reusable = response.reusable
    whole = response.eof() if ends else response.done
    return (response.status if response.started else 0, tuple(response.headers) if response.started else (),
            b"".join(got), whole, reusable)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    at = sorted({p % (len(data) + 1) for p in places})
    return [p for p in (data[a:b] for a, b in zip([0, *at], [*at, len(data)], strict=True)) if p]


OK = b"HTTP/1.1 200 OK\r\n"
CHUNKED = OK + b"Transfer-Encoding: chunked\r\n\r\n"

ANSWERS = {  # bytes -> body, whole, reusable
    "length": (OK + b"Content-Length: 2\r\n\r\nhi", b"hi", True, True),
    "no body": (OK + b"Content-Length: 0\r\n\r\n", b"", True, True),
    "204": (b"HTTP/1.1 204 No Content\r\n\r\n", b"", True, True),
    "304": (b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n", b"", True, True),
    "no reason": (b"HTTP/1.1 200\r\nContent-Length: 1\r\n\r\nx", b"x", True, True),
    "chunked": (CHUNKED + b"2\r\nhi\r\n3;x=y\r\nyou\r\n0\r\n\r\n", b"hiyou", True, True),
    "trailers": (CHUNKED + b"2\r\nhi\r\n0\r\nX: y\r\n\r\n", b"hi", True, True),
    "to the end": (OK + b"\r\nabc", b"abc", True, False),
    "1.0 to the end": (b"HTTP/1.0 200 OK\r\n\r\nabc", b"abc", True, False),
    "close": (OK + b"Connection: close\r\nContent-Length: 1\r\n\r\nx", b"x", True, False),
    "1.0": (b"HTTP/1.0 200 OK\r\nContent-Length: 1\r\n\r\nx", b"x", True, False),
    "interim": (b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n" + OK
                + b"Content-Length: 1\r\n\r\nx", b"x", True, True),
    "short": (OK + b"Content-Length: 5\r\n\r\nhi", b"hi", False, False),
    "chunks cut": (CHUNKED + b"5\r\nhi", b"hi", False, False),
    "no last chunk": (CHUNKED + b"2\r\nhi\r\n", b"hi", False, False),
    "byte too many": (OK + b"Content-Length: 2\r\n\r\nhi!", b"hi", True, False),
    "answer too many": ((OK + b"Content-Length: 2\r\n\r\nhi") * 2, b"hi", True, False),
    "after last chunk": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\nHTTP", b"hi", True, False),
    "redirect is just a status": (b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://evil/\r\n"
                                  b"Content-Length: 0\r\n\r\n", b"", True, True),
    "line end too many": (OK + b"Content-Length: 2\r\n\r\nhi\r\n", b"hi", True, False),
    "line end after the last chunk": (CHUNKED + b"2\r\nhi\r\n0\r\n\r\n\r\n", b"hi", True, False),
}


@pytest.mark.parametrize("name", ANSWERS)
def test_reads_however_it_is_cut(name: str) -> None:
    raw, body, whole, reusable = ANSWERS[name]
    result = read([raw])
    assert result[2:] == (body, whole, reusable)
    assert result[0] == int(raw.split(b"HTTP/1.")[-1 if "interim" == name else 1][2:5])
    for at in range(1, len(raw)):
        assert read([raw[:at], raw[at:]]) == result
    assert read([raw[i:i + 1] for i in range(len(raw))]) == result


REFUSED = {
    "101": b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nabc",
    "100s": b"HTTP/1.1 103 E\r\n\r\n" * 4,
    "bad 103": b"HTTP/1.1 103 E\r\nX : y\r\n\r\n" + OK + b"Content-Length: 0\r\n\r\n",
    "length and chunked": OK + b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": OK + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
    "same length": OK + b"Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
    "odd length": OK + b"Content-Length: 5,5\r\n\r\nhello",
    "gzip, chunked": OK + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n",
    "gzip": OK + b"Transfer-Encoding: gzip\r\n\r\nxx",
    ",chunked": OK + b"Transfer-Encoding: ,chunked\r\n\r\n0\r\n\r\n",
    "chunked in 1.0": b"HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "obs-fold": OK + b"X: a\r\n b\r\n\r\n",
    "bare LF": b"HTTP/1.1 200 OK\nContent-Length: 0\n\n",
    "one bare LF": OK + b"X: a\nContent-Length: 0\r\n\r\n",
    "bare CR": OK + b"X: a\rb\r\n\r\n",
    "NUL": OK + b"X: a\0b\r\n\r\n",
    "CR in the reason": b"HTTP/1.1 200 a\rb\r\n\r\n",
    "HTTP/2": b"HTTP/2 200 OK\r\n\r\n",
    "HTTP/1.2": b"HTTP/1.2 200 OK\r\n\r\n",
    "no HTTP": b"SSH-2.0-OpenSSH\r\n",
    "TLS alert": b"\x15\x03\x01\x00\x02\x02\x16",
    "status of four": b"HTTP/1.1 2000 OK\r\n\r\n",
    "status 099": b"HTTP/1.1 099 OK\r\n\r\n",
    "empty line first": b"\r\n" + OK + b"\r\n",
    "endless head": OK + b"X: a\r\n" * 200,
    "long line": OK + b"X: " + b"a" * 400 + b"\r\n\r\n",
    "many headers": OK + b"X: a\r\n" * 11 + b"\r\n",
    "bad chunk": CHUNKED + b"zz\r\n",
    "0x chunk": CHUNKED + b"0x2\r\nhi\r\n",
    "bare LF chunk": CHUNKED + b"2\nhi\n",
    "huge chunk": CHUNKED + b"fffffffffffffffff\r\n",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refuses_however_it_is_cut(name: str) -> None:
    raw = REFUSED[name]
    result = read([raw])
    assert len(result) == 1, result
    for at in range(1, len(raw)):
        assert read([raw[:at], raw[at:]]) == result
    assert read([raw[i:i + 1] for i in range(len(raw))]) == result


def flood(lines: int, feed: int) -> tuple[str, int]:
    """The error that ends a flood of trailers, and the bytes of it that were fed."""
    response = Response(SMALL)
    response.feed(CHUNKED + b"2\r\nhi\r\n0\r\n")
    response.parts.clear()
    raw = b"".join(b"x-%d: yyyyyyyy\r\n" % n for n in range(lines))
    try:
        for at in range(0, len(raw), feed):
            response.feed(raw[at:at + feed])
            assert not response.parts
    except FirewallError as error:
        return str(error.detail), at
    return "", len(raw)


@pytest.mark.parametrize("feed", [1, 100, 800])
def test_trailers_are_bounded_and_dropped(feed: int) -> None:
    assert flood(40, feed)[0] == ""
    error, fed = flood(4000, feed)
    assert error == "trailers too large" and fed <= SMALL.max_head


def test_one_endless_trailer_and_one_endless_chunk_line() -> None:
    for start in (b"0\r\nx: ", b"0\r\n", b"5;"):
        response = Response(SMALL)
        response.feed(CHUNKED + b"2\r\nhi\r\n" + start)
        response.parts.clear()
        with pytest.raises(FirewallError):
            for _ in range(SMALL.max_head // 100 + 2):
                response.feed(b"y" * 100)


def test_segments_without_body_between_tokens_are_no_flood() -> None:
    response, got = Response(SMALL), []
    response.feed(CHUNKED)
    for _ in range(SMALL.max_head):
        for piece in (b"1\r\n", b"a", b"\r\n"):
            response.feed(piece)
            got += response.parts
            response.parts.clear()
    response.feed(b"0\r\n\r\n")
    assert response.reusable and len(got) == SMALL.max_head


def test_head_has_no_body_and_is_not_reused() -> None:
    assert read([OK + b"Content-Length: 5\r\n\r\n"], head=True)[2:] == (b"", True, False)


def test_again() -> None:
    response = Response(SMALL)
    for n in range(3):
        response.feed(CHUNKED + b"1\r\n%d\r\n0\r\n\r\n" % n)
        assert response.reusable and response.parts == [b"%d" % n] and response.fresh
        assert response.headers == ((b"transfer-encoding", b"chunked"),)
        response.again(False)
        assert not (response.done or response.parts or response.started)


def test_values_lose_their_outer_white_space() -> None:
    assert read([OK + b"X: \t a b \t \r\nY:\r\nContent-Length: 0 \r\n\r\n"])[1] == (
        (b"x", b"a b"), (b"y", b""), (b"content-length", b"0"))


names = st.text("abcXYZ019-_.~", min_size=1, max_size=10).map(str.encode).filter(
    lambda n: n.lower() not in (b"connection", b"te", b"upgrade"))
value = st.text("ab \t:;,=é", max_size=20).map(lambda t: t.encode("latin-1").strip(b" \t"))


@settings(max_examples=300, deadline=None)
@given(st.sampled_from([200, 201, 307, 400, 429, 500, 599]), st.lists(st.tuples(names, value), max_size=6),
       st.binary(max_size=300), st.one_of(st.none(), st.lists(st.integers(0, 300), max_size=5)),
       st.lists(st.integers(0, 2000), max_size=6))
def test_h11_and_http_client_read_the_same(status: int, fields: list, data: bytes, chunks: list[int] | None,
                                           places: list[int]) -> None:
    head = b"HTTP/1.1 %d Fine\r\n" % status + b"".join(b"%b:  %b \r\n" % pair for pair in fields)
    if chunks is None:
        raw = head + b"Content-Length: %d\r\n\r\n%b" % (len(data), data)
    else:
        raw = head + b"Transfer-Encoding: chunked\r\n\r\n" + b"".join(
            b"%X\r\n%b\r\n" % (len(p), p) for p in cut(data, chunks)) + b"0\r\n\r\n"
    ours = read(cut(raw, places))
    assert ours == read([raw]) and ours[0] == status and ours[2:] == (data, True, True)

    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    peer.receive_data(raw)
    answer = peer.next_event()
    assert isinstance(answer, h11.Response)
    body = b""
    while isinstance(event := peer.next_event(), h11.Data):
        body += bytes(event.data)
    assert (answer.status_code, list(answer.headers), body) == (status, list(ours[1]), data)

    class Sock:
        def makefile(self, mode: str) -> io.BytesIO:
            return io.BytesIO(raw)

    other = http.client.HTTPResponse(Sock())  # type: ignore[arg-type]
    other.begin()
    assert (other.status, other.read()) == (status, data)


heads = st.sampled_from([OK, b"HTTP/1.1 103 E\r\n", b"HTTP/1.0 200 OK\r\n", b"HTTP/1.1 204 N\r\n",
                         b"HTTP/1.1 101 S\r\n", b"H"])
lines = st.sampled_from([b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"X: y\r\n",
                         b"Connection: close\r\n", b"Y : z\r\n", b" f\r\n", b"Z\n", b"Upgrade: x\r\n",
                         b"B: " + b"x" * 290 + b"\r\n"])
tails = st.sampled_from([b"", b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"3\r\nabc\r\n", b"q\r\n",
                         b"0\r\nT: u\r\n\r\n", b"\r\n"])
answer = st.builds(lambda s, h, t: s + b"".join(h) + b"\r\n" + t, heads, st.lists(lines, max_size=11), tails)


@settings(max_examples=300, deadline=None)
@given(st.lists(answer, max_size=4).map(b"".join), st.lists(st.integers(0, 4000), max_size=8))
def test_law_cut_blind(data: bytes, places: list[int]) -> None:
    """The same answer or the same fault."""
    whole, pieces = read([data]), read(cut(data, places))
    assert pieces == whole


def test_what_follows_the_end_is_no_trailer() -> None:
    """However much it is and however it is cut."""
    data = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n" + b"X: a\r\n" * SMALL.max_head
    assert read([data]) == read([data[:40], data[40:]]) == read([data[:60], data[60:]])
    assert read([data])[0] == 200
