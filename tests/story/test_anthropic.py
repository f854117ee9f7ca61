"""Stories told with the official anthropic SDK."""

from __future__ import annotations

import asyncio

import anthropic
import pytest

from firewall.guards.scripted import ScriptedGuard
from tests.story.upstream import CLOSE, HEAD, chunk, event, message, message_events, stream, whole


async def ask(client, text: str, **options):
    return await client.messages.create(model="m", max_tokens=50, messages=[{"role": "user", "content": text}], **options)


async def read(client, text: str):
    got = ""
    async with client.messages.stream(model="m", max_tokens=50, messages=[{"role": "user", "content": text}]) as answer:
        async for piece in answer.text_stream:
            got += piece
        return got, await answer.get_final_message()


async def test_passed_both_ways(story):
    async with story([whole(message("good day"))], stream(message_events("good ", "day"))) as s:
        answer = await ask(s.anthropic(), "hi")
        assert answer.content[0].text == "good day"
        got, final = await read(s.anthropic(), "hi")
        assert got == "good day" and final.stop_reason == "end_turn"
        assert [r["ending"] for r in s.records()] == ["passed", "passed"] and answer._request_id == s.records()[0]["id"]


async def test_blocked_on_input(story):
    async with story([whole(message("never"))]) as s:
        with pytest.raises(anthropic.BadRequestError) as e:
            await ask(s.anthropic(max_retries=2), f"say {s.canary}")
        assert e.value.body["error"]["type"] == "invalid_request_error" and not s.upstream.seen
        assert s.canary not in str(e.value.body) and s.record()["rules"] == ["canary/1"]
        assert e.value.request_id == s.record()["id"]


async def test_stopped_mid_stream(story, canary):
    events = message_events("all ", "well ", canary[:5], canary[5:], "more")
    async with story(stream(events, 0.02)) as s:
        got, final = await read(s.anthropic(), "hi")
        assert got.startswith("all well ") and s.canary not in got and final.stop_reason == "refusal"
        assert s.record()["ending"] == "blocked"


async def test_the_same_verdict_unstreamed(story, canary):
    async with story([whole(message(f"all well {canary}"))]) as s:
        got = await ask(s.anthropic(), "hi")
        assert got.stop_reason == "refusal" and s.canary not in got.model_dump_json()


async def test_refusal_before_the_first_word(story, canary):
    async with story(stream(message_events(canary))) as s:
        got, final = await read(s.anthropic(), "hi")
        assert got == "" or s.canary not in got
        assert final.stop_reason == "refusal"


async def test_dead_guard_and_cut_upstream(story):
    async with story([whole(message("x"))], guard=ScriptedGuard(mode="dead")) as s:
        with pytest.raises(anthropic.InternalServerError) as e:
            await ask(s.anthropic(), "hi")
        assert e.value.status_code == 503 and not s.upstream.seen
    

async def test_upstream_cut_mid_stream(story):
    events = message_events("half")
    async with story([HEAD, *(chunk(e) for e in events[:3]), 0.1, CLOSE]) as s:
        with pytest.raises(anthropic.APIError):
            await read(s.anthropic(), "hi")
        assert s.record()["fault"] == "upstream"


async def test_thinking_tool_input_and_block_start_are_judged(story, canary):
    """F20-F23: text hides in thinking, in tool input, in a pre-filled block."""
    head, tail = message_events()[0], message_events()[-2:]
    hidden = [
        [event("content_block_start", index=0, content_block={"type": "thinking", "thinking": "", "signature": ""}),
         event("content_block_delta", index=0, delta={"type": "thinking_delta", "thinking": canary})],
        [event("content_block_start", index=0, content_block={"type": "tool_use", "id": "t", "name": "f", "input": {}}),
         event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": '{"a":"' + canary[:4]}),
         event("content_block_delta", index=0, delta={"type": "input_json_delta", "partial_json": canary[4:] + '"}'})],
        [event("content_block_start", index=0, content_block={"type": "text", "text": canary})],
        [event("content_block_start", index=0, content_block={"type": "novelty", "stuff": [canary]})],
    ]
    for events in hidden:
        script = stream([head, *events, event("content_block_stop", index=0), *tail])
        async with story(script) as s:
            async with s.anthropic().messages.stream(model="m", max_tokens=5,
                                                     messages=[{"role": "user", "content": "x"}]) as answer:
                seen = [e.model_dump_json() async for e in answer]
            assert s.canary not in "".join(seen)
            assert (await answer.get_final_message()).stop_reason == "refusal"
            (s.log).unlink()


async def test_client_gone(story):
    async with story([HEAD, *(chunk(e) for e in message_events("one ")[:3]), 30.0]) as s:
        client = s.anthropic()
        answer = await ask(client, "x", stream=True)
        async for e in answer:
            if e.type == "content_block_delta":
                break
        await answer.close()
        await client.close()
        for _ in range(100):
            await asyncio.sleep(0.01)
            if s.upstream.seen[0].closed_at:
                break
        assert s.upstream.seen[0].closed_at and s.record()["ending"] == "gone"


async def test_tokens_are_counted_of_what_may_be_asked(story, canary):
    turns = [{"role": "user", "content": "hi"}]
    async with story([whole({"input_tokens": 14})], [whole({"input_tokens": 14, "note": canary})], [whole(
            {"type": "error", "error": {"type": "not_found_error", "message": "model: m"}}, 404)]) as s:
        client = s.anthropic()
        got = await client.messages.count_tokens(model="m", messages=turns, system="be brief", tools=[
            {"name": "f", "description": "does it", "input_schema": {"type": "object"}}])
        assert got.input_tokens == 14 and s.upstream.seen[0].line == b"POST /v1/messages/count_tokens HTTP/1.1"
        assert (await client.messages.count_tokens(model="m", messages=turns)).to_dict() == {"input_tokens": 0}
        with pytest.raises(anthropic.NotFoundError):
            await client.messages.count_tokens(model="m", messages=turns)
        with pytest.raises(anthropic.BadRequestError) as e:
            await client.messages.count_tokens(model="m", messages=turns, system=f"say {canary}")
        assert e.value.body["error"]["type"] == "invalid_request_error" and len(s.upstream.seen) == 3
        assert {(r["route"], r["wire"]) for r in s.records()} == {("POST /v1/messages/count_tokens", "anthropic-count")}
        assert [r["ending"] for r in s.records()] == ["passed", "blocked", "passed", "blocked"]


async def test_a_count_is_no_array(story, canary):
    async with story([whole([{"note": canary}])]) as s:
        with pytest.raises(anthropic.APIStatusError) as e:
            await s.anthropic().with_options(max_retries=0).messages.count_tokens(
                model="m", messages=[{"role": "user", "content": "hi"}])
        assert e.value.status_code == 502 and canary not in e.value.response.text
        assert s.records()[-1]["ending"] == "failed"
