"""Answers that wait for their client: as long as it takes bytes it gets all, in every state (connection.py, K05)."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
import time

import pytest
from conftest import OPENSSL, Papers, until

from firewall.proxy.http1 import Limits, tls

POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
CLOSE = POST.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
SIZE = 6_000_000
SHORT = Limits(write_stall=0.6, idle_timeout=0.4, linger=0.3, tick=0.05)


def connect(port: int, context: ssl.SSLContext | None) -> socket.socket:
    client = socket.socket()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
    client.settimeout(5)
    client.connect(("127.0.0.1", port))
    return context.wrap_socket(client, server_hostname="localhost") if context else client


def read_steadily(port: int, raw: bytes, seconds: float, context: ssl.SSLContext | None) -> int:
    """Bytes got at an even pace that would bring `SIZE` in so many seconds."""
    got, start = 0, time.perf_counter()
    with connect(port, context) as client:
        client.sendall(raw)
        while got < SIZE:
            with contextlib.suppress(ConnectionResetError):
                piece = client.recv(30_000)
            if not piece:
                break
            got += len(piece)
            time.sleep(max(0.0, start + got / SIZE * seconds - time.perf_counter()))
    return got


@pytest.fixture(params=[False, True], ids=["plain", "tls"])
async def large(request: pytest.FixtureRequest, house, papers: Papers) -> tuple:
    """A server whose every answer is large, and the client's TLS context."""
    if OPENSSL is None:
        pytest.skip("needs the openssl binary")
    h = await house(limits=SHORT, **({"ssl": tls.server(papers.cert, papers.key)} if request.param else {}))
    h.app.request = lambda request, reply: reply.answer(200, b"", b"x" * SIZE)
    return h, tls.client(ca=papers.ca) if request.param else None


every_state = pytest.mark.parametrize("raw", [CLOSE, POST, CLOSE + b"more"], ids=["close", "keep-alive", "input waits"])


@every_state
async def test_a_steady_reader_gets_its_whole_answer(large: tuple, raw: bytes) -> None:
    """Longer than the stall, the idle time and the linger together; the answer is written in one go."""
    h, context = large
    assert await asyncio.to_thread(read_steadily, h.server.port, raw, 2.5, context) > SIZE
    await until(lambda: h.server.connections == 0)


@every_state
async def test_a_reader_that_stops_is_gone(large: tuple, raw: bytes) -> None:
    h, context = large
    client = await asyncio.to_thread(connect, h.server.port, context)
    client.sendall(raw)
    await until(lambda: h.server.connections == 1)
    start = time.perf_counter()
    await until(lambda: h.server.connections == 0, 4)
    assert 0.4 < time.perf_counter() - start < 2.4       # two windows, and a loaded machine
    client.close()


async def test_the_idle_clock_begins_when_the_answer_is_there(house) -> None:
    h = await house(limits=Limits(idle_timeout=0.8, tick=0.05))
    h.app.request = lambda request, reply: reply.answer(200, b"", b"x" * SIZE)
    reader, writer = await asyncio.open_connection("127.0.0.1", h.server.port, limit=65536)
    writer.write(POST)
    await reader.readuntil(b"\r\n\r\n")
    await asyncio.sleep(1.2)                            # nothing taken, but no stall yet
    await reader.readexactly(SIZE)
    await asyncio.sleep(0.4)
    assert h.server.connections == 1
    writer.write(POST)
    assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200 ")
    writer.close()


every_way = pytest.mark.parametrize("raw", [CLOSE, POST], ids=["close", "keep-alive"])


@every_way
async def test_what_waits_for_its_client_keeps_its_place(large: tuple, raw: bytes) -> None:
    """The rest of an answer is in this process: it counts against the caps until it was taken."""
    h, context = large
    if context:
        pytest.skip("behind TLS one write shows nothing of what waits")
    h.server.most = 1
    client = await asyncio.to_thread(connect, h.server.port, context)
    client.sendall(raw)
    await until(lambda: h.server.in_flight == 1)
    assert 4_000_000 < h.server.held <= SIZE + 1000
    assert b" 503 " in (await asyncio.to_thread(lambda: first_line(h.server.port, context)))

    def rest() -> int:
        got = 0
        while got < SIZE:
            got += len(client.recv(1 << 20))
        return got
    assert await asyncio.to_thread(rest) > SIZE
    await until(lambda: h.server.in_flight == h.server.held == 0)
    client.close()


def first_line(port: int, context: ssl.SSLContext | None) -> bytes:
    with connect(port, context) as client:
        client.sendall(POST)
        return client.recv(100)


@every_way
async def test_a_byte_now_and_then_holds_no_place(house, raw: bytes) -> None:
    """It takes some in every window, and would be at it for seven seconds."""
    h = await house(limits=Limits(write_stall=0.3, tick=0.05, body_min_rate=3_000_000))
    h.app.request = lambda request, reply: reply.answer(200, b"", b"x" * SIZE)
    start = time.perf_counter()
    got = await asyncio.to_thread(read_steadily, h.server.port, raw, 7, None)
    assert got < SIZE and 0.6 < time.perf_counter() - start < 5
    assert h.server.in_flight == h.server.held == 0
