"""Drain and connections nobody has asked anything on yet: their request may be on its way."""

from __future__ import annotations

import asyncio

import pytest
from conftest import OK, Fake, read_request, until

from firewall.proxy.http1 import Limits

POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


async def test_a_fresh_connection_may_still_ask(house) -> None:
    h = await house()
    fresh, used = await h.client(), await h.client()
    used.send(POST)
    assert (await used.answer())[0] == 200
    await until(lambda: h.server.connections == 2)
    draining = asyncio.create_task(h.server.drain(3.0))
    assert await used.rest() == b"" and not draining.done()     # idle after an answer: closed at once
    fresh.send(POST)
    status, head, _ = await fresh.answer()
    assert status == 200 and b"connection: close" in head
    assert await draining is True
    fresh.close()
    used.close()


async def test_a_fresh_connection_that_stays_silent_is_closed_within_its_second(house) -> None:
    h = await house(limits=Limits(tick=0.05))
    fresh = await h.client()
    await until(lambda: h.server.connections == 1)
    began = asyncio.get_running_loop().time()
    assert await h.server.drain(3.0) is True
    assert asyncio.get_running_loop().time() - began < 1.5
    assert await fresh.rest() == b""
    fresh.close()


async def test_drain(house) -> None:
    gate = asyncio.Event()

    async def waits(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        await gate.wait()
        writer.write(OK)

    h = await house(waits)
    idle, busy = await h.client(), await h.client()
    busy.send(POST)
    await until(lambda: h.server.in_flight == 1)
    draining = asyncio.create_task(h.server.drain(2.0))
    assert await idle.rest() == b""
    with pytest.raises(OSError):
        await h.client()
    assert not draining.done()
    gate.set()
    status, head, _ = await busy.answer()
    assert status == 200 and b"connection: close" in head
    assert await busy.rest() == b"" and await draining is True
    idle.close()
    busy.close()


async def test_drain_gives_up_in_time(house) -> None:
    async def never(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(3)

    h = await house(never)
    client = await h.client()
    client.send(POST)
    await until(lambda: h.server.in_flight == 1)
    assert await h.server.drain(0.1) is False
    client.close()
