"""What the data plane costs: CPU of a relaying process per whole exchange and per streamed token.

    PYTHONPATH=. python tests/proxy/http1/bench_relay.py [--seconds 4] [--streams 1000] [--rate 20] [--rounds 3]
                                                         [--only whole|stream] [--profile]

Three processes: a raw upstream, the relay (relay_app.py on uvloop, the one measured, CPU from /proc/PID/schedstat)
and this load generator. Whole: 1 kB prompts over 16 keep-alive connections, one answer of 400 bytes each.
Stream: `--streams` open streams, `--rate` chunks of ~100 bytes a second each. Not run by pytest. Linux only.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import statistics
import sys
import time
from pathlib import Path

import uvloop

sys.path.insert(0, str(Path(__file__).parent))
from relay_app import RelayApp  # noqa: E402

from firewall.proxy.http1 import Limits, Origin, Pool, Server, UpstreamLimits  # noqa: E402

PROMPT = b'{"model":"m","messages":[{"role":"user","content":"' + b"word " * 190 + b'"}]}'
HEAD = (b"POST /v1/%b HTTP/1.1\r\nHost: 127.0.0.1:8080\r\nAccept: application/json\r\n"
        b"Accept-Encoding: gzip, deflate\r\nUser-Agent: OpenAI/Python 1.60\r\n"
        b"Content-Type: application/json\r\nAuthorization: Bearer sk-0123456789abcdef\r\n"
        b"X-Stainless-Lang: python\r\nX-Stainless-Async: false\r\nContent-Length: %d\r\n\r\n")
ANSWER = b'{"id":"x","choices":[{"message":{"role":"assistant","content":"' + b"word " * 60 + b'"}}]}'
WHOLE = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(ANSWER), ANSWER)
STREAM = b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n"
EVENT = b'data: {"id":"x","choices":[{"index":0,"delta":{"content":" word"},"finish_reason":null}]}\n\n'
TOKEN = b"%x\r\n%b\r\n" % (len(EVENT), EVENT)


class Upstream(asyncio.Protocol):
    """Answers by the length of what it got; streams are fed by `tick`."""

    streams: set[asyncio.Transport] = set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport, self.need = transport, 0

    def data_received(self, data: bytes) -> None:
        if self.need <= 0:
            end = data.find(b"\r\n\r\n")
            at = data.find(b"content-length: ") + 16
            self.need = int(data[at:data.find(b"\r", at)]) + end + 4
            self.stream = data.startswith(b"POST /v1/stream")
        self.need -= len(data)
        if self.need <= 0:
            if self.stream:
                self.transport.write(STREAM)
                self.streams.add(self.transport)
            else:
                self.transport.write(WHOLE)

    def connection_lost(self, exc: Exception | None) -> None:
        self.streams.discard(self.transport)


async def upstream(pipe, rate: float) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Upstream, "127.0.0.1", 0, backlog=2048)
    pipe.send(server.sockets[0].getsockname()[1])
    slots, n = 20, 0
    while not pipe.poll():
        until = loop.time() + 1 / rate / slots
        for i, transport in enumerate(list(Upstream.streams)):
            if i % slots == n % slots:
                transport.write(TOKEN)
        n += 1
        await asyncio.sleep(max(0.0, until - loop.time()))


async def relay(pipe, port: int) -> None:
    pool = Pool(Origin.parse(f"http://127.0.0.1:{port}"), UpstreamLimits(max_idle=2000))
    server = Server(RelayApp(pool), Limits(max_connections=20000))
    await server.start(backlog=2048)
    pipe.send(server.port)
    while not pipe.poll():
        await asyncio.sleep(0.1)
    server.close()
    await pool.close()


class Client(asyncio.Protocol):
    """Sends the same request for ever, or counts what streams to it."""

    count = size = 0
    lags: list[float] = []

    def __init__(self, raw: bytes, whole: int) -> None:
        self.raw, self.whole, self.got = raw, whole, 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport
        self.at = time.perf_counter()
        transport.write(self.raw)

    def data_received(self, data: bytes) -> None:
        Client.size += len(data)
        if self.whole:
            self.got += len(data)
            if self.got >= self.whole:
                self.got = 0
                Client.count += 1
                now = time.perf_counter()
                self.lags.append(now - self.at)
                self.at = now
                self.transport.write(self.raw)


def cpu(pid: int) -> float:
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


async def whole(port: int, pid: int, seconds: float, connections: int = 16) -> tuple[float, int]:
    loop = asyncio.get_running_loop()
    raw = HEAD % (b"x", len(PROMPT)) + PROMPT
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(raw)
    size = len(await reader.readuntil(ANSWER))
    writer.close()
    clients = [await loop.create_connection(lambda: Client(raw, size), "127.0.0.1", port) for _ in range(connections)]
    await asyncio.sleep(0.5)
    before, Client.count = cpu(pid), 0
    Client.lags.clear()
    await asyncio.sleep(seconds)
    used, done = cpu(pid) - before, Client.count
    for transport, _ in clients:
        transport.abort()
    return used / done * 1e6, int(done / seconds)


async def stream(port: int, pid: int, seconds: float, streams: int) -> tuple[float, int]:
    loop = asyncio.get_running_loop()
    raw = HEAD % (b"stream", len(PROMPT)) + PROMPT
    clients = [await loop.create_connection(lambda: Client(raw, 0), "127.0.0.1", port) for _ in range(streams)]
    await asyncio.sleep(1.5)
    before, Client.size = cpu(pid), 0
    await asyncio.sleep(seconds)
    used, tokens = cpu(pid) - before, Client.size / len(TOKEN)
    for transport, _ in clients:
        transport.abort()
    await asyncio.sleep(0.3)
    return used / tokens * 1e6, int(tokens / seconds)


def child(function, pipe, profile: bool, *args) -> None:
    if profile:
        import cProfile
        import pstats
        run = cProfile.Profile()
        run.runcall(asyncio.run, function(pipe, *args))  # uvloop hides its own frames anyway
        pstats.Stats(run).sort_stats("tottime").print_stats(28)
    else:
        uvloop.run(function(pipe, *args))


def start(function, profile: bool, *args):
    ours, theirs = multiprocessing.Pipe()
    fork = multiprocessing.get_context("fork")
    process = fork.Process(target=child, args=(function, theirs, profile, *args), daemon=True)
    process.start()
    return ours, process, ours.recv()


def main() -> None:
    options = argparse.ArgumentParser()
    options.add_argument("--seconds", type=float, default=4)
    options.add_argument("--streams", type=int, default=1000)
    options.add_argument("--rate", type=float, default=20)
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--profile", action="store_true")
    options.add_argument("--only", choices=["whole", "stream"])
    args = options.parse_args()
    up, up_process, up_port = start(upstream, False, args.rate)
    ours, process, port = start(relay, args.profile, up_port)
    results: dict[str, list[tuple[float, int]]] = {"whole": [], "stream": []}

    async def rounds() -> None:
        for _ in range(args.rounds):
            if args.only != "stream":
                results["whole"].append(await whole(port, process.pid, args.seconds))
            if args.only != "whole":
                results["stream"].append(await stream(port, process.pid, args.seconds, args.streams))

    uvloop.run(rounds())
    rss = next(line for line in Path(f"/proc/{process.pid}/status").read_text().splitlines() if "VmHWM" in line)
    ours.send(0)
    up.send(0)
    process.join(5)
    up_process.join(5)
    for name, rows in results.items():
        if rows:
            costs = [round(cost, 1) for cost, _ in rows]
            print(f"{name:7} {statistics.median(costs):6.1f} us CPU each  {costs}  rate {[rate for _, rate in rows]}/s")
    print(f"relay {rss.split()[1]} kB peak, load {os.getloadavg()[0]:.1f}")


if __name__ == "__main__":
    main()
