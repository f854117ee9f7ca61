"""The server over real sockets: cases.md A and K, pipelining, limits, deadlines, endings."""

from __future__ import annotations

import asyncio
import contextlib
import random
import socket
import time

import pytest
from conftest import Fake, read_request, until
from test_request import REFUSED

from firewall.proxy.http1 import Limits, Refusal

POST = b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc"
TIGHT = Limits(max_line=200, max_head=600, max_headers=12, max_body=4000, max_chunks=50, max_trailer=120)


@pytest.mark.parametrize("name", REFUSED)
async def test_bad_framing_is_answered_closed_and_goes_nowhere(house, name: str) -> None:
    raw, status = REFUSED[name]
    h = await house(limits=TIGHT)
    said = await h.ask(raw)
    assert said.startswith(b"HTTP/1.1 %d " % status), said
    assert b"connection: close\r\n" in said and b"\r\n\r\n{\"error\":" in said
    assert b"KEY" not in said and b"evil" not in said
    assert h.fake.opened == 0 and h.server.in_flight == 0
    assert [e.status for e in h.app.refusals] == [status]


async def test_an_exchange_and_the_next_on_the_same_connections(house) -> None:
    h = await house()
    client = await h.client()
    for n in range(3):
        client.send(POST.replace(b"/v1/x", b"/v1/%d" % n))
        status, head, body = await client.answer()
        assert (status, body) == (200, b"/v1/%d" % n)
        assert b"connection" not in head and b"\r\ndate: " in head and b"content-type: text/plain\r\n" in head
    assert h.fake.opened == 1 and h.server.connections == 1
    assert h.fake.got[0] == (b"POST /v1/0 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\ncontent-type: application/json\r\n"
                             b"content-length: 3\r\n\r\nabc" % h.fake.port)
    client.close()


async def test_a09_a13_chunked_in_is_our_framing_out(house) -> None:
    h = await house()
    client = await h.client()
    client.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n"
                b"1;a=b\r\nx\r\n2\r\nyz\r\n0\r\nX-A: 1\r\nAuthorization: evil\r\nContent-Length: 9\r\n\r\n")
    assert (await client.answer())[0] == 200
    assert h.fake.got[0].endswith(b"content-length: 3\r\n\r\nxyz") and b"evil" not in h.fake.got[0]
    client.close()


async def test_a21_h2c_is_answered_as_http_1(house) -> None:
    h = await house()
    client = await h.client()
    client.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
                b"HTTP2-Settings: AA\r\nContent-Length: 1\r\n\r\nx" + POST)
    assert (await client.answer())[0] == 200 and (await client.answer())[0] == 200
    assert b"pgrade" not in h.fake.got[0] and b"HTTP2" not in h.fake.got[0]
    client.close()


async def test_expect_continue(house) -> None:
    h = await house()
    client = await h.client()
    client.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 3\r\n\r\n")
    assert await client.until(b"\r\n\r\n") == b"HTTP/1.1 100 Continue\r\n\r\n"
    client.send(b"abc")
    assert (await client.answer())[0] == 200
    client.close()


async def test_expect_is_not_asked_to_go_on_with_what_will_be_refused(house) -> None:
    h = await house(limits=TIGHT)
    for path, status in ((b"/nope", b"404"), (b"/v1/x", b"413")):
        said = await h.ask(b"POST %b HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n"
                           b"Content-Length: 4001\r\n\r\n" % path)
        assert said.startswith(b"HTTP/1.1 " + status), said


async def test_head_and_http_1_0(house) -> None:
    async def stream(fake: Fake, reader, writer) -> None:
        while True:
            request = await read_request(reader)
            if request.startswith(b"HEAD"):
                writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n")
            else:
                writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n")

    h = await house(stream)
    client = await h.client()
    client.send(b"HEAD /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert b"content-length: 5\r\n" in await client.until(b"\r\n\r\n")
    client.send(b"GET /v1/x HTTP/1.1\r\nHost: a\r\n\r\n")
    assert (await client.until(b"0\r\n\r\n")).endswith(b"\r\n\r\n2\r\nhi\r\n0\r\n\r\n")
    client.close()
    said = await h.ask(b"GET /v1/x HTTP/1.0\r\n\r\n")  # no chunks for 1.0: the end of the connection
    assert said.endswith(b"connection: close\r\n\r\nhi") and b"chunked" not in said
    client = await h.client()
    h.app.request = lambda request, reply: reply.answer(200, b"", b"hi")
    for _ in range(2):
        client.send(b"GET /v1/x HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        status, head, body = await client.answer()
        assert body == b"hi" and b"connection: keep-alive" in head
    client.close()


async def test_c08_the_client_sees_413_not_a_reset(house) -> None:
    h = await house(limits=Limits(max_body=1000, linger=1.0))
    client = await h.client()
    client.writer.transport.set_write_buffer_limits(high=1 << 30)
    client.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n")
    client.send(b"x" * 20_000_000)
    said = await client.rest()
    assert said.startswith(b"HTTP/1.1 413 ") and h.fake.opened == 0
    client.close()
    await until(lambda: h.server.connections == 0)


async def test_a_refusal_by_the_app_reads_no_body(house) -> None:
    h = await house()
    h.app.head = lambda request: Refusal(401, b"www-authenticate: Bearer\r\n", b"no")
    said = await h.ask(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nabc")
    assert said.startswith(b"HTTP/1.1 401 Unauthorized\r\nwww-authenticate: Bearer\r\ncontent-length: 2\r\n")
    assert said.endswith(b"\r\n\r\nno") and h.app.refusals == []


async def test_an_app_that_breaks_is_a_500_without_words(house) -> None:
    h = await house()

    def broken(request, reply=None):
        raise ValueError("KEY")

    h.app.request = broken
    said = await h.ask(POST)
    assert said.startswith(b"HTTP/1.1 500 ") and b"KEY" not in said
    h.app.head = broken
    assert (await h.ask(POST)).startswith(b"HTTP/1.1 500 ")
    assert {(e.code, e.detail) for e in h.app.refusals} == {("internal", "ValueError")}
    assert h.server.in_flight == 0


async def test_a_reply_keeps_its_promise_or_breaks_the_connection(house) -> None:
    h = await house()

    def short(request, reply) -> None:
        reply.start(200, b"", 10)
        reply.write(b"abc")
        reply.end()

    h.app.request = short
    assert (await h.ask(POST)).endswith(b"content-length: 10\r\n" + h.server.date + b"\r\nabc")

    def cut(request, reply) -> None:
        reply.start(200, b"")
        reply.write(b"abc")
        reply.abort()
        reply.write(b"x") if reply.gone else None

    h.app.request = cut
    assert (await h.ask(POST)).endswith(b"3\r\nabc\r\n")  # no last chunk

    def long(request, reply) -> None:
        reply.start(200, b"", 1)
        reply.write(b"abc")

    h.app.request = long
    assert b"abc" not in await h.ask(POST)


async def test_what_is_written_in_one_turn_leaves_in_one_write(house) -> None:
    h = await house()
    sizes: list[int] = []

    def answer(request, reply) -> None:
        transport = reply._conn.transport

        class Spy:
            def write(self, data: bytes) -> None:
                sizes.append(len(data))
                transport.write(data)

            def __getattr__(self, name: str):
                return getattr(transport, name)

        reply._conn.transport = Spy()
        reply.start(200, b"")
        for _ in range(5):
            reply.write(b"token")
        asyncio.get_running_loop().call_later(0.02, lambda: (reply.write(b"last"), reply.end()))

    h.app.request = answer
    client = await h.client()
    client.send(POST)
    await client.until(b"0\r\n\r\n")
    assert len(sizes) == 2
    client.close()


async def test_k07_a_client_that_leaves_is_noticed_at_once(house) -> None:
    async def endless(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await reader.read()

    for reset in (False, True):
        h = await house(endless)
        client = await h.client()
        client.send(POST)
        await client.until(b"hello\r\n")
        start = time.perf_counter()
        if reset:
            client.writer.get_extra_info("socket").setsockopt(
                socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
            client.writer.transport.abort()
        else:
            client.close()
        await h.fake.closed.wait()
        assert time.perf_counter() - start < 0.5
        assert h.app.gone == 1 and h.server.in_flight == 0
        await until(lambda h=h: h.server.connections == 0)


async def test_o_clean_resets_at_every_moment(house) -> None:
    """Clients and upstreams that reset at random: no exception reaches the loop, nothing is left behind."""
    pick = random.Random(7)

    async def stream(fake: Fake, reader, writer) -> None:
        while True:
            await read_request(reader)
            writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
            for _ in range(pick.randrange(60)):
                if writer.transport.is_closing():
                    return
                writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
                await asyncio.sleep(0)
            if pick.random() < 0.2:
                writer.transport.abort()
                return
            writer.write(b"0\r\n\r\n")

    h = await house(stream)
    complaints: list[dict] = []
    asyncio.get_running_loop().set_exception_handler(lambda loop, context: complaints.append(context))

    async def client() -> None:
        c = await h.client()
        c.send((POST * pick.randrange(1, 4))[:pick.choice((40, 53, 1000))])
        with contextlib.suppress(asyncio.TimeoutError, ConnectionError):
            await asyncio.wait_for(c.reader.read(pick.randrange(1, 200_000)), pick.random() * 0.05)
        sock = c.writer.get_extra_info("socket")
        if pick.random() < 0.7 and sock.fileno() >= 0:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        c.writer.transport.abort()

    for _ in range(12):
        await asyncio.gather(*(client() for _ in range(25)))
    await until(lambda: h.server.connections == 0 and h.server.in_flight == 0, 5)
    await until(lambda: h.pool.connections == h.pool.idle)
    assert not complaints, complaints[:2]


async def test_after_the_client_left_a_reply_is_silent(house) -> None:
    h = await house()
    kept = []
    h.app.request = lambda request, reply: kept.append(reply)
    client = await h.client()
    client.send(POST)
    await until(lambda: bool(kept))
    gone = []
    kept[0].on_gone = lambda: gone.append(1)
    client.close()
    await until(lambda: bool(gone))
    reply = kept[0]
    assert reply.gone and not reply.writable
    reply.start(200, b"")
    reply.write(b"x")
    reply.end()
    reply.answer(200, b"", b"")
    reply.abort()
    assert gone == [1]


async def test_a_client_that_leaves_inside_its_body(house) -> None:
    h = await house()
    client = await h.client()
    client.send(POST[:-1])
    client.writer.write_eof()
    assert (await client.rest()).startswith(b"HTTP/1.1 400 ")
    assert [e.code for e in h.app.refusals] == ["body_incomplete"] and h.fake.opened == 0
    client.close()


async def test_a_reset_inside_a_body_is_on_record(house) -> None:
    h = await house()
    client = await h.client()
    client.send(POST[:-1])
    await until(lambda: any(c.state == "body" for c in h.server._open))
    client.writer.transport.abort()
    await until(lambda: h.server.connections == 0)
    assert [e.code for e in h.app.refusals] == ["body_incomplete"] and h.fake.opened == 0


async def test_caps(house) -> None:
    async def never(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        await asyncio.sleep(3)

    h = await house(never, limits=Limits(max_connections=3, max_in_flight=2))
    busy = [await h.client() for _ in range(2)]
    for client in busy:
        client.send(POST)
    await until(lambda: h.server.in_flight == 2)
    assert (await h.ask(POST)).startswith(b"HTTP/1.1 503 ")
    assert h.app.refusals[-1].retry_after == 1.0
    await until(lambda: h.server.connections == 2)
    idle = await h.client()
    await until(lambda: h.server.connections == 3)
    start = time.perf_counter()
    said = await h.ask(POST)
    assert said.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in said and time.perf_counter() - start < 0.5
    for client in (*busy, idle):
        client.close()


async def test_r05_the_body_budget_refuses_the_newcomer(house) -> None:
    h = await house(limits=Limits(body_budget=100_000))
    slow = await h.client()
    slow.send(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"x" * 60_000)
    await until(lambda: h.server.held == 60_000)
    said = await h.ask(b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 50000\r\n\r\n" + b"x" * 50_000)
    assert said.startswith(b"HTTP/1.1 503 ") and h.server.held == 60_000
    slow.send(b"x" * 10_000)
    assert (await slow.answer())[0] == 200
    await until(lambda: h.server.held == 0)
    slow.close()


async def test_r05_a_body_counts_until_its_exchange_is_over(house) -> None:
    gate = asyncio.Event()

    async def stream(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        await gate.wait()
        writer.write(b"0\r\n\r\n")

    h = await house(stream, limits=Limits(body_budget=100_000))
    client, large = await h.client(), b"POST /v1/x HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\n\r\n" + b"x" * 70_000
    client.send(large)
    await client.until(b"hello\r\n")
    assert h.server.held == 70_000
    assert (await h.ask(large)).startswith(b"HTTP/1.1 503 ")
    gate.set()
    await client.until(b"0\r\n\r\n")
    assert h.server.held == 0
    client.close()


async def test_keep_alive_can_be_switched_off(house) -> None:
    h = await house()
    h.server.keep_alive = False
    assert b"connection: close\r\n" in await h.ask(POST)
