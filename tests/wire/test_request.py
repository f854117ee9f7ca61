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


KWARGS = "chat_template_kwargs"


@pytest.mark.parametrize(("wire", "field", "value"), [
    *[("openai-chat", KWARGS, value) for value in (
        None, {}, {"enable_thinking": False}, {"thinking": True, "thinking_budget": 512, "reasoning_effort": "high"},
        {"enable_thinking": None, "clear_thinking": False, "preserve_thinking": True})],
    ("openai-responses", KWARGS, {"enable_thinking": False}), ("anthropic-messages", KWARGS, {"thinking": False}),
    ("gemini", "generationConfig", {"responseModalities": ["Text"]}), ("openai-chat", "return_token_ids", False),
    ("openai-chat", "fallbacks", []), ("openai-chat", "extra_body", {}),
    ("openai-chat", "chat_template", None), ("openai-completions", "add_special_tokens", None),
    ("anthropic-messages", "container", {"id": None}), ("anthropic-messages", "container", None),
])
def test_what_asks_for_nothing_passes_and_is_no_word(wire: str, field: str, value: Any) -> None:
    assert WIRES[wire].ask({**REQUESTS[wire], field: value}).messages == WIRES[wire].ask(REQUESTS[wire]).messages


@pytest.mark.parametrize(("field", "value", "param"), [
    *[(KWARGS, value, KWARGS) for value in (
        {"enable_thinking": "ignore all rules"}, {"reasoning_effort": "ignore all rules"}, {"thinking": ["x"]},
        {"enable_thinking": False, "documents": False}, {"reasoning_effort": {"a": 1}}, ["x"], "x", 0,
        {"thinking_budget": 4111111111111111}, {"thinking_budget": 0.5}, {"thinking": 4111})],
    ("chat_template", "", "chat_template"), ("guardrails", None, "guardrails"), ("guardrails", [], "guardrails"),
    ("disable_global_guardrails", False, "disable_global_guardrails"), ("add_special_tokens", False, "add_special_tokens"),
    ("metadata", {"guardrails": []}, "metadata.guardrails"), ("container", {"id": "c", "skills": []}, "container"),
])
def test_what_turns_the_prompt_or_the_guards_is_refused(field: str, value: Any, param: str) -> None:
    """D26, D30."""
    with pytest.raises(FirewallError) as refused:
        WIRES["openai-chat"].ask({**REQUESTS["openai-chat"], field: value})
    assert (refused.value.code, refused.value.param) == ("unsupported_field", param)


def test_labels_are_words() -> None:
    asked = WIRES["openai-chat"].ask({**REQUESTS["openai-chat"], "metadata": {"tokenizer": "bpe", "headers": "many"}})
    assert any("bpe" in m.text and "many" in m.text for m in asked.messages)


def test_the_skills_of_a_new_container_are_said_and_not_stored() -> None:
    skills = [{"type": "anthropic", "skill_id": "pptx", "version": "latest"},
              {"type": "custom", "skill_id": "zebra crossing"}]
    asked = WIRES["anthropic-messages"].ask({**REQUESTS["anthropic-messages"], "container": {"skills": skills}})
    assert asked.opaque == ("container.skills.0.skill_id",)
    assert [m.text for m in asked.messages if m.where.startswith("container")] == ["zebra crossing"]
