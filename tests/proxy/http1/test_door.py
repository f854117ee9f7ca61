"""The TLS door: whoever is accepted counts, before any handshake (R13, K11)."""

from __future__ import annotations

import asyncio
import socket
import time

import pytest
from conftest import OPENSSL, Papers, until

from firewall.proxy.http1 import Limits, tls
from firewall.proxy.http1.limits import RESERVE

pytestmark = pytest.mark.skipif(OPENSSL is None, reason="needs the openssl binary")
POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"


def silent(port: int, count: int) -> list[socket.socket]:
    """Connections that never begin their handshake."""
    return [socket.create_connection(("127.0.0.1", port)) for _ in range(count)]


async def shaken(h, papers: Papers) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", h.server.port, ssl=tls.client(ca=papers.ca))


async def ask(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
    writer.write(POST)
    head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), 2)
    await reader.readexactly(5)
    return head


async def test_k11_connections_without_a_handshake_count(house, papers: Papers) -> None:
    h = await house(ssl=tls.server(papers.cert, papers.key), limits=Limits(max_connections=4))
    good = await shaken(h, papers)
    crowd = silent(h.server.port, 100)
    most = 4 + RESERVE // 2
    await until(lambda: h.server.connections == most)
    await asyncio.sleep(0.1)
    assert h.server.connections == most and len(h.server._open) == 1
    assert (await ask(*good)).startswith(b"HTTP/1.1 200 ")
    for sock in crowd:
        sock.close()
    await until(lambda: h.server.connections == 1)      # and there is room again
    again = await shaken(h, papers)
    assert (await ask(*again)).startswith(b"HTTP/1.1 200 ")
    for _, writer in (good, again):
        writer.close()


async def test_one_too_many_is_told_so_after_its_handshake(house, papers: Papers) -> None:
    h = await house(ssl=tls.server(papers.cert, papers.key), limits=Limits(max_connections=1))
    good = await shaken(h, papers)
    await until(lambda: h.server.connections == 1)
    reader, writer = await shaken(h, papers)
    assert (await asyncio.wait_for(reader.read(), 2)).startswith(b"HTTP/1.1 503 ")
    assert (await ask(*good)).startswith(b"HTTP/1.1 200 ")
    writer.close()
    good[1].close()


async def test_failed_and_endless_handshakes_free_their_place(house, papers: Papers) -> None:
    h = await house(ssl=tls.server(papers.cert, papers.key), limits=Limits(header_timeout=1.0))
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))
    for raw in (b"GET / HTTP/1.1\r\n\r\n", b""):        # not TLS; gone at once
        with socket.create_connection(("127.0.0.1", h.server.port)) as sock:
            sock.sendall(raw)
            await asyncio.sleep(0.05)
    await until(lambda: h.server.connections == 0)
    start = time.perf_counter()
    (sock,) = silent(h.server.port, 1)
    await until(lambda: h.server.connections == 1)
    await until(lambda: h.server.connections == 0)
    assert 0.8 < time.perf_counter() - start < 1.8 and not complaints
    sock.close()


async def test_drain_gives_a_handshake_its_second(house, papers: Papers) -> None:
    h = await house(ssl=tls.server(papers.cert, papers.key))
    (sock,) = silent(h.server.port, 1)
    await until(lambda: h.server.connections == 1)
    start = time.perf_counter()
    assert await h.server.drain(5.0) is True
    assert 0.8 < time.perf_counter() - start < 2.0
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", h.server.port))
    sock.close()


async def test_an_address_that_is_taken(house, papers: Papers) -> None:
    h = await house(ssl=tls.server(papers.cert, papers.key))
    with pytest.raises(OSError):
        await type(h.server)(h.app, ssl=tls.server(papers.cert, papers.key)).start(port=h.server.port)
