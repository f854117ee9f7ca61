"""What meets a connection that idles, or that is let go (link.py)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from conftest import OK, OPENSSL, Papers, until
from test_client import Ear, ask

from firewall.proxy.http1 import Origin, Pool, UpstreamLimits, tls


@pytest.mark.parametrize("most", [0, 1], ids=["idle", "waited for"])
async def test_an_answer_that_nobody_asked_for_and_nobody_has_read(most: int) -> None:
    """It waits in the kernel when the next question comes, perhaps another client's."""
    said = threading.Event()
    opened: list[socket.socket] = []

    def talk(server: socket.socket) -> None:
        while True:
            try:
                opened.append(server.accept()[0])
                opened[-1].recv(1000)
            except OSError:
                return
            opened[-1].sendall(OK)
            said.wait()                     # until that was read
            opened[-1].sendall(OK.replace(b"ok", b"NO"))

    class Busy(Ear):
        def data(self, raw: bytes) -> None:
            super().data(raw)
            said.set()
            time.sleep(0.05)

        def end(self, complete: bool) -> None:
            super().end(complete)
            if not most:
                pool.send(b"POST", b"/", b"", b"", other)

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=talk, args=(server,), daemon=True)
        thread.start()
        pool = Pool(Origin.parse(f"http://127.0.0.1:{server.getsockname()[1]}"), UpstreamLimits(max_connections=most))
        ear, other = Busy(), Ear()
        pool.send(b"POST", b"/", b"", b"", ear)
        if most:
            pool.send(b"POST", b"/", b"", b"", other)
        await asyncio.wait_for(other.over.wait(), 3)
        await pool.close()
        server.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(thread.join)
    assert (ear.body, other.body, len(opened)) == (b"ok", b"ok", 2)
    for sock in opened:
        sock.close()


@pytest.mark.parametrize("secure", [False, True], ids=["plain", "tls"])
async def test_what_an_early_answer_left_unsent_is_let_go(house, papers: Papers, secure: bool) -> None:
    """The upstream answers after the head, keeps the connection and reads no more: the prompt must not stay in memory."""
    over = asyncio.Event()

    async def early(fake, reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.pause_reading()
        writer.write(OK)
        await over.wait()

    if secure and OPENSSL is None:
        pytest.skip("needs the openssl binary")
    encrypted = {"upstream_ssl": tls.server(papers.cert, papers.key),
                 "origin": lambda port: Origin.parse(f"https://localhost:{port}", ca=papers.ca)} if secure else {}
    h = await house(early, upstream=UpstreamLimits(keepalive=0.3, tick=0.05), **encrypted)
    ear, _ = await ask(h.pool, b"x" * 20_000_000)
    assert ear.body == b"ok"
    await until(lambda: h.pool.connections == 0)
    over.set()
