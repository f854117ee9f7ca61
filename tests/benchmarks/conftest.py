"""A guard of known mind behind the webhook contract: it finds words, and counts what it was asked."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from aiohttp import web


@dataclass
class Words:
    """word -> violates every rule whose policy is active. `asked` holds the bodies it was sent."""

    words: tuple[str, ...]
    url: str = ""
    asked: list[dict[str, Any]] = field(default_factory=list)

    async def answer(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.asked.append(body)
        judged = body["answer"] or body["messages"] if body["direction"] == "output" else body["messages"]
        text = " ".join(part.get("text") or part.get("content") or "" for part in judged)
        rules = [r for p in body["policies"] for r in p["rules"]]
        hit = any(w in text for w in self.words)
        return web.Response(text=json.dumps({"score": 0.9 if hit else 0.1, "violated": rules[:1] if hit else [],
                                             "reason": ""}), content_type="application/json")


@pytest.fixture
async def words() -> AsyncIterator[Words]:
    one = Words(("KUMQUAT",))
    app = web.Application()
    app.router.add_post("/", one.answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    one.url = f"http://127.0.0.1:{runner.addresses[0][1]}/"
    yield one
    await runner.cleanup()
