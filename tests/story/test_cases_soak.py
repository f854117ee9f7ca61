"""The long ones: fifty kills, a soak that must add up, overload, and hostile bodies beside a watched event loop (`slow`)."""

from __future__ import annotations

import asyncio
import contextlib
import random
import re
import statistics
import time

import aiohttp
import pytest

from firewall.errors import FirewallError
from firewall.proxy.http1.chunked import Chunked
from firewall.wire.body import BodyLimits, document
from tests.story.oracles import CHAT, Line, asks, post, raw, status
from tests.story.test_cases_limits import STREAM, running, send
from tests.story.upstream import CLOSE, END, HEAD, Upstream, chat, chat_events, chunk, stream, whole

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


class Keep:
    """A keep-alive connection to a port."""

    def __init__(self, port: int) -> None:
        self.port, self.line = port, Line.__new__(Line)

    async def __aenter__(self) -> Line:
        self.line.port = self.port
        return await self.line.__aenter__()

    async def __aexit__(self, *_: object) -> None:
        await self.line.__aexit__()


async def test_l05_fifty_kills_at_random_moments(tmp_path):
    """A restart serves within 3 s where a core is free (6 s here: the machine is shared), and one chain holds over all
    of them; what a client was told was passed is on record, but for the exchanges the kill caught in the act."""
    rng, told, in_the_act, halves = random.Random(5), 0, 0, 0
    starts: list[float] = []
    async with Upstream([[whole(chat("x"))]]) as mu:
        for _ in range(50):
            with running(tmp_path, mu.url) as process:
                starts.append(process.started)

                async def load(port: int = process.port) -> None:
                    nonlocal told
                    with contextlib.suppress(Exception):
                        async with Keep(port) as line:
                            while True:
                                assert (await line.ask(asks()))[0] == 200
                                told += 1
                tasks = [asyncio.create_task(load()) for _ in range(4)]
                await asyncio.sleep(rng.uniform(0.01, 0.4))
                process.popen.kill()
                await asyncio.gather(*tasks)
                in_the_act += len(tasks)
            if rng.random() < 0.3:
                halves += 1
                process.half_a_line()
        with running(tmp_path, mu.url) as process:
            assert status(await send(process.port, post(asks()))) == 200
            await asyncio.sleep(0.1)
            rows = process.rows()
    passed = sum(r["event"] == "exchange" and r["ending"] == "passed" for r in rows)
    assert sum(r["event"] == "records_recovered" for r in rows) == halves > 5
    assert told + 1 - in_the_act <= passed <= told + 1 + in_the_act and told > 200
    print(f"starts: median {statistics.median(starts):.2f} s, worst {max(starts):.2f} s; {told} told, {passed} kept")
    assert statistics.median(starts) < 6.0


async def test_n24_a_soak_adds_up(story, canary):
    """Thirty seconds of everything at once: requests = records = the metric's sum = the upstream's + our own answers."""
    scripts = [[whole(chat("x"))], stream(chat_events("a", "b")), stream(chat_events("a", canary, "b")),
               [whole(chat(canary))], [HEAD, *map(chunk, chat_events("a")[:2]), CLOSE], [whole({"error": "x"}, 500)],
               [HEAD, *map(chunk, chat_events("a")[:2]), 0.05, *map(chunk, chat_events("a")[2:]), END]]
    rng, sent, until = random.Random(24), 0, time.monotonic() + 30

    async def counted(s) -> float:
        async with aiohttp.ClientSession() as http, http.get(f"http://127.0.0.1:{s.firewall.admin_port}/metrics") as r:
            page = await r.text()
        return sum(float(x) for x in re.findall(r"(?m)^firewall_exchanges_total\{.*\} (\S+)$", page))

    async with story(*[scripts[rng.randrange(len(scripts))] for _ in range(100_000)]) as s:
        before = await counted(s)

        async def user() -> None:
            nonlocal sent
            while time.monotonic() < until:
                sent += 1
                what = rng.random()
                if what < 0.15:
                    await raw(s, post(asks(canary)))
                elif what < 0.25:
                    await raw(s, post(b'{"messages":'))
                elif what < 0.3:
                    await raw(s, post(asks(), "/v1/nothing"))
                elif what < 0.4:            # a client that leaves somewhere in its exchange
                    reader, writer = await asyncio.open_connection("127.0.0.1", s.firewall.server.port)
                    writer.write(post(STREAM))
                    await writer.drain()
                    await asyncio.sleep(rng.random() * 0.02)
                    writer.transport.abort()
                else:
                    await raw(s, post(STREAM if what < 0.7 else asks()))
        await asyncio.gather(*(user() for _ in range(12)))
        for _ in range(100):
            if not s.firewall.app.in_flight and not s.firewall.server.connections:
                break
            await asyncio.sleep(0.05)
        rows = s.records()
        assert len({r["id"] for r in rows}) == len(rows) == await counted(s) - before
        # a client that was reset before its request was read asked nothing; every other request has one record
        assert 0 <= sent - len(rows) <= sent * 0.1 and len(rows) > 1000
        ours = sum(not r["upstream_status"] for r in rows)
        went = len(rows) - ours
        assert went <= len(s.upstream.seen) <= went + sum(r["ending"] in ("gone", "failed") for r in rows)
        assert {r["ending"] for r in rows} == {"passed", "blocked", "refused", "failed", "gone"}
        assert not any(r["ending"] == "unfinished" for r in rows)


async def goodput(port: int, clients: int, seconds: float) -> tuple[float, list[float]]:
    """(answers 200 a second, latencies of refusals): each client asks again at once, after a refusal a little later."""
    served, refused, until = 0, [], time.perf_counter() + seconds

    async def client() -> None:
        nonlocal served
        while time.perf_counter() < until:
            began = time.perf_counter()
            answer = await send(port, post(asks()))
            if status(answer) == 200:
                served += 1
            else:
                refused.append(time.perf_counter() - began)
                assert status(answer) == 503 and b"retry-after: 1\r\n" in answer
                await asyncio.sleep(0.1)
    await asyncio.gather(*(client() for _ in range(clients)))
    return served / seconds, refused


async def test_k13_goodput_at_five_times_the_capacity(tmp_path):
    """Eight slots of 100 ms. Forty clients instead of eight: at least 80 % of the peak, refusals within 50 ms."""
    async with Upstream([[0.1, whole(chat("x"))]]) as mu:
        with running(tmp_path, mu.url, "[limits]\nin-flight=8\n") as process:
            await goodput(process.port, 8, 0.5)
            for last in (False, False, True):       # clients, upstream and firewall share a core, with others too
                peak, none = await goodput(process.port, 8, 3)
                crowd, refused = await goodput(process.port, 40, 3)
                assert not none and len(refused) > 50
                refused.sort()
                half, most = refused[len(refused) // 2], refused[int(len(refused) * 0.99)]
                print(f"peak {peak:.0f}/s, at 5x {crowd:.0f}/s, {len(refused)} refusals in {half:.3f} s, {most:.3f} s")
                if crowd >= 0.8 * peak and half < 0.05 and most < 0.25:
                    return
                assert not last


NODES = b'{"a":[' + b"[]," * 2_000_000 + b"[]]}"
CHUNKS = b"1\r\n[\r\n" * 60_000 + b"0\r\n\r\n"


async def test_k15_the_loop_under_hostile_bodies(tmp_path):
    """C22, H14, tiny chunks and depth, all at once, beside probes that need nothing but the loop. Client, upstream and
    firewall share a core here, so the bound is loose; the firewall's own share is measured below."""
    wide, deep = post(asks("\ufdfa" * 350_000)), post(b"[" * 100_000)
    chunked = b"POST %b HTTP/1.1\r\nHost: a\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n" \
              b"Connection: close\r\n\r\n" % CHAT.encode() + CHUNKS
    async with Upstream([[whole(chat("x"))]]) as mu:
        with running(tmp_path, mu.url) as process:
            lags: list[float] = []

            async def noise(data: bytes) -> None:
                while len(lags) < 300:
                    with contextlib.suppress(OSError):
                        await send(process.port, data, 60)
                    await asyncio.sleep(0.05)
            crowd = [asyncio.create_task(noise(data)) for data in (post(NODES), wide, chunked, deep)]
            async with Keep(process.port) as line:
                while len(lags) < 300:
                    began = time.perf_counter()
                    line.writer.write(post(b"[]", close=False))
                    assert (await line.answer())[0] == 400
                    lags.append(time.perf_counter() - began)
                    await asyncio.sleep(0.005)
            await asyncio.gather(*crowd)
    lags.sort()
    print(f"loop lag: p50 {lags[150] * 1e3:.0f} ms, p99 {lags[297] * 1e3:.0f} ms, worst {lags[-1] * 1e3:.0f} ms")
    assert lags[297] < 0.5


@pytest.mark.parametrize("body", [
    NODES, b'{"a":[' + b"{}," * 2_000_000 + b"{}]}", b"[" * 100_000, b'{"a":"' + b"\\u0041" * 2_000_000 + b'"}',
    b'{' + b",".join(b'"%d":1' % i for i in range(150_000)) + b"}"],
    ids=["arrays", "objects", "depth", "escapes", "keys"])
def test_k15_no_hostile_body_holds_the_loop(body):
    """Processor time of the one call that runs without a break, R16: at most 100 ms."""
    best = 1.0
    for _ in range(3):
        began = time.process_time()
        with contextlib.suppress(FirewallError):
            document(body, None, BodyLimits())
        best = min(best, time.process_time() - began)
    assert best < 0.1


def test_k15_no_segment_of_tiny_chunks_holds_the_loop():
    best = 1.0
    for _ in range(3):
        began = time.process_time()
        with contextlib.suppress(FirewallError):
            Chunked(1 << 24).feed(CHUNKS[:262_144])
        best = min(best, time.process_time() - began)
    assert best < 0.1
