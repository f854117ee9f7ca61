"""Moulds: whatever follows an event, the short way says what the full way says, or does not apply."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire.leaves import Leaf
from firewall.wire.mould import cast, pour
from tests.wire.streams import events, listen, shape

WORDS = st.text(alphabet='ab"\\{}:,[] \n\u2028\u00e9\U0001f600', max_size=8)


def chat(text: str, **more: Any) -> dict[str, Any]:
    return {"id": "c", "choices": [{"index": 0, "delta": {"content": text}, "finish_reason": None}], **more}


def claude(text: str, **more: Any) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}, **more}


def response(text: str, number: int = 1, **more: Any) -> dict[str, Any]:
    return {
        "type": "response.output_text.delta",
        "sequence_number": number,
        "output_index": 0,
        "content_index": 0,
        "delta": text,
        "logprobs": [],
        **more,
    }


def fragment(text: str, **more: Any) -> dict[str, Any]:
    call = {"index": 0, "function": {"arguments": text}}
    return {"id": "c", "choices": [{"index": 0, "delta": {"tool_calls": [call]}, "finish_reason": None}], **more}


DIALECTS = {"openai-chat": chat, "anthropic-messages": claude, "openai-responses": response}


def both(wire: str, *parts: bytes) -> None:
    """The frames, or the fault, of a stream read with moulds and without."""
    results = []
    for moulds in (True, False):
        reader = listen(wire)
        if not moulds:
            reader._learn = lambda *_: None  # type: ignore[attr-defined]
        out: list[Any] = []
        try:
            for part in parts:
                out += shape(reader.feed(part))
        except FirewallError as error:
            out.append(error.code)
        results.append(out)
    assert results[0] == results[1]


@pytest.mark.parametrize("wire", DIALECTS)
@given(st.lists(WORDS, min_size=2, max_size=5), st.sampled_from(["", "aB9", "x" * 600, "a b"]), st.booleans())
def test_any_words(wire: str, texts: list[str], padding: str, escaped: bool) -> None:
    more = {"obfuscation": padding} if padding else {}
    make: Any = DIALECTS[wire]
    parts = [events(make("first", **({"obfuscation": "zz"} if padding else {})))]
    for i, text in enumerate(texts):
        part = events(make(text, **({"number": i + 2} if wire == "openai-responses" else {}), **more))
        if escaped:  # the same document, spelt with escapes
            part = part.decode().encode("ascii", "backslashreplace").replace(b"\\U0001f600", b"\\ud83d\\ude00")
            part = part.replace(b"\\xe9", b"\\u00e9")
        parts.append(part)
    both(wire, *parts)


@given(st.lists(WORDS, min_size=2, max_size=6))
def test_arguments_of_a_call(texts: list[str]) -> None:
    end = {"id": "c", "choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}
    both("openai-chat", *[events(fragment(text)) for text in texts], events(end))


@given(st.binary(max_size=12), st.integers(0, 400), st.integers(0, 12))
def test_any_damage(junk: bytes, at: int, gone: int) -> None:
    """Bytes cut out and put in anywhere: the same frames, or the same fault."""
    for make, wire in ((chat, "openai-chat"), (claude, "anthropic-messages"), (response, "openai-responses")):
        good = events(make("first"))
        bad = events(make("zebra"))
        at = min(at, len(bad))
        both(wire, good, good, bad[:at] + junk + bad[at + gone :], good)


@pytest.mark.parametrize(
    "tail", [b'"}}]}', b'","x":"y"}}]}', b'"},"delta":{"content":"zebra"}}]}', b'" }', b'\\"}}]}', b""]
)
def test_a_string_cannot_end_early(tail: bytes) -> None:
    first = b'data: {"choices":[{"index":0,"delta":{"content":"a"}}]}\n\n'
    both("openai-chat", first, first, b'data: {"choices":[{"index":0,"delta":{"content":"b' + tail + b'"}}]}\n\n')


EDGES = [b"", b'"', b"\\", b"\n", b"\n\n", b"\r", b" ", b"}", b"\n \n", b"data: x", b"\x00", b"\xff", b'","content":"',
         b": ping\n\n"]
EDITS = st.lists(st.tuples(st.integers(0, 200), st.integers(0, 3), st.sampled_from(EDGES)), max_size=3)


@given(st.sampled_from(list(DIALECTS)), EDITS, st.lists(st.integers(0, 300), max_size=3))
def test_an_event_alone_is_read_as_any(dialect: str, edits: list[tuple[int, int, bytes]], cuts: list[int]) -> None:
    """After two like it, with bytes changed, and cut anywhere or nowhere; ordinary ones follow."""
    usual, parts = events(DIALECTS[dialect]("ab")), []
    odd = usual
    for at, gone, new in edits:
        odd = odd[:at] + new + odd[at + gone:]
    at = 0
    for cut in sorted(cuts):
        parts.append(odd[at:cut])
        at = max(at, cut)
    both(dialect, usual, usual, *parts, odd[at:], usual, usual)


def test_a_string_has_two_quotes() -> None:
    usual = events(chat("a"))
    for end in range(5):
        prefix, suffix = usual.split(b'a"}')
        suffix = b"}" + suffix
        both("openai-chat", usual, usual, prefix[:len(prefix) - end] + b'"' * (not end) + suffix, usual)
        both("openai-chat", usual, usual, prefix[:len(prefix) - end] + b'"' + suffix, usual)


@pytest.mark.parametrize("number", [b"2", b"02", b"-2", b"2.5", b"2e3", b"", b'"2"', b"9" * 30, b'2,"x":1'])
def test_a_number_is_digits(number: bytes) -> None:
    first = events(response("a"))
    both("openai-responses", first, first, first.replace(b'number":1', b'number":' + number))


def test_padding_with_spaces_is_the_same_event() -> None:
    first = events(claude("a"))
    reader = listen("anthropic-messages")
    reader.feed(
        events({"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}}) + first
    )
    (mould,) = reader._moulds  # type: ignore[attr-defined]
    assert pour(events(claude("b")).replace(b'"}}', b'"}     }   '), mould) == ("b", -1)
    assert pour(events(claude("b")).replace(b'"}}', b'"}} }'), mould) is None


def test_no_mould_without_certainty() -> None:
    for document in ({"a": {"text": "x"}, "b": {"text": "y"}}, {"text": "x", "n": ['"text":']}):
        leaf = Leaf("c", "x", document.get("a", document), "text")
        raw = b"data: " + orjson.dumps(document) + b"\n\n"
        if raw.count(b'"text":') > 1:
            assert cast(raw, orjson.dumps(document), leaf, document, False) is None
    holder = {"text": "x"}
    assert cast(b"data: {}\n\n", b"{}", Leaf("c", "x", holder, "text"), holder, False) is None
    assert cast(b"data: {}\n\n", b"{}", Leaf("c", "x"), {}, False) is None


@pytest.mark.parametrize("name", [b"", b"event: message\n"])
@pytest.mark.parametrize("type_", ["keep_alive", "message_stop", "content_block_delta"])
def test_a_type_is_read_in_full(name: bytes, type_: str) -> None:
    """An event without words may differ from another in its type only, which changes what is open."""
    parts = [events(document) for document in (
        {"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}},
        {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": ""}},
        claude("a"), {"type": "content_block_stop", "index": 0},
        {"type": "message_delta", "delta": {"stop_reason": "end_turn"}},
        *[{"type": kind, "index": 0} for kind in ("keep_alive", "keep_alive", type_, "message_stop")])]
    both("anthropic-messages", *[name + part[part.index(b"data:"):] for part in parts])


def test_a_type_of_a_delta_is_read_in_full() -> None:
    odd = {"type": "content_block_delta", "index": 0, "delta": {"type": "odd", "text": ""}}
    both("anthropic-messages", events(claude("a")), events(odd), events(odd).replace(b"odd", b"text_delta"), events(odd))
