"""OpenAI-shaped wires: what vendors really send (E14-E27), logprobs, tool calls that leave whole, what is refused."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.wire.dialects import WIRES
from firewall.wire.wire import StreamLimits
from tests.wire.streams import REQUESTS, events, heard, listen, said


def chunk(delta: dict[str, Any], reason: str | None = None, index: int = 0, **more: Any) -> dict[str, Any]:
    return {
        "id": "c-1",
        "object": "chat.completion.chunk",
        "model": "m",
        "choices": [{"index": index, "delta": delta, "finish_reason": reason, **more}],
    }


def call(index: int | None = 0, id_: str | None = None, **function: str) -> dict[str, Any]:
    row: dict[str, Any] = {"function": function}
    if index is not None:
        row["index"] = index
    if id_ is not None:
        row["id"] = id_
    return {"tool_calls": [row]}


def test_a_tool_call_is_pending_until_its_choice_ends() -> None:
    frames = heard(
        listen("openai-chat"),
        events(
            chunk({"content": "ok"}),
            chunk(call(1, "a", name="f")),
            chunk(call(1, arguments='{"x":"\\u007a')),
            chunk(call(1, arguments='ebra"}')),
            chunk(call(2, "b", name="g", arguments="{}")),
            chunk({"content": "more"}),
            chunk({}, "tool_calls"),
            {"id": "c-1", "choices": [], "usage": {"total_tokens": 3}},
            done=True,
        ),
    )
    assert [frame.pending for frame in frames] == [False, *[True] * 5, False, False, False]
    assert [frame.last for frame in frames] == [*[False] * 6, True, False, False]
    assert said(frames) == {
        "choice/0/text": "okmore",
        "choice/0/tool/1/name": "f",
        "choice/0/tool/1/arguments": '{"x":"\\u007aebra"}',
        "choice/0/tool/2/name": "g",
        "choice/0/tool/2/arguments": "{}",
        "choice/0/tool/1/arguments/decoded": "x\nzebra",
    }


def test_ids_and_indices_may_be_missing() -> None:
    """E27: no index; the id comes once a call."""
    frames = listen("openai-chat").feed(
        events(
            chunk(call(None, "a", name="f", arguments="{")),
            chunk(call(None, arguments="1}")),
            chunk(call(None, "b", name="g", arguments="{")),
            chunk(call(None, "a", arguments="!")),
            chunk(call(None, arguments="2}")),
        )
    )
    assert said(frames)["choice/0/tool/0/arguments"] == "{1}!" and said(frames)["choice/0/tool/1/arguments"] == "{2}"


def test_function_call_and_json_inside_json() -> None:
    hidden = orjson.dumps({"q": orjson.dumps({"x": "zebra\n"}).decode().replace("z", "\\u007a")}).decode()
    frames = heard(
        listen("openai-chat"),
        events(chunk({"function_call": {"name": "f", "arguments": hidden}}), chunk({}, "function_call"), done=True),
    )
    assert frames[0].pending and not frames[1].pending
    assert "zebra" in said(frames)["choice/0/call/arguments/decoded"]


def test_choices_are_kept_apart_and_the_last_ends() -> None:
    reader = listen("openai-chat", n=2)
    frames = heard(
        reader,
        events(
            chunk({"content": "a"}, index=1),
            chunk({"content": "b"}, index=0),
            chunk({}, "stop", index=1),
            chunk({}, "stop", index=0),
            done=True,
        ),
    )
    assert said(frames) == {"choice/1/text": "a", "choice/0/text": "b"}
    assert [frame.last for frame in frames] == [False, False, False, True, False]


def rows(*tokens: str, **more: Any) -> dict[str, Any]:
    return {
        "content": [
            {"token": t, "logprob": -1.0, "bytes": list(t.encode()), "top_logprobs": [], **more} for t in tokens
        ]
    }


def test_logprobs_are_words_unless_they_repeat_the_words() -> None:
    """F09, F10: never ahead of the text they spell."""
    same = listen("openai-chat").feed(events(chunk({"content": "a b"}, logprobs=rows("a", " b"))))
    assert said(same) == {"choice/0/text": "a b"}
    other = listen("openai-chat").feed(events(chunk({"content": "a"}, logprobs=rows("ze", "bra"))))
    assert said(other) == {"choice/0/text": "a", "choice/0/logprobs": "zebra"}
    bytes_ = rows("a")
    bytes_["content"][0]["bytes"] = list(b"zebra")
    bytes_["content"][0]["top_logprobs"] = [{"token": "lion", "logprob": -2.0, "bytes": None}]
    assert said(listen("openai-chat").feed(events(chunk({"content": "a"}, logprobs=bytes_)))) == {
        "choice/0/text": "a",
        "choice/0/logprobs/top": "lion",
        "choice/0/logprobs/bytes": "zebra",
    }


@pytest.mark.parametrize(
    "place",
    [
        lambda c: c.update(prompt_token_ids=[1, 2]),
        lambda c: c["choices"][0].update(token_ids=[17, 99_000]),
        lambda c: c["choices"][0]["delta"].update(token_ids=[1]),
        lambda c: c.update(extra={"output_token_ids": [5]}),
    ],
)
def test_token_ids_cannot_be_judged(place: Any) -> None:
    document = chunk({"content": "a"})
    place(document)
    with pytest.raises(FirewallError) as error:
        listen("openai-chat").feed(events(document))
    assert (error.value.code, error.value.fault) == ("unjudgeable_field", "upstream")


def test_integers_that_spell_are_words() -> None:
    frames = listen("openai-chat").feed(events({**chunk({"content": "a"}), "strange": {"list": list(b"zebra")}}))
    assert "zebra" in said(frames).values()


def test_azure_perplexity_and_mistral() -> None:
    """E20: an empty first chunk, citations that repeat, content as a list: preserved, and said once."""
    azure = {
        "choices": [],
        "id": "",
        "model": "",
        "prompt_filter_results": [
            {"prompt_index": 0, "content_filter_results": {"hate": {"filtered": False, "severity": "safe"}}}
        ],
    }
    cited = {**chunk({"content": "a"}), "citations": ["https://example.com/a b"]}
    listed = chunk(
        {
            "content": [
                {"type": "text", "text": "x"},
                {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
                {"type": "reference", "reference_ids": [1], "note": "zebra"},
            ]
        }
    )
    frames = heard(listen("openai-chat"), events(azure, cited, cited, listed, chunk({}, "stop"), done=True))
    words = said(frames)
    assert words["choice/0/text"] == "aax" and words["choice/0/reasoning"] == "hm" and "zebra" in words.values()
    assert words["citations/0"] == "https://example.com/a b"
    assert frames[0].pieces == () and frames[2].pieces == (("choice/0/text", "a"),)


@pytest.mark.parametrize("padding, judged", [("aB9", False), ("a b", True), ("x" * 600, True), ("zebra!", True)])
def test_padding_is_inert_only_as_padding(padding: str, judged: bool) -> None:
    reader = listen("openai-chat")
    first = {**chunk({"content": "a"}), "obfuscation": "xyz"}
    frames = reader.feed(events(chunk({"role": "assistant"}), first, {**first, "obfuscation": padding}))
    assert (("obfuscation", padding) in frames[-1].pieces) == judged


def test_reasoning_under_two_names() -> None:
    both = chunk({"reasoning": "hm", "reasoning_content": "hm"})
    frames = listen("openai-chat").feed(events(both, both, chunk({"reasoning": "x", "reasoning_content": "y"})))
    assert said(frames) == {
        "choice/0/reasoning": "hmhmx",
        "choice/0/reasoning/reasoning_content": "hmhmy",
    }


@pytest.mark.parametrize(
    "data",
    [
        b"{",
        b'{"a":1,"a":2}',
        b'{"choices":[{"delta":{"content":"a","content":"b"}}]}',
        b"[]",
        b'{"choices":{}}',
        b'{"choices":[1]}',
        b'{"choices":[{"index":"0","delta":{}}]}',
        b'{"choices":[{"delta":{"tool_calls":["x"]}}]}',
        b"NaN",
        b'"text"',
        b"\xff",
    ],
)
def test_unreadable_events_fail_closed(data: bytes) -> None:
    """E14, E15."""
    with pytest.raises(FirewallError) as error:
        listen("openai-chat").feed(b"data: " + data + b"\n\n")
    assert (error.value.fault, error.value.status) == ("upstream", 502)


def test_in_band_error_is_judged_and_ends() -> None:
    """E16."""
    frames = heard(
        reader := listen("openai-chat"), events({"error": {"message": "zebra broke", "code": "x", "type": "y"}})
    )
    assert "zebra broke" in said(frames).values() and reader.complete and frames[0].last


def test_heartbeats_are_silent_and_comments_are_words() -> None:
    """E05."""
    frames = listen("openai-chat").feed(
        b": ping\n\n\n\nid: 7\n\nretry: 10\n\n: say zebra\n\nfoo: lion\n\nevent: odd\n\n"
    )
    assert said(frames) == {"comment": ": say zebrafoo: lion", "event": "odd"}


def test_one_json_over_three_lines() -> None:
    """E07."""
    frames = listen("openai-chat").feed(
        b'data: {"choices":[{"index":0,\ndata: "delta":{"content":\ndata: "zebra"}}]}\n\n'
    )
    assert said(frames) == {"choice/0/text": "zebra"}


def test_whole_answers() -> None:
    """E18, F11, F13: by the actual type, whatever was asked."""
    body = orjson.dumps(
        {
            "id": "x",
            "object": "chat.completion",
            "choices": [
                {
                    "index": 0,
                    "finish_reason": "stop",
                    "message": {
                        "role": "assistant",
                        "content": "zebra",
                        "annotations": [{"type": "url_citation", "url_citation": {"title": "lion"}}],
                    },
                }
            ],
        }
    )
    reader = listen("openai-chat", b"application/json")
    assert reader.feed(body[:9]) == reader.feed(body[9:]) == []
    (frame,) = reader.close()
    assert frame.raw == body and frame.last and not frame.pending
    assert said([frame]) == {
        "choice/0/text": "zebra",
        "choice/0/said/annotations/0/type": "url_citation",
        "choice/0/said/annotations/0/url_citation/title": "lion",
    }
    for bad, want in (
        (b"", "upstream_truncated"),
        (body[:40], "upstream_truncated"),
        (b"[", "upstream_truncated"),
        (b"{}}", "unreadable_event"),
        (b'{"a":1,"a":2}', "unreadable_event"),
    ):
        with pytest.raises(FirewallError) as error:
            heard(listen("openai-chat", b"application/json"), bad)
        assert error.value.code == want
    with pytest.raises(FirewallError) as large:
        heard(listen("openai-chat", b"application/json", StreamLimits(body=10)), body)
    assert large.value.code == "event_too_large"
    echoed = listen("openai-completions", b"application/json")
    whole = {
        "choices": [
            {
                "text": "hello zebra",
                "index": 0,
                "finish_reason": "stop",
                "logprobs": {
                    "tokens": ["hello", " zebra"],
                    "top_logprobs": [{" lion": -1.0}],
                    "token_logprobs": [0, 0],
                    "text_offset": [0, 5],
                },
            }
        ]
    }
    assert said(heard(echoed, orjson.dumps(whole))) == {
        "choice/0/text": "hello zebra",
        "choice/0/logprobs/top": " lion",
    }


@pytest.mark.parametrize(
    "wire, field, value",
    [
        *[
            ("openai-chat", name, "x")
            for name in (
                "chat_template",
                "api_base",
                "guardrails",
                "prompt_embeds",
                "data_sources",
                "return_token_ids",
                "extra_body",
                "previous_response_id",
                "conversation",
                "container",
                "fallbacks",
                "api_key",
            )
        ],
        ("openai-chat", "audio", {"voice": "alloy"}),
        ("openai-chat", "modalities", ["text", "audio"]),
        ("openai-chat", "background", True),
        ("openai-chat", "metadata", {"guardrails": {}}),
        ("openai-completions", "prompt", [1, 2]),
        ("openai-completions", "prompt", [[1], [2]]),
        ("openai-completions", "prompt", ["a", 2]),
        ("openai-responses", "previous_response_id", "resp_1"),
        ("openai-responses", "conversation", {"id": "c"}),
        ("openai-responses", "prompt", {"id": "p"}),
        ("openai-responses", "background", True),
        ("openai-responses", "input", [{"type": "item_reference", "id": "x"}]),
        ("openai-responses", "input", [{"id": "x"}]),
        ("anthropic-messages", "container", "c"),
        ("gemini", "cachedContent", "x"),
        ("ollama-generate", "context", [1, 2]),
        ("ollama-chat", "context", [1]),
    ],
)
def test_what_cannot_be_inspected_is_refused(wire: str, field: str, value: Any) -> None:
    """D26, D29, D30, D32."""
    with pytest.raises(FirewallError) as error:
        WIRES[wire].ask({**REQUESTS[wire], field: value})
    assert (error.value.status, error.value.code) == (400, "unsupported_field")
    assert error.value.param in (field, f"{field}.0", "modalities", "metadata.guardrails")


@pytest.mark.parametrize(
    "wire, field, value",
    [
        ("openai-chat", "n", 129),
        ("openai-chat", "n", "2"),
        ("openai-chat", "n", -1),
        ("openai-chat", "best_of", 129),
        ("openai-chat", "top_logprobs", 21),
        *[("openai-chat", "max_tokens", value) for value in (-2, 1.5, "9")],
        ("openai-chat", "stream", "yes"),
        ("openai-chat", "messages", "x"),
        ("openai-chat", "messages", None),
        ("openai-chat", "messages", ["x"]),
        ("openai-chat", "model", 7),
        ("anthropic-messages", "system", 7),
        ("anthropic-messages", "messages", {}),
        ("gemini", "contents", "x"),
        ("gemini", "generationConfig", {"candidateCount": 129}),
        ("gemini", "generationConfig", {"candidateCount": "129"}),
        ("ollama-chat", "options", 7),
        ("ollama-chat", "options", {"num_predict": "9"}),
        ("openai-completions", "logprobs", 101),
        ("openai-responses", "input", 7),
        ("gemini", "generationConfig", {"responseModalities": ["AUDIO"]}),
        ("ollama-chat", "messages", None),
        ("ollama-generate", "prompt", ["x"]),
        ("openai-completions", "prompt", 7),
    ],
)
def test_wrong_types_and_sizes(wire: str, field: str, value: Any) -> None:
    with pytest.raises(FirewallError) as error:
        WIRES[wire].ask({**REQUESTS[wire], field: value})
    assert error.value.status == 400 and error.value.code == "invalid_field"


def test_media_passes_by_name_and_links_are_words() -> None:
    """D27: opaque is said; text in disguise is read."""
    parts = [
        {"type": "image_url", "image_url": {"url": url}}
        for url in (
            "data:image/png;base64,iVBORw0KGgo=",
            "https://example.com/a.png",
            "data:text/plain;base64,emVicmE=",
            "data:image/png,zebra words",
        )
    ]
    asked = WIRES["openai-chat"].ask({**REQUESTS["openai-chat"], "messages": [{"role": "user", "content": parts}]})
    assert asked.opaque == ("messages.0.content.0.image_url.url",)
    texts = [message.text for message in asked.messages]
    assert texts == ["https://example.com/a.png", "data:text/plain;base64,emVicmE=", "zebra",
                     "data:image/png,zebra words"]
