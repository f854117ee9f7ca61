"""A head that is the last one again is not read anew: whatever came before, a request says what it says on its own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.proxy.http1 import Limits, Reader, Request

SMALL = Limits(max_line=400, max_head=600, max_headers=12, max_body=4000)
FIRST = (b"POST /v1/x?a=b HTTP/1.1\r\nHost: a\r\nAccept: x\r\nContent-Length: 5\r\nAuthorization: Bearer k\r\n"
         b"Accept: y\r\n\r\nhello")
FIELDS = [b"Content-Length: 2", b"content-length:3", b"Content-Length:  04 ", b"Accept: x", b"Accept: Content-Length: 2",
          b"X-Content-Length: 2", b"Connection: keep-alive", b"Connection: close", b"Connection: upgrade", b"Upgrade: h2c",
          b"Expect: 100-continue", b"Transfer-Encoding: chunked", b"X-A: b \t", b"X-2: 2"]


def take(reader: Reader, data: bytes) -> list[Request | tuple[str, int]]:
    """The requests in these bytes, and the error at the end if there was one."""
    out: list[Request | tuple[str, int]] = []
    try:
        reader.feed(data)
        while (request := reader.head()) is not None:
            if not reader.body(request):
                break
            out.append(request)
            if not request.keep_alive:
                break
    except FirewallError as error:
        out.append((error.code, error.status))
    return out


def on_its_own(data: bytes, limits: Limits = SMALL) -> list[Request | tuple[str, int]]:
    return take(Reader(limits, "peer"), data)


def after(first: bytes, data: bytes, limits: Limits = SMALL) -> list[Request | tuple[str, int]]:
    reader = Reader(limits, "peer")
    assert len(take(reader, first)) == 1
    return take(reader, data)


@st.composite
def near(draw: st.DrawFn, first: bytes) -> bytes:
    """The same message with another length, another body, and some bytes of it changed, removed or added."""
    head, _, body = first.partition(b"\r\n\r\n")
    digits = draw(st.sampled_from([b"5", b"3", b"05", b"0", b"", b"5 ", b" 5", b"+5", b"5,5", b"5\r", b"5\n", b"5\0", b"x",
                                   b"4001", b"9" * 18, b"0" * 17 + b"5", b"0" * 18 + b"5", b"\xb2"]))
    data = bytearray(head.replace(b"Length: 5", b"Length: " + digits) + b"\r\n\r\n" + body)
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(data) - 1))
        data[at:at + draw(st.integers(0, 1))] = draw(st.sampled_from([b"", b" ", b"\r", b"\n", b":", b"a", b"0", b"\0"]))
    return bytes(data)


@given(st.data(), st.sampled_from([FIRST, FIRST.replace(b"h: 5", b"h: 5 \t"), FIRST.replace(b"Accept: y\r\n", b"")]))
def test_law_what_came_before_changes_nothing(drawn: st.DataObject, first: bytes) -> None:
    second = drawn.draw(near(first))
    assert after(first, second) == on_its_own(second)
    assert after(first, second + first) == on_its_own(second + first)


@given(st.lists(st.sampled_from(FIELDS), max_size=6), st.lists(st.sampled_from(FIELDS), max_size=6), st.booleans())
def test_law_for_any_two_heads(one: list[bytes], two: list[bytes], same: bool) -> None:
    first, second = (b"\r\n".join([b"POST /v1/x HTTP/1.1", b"Host: a", *fields, b"\r\n"]) + b"2\r\n{}"
                     for fields in (one, one if same else two))
    alone = on_its_own(first)
    if len(alone) == 1 and isinstance(alone[0], Request) and alone[0].keep_alive:
        assert after(first, second) == on_its_own(second)


@pytest.mark.parametrize("cut", range(1, len(FIRST)))
def test_the_same_again_in_two_pieces(cut: int) -> None:
    reader = Reader(SMALL, "peer")
    take(reader, FIRST)
    again = FIRST.replace(b"Length: 5\r\n", b"Length: 6\r\n") + b"!"
    reader.feed(again[:cut])
    request = reader.head()
    if request is None or not reader.body(request):
        reader.feed(again[cut:])
        request = request or reader.head()
        assert request is not None and reader.body(request)
    assert [request] == on_its_own(again) and request.get(b"content-length") == b"6" and request.body == b"hello!"


def test_the_second_opinion_is_asked_every_time() -> None:
    reader = Reader(SMALL)
    take(reader, FIRST)
    assert reader._last is not None
    reader._last.llhttp.feed_data(FIRST[:FIRST.index(b"\r\n\r\n")])       # it stands elsewhere than we do
    assert take(reader, FIRST) in ([("bad_header", 400)], [("bad_framing", 400)])


def test_heads_that_never_come_again_are_soon_not_kept() -> None:
    reader = Reader(SMALL)
    kept = []
    for n in range(6):
        take(reader, FIRST.replace(b"Accept: x", b"Accept: %d" % n))
        kept.append(reader._last)
    assert len(set(map(id, kept))) == 3 and kept[2] is kept[5]
    take(reader, FIRST.replace(b"Accept: x", b"Accept: 2"))
    take(reader, FIRST)
    assert reader._last is not kept[5]


def test_what_is_long_or_closes_is_not_kept() -> None:
    for first in (FIRST.replace(b"Accept: x", b"Accept: " + b"x" * 300), FIRST.replace(b"Accept: x", b"Connection: close"),
                  FIRST.replace(b"Accept: x", b"Upgrade: h2c\r\nConnection: upgrade"), b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"):
        reader = Reader(SMALL)
        assert isinstance(take(reader, first)[0], Request) and reader._last is None
    reader = Reader(Limits())
    take(reader, FIRST.replace(b"Accept: x", b"Accept: " + b"x" * 3000))
    assert reader._last is None
