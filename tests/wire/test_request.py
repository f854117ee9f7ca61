"""What a request asks for: sizes that are legal, wherever a dialect says them."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.wire.dialects import WIRES
from firewall.wire.request import ENDLESS
from tests.wire.streams import REQUESTS, listen


@pytest.mark.parametrize(("wire", "field", "value", "number"), [
    ("ollama-chat", "options", {"num_predict": 128.0}, 128),
    ("ollama-chat", "options", {"num_predict": -2.0}, ENDLESS),
    ("ollama-chat", "options", {"num_predict": 2**31 - 1}, 2**31 - 1),
    ("openai-chat", "max_tokens", -1, ENDLESS), ("openai-chat", "max_tokens", 10**6, 10**6),
    ("openai-chat", "max_tokens", 100.0, 100), ("openai-chat", "prompt_logprobs", -1, None),
    ("openai-completions", "logprobs", 100, None), ("gemini", "generationConfig", {"maxOutputTokens": "100"}, 100),
    ("gemini", "generation_config", {"candidate_count": 2.0}, 2),
])
def test_sizes_that_are_legal_pass_and_are_counted(wire: str, field: str, value: Any, number: int | None) -> None:
    assert [size.number for size in WIRES[wire].ask({**REQUESTS[wire], field: value}).sizes if size.param != "max_tokens"
            or field == "max_tokens"] == ([] if number is None else [number])


@pytest.mark.parametrize(("wire", "field", "value"), [
    ("openai-chat", "max_tokens", 10**9), ("openai-chat", "max_completion_tokens", 10**6 + 1), ("openai-chat", "n", 129),
    ("anthropic-messages", "max_tokens", 10**9), ("gemini", "generationConfig", {"maxOutputTokens": "1000000001"}),
])
def test_k17_what_no_api_gives_is_refused(wire: str, field: str, value: Any) -> None:
    with pytest.raises(FirewallError) as refused:
        WIRES[wire].ask({**REQUESTS[wire], field: value})
    assert refused.value.code == "invalid_field"


def test_as_many_candidates_are_expected_as_a_string_asks_for() -> None:
    end = orjson.dumps({"candidates": [{"index": 0, "finishReason": "STOP"}]})
    reader = listen("gemini", generationConfig={"candidateCount": "2"})
    assert not reader.feed(b"data: " + end + b"\n\n")[-1].last
