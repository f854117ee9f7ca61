"""Redaction: the masked words are gone from every copy, the rest is the same document (G09, G11, F16)."""

from __future__ import annotations

import random
import re
import time
from typing import Any

import orjson
import pytest

from firewall.errors import FirewallError
from firewall.gate import Gate
from firewall.proxy.redact import Redaction
from firewall.transcript import Transcript
from firewall.verdict import Span
from firewall.wire.dialects import WIRES
from firewall.wire.leaves import stamp
from firewall.wire.sse import event
from firewall.wire.wire import SPANS, StreamLimits
from tests.wire.asked import RICH
from tests.wire.streams import REQUESTS, STREAMS, Stream, events, heard, listen, needs_shared, said

DIALECTS = sorted({stream.wire for stream in STREAMS})


def rewritten(reader: Any, frames: list[Any], old: str, new: str) -> bytes:
    """Every frame with `old` replaced in its pieces; what a pump does for one piece at a time."""
    out = []
    for frame in frames:
        texts = [piece.text.replace(old, new) if old in piece.text else None for piece in frame.pieces]
        out.append(reader.rewrite(frame, texts))
    return b"".join(out)


def test_an_address_over_six_deltas_is_one_placeholder() -> None:
    """G09: spans run over frames; the first frame gets the placeholder, the others lose their part."""
    bits = ["mail ", "jo", "hn@", "exa", "mple", ".org", " now"]
    reader = listen("openai-chat")
    frames = heard(
        reader,
        events(*[{"choices": [{"index": 0, "delta": {"content": bit}}]} for bit in bits], done=True).replace(
            b'"}}]}\n\ndata: [DONE]', b'"},"finish_reason":"stop"}]}\n\ndata: [DONE]'
        ),
    )
    masks: list[str | None] = [None, "[EMAIL]", "", "", "", "", None]
    out = b"".join(
        reader.rewrite(frame, [masks[i] for _ in frame.pieces] if i < 7 else []) for i, frame in enumerate(frames)
    )
    again = said(heard(listen("openai-chat"), out))
    assert (
        again == {"choice/0/text": "mail [EMAIL] now"}
        and out.startswith(frames[0].raw)
        and out.endswith(frames[-1].raw)
    )


def test_unchanged_is_untouched() -> None:
    reader = listen("openai-chat")
    for frame in reader.feed(events({"choices": [{"index": 0, "delta": {"content": "a"}}]}) + b": ping\n\n"):
        assert reader.rewrite(frame, [None for _ in frame.pieces]) is frame.raw


def test_logprobs_of_changed_words_go() -> None:
    row = {"token": "zebra", "bytes": list(b"zebra"), "logprob": -1.0, "top_logprobs": []}
    reader = listen("openai-chat")
    (frame,) = reader.feed(
        events({"choices": [{"index": 0, "delta": {"content": "zebra"}, "logprobs": {"content": [row]}}]})
    )
    out = orjson.loads(event(reader.rewrite(frame, ["[X]"])).data or b"")
    assert out == {"choices": [{"index": 0, "delta": {"content": "[X]"}, "logprobs": None}]}


def test_both_names_of_reasoning_change() -> None:
    reader = listen("openai-chat")
    (frame,) = reader.feed(
        events({"choices": [{"index": 0, "delta": {"reasoning": "zebra", "reasoning_content": "zebra"}}]})
    )
    assert b"zebra" not in reader.rewrite(frame, ["[X]"]) and len(frame.pieces) == 1


def test_decoded_words_cannot_be_cut_out() -> None:
    reader = listen("openai-chat")
    call = {"tool_calls": [{"index": 0, "function": {"name": "f", "arguments": '{"a":"\\u007aebra"}'}}]}
    (frame,) = reader.feed(events({"choices": [{"index": 0, "delta": call, "finish_reason": "tool_calls"}]}))
    texts = [piece.text.replace("zebra", "[X]") if "zebra" in piece.text else None for piece in frame.pieces]
    with pytest.raises(FirewallError) as error:
        reader.rewrite(frame, texts)
    assert error.value.code == "unredactable"


def test_objects_of_arguments_stay_objects() -> None:
    reader = listen("gemini")
    call = {"functionCall": {"name": "f", "args": {"to": "a@b.org", "n": 1}}}
    (frame,) = reader.feed(events({"candidates": [{"content": {"parts": [call]}}]}))
    out = orjson.loads(event(rewritten(reader, [frame], "a@b.org", "[EMAIL]")).data or b"")
    assert out["candidates"][0]["content"]["parts"][0]["functionCall"]["args"] == {"to": "[EMAIL]", "n": 1}
    with pytest.raises(FirewallError):
        reader.rewrite(frame, [None, '{"broken'])


@needs_shared
@pytest.mark.parametrize("stream", STREAMS, ids=[s.name for s in STREAMS])
def test_a_masked_word_is_gone_from_every_copy(stream: Stream) -> None:
    """F16: a word of the recording that stands in some channel, masked wherever it is a piece, is nowhere left."""
    reader = listen(stream.wire, limits=StreamLimits(copies=True))
    data = stream.framed()
    frames = heard(reader, data)
    rng = random.Random(stream.name)
    whole = sorted(
        {
            word
            for f in frames
            for p in f.pieces
            for word in [p.text.strip()]
            if word.isascii()
            and word.isalpha()
            and len(word) > 4
            and not any(part in p.channel for part in ("decoded", "#", "type"))
        }
    )
    if not whole or len(data) > 120_000:
        pytest.skip("no piece that is one word, or long")
    word = rng.choice(whole)
    try:
        out = rewritten(reader, frames, word, "[X]")
    except FirewallError as error:
        assert error.code == "unredactable"  # the word is also a key: such an answer is blocked instead
        return
    again = heard(listen(stream.wire, limits=StreamLimits(copies=True)), out)
    assert not any(word in piece.text for frame in again for piece in frame.pieces)
    assert any("[X]" in piece.text for frame in again for piece in frame.pieces)


@pytest.mark.parametrize("wire", RICH)
def test_requests(wire: str) -> None:
    """Every message can be masked in part; only that changes."""
    body = RICH[wire]
    asked = WIRES[wire].ask(body)
    for message in asked.messages:
        at = len(message.text) // 2
        span = Span(message.where, at, at + 1)
        try:
            out = orjson.loads(asked.rewrite([span], lambda _: "\u2588X\u2588"))
        except FirewallError as error:
            assert error.code == "unredactable"
            continue
        again = {m.where: m.text for m in WIRES[wire].ask(out).messages}
        want = message.text[:at] + "\u2588X\u2588" + message.text[at + 1 :]
        assert again[message.where] == want or "\n" in message.text
        assert asked.document == body
    spans = [Span(asked.messages[0].where, 0, 2), Span(asked.messages[0].where, 1, 3)]
    masks: list[Span] = []
    asked.rewrite(spans, lambda span: (masks.append(span), "[X]")[1])
    assert masks == [Span(asked.messages[0].where, 0, 3)]


def test_what_cannot_be_cut_out_of_a_request() -> None:
    asked = WIRES["openai-chat"].ask({**REQUESTS["openai-chat"], "metadata": {"secret zebra": "v"}})
    for span in (Span("metadata", 0, 6), Span("nowhere.7", 0, 1), Span("messages.0.content#decoded", 0, 1)):
        with pytest.raises(FirewallError) as error:
            asked.rewrite([span], lambda _: "[X]")
        assert error.value.code == "unredactable"


SECRET = "AKIAIOSFODNN7EXAMPLE"


def masked(wire: str, body: dict[str, Any]) -> Any:
    """The request with every appearance of `SECRET` in its words redacted."""
    asked = WIRES[wire].ask(body)
    found = [(m.where, m.text.find(SECRET)) for m in asked.messages if SECRET in m.text]
    assert found and len({m.where for m in asked.messages}) == len(asked.messages)
    return orjson.loads(asked.rewrite([Span(where, at, at + len(SECRET)) for where, at in found], lambda _: "[X]"))


@pytest.mark.parametrize("outer", ["input", "args", "arguments"])
@pytest.mark.parametrize("inner", ["input", "args", "arguments"])
def test_arguments_in_arguments_lose_the_right_words(outer: str, inner: str) -> None:
    """The outermost object is the message, in whatever order its leaves are looked at (`call_tool` of MCP)."""
    def body(secret: str) -> dict[str, Any]:
        call = {"tool": "aws", inner: {"q": "list the buckets", "n": 7}, "n": 1.5, "note": f"key {secret} it is", "z": "x"}
        return {"model": "m", "messages": [{"role": "assistant", "content": "hm", outer: call}]}

    assert masked("openai-chat", body(SECRET)) == body("[X]")


@pytest.mark.parametrize("name", ["input", "args", "arguments", "brand_new", "metadata"])
def test_numbers_at_the_top_do_not_move_what_is_cut(name: str) -> None:
    def body(secret: str) -> dict[str, Any]:
        return {"model": "m", "messages": [], name: {"count": 12345, "name": f"zz {secret}", "n": [1, 2], "m": ["a", 3]}}

    assert masked("openai-chat", body(SECRET)) == body("[X]")


def test_names_of_one_short_digest_are_two() -> None:
    """Found in minutes for 48 bits: two fields under one name, of which the second kept its words."""
    names = ("memo9584666", "memo39318011")

    def body(secret: str) -> dict[str, Any]:
        return {"model": "m", "messages": [{"role": "user", "content": "hi", **{name: f"a {secret}" for name in names}}]}

    assert len({stamp(name) for name in names}) == 2 and len(stamp(names[0])) == 33
    assert masked("openai-chat", body(SECRET)) == body("[X]")


def test_a_hit_over_several_lines_is_cut_out_of_each() -> None:
    """Hits that reach over leaves, several in one leaf, one of a line feed only."""
    body = {"model": "m", "messages": [], "stop": ["abcdef", "gh\ni", "jkl", "mno"]}
    asked = WIRES["openai-chat"].ask(body)
    text = "abcdef\ngh\ni\njkl\nmno"
    assert [m.text for m in asked.messages] == [text]
    for hits, want in (
        ([(1, 2), (3, 5)], ["a_c_f", "gh\ni", "jkl", "mno"]),
        ([(4, 13)], ["abcd_", "_", "_kl", "mno"]),
        ([(0, 1), (5, 8), (8, 9), (13, 18)], ["_bcde_", "__\ni", "j_", "_o"]),
        ([(6, 7), (11, 12)], ["abcdef", "gh\ni", "jkl", "mno"]),
        ([(0, len(text))], ["_", "_", "_", "_"]),
    ):
        out = orjson.loads(asked.rewrite([Span("stop", a, b) for a, b in hits], lambda _: "_"))
        assert out["stop"] == want, hits


@pytest.mark.parametrize("kind", ["lines", "keys"])
def test_many_spans_cost_their_number(kind: str) -> None:
    """A hit in each of many leaves: no leaf is looked at once a hit, no key named once a place."""
    many = {f"k{i}": f"v {i} zebra" for i in range(5000)}
    body: dict[str, Any] = {"model": "m", "messages": [{"role": "user", "content": "hi", "note": many}]}
    if kind == "lines":
        body = {"model": "m", "messages": [], "tools": [{"type": "function", "enum": list(many.values())}]}
    began = time.process_time()
    asked = WIRES["openai-chat"].ask(body)
    read = time.process_time() - began
    spans = [Span(m.where, hit.start(), hit.end()) for m in asked.messages for hit in re.finditer("zebra", m.text)]
    began = time.process_time()
    out = asked.rewrite(spans, lambda _: "")
    assert len(spans) == 5000 and b"zebra" not in out
    assert time.process_time() - began < 40 * read + 0.2


def test_more_spans_than_a_request_may_have() -> None:
    asked = WIRES["openai-chat"].ask({"model": "m", "messages": [{"role": "user", "content": "ab" * (SPANS + 1)}]})
    spans = [Span("messages.0.content", at, at + 1) for at in range(0, 2 * (SPANS + 1), 2)]
    assert asked.rewrite(spans[1:], lambda _: "").count(b"a") < 20
    with pytest.raises(FirewallError) as error:
        asked.rewrite(spans, lambda _: "")
    assert error.value.code == "unredactable"


def test_g11_annotations_that_point_into_changed_words_go() -> None:
    """Offsets into the answer are dropped with the words they point at; what points elsewhere stays."""
    cited = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 9, "url": "u", "title": "t"}}
    chat = {"choices": [{"index": 0, "finish_reason": "stop", "message": {
        "role": "assistant", "content": "zebra one", "annotations": [cited]}}]}
    text = {"type": "output_text", "text": "zebra one", "logprobs": [], "annotations": [
        {"type": "url_citation", "start_index": 0, "end_index": 9, "url": "u", "title": "t"},
        {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 3}]}
    response = {"id": "resp_1", "object": "response", "status": "completed", "model": "m", "output": [
        {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed", "content": [text]}]}
    candidate = {"index": 0, "finishReason": "STOP", "content": {"role": "model", "parts": [{"text": "zebra one"}]},
                 "citationMetadata": {"citationSources": [{"startIndex": 0, "endIndex": 9, "uri": "u"}]},
                 "groundingMetadata": {"groundingChunks": [{"web": {"uri": "u", "title": "t"}}], "groundingSupports": [
                     {"segment": {"endIndex": 9, "text": "zebra one"}, "groundingChunkIndices": [0]}]}}
    for wire, body in (("openai-chat", chat), ("openai-responses", response), ("gemini", {"candidates": [candidate]})):
        reader = listen(wire, b"application/json", StreamLimits(copies=True))
        frames = heard(reader, orjson.dumps(body))
        assert orjson.loads(rewritten(reader, frames, "nothing", "x")) == body       # unchanged: they stay
        out = orjson.loads(rewritten(reader, frames, "zebra", "[X]"))
        heard(listen(wire, b"application/json", StreamLimits(copies=True)), orjson.dumps(out))
        assert b"zebra" not in orjson.dumps(out) and b"[X] one" in orjson.dumps(out)
        if wire == "openai-chat":
            assert out["choices"][0]["message"]["annotations"] == []
        elif wire == "gemini":
            said_ = out["candidates"][0]
            assert said_["groundingMetadata"]["groundingSupports"] == [] == said_["citationMetadata"]["citationSources"]
            assert said_["groundingMetadata"]["groundingChunks"]
        else:
            assert [a["type"] for a in out["output"][0]["content"][0]["annotations"]] == ["file_citation"]


def test_g11_offsets_into_a_source_stay() -> None:
    reader = listen("anthropic-messages", b"application/json", StreamLimits(copies=True))
    cited = {"type": "char_location", "cited_text": "of it", "document_index": 0, "document_title": "D",
             "start_char_index": 0, "end_char_index": 5}
    body = {"id": "msg_1", "type": "message", "role": "assistant", "model": "m", "stop_reason": "end_turn",
            "content": [{"type": "text", "text": "zebra", "citations": [cited]}]}
    out = orjson.loads(rewritten(reader, heard(reader, orjson.dumps(body)), "zebra", "[X]"))
    assert out["content"][0] == {"type": "text", "text": "[X]", "citations": [cited]}


def test_g11_annotations_that_come_after_redacted_words_go() -> None:
    """Events of their own (Responses), entries of a delta (chat), grounding of a chunk (Gemini)."""
    place = {"start_index": 0, "end_index": 9, "url": "u", "title": "t"}
    added = {"type": "response.output_text.annotation.added", "item_id": "m", "output_index": 0, "content_index": 0,
             "annotation_index": 0, "sequence_number": 4, "annotation": {"type": "url_citation", **place}}
    filed = {**added, "annotation": {"type": "file_citation", "file_id": "file-1", "filename": "a.txt", "index": 3}}
    reader = listen("openai-responses")
    assert reader.unplaced(events(added)) == b"" and reader.unplaced(events(filed)) == events(filed)
    chunk = {"choices": [{"index": 0, "delta": {"content": "x", "annotations": [
        {"type": "url_citation", "url_citation": place}, {"type": "file", "index": 1}]}}]}
    kept = orjson.loads(event(listen("openai-chat").unplaced(events(chunk)))[1])["choices"][0]["delta"]
    assert kept == {"content": "x", "annotations": [{"type": "file", "index": 1}]}
    part = {"candidates": [{"index": 0, "groundingMetadata": {"webSearchQueries": ["q"], "groundingSupports": [
        {"segment": {"startIndex": 1, "endIndex": 9, "text": "x"}}]}}]}
    kept = orjson.loads(event(listen("gemini").unplaced(events(part)))[1])["candidates"][0]["groundingMetadata"]
    assert kept == {"webSearchQueries": ["q"], "groundingSupports": []}
    assert reader.unplaced(b": start_index\n\n") == b": start_index\n\n"


@pytest.mark.parametrize("later", [False, True])
def test_g11_a_growing_answer_loses_places_behind_redacted_words(later: bool) -> None:
    """Whether the annotation came before the verdict that redacts or after it."""
    cited = {"type": "url_citation", "url_citation": {"start_index": 0, "end_index": 9, "url": "u", "title": "t"}}
    frames = heard(listen("openai-chat"), events(
        {"choices": [{"index": 0, "delta": {"content": "zebra one"}}]},
        {"choices": [{"index": 0, "delta": {"annotations": [cited]}}]},
        {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]}, done=True))
    gate, transcript, reader = Gate(), Transcript(), listen("openai-chat")
    redaction = Redaction(gate, transcript)
    out = b""
    for n, frame in enumerate(frames):
        for channel, text in frame.pieces:
            transcript.add(channel, text, gate.mark)
        gate.push(redaction.later(frame, reader) if redaction.spans else frame)
        if n == (0 if later else 1):
            assert redaction.apply([Span("choice/0/text", 0, 5)], (), reader)
    out = b"".join(frame.raw for frame in gate.clear(gate.mark + 1))
    assert b"start_index" not in out and b"zebra" not in out and out.endswith(b"[DONE]\n\n")
