"""Deadlines and back-pressure with scaled limits: cases.md K, R1, R6, R8."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from conftest import OK, Client, Fake, read_request, until

from firewall.proxy.http1 import Limits, UpstreamLimits

POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
FAST = Limits(first_byte_timeout=0.3, header_timeout=0.4, idle_timeout=0.5, body_timeout=0.9, body_grace=0.4,
              body_min_rate=1000, write_stall=0.4, linger=0.3, tick=0.05)


async def closed(client: Client, start: float) -> tuple[float, bytes]:
    said = await client.rest(3)
    return time.perf_counter() - start, said


async def test_no_byte_idle_and_slow_heads(house) -> None:
    h = await house(limits=FAST)
    silent, idle, slow = [await h.client() for _ in range(3)]
    start = time.perf_counter()
    idle.send(POST)
    await idle.answer()

    async def drip() -> None:
        for i in range(40):
            slow.send(POST[i:i + 1])
            await asyncio.sleep(0.05)

    dripping = asyncio.create_task(drip())
    results = await asyncio.gather(*(closed(c, start) for c in (silent, idle, slow)))
    dripping.cancel()
    took, said = zip(*results, strict=True)
    assert said[0] == b"" and said[1] == b"" and said[2].startswith(b"HTTP/1.1 408 ")
    assert 0.1 < took[0] <= 0.45 and 0.3 < took[1] <= 0.8 and 0.2 < took[2] <= 0.9, took
    assert [e.code for e in h.app.refusals] == ["request_timeout"]


async def test_k01_five_hundred_slow_heads_do_not_hurt_the_healthy(house) -> None:
    h = await house(limits=Limits(header_timeout=1.0, tick=0.05, max_connections=2000, linger=0.2))
    slow = [await h.client() for _ in range(500)]
    for client in slow:
        client.send(b"P")
    opened = time.perf_counter()
    waits = []
    while h.server.connections > 10 and time.perf_counter() - opened < 3:
        start = time.perf_counter()
        assert (await h.ask(POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))).startswith(b"HTTP/1.1 200")
        waits.append(time.perf_counter() - start)
        for client in slow:
            client.send(b"O")
        await asyncio.sleep(0.1)
    assert time.perf_counter() - opened < 1.8
    assert sorted(waits)[int(len(waits) * 0.9)] < 0.2
    for client in slow:
        client.close()


async def test_k03_slow_bodies(house) -> None:
    """Below the minimum rate after the grace, and above it but longer than the deadline."""
    h = await house(limits=FAST)
    low, long = await h.client(), await h.client()
    for client in (low, long):
        client.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n")
    start = time.perf_counter()

    async def drip(client: Client, piece: bytes) -> None:
        while True:
            client.send(piece)
            await asyncio.sleep(0.05)

    drips = [asyncio.create_task(drip(low, b"x")), asyncio.create_task(drip(long, b"x" * 200))]
    (first, one), (second, two) = await asyncio.gather(closed(low, start), closed(long, start))
    for task in drips:
        task.cancel()
    assert one.startswith(b"HTTP/1.1 408 ") and two.startswith(b"HTTP/1.1 408 ")
    assert first < 1.1 and first < second < 1.8  # each includes the time the client took to see it
    assert h.fake.opened == 0


async def test_k05_a_client_that_stops_reading(house) -> None:
    sent = 0

    async def flood(fake: Fake, reader, writer) -> None:
        nonlocal sent
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        piece = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
        while True:
            writer.write(piece)
            await writer.drain()
            sent += len(piece)

    h = await house(flood, limits=Limits(write_stall=0.6, tick=0.05))
    reader_side = await asyncio.open_connection("127.0.0.1", h.server.port, limit=1024)
    reader_side[1].write(POST)
    await until(lambda: h.server.in_flight == 1 and any(c.paused for c in h.server._open))
    await asyncio.sleep(0.1)
    stopped = sent
    (connection,) = h.server._open
    held = connection.transport.get_write_buffer_size()
    assert held <= 64 * 1024 + 256 * 1024 + 4096, held
    await asyncio.sleep(0.1)
    assert sent == stopped  # the upstream is not read any more
    start = time.perf_counter()
    await h.fake.closed.wait()
    assert time.perf_counter() - start < 1.9 and h.app.gone == 1  # at most two stalls, and a loaded machine
    await until(lambda: h.server.connections == 0)
    reader_side[1].transport.abort()


async def test_a_slow_reader_gets_everything(house) -> None:
    async def much(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        body = bytes(range(256)) * 16_000
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await reader.read()

    h = await house(much)
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, limit=65536)
    writer.write(POST)
    await reader.readuntil(b"\r\n\r\n")
    got = bytearray()
    while len(got) < 256 * 16_000:
        got += await reader.read(200_000)
        await asyncio.sleep(0.002)
    assert bytes(got) == bytes(range(256)) * 16_000
    writer.close()


async def test_progress_however_slow_is_no_stall(house) -> None:
    """Three stalls long the client takes a little now and then, from a full pipe."""
    async def much(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 40000000\r\n\r\n" + b"x" * 40_000_000)
        await reader.read()

    h = await house(much, limits=Limits(write_stall=0.8, tick=0.05))
    with socket.socket() as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        client.setblocking(False)
        loop = asyncio.get_running_loop()
        await loop.sock_connect(client, ("127.0.0.1", h.server.port))
        await loop.sock_sendall(client, POST)
        await until(lambda: any(c.paused for c in h.server._open))
        end = time.perf_counter() + 2.4
        while time.perf_counter() < end:
            assert await loop.sock_recv(client, 100_000)
            await asyncio.sleep(0.1)
        assert h.app.gone == 0 and h.server.in_flight == 1
    await until(lambda: h.app.gone == 1)


async def silent(fake: Fake, reader, writer) -> None:
    await read_request(reader)
    await reader.read()


async def stops(fake: Fake, reader, writer) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
    await reader.read()


async def drips(fake: Fake, reader, writer) -> None:
    await read_request(reader)
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"2\r\nhi\r\n")
        await asyncio.sleep(0.05)


@pytest.mark.parametrize(("script", "limits", "what"), [
    (silent, UpstreamLimits(head_timeout=0.3), "head"), (stops, UpstreamLimits(idle_timeout=0.3), "idle"),
    (drips, UpstreamLimits(idle_timeout=0.3, total=0.8), "whole call")])
async def test_upstream_deadlines(house, script, limits: UpstreamLimits, what: str) -> None:
    h = await house(script, upstream=limits)
    said = await h.ask(POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
    assert said.startswith(b"HTTP/1.1 504 ") if what == "head" else said.endswith(b"2\r\nhi\r\n")
    assert [(e.code, e.status, e.detail, e.fault) for e in h.app.errors] == [
        ("upstream_timeout", 504, what, "upstream")]
    await until(lambda: h.pool.connections == 0)


async def test_k09_a_long_stream_is_not_cut(house) -> None:
    """Longer than every deadline that is not about silence."""
    async def stream(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
        for _ in range(30):
            writer.write(b"2\r\nhi\r\n")
            await asyncio.sleep(0.05)
        writer.write(b"0\r\n\r\n")

    h = await house(stream, limits=FAST,
                    upstream=UpstreamLimits(connect_timeout=0.3, head_timeout=0.3, idle_timeout=0.4))
    client = await h.client()
    client.send(POST)
    assert (await client.until(b"0\r\n\r\n", 4)).count(b"hi") == 30
    client.close()


async def test_a_paused_call_is_not_idle(house) -> None:
    h = await house(stops, upstream=UpstreamLimits(idle_timeout=0.3))
    client = await h.client()
    client.send(POST)
    await client.until(b"hi\r\n")
    (link,) = h.pool._links
    link.call.pause()
    await asyncio.sleep(0.6)
    assert not h.app.errors
    link.call.resume()
    await until(lambda: bool(h.app.errors))
    client.close()


async def test_idle_upstream_connections_age(house) -> None:
    h = await house(upstream=UpstreamLimits(keepalive=0.2))
    client = await h.client()
    client.send(POST)
    await client.answer()
    assert h.pool.idle == 1
    await until(lambda: h.pool.connections == 0, 1)
    client.send(POST)
    assert (await client.answer())[0] == 200 and h.fake.opened == 2
    client.close()


async def test_healthy_requests_through_it_all(house) -> None:
    async def ok(fake: Fake, reader, writer) -> None:
        while True:
            await read_request(reader)
            writer.write(OK)

    h = await house(ok, limits=FAST)
    client = await h.client()
    for _ in range(20):
        client.send(POST)
        assert (await client.answer())[0] == 200
        await asyncio.sleep(0.06)
    client.close()
