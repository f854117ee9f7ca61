"""Redaction of a call's arguments whose escapes hide words, in a stream: the call stays a call, the words are gone."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from firewall.gate import Gate
from firewall.proxy import redact
from firewall.proxy.redact import Redaction
from firewall.transcript import Transcript
from firewall.verdict import Span
from firewall.wire.frame import Frame
from tests.wire.streams import events, heard, listen

KEY = '{"path":".env","text":"region=eu\\nkey=\\u007aebra\\n"}'


def chat(parts: list[str]) -> bytes:
    rows: list[dict[str, Any]] = [{"tool_calls": [{"index": 0, "function": {"arguments": part}}]} for part in parts]
    return events(*[{"choices": [{"index": 0, "delta": row}]} for row in rows],
                  {"choices": [{"index": 0, "delta": {}, "finish_reason": "tool_calls"}]}, done=True)


def claude(parts: list[str]) -> bytes:
    block = {"type": "tool_use", "id": "t", "name": "write", "input": {}}
    rows: list[dict[str, Any]] = [{"type": "content_block_start", "index": 0, "content_block": block}]
    rows += [{"type": "content_block_delta", "index": 0, "delta": {"type": "input_json_delta", "partial_json": part}}
             for part in parts]
    return events(*rows, {"type": "content_block_stop", "index": 0}, {"type": "message_stop"})


def gemini(parts: list[str]) -> bytes:
    call = {"functionCall": {"name": "write", "args": orjson.loads("".join(parts))}}
    return events({"candidates": [{"index": 0, "content": {"parts": [call]}, "finishReason": "STOP"}]})


def written(frames: list[Frame]) -> str:
    return "".join(piece.text for frame in frames for piece in frame.pieces
                   if piece.channel.endswith(("/arguments", "/input")))


@pytest.mark.parametrize("size", [1, 7, 100])
@pytest.mark.parametrize("wire, make", [("openai-chat", chat), ("anthropic-messages", claude), ("gemini", gemini)])
def test_hidden_words_are_cut_out_of_the_call(wire: str, make: Any, size: int) -> None:
    reader, gate, transcript = listen(wire), Gate(), Transcript()
    for frame in heard(reader, make([KEY[i:i + size] for i in range(0, len(KEY), size)])):
        mark = gate.mark
        for channel, text in frame.pieces:
            transcript.add(channel, text, mark)
            mark += len(text)
        gate.push(frame)
    joined: dict[str, str] = {}
    for channel, text in transcript.said():
        joined[channel] = joined.get(channel, "") + text
    spans = [Span(channel, text.find("zebra"), text.find("zebra") + 5) for channel, text in joined.items()
             if "zebra" in text]
    redaction = Redaction(gate, transcript)
    assert spans and redaction.apply(spans, (), reader) and redaction.apply(spans, (), reader)
    gate.close()
    again = heard(listen(wire), b"".join(frame.raw for frame in gate.clear(gate.mark)))
    assert not any("zebra" in piece.text for frame in again for piece in frame.pieces)
    assert orjson.loads(written(again)) == {"path": ".env", "text": "region=eu\nkey=[redacted]\n"}


def test_many_hidden_words_are_traced_back_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Undoing the escapes of a call costs its length: once, not once a span, and not again with the next verdict."""
    count, traced = 300, []
    origins = redact.origins
    monkeypatch.setattr(redact, "origins", lambda *given: traced.append(1) or origins(*given))
    text = orjson.dumps({"csv": "".join(f"{n}\tzebra\n" for n in range(count))}).decode().replace("z", "\\u007a")
    reader, gate, transcript = listen("openai-chat"), Gate(), Transcript()
    for frame in heard(reader, chat([text[i:i + 40] for i in range(0, len(text), 40)])):
        for channel, said in frame.pieces:
            transcript.add(channel, said, gate.mark)
        gate.push(frame)
    channel = "choice/0/tool/0/arguments/decoded"
    shown = transcript.words(channel)
    spans = [Span(channel, at, at + 5) for at in range(len(shown)) if shown.startswith("zebra", at)]
    redaction = Redaction(gate, transcript)
    assert len(spans) == count and redaction.apply(spans[:-1], (), reader) and redaction.apply(spans, (), reader)
    assert redaction.apply(spans, (), reader) and len(traced) == 2
    gate.close()
    again = heard(listen("openai-chat"), b"".join(frame.raw for frame in gate.clear(gate.mark)))
    assert orjson.loads(written(again)) == {"csv": "".join(f"{n}\t[redacted]\n" for n in range(count))}
