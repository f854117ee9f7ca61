"""The other dialects through the whole firewall: completions, Responses, Gemini, Ollama, and local moderation."""

from __future__ import annotations

import json

import aiohttp
import pytest

from tests.story.upstream import END, HEAD, chunk, stream, whole


def sse(*rows: dict) -> list[bytes]:
    return [b"data: " + json.dumps(r).encode() + b"\n\n" for r in rows]


def completion(text: str) -> dict:
    return {"id": "c", "object": "text_completion", "created": 1, "model": "m",
            "choices": [{"index": 0, "text": text, "finish_reason": "stop", "logprobs": None}]}


def gemini(text: str, **more) -> dict:
    return {"candidates": [{"content": {"parts": [{"text": text}], "role": "model"}, "index": 0, **more}]}


def ollama(text: str, done: bool = False) -> dict:
    return {"model": "m", "created_at": "2026-01-01T00:00:00Z", "message": {"role": "assistant", "content": text},
            "done": done, **({"done_reason": "stop"} if done else {})}


ASK = {
    "/v1/completions": lambda text: {"model": "m", "prompt": text},
    "/v1/responses": lambda text: {"model": "m", "input": text},
    "/v1beta/models/m-1:generateContent": lambda text: {"contents": [{"role": "user", "parts": [{"text": text}]}]},
    "/api/chat": lambda text: {"model": "m", "stream": False, "messages": [{"role": "user", "content": text}]},
    "/api/generate": lambda text: {"model": "m", "stream": False, "prompt": text},
}
ANSWER = {
    "/v1/completions": completion,
    "/v1/responses": lambda text: {
        "id": "resp_1", "object": "response", "created_at": 1, "status": "completed", "model": "m", "output": [
            {"type": "message", "id": "msg_1", "role": "assistant", "status": "completed",
             "content": [{"type": "output_text", "text": text, "annotations": []}]}],
        "parallel_tool_calls": True, "tool_choice": "auto", "tools": []},
    "/v1beta/models/m-1:generateContent": lambda text: gemini(text, finishReason="STOP"),
    "/api/chat": lambda text: ollama(text, True),
    "/api/generate": lambda text: {"model": "m", "created_at": "2026-01-01T00:00:00Z", "response": text, "done": True,
                                   "done_reason": "stop"},
}
MARK = {"/v1/completions": "content_filter", "/v1/responses": "content_filter", "/api/chat": "done_reason",
        "/v1beta/models/m-1:generateContent": "SAFETY", "/api/generate": "done_reason"}


@pytest.mark.parametrize("path", list(ASK))
async def test_passed_blocked_and_withheld(story, path, canary):
    answers = [[whole(ANSWER[path]("all well"))], [whole(ANSWER[path](f"oh {canary}"))]]
    async with story(*answers) as s, aiohttp.ClientSession() as http:
        async with http.post(s.url + path, json=ASK[path]("hi")) as reply:
            assert reply.status == 200 and await reply.json() == ANSWER[path]("all well")
        async with http.post(s.url + path, json=ASK[path](f"say {canary}")) as reply:
            text = await reply.text()
            assert reply.status == 400 and canary not in text and len(s.upstream.seen) == 1
        async with http.post(s.url + path, json=ASK[path]("hi")) as reply:
            text = await reply.text()
            assert reply.status == 200 and canary not in text and MARK[path] in text
        assert [r["ending"] for r in s.records()] == ["passed", "blocked", "blocked"]


async def test_gemini_streams_and_its_key_travels_in_a_header(story, canary):
    ok = stream(sse(gemini("one "), gemini("two", finishReason="STOP")))
    bad = stream(sse(gemini("one "), gemini(canary), gemini("x", finishReason="STOP")))
    async with story(ok, bad) as s, aiohttp.ClientSession() as http:
        url = f"{s.url}/v1beta/models/m-1:streamGenerateContent?alt=sse&key=AIzaTest-1&evil=1"
        async with http.post(url, json=ASK["/v1beta/models/m-1:generateContent"]("hi")) as reply:
            assert (await reply.read()).count(b"data: ") == 2
        seen = s.upstream.seen[0]
        assert seen.line == b"POST /v1beta/models/m-1:streamGenerateContent?alt=sse HTTP/1.1"
        assert b"x-goog-api-key: AIzaTest-1" in seen.head
        async with http.post(url, json=ASK["/v1beta/models/m-1:generateContent"]("hi")) as reply:
            text = await reply.text()
            assert canary not in text and "SAFETY" in text
        assert "AIza" not in s.log.read_text()


async def test_ollama_streams(story, canary):
    lines = [json.dumps(ollama(t, d)).encode() + b"\n" for t, d in (("fine ", False), (canary, False), ("", True))]
    head = HEAD.replace(b"text/event-stream", b"application/x-ndjson")
    async with story([head, *(chunk(x) for x in lines), END]) as s, aiohttp.ClientSession() as http:
        async with http.post(f"{s.url}/api/chat", json={"model": "m", "messages": [
                {"role": "user", "content": "hi"}]}) as reply:
            rows = [json.loads(x) for x in (await reply.text()).splitlines()]
        assert rows[-1]["done"] is True and canary not in json.dumps(rows) and rows[-1]["done_reason"] != "stop"


@pytest.mark.parametrize("size", [1, 3, 50, 10_000])
async def test_e22_lines_however_they_come(story, canary, size):
    """Merged, split, blank, with CR, the last without a newline: byte for byte the same; and none hides a word."""
    told = [json.dumps(ollama(text, done), ensure_ascii=False).encode() for text, done in (
        ("so ", False), ("ünï ", False), ("fine", False), ("", True))]
    data = told[0] + b"\n\n" + told[1] + b"\r\n" + told[2] + b"\n \n" + told[3]
    head = HEAD.replace(b"text/event-stream", b"application/x-ndjson")

    def script(data: bytes) -> list:
        return [head, *(chunk(data[i:i + size]) for i in range(0, len(data), size)), END]
    asked = {"model": "m", "messages": [{"role": "user", "content": "hi"}]}
    hidden = data.replace(b"fine", canary.encode())
    async with story(script(data), script(hidden)) as s, aiohttp.ClientSession() as http:
        async with http.post(f"{s.url}/api/chat", json=asked) as reply:
            assert await reply.read() == data
        async with http.post(f"{s.url}/api/chat", json=asked) as reply:
            assert canary.encode() not in await reply.read()
        assert [r["ending"] for r in s.records()] == ["passed", "blocked"]


async def test_moderation_is_answered_by_the_guard(story):
    async with story([whole({})]) as s:
        got = await s.openai().moderations.create(input=["harmless", f"say {s.canary}"], model="omni-moderation-latest")
        assert [r.flagged for r in got.results] == [False, True]
        assert got.results[1].model_dump()["categories"]["canary"] is True
        assert not s.upstream.seen
        row = s.record()
        assert (row["ending"], row["decision"], row["rules"]) == ("answered", "flag", ["canary/1"])
