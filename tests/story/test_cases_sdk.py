"""P01: the official SDKs see the same objects through the firewall as directly, over all recorded streams."""

from __future__ import annotations

import json
from typing import Any

import anthropic
import openai
import pytest

from tests.story.oracles import audited
from tests.story.upstream import END, HEAD, chat, chunk, message, whole
from tests.wire.streams import REQUESTS, STREAMS, Stream, needs_shared

CHAT = [s for s in STREAMS if s.wire == "openai-chat"]
RESPONSES = [s for s in STREAMS if s.wire == "openai-responses"]
MESSAGES = [s for s in STREAMS if s.wire == "anthropic-messages"]


async def heard(call: Any) -> list[Any]:
    """Every event as plain data; an error is the last of them."""
    out: list[Any] = []
    try:
        async for event in await call:
            out.append(event.model_dump(warnings=False))
    except (openai.APIError, anthropic.APIError) as e:
        out.append((type(e).__name__, e.body))
    return out


def sdks(url: str) -> tuple[openai.AsyncOpenAI, anthropic.AsyncAnthropic]:
    return (openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0),
            anthropic.AsyncAnthropic(base_url=url, api_key="k", max_retries=0))


async def both(story: Any, streams: list[Stream], ask: Any) -> None:
    async with story([]) as s:
        for stream in streams:
            data = stream.framed()
            s.upstream.scripts = [[HEAD, *[chunk(data[i:i + 997]) for i in range(0, len(data), 997)], END]]
            direct, through = sdks(s.upstream.url), sdks(s.url)
            one, two = await heard(ask(direct, stream)), await heard(ask(through, stream))
            assert one == two and one, stream.name
            for client in (*direct, *through):
                await client.close()
        audited(s, *["passed"] * len(streams))


@needs_shared
async def test_p01_openai_chat(story):
    await both(story, CHAT, lambda c, r: c[0].chat.completions.create(**REQUESTS[r.wire]))


@needs_shared
async def test_p01_openai_responses(story):
    await both(story, RESPONSES, lambda c, r: c[0].responses.create(**REQUESTS[r.wire]))


@needs_shared
async def test_p01_anthropic(story):
    await both(story, MESSAGES, lambda c, r: c[1].messages.create(**REQUESTS[r.wire]))


@pytest.mark.parametrize("kind", ["chat", "tools", "messages", "refused"])
async def test_p01_whole_answers_and_errors(story, kind):
    """Unstreamed objects, and the vendor's own errors, status and body."""
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": '{"a":1}'}}
    body: Any = {
        "chat": chat("hello \u2028 ünï"), "messages": message("hello"),
        "tools": chat("", tool_calls=[call]),
        "refused": {"error": {"message": "too many", "type": "rate_limit", "param": None, "code": "slow"}}}[kind]
    async with story([whole(body, 429 if kind == "refused" else 200)]) as s:
        seen = []
        for client in (sdks(s.upstream.url), sdks(s.url)):
            ask = {"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}]}
            try:
                got = await (client[1].messages if kind == "messages" else client[0].chat.completions).create(**ask)
                seen.append(got.model_dump(warnings=False))
            except openai.RateLimitError as e:
                seen.append((e.status_code, e.code, json.dumps(e.body)))
        assert seen[0] == seen[1]
