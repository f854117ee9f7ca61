"""K and L over sockets: exhaustion, life cycle, faults; real processes where signals and limits are real."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import gzip
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from firewall.guards.scripted import ScriptedGuard
from firewall.proxy.http1.request import Request
from firewall.proxy.records import verify
from tests.story.oracles import CHAT, MESSAGES, Line, asks, audited, body_of, clean, post, raw, settled, status
from tests.story.upstream import CLOSE, END, HEAD, Upstream, chat, chat_events, chunk, message_events, stream, whole

STREAM = asks(stream=True)


class Process:
    """A real `python -m firewall` with a scripted guard."""

    def __init__(self, folder: Path, upstream: str, more: str = "", limit: str = "") -> None:
        self.folder, self.log = folder, folder / "records.jsonl"
        self.port = free_port()
        (folder / "p").mkdir(exist_ok=True)
        (folder / "p" / "a.md").write_text("- a rule\n")
        (folder / "firewall.toml").write_text(
            f'[server]\nlisten="127.0.0.1:{self.port}"\nadmin="127.0.0.1:0"\ndrain-wait=0.05\ndrain-timeout=20.0\n'
            f'[upstream]\nurl="{upstream}"\n[policies]\nfolder="p"\n[guard]\nkind="scripted"\n'
            f'[records]\nfile="{self.log}"\n{more}')
        command = [sys.executable, "-m", "firewall", "--config", str(folder / "firewall.toml")]
        if limit:
            command = ["bash", "-c", f"ulimit -n {limit}; exec \"$@\"", "bash", *command]
        self.began = time.monotonic()
        self.popen = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True,
                                      env={**os.environ, "PYTHONPATH": os.getcwd()})
        assert self.popen.stderr is not None
        line = self.popen.stderr.readline()
        assert '"serving"' in line, line + self.popen.stderr.read()
        self.started = time.monotonic() - self.began

    async def wait(self, timeout: float = 30) -> int:
        return await asyncio.get_running_loop().run_in_executor(None, self.popen.wait, timeout)

    def half_a_line(self) -> None:
        """What a crash of the machine may leave at the end of the records."""
        with self.log.open("ab") as f:
            f.write(b'{"event":"exchange","id":"req_half')

    def rows(self) -> list[dict]:
        verify(self.log)
        return [json.loads(line) for line in self.log.read_text().splitlines()]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def running(*args: object, **more: object) -> Iterator[Process]:
    process = Process(*args, **more)        # type: ignore[arg-type]
    try:
        yield process
    finally:
        if process.popen.poll() is None:
            process.popen.kill()
        process.popen.wait(10)
        process.popen.stderr.close()        # type: ignore[union-attr]


async def send(port: int, data: bytes, timeout: float = 30) -> bytes:
    return await raw(None, data, timeout, port)


# C. bodies, as they travel

async def test_c01_c12_what_travels_is_what_was_judged(story, canary):
    """A gzip body is decoded, judged and sent decoded: no second parser gets to decode it differently."""
    async with story([whole(chat("x"))]) as s, Line(s) as line:
        data = json.dumps(asks("good words")).encode()
        code, _ = await line.ask(gzip.compress(data), extra="Content-Encoding: gzip\r\n")
        assert code == 200 and s.upstream.seen[0].body == data
        assert b"content-encoding" not in s.upstream.seen[0].head.lower()
        for odd in (gzip.compress(data) + b"junk", gzip.compress(data)[:-4], gzip.compress(data) * 2, data):
            code, answer = await line.ask(odd, extra="Content-Encoding: gzip\r\n")
            assert code == 400 and b"good words" not in answer
        code, _ = await line.ask(gzip.compress(json.dumps(asks(canary)).encode()), extra="Content-Encoding: gzip\r\n")
        assert code == 400 and len(s.upstream.seen) == 1
        audited(s, "passed", *["refused"] * 4, "blocked")


async def test_c05_a_bomb_at_a_request_refused_for_its_key(story, monkeypatch):
    """401 before a byte of it is decoded."""
    monkeypatch.setenv("TEAM_KEY", "team-key-4711")
    bomb = gzip.compress(bytes(50_000_000), 9)
    async with story([whole(chat("x"))], server={"client_keys": ("TEAM_KEY",)}) as s:
        began = time.process_time()
        assert status(await raw(s, post(bomb, extra="Content-Encoding: gzip\r\n"))) == 401
        assert time.process_time() - began < 0.5


# K. exhaustion

async def test_k05_a_client_that_stops_reading_holds_little(story):
    """The upstream is paused, and what is held for one stream stays under its bounds."""
    piece = "x" * 20_000
    async with story(stream(chat_events(*[piece] * 900))) as s:        # 18 MB: more than kernel buffers take
        sock = socket.socket()
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        sock.setblocking(False)
        await asyncio.get_running_loop().sock_connect(sock, ("127.0.0.1", s.firewall.server.port))
        reader, writer = await asyncio.open_connection(sock=sock, limit=4096)
        writer.write(post(STREAM))
        relay = None
        for _ in range(200):
            await asyncio.sleep(0.05)
            relay = next(iter(s.firewall.app.relays), relay)
            if relay is not None and relay.paused:
                break
        assert relay is not None and relay.paused and relay.gate.held <= 327_680
        before = relay.exchange.bytes_out
        await asyncio.sleep(0.2)
        assert relay.exchange.bytes_out - before <= 1_048_576       # paused is paused
        writer.transport.abort()
        await settled(s, 1)
        audited(s, "gone")
        assert not s.firewall.app.relays


async def test_a_long_prompt_is_held_once_while_its_answer_streams(story):
    """As the words that are judged beside the answer; the bytes that were sent are let go when upstream answers."""
    words = "a long prompt of its own, " * 40_000
    async with story([HEAD, *map(chunk, chat_events("one ", "two")[:3]), 30.0]) as s:
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(asks(words, stream=True)))
        await reader.readuntil(b"one ")
        [relay] = s.firewall.app.relays
        [request] = [o for o in gc.get_objects() if isinstance(o, Request) and o.matched is not None]
        assert request.body == b"" and relay.call is not None and relay.call.pieces == ()
        writer.transport.abort()
        await settled(s, 1)
        audited(s, "gone")


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
@pytest.mark.parametrize("moment", ["no head yet", "held by the guard", "mid-stream"])
async def test_k07_the_upstream_is_closed_when_the_client_leaves(story, path, moment):
    """Within a second at whatever moment; guard and tasks end as well."""
    events = chat_events("one ", "two") if path == CHAT else message_events("one ", "two")
    script = [30.0] if moment == "no head yet" else [HEAD, *map(chunk, events[:3]), 30.0]
    guard = ScriptedGuard({"never": "canary/1"}, record=True)
    async with story(script, guard=guard, limited={"deadline": 20.0}) as s, clean(s):
        reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
        writer.write(post(STREAM, path))
        if moment == "held by the guard":
            while not guard.asked:
                await asyncio.sleep(0.001)
            guard.mode = "hang"
        while not s.upstream.seen:
            await asyncio.sleep(0.01)
        if moment == "mid-stream":
            await reader.readuntil(b"one ")
        else:
            await asyncio.sleep(0.1)
        left = asyncio.get_running_loop().time()
        writer.close()
        while not s.upstream.seen[0].closed_at and asyncio.get_running_loop().time() - left < 3:
            await asyncio.sleep(0.01)
        assert 0 < s.upstream.seen[0].closed_at - left < 1.0
        await settled(s, 1)
        audited(s, "gone")


async def test_k09_a_stream_longer_than_every_other_timeout(story):
    """Only content-idle and total may cut a stream that speaks: the other clocks are shorter here and do not."""
    limits = {"first_byte": 0.3, "head": 0.3, "idle": 0.3, "body_time": 0.3}
    async with story(stream(chat_events(*["w "] * 20), 0.06), limits=limits, stream={"content_idle": 0.6}) as s:
        got = await raw(s, post(STREAM))
        assert b"[DONE]" in got
        audited(s, "passed")


async def test_k09_total_ends_it_legally(story):
    async with story([HEAD, *[x for e in chat_events(*["w "] * 200) for x in (chunk(e), 0.02)]],
                     stream={"total": 0.5}) as s:
        got = await raw(s, post(STREAM))
        assert b'"error"' in got and got.endswith(b"0\r\n\r\n")
        assert audited(s, "failed")[0]["code"] == "upstream_timeout"


async def test_k11_few_file_descriptors(tmp_path):
    """RLIMIT_NOFILE=256 and 400 connects: live streams live, records are written, and it recovers."""
    async with Upstream([stream(chat_events(*"abcdefghij"), 0.15)]) as mu:
        with running(tmp_path, mu.url, limit="256") as process:
            live = [asyncio.create_task(send(process.port, post(STREAM))) for _ in range(4)]
            await asyncio.sleep(0.3)
            crowd = []
            for _ in range(400):
                with contextlib.suppress(OSError):
                    crowd.append(await asyncio.wait_for(asyncio.open_connection("127.0.0.1", process.port), 2))
            for answer in await asyncio.gather(*live):
                assert b"[DONE]" in answer
            for _, writer in crowd:
                writer.close()
            answer = b""
            for _ in range(100):
                await asyncio.sleep(0.05)
                with contextlib.suppress(OSError, asyncio.IncompleteReadError):
                    answer = await send(process.port, post(STREAM))
                    if b"[DONE]" in answer:
                        break
            assert b"[DONE]" in answer
            await asyncio.sleep(0.3)            # a record is written just after its answer
            assert [r["ending"] for r in process.rows()].count("passed") == 5


async def test_k13_overload_is_refused_at_once_and_the_rest_is_served(story):
    """More requests than slots: every answer is 200 or 503 with Retry-After; the served ones are all served."""
    async with story([whole(chat("x"))], limits={"in_flight": 8}, guard=ScriptedGuard(delay=0.1)) as s:
        answers = await asyncio.gather(*(raw(s, post(asks())) for _ in range(60)))
        codes = [status(a) for a in answers]
        assert set(codes) == {200, 503} and codes.count(200) >= 8
        assert all(b"retry-after" in a.lower() for a in answers if status(a) == 503)
        assert len(s.records()) == 60
        assert status(await raw(s, post(asks()))) == 200


async def test_k15_hostile_bodies_do_not_starve_others(story):
    """C22 and pipelined junk beside healthy requests: the healthy ones are answered meanwhile."""
    async with story([whole(chat("x"))]) as s:
        bad = post(b'{"a":[' + b"[]," * 500_000 + b"[]]}")
        noise = [asyncio.create_task(raw(s, bad, 60)) for _ in range(6)]
        slowest = 0.0
        async with Line(s) as line:
            for _ in range(20):
                began = time.perf_counter()
                assert (await line.ask(asks()))[0] == 200
                slowest = max(slowest, time.perf_counter() - began)
        assert all(status(a) in (400, 413) for a in await asyncio.gather(*noise)) and slowest < 5


# L. life cycle

async def test_l01_sigterm_with_two_hundred_streams(tmp_path):
    """All complete inside the deadline, exit 0, 200 records, the chain holds."""
    go = asyncio.Event()
    events = chat_events("a", "b")
    async with Upstream([[HEAD, *map(chunk, events[:2]), go, *map(chunk, events[2:]), END]]) as mu:
        with running(tmp_path, mu.url) as process:
            tasks = [asyncio.create_task(send(process.port, post(STREAM), 60)) for _ in range(200)]
            while len(mu.seen) < 200:
                early = [task.result() for task in tasks if task.done()]
                assert not early, f"answered before any was let go: {early[0][:400]!r}"
                await asyncio.sleep(0.05)
            process.popen.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            with pytest.raises(OSError):
                await asyncio.open_connection("127.0.0.1", process.port)
            go.set()
            assert all(b"[DONE]" in a for a in await asyncio.gather(*tasks))
            assert await process.wait() == 0
            rows = process.rows()
            assert [r["ending"] for r in rows] == ["passed"] * 200


async def test_l03_a_second_sigterm_exits_at_once(tmp_path):
    async with Upstream([[HEAD, *map(chunk, chat_events("a")[:2]), 60.0]]) as mu:
        with running(tmp_path, mu.url) as process:
            tasks = [asyncio.create_task(send(process.port, post(STREAM), 60)) for _ in range(5)]
            while len(mu.seen) < 5:
                await asyncio.sleep(0.05)
            process.popen.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.3)
            assert process.popen.poll() is None
            began = time.monotonic()
            process.popen.send_signal(signal.SIGTERM)
            assert await process.wait() == 1 and time.monotonic() - began < 5
            await asyncio.gather(*tasks, return_exceptions=True)
            verify(process.log)


async def test_l05_kill_9_under_load(tmp_path):
    """Killed again and again in mid-write: it starts again on the same file and the chain verifies."""
    async with Upstream([[whole(chat("x"))]]) as mu:
        for round_ in range(4):
            with running(tmp_path, mu.url) as process:
                async def load(port: int = process.port) -> None:
                    with contextlib.suppress(Exception):
                        while True:
                            await send(port, post(asks()))
                tasks = [asyncio.create_task(load()) for _ in range(6)]
                await asyncio.sleep(0.25 + 0.13 * round_)
                process.popen.kill()
                await asyncio.gather(*tasks)
            if round_ % 2:
                process.half_a_line()
        with running(tmp_path, mu.url) as process:
            assert status(await send(process.port, post(asks()))) == 200
            await asyncio.sleep(0.1)
            rows = process.rows()
        assert any(r["event"] == "records_recovered" and r["bytes"] == 34 for r in rows)
        assert sum(r["event"] == "exchange" for r in rows) > 5


async def test_l07_the_upstream_dies_mid_stream(story):
    """A legal error ending, and no second try after the first byte."""
    async with story([HEAD, *map(chunk, chat_events("a")[:2]), CLOSE]) as s:
        got = await raw(s, post(STREAM))
        assert b'"error"' in got and got.endswith(b"0\r\n\r\n") and len(s.upstream.seen) == 1
        assert audited(s, "failed")[0]["fault"] == "upstream"


async def test_l11_guard_and_upstream_down(story):
    """Fast 503, not ready, alive."""
    import aiohttp
    async with story([whole(chat("x"))], guard=ScriptedGuard(mode="dead"), upstream={"url": "http://127.0.0.1:1"}) as s:
        began = time.perf_counter()
        assert status(await raw(s, post(asks()))) == 503 and time.perf_counter() - began < 2
        admin = f"http://127.0.0.1:{s.firewall.admin_port}"
        async with aiohttp.ClientSession() as http:
            async with http.get(f"{admin}/readyz") as r:
                assert r.status == 503 and "dead" in (await r.json())["reason"]
            async with http.get(f"{admin}/livez") as r:
                assert r.status == 200
        assert len(s.records()) == 1                # L19: the admin plane is not recorded


async def test_l13_records_that_could_not_be_written_are_owed(story):
    """A full disk: new requests are refused; afterwards every record is there, and the chain holds."""
    class Full:
        def __init__(self, real):
            self.real, self.room = real, 300
        def write(self, line: bytes) -> int:
            take = line[:self.room]             # a full disk takes the beginning
            self.room -= len(take)
            return self.real.write(take) if take else 0
        def __getattr__(self, name):
            return getattr(self.real, name)
    async with story([whole(chat("x"))]) as s:
        records = s.firewall.house.records
        assert status(await raw(s, post(asks()))) == 200
        good, records.file = records.file, Full(records.file)
        assert status(await raw(s, post(asks()))) == 200                # noticed while writing its record
        for _ in range(3):
            got = await raw(s, post(asks()))
            assert status(got) == 503 and b"audit_unavailable" in got and b"retry-after" in got.lower()
        assert len(s.upstream.seen) == 2 and s.firewall.house.ready()
        records.file = good
        assert status(await raw(s, post(asks()))) == 200 and not s.firewall.house.ready()
        audited(s, "passed", "passed", "passed", "failed", "failed", "failed")


async def test_l13_a_disk_with_room_again_is_found_without_a_request(story):
    """A firewall that is not ready gets no traffic from its load balancer, so it has to look for itself."""
    async with story([whole(chat("x"))]) as s:
        house = s.firewall.house
        with open("/dev/full", "wb", buffering=0) as full:
            good, house.records.file = house.records.file, full
            assert status(await raw(s, post(asks()))) == 200 and "records: " in house.ready()
            house.records.file = good
        async with asyncio.timeout(5):
            while house.ready():
                await asyncio.sleep(0.05)
        audited(s, "passed")


@pytest.mark.parametrize(("more", "says"), [
    ('[server]\ncertificate="no.pem"\nprivate-key="no.key"\n', "no.pem"), ('[guard]\nkind="embeded"\n', "embedded"),
    ('[limits]\nbody=-1\n', "negative"), ('[limit]\nx=1\n', "limits"), ('[upstream]\nurl="ftp://x"\n', "http"),
    ('[policies]\nfolder="nowhere"\n', "nowhere"), ('[upstream]\nkey="sk-123"\n', "env:"),
    ('[records]\nfile="/proc/nope/x"\n', "records.file")])
def test_l16_j01_j12_what_cannot_work_is_said_at_the_start(tmp_path, more, says):
    """Exit 2, the key named, no traceback, no secret."""
    (tmp_path / "f.toml").write_text(more)
    port = free_port()
    done = subprocess.run(
        [sys.executable, "-m", "firewall", "--config", str(tmp_path / "f.toml"), "--listen", f"127.0.0.1:{port}",
         "--admin", "127.0.0.1:0", *([] if "upstream" in more else ["--upstream", "http://127.0.0.1:1"]),
         *([] if "guard" in more else ["--guard", "scripted"])],
        capture_output=True, text=True, timeout=60, env={**os.environ, "PYTHONPATH": os.getcwd()})
    assert done.returncode == 2 and says in done.stderr and "Traceback" not in done.stderr, done.stderr
    assert "sk-123" not in done.stderr


async def test_stopping_in_the_middle_is_a_503_not_a_hole(story):
    """A firewall that is closed while it judges or streams answers legally and records each exchange once."""
    guard = ScriptedGuard({"x": "canary/1"})
    async with story([HEAD, *map(chunk, chat_events("a")[:2]), 30.0], guard=guard, limited={"deadline": 20.0}) as s:
        streaming = asyncio.create_task(raw(s, post(STREAM)))
        while not s.upstream.seen:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        guard.mode = "hang"
        judging = asyncio.create_task(raw(s, post(asks())))
        while s.firewall.app.in_flight < 2:
            await asyncio.sleep(0.01)
        await asyncio.sleep(0.05)
        await s.firewall.drain(0.0, 0.1)
        got = await judging
        assert status(got) == 503 and b"shutting_down" in got
        assert b'"error"' in body_of(await streaming)
        assert {r["code"] for r in audited(s, "failed", "failed")} == {"shutting_down"}
