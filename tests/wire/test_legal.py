"""O-legal: what a client gets after a refusal or a failure, at any point, parses in the vendors' SDKs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import orjson
import pytest
from anthropic import _base_client as anthropic_http
from openai import _base_client as openai_http

from firewall.errors import FirewallError, GuardDown
from firewall.wire.dialects import WIRES
from firewall.wire.wire import StreamLimits
from tests.wire.streams import REQUESTS, STREAMS, Stream, ask, events, heard, listen, needs_shared

MESSAGE = "Blocked: weapons/2."
DOWN = GuardDown()


def openai_client(body: bytes, kind: str = "text/event-stream", status: int = 200) -> openai.OpenAI:
    http: Any = getattr(openai_http, "httpx2", None) or openai_http.httpx  # the SDK's own HTTP library
    answer = http.MockTransport(lambda request: http.Response(status, content=body, headers={"content-type": kind}))
    return openai.OpenAI(
        api_key="k", base_url="http://test/v1", max_retries=0, http_client=http.Client(transport=answer)
    )


def anthropic_client(body: bytes, kind: str = "text/event-stream", status: int = 200) -> anthropic.Anthropic:
    http: Any = getattr(anthropic_http, "httpx2", None) or anthropic_http.httpx
    answer = http.MockTransport(lambda request: http.Response(status, content=body, headers={"content-type": kind}))
    return anthropic.Anthropic(
        api_key="k", base_url="http://test", max_retries=0, http_client=http.Client(transport=answer)
    )


def chat(body: bytes) -> list[Any]:
    return list(
        openai_client(body).chat.completions.create(
            model="m", messages=[{"role": "user", "content": "hi"}], stream=True
        )
    )


def final(body: bytes) -> Any:
    with anthropic_client(body).messages.stream(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    ) as stream:
        for _ in stream:
            pass
        return stream.get_final_message()


def responded(body: bytes) -> list[Any]:
    return list(openai_client(body).responses.create(model="m", input="hi", stream=True))


def stops(stream: Stream, count: int = 2) -> Iterator[tuple[bytes, bytes, bytes, Any]]:
    """(what has left, ending, fault, after) where a gate could stop this stream."""
    reader = listen(stream.wire, limits=StreamLimits(), **({"n": 1} if stream.wire == "openai-chat" else {}))
    frames = heard(reader, stream.framed())
    rng = random.Random(stream.name)
    firsts = [i for i, frame in enumerate(frames) if frame.last][:1] or [len(frames)]
    free = [i for i in range(1, min(firsts[0], 60) + 1) if not frames[i - 1].pending]
    for k in [0, *sorted(rng.sample(free, min(count, len(free))))]:
        left = b"".join(frame.raw for frame in frames[:k])
        after = frames[k - 1].after if k else None
        yield left, reader.ending(after, MESSAGE), reader.fault(after, DOWN), after


def of(wire: str) -> Any:
    rows = [stream for stream in STREAMS if stream.wire == wire]
    return pytest.mark.parametrize("stream", rows, ids=[row.name for row in rows])


@needs_shared
@of("openai-chat")
def test_openai_chat(stream: Stream) -> None:
    for left, ending, fault, _ in stops(stream):
        chunks = chat(left + ending)
        assert [c.choices[0].finish_reason for c in chunks if c.choices][-1] == "content_filter"
        assert sum(bool(c.choices and c.choices[0].finish_reason) for c in chunks) == 1
        assert "".join(c.choices[0].delta.refusal or "" for c in chunks if c.choices) == MESSAGE
        assert len({c.id for c in chunks if c.id}) == 1
        with pytest.raises(openai.APIError) as error:
            chat(left + fault)
        assert error.value.code == "guard_unavailable"


@needs_shared
@of("anthropic-messages")
def test_anthropic(stream: Stream) -> None:
    if stream.events[1:] and sum(b'"message_start"' in event for event in stream.events) > 1:
        pytest.skip("several answers in one recording")
    for left, ending, fault, after in stops(stream):
        message = final(left + ending)
        assert message.stop_reason == "refusal" and message.stop_details.explanation == MESSAGE
        assert ending.count(b"event: content_block_stop") == (len(after.open) if after else 0)
        assert (left + ending).count(b"event: message_start") == 1
        with pytest.raises(anthropic.APIStatusError):
            final(left + fault)


@needs_shared
@of("openai-responses")
def test_responses(stream: Stream) -> None:
    if sum(b'"type":"response.created"' in event for event in stream.events) > 1:
        pytest.skip("several answers in one recording")
    for left, ending, fault, _ in stops(stream):
        seen = responded(left + ending)
        last = seen[-1]
        assert last.type == "response.incomplete" and last.response.incomplete_details.reason == "content_filter"
        assert last.response.output[0].content[0].refusal == MESSAGE
        numbers = [event.sequence_number or 0 for event in seen]
        assert numbers[-1] == max(numbers) and (not any(numbers[:-1]) or numbers.count(numbers[-1]) == 1)
        *_, error, failed = responded(left + fault)  # the SDK hands both over as typed events
        assert (error.type, error.code) == ("error", "guard_unavailable") and failed.type == "response.failed"
        assert failed.response.status == "failed" and failed.response.error.code == "server_error"


@pytest.mark.parametrize("count", [1, 2, 8])
def test_every_choice_is_ended(count: int) -> None:
    reader = listen("openai-chat", n=count)
    head = {"id": "c-1", "object": "chat.completion.chunk", "created": 7, "model": "up"}
    reader.feed(events({**head, "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": None}]}))
    frames = reader.feed(events({**head, "choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}))
    assert frames[0].last == (count == 1)
    chunks = chat(reader.ending(frames[-1].after, MESSAGE))
    ended = [c.choices[0].index for c in chunks if c.choices[0].finish_reason == "content_filter"]
    assert ended == list(range(1, count)) and all((c.id, c.model, c.created) == ("c-1", "up", 7) for c in chunks)


def test_after_the_end_nothing_follows() -> None:
    chunk = {"id": "x", "choices": [{"index": 0, "delta": {"content": "a"}, "finish_reason": "stop"}]}
    reader = listen("openai-chat")
    frames = heard(reader, events(chunk, done=True))
    assert reader.ending(frames[-1].after, MESSAGE) == b"" and reader.ending(frames[0].after, "") == b"data: [DONE]\n\n"
    reader = listen("ollama-chat", b"application/x-ndjson")
    frames = heard(reader, b'{"message":{"content":"a"},"done":true}\n')
    assert reader.ending(frames[-1].after, MESSAGE) == b""


def test_withheld_answers() -> None:
    wire, asked = ask("openai-chat", n=2)
    whole = openai_client(wire.withheld(asked, MESSAGE, "req_1"), "application/json").chat.completions.create(
        model="m", messages=[{"role": "user", "content": "hi"}]
    )
    assert [(c.finish_reason, c.message.refusal, c.message.content) for c in whole.choices] == [
        ("content_filter", MESSAGE, None)
    ] * 2
    wire, asked = ask("openai-completions")
    text = openai_client(wire.withheld(asked, MESSAGE, "req_1"), "application/json").completions.create(
        model="m", prompt="hi"
    )
    assert (text.choices[0].finish_reason, text.choices[0].text) == ("content_filter", MESSAGE)
    wire, asked = ask("openai-responses")
    response = openai_client(wire.withheld(asked, MESSAGE, "req_1"), "application/json").responses.create(
        model="m", input="hi"
    )
    assert response.status == "incomplete" and response.incomplete_details.reason == "content_filter"  # type: ignore
    wire, asked = ask("anthropic-messages")
    message = anthropic_client(wire.withheld(asked, MESSAGE, "req_1"), "application/json").messages.create(
        model="m", max_tokens=9, messages=[{"role": "user", "content": "hi"}]
    )
    assert message.stop_reason == "refusal" and message.stop_details.explanation == MESSAGE  # type: ignore
    for name in ("gemini", "ollama-chat", "ollama-generate"):
        wire, asked = ask(name)
        body = orjson.loads(wire.withheld(asked, MESSAGE, "req_1"))
        assert body.get("done_reason") == "content_filter" or body["candidates"][0]["finishReason"] == "SAFETY"


def test_blocked_requests() -> None:
    for name in ("openai-chat", "openai-completions", "openai-responses"):
        with pytest.raises(openai.BadRequestError) as error:
            openai_client(
                WIRES[name].blocked(MESSAGE, ("weapons/2",), "req_1"), "application/json", 400
            ).chat.completions.create(model="m", messages=[])
        assert error.value.code == "content_policy_violation" and error.value.body == {
            "message": MESSAGE,
            "type": "invalid_request_error",
            "param": None,
            "code": "content_policy_violation",
        }
    with pytest.raises(anthropic.BadRequestError) as refusal:
        anthropic_client(
            WIRES["anthropic-messages"].blocked(MESSAGE, (), "req_1"), "application/json", 400
        ).messages.create(model="m", max_tokens=9, messages=[])
    assert refusal.value.body == {
        "type": "error",
        "error": {"type": "invalid_request_error", "message": MESSAGE},
        "request_id": "req_1",
    }


OPENAI = b'{"error":{"message":"public words","type":"invalid_request_error","param":"n","code":"some_code"}}'
GOLDEN = {
    "openai-chat": OPENAI,
    "openai-completions": OPENAI,
    "openai-responses": OPENAI,
    "anthropic-messages": b'{"type":"error","error":{"type":"invalid_request_error","message":"public words (n)"},'
    b'"request_id":"req_1"}',
    "gemini": b'{"error":{"code":400,"message":"public words (n)","status":"INVALID_ARGUMENT","details":[{"@type":'
    b'"type.googleapis.com/google.rpc.ErrorInfo","reason":"SOME_CODE","domain":"firewall"}]}}',
    "ollama-chat": b'{"error":"public words (n)"}',
    "ollama-generate": b'{"error":"public words (n)"}',
}


@pytest.mark.parametrize("name", WIRES)
def test_error_bodies(name: str) -> None:
    error = FirewallError("some_code", "public words", detail="secret words", param="n")
    assert WIRES[name].error(error, "req_1") == GOLDEN[name]
    assert b"secret" not in WIRES[name].error(error, "req_1")


ENDINGS = {
    "openai-chat": [
        b'data: {"id":"chatcmpl-withheld","object":"chat.completion.chunk","created":0,"model":"m","choices":'
        b'[{"index":0,'
        b'"delta":{"role":"assistant","content":null,"refusal":"No."},"finish_reason":null}]}\n\n',
        b'data: {"id":"chatcmpl-withheld","object":"chat.completion.chunk","created":0,"model":"m","choices":'
        b'[{"index":0,'
        b'"delta":{},"finish_reason":"content_filter"}]}\n\n',
        b"data: [DONE]\n\n",
    ],
    "openai-completions": [
        b'data: {"id":"cmpl-withheld","object":"text_completion","created":0,"model":"m","choices":[{"index":0,'
        b'"text":"",'
        b'"logprobs":null,"finish_reason":"content_filter"}]}\n\n',
        b"data: [DONE]\n\n",
    ],
    "anthropic-messages": [
        b'event: message_start\ndata: {"type":"message_start","message":{"id":"msg_withheld","type":"message","role":'
        b'"assistant","model":"m","content":[],"stop_reason":null,"stop_sequence":null,"usage":{"input_tokens":0,'
        b'"output_tokens":0}}}\n\n',
        b'event: message_delta\ndata: {"type":"message_delta","delta":{"stop_reason":"refusal","stop_sequence":null,'
        b'"stop_details":{"type":"refusal","category":null,"explanation":"No."}},"usage":{"output_tokens":0}}\n\n',
        b'event: message_stop\ndata: {"type":"message_stop"}\n\n',
    ],
    "gemini": [
        b'data: {"candidates":[{"index":0,"content":{"role":"model","parts":[]},"finishReason":"SAFETY",'
        b'"finishMessage":'
        b'"No."}],"usageMetadata":{},"modelVersion":""}\r\n\r\n'
    ],
    "ollama-chat": [
        b'{"model":"m","created_at":"1970-01-01T00:00:00Z","message":{"role":"assistant","content":"No."},'
        b'"done":true,"done_reason":"content_filter"}\n'
    ],
    "ollama-generate": [
        b'{"model":"m","created_at":"1970-01-01T00:00:00Z","response":"No.","done":true,"done_reason":'
        b'"content_filter"}\n'
    ],
}


@pytest.mark.parametrize("name", ENDINGS)
def test_endings_from_nothing(name: str) -> None:
    kind = b"application/x-ndjson" if name.startswith("ollama") else b"text/event-stream"
    assert listen(name, kind).ending(None, "No.") == b"".join(ENDINGS[name])


@pytest.mark.parametrize("name", WIRES)
def test_what_is_not_an_answer(name: str) -> None:
    for kind in (
        b"",
        b"text/html",
        b"application/octet-stream",
        b"text/plain; charset=utf-8",
        b"application/json; charset=utf-16",
        b"application/vnd.amazon.eventstream",
    ):
        with pytest.raises(FirewallError) as error:
            listen(name, kind)
        assert (error.value.fault, error.value.code) == ("upstream", "unreadable_content_type")
    for kind in (b"application/json; charset=UTF-8", b"Application/JSON", b"text/event-stream;charset=utf-8"):
        assert WIRES[name].reader(ask(name)[1], kind, StreamLimits())


def test_requests_are_known() -> None:
    assert set(REQUESTS) == set(WIRES)
