"""An upstream's errors that nobody can read: load balancers' pages, empty bodies, bodies that end too early."""

from __future__ import annotations

import gzip
import json
from typing import Any

import openai
import pytest

from tests.story.oracles import CHAT, COMPLETIONS, MESSAGES, RESPONSES, body_of, post, raw, status
from tests.story.upstream import CLOSE

SAID = [{"role": "user", "content": "hi"}]
OK: dict[str, Any] = {"model": "m", "messages": SAID}


def page(code: int, kind: str, body: bytes, extra: bytes = b"") -> list[bytes]:
    return [b"HTTP/1.1 %d X\r\ncontent-type: %b\r\n%bcontent-length: %d\r\n\r\n" % (
        code, kind.encode(), extra, len(body)) + body]


HTML, JSON = "text/html; charset=utf-8", "application/json"
ERRORS = [(429, "text/plain", b"zqwords", b"retry-after: 7\r\n"), (503, HTML, b"<p>zqwords", b""), (500, JSON, b"", b""),
          (404, "application/problem+json", b'{"title":"zqwords"}', b""), (502, JSON, b'{"error":"zqwor', b""),
          (400, "application/json; charset=us-ascii", b'{"error":"zqwords"}', b""), (529, JSON, b'"zqwords"', b""),
          (413, "", b"zqwords", b""), (504, "text/event-stream", b"data: zqwords\n\n", b""),
          (503, JSON, gzip.compress(b'{"error":"zqwords"}'), b"content-encoding: gzip\r\n")]


@pytest.mark.parametrize(("path", "body"), [
    (CHAT, OK), (CHAT, {**OK, "stream": True}), (MESSAGES, {**OK, "max_tokens": 9}), ("/api/chat", OK),
    (COMPLETIONS, {"model": "m", "prompt": "hi"}), (RESPONSES, {"model": "m", "input": "hi"}),
    ("/v1beta/models/m:generateContent", {"contents": [{"parts": [{"text": "hi"}]}]})])
async def test_an_error_that_cannot_be_read_keeps_its_status_and_loses_its_words(story, path, body):
    """A load balancer's page: SDKs go by the status and Retry-After when they try again."""
    async with story(*[page(*each) for each in ERRORS]) as s:
        for code, *_ in ERRORS:
            got = await raw(s, post(body, path))
            head = got.lower().split(b"\r\n\r\n")[0]
            assert status(got) == code and b"zqw" not in got and b"content-type: application/json" in head
            assert json.loads(body_of(got))["error"]
            assert (b"retry-after: 7" in head) == (code == 429) == (b"retry-after" in head)
        for (code, *_), row in zip(ERRORS, s.records(), strict=True):
            assert (row["status"], row["upstream_status"], row["ending"]) == (code, code, "failed")
            assert (row["fault"], row["code"], row["decision"]) == ("upstream", "upstream_error", "error")


async def test_an_error_whose_body_never_ends_keeps_its_status(story):
    cut = [b"HTTP/1.1 503 X\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{", CLOSE]
    silent = [b"HTTP/1.1 429 X\r\nretry-after: 7\r\ncontent-type: application/json\r\ncontent-length: 99\r\n\r\n{", 30.0]
    async with story(cut, silent, stream={"content_idle": 0.2}) as s:
        assert [status(await raw(s, post(OK))) for _ in range(2)] == [503, 429]
        assert ["upstream_truncated" in row["detail"] or "upstream_timeout" in row["detail"]
                for row in s.records()] == [True, True]


async def test_sdks_see_the_class_of_an_error_that_cannot_be_read(story):
    async with story(page(429, "text/plain", b"slow down"), page(503, HTML, b"<p>"), page(404, HTML, b"<p>")) as s:
        for kind in (openai.RateLimitError, openai.InternalServerError, openai.NotFoundError):
            with pytest.raises(kind) as e:
                await s.openai().chat.completions.create(model="m", messages=SAID)
            assert e.value.body["code"] == "upstream_error"
