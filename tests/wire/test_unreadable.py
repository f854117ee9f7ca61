"""Whatever an upstream sends, reading it gives frames or the upstream's fault: never another error."""

from __future__ import annotations

from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import FirewallError
from tests.wire.streams import REQUESTS, events, listen

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
