"""The real application, a real fake upstream, a scripted guard, and the oracles that hold in every story."""

from __future__ import annotations

import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anthropic
import openai
import pytest

from firewall.config import Config
from firewall.guards.guard import Guard
from firewall.guards.limits import Limits
from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.records import verify
from firewall.proxy.serve import Firewall
from tests.story.upstream import Upstream

POLICY = "---\nid: canary\naction: {action}\nmessage: No canaries here.\n---\n## Violates\n- `canary/1` Says the word.\n"


class Story:
    """One running firewall and everything around it."""

    def __init__(self, firewall: Firewall, upstream: Upstream, guard: ScriptedGuard, canary: str, log: Path) -> None:
        self.firewall, self.upstream, self.guard, self.canary, self.log = firewall, upstream, guard, canary, log
        self.clients: list[openai.AsyncOpenAI | anthropic.AsyncAnthropic] = []

    @property
    def url(self) -> str:
        return self.firewall.url

    def openai(self, **options: Any) -> openai.AsyncOpenAI:
        client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key="sk-client", **{"max_retries": 0, **options})
        self.clients.append(client)
        return client

    def anthropic(self, **options: Any) -> anthropic.AsyncAnthropic:
        client = anthropic.AsyncAnthropic(base_url=self.url, api_key="sk-client", **{"max_retries": 0, **options})
        self.clients.append(client)
        return client

    def records(self) -> list[dict[str, Any]]:
        """O-audit: every line parses and the chain holds."""
        lines = self.log.read_text().splitlines()
        assert verify(self.log) == len(lines)
        return [json.loads(line) for line in lines]

    def record(self) -> dict[str, Any]:
        rows = self.records()
        assert len(rows) == 1, rows
        assert self.canary not in self.log.read_text()
        return rows[0]


@pytest.fixture
def canary() -> str:
    return "zq" + secrets.token_hex(6)


@pytest.fixture
def story(tmp_path: Path, canary: str) -> Callable[..., Any]:
    """`async with story(action="block", guard=..., **stream settings) as s:`"""

    @contextlib.asynccontextmanager
    async def run(*scripts: list[Any], action: str = "block", guard: ScriptedGuard | None = None,
                  limited: dict[str, Any] | None = None, stream: dict[str, Any] | None = None,
                  limits: dict[str, Any] | None = None, server: dict[str, Any] | None = None,
                  upstream: dict[str, Any] | None = None, under: str = "",
                  policy: str = "", around: Callable[[Guard], Guard] | None = None,
                  ) -> AsyncIterator[Story]:
        folder = tmp_path / "policies"
        folder.mkdir(exist_ok=True)
        (folder / "canary.md").write_text(policy or POLICY.format(action=action))
        scripted = guard or ScriptedGuard({canary: "canary/1"}, record=True)
        log = tmp_path / "records.jsonl"
        base = Config()
        async with Upstream(list(scripts)) as mu:
            config = replace(
                base, server=replace(base.server, listen="127.0.0.1:0", admin="127.0.0.1:0", drain_wait=0.0,
                                     **(server or {})),
                upstream=replace(base.upstream, **{"url": mu.url + under, **(upstream or {})}),
                policies=replace(base.policies, folder=str(folder), reload=0.05),
                stream=replace(base.stream, **(stream or {})), limits=replace(base.limits, **(limits or {})),
                records=replace(base.records, file=str(log)))
            wrapped: Guard = Limits(around(scripted) if around else scripted, **{"memory": 0, **(limited or {})})
            async with Firewall(config, wrapped) as firewall:
                told = Story(firewall, mu, scripted, canary, log)
                try:
                    yield told
                finally:
                    for client in told.clients:
                        await client.close()

    return run
