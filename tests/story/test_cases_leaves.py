"""D and F over sockets: the canary in any string leaf of any dialect never crosses the firewall unseen.

What tests/wire shows of the codecs is shown here of the running firewall: a request whose leaf holds the canary reaches
the upstream only if the guard was shown it (and then it is blocked), and an answer's leaf never reaches the client in
any form. Allow-listed leaves have a shape that no sentence has; the canaries here are sentences.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from firewall.guards.scripted import ScriptedGuard
from tests.story.oracles import CHAT, COMPLETIONS, MESSAGES, RESPONSES, Line, audited, forms, leaks, settled
from tests.story.upstream import END, HEAD, chunk, whole
from tests.wire.asked import RICH
from tests.wire.streams import REQUESTS, STREAMS, Stream, needs_shared

PATHS = {"openai-chat": CHAT, "openai-completions": COMPLETIONS, "openai-responses": RESPONSES,
         "anthropic-messages": MESSAGES, "gemini": "/v1beta/models/g:generateContent", "ollama-chat": "/api/chat",
         "ollama-generate": "/api/generate"}
STREAMED = PATHS | {"gemini": "/v1beta/models/g:streamGenerateContent?alt=sse"}


def slots(value: Any, holder: Any = None, key: Any = None) -> Iterator[tuple[Any, Any]]:
    """(container, key) of every string leaf."""
    if isinstance(value, str) and holder is not None:
        yield holder, key
    for k, inner in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield from slots(inner, value, k)


def said(canary: str) -> str:
    return f"the {canary} word"


@pytest.mark.parametrize("wire", sorted(RICH))
async def test_d33_every_leaf_of_a_rich_request(story, wire, canary):
    """D01 to D33: refused, or shown to the guard and blocked; the upstream sees no byte of it in any form."""
    async with story([whole({"ok": 1})]) as s, Line(s) as line:
        count = len(list(slots(RICH[wire])))
        for number in range(count):
            body = json.loads(json.dumps(RICH[wire]))
            holder, key = list(slots(body))[number]
            holder[key] = said(canary)
            code, answer = await line.ask(body, PATHS[wire])
            if code != 400:     # only then did it travel: never with the canary
                raise AssertionError((wire, number, key, code))
            assert not leaks(answer, canary), (key, answer)
        assert count > 5 and not any(form in bytes(s.upstream.raw) for form in forms(canary).values())
        rows = s.records()
        assert len(rows) == count and {r["ending"] for r in rows} <= {"blocked", "refused"}
        assert sum(r["ending"] == "blocked" for r in rows) > count * 0.6, "most leaves are judged, not refused"


@pytest.mark.parametrize("wire", sorted(RICH))
async def test_d33_keys_are_words_too(story, wire, canary):
    """A schema's property, a vendor's novelty: the name of a key is text that a model reads."""
    async with story([whole({"ok": 1})]) as s, Line(s) as line:
        for place in ("novelty", "metadata", "tools"):
            body = json.loads(json.dumps(RICH[wire]))
            value: Any = {said(canary): "x"}
            body[place] = [value] if place == "tools" else value
            code, answer = await line.ask(body, PATHS[wire])
            assert code == 400 and not leaks(answer, canary), (place, answer)
        assert not s.upstream.raw


def injected(stream: Stream, number: int, canary: str, whole_leaf: bool) -> bytes:
    """The recording with the canary in its n-th string leaf."""
    events = [json.loads(e) for e in stream.events]
    spots = [spot for e in events for spot in slots(e)]
    holder, key = spots[number % len(spots)]
    holder[key] = said(canary) if whole_leaf else str(holder[key]) + " " + said(canary)
    return Stream(stream.name, stream.wire, tuple(json.dumps(e).encode() for e in events)).framed()


@needs_shared
@pytest.mark.parametrize("release", ["rolling", "whole"])
async def test_f31_every_leaf_of_recorded_answers(story, canary, release, runs: int = 240):
    """F01 to F31: a random leaf of a random recording; nothing of the canary reaches the client."""
    pick = random.Random(7 if release == "whole" else 11)
    chosen = [s for s in STREAMS if len(s.events) < 150]
    async with story([]) as s, Line(s) as line:
        s.upstream.scripts.clear()
        endings = []
        for run in range(runs if release == "rolling" else runs // 3):
            stream = pick.choice(chosen)
            data = injected(stream, pick.randrange(100_000), canary, run % 2 == 0)
            cuts = sorted(pick.sample(range(1, len(data)), min(5, len(data) - 1)))
            parts = [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]
            s.upstream.scripts = [[HEAD, *map(chunk, parts), END]]
            body = {**REQUESTS[stream.wire], "stream": True} if stream.wire != "gemini" else REQUESTS["gemini"]
            code, answer = await line.ask(body, STREAMED[stream.wire])
            if found := leaks(answer, canary):
                # an allow-listed leaf of free shape would be a hole: there is none for a sentence
                raise AssertionError((stream.name, found, answer[-300:]))
            endings.append(code)
        rows = s.records()
        assert len(rows) == len(endings)
        stopped = sum(r["ending"] == "blocked" for r in rows)
        assert stopped > len(rows) * 0.7, "most leaves are judged, the rest fail closed"
        assert all(r["ending"] in ("blocked", "failed") for r in rows), {r["ending"] for r in rows}


@needs_shared
async def test_f31_without_the_canary_everything_passes_unchanged(story):
    """The control of the test above: the same recordings, byte for byte."""
    async with story([]) as s, Line(s) as line:
        for stream in STREAMS:
            s.upstream.scripts = [[HEAD, chunk(stream.framed()), END]]
            body = {**REQUESTS[stream.wire], "stream": True} if stream.wire != "gemini" else REQUESTS["gemini"]
            code, answer = await line.ask(body, STREAMED[stream.wire])
            assert code == 200 and answer == stream.framed(), stream.name
        audited(s, *["passed"] * len(STREAMS))


@pytest.mark.parametrize("size", [2, 3, 5, 8])
async def test_f02_f04_f06_f08_split_over_deltas(story, canary, size):
    """Content, tool arguments, reasoning, refusal: the canary over `size` deltas of one channel."""
    from tests.story.upstream import delta
    bits = [canary[i * len(canary) // size:(i + 1) * len(canary) // size] for i in range(size)]
    channels = [
        [delta(content=b) for b in bits], [delta(reasoning_content=b) for b in bits], [delta(refusal=b) for b in bits],
        [delta(reasoning=b) for b in bits],
        [delta(tool_calls=[{"index": 0, "id": "c", "type": "function", "function": {"name": "f", "arguments": ""}}]),
         *(delta(tool_calls=[{"index": 0, "function": {"arguments": b}}]) for b in ('{"a":"', *bits, '"}'))]]
    async with story([]) as s, Line(s) as line:
        for events in channels:
            s.upstream.scripts = [[HEAD, *(chunk(e) for e in [delta(role="assistant", content="so "), *events]),
                                   chunk(delta("stop")), chunk(b"data: [DONE]\n\n"), END]]
            code, answer = await line.ask(REQUESTS["openai-chat"])
            assert code == 200 and b"content_filter" in answer and not leaks(answer, canary), answer
        audited(s, *["blocked"] * len(channels))


async def test_f09_f22_logprobs_and_escapes(story, canary):
    """F09 logprobs spell the words again; F22 a tool's JSON split inside an escape."""
    from tests.story.upstream import delta, event, message_events
    half = len(canary) // 2
    spelled = "".join(f"\\u{ord(c):04x}" for c in canary)
    cut = 6 * half + 2                  # inside \uXXXX
    block = {"type": "tool_use", "id": "t", "name": "f", "input": {}}
    tool = [event("content_block_start", index=0, content_block=block),
            *(event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": p})
              for p in ('{"a":"', spelled[:cut], spelled[cut:], '"}')), event("content_block_stop", index=0)]
    row = {"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m", "choices": [
        {"index": 0, "delta": {"content": "x"}, "finish_reason": None, "logprobs": {"content": [
            {"token": "x", "logprob": -1, "bytes": list(canary.encode()), "top_logprobs": [
                {"token": canary, "logprob": -2, "bytes": list(canary.encode())}]}]}}]}
    head, *_, last, stop = message_events()
    async with story([HEAD, *(chunk(e) for e in (head, *tool, last, stop)), END],
                     [HEAD, chunk(b"data: " + json.dumps(row).encode() + b"\n\n"), chunk(delta("stop")),
                      chunk(b"data: [DONE]\n\n"), END]) as s, Line(s) as line:
        for wire in ("anthropic-messages", "openai-chat"):
            code, answer = await line.ask(REQUESTS[wire], PATHS[wire])
            assert code == 200 and not leaks(answer, canary), answer
        audited(s, "blocked", "blocked")


async def test_d31_f03_every_candidate(story, canary):
    """n = 2: the second candidate is judged like the first, streamed and not; one block ends both."""
    from tests.story.upstream import chat
    two = chat("fine")
    two["choices"].append({"index": 1, "message": {"role": "assistant", "content": canary}, "finish_reason": "stop"})
    rows = [{"id": "c", "object": "chat.completion.chunk", "created": 1, "model": "m",
             "choices": [{"index": i, "delta": {"content": t}, "finish_reason": None}]}
            for i, t in ((0, "fine"), (1, canary[:5]), (0, " too"), (1, canary[5:]))]
    lines = [b"data: " + json.dumps(r).encode() + b"\n\n" for r in rows]
    async with story([whole(two)], [HEAD, *map(chunk, lines), chunk(b"data: [DONE]\n\n"), END]) as s, Line(s) as line:
        for more in ({"stream": False}, {"stream": True}):
            code, answer = await line.ask({**REQUESTS["openai-chat"], "n": 2, **more})
            assert code == 200 and not leaks(answer, canary) and b"content_filter" in answer
        audited(s, "blocked", "blocked")


@pytest.mark.parametrize(("wire", "more"), [
    ("openai-responses", {"previous_response_id": "resp_1"}), ("openai-responses", {"conversation": "conv_1"}),
    ("openai-responses", {"background": True}), ("anthropic-messages", {"container": "c_1"}),
    ("openai-chat", {"prompt_token_ids": [1, 2]}), ("openai-completions", {"prompt": [[1, 2], [3]]}),
    ("openai-chat", {"api_base": "http://evil"}), ("openai-chat", {"chat_template": "x"}),
    ("openai-chat", {"guardrails": {}}), ("gemini", {"cachedContent": "cachedContents/1"}),
    ("openai-chat", {"n": 500}), ("openai-chat", {"max_tokens": 10 ** 9}), ("openai-completions", {"best_of": 64})])
async def test_d29_d32_b09_k17_what_cannot_be_inspected_or_paid_for_is_refused(story, wire, more):
    """D26, D29, D30, D32, B09, M03: stored state, token ids, control fields; K17: amplification."""
    async with story([whole({"x": 1})]) as s, Line(s) as line:
        code, answer = await line.ask({**REQUESTS[wire], **more}, PATHS[wire])
        assert code == 400 and b"evil" not in answer and not s.upstream.raw
        audited(s, "refused")


async def test_d27_images_pass_as_opaque_and_the_record_says_so(story):
    """D27, N17: the proxy fetches nothing; what nobody inspected is counted."""
    from tests.story.upstream import chat
    body = {"model": "m", "messages": [{"role": "user", "content": [
        {"type": "text", "text": "look"},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}}]}]}
    async with story([whole(chat("x"))]) as s, Line(s) as line:
        assert (await line.ask(body))[0] == 200 and s.record()["opaque"] == 1


async def test_o_cover_under_a_guard_that_thinks(story, canary):
    """The guard that needs a task, not the one that answers from memory, is shown the same words."""
    async with story([whole({"x": 1})], guard=ScriptedGuard({canary: "canary/1"}, delay=0.01, record=True)) as s:
        async with Line(s) as line:
            for wire in sorted(PATHS):
                body = json.loads(json.dumps(REQUESTS[wire]).replace("hello", said(canary)))
                assert (await line.ask(body, PATHS[wire]))[0] == 400
        await settled(s, len(PATHS))
        assert not s.upstream.raw and len(s.guard.seen) == len(PATHS)
        audited(s, *["blocked"] * len(PATHS))
