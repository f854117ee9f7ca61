"""Pipelining (A23): in order, one at a time, bounded on both sides, and fair to the loop."""

from __future__ import annotations

import asyncio
import time

import pytest
from conftest import Fake, read_request, until

from firewall.proxy.http1 import Limits

POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


async def test_a23_fifty_pipelined_are_answered_in_order(house) -> None:
    async def slow_when_even(fake: Fake, reader, writer) -> None:
        while True:
            request = await read_request(reader)
            fake.got.append(request)
            path = request.split(b" ")[1]
            if int(path[4:]) % 2 == 0:
                await asyncio.sleep(0.003)
            writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%b" % (len(path), path))

    h = await house(slow_when_even)
    client = await h.client()
    client.send(b"".join(POST.replace(b"/v1/x", b"/v1/%d" % n) for n in range(50)))
    for n in range(50):
        assert (await client.answer())[2] == b"/v1/%d" % n
    assert len(h.fake.got) == 50 and h.fake.opened == 1  # one at a time
    client.close()


async def test_thousands_of_pipelined_local_answers_leave_the_loop_alone(house) -> None:
    h = await house()

    def answer(request, reply) -> None:
        reply.answer(200, b"", b"hi")

    h.app.request = answer
    client = await h.client()
    client.send(POST * 3000)
    worst, last = 0.0, time.perf_counter()
    for _ in range(3000):
        await client.answer()
        now = time.perf_counter()
        worst, last = max(worst, now - last), now
    client.close()
    assert h.server.in_flight == 0


async def test_pipelined_bytes_are_bounded(house) -> None:
    async def never(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(3)

    h = await house(never, limits=Limits(read_ahead=10_000))
    client = await h.client()
    client.send(POST)
    await until(lambda: h.server.in_flight == 1)
    client.writer.transport.set_write_buffer_limits(high=1 << 30)
    client.send(b"x" * 30_000_000)
    (connection,) = h.server._open
    await until(lambda: not connection.reading)
    assert connection.reader.waiting < 10_000 + 300_000
    await until(lambda: h.app.gone == 1)        # half a second later it is read and dropped, but not for ever
    assert connection.reader.waiting == 0
    client.writer.transport.abort()


async def test_a_client_that_asks_and_never_reads_is_not_answered_for_ever(house) -> None:
    h = await house(limits=Limits(write_stall=0.5, tick=0.05))
    asked = 0

    def answer(request, reply) -> None:
        nonlocal asked
        asked += 1
        reply.answer(200, b"", b"x" * 10_000)

    h.app.request = answer
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, limit=1024)
    writer.transport.set_write_buffer_limits(high=1 << 30)
    writer.write(POST * 100_000)
    await until(lambda: any(c.paused for c in h.server._open))
    await asyncio.sleep(0.1)
    (connection,) = h.server._open
    stood = asked
    assert connection.transport.get_write_buffer_size() < 65536 + 2 * 10_500
    assert connection.reader.waiting < 65536 + 300_000
    await asyncio.sleep(0.1)
    assert asked == stood < 100_000
    await until(lambda: h.server.connections == 0)  # the stall
    writer.transport.abort()


async def test_a_pipeline_that_waited_for_its_reader_goes_on(house) -> None:
    h = await house()
    h.app.request = lambda request, reply: reply.answer(200, b"", b"x" * 20_000)
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, limit=1024)
    writer.write(POST * 2000)
    for _ in range(2000):
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 3)
        assert head.startswith(b"HTTP/1.1 200 ")
        await reader.readexactly(20_000)
    writer.close()


@pytest.mark.parametrize("extra", [0, 200_000, 4_000_000])
async def test_k07_a_client_that_leaves_behind_pipelined_bytes_is_noticed(house, extra: int) -> None:
    async def never(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        await reader.read()

    h = await house(never)
    client = await h.client()
    client.send(POST + b"P" * extra)
    await until(lambda: h.server.in_flight == 1)
    client.close()
    start = time.perf_counter()
    await until(lambda: h.app.gone == 1)
    await h.fake.closed.wait()
    assert time.perf_counter() - start < 1.0


async def test_the_answer_before_what_was_dropped_is_whole_and_the_last(house) -> None:
    async def slow(fake: Fake, reader, writer) -> None:
        fake.got.append(await read_request(reader))
        await asyncio.sleep(0.9)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 300000\r\n\r\n" + b"x" * 300_000)
        await reader.read()

    h = await house(slow)
    client = await h.client()
    client.send(POST * 20_000)
    said = await client.rest(5)
    assert said.count(b"HTTP/1.1 200 ") == 1 and b"connection: close\r\n" in said and said.endswith(b"x" * 300_000)
    assert len(h.fake.got) == 1 and h.server.in_flight == 0
    client.close()
