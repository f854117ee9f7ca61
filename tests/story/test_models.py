"""Lists of models: SDKs and user interfaces ask for them first; nothing else is ever GET."""

from __future__ import annotations

import json

import openai
import pytest

from tests.story.oracles import Line, audited, body_of, clean, head_of, leaks, raw, status, untouched
from tests.story.upstream import whole

OPENAI = {"object": "list", "data": [{"id": "gpt-x", "object": "model", "created": 1, "owned_by": "system"},
                                     {"id": "ft:gpt-x:org::1", "object": "model", "created": 2, "owned_by": "me"}]}
ANTHROPIC = {"data": [{"type": "model", "id": "claude-x", "display_name": "Claude X", "created_at": "2025-01-01T00:00:00Z"}],
             "has_more": False, "first_id": "claude-x", "last_id": "claude-x"}
GEMINI = {"models": [{"name": "models/gemini-x", "displayName": "X", "description": "Words about it.",
                      "supportedGenerationMethods": ["generateContent"]}], "nextPageToken": "abc"}
OLLAMA = {"models": [{"name": "llama3:8b", "model": "llama3:8b", "modified_at": "2025-01-01T00:00:00Z", "size": 1,
                      "digest": "365c0bd3", "details": {"format": "gguf", "family": "llama", "families": ["llama"]}}]}
ALL = [("/v1/models", "", OPENAI, "openai"), ("/v1/models", "anthropic-version: 2023-06-01\r\n", ANTHROPIC, "anthropic"),
       ("/v1beta/models", "", GEMINI, "gemini"), ("/api/tags", "", OLLAMA, "ollama")]


def get(path: str, extra: str = "", body: bytes = b"") -> bytes:
    length = f"Content-Length: {len(body)}\r\n" if body else ""
    return f"GET {path} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n{extra}{length}\r\n".encode() + body


async def test_sdks_list_and_retrieve(story):
    one = OPENAI["data"][1]
    async with story([whole(OPENAI)], [whole(one)], [whole(one)], [whole(ANTHROPIC)]) as s:
        assert [m.id async for m in s.openai().models.list()] == ["gpt-x", "ft:gpt-x:org::1"]
        assert (await s.openai().models.retrieve("ft:gpt-x:org::1")).owned_by == "me"
        assert (await s.openai().models.retrieve("meta-llama/Llama-3.1-8B")).owned_by == "me"
        assert [m.display_name async for m in s.anthropic().models.list(limit=5)] == ["Claude X"]
        assert [x.line for x in s.upstream.seen] == [
            b"GET /v1/models HTTP/1.1", b"GET /v1/models/ft:gpt-x:org::1 HTTP/1.1",
            b"GET /v1/models/meta-llama%2FLlama-3.1-8B HTTP/1.1", b"GET /v1/models?limit=5 HTTP/1.1"]
        rows = audited(s, "passed", "passed", "passed", "passed")
        assert [(r["route"], r["wire"], r["model"]) for r in rows] == [
            ("GET /v1/models", "openai-models", ""), ("GET /v1/models", "openai-models", "ft:gpt-x:org::1"),
            ("GET /v1/models", "openai-models", "meta-llama/Llama-3.1-8B"), ("GET /v1/models", "anthropic-models", "")]


@pytest.mark.parametrize(("path", "extra", "body", "family"), ALL)
async def test_a_list_passes_unchanged_and_its_words_are_judged(story, canary, path, extra, body, family):
    text = json.dumps(body)
    async with story([whole(text.encode())], [whole(text.replace('"id"', f'"id": "x", "note {canary}"', 1).replace(
            '"name"', f'"description2": "{canary}", "name"', 1).encode())]) as s, clean(s):
        answer = await raw(s, get(path, extra))
        assert status(answer) == 200 and body_of(answer) == text.encode()
        assert "x-firewall-decision: allow" in head_of(answer)
        answer = await raw(s, get(path, extra))
        assert status(answer) == 200 and "x-firewall-decision: block" in head_of(answer) and not leaks(answer, canary)
        assert json.loads(body_of(answer)).get("data", []) == [] == json.loads(body_of(answer)).get("models", [])
        rows = audited(s, "passed", "blocked")
        assert {r["wire"] for r in rows} == {f"{family}-models"} and rows[0]["input"] == "unjudged"
        assert all(seen.head.startswith(b"GET ") and not seen.body for seen in s.upstream.seen)


async def test_a_model_that_is_stopped_still_parses(story, canary):
    async with story([whole({"id": canary, "object": "model", "created": 1, "owned_by": "x y " + canary})]) as s:
        got = await s.openai().models.retrieve("gpt-x")
        assert got.id == "gpt-x" and got.owned_by == "withheld"


async def test_what_is_not_a_list_is_refused(story):
    async with story([whole(OPENAI)]) as s:
        for path in ("/v1/models/", "/v1/models/..", "/v1/models/.", "/v1/models/a/b", "/v1/models/%2e%2e", "/v1/models/a?b",
                     "/v1/models/a%2F..", "/v1/models/a%2f.%2Fb", "/v1/models/a%2F", "/v1/models/%2Fa", "/v1/models/a%252Fb",
                     "/v1/models/a%2F%2Fb", "/v1/models/a%5Cb", "/v1/models/a%20b", "/v1/models/a/b%2Fc",
                     "/v1/models/-x", "/v1/Models", "//v1/models", "/v1/models/" + "a" * 129, "/api/tags/x",
                     "/v1/files", "/v1/responses/resp_1", "/v1/chat/completions", "/v1beta/models/x/operations"):
            answer = await raw(s, get(path))
            if path == "/v1/models/a?b":        # an unknown query is dropped
                assert s.upstream.seen.pop().line == b"GET /v1/models/a HTTP/1.1"
                s.upstream.raw.clear()
                continue
            assert status(answer) == 404 and b"endpoint_not_allowed" in answer.lower(), path
        assert status(await raw(s, get("/v1/models", body=b"words"))) == 400
        for method in ("DELETE", "POST", "PATCH"):
            assert status(await raw(s, get("/v1/models/ft:x").replace(b"GET", method.encode()))) == 404
        assert untouched(s)


async def test_keys_redirects_streams_and_errors(story, monkeypatch):
    monkeypatch.setenv("TEAM_KEY", "team-key-4711")
    monkeypatch.setenv("UP_KEY", "sk-upstream")
    scripts = [[whole(OPENAI)], [b"HTTP/1.1 302 X\r\nlocation: http://evil/\r\ncontent-length: 0\r\n\r\n"],
               [b"HTTP/1.1 200 X\r\ncontent-type: text/event-stream\r\ncontent-length: 0\r\n\r\n"],
               [whole({"error": {"message": "no such model", "type": "x", "param": None, "code": "x"}}, 404)]]
    async with story(*scripts, server={"client_keys": ("TEAM_KEY",)}, upstream={"key": "env:UP_KEY"}) as s:
        assert status(await raw(s, get("/v1/models"))) == 401 and untouched(s)
        key = "Authorization: Bearer team-key-4711\r\n"
        assert status(await raw(s, get("/v1/models", key))) == 200
        assert b"sk-upstream" in s.upstream.seen[0].head and b"4711" not in s.upstream.seen[0].head
        assert status(await raw(s, get("/v1/models", key))) == 502
        assert status(await raw(s, get("/v1/models", key))) == 502
        client = s.openai(max_retries=0).with_options(default_headers={"Authorization": "Bearer team-key-4711"})
        with pytest.raises(openai.NotFoundError, match="no such model"):
            await client.models.retrieve("nope")
        audited(s, "refused", "passed", "failed", "failed", "passed")


async def test_pipelined_between_questions(story, canary):
    async with story([whole(OPENAI)]) as s, Line(s) as line:
        for _ in range(3):
            line.writer.write(get("/v1/models").replace(b"Connection: close\r\n", b""))
        assert [(await line.answer())[0] for _ in range(3)] == [200] * 3


@pytest.mark.parametrize(("path", "extra", "body", "family"), ALL)
async def test_a_bare_array_is_judged(story, canary, path, extra, body, family):
    rows = body.get("data") or body["models"]
    async with story([whole(rows)], [whole([{"description": f"words {canary}"}])], [whole([canary])]) as s, clean(s):
        answer = await raw(s, get(path, extra))
        assert status(answer) == 200 and json.loads(body_of(answer)) == rows
        for _ in range(2):
            answer = await raw(s, get(path, extra))
            assert "x-firewall-decision: block" in head_of(answer) and not leaks(answer, canary)
        audited(s, "passed", "blocked", "blocked")
