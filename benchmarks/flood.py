"""Load: as many whole exchanges, or as many streams, as asked for, from one cheap client.

`flood` keeps N connections busy with one request each and returns every latency. `streams` opens N streams, spread over
a ramp so that they do not beat in step, and looks at a window in which all of them run: tokens that arrived, CPU and
memory of the process under test, and how long a token was on the way (the upstream writes its clock into `lab-timed`
frames; both processes read the same monotonic clock).
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from benchmarks.load import Broken, Connection, request
from benchmarks.system import Process

CLOCK = re.compile(rb'"content": ?"@(\d{6,20}) ')
SAMPLED = 16            # every so many streams are read for transit times


@dataclass(slots=True)
class Flood:
    """Latencies in ms, statuses, wall seconds, CPU seconds of the process under test."""

    ms: list[float]
    statuses: Counter[int]
    seconds: float
    cpu: float
    first: list[float] = field(default_factory=list)

    @property
    def each(self) -> float:
        """CPU microseconds an exchange."""
        return self.cpu / max(1, len(self.ms)) * 1e6

    def answered(self) -> Flood:
        """Itself, where every answer was a 200: the price of a refusal is not that of an exchange. Raises `Broken`."""
        if set(self.statuses) != {200}:
            said = ", ".join(f"{n} x {status}" for status, n in sorted(self.statuses.items()))
            raise Broken(f"not every exchange was answered with 200: {said or 'none was made'}")
        return self


async def flood(port: int, path: str, body: Any, count: int, connections: int, process: Process | None = None) -> Flood:
    """`count` exchanges over `connections` keep-alive connections. Raises `Broken` or OSError when one breaks."""
    loop = asyncio.get_running_loop()
    data = request(path, body, port)
    opened = [(await loop.create_connection(Connection, "127.0.0.1", port))[1] for _ in range(connections)]
    out = Flood([], Counter(), 0.0, 0.0)
    left = count

    async def worker(connection: Connection) -> None:
        nonlocal left
        while left > 0:
            left -= 1
            if not connection.open:
                connection = (await loop.create_connection(Connection, "127.0.0.1", port))[1]
                opened.append(connection)
            answer = await connection.send(data)
            out.ms.append(answer.ms)
            out.first.append(answer.first_ms)
            out.statuses[answer.status] += 1
    cpu, began = process.cpu() if process else 0.0, time.monotonic()
    try:
        await asyncio.gather(*(worker(c) for c in opened))
    finally:
        for c in opened:
            if c.open:
                c.transport.close()
    out.seconds = time.monotonic() - began
    out.cpu = (process.cpu() - cpu) if process else 0.0
    return out


class Stream(asyncio.Protocol):
    """One stream: counts events by their blank lines, samples clocks, knows whether it ended whole."""

    __slots__ = ("data", "count", "whole", "sampled", "transit", "tail", "transport", "first", "sent", "lost")

    def __init__(self, data: bytes, sampled: bool) -> None:
        self.data, self.sampled, self.transit = data, sampled, list[float]()
        self.count, self.whole, self.lost, self.tail = 0, False, False, b""
        self.first = self.sent = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: asyncio.Transport = transport       # type: ignore[assignment]
        self.sent = time.monotonic()
        self.transport.write(self.data)

    def data_received(self, data: bytes) -> None:
        if not self.first:
            self.first = time.monotonic()
        self.count += data.count(b"\n\n") + (self.tail == b"\n" and data[:1] == b"\n")
        self.tail = data[-1:]
        if self.sampled:
            now = time.monotonic_ns()
            self.transit += [(now - int(c)) / 1e6 for c in CLOCK.findall(data)]
        if data.endswith(b"0\r\n\r\n"):
            self.whole = True
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost = not self.whole


@dataclass(frozen=True, slots=True)
class Streams:
    """What a run of streams showed.

    Args:
        each: CPU microseconds of the process under test a token, in the window; None when a quarter of the tokens that
            were sent in it did not come in it (a proxy that buffers, or is overrun).
        delivered: share of all events that arrived; whole: share of streams that ended properly.
        transit: ms a sampled token was on the way.
        rss: bytes the process has beyond what it had idle, before any load, while all streams run.
        busy: share of its core that the client used; near 1 it, not the proxy, sets the transit times.
    """

    streams: int
    tokens: int
    each: float | None
    delivered: float
    whole: float
    transit: Sequence[float]
    rss: int
    busy: float


async def streams(port: int, count: int, process: Process | None = None, *, seconds: float = 6.0, rate: float = 20.0,
                  ramp: float = 1.0, watch: Callable[[], float] = time.process_time) -> Streams:
    """`count` streams of `rate` tokens/s; the window is the time in which all of them run."""
    loop = asyncio.get_running_loop()
    frames = int(seconds * rate)
    data = request("/v1/chat/completions", {
        "model": f"lab-timed-{frames}-{round(1000 / rate)}", "stream": True,
        "messages": [{"role": "user", "content": PROMPT}]}, port)
    before = (process.idle or process.rss()) if process else 0
    opened: list[Stream] = []
    began = loop.time()
    for n in range(count):
        wait = began + n * ramp / count - loop.time()
        if wait > 0.001:
            await asyncio.sleep(wait)
        _, one = await loop.create_connection(lambda n=n: Stream(data, n % SAMPLED == 0), "127.0.0.1", port)
        opened.append(one)
    await asyncio.sleep(0.4)
    cpu, seen, own, start = process.cpu() if process else 0.0, sum(s.count for s in opened), watch(), time.monotonic()
    end = opened[0].sent + seconds - 0.3
    await asyncio.sleep(max(0.5, end - time.monotonic() - 0.2))
    rss = process.rss() - before if process else 0
    cpu, seen = (process.cpu() if process else 0.0) - cpu, sum(s.count for s in opened) - seen
    window = time.monotonic() - start
    busy = (watch() - own) / window
    patience = time.monotonic() + ramp + 4.0
    while time.monotonic() < patience and not all(s.whole or s.lost for s in opened):
        await asyncio.sleep(0.05)
    for s in opened:
        if not (s.whole or s.lost):
            s.transport.close()
    expected = count * (frames + 3)
    each = cpu / seen * 1e6 if seen > 0.75 * count * rate * window else None
    return Streams(count, seen, each, min(1.0, sum(s.count for s in opened) / expected),
                   sum(s.whole for s in opened) / count, [t for s in opened for t in s.transit], rss, busy)


async def first_token(port: int, count: int) -> list[float]:
    """Milliseconds to the first byte of a streamed answer, one stream at a time. Raises `Broken` at another answer."""
    body = {"model": "lab-stream-20-0", "stream": True, "messages": [{"role": "user", "content": PROMPT}]}
    return (await flood(port, "/v1/chat/completions", body, count, 1)).answered().first


PROMPT = ("Please explain to a new colleague how our harbour café takes orders on a busy Saturday, who greets guests, "
          "how tables are assigned, and what happens when the kitchen falls behind. ") * 6      # about 1 kB


def whole(prompt: str = PROMPT, model: str = "lab-whole-1000") -> dict[str, Any]:
    """The body of an unstreamed exchange."""
    return {"model": model, "messages": [{"role": "system", "content": "You are a helpful assistant."},
                                         {"role": "user", "content": prompt}]}


__all__ = ["PROMPT", "Broken", "Flood", "Streams", "first_token", "flood", "streams", "whole"]
