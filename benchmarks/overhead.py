"""`speed`: what the firewall costs, in one interleaved run beside the field.

Every round visits every peer, so that a noisy minute hurts all alike; figures are medians over rounds. The process
under test has one core to itself, client and upstream share the other. CPU is what the process under test used
(nanoseconds of its threads), which holds on a busy machine too; latencies want a quiet one. "Added" is minus the direct
run of the same round.

    exchange      CPU us a whole exchange (1 kB prompt, 1 kB answer, 16 connections), added p50/p99 at one connection
    first token   added milliseconds to the first byte of a stream
    token         CPU us a streamed token at N streams x 20 tokens/s, share delivered, transit p50/p99, RSS of N streams
    long          CPU us an exchange with a 32 kB prompt
    gone          seconds until the upstream is closed after the client leaves
    workers       CPU a exchange with 1 and 2 workers, and how evenly the kernel spreads connections
"""

from __future__ import annotations

import asyncio
import os
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any

import psutil

from benchmarks import field
from benchmarks.flood import PROMPT, Streams, first_token, flood, streams, whole
from benchmarks.judged import Progress
from benchmarks.load import Connection, request
from benchmarks.score import percentiles
from benchmarks.system import Firewall, Process, cpu_of
from benchmarks.upstream import Upstream, chat_stream

NAMES = ("firewall", "aiohttp", "nginx", "envoy", "mitmproxy", "litellm", "nemo")
SLOW = ("litellm", "nemo")      # get fewer requests and streams


def cores() -> tuple[int, int]:
    """(core of the process under test, core of client and upstream)."""
    have = sorted(psutil.Process().cpu_affinity())
    return have[0], have[-1]


class Lab:
    """Pins this process, starts the upstream and the peers; `async with Lab(names) as lab`."""

    def __init__(self, names: Sequence[str], *, proxy_core: int | None = None, load_core: int | None = None) -> None:
        first, last = cores()
        self.proxy = first if proxy_core is None else proxy_core
        self.load = last if load_core is None else load_core
        self.names = list(names)

    async def __aenter__(self) -> Lab:
        self._before = os.sched_getaffinity(0)
        os.sched_setaffinity(0, {self.load})
        self.upstream = Process([sys.executable, "-m", "benchmarks.upstream", "--core", str(self.load)])
        self.port = int(self.upstream.wait_for("", 20))
        loop = asyncio.get_running_loop()
        self.running, self.skipped = await loop.run_in_executor(None, field.started, self.names, self.port, self.proxy)
        return self

    async def __aexit__(self, *_: object) -> None:
        for peer in self.running:
            peer.stop()
        self.upstream.stop()
        os.sched_setaffinity(0, self._before)

    def peer(self, name: str) -> field.Running | None:
        return next((p for p in self.running if p.name == name), None)


def median(values: Sequence[float]) -> float | None:
    return round(statistics.median(values), 3) if values else None


async def speed(names: Sequence[str] = NAMES, *, rounds: int = 3, requests: int = 2000, counts: Sequence[int] = (1000,),
                most: int = 2000, seconds: float = 5.0, progress: Callable[[str], None] = lambda _: None,
                **where: Any) -> dict[str, Any]:
    """The whole comparison. `most` streams are tried once, with the firewall and nginx."""
    async with Lab(names, **where) as lab:
        seen: dict[str, dict[str, list[float]]] = {p.name: {} for p in lab.running}

        def add(name: str, key: str, value: float | None) -> None:
            if value is not None:
                seen[name].setdefault(key, []).append(value)
        runs: dict[str, list[Streams]] = {p.name: [] for p in lab.running}
        errors: dict[str, str] = {}
        for number in range(rounds):
            for peer in lab.running:
                if peer.name in errors:
                    continue
                progress(f"round {number + 1}: {peer.name}")
                try:
                    await _round(peer, add, runs[peer.name], requests, counts, seconds)
                except Exception as e:      # a peer that breaks is reported, the others go on
                    errors[peer.name] = f"{type(e).__name__}: {e}"
        for name in ("firewall", "nginx"):
            if (peer := lab.peer(name)) and name not in errors and most:
                progress(f"{most} streams: {name}")
                runs[name].append(await streams(peer.port, most, peer.process, seconds=seconds, ramp=2.0))
        table = {p.name: _row(p, seen, runs, lab) for p in lab.running}
        out: dict[str, Any] = {"guard": "scripted", "rounds": rounds, "requests": requests, "peers": table,
                               "skipped": lab.skipped, "errors": errors, "cores": {"proxy": lab.proxy, "load": lab.load}}
        if lab.peer("firewall"):
            progress("latency against concurrency")
            out["concurrency"] = await concurrency(lab)
    if "firewall" in names:
        progress("a client that leaves")
        out["gone"] = await gone()
        progress("workers")
        out["workers"] = await workers(lab.load)
    return out


async def _round(peer: field.Running, add: Callable[[str, str, float | None], None], runs: list[Streams], requests: int,
                 counts: Sequence[int], seconds: float) -> None:
    slow = 20 if peer.name in SLOW else 1
    path = "/v1/chat/completions"
    await flood(peer.port, path, whole(), max(16, 200 // slow), 16, peer.process)       # warm
    got = (await flood(peer.port, path, whole(), requests // slow, 16, peer.process)).answered()
    add(peer.name, "exchange_us", got.each)
    add(peer.name, "rate", len(got.ms) / got.seconds)
    alone = percentiles((await flood(peer.port, path, whole(), requests // (4 * slow), 1)).answered().ms)
    add(peer.name, "p50", alone["p50"])
    add(peer.name, "p99", alone["p99"])
    first = percentiles(await first_token(peer.port, max(10, 200 // slow)))
    add(peer.name, "first", first["p50"])
    long = await flood(peer.port, path, whole(PROMPT * 32), max(16, requests // (8 * slow)), 4, peer.process)
    add(peer.name, "long_us", long.answered().each)
    for count in counts:
        if peer.process is not None:
            runs.append(await streams(peer.port, max(20, count // slow), peer.process, seconds=seconds))


def _row(peer: field.Running, seen: dict[str, dict[str, list[float]]], runs: dict[str, list[Streams]],
         lab: Lab) -> dict[str, Any]:
    mine, direct = seen[peer.name], seen["direct"]

    def added(key: str) -> float | None:
        pairs = list(zip(mine.get(key, []), direct.get(key, []), strict=False))
        return median([a - b for a, b in pairs])
    row: dict[str, Any] = {"note": peer.note, "p50_ms": median(mine.get("p50", [])),
                           "p99_ms": median(mine.get("p99", [])), "first_ms": median(mine.get("first", [])),
                           "rate": median(mine.get("rate", []))}
    if peer.process is None:
        return row
    row |= {"exchange_us": median(mine.get("exchange_us", [])), "long_us": median(mine.get("long_us", [])),
            "added_p50_ms": added("p50"), "added_p99_ms": added("p99"), "added_first_ms": added("first"),
            "streams": {}}
    for count in sorted({r.streams for r in runs[peer.name]}):
        part = [r for r in runs[peer.name] if r.streams == count]
        transit = percentiles([t for r in part for t in r.transit])
        row["streams"][str(count)] = {
            "token_us": median([r.each for r in part if r.each is not None]), "delivered": min(r.delivered for r in part),
            "whole": min(r.whole for r in part), "transit_p50_ms": transit["p50"], "transit_p99_ms": transit["p99"],
            "rss_mb_per_1000": round(max(r.rss for r in part) / count * 1000 / 1e6, 1),
            "client_busy": round(max(r.busy for r in part), 2)}
    return row


async def concurrency(lab: Lab, levels: Sequence[int] = (1, 4, 16, 64, 128), each: int = 800) -> dict[str, Any]:
    """peer -> [connections, p50 ms, p99 ms, exchanges/s], for the plot."""
    out: dict[str, Any] = {}
    for name in ("direct", "firewall", "aiohttp", "nginx"):
        if peer := lab.peer(name):
            rows = []
            for level in levels:
                got = await flood(peer.port, "/v1/chat/completions", whole(), max(each, 4 * level), level)
                p = percentiles(got.answered().ms)
                rows.append([level, p["p50"], p["p99"], round(len(got.ms) / got.seconds, 1)])
            out[name] = rows
    return out


async def gone(times: int = 12) -> dict[str, Any]:
    """Milliseconds from the client closing its connection to the upstream seeing its own closed."""
    loop = asyncio.get_running_loop()
    waits = []
    async with Upstream() as upstream:
        upstream.scripts["long"] = chat_stream([" token"] * 400, 0.05)
        with await loop.run_in_executor(None, lambda: Firewall(upstream.url, "scripted")) as firewall:
            for _ in range(times):
                _, one = await loop.create_connection(Connection, "127.0.0.1", firewall.port)
                waiting = one.send(request("/v1/chat/completions", {"model": "long", "stream": True, "messages": [
                    {"role": "user", "content": "Go on."}]}, firewall.port))
                patience = time.monotonic() + 5
                while one.answer is None or (not one.answer.arrivals and time.monotonic() < patience):
                    await asyncio.sleep(0.01)
                await asyncio.sleep(0.1)        # in the middle of the stream
                before, left = len(upstream.left), time.monotonic()
                one.transport.abort()
                waiting.cancel()
                while len(upstream.left) == before and time.monotonic() - left < 5:
                    await asyncio.sleep(0.001)
                waits.append((upstream.left[-1] - left) * 1e3 if len(upstream.left) > before else 5000.0)
    return {"times": times, "ms": percentiles(waits)}


async def workers(load_core: int, count: int = 4000, connections: int = 64) -> dict[str, Any]:
    """CPU an exchange with one and two workers.

    On two cores client and upstream cannot stay off the workers' cores, so the gain is shown by CPU: with two workers
    the busier one sets the pace: throughput grows by (CPU of one worker) / (CPU of the busier of two), equal work.
    """
    out: dict[str, Any] = {}
    upstream = Process([sys.executable, "-m", "benchmarks.upstream", "--core", str(load_core)])
    loop = asyncio.get_running_loop()
    try:
        port = int(upstream.wait_for("", 20))
        busiest = {}
        for n in (1, 2):
            start = loop.run_in_executor(None, lambda n=n: Firewall(f"http://127.0.0.1:{port}", "scripted", workers=n))
            with await start as firewall:
                await flood(firewall.port, "/v1/chat/completions", whole(), 400, connections)
                before = _each(firewall)
                got = (await flood(firewall.port, "/v1/chat/completions", whole(), count, connections, firewall)).answered()
                used = {pid: v - before.get(pid, 0.0) for pid, v in _each(firewall).items()}
                busiest[n] = max(used.values())
                out[str(n)] = {"exchange_us": round(got.each, 1), "rate": round(count / got.seconds, 1),
                               "busiest_share": round(busiest[n] / max(1e-9, sum(used.values())), 3)}
        out["gain_by_cpu"] = round(busiest[1] / busiest[2], 2)
        out["gain_even"] = round(2 * out["1"]["exchange_us"] / out["2"]["exchange_us"], 2)
    finally:
        upstream.stop()
    return out


def _each(process: Process) -> dict[int, float]:
    return {p.pid: cpu_of(p.pid) for p in process.family()}


async def capacity(count: int = 3000, connections: int = 16) -> dict[str, Any]:
    """Rows a second through the real firewall with a guard that costs nothing, on whatever cores there are."""
    loop = asyncio.get_running_loop()
    async with Upstream() as upstream:
        with await loop.run_in_executor(None, lambda: Firewall(upstream.url, "scripted")) as firewall:
            got = (await flood(firewall.port, "/v1/chat/completions", whole(), count, connections)).answered()
    return {"guard": "scripted", "rows": count, "rows_per_second": round(count / got.seconds, 1)}


def progressed(progress: Progress) -> Callable[[str], None]:
    """A step counter as a progress callback of words."""
    return lambda _: progress(1)
