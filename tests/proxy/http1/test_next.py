"""One answer behind another on a connection, and an answer in one segment: read as it would be alone, and in two."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.proxy.http1 import Response, UpstreamLimits

SMALL = UpstreamLimits(max_line=300, max_head=900, max_headers=10, max_interim=3)
OK = b"HTTP/1.1 200 OK\r\n"
FIRST = OK + b"Content-Length: 3\r\nX: y\r\nDate: today\r\nx: Y\r\n\r\nabc"
FIELDS = [b"Content-Length: 3", b"content-length: 3", b"Content-Length: 3 ", b"Content-Length: 03", b"Content-Length: 4",
          b"X: y", b"X : y", b"x:y", b"X: \ty\t ", b"Date: today", b"Date: tomorrow", b"Connection: close", b"Upgrade: x",
          b"Connection: keep-alive", b"Transfer-Encoding: chunked", b"\xe9: y", b"X\n: y", b"Y: " + b"x" * 297, b""]
LINES = [OK, OK, b"HTTP/1.1 200\r\n", b"HTTP/1.1 204 N\r\n", b"HTTP/1.1 304 N\r\n", b"HTTP/1.0 200 OK\r\n",
         b"HTTP/1.1 103 E\r\n\r\n" + OK, b"HTTP/1.1 101 S\r\n", b"H"]
BODIES = [b"", b"abc", b"abcd", b"abc\r\n", b"\r\n", b"ab", b"0\r\n\r\n", b"3\r\nabc\r\n0\r\nX: z\r\n\r\n", b"zz\r\n",
          b"3\r\nabc\r\n0\r\n\r\n\r\n", b"3\r\nabc\r\n", b"3\r\nabc\r\nq", b"abc" + FIRST, b"0\r\n\r\n" + FIRST]
answers = st.builds(lambda line, fields, body: line + b"".join(f + b"\r\n" for f in fields) + b"\r\n" + body,
                    st.sampled_from(LINES), st.lists(st.sampled_from(FIELDS), max_size=4), st.sampled_from(BODIES))


def said(response: Response, *pieces: bytes) -> tuple[Any, ...]:
    """Everything that can be seen of a response after these bytes, or what its error says."""
    got = b""
    try:
        for piece in pieces:
            response.feed(piece)
            got += b"".join(response.parts)
            response.parts.clear()
    except FirewallError as error:
        return error.code, error.detail
    head = (response.status, response.version, response.headers) if response.started else ()
    return (*head, got, response.started, response.fresh, response.done, response.extra, response.eof_delimited,
            response.reusable)


def behind(first: bytes, data: bytes) -> Response:
    response = Response(SMALL)
    said(response, first)
    assert response.reusable
    response.again(False)
    return response


@st.composite
def near(draw: st.DrawFn, first: bytes) -> bytes:
    """The first answer with another length, another body, and some bytes of it changed, removed or added."""
    digits = draw(st.sampled_from([b"3", b"2", b"03", b"0", b"", b"3 ", b" 3", b"+3", b"3,3", b"3\r", b"3\n", b"3\0", b"x",
                                   b"4", b"9" * 18, b"0" * 17 + b"3", b"0" * 18 + b"3", b"\xb2"]))
    data = bytearray(first.replace(b"Length: 3", b"Length: " + digits))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at:at + draw(st.integers(0, 1))] = draw(st.sampled_from([b"", b" ", b"\r", b"\n", b":", b"a", b"0", b"\0"]))
    return bytes(data)


@settings(max_examples=500, deadline=None)
@given(st.data(), st.sampled_from([FIRST, FIRST.replace(b"h: 3", b"h: 3 \t"), FIRST.replace(b"X: y\r\n", b"")]),
       st.integers(0, 200), st.booleans())
def test_law_a_head_that_is_nearly_the_last_one(drawn: st.DataObject, first: bytes, at: int, bodyless: bool) -> None:
    data = drawn.draw(near(first))
    response = behind(first, b"")
    said(response, first)
    assert response._last is not None
    response.again(bodyless)
    pieces = [piece for piece in (data[:at], data[at:]) if piece]
    assert said(response, *pieces) == said(Response(SMALL, bodyless), *pieces)


def test_a_head_that_comes_again_inside_another_one_is_not_one() -> None:
    response = behind(FIRST, FIRST)
    said(response, FIRST)
    response.again(False)
    pieces = OK + b"Z: ", FIRST
    assert said(response, *pieces) == said(Response(SMALL), *pieces)


CHUNKED = OK + b"Transfer-Encoding: chunked\r\nX: y\r\n\r\n"


@settings(deadline=None)
@given(st.sampled_from(BODIES), st.integers(0, 200))
def test_law_a_head_without_a_length_that_comes_again(body: bytes, at: int) -> None:
    response = behind(CHUNKED + b"0\r\n\r\n", b"")
    said(response, CHUNKED + b"0\r\n\r\n")
    assert response._last is not None and response.reusable
    response.again(False)
    pieces = [piece for piece in ((CHUNKED + body)[:at], (CHUNKED + body)[at:]) if piece]
    assert said(response, *pieces) == said(Response(SMALL), *pieces)


def test_what_has_no_end_of_its_own_or_never_comes_again_is_not_kept() -> None:
    for head in (b"\r\n", b"Content-Length: 3\r\nConnection: close\r\n\r\nabc", b"Content-Length: 0\r\n\r\n",
                 b"Content-Length: 3\r\nDate: 1\r\n\r\nabc", b"Content-Length: 3\r\nX: " + b"x" * 280 + b"\r\n\r\nabc"):
        response = Response(SMALL)
        said(response, OK + head)
        assert response.started and response._last is None


@settings(max_examples=300, deadline=None)
@given(answers)
def test_law_what_came_before_changes_nothing(data: bytes) -> None:
    assert said(behind(FIRST, data), data) == said(Response(SMALL), data)


@settings(max_examples=300, deadline=None)
@given(answers, st.booleans())
def test_law_a_body_that_comes_with_its_head_is_read_as_if_it_came_behind_it(data: bytes, bodyless: bool) -> None:
    end = data.find(b"\r\n\r\n", data.find(b"200")) + 4
    if len(data) > end:
        assert said(Response(SMALL, bodyless), data) == said(Response(SMALL, bodyless), data[:end], data[end:])


def test_only_the_lines_of_the_last_head_are_known() -> None:
    response = behind(FIRST, FIRST)
    assert set(response._said) == {b"Content-Length: 3", b"X: y", b"Date: today", b"x: Y"}
    said(response, OK + b"Content-Length: 0\r\n\r\n")
    assert set(response._said) == {b"Content-Length: 0"}
