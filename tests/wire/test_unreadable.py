"""Whatever an upstream sends, reading it gives frames or the upstream's fault: never another error."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from firewall.wire.frame import Piece
from firewall.wire.leaves import leaves
from firewall.wire.speech import Array
from tests.wire.streams import REQUESTS, events, heard, listen, said

ODD = st.sampled_from([[], {}, ["type"], {"a": "b"}, None, True, 0, -1, 1.5, "zebra", [[]], [{}], [None], [1]])
TYPES = ["response.output_text.delta", "response.output_item.added", "response.completed", "content_block_start",
         "content_block_delta", "message_start", "message_delta", "text_delta", "message", "tool_use", "text"]
NAMES = ["type", "index", "delta", "message", "choices", "candidates", "content", "parts", "response", "item", "part",
         "output", "output_index", "content_block", "logprobs", "token", "top_logprobs", "bytes", "tool_calls", "function",
         "arguments", "functionCall", "args", "text", "finish_reason", "done", "error", "id", "model", "annotation",
         "usage", "stop_reason", "input", "partialArgs", "citation", "reasoning", "promptFeedback", "modelVersion"]
NODE = st.recursive(st.one_of(ODD, st.sampled_from(TYPES)), lambda inner: st.one_of(
    st.lists(inner, max_size=2), st.dictionaries(st.sampled_from(NAMES), inner, max_size=4)), max_leaves=12)
DOCUMENT = st.dictionaries(st.sampled_from(NAMES), NODE, max_size=5)
KINDS = {"ollama-chat": b"application/x-ndjson", "ollama-generate": b"application/x-ndjson"}


def fate(wire: str, kind: bytes, data: bytes) -> str:
    reader = listen(wire, kind)
    try:
        for frame in [*reader.feed(data), *reader.close()]:
            if frame.raw and frame.pieces:
                rewritten(reader, frame)
    except FirewallError as error:
        assert error.fault == "upstream" and error.status == 502
        return error.code
    return "read"


def rewritten(reader: Any, frame: Any) -> None:
    try:
        reader.rewrite(frame, ["[X]" for _ in frame.pieces])
    except FirewallError as error:
        assert error.code == "unredactable"


@pytest.mark.parametrize("wire", REQUESTS)
@given(st.lists(DOCUMENT, min_size=1, max_size=3))
def test_any_shape(wire: str, documents: list[dict[str, Any]]) -> None:
    if kind := KINDS.get(wire):
        fate(wire, kind, b"".join(orjson.dumps(document) + b"\n" for document in documents))
    else:
        fate(wire, b"text/event-stream", events(*documents))
    fate(wire, b"application/json", orjson.dumps(documents[0]))


@pytest.mark.parametrize("wire, document", [
    ("anthropic-messages", {"type": ["content_block_delta"]}),
    ("anthropic-messages", {"type": {"a": 1}, "index": 0}),
    ("anthropic-messages", {"type": "content_block_start", "index": 0, "content_block": {"type": ["text"]}}),
    ("openai-responses", {"type": ["response.created"]}),
    ("openai-responses", {"type": "response.output_item.added", "output_index": 0, "item": {"type": {}}}),
    ("openai-chat", {"choices": [{"index": 0, "logprobs": {"content": [{"token": "a", "top_logprobs": 5}]}}]}),
])
def test_types_that_are_no_strings(wire: str, document: dict[str, Any]) -> None:
    for kind, data in ((b"text/event-stream", events(document)), (b"application/json", orjson.dumps(document))):
        assert fate(wire, kind, data) in ("unreadable_event", "upstream_truncated", "unjudgeable_field", "read")


@pytest.mark.parametrize("count, read", [(64, True), (65, False)])
def test_blocks_that_are_open_at_once_are_bounded(count: int, read: bool) -> None:
    """Every frame carries what is open: 10,000 blocks that nobody closes would hold 400 MB."""
    start = [{"type": "content_block_start", "index": index, "content_block": {"type": "text", "text": ""}}
             for index in range(count)]
    assert fate("anthropic-messages", b"text/event-stream", events(*start, {"type": "message_stop"})) == (
        "read" if read else "unreadable_event")
    stop = [{"type": "content_block_stop", "index": index} for index in range(count)]
    turns = [event for pair in zip(start, stop, strict=True) for event in pair]
    assert fate("anthropic-messages", b"text/event-stream", events(*turns, {"type": "message_stop"})) == "read"


def chunk(number: int, value: Any) -> bytes:
    return events({"choices": [{"index": 0, "delta": {"content": "well "}}], f"zebra {number}": value})


@pytest.mark.parametrize("kind", [b"text/event-stream", b"application/json"])
def test_unknown_keys_are_one_channel(kind: bytes) -> None:
    """However many there are: a question costs as much as there are channels."""
    if kind == b"text/event-stream":
        found = heard(listen("openai-chat", kind), *[chunk(number % 300, 1) for number in range(600)], events(done=True))
        words = "well " * 600
    else:
        found = heard(listen("openai-chat", kind), orjson.dumps({f"zebra {number}": 1 for number in range(300)} | {
            "choices": [{"index": 0, "message": {"content": "well "}}]}))
        words = "well "
    assert said(found) == {"choice/0/text": words, "keys": "".join([f"zebra {number}\n" for number in range(300)])}


def test_channels_are_bounded() -> None:
    reader = listen("openai-chat")
    with pytest.raises(FirewallError) as error:
        for number in range(5000):
            reader.feed(chunk(number, "more"))
    assert error.value.code == "unreadable_event" and 4000 < number < 4100


def test_a_key_cannot_be_redacted() -> None:
    """Not even where a value has the same words."""
    reader = listen("openai-chat")
    frame, = reader.feed(events({"choices": [{"index": 0, "delta": {"content": "zebra\n"}}], "zebra": 1}))
    texts = ["[X]" if piece.channel == "keys" else None for piece in frame.pieces]
    with pytest.raises(FirewallError) as error:
        reader.rewrite(frame, texts)
    assert "[X]" in texts and error.value.code == "unredactable"


NULLS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "openai-chat": ("choices", {"delta": {"content": "word"}},
                    {"delta": None, "message": None, "logprobs": None, "finish_reason": "stop"}),
    "openai-completions": ("choices", {"text": "word"}, {"text": None, "logprobs": None, "finish_reason": "stop"}),
    "gemini": ("candidates", {"content": {"parts": [{"text": "word"}]}}, {"content": None, "finishReason": "STOP"}),
}


@pytest.mark.parametrize("wire", NULLS)
def test_null_is_as_good_as_nothing(wire: str) -> None:
    """An empty list is null in Go; an SDK hands both on."""
    name, words, end = NULLS[wire]
    first: dict[str, Any] = {name: [{"index": None, **words}]}
    frames = heard(reader := listen(wire), events(first, {name: [{"index": None, **end}]}, {name: None}, done=True))
    assert said(frames) == {"choice/0/text": "word"} and b"[X]" in reader.rewrite(frames[0], ["[X]"])
    failed: dict[str, Any] = {name: None, "error": {"message": "the real error", "code": 500}}
    heard(whole := listen(wire, b"application/json"), orjson.dumps(failed))
    frame = frames[0]._replace(raw=orjson.dumps(failed), pieces=(Piece("error/message", "the real error"),))
    assert b'"error":{"message":"[X]"' in whole.rewrite(frame, ["[X]"])


@pytest.mark.parametrize("odd", [Array({"[]": ["words"]}), ("words",), b"words"], ids="array tuple bytes".split())
def test_what_is_no_json_is_never_silent(odd: Any) -> None:
    for value in (odd, {"id": odd}, [odd]):
        with pytest.raises(TypeError):
            leaves(value)
