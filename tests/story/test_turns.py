"""What happens within one turn of the event loop: exchanges that need no task still get their record, their clock and their
turn, each (docs/decisions/0008)."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.http1.reply import Reply
from firewall.proxy.phases import App
from firewall.proxy.relay import Relay
from firewall.verdict import Verdict
from tests.story.oracles import asks, audited, post, raw, settled, status
from tests.story.upstream import chat, whole


class Slow(ScriptedGuard):
    """Knows at once, and takes its time for that."""

    def known(self, case: Any) -> Verdict | None:
        time.sleep(0.003)
        return super().known(case)


async def test_who_cannot_be_told_is_recorded(story, monkeypatch):
    def broken(*_: Any) -> None:
        raise OSError("not connected")
    async with story() as s:
        monkeypatch.setattr(Reply, "answer", broken)
        await raw(s, post(b"{"))
        monkeypatch.undo()
        await settled(s, 1)
        audited(s, "refused")
        assert not s.firewall.app.in_flight


async def test_an_answer_that_is_not_taken_when_time_is_up_is_recorded(story, monkeypatch):
    over, finish = asyncio.Event(), Relay.finish
    async with story([whole(chat("hello " * 1_500_000))]) as s:
        async def stop() -> None:
            await over.wait()
            await s.firewall.app.stop()
        stopping = asyncio.create_task(stop())

        def finished(self: Relay, *how: Any) -> None:
            over.set()              # time is up in the turn in which the answer has been written
            finish(self, *how)
        monkeypatch.setattr(Relay, "finish", finished)
        _, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port, limit=1024)
        writer.write(post(asks(), close=False))
        await stopping
        await settled(s, 1)
        audited(s, "gone")
        assert not s.firewall.app.in_flight
        writer.transport.abort()


async def test_one_clock_ticks_however_many_answers_it_ends(story, monkeypatch):
    sweep, ticks = App._sweep, []
    monkeypatch.setattr(App, "_sweep", lambda self: (ticks.append(1), sweep(self)))
    silent = [b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{", 30.0]
    async with story(*[silent] * 40, stream={"content_idle": 0.2}) as s:
        _, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(asks(), close=False) * 40)
        await settled(s, 5, 5.0)
        ticks.clear()
        await asyncio.sleep(0.5)
        assert 2 <= len(ticks) <= 10           # one each 0.05 s
        writer.close()


async def test_a_pipeline_leaves_turns_to_others(story, canary):
    async with story(guard=Slow({canary: "canary/1"})) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(asks(canary), close=False) * 100)
        longest = 0.0
        for _ in range(200):
            began = time.process_time()
            await asyncio.sleep(0)
            longest = max(longest, time.process_time() - began)
        assert longest < 0.05                   # of 0.3 s
        writer.close()


async def test_a_pipelined_request_is_not_timed_by_those_behind_it(story, canary):
    async with story(guard=Slow({canary: "canary/1"}, delay=0.01)) as s:
        first, rest = asks(canary), post(asks(canary + canary), close=False) * 5
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(first, close=False) + rest)
        await settled(s, 6)
        rows = audited(s, *["blocked"] * 6)
        assert [row["time"] for row in rows] == sorted(row["time"] for row in rows)
        writer.close()


@pytest.mark.parametrize("path", ["/v1/models/m-1", "/v1beta/models/m-1"])
async def test_a_refused_list_names_its_model(story, path):
    async with story() as s:
        got = await raw(s, post(b"{}", path, method="GET"))
        assert status(got) == 400
        (row,) = audited(s, "refused")
        assert row["model"] == "m-1"
