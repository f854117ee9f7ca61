"""How answers end: the verdict on the whole, calls that must leave whole, redactions that cannot be done (G05, E24, G09)."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from dataclasses import replace
from typing import Any

import pytest

from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.headers import MASK
from firewall.verdict import Verdict
from tests.story.oracles import CHAT, MESSAGES, audited, body_of, clean, leaks, post, raw, settled, status
from tests.story.upstream import END, HEAD, chat, chat_events, chunk, delta, event, message_events, stream, whole

STREAM = {"model": "m", "max_tokens": 9, "stream": True, "messages": [{"role": "user", "content": "hi"}]}
DONE = b"data: [DONE]\n\n"


class Late(ScriptedGuard):
    """Sees nothing in an answer that is still being written; a webhook or a reasoner may be like that."""

    def _answer(self, case: Any) -> Verdict:
        return super()._answer(case) if case.whole or case.direction == "input" else self._clean


# the end and the verdict on the whole

@pytest.mark.parametrize("delay", [0.0, 0.05])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("cut", ["one segment", "end later", "done later", "each alone"])
async def test_the_end_waits_for_a_verdict_on_the_whole(story, canary, path, cut, delay):
    events = chat_events("so ", canary) if path == CHAT else message_events("so ", canary)
    script: list[Any] = {
        "one segment": [HEAD + chunk(b"".join(events)) + END],
        "end later": [HEAD, chunk(b"".join(events)), 0.15, END],
        "done later": [HEAD, chunk(b"".join(events[:-1])), 0.15, chunk(events[-1]), 0.15, END],
        "each alone": [HEAD, *[step for data in events for step in (chunk(data), 0.03)], END]}[cut]
    async with story(script, guard=Late({canary: "canary/1"}, delay=delay)) as s:
        got = await raw(s, post(STREAM, path))
        assert b'"end_turn"' not in got and b'"stop"' not in got
        assert (b"content_filter" if path == CHAT else b"refusal") in got
        (row,) = audited(s, "blocked")
        assert row["decision"] == "block"


@pytest.mark.parametrize("release", ["rolling", "whole", "watch"])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_an_upstream_that_closes_late_keeps_nobody_waiting(story, canary, path, release):
    events = chat_events("so ", "long") if path == CHAT else message_events("so ", "long")
    late = asyncio.Event()
    async with story([HEAD, *map(chunk, events), late, END], stream={"release": release}) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(STREAM, path))
        got = b""
        while events[-1] not in got:
            got += await asyncio.wait_for(reader.read(65536), 5)
        assert not late.is_set()
        late.set()
        got += await asyncio.wait_for(reader.read(), 5)
        writer.close()
        assert body_of(got) == b"".join(events)
        (row,) = audited(s, "passed")
        assert row["cleared"] == row["came"] and not row["unjudged"]


async def test_words_behind_the_end_wait_for_the_end_of_the_body(story, canary):
    """An upstream that goes on after `finish_reason`: nothing behind it leaves on a verdict about a part."""
    said = [delta(role="assistant", content="so "), delta("stop"), delta(content=canary[:5]), delta(content=canary[5:]),
            DONE]
    for pause in (0.0, 0.05):
        async with story(stream(said, pause), guard=Late({canary: "canary/1"})) as s:
            got = await raw(s, post(STREAM))
            assert canary[:5].encode() not in got and got.count(b"[DONE]") <= 1
            assert [row["decision"] for row in s.records()] == ["block"]
            s.log.unlink()


async def test_one_question_about_the_whole(story, canary):
    """The end of the body adds nothing to ask about where a frame has ended the answer."""
    async with story(stream(chat_events("so ", "long"), 0.03)) as s:
        await raw(s, post(STREAM))
        assert [case.whole for case in s.guard.seen if case.direction == "output"].count(True) == 1


# calls

def call(words: list[str]) -> list[bytes]:
    def part(**function: Any) -> bytes:
        return delta(tool_calls=[{"index": 0, "function": function}])
    first = delta(role="assistant", tool_calls=[{"index": 0, "id": "call_1", "type": "function",
                                                 "function": {"name": "write_file", "arguments": ""}}])
    return [delta(content="I write."), first, *[part(arguments=word) for word in words], delta("tool_calls"), DONE]


def tool_use(words: list[str]) -> list[bytes]:
    first, *rest = message_events("I write.")
    block = {"type": "tool_use", "id": "t", "name": "write_file", "input": {}}
    return [first, *rest[:3], event("content_block_start", index=1, content_block=block),
            *[event("content_block_delta", index=1, delta={"type": "input_json_delta", "partial_json": w}) for w in words],
            event("content_block_stop", index=1), *rest[3:]]


def segments(events: list[bytes], cut: str) -> list[Any]:
    if cut == "one segment":
        return [HEAD, chunk(b"".join(events)), END]
    if cut == "a pause inside":
        middle = len(events) * 2 // 3
        return [HEAD, chunk(b"".join(events[:middle])), 0.1, chunk(b"".join(events[middle:])), 0.05, END]
    body, rng, out = b"".join(events), random.Random(cut), [HEAD]
    while body:
        size = rng.randint(1, 5000)
        out, body = [*out, chunk(body[:size])], body[size:]
    return [*out, END]


CUTS = ["one segment", "a pause inside", "odd cuts"]


@pytest.mark.parametrize("delay", [0.0, 0.02])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_long_call_passes_for_every_cut(story, path, delay):
    """1,500 deltas are more bytes than `hold`, and an ordinary file written by an agent."""
    words = ['{"text":"', *["word "] * 1500, '"}']
    events = call(words) if path == CHAT else tool_use(words)
    for cut in CUTS:
        async with story(segments(events, cut), guard=ScriptedGuard({}, delay=delay), stream={"hold": 65_536}) as s:
            assert body_of(await raw(s, post(STREAM, path))) == b"".join(events), cut
            audited(s, "passed")
            s.log.unlink()


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
async def test_a_call_larger_than_may_be_held_fails_for_every_cut(story, path):
    words = ['{"text":"', *["word "] * 300, '"}']
    events = call(words) if path == CHAT else tool_use(words)
    for cut in CUTS:
        async with story(segments(events, cut), stream={"hold": 4096, "whole": 20_000}) as s:
            got = await raw(s, post(STREAM, path))
            assert b"word " not in got and (status(got) == 502 or b"error" in body_of(got)), cut
            (row,) = audited(s, "failed")
            assert row["code"] == "held_too_much", cut
            s.log.unlink()


async def test_a_client_that_reads_slowly_during_a_call_gets_all_of_it(story):
    """Back-pressure of the client ends while the call is still more than `hold`: reading upstream goes on."""
    words = ["x" * 900] * 3000
    events = [delta(role="assistant", content="y" * 1000) for _ in range(3000)] + call(words)
    async with story(stream(events), guard=ScriptedGuard({}), stream={"hold": 65_536}) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port, limit=4096)
        writer.write(post(STREAM))
        await asyncio.sleep(0.5)
        got = await asyncio.wait_for(reader.read(), 20)
        writer.close()
        assert body_of(got) == b"".join(events)
        audited(s, "passed")


# redactions that cannot be done

async def test_a_request_that_cannot_be_redacted_is_blocked(story, canary):
    """The words stand in a key: no placeholder can take their place."""
    async with story(stream(chat_events("hi")), action="redact") as s:
        got = await raw(s, post({**STREAM, canary: 1}))
        assert status(got) == 400 and json.loads(body_of(got))["error"]["code"] == "content_policy_violation"
        assert not s.upstream.seen
        (row,) = audited(s, "blocked")
        assert (row["decision"], row["input"], row.get("code")) == ("block", "block", None)


@pytest.mark.parametrize("before", [[], ["so "]])
async def test_an_answer_that_cannot_be_redacted_is_blocked(story, canary, before):
    odd = b"data: " + json.dumps({"id": "c", "choices": [{"index": 0, "delta": {canary: 1}}]}).encode() + b"\n\n"
    events = chat_events(*before, "long")
    async with story(stream([*events[:-2], odd, *events[-2:]], 0.02), action="redact") as s:
        got = await raw(s, post(STREAM))
        assert status(got) == 200 and not leaks(got, canary)
        assert b"content_filter" in got and got.endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n") or not before
        (row,) = audited(s, "blocked")
        assert (row["decision"], row["output"], row.get("code")) == ("block", "block", None)


async def test_an_answer_that_goes_on_unreadably_behind_a_redaction_is_blocked(story, canary):
    """Whether places are off cannot be told in an event that is no document."""
    events = [*chat_events(f"so {canary} ", "long")[:-1], b': "start_index"\ndata: [DONE]\n\n']
    async with story(stream(events, 0.02), action="redact") as s:
        got = await raw(s, post(STREAM))
        assert not leaks(got, canary) and MASK.encode() in got
        (row,) = audited(s, "blocked")
        assert row["decision"] == "block"


# moderations

async def test_words_about_many_inputs_are_judged_once(story, canary):
    body = {"input": ["a", f"b {canary}", "c"], "metadata": {"k": "x" * 1000}}
    async with story([]) as s:
        got = json.loads(body_of(await raw(s, post(body, "/v1/moderations"))))
        assert [row["flagged"] for row in got["results"]] == [False, True, False]
        assert sum(len(text) for case in s.guard.seen for _, text in case.trial()) < 1100
        s.log.unlink()
        for inputs in (["a", "b"], ["a"], "a"):
            got = json.loads(body_of(await raw(s, post({**body, "input": inputs, "metadata": {"k": canary}},
                                                       "/v1/moderations"))))
            assert all(row["flagged"] and row["categories"]["canary"] for row in got["results"])


async def test_inputs_are_bounded_and_give_way(story):
    async with story([]) as s:
        got = await raw(s, post({"input": ["a"] * 1025}, "/v1/moderations"))
        assert status(got) == 400 and json.loads(body_of(got))["error"]["param"] == "input"
        body = post({"input": ["a"] * 1024, "metadata": {"k": "x" * 100_000}}, "/v1/moderations")
        task, worst = asyncio.create_task(raw(s, body)), 0.0
        while not task.done():
            began = time.perf_counter()
            await asyncio.sleep(0.001)
            worst = max(worst, time.perf_counter() - began)
        assert len(json.loads(body_of(task.result()))["results"]) == 1024 and worst < 1


# the client

@pytest.mark.parametrize("takes", [True, False])
async def test_an_answer_that_its_client_does_not_take_did_not_pass(story, takes):
    """Upstream ended long ago and all was written, to a client that took the rest, or was cut by the stall rule."""
    async with story([whole(chat("x" * 9_000_000))]) as s, clean(s):
        s.firewall.server.limits = replace(s.firewall.server.limits, write_stall=0.4, tick=0.05)
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", s.firewall.server.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        writer.write(post({**STREAM, "stream": False}, close=False))
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.1)
        assert not s.records()                      # nobody knows yet
        if takes:
            await reader.readexactly(9_000_000)
        await settled(s, 1)
        audited(s, "passed" if takes else "gone")
        writer.transport.abort()
