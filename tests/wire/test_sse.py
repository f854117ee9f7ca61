"""The two framers: every byte comes back, and cuts change nothing (E01-E12, E22)."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire.ndjson import Lines
from firewall.wire.sse import END, SIZES, Events, event, padded

ATOMS = [
    b"data: x",
    b"data:y",
    b"data",
    b"\n",
    b"\n\n",
    b"\r",
    b"\r\n",
    b": c",
    b"event: e",
    b"id: 1",
    b"\xef\xbb\xbf",
    "data: \u2028z".encode(),
    b"junk",
    b" ",
]


def framed(*parts: bytes) -> list[bytes]:
    events = Events()
    out = [raw for part in parts for raw in events.feed(part)]
    rest = events.close()
    return [*out, rest] if rest else out


@given(st.lists(st.sampled_from(ATOMS), max_size=14), st.data())
def test_cuts_change_nothing(atoms: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(atoms)
    want = framed(whole)
    assert b"".join(want) == whole
    assert framed(*[whole[i : i + 1] for i in range(len(whole))]) == want
    at = data.draw(st.integers(0, len(whole)))
    assert framed(whole[:at], whole[at:]) == want


@given(st.lists(st.sampled_from(ATOMS[:4] + ATOMS[7:]), max_size=14))
def test_the_two_scans_agree(atoms: list[bytes]) -> None:
    """Without a CR the quick scan is used; a CR in a first slice of its own forces the general one."""
    whole = b"".join(atoms)
    general = Events()
    assert general.feed(b": x\r\n\r\n" + whole)[1:] == Events().feed(whole)


@pytest.mark.parametrize(
    "raw, name, data, rest",
    [
        (b"data: a\n\n", b"", b"a", b""),
        (b"data:a\n\n", b"", b"a", b""),
        (b"data:  a\n\n", b"", b" a", b""),
        (b"event: e\ndata: a\n\n", b"e", b"a", b""),
        (b"data: a\ndata: b\n\n", b"", b"a\nb", b""),
        (b"data: a\r\ndata\r\n\r\n", b"", b"a\n", b""),
        (b": ping\n\n", b"", None, b": ping"),
        (b"\n\n", b"", None, b""),
        (b"id: 7\nretry: 5\nfoo: bar\ndata: a\r\r", b"", b"a", b"id: 7\nretry: 5\nfoo: bar"),
        (b"\xef\xbb\xbfdata: a\n\n", b"", b"a", b""),
        ("data: a\u2028b\u0085c\n\n".encode(), b"", "a\u2028b\u0085c".encode(), b""),
        (b"event: a\nevent: b\n\n", b"b", None, b"event: a"),
        (b"data: a", b"", b"a", b""),
    ],
)
def test_one_slice(raw: bytes, name: bytes, data: bytes | None, rest: bytes) -> None:
    assert event(raw) == (name, data, rest)


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
def test_an_event_has_a_size(end: bytes) -> None:
    fits = b"data: " + b"x" * (1000 - 6 - 2 * len(end)) + end + end
    assert Events(1000).feed(fits + (b":" if end == b"\r" else b"")) == [fits]
    for parts in ([b"data: " + b"x" * 2000], [b"x"] * 1001, [fits[:6] + b"xx" + fits[6:], b"a"], [fits[:-1] * 2]):
        events = Events(1000)
        with pytest.raises(FirewallError) as error:
            for part in [b":" + end, *parts]:
                events.feed(part)
        assert error.value.code == "event_too_large"


@given(st.lists(st.sampled_from([b"{}", b"\n", b"\r\n", b" ", b'{"a":"b"}']), max_size=12), st.data())
def test_lines(atoms: list[bytes], data: st.DataObject) -> None:
    whole = b"".join(atoms)

    def lines(*parts: bytes) -> list[tuple[bytes, bytes | None]]:
        framer = Lines()
        out = [tuple(line) for part in parts for line in framer.feed(part)]
        last = framer.close()
        return [*out, tuple(last)] if last else out  # type: ignore[list-item,return-value]

    want = lines(whole)
    at = data.draw(st.integers(0, len(whole)))
    assert b"".join(raw for raw, _ in want) == whole
    assert lines(whole[:at], whole[at:]) == want == lines(*[whole[i : i + 1] for i in range(len(whole))])


def test_a_line_has_a_size() -> None:
    for parts in ([b"x" * 11], [b"x"] * 11, [b"x" * 10 + b"\n"], [b"xxxxx", b"xxxxxx\n"]):
        framer = Lines(10)
        with pytest.raises(FirewallError):
            for part in parts:
                framer.feed(part)


@given(st.lists(st.sampled_from([*ATOMS, b"data: {}", b"data: [DONE]\n\n"]), max_size=40), st.integers(0, 3000))
def test_padding_adds_nothing_but_blanks(atoms: list[bytes], more: int) -> None:
    """O01: one of few sizes, the same events and not one more; what ends inside an event is left alone."""
    data = b"data: " + b"x" * more + b"\n\n" + b"".join(atoms)
    out = padded(data)
    assert len(out) in SIZES if data.endswith(END) else out == data
    before, after = list(map(event, framed(data))), list(map(event, framed(out)))
    for old, new in zip(before, after, strict=True):
        assert new.name == old.name and (new.data == old.data or b"}" in (old.data or b"") and (
            (new.data or b"").rstrip() == (old.data or b"").rstrip()))
        assert [line for line in new.rest.split(b"\n") if line.strip(b": ")] == [
            line for line in old.rest.split(b"\n") if line.strip(b": ")]


@pytest.mark.parametrize("end", [b"\n", b"\r\n", b"\r"])
@pytest.mark.parametrize("line", [b'data: {"a":1}', b"data: [DONE]", b"id: 1", b": ping", b"data: {}\nx}", b""])
def test_padding_stays_inside_the_last_event(line: bytes, end: bytes) -> None:
    """No empty line is added: clients that keep an `id` take it for an event. JSON stays all there is in its event."""
    whole = line + end + end
    out = padded(b"id: 1\ndata: 2\n\n" + whole)
    (read,) = map(event, framed(out + b"x")[1:2])
    assert len(out) == 256 and out.endswith(END) and len(framed(out)) == 2
    assert (read.data or b"").rstrip() == (event(whole).data or b"")
    if line.startswith(b"data: {") and line.endswith(b"}") and b"x" not in line:
        assert not read.rest


def test_padding_has_an_end() -> None:
    assert len(SIZES) <= 16
    large = b"data: " + b"x" * SIZES[-1] + b"\n\n"
    assert padded(large) == large and len(padded(b": \n\n")) == SIZES[0]
