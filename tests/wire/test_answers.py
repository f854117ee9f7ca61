"""What an upstream's document may hold: many nodes, floats of any size, and calls that come back in the next request."""

from __future__ import annotations

import random
from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.wire.body import BodyLimits, document, strict
from firewall.wire.dialects import WIRES
from firewall.wire.wire import unreadable
from tests.wire.streams import REQUESTS, ask, events, heard, listen, said

ZERO = -3.4028234663852886e+38      # llama.cpp's logarithm of 0
WORD = {"token": "word", "logprob": -0.12, "bytes": [119, 111, 114, 100]}


def answer(count: int, alternatives: int, logprob: float = ZERO) -> dict[str, Any]:
    row = {**WORD, "top_logprobs": [{**WORD, "logprob": logprob}] * alternatives}
    return {"id": "c", "object": "chat.completion", "created": 1, "model": "m", "choices": [{
        "index": 0, "message": {"role": "assistant", "content": "word" * count}, "finish_reason": "stop",
        "logprobs": {"content": [row] * count, "refusal": None}}]}


@pytest.mark.parametrize("value", ["1e30", "-1e30", str(ZERO), "1e19", "-9.3E+18", "123456789012345678901.5"])
def test_floats_of_any_size(value: str) -> None:
    raw = b'{"a":[{"b":' + value.encode() + b'}],"c":18446744073709551615,"d":-9223372036854775808}'
    assert strict(raw, fault="upstream")["a"] == [{"b": float(value)}] == document(raw)["a"]


@pytest.mark.parametrize("held", [
    {"mole": 6.022e23}, {"x": 1, "X": [{"y": 2, "Y": -1e300}]}, {"Which of these should I use? " * 12: {"answer": "a"}},
], ids=["float", "case", "question"])
@pytest.mark.parametrize("wire", ["anthropic-messages", "gemini", "ollama-chat"])
def test_a_call_is_accepted_as_its_echo(wire: str, held: dict[str, Any]) -> None:
    """What the answer may hold, the client must send back: agents go on so."""
    user: Any = {"role": "user", "content": "hi"}
    if wire == "gemini":
        parts = [{"functionCall": {"name": "f", "args": held}}]
        answer = {"candidates": [{"content": {"role": "model", "parts": parts}, "finishReason": "STOP"}]}
        echo = {"contents": [{"role": "user", "parts": [{"text": "hi"}]}, {"role": "model", "parts": parts},
                             {"role": "user", "parts": [{"functionResponse": {"name": "f", "response": held}}]}]}
    elif wire == "ollama-chat":
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": {"name": "f", "arguments": held}}]}
        answer = {"model": "m", "message": message, "done": True, "done_reason": "stop"}
        echo = {"model": "m", "messages": [user, message]}
    else:
        blocks = [{"type": "tool_use", "id": "t", "name": "f", "input": held}]
        answer = {"type": "message", "role": "assistant", "content": blocks, "stop_reason": "tool_use"}
        echo = {"model": "m", "max_tokens": 9, "messages": [user, {"role": "assistant", "content": blocks}]}
    words = "\n".join(piece.text for frame in heard(listen(wire, b"application/json"), orjson.dumps(answer))
                      for piece in frame.pieces)
    asked = WIRES[wire].ask(document(orjson.dumps(echo)))
    again = "\n".join(message.text for message in asked.messages)
    for key in held:
        assert key in words and key in again


@pytest.mark.parametrize("value", ["18446744073709551616", "-9223372036854775809", "1" * 30, "1" * 5000])
def test_integers_that_lose_digits(value: str) -> None:
    for raw in (b'{"a":' + value.encode() + b"}", b'{"a":1e30,"b":[{"c":' + value.encode() + b"}]}"):
        with pytest.raises(FirewallError) as error:
            strict(raw, fault="upstream")
        assert error.value.code == "unreadable_event" and error.value.status == 502


def test_the_logarithm_of_nothing() -> None:
    frame, = heard(listen("openai-chat", b"application/json"), data := orjson.dumps(answer(1, 1)))
    assert frame.raw == data and dict(frame.pieces)["choice/0/text"] == "word"


def test_as_many_alternatives_as_may_be_asked_for() -> None:
    """Every token count that is allowed, with the twenty alternatives that are."""
    data = orjson.dumps(answer(1000, 20))
    frames = heard(listen("openai-chat", b"application/json"), data)
    assert said(frames)["choice/0/text"] == "word" * 1000 and b"".join(f.raw for f in frames) == data
    with pytest.raises(FirewallError) as error:
        document(data)
    assert error.value.code == "too_many_nodes"


def test_answers_have_a_limit_too() -> None:
    for unit in (b"[[]],", b"1,", b"{},"):
        raw = b'{"a":[' + unit * (7_000_000 // len(unit)) + b"1]}"
        with pytest.raises(FirewallError) as error:
            strict(raw, fault="upstream")
        assert error.value.code == "unreadable_event"
    with pytest.raises(FirewallError):
        strict(b'{"a":[1,2,3]}', BodyLimits(answer=3), fault="upstream")


def forms(rng: random.Random, words: list[str], depth: int = 4) -> Any:
    """Any JSON of protocol names in the wrong places."""
    kind = rng.randrange(7 if depth else 4)
    if kind > 3:
        if kind == 4:
            return [forms(rng, words, depth - 1) for _ in range(rng.randrange(3))]
        return {rng.choice(words): forms(rng, words, depth - 1) for _ in range(rng.randrange(4))}
    return (rng.choice([None, True, 0, 7, -1, 1.5]), "", "zebra", rng.choice(words))[kind]


@pytest.mark.parametrize("wire", sorted(REQUESTS))
@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream", b"application/x-ndjson"])
def test_no_shape_of_an_upstream_breaks_a_reader(wire: str, kind: bytes) -> None:
    """An error of a gateway before the model has any shape: it is read, or refused as upstream's fault."""
    if kind.endswith(b"ndjson") and not wire.startswith("ollama"):
        return
    names = sorted({step.removesuffix("[]") for path in WIRES[wire].inert_answer for step in path.split(".")})
    names += ["error", "message", "response", "text", "delta", "item", "part", "output", "choices", "candidates",
              "content", "parts", "logprobs", "tool_calls", "function", "functionCall", "args", "arguments", "name",
              "context", "index", "done", "content_block", "top_logprobs", "tokens", "thinking", "partialArgs"]
    types = sorted({value for shape in WIRES[wire].inert_answer.values() if isinstance(shape, frozenset)
                    for value in shape})
    rng = random.Random(wire + str(kind))
    for _ in range(700):
        body = {rng.choice(names): forms(rng, names) for _ in range(rng.randrange(1, 4))}
        if rng.random() < 0.5:
            body["type"] = rng.choice(types)
        raw = orjson.dumps(body)
        reader = listen(wire, kind)
        try:
            reader.feed(b"data: " + raw + b"\n\n" if kind == b"text/event-stream" else raw + b"\n")
            reader.close()
        except FirewallError as error:
            assert error.fault == "upstream" and error.status == 502 and "while reading" not in error.detail, raw


@pytest.mark.parametrize("wire", sorted(REQUESTS))
def test_failures_are_the_dialects_errors(wire: str) -> None:
    speaker, _ = ask(wire)
    assert orjson.loads(speaker.error(unreadable("x"), "r"))["error"]


def claude(*blocks: dict[str, Any]) -> list[dict[str, Any]]:
    """The events of one message: each block's start, its stop, the end."""
    out = [{"type": "message_start", "message": {"id": "m", "type": "message", "role": "assistant", "content": []}}]
    for index, block in enumerate(blocks):
        out += [{"type": "content_block_start", "index": index, "content_block": block},
                {"type": "content_block_stop", "index": index}]
    return [*out, {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]


@pytest.mark.parametrize("type_", ["tool_use", "server_tool_use", "brand_new_tool_use"])
@pytest.mark.parametrize("written", [{"a": "run \\u007aebra"}, '{"a":"run \\u007aebra"}'], ids=["object", "text"])
def test_input_that_comes_with_its_block_is_read_as_in_a_message(type_: str, written: Any) -> None:
    block = {"type": type_, "id": "t", "name": "n", "input": written}
    message = {"id": "m", "type": "message", "role": "assistant", "content": [block], "stop_reason": "tool_use"}
    streamed = said(heard(listen("anthropic-messages"), events(*claude(block))))
    assert streamed == said(heard(listen("anthropic-messages", b"application/json"), orjson.dumps(message)))
    assert "run zebra" in streamed["block/0/input/decoded"]


def test_a_block_that_begins_again_is_shown_decoded_first() -> None:
    start = {"type": "content_block_start", "index": 0,
             "content_block": {"type": "tool_use", "id": "t", "name": "n", "input": {}}}
    delta = {"type": "content_block_delta", "index": 0,
             "delta": {"type": "input_json_delta", "partial_json": '{"a":"\\u007aebra"}'}}
    frames = listen("anthropic-messages").feed(events(claude()[0], start, delta, start))
    assert "zebra" in said(frames)["block/0/input/decoded"]


def prompts(count: int, **more: Any) -> dict[str, Any]:
    return {"model": "m", "prompt": ["hi"] * count, **more}


@pytest.mark.parametrize("kind", [b"application/json", b"text/event-stream"])
def test_as_many_completions_as_were_asked_for(kind: bytes) -> None:
    """512 prompts give indices beyond the 128 that nobody asks for otherwise."""
    wire = WIRES["openai-completions"]
    rows = [{"index": index, "text": "x", "finish_reason": "stop"} for index in range(512)]
    body = {"id": "c", "object": "text_completion", "choices": rows}
    reader = wire.reader(wire.ask(prompts(512)), kind)
    frames = heard(reader, events(body, done=True) if kind == b"text/event-stream" else orjson.dumps(body))
    assert len(said(frames)) == 512 and reader.complete
    with pytest.raises(FirewallError):
        heard(wire.reader(wire.ask(prompts(511)), b"application/json"), orjson.dumps(body))


@pytest.mark.parametrize("body", [prompts(513), prompts(129, n=4), prompts(10_000)])
def test_more_completions_than_can_be_answered_are_refused_before_they_are_billed(body: dict[str, Any]) -> None:
    with pytest.raises(FirewallError) as error:
        WIRES["openai-completions"].ask(body)
    assert (error.value.code, error.value.param, error.value.status) == ("invalid_field", "prompt", 400)


@pytest.mark.parametrize("wire, event", [
    ("anthropic-messages", {"type": "content_block_delta", "index": 0, "delta": {
        "type": "input_json_delta", "partial_json": '"run \\u007aebra"'}}),
    ("openai-responses", {"type": "response.function_call_arguments.delta", "output_index": 0,
                          "delta": '"run \\u007aebra"'}),
    ("openai-responses", {"type": "response.custom_tool_call_input.delta", "output_index": 0,
                          "delta": '"run \\u007aebra"'}),
])
def test_a_call_without_a_start_waits_for_its_end(wire: str, event: dict[str, Any]) -> None:
    end = [{"type": "response.completed", "response": {"id": "r", "output": []}}] if wire == "openai-responses" else [
        {"type": "message_delta", "delta": {"stop_reason": "tool_use"}}, {"type": "message_stop"}]
    frames = heard(listen(wire), events(event, *end))
    assert frames[0].pending and not frames[1].pending and "run zebra" in said(frames).values()


END = {"anthropic-messages": {"type": "message_stop"}, "gemini": {"candidates": [{"index": 0, "finishReason": "STOP"}]}}


@pytest.mark.parametrize("wire", END)
def test_openais_last_word_after_the_end_of_another_dialect(wire: str) -> None:
    """vLLM wrote it after `message_stop` (0561ec4, entrypoints/anthropic/serving_messages.py), gateways after Gemini's."""
    for data in (whole := events(END[wire], done=True)), whole.replace(b"[DONE]", b" [DONE] "):
        frames = heard(listen(wire), data)
        assert b"".join(frame.raw for frame in frames) == data and not said(frames)
        assert sum(frame.last for frame in frames) == 1
    with pytest.raises(FirewallError) as error:
        heard(listen(wire), events(done=True))
    assert error.value.code == "upstream_truncated"
    with pytest.raises(FirewallError):
        heard(listen(wire), events(END[wire]), b"data: [DONE] and more\n\n")
