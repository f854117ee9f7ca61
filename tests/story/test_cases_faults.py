"""Faults that come from outside: resets inside a body, log rotation, restarts under load."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import struct

import pytest

from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.records import follow, verify
from tests.story.oracles import CHAT, asks, audited, body_of, clean, post, raw, settled, status, untouched
from tests.story.test_cases_limits import running, send
from tests.story.upstream import END, HEAD, Upstream, chat, chat_events, chunk, whole


@pytest.mark.parametrize("sent", [0, 1, 20, -1])
@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("how", ["reset", "closed"])
async def test_n01_a_client_that_resets_inside_its_body_leaves_one_record(story, how, chunked, sent):
    body = json.dumps(asks("half of it")).encode()
    head, _, rest = post(body).partition(b"\r\n\r\n")
    if chunked:
        head = head.replace(b"Content-Length: %d" % len(body), b"Transfer-Encoding: chunked")
        rest = b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body)
    async with story([whole(chat("x"))]) as s, clean(s):
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(head + b"\r\n\r\n" + rest[:sent])
        await writer.drain()
        await asyncio.sleep(0.03)
        if how == "reset":
            sock = writer.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        writer.transport.abort()
        await settled(s, 1)
        await asyncio.sleep(0.05)
        row, = audited(s, "refused")
        assert row["code"] == "body_incomplete" and row["route"] == f"POST {CHAT}" and untouched(s)
        assert s.firewall.server.held == 0 and s.firewall.server.connections == 0


async def test_n13_logrotate_under_load_loses_nothing(tmp_path):
    """Moved away and SIGHUP, again and again, by a real process under load: each file verifies, names the one before,
    and together they hold every exchange once."""
    async with Upstream([[whole(chat("x"))]]) as mu:
        with running(tmp_path, mu.url) as process:
            served, stop = 0, False

            async def load() -> None:
                nonlocal served
                while not stop:
                    assert status(await send(process.port, post(asks()))) == 200
                    served += 1
            tasks = [asyncio.create_task(load()) for _ in range(4)]
            kept = []
            for number in range(5):
                await asyncio.sleep(0.15)
                kept.append(tmp_path / f"records.jsonl.{number}")
                os.rename(process.log, kept[-1])
                if number % 2:
                    process.log.touch()
                process.popen.send_signal(signal.SIGHUP)
                while b"records_begun" not in (process.log.read_bytes() if process.log.exists() else b""):
                    await asyncio.sleep(0.01)
            stop = True
            await asyncio.gather(*tasks)
            process.popen.send_signal(signal.SIGTERM)
            assert await process.wait() == 0
        rows = []
        for path in (*kept, process.log):
            verify(path)
            rows += [json.loads(line) for line in path.read_text().splitlines()]
        for before, after in zip(kept, (*kept[1:], process.log), strict=True):
            assert follow(after).after == follow(before).last
        ids = [r["id"] for r in rows if r["event"] == "exchange"]
        assert len(ids) == len(set(ids)) == served > 20
        assert [r["event"] for r in rows].count("records_ended") == 5


@pytest.mark.parametrize("path", [CHAT, "/v1/messages", "/api/chat"])
async def test_r13_short_of_memory_new_requests_are_refused_unread(story, path):
    """503 at once, in the dialect's shape, with Retry-After, before a byte of the body; what is in flight goes on."""
    go = asyncio.Event()
    events = chat_events("a", "b")
    async with story([HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END], [whole(chat("x"))]) as s, clean(s):
        used = 0.5
        s.firewall.pressure.limit, s.firewall.pressure.measure = 1000, lambda: int(used * 1000)
        streaming = asyncio.create_task(raw(s, post(asks(stream=True))))
        while not s.upstream.seen:
            await asyncio.sleep(0.01)
        used = 0.93
        s.firewall.pressure.look()
        assert not s.firewall.server.keep_alive and not s.firewall.server.shedding
        used = 0.96
        s.firewall.pressure.look()
        head = post(asks(), path).replace(b"Content-Length: ", b"Content-Length: 1")     # a body that never comes
        began = asyncio.get_running_loop().time()
        got = await raw(s, head[:head.index(b"\r\n\r\n") + 4])
        assert asyncio.get_running_loop().time() - began < 5 and status(got) == 503 and b"retry-after: 1" in got.lower()
        body = json.loads(body_of(got))
        assert body["error"] if path == "/api/chat" else body["error"]["message"] == "The firewall is short of memory."
        go.set()
        assert b"[DONE]" in await streaming
        used = 0.93                                             # not yet: it would only swing
        s.firewall.pressure.look()
        assert s.firewall.server.shedding
        await asyncio.sleep(0.3)
        assert s.firewall.house.ready() == "short of memory: new requests are refused"
        used = 0.5
        s.firewall.pressure.look()
        assert s.firewall.server.keep_alive and status(await raw(s, post(asks()))) == 200
        assert {r["code"] for r in audited(s, "passed", "refused", "passed") if r["ending"] == "refused"} == {"overloaded"}


async def test_r13_a_real_process_sheds(tmp_path):
    """Its own memory against a limit it is over from the start; it still drains."""
    async with Upstream([[whole(chat("x"))]]) as mu:
        with running(tmp_path, mu.url, "[limits]\nmemory=40000000\n") as process:
            for _ in range(100):
                got = await send(process.port, post(asks()))
                if status(got) == 503:
                    break
                await asyncio.sleep(0.05)
            assert status(got) == 503 and b"overloaded" in got and b"connection: close" in got.lower()
            before = len(mu.seen)
            assert status(await send(process.port, post(asks()))) == 503 and len(mu.seen) == before
            process.popen.send_signal(signal.SIGTERM)
            assert await process.wait() == 0


@pytest.mark.parametrize(("policy", "more"), [
    ("---\non-guard-error: open\n---\n- a rule\n", {}), ("- a rule\n", {"stream": {"release": "watch"}})])
async def test_a_guard_that_may_fail_takes_nobody_out_of_service(story, policy, more):
    """Requests pass without it, so a load balancer has to go on sending them; /readyz says what is broken."""
    import aiohttp
    async with story([whole(chat("x"))], guard=ScriptedGuard(mode="dead"), policy=policy, **more) as s:
        assert status(await raw(s, post(asks()))) == 200
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{s.firewall.admin_port}/readyz") as r:
            body = await r.json()
            assert r.status == 200 and body["ready"] and body["reason"] is None and "dead" in body["guard"]["fault"]
        (s.firewall.house.source.folder / "strict.md").write_text("---\nrelease: rolling\n---\n- a rule\n")
        s.firewall.house.source.refresh(force=True)
        assert "dead" in s.firewall.house.ready()
