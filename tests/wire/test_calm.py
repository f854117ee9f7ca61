"""The vendors' own words about a request say nothing that a guard is asked about; words in their places do."""

from __future__ import annotations

from collections.abc import Iterator
from copy import deepcopy
from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.verdict import Span
from firewall.wire.body import strict
from firewall.wire.dialects import WIRES
from firewall.wire.wire import Asked
from tests.wire.streams import REQUESTS, events, heard, listen, said

CANARY = "zebra crossing"
PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SECRET = "Bearer ghp_16C7e42F292c6912E7710c838347Ae178B4a"
CHECKS = [{"code": code, "message": ""} for code in ("malicious_instructions", "irrelevant_domain", "sensitive_domain")]


def turn(part: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"role": "user", "content": [part]}]


def google(**config: Any) -> dict[str, Any]:
    return {"extra_body": {"google": {"thinking_config": config}}}


CACHE = [{"prompt_cache_options": {"mode": mode, "ttl": ttl}} for mode, ttl in (("implicit", "30m"), ("explicit", "12h"))]
MARK = [{"prompt_cache_breakpoint": {"mode": "explicit", **ttl}} for ttl in ({}, {"ttl": "30m"}, {"ttl": "12h"})]
TRIED = [{"max_tokens": 9, "speed": pace, "thinking": {"type": how, "display": shown}, "output_config": {"effort": effort}}
         for pace, how, shown, effort in (
             ("fast", "adaptive", "omitted", "low"), ("standard", "disabled", "summarized", "max"),
             ("fast", "enabled", "updates", "xhigh"), ("fast", "between_tools", "omitted", "medium"))]
CALM: list[tuple[str, dict[str, Any]]] = [
    *[(wire, cache) for wire in ("openai-chat", "openai-responses") for cache in CACHE],
    *[("openai-chat", {"messages": turn({"type": "text", "text": "hello", **mark})}) for mark in MARK],
    *[("openai-responses", {"input": turn({"type": "input_text", "text": "hello", **mark})}) for mark in MARK],
    ("openai-responses", {"tools": [{"type": "web_search", "external_web_access": True}]}),
    *[("openai-responses", {"tools": [{"type": "mcp", **how}]}) for how in (
        {"headers": {"Authorization": SECRET}}, {"headers": {"authorization": SECRET}}, {"authorization": SECRET})],
    *[("openai-responses", {"input": [{"role": "user", "content": "hello"}, {"type": kind, "call_id": "c", at: CHECKS}]})
      for kind, at in (("computer_call_output", "acknowledged_safety_checks"), ("computer_call", "pending_safety_checks"))],
    ("anthropic-messages", {"mcp_servers": [{"type": "url", "authorization_token": SECRET}]}),
    ("anthropic-messages", {"tools": [{"configs": {}}]}),
    ("anthropic-messages", {"context_management": {"clear_tool_inputs": True}}),
    ("anthropic-messages", {"fallbacks": "default"}),
    *[("anthropic-messages", tried) for tried in TRIED],
    *[("anthropic-messages", {"fallbacks": [{"model": "claude-opus-5", **tried}]}) for tried in ({}, *TRIED)],
    ("gemini", {"contents": {"role": "user", "parts": {"text": "hello"}}}),
    ("gemini", {"contents": {"parts": [{"text": "hello"}]}}),
    ("gemini", {"contents": [{"role": "user", "parts": {"text": "hello"}}]}),
    *[("gemini", {config: {name: spoken}}) for config in ("generationConfig", "generation_config") for spoken in (
        "TEXT", "Text", ["TEXT"], ["text"]) for name in ("responseModalities", "response_modalities")],
    ("openai-chat", google()), ("openai-chat", google(thinking_budget=800, include_thoughts=True)),
    *[("openai-chat", google(thinking_level=level)) for level in ("none", "minimal", "low", "medium", "high")],
]


STRANGE: list[dict[str, Any]] = [
    *[{"extra_body": {"google": said, **more}} for said, more in (
        ({"cached_content": "c"}, {}), ({"thinking_config": {}, "cached_content": "c"}, {}), ([], {}), ({}, {}),
        ({"thinking_config": {}}, {"api_base": "x"}), ({"thinking_config": "high"}, {}))],
    google(thinking_level=CANARY), google(thinking_level=["low"]), google(thinking_budget=4111111111111111),
    google(zebra=True), google(thinking_budget=True), google(include_thoughts=1), google(include_thoughts="zebra"),
]


def ask(wire: str, more: dict[str, Any]) -> Asked:
    return WIRES[wire].ask(strict(orjson.dumps({**REQUESTS[wire], **more})))


def objects(node: Any) -> Iterator[dict[str, Any] | list[Any]]:
    if isinstance(node, dict | list):
        yield node
        for value in node.values() if isinstance(node, dict) else node:
            yield from objects(value)


@pytest.mark.parametrize(("wire", "more"), CALM)
def test_a_protocol_word_leaves_nothing_to_judge(wire: str, more: dict[str, Any]) -> None:
    assert [message.text for message in ask(wire, more).messages] == ["hello"]


@pytest.mark.parametrize(("wire", "more"), CALM)
def test_words_beside_and_in_place_of_a_protocol_word_are_judged(wire: str, more: dict[str, Any]) -> None:
    """Or the field is refused."""
    tried: list[dict[str, Any]] = []
    for at, node in enumerate(objects(more)):
        for key in list(node) if isinstance(node, dict) else range(len(node)):
            other = deepcopy(more)
            list(objects(other))[at][key] = CANARY      # type: ignore[index,call-overload]
            tried.append(other)
        for name in ("brand_new", "text", "[]", "") if isinstance(node, dict) else ():
            other = deepcopy(more)
            list(objects(other))[at][name] = CANARY     # type: ignore[index,call-overload]
            tried.append(other)
    for other in tried:
        try:
            asked = ask(wire, other)
        except FirewallError as refused:
            assert refused.code in ("unsupported_field", "invalid_field")
        else:
            assert any(CANARY in message.text for message in asked.messages), other


@pytest.mark.parametrize(("wire", "more", "param"), [
    *[("anthropic-messages", {"fallbacks": value}, "fallbacks") for value in (
        "claude-opus-5", ["gpt-4"], {"model": "m"}, [{"max_tokens": 9}], [{"model": None}], [{"model": {"zebra": 1}}],
        [{"model": "m", "api_base": "https://evil"}], [{"model": "m", "messages": []}], [{"model": "m"}] * 17)],
    ("openai-chat", {"fallbacks": "default"}, "fallbacks"), ("openai-chat", {"fallbacks": [{"model": "m"}]}, "fallbacks"),
    ("anthropic-messages", {"fallbacks": "default", "guardrails": []}, "guardrails"),
    ("anthropic-messages", {"fallbacks": [{"model": "m", "max_tokens": 10**9}]}, "fallbacks.0.max_tokens"),
    *[("openai-chat", value, "extra_body") for value in STRANGE],
    *[("gemini", {"contents": value}, "contents") for value in ("hello", ["hello"], None, 1)],
    *[("gemini", {"generationConfig": value}, "generationConfig." + [*value][-1]) for value in (
        {"responseModalities": "IMAGE"}, {"responseModalities": ["TEXT", "IMAGE"]}, {"response_modalities": "AUDIO"},
        {"responseModalities": ["TEXT"], "response_modalities": ["IMAGE"]})],
])
def test_what_only_looks_like_it_is_refused_by_name(wire: str, more: dict[str, Any], param: str) -> None:
    with pytest.raises(FirewallError) as refused:
        ask(wire, more)
    assert refused.value.param == param
    assert param.encode() in WIRES[wire].error(refused.value, "r")


@pytest.mark.parametrize(("more", "where"), [
    ({"contents": {"parts": {"text": "a zebra"}}}, "contents.parts.text"),
    ({"contents": {"parts": [{"text": "a zebra"}]}}, "contents.parts.0.text"),
    ({"contents": [{"role": "model", "parts": {"text": "a zebra"}}]}, "contents.0.parts.text"),
])
def test_words_of_one_where_a_list_is_meant_are_rewritten_in_their_place(more: dict[str, Any], where: str) -> None:
    asked = ask("gemini", more)
    assert [message.where for message in asked.messages] == [where]
    out = asked.rewrite([Span(where, 2, 7)], lambda _: "[X]")
    assert orjson.loads(out) == orjson.loads(orjson.dumps(more).replace(b"zebra", b"[X]"))


@pytest.mark.parametrize("spoken, role", [("user", "user"), ("model", "assistant"), ("function", "tool")])
def test_one_content_speaks_in_its_role(spoken: str, role: str) -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": PNG}, "text": "x"}
    asked = ask("gemini", {"contents": {"role": spoken, "parts": part}})
    assert [(message.role, message.text) for message in asked.messages] == [(role, "x")]
    assert asked.opaque == ("contents.parts.inlineData.data",)


def test_the_words_and_sizes_of_a_fallback_are_its_own() -> None:
    form = {"format": {"type": "json_schema", "schema": {"description": CANARY}}}
    second = {"model": "a b", "max_tokens": 77, "output_config": form}
    asked = ask("anthropic-messages", {"fallbacks": [{"model": "m"}, second]})
    assert [(message.where, message.text) for message in asked.messages if message.role == "request"] == [
        ("fallbacks.1.model", "a b"), ("fallbacks.1.output_config.format.schema.description", CANARY)]
    assert [(size.param, size.number) for size in asked.sizes] == [("max_tokens", 9), ("fallbacks.1.max_tokens", 77)]


@pytest.mark.parametrize("name", ["Authorization", "authorization", "AUTHORIZATION", "X-Api-Key"])
def test_a_credential_is_unseen_at_its_place_alone(name: str) -> None:
    beside = [{"type": "mcp", "server_label": "gh", "headers": {"X-Note": CANARY, name: SECRET}}]
    text = "\n".join(message.text for message in ask("openai-responses", {"tools": beside}).messages)
    assert CANARY in text and (SECRET in text) == (name.lower() == "x-api-key" or name.isupper())
    for tools in ([{"type": "function", name: SECRET}], [{"type": "mcp", "headers": {name: f"{SECRET} {CANARY}"}}],
                  [{"type": "mcp", "headers": {name: "Bearer " + SECRET}}]):
        seen = "\n".join(message.text for message in ask("openai-responses", {"tools": tools}).messages)
        assert (SECRET in seen) == (name != "authorization" or "headers" in tools[0])
    assert SECRET in "\n".join(m.text for m in ask("openai-chat", {"tools": [{"headers": {name: SECRET}}]}).messages)


@pytest.mark.parametrize(("more", "calm"), [
    ({"overwrittenThreshold": "BLOCK_LOW_AND_ABOVE"}, True), ({"overwrittenThreshold": CANARY}, False)])
def test_ratings_of_an_answer(more: dict[str, Any], calm: bool) -> None:
    row = {"finishReason": "STOP", "safetyRatings": [{"category": "HARM_CATEGORY_HARASSMENT", **more}]}
    assert (said(heard(listen("gemini"), events({"candidates": [row]}))) == {}) == calm


@pytest.mark.parametrize("place", ["message", "choice", "chunk"])
def test_fields_of_sglang(place: str) -> None:
    choice: dict[str, Any] = {"index": 0, "delta": {"content": "well"}, "finish_reason": "stop"}
    chunk: dict[str, Any] = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [choice]}
    {"message": choice["delta"], "choice": choice, "chunk": chunk}[place]["hidden_states"] = None
    assert said(heard(listen("openai-chat"), events(chunk, done=True))) == {"choice/0/text": "well"}


def test_a_field_that_is_named_already_is_not_named_twice() -> None:
    error = FirewallError("limit_exceeded", "`n` may ask for at most 1 here.", param="n")
    assert error.named == error.public and FirewallError("a", "No.", param="n").named == "No. (n)"
