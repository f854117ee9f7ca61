"""Ollama: token ids that spell the answer again, and bodies of another shape."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.gate import Gate
from firewall.proxy.redact import Redaction
from firewall.transcript import Transcript
from firewall.verdict import Span
from firewall.wire.wire import Reader, StreamLimits
from tests.wire.streams import ask, heard, listen, said

ND, JSON = b"application/x-ndjson", b"application/json"
LAST = {"response": "", "done": True, "done_reason": "stop", "context": [1, 2, 3]}
copies = pytest.mark.parametrize("limits", [StreamLimits(), StreamLimits(copies=True)], ids=["plain", "redacts"])


def line(**fields: Any) -> bytes:
    return orjson.dumps({"model": "m", "created_at": "2026-01-01T00:00:00Z", **fields}) + b"\n"


def answer(reader: Reader, *parts: bytes, spans: tuple[Span, ...] = (), after: int = 0) -> bytes:
    """What a client gets; `spans` are found once `after` parts have come."""
    gate, transcript = Gate(limit=1 << 20), Transcript()
    redaction = Redaction(gate, transcript)

    def take(frames: list[Any]) -> None:
        for frame in frames:
            for channel, text in frame.pieces:
                transcript.add(channel, text, gate.mark)
            gate.push(redaction.later(frame, reader) if redaction.spans else frame)

    for number, part in enumerate(parts, 1):
        take(reader.feed(part))
        if number == after and spans:
            assert redaction.apply(spans, (), reader)
    take(reader.close())
    gate.close()
    if not after and spans:
        assert redaction.apply(spans, (), reader)
    gate.question()
    return b"".join(frame.raw for frame in gate.clear(gate.mark))


@copies
@pytest.mark.parametrize("kind", [ND, JSON])
def test_context_passes_where_nothing_was_redacted(limits: StreamLimits, kind: bytes) -> None:
    data = line(**{**LAST, "response": "hi"})
    reader = listen("ollama-generate", kind, limits)
    assert answer(reader, data) == data and reader.opaque == ["context"] and reader.complete


@copies
@pytest.mark.parametrize("after", [0, 1, 2])
@pytest.mark.parametrize("name", ["context", "cont\\u0065xt"], ids=["plain", "escaped"])
def test_context_goes_where_words_were_redacted(limits: StreamLimits, after: int, name: str) -> None:
    """Whether its own line had words or not, and whether it was held or came later."""
    last = line(**LAST).replace(b"context", name.encode())
    parts = (line(response="my key is sk-1 ", done=False), line(response="well", done=False), b"\n", last)
    span = Span("choice/0/text", 10, 14)
    out = answer(listen("ollama-generate", ND, limits), *parts, spans=(span,), after=after)
    rows = [orjson.loads(row) for row in out.splitlines() if row]
    assert b"sk-1" not in out and len(rows) == 3 and rows[1]["response"] == "well"
    assert rows[-1] == {key: value for key, value in orjson.loads(line(**LAST)).items() if key != "context"}


@copies
def test_context_goes_from_a_whole_answer(limits: StreamLimits) -> None:
    data = line(**{**LAST, "response": "my key is sk-1"})
    out = orjson.loads(answer(listen("ollama-generate", JSON, limits), data, spans=(Span("choice/0/text", 10, 14),)))
    assert "context" not in out and out["done"] is True and "sk-1" not in out["response"]


@pytest.mark.parametrize("kind, fields", [
    (ND, {"response": "hi", "done": False, "context": [1]}),            # ahead of the words
    (ND, {"response": "hi", "context": [1]}),
    (b"text/event-stream", {**LAST}),                                   # nobody could drop it there
])
def test_context_elsewhere_is_refused(kind: bytes, fields: dict[str, Any]) -> None:
    data = line(**fields)
    with pytest.raises(FirewallError) as error:
        listen("ollama-generate", kind).feed(b"data: " + data + b"\n" if kind not in (ND, JSON) else data)
    assert error.value.code == "unjudgeable_field"


def test_context_comes_last() -> None:
    """Not before a verdict on the whole: it spells all words."""
    reader = listen("ollama-generate", ND)
    frames = [*reader.feed(line(response="hi", done=False)), *reader.feed(line(**LAST))]
    assert [frame.last for frame in frames] == [False, True]


@pytest.mark.parametrize("index", ["a bomb", {"a bomb": 1}, ["a bomb"], list(b"a bomb")])
def test_an_index_that_is_no_number_is_words(index: Any) -> None:
    call = {"function": {"name": "f", "index": index, "arguments": {"a": 1}}}
    for kind in (ND, JSON):
        frames = heard(listen("ollama-chat", kind), line(message={"content": "", "tool_calls": [call]}, done=True))
        assert any("bomb" in words for words in said(frames).values())


def test_an_index_that_is_a_number_is_none() -> None:
    call = {"function": {"name": "f", "index": 3, "arguments": {}}}
    frames = heard(listen("ollama-chat", ND), line(message={"content": "", "tool_calls": [call]}, done=True))
    assert said(frames) == {"choice/0/tool/0/name": "f", "choice/0/tool/0/arguments": "{}"}


@pytest.mark.parametrize("call, channel", [
    ({"function": {"name": "f", "index": "key sk-1"}}, "choice/0/tool/0/index"),
    ({"function": {"name": "f", "description": "key sk-1"}}, "choice/0/tool/0/description"),
    ({"function": {"name": "f"}, "title": "key sk-1"}, "choice/0/tool/0/title"),
])
def test_unknown_words_of_a_call_are_redacted(call: dict[str, Any], channel: str) -> None:
    data = line(message={"content": "", "tool_calls": [call]}, done=True)
    out = answer(listen("ollama-chat", ND), data, spans=(Span(channel, 4, 8),))
    assert b"sk-1" not in out and b"key [redacted]" in out


@pytest.mark.parametrize("wire", ["ollama-chat", "ollama-generate"])
@pytest.mark.parametrize("body", [
    {"message": "no Route matched with those values"}, {"message": ["no route"]}, {"message": 404},
    {"message": None, "detail": "no route"}, {"error": {"message": "no route", "code": 404}}, {"error": ["no route"]},
    {"response": {"no": "route"}}, {"response": 7, "logprobs": [{"token": "no route"}]}, {},
])
def test_errors_of_another_shape(wire: str, body: dict[str, Any]) -> None:
    """They are read, and their words judged; nothing breaks."""
    reader = listen(wire, JSON)
    reader.feed(orjson.dumps(body))
    frame, = reader.close()
    words = " ".join(text for _, text in frame.pieces)
    assert ("route" in words.lower()) == ("route" in str(body).lower())
    speaker, asked = ask(wire)
    assert orjson.loads(speaker.withheld(asked, "no", "r"))["done"] is True
