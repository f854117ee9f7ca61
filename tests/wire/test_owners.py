"""A channel is one field's: whoever joins one field's fragments reads what was judged. And no words stand on no channel."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import permutations
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire.frame import Frame
from tests.wire.streams import events, heard, listen, said

LINES = b"application/x-ndjson"
BLOCK = {"type": "content_block_start", "index": 0, "content_block": {"type": "tool_use", "name": "f", "input": {}}}
# Dialect -> where a client may find words in an event: a path, of an event that has these fields.
PLACES: dict[str, list[tuple[str, dict[str, Any]]]] = {
    "ollama-chat": [(path, {}) for path in (
        "message.content", "message.response", "message.thinking", "message.title", "content", "response", "thinking",
        "title")],
    "gemini": [(f"candidates.0.{path}", {}) for path in (
        "text", "content.text", "content.reasoning", "content.parts.0.text", "reasoning", "code", "content.code",
        "output", "content.output", "content.parts.0.code", "content.parts.0.reasoning",
        "content.parts.0.executableCode.code", "content.parts.0.codeExecutionResult.output")],
    "anthropic-messages": [(path, {"type": type_, "index": 0, **({"delta": {"type": kind}} if kind else {})})
                           for path, type_, kind in (
        ("delta.text", "content_block_delta", "text_delta"), ("delta.text", "content_block_delta", "odd_delta"),
        ("delta.partial_json", "content_block_delta", "input_json_delta"), ("delta.text", "message_delta", ""),
        ("delta.input", "content_block_delta", "input_json_delta"), ("delta.input", "content_block_delta", "odd_delta"),
        ("delta.content", "content_block_delta", "compaction_delta"), ("delta.name", "content_block_delta", ""),
        ("text", "ping", ""), ("text", "content_block_delta", ""), ("text", "odd", ""), ("title", "odder", ""))],
    "openai-responses": [(path, {"type": type_, "output_index": 0, "content_index": 0}) for path, type_ in (
        ("delta", "response.output_text.delta"), ("delta", "response.reasoning_text.delta"),
        ("delta", "response.refusal.delta"), ("delta", "response.odd.delta"), ("delta", "response.odder.delta"),
        ("text", "response.odd.delta"), ("text", "response.in_progress"), ("delta", "response.custom_tool_call_input.delta"),
        ("item.0.content.0.text", "response.in_progress"), ("delta", "response.function_call_arguments.delta"))],
    "openai-chat": [(f"choices.0.delta.tool_calls.0.{path}", {}) for path in (
        "function.arguments", "index.function.arguments", "function.name", "index.function.name", "custom.input")],
}


def event(path: str, fields: dict[str, Any], text: str) -> dict[str, Any]:
    """An event whose only words are these."""
    value: Any = text
    for step in reversed(path.split(".")):
        if step == "index":
            value["index"] = 0
        else:
            value = [value] if step == "0" else {step: value}
    for key, field in fields.items():
        value[key] = {**field, **value.get(key, {})} if type(field) is dict else field
    return value  # type: ignore[no-any-return]


def framed(wire: str, document: dict[str, Any]) -> bytes:
    return orjson.dumps(document) + b"\n" if wire == "ollama-chat" else events(document)


def law(wire: str, row: Iterable[tuple[int, str]]) -> None:
    """However the fields take turns, each one's words, joined, were judged."""
    reader = listen(wire, LINES) if wire == "ollama-chat" else listen(wire)
    frames: list[Frame] = []
    joined: dict[int, str] = {}
    for place, text in row:
        try:
            frames += reader.feed(framed(wire, event(*PLACES[wire][place], text)))
        except FirewallError as error:      # two writers of one call
            assert error.code == "unreadable_event" and wire in ("anthropic-messages", "openai-responses")
            return
        joined[place] = joined.get(place, "") + text
        judged = said(frames).values()
        for words in joined.values():
            assert any(words in line for line in judged), (joined, said(frames))


@pytest.mark.parametrize("wire", PLACES)
@given(st.data())
def test_every_field_is_judged_as_a_client_joins_it(wire: str, data: st.DataObject) -> None:
    few = data.draw(st.lists(st.sampled_from(range(len(PLACES[wire]))), min_size=2, max_size=3, unique=True))
    law(wire, data.draw(st.lists(st.tuples(st.sampled_from(few), st.sampled_from(["bo", "mb", "x"])), max_size=7)))


@pytest.mark.parametrize("wire", PLACES)
def test_no_field_hides_another(wire: str) -> None:
    for one, other in permutations(range(len(PLACES[wire])), 2):
        law(wire, [(one, "bo"), (other, "x"), (one, "mb")])


def block(text: str) -> dict[str, Any]:
    return {"type": "content_block_start", "index": 0, "content_block": {"type": "text", "text": text}}


def delta(text: str) -> dict[str, Any]:
    return {"type": "content_block_delta", "index": 0, "delta": {"type": "text_delta", "text": text}}


@pytest.mark.parametrize("first", ["", "bo"])
def test_a_block_may_begin_with_words(first: str) -> None:
    frames = listen("anthropic-messages").feed(events(block(first), delta("mb"), delta("x"), block(""), delta("y")))
    assert said(frames) == {"block/0/text": first + "mbxy"}


def test_a_block_begins_with_words_once() -> None:
    reader = listen("anthropic-messages")
    with pytest.raises(FirewallError, match="a block begins twice"):
        reader.feed(events(block(""), delta("bo"), block("x"), delta("mb")))


def stop(index: int = 0) -> dict[str, Any]:
    return {"type": "content_block_stop", "index": index}


def test_an_index_may_begin_again_with_words() -> None:
    """What a client reads who goes by the index is judged as one, and what one reads who counts the blocks."""
    frames = listen("anthropic-messages").feed(events(
        block("bo"), stop(), block("x"), delta("mb"), stop(), {**block("ze"), "index": 2}, stop(2),
        {**delta("bra"), "index": 2}))
    assert said(frames) == {"block/0/text": "bomb", "block/0/1/text": "xmb", "message/0/place/1/text": "x",
                            "block/2/text": "zebra"}
    tool = {**BLOCK, "content_block": {"type": "tool_use", "name": "f", "input": {"a": "b\nc"}}}
    words = said(listen("anthropic-messages").feed(events(tool, stop(), tool, stop())))
    assert [words[f"block/0/{again}input/decoded"] for again in ("", "1/")] == ["a\nb\nc"] * 2
    start = {"type": "message_start", "message": {"id": "m", "content": [{"type": "text", "text": "pre"}]}}
    words = said(listen("anthropic-messages").feed(events(start, block("pre"), delta("fix"), stop())))
    assert words["block/0/text"] == words["block/0/1/text"] == "prefix"


def test_blocks_out_of_order_are_read_both_ways() -> None:
    frames = listen("anthropic-messages").feed(events({**block("bo"), "index": 1}, {**delta("y"), "index": 1}, delta("mb")))
    assert said(frames) == {"block/1/text": "boy", "message/0/place/0/text": "bomb", "block/0/text": "mb"}


def partial(*values: dict[str, Any]) -> dict[str, Any]:
    return {"candidates": [{"content": {"parts": [{"functionCall": call} for call in values]}}]}


def test_arguments_in_two_ways_are_two_channels() -> None:
    """Gemini: each is decoded on its own."""
    piece = [{"name": "f", "willContinue": True},
             *[{"partialArgs": [{"jsonPath": "$.a", "stringValue": text}], "willContinue": True} for text in (
                 "\\u0062o", "\\u006db")]]
    frames = listen("gemini").feed(events(partial(*piece[:2]), partial({"args": {"b": "x\n"}, "willContinue": True}),
                                          partial(piece[2]), partial({})))
    words = said(frames)
    assert words["choice/0/tool/0/arguments/decoded"] == "\nbomb"
    assert words["choice/0/tool/0/arguments/args"] == '{"b":"x\\n"}'
    assert "x\n" in words["choice/0/tool/0/arguments/args/decoded"]


def test_a_partial_argument_has_values_of_one_kind() -> None:
    reader = listen("gemini")
    row = [{"jsonPath": "$.a", "stringValue": "bo"}, {"jsonPath": "$.a", "numberValue": 7}]
    with pytest.raises(FirewallError) as error:
        reader.feed(events(partial({"name": "f", "partialArgs": row, "willContinue": True})))
    assert error.value.code == "unreadable_event"


def chunk(content: Any) -> dict[str, Any]:
    return {"choices": [{"index": 0, "delta": {"content": content}}]}


def thinking(closed: Any) -> dict[str, Any]:
    return chunk([{"type": "thinking", "thinking": [{"type": "text", "text": "x"}], "closed": closed}])


def streams() -> Iterator[tuple[str, bytes]]:
    well = chunk("well")
    yield "a name that another follows", b"event: a zebra\nevent: message\n" + events(well)
    yield "a name and an empty one", b"event: a zebra\nevent:\ndata:\n\n" + events(well)
    yield "a name of the end", events(well) + b"event: a zebra\ndata: [DONE]\n\n"
    yield "a name that is a type in another encoding", "event: é a zebra\n".encode() + events(
        {"type": "é a zebra".encode().decode("latin-1"), **well}).replace(b"event:", b"x:")
    yield "closed", events(thinking("a zebra"))
    yield "integers", events(chunk(list(b"a zebra")))


@pytest.mark.parametrize("data", [data for _, data in streams()], ids=[name for name, _ in streams()])
def test_all_words_are_on_a_channel(data: bytes) -> None:
    frames = listen("openai-chat").feed(data)
    assert "a zebra" in "\n".join(said(frames).values())
    assert any("é" in words for words in said(frames).values()) == ("é".encode() in data)


@pytest.mark.parametrize("closed", [True, False, None])
def test_a_thought_may_be_closed(closed: bool | None) -> None:
    assert said(listen("openai-chat").feed(events(thinking(closed)))) == {"choice/0/reasoning": "x"}


CANDIDATE: dict[str, Any] = {"candidates": [{"content": {"parts": [{"text": "well"}]}, "finishReason": "STOP"}]}


@pytest.mark.parametrize("odd", ["a zebra", ["a zebra"], 1, None])
def test_an_array_holds_objects(odd: Any) -> None:
    """Gemini's stream that is no SSE."""
    with pytest.raises(FirewallError) as error:
        heard(listen("gemini", b"application/json"), orjson.dumps([CANDIDATE, odd]))
    assert error.value.code == "unreadable_event"


@pytest.mark.parametrize("value", ["a zebra", ["a zebra"], [{"text": "a zebra"}]])
def test_an_object_is_no_array(value: Any) -> None:
    reader = listen("gemini", b"application/json")
    frames = heard(reader, orjson.dumps({"[]": value}))
    assert "a zebra" in "\n".join(said(frames).values())


def test_an_array_is_redacted_as_an_array() -> None:
    cited = {"groundingMetadata": {"groundingSupports": [{"segment": {"startIndex": 0, "endIndex": 2}}]}}
    reader = listen("gemini", b"application/json")
    frame, = heard(reader, orjson.dumps([CANDIDATE, {"candidates": [{**CANDIDATE["candidates"][0], **cited}]}]))
    first, second = orjson.loads(reader.rewrite(frame, ["[X]" if p.text == "well" else None for p in frame.pieces]))
    assert first["candidates"][0]["content"]["parts"] == [{"text": "[X]"}]
    assert second["candidates"][0]["groundingMetadata"] == {"groundingSupports": []}
