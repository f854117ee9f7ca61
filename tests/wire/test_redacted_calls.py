"""Redaction of a call's arguments whose escapes hide words, in a stream: the call stays a call, the words are gone."""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firewall.case import Case
from firewall.gate import Gate
from firewall.guards.patterns import Patterns
from firewall.proxy import redact
from firewall.proxy.redact import Redaction
from firewall.transcript import Transcript
from firewall.verdict import Span, decide
from firewall.wire.frame import Frame
from firewall.wire.wire import StreamLimits
from tests.guards.cases import detecting
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


SECRET = re.compile(r"[a-z0-9]+@zebra\.org|7777\d+")
WORDS = st.lists(st.sampled_from(["bob@zebra.org", "77771234", "\n", "\t",
                                  '"', "\\ ", "/", " ", "\u00e9", "\U0001f600", "n"]),
                 max_size=5).map("".join)
FLAT = st.dictionaries(st.sampled_from("abc"), st.one_of(WORDS, st.sampled_from([77779, 1.5, None, True])), max_size=3)
NESTED = st.tuples(FLAT, FLAT, WORDS).map(lambda v: {**v[0], "inner": v[1], "said": v[2] + "\nbob@zebra.org"})
NAME, ID = b'"write"', b'"call_1"'


def spelled(value: Any, rng: random.Random, strings: bool = True) -> str:
    """JSON with characters escaped in any way; `inner` as JSON in a string."""
    if isinstance(value, dict):
        rows = []
        for key, inner in value.items():
            text = spelled(inner, rng)
            rows.append(f'"{key}": {spelled(text, rng) if key == "inner" and strings else text}')
        return "{" + ", ".join(rows) + "}"
    if not isinstance(value, str):
        return orjson.dumps(value).decode()
    out = ""
    for char in value:
        short = orjson.dumps(char).decode()[1:-1]
        units = memoryview(char.encode("utf-16-le")).cast("H")
        out += short if rng.random() < 0.7 else "".join(f"\\u{unit:04x}" for unit in units)
    return f'"{out}"'


def clean(value: Any) -> Any:
    """The value as it must arrive."""
    if isinstance(value, dict):
        return {key: clean(inner) for key, inner in value.items()}
    if isinstance(value, str):
        return SECRET.sub("[redacted]", value)
    return "[redacted]" if SECRET.search(str(value)) else value


def answer(wire: str, streamed: bool, text: str, size: int) -> list[bytes]:
    """A call with these arguments, by events or in one piece."""
    raw, said = text.encode(), orjson.dumps(text)
    parts = [text[i:i + size] for i in range(0, len(text), size)]
    if wire == "openai-chat":
        if streamed:
            return [event + b"\n\n" for event in chat(parts).split(b"\n\n")[:-1]]
        return [b'{"choices":[{"index":0,"finish_reason":"tool_calls","message":{"role":"assistant","tool_calls":[{"id":'
                b'%b,"type":"function","function":{"name":%b,"arguments":%b}}]}}]}' % (ID, NAME, said)]
    if wire == "anthropic-messages":
        if streamed:
            return [event + b"\n\n" for event in claude(parts).split(b"\n\n")[:-1]]
        return [b'{"type":"message","role":"assistant","content":[{"type":"tool_use","id":%b,"name":%b,"input":%b}]}' % (
            ID, NAME, raw)]
    if wire == "gemini":
        body = (b'{"candidates":[{"index":0,"content":{"parts":[{"functionCall":{"name":%b,"args":%b}}]},"finishReason":'
                b'"STOP"}]}' % (NAME, raw))
        return [b"data: " + body + b"\n\n"] if streamed else [body]
    if wire == "ollama-chat":
        return [b'{"model":"m","message":{"role":"assistant","tool_calls":[{"function":{"name":%b,"arguments":%b}}]},"done"'
                b":true}\n" % (NAME, raw)]
    item = {"type": "function_call", "id": "i", "call_id": "c", "name": "write", "status": "completed", "arguments": text}
    done = {"id": "r", "object": "response", "status": "completed", "model": "m", "output": [item]}
    if not streamed:
        return [orjson.dumps(done)]
    rows: list[dict[str, Any]] = [{"type": "response.output_item.added", "item": {**item, "arguments": ""}}]
    rows += [{"type": "response.function_call_arguments.delta", "delta": part} for part in parts]
    rows += [{"type": "response.function_call_arguments.done", "arguments": text},
             {"type": "response.output_item.done", "item": item}]
    return [events({"output_index": 0, **row}) for row in rows] + [events({"type": "response.completed", "response": done})]


Judge = Callable[[Transcript, bool], tuple[Sequence[Span], Sequence[tuple[str, int]]] | None]


def reads(transcript: Transcript, whole: bool) -> tuple[list[Span], Sequence[tuple[str, int]]]:
    """A guard that reads every channel as it stands, and vouches for no match that may grow."""
    texts: dict[str, str] = {}
    for channel, text in transcript.said():
        texts[channel] = texts.get(channel, "") + text
    growing = re.compile(r"[a-z0-9@.]*\Z")
    return [Span(channel, *hit.span()) for channel, text in texts.items() for hit in SECRET.finditer(text)], (
        () if whole else tuple((channel, hit.start()) for channel, text in texts.items()
                               if (hit := growing.search(text)) and hit[0]))


def relayed(wire: str, streamed: bool, parts: list[bytes], judge: Judge = reads) -> bytes | None:
    """What leaves of an answer, with a verdict on every part; None where it is blocked."""
    kind = b"application/x-ndjson" if wire == "ollama-chat" else b"text/event-stream"
    kind = kind if streamed else b"application/json"
    reader, gate, transcript = listen(wire, kind, StreamLimits(copies=True)), Gate(), Transcript()
    redaction, out = Redaction(gate, transcript), b""
    for part in [*parts, None]:
        for frame in reader.feed(part) if part is not None else reader.close():
            mark = gate.mark
            for channel, text in frame.pieces:
                transcript.add(channel, text, mark)
                mark += len(text)
            gate.push(redaction.later(frame, reader) if redaction.spans else frame, mark)
        if part is None:
            gate.close()
        if (mark := gate.question() or 0) == 0:
            continue
        if (verdict := judge(transcript, gate.whole)) is None:
            return None
        found, unsure = verdict
        if found and not redaction.apply(found, unsure, reader):
            return None
        clear = min([mark, *(transcript.mark(channel, offset) for channel, offset in unsure)])
        out += b"".join(frame.raw for frame in gate.clear(clear))
    return out


def arguments(wire: str, streamed: bool, out: bytes, read: Callable[[str], Any] = orjson.loads) -> list[Any]:
    """Every copy of a call's arguments in what left, as a client reads them."""
    deltas: list[str] = []
    copies: list[Any] = []
    todo: list[Any] = [orjson.loads(line.removeprefix(b"data: ")) for line in out.split(b"\n") if line.startswith(
        (b"{", b"data: {"))]
    while todo:
        node = todo.pop(0)
        for key, value in node.items() if isinstance(node, dict) else ():
            if key == "partial_json" or (key == "delta" and isinstance(value, str)) or (
                    key == "arguments" and streamed and wire == "openai-chat"):
                deltas.append(value)
            elif key in ("arguments", "args", "input") and value:
                copies.append(value)
        todo += [v for v in (node.values() if isinstance(node, dict) else node) if isinstance(v, dict | list)]
    return [read(copy) if isinstance(copy, str) else copy for copy in copies + (["".join(deltas)] if deltas else [])]


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("wire", ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama-chat"])
@settings(max_examples=40, deadline=None)
@given(value=NESTED, seed=st.integers(0, 99), size=st.sampled_from([1, 3, 8, 500]))
def test_whatever_the_escapes_a_redacted_call_is_json_without_the_secret(
        wire: str, streamed: bool, value: dict[str, Any], seed: int, size: int) -> None:
    """The same in every dialect, by events or whole: nothing else changes, and no copy keeps the words."""
    out = relayed(wire, streamed, answer(wire, streamed, spelled(value, random.Random(seed)), size))
    assert out is not None
    copies = arguments(wire, streamed, out)
    assert len(copies) == (4 if wire == "openai-responses" and streamed else 1)
    for copy in copies:
        assert {**copy, "inner": orjson.loads(copy["inner"])} == clean(value)


def test_a_copy_that_differs_is_decoded_too() -> None:
    """What `.done` says is judged as it is meant, though the deltas said something else."""
    rows: list[dict[str, Any]] = [{"type": "response.function_call_arguments.delta", "delta": '{"a":"x"}'},
                                  {"type": "response.function_call_arguments.done", "arguments": '{"a":"\\u007aebra"}'}]
    for copies in (True, False):
        reader = listen("openai-responses", limits=StreamLimits(copies=copies))
        frames = [frame for row in rows for frame in reader.feed(events({"output_index": 0, **row}))]
        assert any(piece.text == "a\nzebra" and piece.channel.endswith("/decoded")
                   for frame in frames for piece in frame.pieces)


@pytest.mark.parametrize("size", [1, 5, 500])
@pytest.mark.parametrize("wire, streamed", [("openai-chat", True), ("openai-chat", False), ("openai-responses", True),
                                            ("openai-responses", False), ("anthropic-messages", True)])
def test_halves_of_surrogate_pairs_stay_where_they_are(wire: str, streamed: bool, size: int) -> None:
    """Such arguments are read by some parsers and not by ours: what is cut out makes no difference to that."""
    text = r'{"a":"\ud83dbob@zebra.org\ude00","b":"\ud83d\ude00bob\u0040zebra.org\ud83d","n":77771}'
    out = relayed(wire, streamed, answer(wire, streamed, text, size))
    assert out is not None and b"zebra" not in out
    want = json.dumps({"a": "\ud83d[redacted]\ude00", "b": "\U0001f600[redacted]\ud83d", "n": "[redacted]"})
    for copy in arguments(wire, streamed, out, json.loads):
        assert json.dumps(copy) == want


DETECTED = detecting("email", "aws-key", "credit-card", "phrase:project zebra", "phrase:a/b")
PATTERNS = Patterns()
DIALECTS = ["openai-chat", "openai-responses", "anthropic-messages", "gemini", "ollama-chat"]
HIDDEN = re.compile(r"bob@example\.com|AKIAIOSFODNN7EXAMPLE|4111 1111 1111 1111|project\s+zebra|a/b")


def detects() -> Judge:
    """The guard that is shipped, on one answer."""
    boundary = str(random.random())

    def judge(transcript: Transcript, whole: bool) -> tuple[Sequence[Span], Sequence[tuple[str, int]]] | None:
        verdict = PATTERNS.known(Case("output", DETECTED, (), transcript.said(), whole, boundary=boundary))
        assert verdict is not None
        decision = decide([verdict], DETECTED)
        assert decision.action in ("allow", "redact", "block")
        return None if decision.stops else (decision.spans, verdict.unsure)
    return judge


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("wire", DIALECTS)
@pytest.mark.parametrize("text, said", [
    (r'{"to":"bob\u0040example.com","n":1}', {"to": "[redacted]", "n": 1}),
    (r'{"text":"Hello\nbob\u0040exampl\u0065.com"}', {"text": "Hello\n[redacted]"}),
    (r'{"key":"\u0041KIAIOSFODNN7EXAMPLE","to":"b"}', {"key": "[redacted]", "to": "b"}),
    (r'{"text":"the pro\u006aect\nzebra, a\/b"}', {"text": "the [redacted], [redacted]"}),
    (r'{"in":"{\"to\":\"bob\\u0040example.com\"}"}', {"in": '{"to":"[redacted]"}'}),
])
def test_what_a_detector_finds_decoded_is_redacted_in_every_dialect(
        text: str, said: dict[str, Any], wire: str, streamed: bool) -> None:
    for size in (1, 5, 500) if streamed else (500,):
        out = relayed(wire, streamed, answer(wire, streamed, text, size), detects())
        assert out is not None and b"example" not in out and b"EXAMPLE" not in out and b"zebra" not in out
        copies = arguments(wire, streamed, out)
        assert copies and all(copy == said for copy in copies)


MIXED = st.lists(st.sampled_from(["bob@example.com", "AKIAIOSFODNN7EXAMPLE", "4111 1111 1111 1111", "project zebra",
                                  "project\nzebra", "a/b", "\n", "\t", " ", "\"", "\u00e9", "\U0001f600", "n", "\\ "]),
                 max_size=5).map(" ".join)


@pytest.mark.parametrize("streamed", [True, False])
@pytest.mark.parametrize("wire", DIALECTS)
@settings(max_examples=60, deadline=None)
@given(value=st.dictionaries(st.sampled_from("xyz"), MIXED, min_size=1, max_size=3), seed=st.integers(0, 99),
       size=st.sampled_from([1, 3, 8, 500]))
def test_however_it_is_spelled_and_cut_the_detectors_redact_alike(
        wire: str, streamed: bool, value: dict[str, str], seed: int, size: int) -> None:
    out = relayed(wire, streamed, answer(wire, streamed, spelled(value, random.Random(seed)), size), detects())
    assert out is not None
    for copy in arguments(wire, streamed, out):
        assert copy == {key: HIDDEN.sub("[redacted]", text) for key, text in value.items()}


@pytest.mark.parametrize("size", [1, 500])
def test_a_disguise_that_no_decoded_channel_takes_off_blocks(size: int) -> None:
    """Beside something that is redacted too: base64 in a string, and escapes in plain text."""
    hidden = orjson.dumps({"a": "bob@example.com", "b": "cHJvamVjdCB6ZWJyYQ=="}).decode().replace("@", r"\u0040")
    assert relayed("openai-chat", True, answer("openai-chat", True, hidden, size), detects()) is None
    said = orjson.dumps({"choices": [{"index": 0, "delta": {"content": r"bob\u0040example.com"}}]})
    assert relayed("openai-chat", True, [b"data: " + said + b"\n\n"], detects()) is None
