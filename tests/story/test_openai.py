"""Stories told with the official openai SDK."""

from __future__ import annotations

import asyncio

import openai
import pytest

from firewall.guards.scripted import ScriptedGuard
from tests.story.upstream import CLOSE, END, HEAD, chat, chat_events, chunk, delta, stream, whole


async def ask(client, text: str, **options):
    return await client.chat.completions.create(model="m", messages=[{"role": "user", "content": text}], **options)


async def test_passed_unstreamed(story):
    async with story([whole(chat("hello there"))]) as s:
        got = await ask(s.openai(), "hi")
        assert got.choices[0].message.content == "hello there"
        row = s.record()
        assert (row["ending"], row["decision"], row["input"], row["output"]) == ("passed", "allow", "allow", "allow")
        assert row["came"] == row["cleared"] > len("hello there") and row["policies"] and row["guard"]


async def test_blocked_on_input(story):
    async with story([whole(chat("never"))]) as s:
        with pytest.raises(openai.BadRequestError) as e:
            await ask(s.openai(max_retries=2), f"please say {s.canary}")
        assert e.value.code == "content_policy_violation" and s.canary not in str(e.value.body)
        assert e.value.response.headers["x-should-retry"] == "false"
        assert e.value.response.headers["x-firewall-decision"] == "block"
        assert e.value.response.headers["x-firewall-policy"] == "canary/1"
        assert e.value.response.headers["x-request-id"].startswith("req_")
        assert not s.upstream.seen                      # O-upstream: not one byte
        row = s.record()
        assert (row["ending"], row["status"], row["rules"]) == ("blocked", 400, ["canary/1"])


async def test_streamed_and_passed(story):
    async with story(stream(chat_events("Once ", "upon ", "a time."))) as s:
        got = ""
        async for part in await ask(s.openai(), "tell", stream=True):
            got += part.choices[0].delta.content or ""
        assert got == "Once upon a time."
        assert s.record()["ending"] == "passed"


async def test_stopped_mid_stream_and_upstream_closed(story, canary):
    half = len(canary) // 2
    script = [HEAD, *(chunk(e) for e in chat_events("fine ", "words ", canary[:half], canary[half:])[:4]), 0.2,
              chunk(delta(content=canary[half:])), 30.0]
    async with story(script) as s:
        got, finish = "", None
        began = asyncio.get_running_loop().time()
        async for part in await ask(s.openai(), "tell", stream=True):
            got += (part.choices[0].delta.content or "")
            finish = part.choices[0].finish_reason or finish
        assert got.startswith("fine words ") and s.canary not in got and finish == "content_filter"
        await asyncio.sleep(0.2)
        assert 0 < s.upstream.seen[0].closed_at - began < 1.0      # upstream is closed at a block
        row = s.record()
        assert (row["ending"], row["output"], row["rules"]) == ("blocked", "block", ["canary/1"])


async def test_the_same_verdict_unstreamed(story, canary):
    async with story([whole(chat(f"fine words {canary}"))]) as s:
        got = await ask(s.openai(), "tell")
        assert got.choices[0].finish_reason == "content_filter" and s.canary not in got.model_dump_json()
        assert s.record()["ending"] == "blocked"


async def test_a_violation_before_the_first_word_is_a_proper_answer(story, canary):
    async with story(stream(chat_events(canary))) as s:
        client = s.openai()
        response = await client.chat.completions.with_raw_response.create(
            model="m", messages=[{"role": "user", "content": "x"}], stream=True)
        assert response.headers["x-firewall-decision"] == "block"
        finish = [p.choices[0].finish_reason async for p in response.parse() if p.choices]
        assert finish[-1] == "content_filter"


async def test_slow_guard_holds_and_then_releases(story, canary):
    guard = ScriptedGuard({canary: "canary/1"}, delay=0.15)
    async with story(stream(chat_events(*"abcdefgh"), 0.01), guard=guard) as s:
        got = ""
        async for part in await ask(s.openai(), "x", stream=True):
            got += part.choices[0].delta.content or ""
        assert got == "abcdefgh"
        assert s.record()["asks"] <= 6          # a slow guard makes large windows


async def test_unsure_at_the_end_is_asked_again_as_a_whole(story, canary):
    """The stream ends while a question about a possible beginning of the word is in flight."""
    guard = ScriptedGuard({canary: "canary/1"}, delay=0.1)
    async with story(stream(chat_events("so ", canary[:6])), guard=guard) as s:
        got = ""
        async for part in await ask(s.openai(), "x", stream=True):
            got += part.choices[0].delta.content or ""
        assert got == "so " + canary[:6] and s.record()["ending"] == "passed"


async def test_dead_guard_is_503_before_the_first_byte(story):
    async with story([whole(chat("x"))], guard=ScriptedGuard(mode="dead")) as s:
        with pytest.raises(openai.InternalServerError) as e:
            await ask(s.openai(), "hi")
        assert e.value.status_code == 503 and e.value.code.startswith("guard_") and not s.upstream.seen
        assert int(e.value.response.headers["retry-after"]) >= 1
        row = s.record()
        assert (row["ending"], row["decision"], row["fault"]) == ("failed", "error", "guard")


async def test_guard_dies_mid_stream_and_nothing_unjudged_leaves(story):
    go = asyncio.Event()
    events = chat_events("seen ", "unseen")
    script = [HEAD, *(chunk(e) for e in events[:2]), go, *(chunk(e) for e in events[2:]), END]
    async with story(script) as s:
        got = ""
        with pytest.raises(openai.APIError):
            async for part in await ask(s.openai(), "hi", stream=True):
                got += part.choices[0].delta.content or ""
                if got:
                    s.guard.mode = "dead"
                    go.set()
        assert got == "seen "
        row = s.record()
        assert (row["ending"], row["output"], row["fault"]) == ("failed", "error", "guard")


async def test_a_lying_guard_is_a_failure_not_an_allow(story):
    async with story([whole(chat("x"))], guard=ScriptedGuard({"hi": "canary/1"}, mode="lie")) as s:
        with pytest.raises(openai.InternalServerError) as e:
            await ask(s.openai(), "hi")
        assert e.value.status_code == 503 and not s.upstream.seen


async def test_gone_client_closes_upstream(story):
    async with story([HEAD, chunk(chat_events("one ")[0]), chunk(delta(content="one ")), 30.0]) as s:
        client = s.openai()
        answer = await ask(client, "hi", stream=True)
        async for part in answer:
            if part.choices[0].delta.content:
                break
        left = asyncio.get_running_loop().time()
        await answer.close()
        await client.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if s.upstream.seen[0].closed_at:
                break
        assert 0 <= s.upstream.seen[0].closed_at - left < 1.0
        assert s.record()["ending"] == "gone"


async def test_upstream_cut_mid_stream_ends_in_a_legal_error(story):
    async with story([HEAD, chunk(delta(content="half")), 0.1, CLOSE]) as s:
        with pytest.raises(openai.APIError):
            async for _ in await ask(s.openai(), "hi", stream=True):
                pass
        row = s.record()
        assert (row["ending"], row["fault"]) == ("failed", "upstream") and len(s.upstream.seen) == 1


async def test_tool_calls_leave_whole_or_not_at_all(story, canary):
    tool = [delta(role="assistant", content=None, tool_calls=[{"index": 0, "id": "c", "type": "function",
                                                               "function": {"name": "mail", "arguments": ""}}]),
            *(delta(tool_calls=[{"index": 0, "function": {"arguments": a}}]) for a in ('{"to":"', canary, '"}')),
            delta("tool_calls"), b"data: [DONE]\n\n"]
    async with story(stream(tool, 0.01)) as s:
        names, finish = [], None
        async for part in await ask(s.openai(), "hi", stream=True):
            names += [c.function.name for c in part.choices[0].delta.tool_calls or []]
            finish = part.choices[0].finish_reason or finish
        assert names == [] and finish == "content_filter"


@pytest.mark.parametrize("place", [
    {"messages": [{"role": "system", "content": "K"}, {"role": "user", "content": "x"}]},
    {"messages": [{"role": "user", "content": [{"type": "text", "text": "K"}]}]},
    {"messages": [{"role": "user", "content": "x"}, {"role": "assistant", "content": None, "tool_calls": [
        {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":"K"}'}}]},
        {"role": "tool", "tool_call_id": "c", "content": "ok"}]},
    {"messages": [{"role": "user", "content": "x"}, {"role": "tool", "tool_call_id": "c", "content": "K"}]},
    {"tools": [{"type": "function", "function": {"name": "f", "description": "K", "parameters": {}}}]},
    {"tools": [{"type": "function", "function": {"name": "f", "parameters": {
        "type": "object", "properties": {"a": {"enum": ["K"]}}}}}]},
    {"response_format": {"type": "json_schema", "json_schema": {"name": "n", "schema": {"description": "K"}}}},
    {"prediction": {"type": "content", "content": "K"}}, {"metadata": {"a": "K"}}, {"user": "K"}, {"stop": ["K"]},
    {"vendor_novelty": {"deep": ["K"]}},
])
async def test_every_leaf_of_a_request_is_judged(story, place):
    """Area D: the canary in one leaf; the guard must have seen it."""
    import json

    import aiohttp
    async with story([whole(chat("x"))]) as s, aiohttp.ClientSession() as http:
        body = {"model": "m", "messages": [{"role": "user", "content": "x"}]} | json.loads(
            json.dumps(place).replace("K", s.canary))
        async with http.post(f"{s.url}/v1/chat/completions", json=body) as reply:
            assert reply.status == 400 and s.canary not in await reply.text()
        assert not s.upstream.seen and s.record()["ending"] == "blocked"


async def test_redacted_request_and_answer(story, canary):
    import json
    async with story([whole(chat(f"you said {canary} twice {canary}."))], action="redact") as s:
        got = await ask(s.openai(), f"my word is {s.canary}, keep it")
        assert got.choices[0].message.content == "you said [redacted] twice [redacted]."
        sent = json.loads(s.upstream.seen[0].body)
        assert sent["messages"][0]["content"] == "my word is [redacted], keep it"
        row = s.record()
        assert (row["input"], row["output"], row["ending"]) == ("redact", "redact", "passed")


async def test_redaction_of_a_word_split_over_deltas(story, canary):
    """G09: one placeholder, no fragment."""
    async with story(stream(chat_events("a ", *canary, " b"), 0.005), action="redact") as s:
        got = ""
        async for part in await ask(s.openai(), "x", stream=True):
            got += part.choices[0].delta.content or ""
        assert got == "a [redacted] b"


async def test_a_frame_rewritten_twice_keeps_both_masks(story, canary):
    """The first frame is held for the beginning of a second word; when that comes, the first mask must stay."""
    first = f"a {canary} b {canary[:5]}"
    async with story(stream(chat_events(first, canary[5:] + " c"), 0.05), action="redact") as s:
        got = ""
        async for part in await ask(s.openai(), "x", stream=True):
            got += part.choices[0].delta.content or ""
        assert got == "a [redacted] b [redacted] c"


async def test_watch_releases_first_and_says_flag(story, canary):
    async with story(stream(chat_events("bad ", canary)), stream={"release": "watch"}) as s:
        got = ""
        async for part in await ask(s.openai(), "x", stream=True):
            got += part.choices[0].delta.content or ""
        assert got == f"bad {s.canary}"
        await asyncio.sleep(0.05)
        rows = s.records()
        assert rows[0]["output"] == "flag" and rows[0]["rules"] == ["canary/1"] and rows[0]["release"] == "watch"


async def test_whole_asks_once(story):
    async with story(stream(chat_events(*"abc"), 0.01), stream={"release": "whole"}) as s:
        got = [p.choices[0].delta.content async for p in await ask(s.openai(), "x", stream=True)]
        assert "".join(c or "" for c in got) == "abc"
        assert s.record()["asks"] == 2          # the request, and the answer


@pytest.mark.parametrize("under", ["/v1beta/openai", "/api/paas/v4/", "/openai/v1", "/inference/chat/completions"])
async def test_what_openais_clients_take_as_a_base_url(story, under):
    """Gemini's, Z.ai's, Groq's and GitHub's: what the firewall asks is what a client of theirs asks."""
    base = under.removesuffix("/").removesuffix("/chat/completions")
    models = {"object": "list", "data": []}
    async with story([whole(chat("hello"))], [whole(models)], under=under) as s:
        await ask(s.openai(), "hi")
        assert [m async for m in s.openai().models.list()] == []
        assert [seen.line.decode().split()[1] for seen in s.upstream.seen] == [f"{base}/chat/completions", f"{base}/models"]
