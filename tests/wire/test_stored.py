"""Responses: items that stand for something stored at the vendor are refused, whole items with an id are not."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.wire.dialects import WIRES
from firewall.wire.wire import Asked
from tests.wire.streams import STREAMS, Stream, needs_shared

SAID = [{"type": "output_text", "text": "hi"}]


def ask(*items: dict[str, Any]) -> Asked:
    return WIRES["openai-responses"].ask({"model": "m", "input": [{"role": "user", "content": "hello"}, *items]})


@pytest.mark.parametrize("item", [
    {"id": "msg_1"},
    {"type": "item_reference", "id": "msg_1"},
    {"type": "item_reference", "id": "msg_1", "role": "user", "content": SAID},
    {"type": None, "id": "msg_1"},
    {"type": None, "id": "msg_1", "status": "completed", "role": "assistant"},
    {"type": None, "id": "msg_1", "role": "user", "flavour": "sweet"},
    {"type": None, "id": "msg_1", "content": SAID},
    {"type": None, "id": "msg_1", "role": "zebra", "content": SAID},
    {"type": ["message"], "id": "msg_1"},
    {"id": "msg_1", "role": "assistant", "content": []},
    {"id": "msg_1", "role": "assistant", "content": [{}]},
    {"type": "message", "id": "msg_1", "role": "assistant", "content": None},
    {"type": "message", "id": "msg_1"},
    {"type": "message", "id": "msg_1", "role": "assistant", "flavour": "sweet"},
    {"type": "message", "id": "msg_1", "role": "assistant", "content": []},
    {"type": "function_call", "id": "fc_1"},
    {"type": "image_generation_call", "id": "ig_1", "status": "completed", "result": None},
    {"type": "reasoning", "id": "rs_1", "summary": None},
    {"type": "zebra", "id": "x_1"},
])
def test_references_are_refused(item: dict[str, Any]) -> None:
    """D29."""
    with pytest.raises(FirewallError) as error:
        ask(item)
    assert (error.value.status, error.value.code, error.value.param) == (400, "unsupported_field", "input.1")


@pytest.mark.parametrize("item", [
    {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": SAID},
    {"type": "message", "id": "msg_1", "role": "assistant", "content": [{"type": "output_text", "text": ""}]},
    {"id": "msg_1", "role": "assistant", "content": "hi"},
    {"type": None, "id": None, "role": "user", "content": ""},
    {"role": "user", "content": [{"type": "input_image", "image_url": "data:image/png;base64,iVBORw0KGgo="}], "id": "m"},
    {"type": "function_call", "id": "fc_1", "call_id": "c", "name": "f", "arguments": "{}"},
    {"type": "function_call_output", "id": "fco_1", "call_id": "c", "output": ""},
    {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "open_page"}},
    {"type": "mcp_list_tools", "id": "mcpl_1", "server_label": "s", "tools": []},
    {"type": "compaction", "id": "cmp_1", "encrypted_content": "gAAA"},
])
def test_whole_items_pass(item: dict[str, Any]) -> None:
    assert ask(item).document["input"][1] == item


def test_reasoning_that_the_vendor_keeps_is_opaque() -> None:
    """Agents send a reasoning item back by its id beside the calls it led to."""
    assert ask({"type": "reasoning", "id": "rs_1", "summary": []}).opaque == ("input.1",)
    sealed = {"type": "reasoning", "id": "rs_1", "summary": [], "encrypted_content": "gAAA" + "9fQ2xZ7_" * 9}
    assert ask(sealed).opaque == ("input.1.encrypted_content",)
    assert ask({**sealed, "encrypted_content": None, "summary": [{"type": "summary_text", "text": "hm"}]}).opaque == ()


@needs_shared
@pytest.mark.parametrize("stream", [s for s in STREAMS if s.wire == "openai-responses"], ids=lambda s: s.name)
def test_what_was_answered_may_be_sent_back(stream: Stream) -> None:
    ends = [document["response"] for event in stream.events
            if (document := orjson.loads(event))["type"] == "response.completed"]
    for response in ends:
        assert len(ask(*response["output"]).document["input"]) == 1 + len(response["output"])
