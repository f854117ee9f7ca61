"""Gemini: a refused answer has the form that its verb answers in."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import aiohttp
import orjson
import pytest

from firewall.config import Config
from firewall.guards.limits import Limits
from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.serve import Firewall
from tests.story.upstream import Upstream, whole
from tests.wire.streams import ask

ROW = {"candidates": [{"content": {"role": "model", "parts": [{"text": "well"}]}, "finishReason": "STOP"}]}


@pytest.mark.parametrize("stream", [False, True])
def test_a_stream_without_events_is_an_array(stream: bool) -> None:
    wire, asked = ask("gemini")
    asked = replace(asked, stream=stream)
    bodies = [wire.withheld(asked, "no", "r"),
              wire.reader(asked, b"application/json").ending(None, "no")]
    for body in map(orjson.loads, bodies):
        row = body[0] if stream else body
        assert isinstance(body, list) == stream and row["candidates"][0]["finishReason"] == "SAFETY"
    event = wire.reader(asked, b"text/event-stream").ending(None, "no")
    assert event.startswith(b'data: {"candidates":')


@pytest.mark.parametrize("verb, form", [("generateContent", dict), ("streamGenerateContent", list)])
async def test_it_is_blocked_in_its_own_form(verb: str, form: type, tmp_path: Path) -> None:
    (tmp_path / "canary.md").write_text("---\nid: canary\naction: block\n---\n## Violates\n- `canary/1` Says it.\n")
    base = Config()
    async with Upstream([[whole([ROW] if form is list else ROW)]]) as upstream:
        config = replace(base, server=replace(base.server, listen="127.0.0.1:0", admin="127.0.0.1:0", drain_wait=0.0),
                        upstream=replace(base.upstream, url=upstream.url),
                        policies=replace(base.policies, folder=str(tmp_path)),
                        records=replace(base.records, file=str(tmp_path / "records.jsonl")))
        async with Firewall(config, Limits(ScriptedGuard({"well": "canary/1"}), memory=0)) as firewall:
            async with aiohttp.ClientSession() as session, session.post(
                    f"{firewall.url}/v1beta/models/g:{verb}", json={"contents": [{"parts": [{"text": "hi"}]}]}) as got:
                body = await got.json()
    assert got.status == 200 and isinstance(body, form)
    assert (body[0] if form is list else body)["candidates"][0]["finishReason"] == "SAFETY"
