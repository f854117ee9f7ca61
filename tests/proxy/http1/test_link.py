"""What meets a connection that idles, or that is let go (link.py)."""

from __future__ import annotations

import asyncio
import socket
import threading
import time

import pytest
from conftest import OK
from test_client import Ear

from firewall.proxy.http1 import Origin, Pool, UpstreamLimits


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
