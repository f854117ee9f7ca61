"""The upstream client over real sockets: reuse, retry, endings, hostile upstreams (cases.md E10, M01, R8, R15)."""

from __future__ import annotations

import asyncio
import socket

import pytest
from conftest import OK, Fake, answers, read_request, until

from firewall.errors import FirewallError
from firewall.proxy.http1 import Call, Origin, Pool, UpstreamLimits
from firewall.proxy.http1.link import Link


class Ear:
    """A sink that remembers."""

    def __init__(self) -> None:
        self.events: list[tuple] = []
        self.body = b""
        self.over = asyncio.Event()

    def head(self, status: int, headers: tuple) -> None:
        self.events.append(("head", status))
        self.headers = headers

    def data(self, raw: bytes) -> None:
        self.body += raw

    def end(self, complete: bool) -> None:
        self.events.append(("end", complete))
        self.over.set()

    def fail(self, error: FirewallError) -> None:
        self.events.append(("fail", error.code))
        self.error = error
        self.over.set()


async def ask(pool: Pool, body: bytes = b"abc", method: bytes = b"POST", wait: bool = True) -> tuple[Ear, Call]:
    ear = Ear()
    call = pool.send(method, b"/v1/x", b"", body, ear)
    assert ear.events == []  # never from inside send
    if wait:
        await asyncio.wait_for(ear.over.wait(), 3)
    return ear, call


def plays(*scripts: bytes, close: bool = True):
    """One answer for each request; the connection closes after the last (or stays open)."""
    async def play(fake: Fake, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for script in scripts:
            fake.got.append(await read_request(reader))
            writer.write(script)
        if not close:
            await reader.read()
    return play


async def test_the_request_as_it_leaves(house) -> None:
    h = await house()
    await ask(h.pool, b"", b"GET")
    ear = Ear()
    h.pool.send(b"POST", b"/v1/y?z=1", b"x-a: 1\r\n", b"", ear)
    await ear.over.wait()
    assert h.fake.got == [b"GET /v1/x HTTP/1.1\r\nhost: 127.0.0.1:%d\r\n\r\n" % h.fake.port,
                          b"POST /v1/y?z=1 HTTP/1.1\r\nhost: 127.0.0.1:%d\r\nx-a: 1\r\n"
                          b"content-length: 0\r\n\r\n" % h.fake.port]
    assert ear.events == [("head", 200), ("end", True)] and ear.body == b"/v1/y?z=1" and h.fake.opened == 1


async def test_a_large_body(house) -> None:
    h = await house()
    await ask(h.pool, b"x" * 3_000_000)
    assert h.fake.got[0].endswith(b"\r\n\r\n" + b"x" * 3_000_000)


NOT_REUSED = {
    "byte too many": OK + b"!",
    "second answer": OK + OK,
    "connection close": b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok",
    "HTTP/1.0": b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok",
}


@pytest.mark.parametrize("name", NOT_REUSED)
async def test_no_reuse(house, name: str) -> None:
    h = await house(plays(NOT_REUSED[name], close=False))
    for _ in range(2):
        ear, _ = await ask(h.pool)
        assert ear.events == [("head", 200), ("end", True)] and ear.body == b"ok"
    assert h.fake.opened == 2 and h.pool.idle == 0


async def test_reuse_after_chunks_204_and_errors(house) -> None:
    h = await house(plays(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n",
                          b"HTTP/1.1 204 No Content\r\n\r\n", b"HTTP/1.1 500 Oops\r\nContent-Length: 1\r\n\r\nx",
                          b"HTTP/1.1 103 Hints\r\n\r\n" + OK, close=False))
    seen = [(await ask(h.pool))[0].events[0][1] for _ in range(4)]
    assert seen == [200, 204, 500, 200] and h.fake.opened == 1 and h.pool.idle == 1


async def test_bytes_on_an_idle_connection_close_it(house) -> None:
    async def talks(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(OK)
        await asyncio.sleep(0.05)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil")
        await reader.read()

    h = await house(talks)
    await ask(h.pool)
    await until(lambda: h.pool.connections == 0)
    ear, _ = await ask(h.pool)
    assert ear.body == b"ok" and h.fake.opened == 2


async def test_an_early_answer_ends_the_connection(house) -> None:
    async def early(fake: Fake, reader, writer) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 413 Too Large\r\nContent-Length: 2\r\n\r\nno")
        await asyncio.sleep(0.2)

    h = await house(early)
    ear, _ = await ask(h.pool, b"x" * 30_000_000)
    assert ear.events == [("head", 413), ("end", True)] and h.pool.idle == 0


ENDINGS = {  # what the upstream says before it closes -> events, body, eof_delimited
    "EOF-delimited": (b"HTTP/1.1 200 OK\r\n\r\nabc", [("head", 200), ("end", True)], b"abc", True),
    "short length": (b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nabc",
                     [("head", 200), ("end", False)], b"abc", False),
    "no last chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
                      [("head", 200), ("end", False)], b"abc", False),
    "half a chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabc",
                     [("head", 200), ("end", False)], b"abc", False),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", [("fail", "upstream_closed")], b"", False),
    "nothing": (b"", [("fail", "upstream_closed")], b"", False),
    "not HTTP": (b"hello\r\n\r\n", [("fail", "upstream_protocol")], b"", False),
    "101": (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\n\r\n", [("fail", "upstream_protocol")], b"", False),
    "bad chunk": (b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n",
                  [("fail", "upstream_protocol")], b"", False),
}


@pytest.mark.parametrize("name", ENDINGS)
async def test_endings(house, name: str) -> None:
    script, events, body, eof = ENDINGS[name]
    h = await house(plays(script))
    ear, call = await ask(h.pool)
    assert (ear.events, ear.body, call.eof_delimited) == (events, body, eof) and call.done
    assert h.fake.opened == 1  # a POST is not sent twice
    await until(lambda: h.pool.connections == 0)


async def test_m01_redirects_are_just_a_status(house) -> None:
    h = await house(plays(b"HTTP/1.1 307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/\r\n"
                          b"Content-Length: 0\r\nSet-Cookie: a=b\r\n\r\n", OK, close=False))
    first, _ = await ask(h.pool)
    assert first.events == [("head", 307), ("end", True)]
    assert (b"location", b"http://127.0.0.1:1/") in first.headers
    await ask(h.pool)
    assert h.fake.opened == 1 and b"cookie" not in h.fake.got[1].lower()


async def test_refused_connections_are_tried_twice() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        pool = Pool(Origin.parse(f"http://127.0.0.1:{free.getsockname()[1]}"))
        ear, call = await ask(pool)
    assert ear.events == [("fail", "upstream_connect")] and call.attempt == 1
    assert (ear.error.status, ear.error.fault) == (502, "upstream")
    await pool.close()


async def test_connecting_has_a_deadline() -> None:
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:  # fill the accept queue: further SYNs are dropped
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        pool = Pool(Origin.parse(f"http://127.0.0.1:{full.getsockname()[1]}"), UpstreamLimits(connect_timeout=0.3))
        ear, _ = await ask(pool)
        assert ear.events == [("fail", "upstream_timeout")] and ear.error.detail == "connect"
        await pool.close()
        for each in waiting:
            each.close()


@pytest.mark.parametrize("method", [b"GET", b"POST"])
async def test_r15_a_request_on_a_dying_connection(house, method: bytes) -> None:
    """Reused, and reset before a byte of an answer: only what is safe to repeat is sent again."""
    async def dies(fake: Fake, reader, writer) -> None:
        for n in range(2):
            fake.got.append(await read_request(reader))
            if fake.opened == 1 and n == 1:
                return
            writer.write(OK)

    h = await house(dies)
    await ask(h.pool)
    ear, call = await ask(h.pool, b"abc" if method == b"POST" else b"", method)
    if method == b"GET":
        assert ear.events == [("head", 200), ("end", True)] and call.attempt == 1 and h.fake.opened == 2
    else:  # its bytes were read by the other side: the prompt may have been processed
        assert ear.events == [("fail", "upstream_closed")] and h.fake.opened == 1


async def test_r15_a_post_that_met_a_closed_door_is_sent_again(house, monkeypatch) -> None:
    """The server had closed the idle connection when our bytes came: nothing of them was acknowledged."""
    async def once(fake: Fake, reader, writer) -> None:
        fake.got.append(await read_request(reader))
        writer.write(OK)
        await writer.drain()
        await asyncio.sleep(0.05)
        if fake.opened > 1:
            await reader.read()

    h = await house(once)
    await ask(h.pool)
    monkeypatch.setattr(Link, "healthy", True)      # else it would be seen, unread as it is
    (link,) = h.pool._idle
    link.transport.pause_reading()  # as if the FIN were still on its way
    await h.fake.closed.wait()
    await asyncio.sleep(0.02)
    ear, call = await ask(h.pool, wait=False)
    await asyncio.sleep(0)
    if not ear.over.is_set():
        link.transport.resume_reading()
    await asyncio.wait_for(ear.over.wait(), 3)
    assert ear.events in ([("head", 200), ("end", True)], [("fail", "upstream_closed")])  # FIN first, or the reset
    assert len(h.fake.got) == (2 if call.attempt else 1)


async def test_cancel_closes_at_once(house) -> None:
    async def stream(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n")
        await reader.read()

    h = await house(stream)
    ear, call = await ask(h.pool, wait=False)
    await until(lambda: ear.body == b"hi")
    call.cancel()
    call.cancel()
    await asyncio.wait_for(h.fake.closed.wait(), 0.5)
    assert ear.events == [("head", 200)]
    call.pause()
    call.resume()
    ear, call = await ask(h.pool, wait=False)  # before there is a connection
    call.cancel()
    await asyncio.sleep(0.05)
    assert ear.events == [] and h.pool.pending == set()


async def test_cancel_from_inside_the_callbacks(house) -> None:
    h = await house(plays(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello", close=False))
    for place in ("head", "data"):
        ear = Ear()
        call = h.pool.send(b"POST", b"/", b"", b"", ear)
        usual = getattr(ear, place)
        setattr(ear, place, lambda *a, usual=usual, call=call: (usual(*a), call.cancel()))
        await until(lambda ear=ear: bool(ear.events) and h.pool.connections == 0)
        assert ear.events == [("head", 200)] and call.done


async def test_a_sink_that_breaks_ends_its_call(house) -> None:
    h = await house()
    ear = Ear()
    ear.data = lambda raw: 1 / 0
    h.pool.send(b"POST", b"/", b"", b"", ear)
    await ear.over.wait()
    assert ear.events == [("head", 200), ("fail", "internal")] and "ZeroDivision" in ear.error.detail


async def test_pause_and_resume(house) -> None:
    async def flood(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 30000000\r\n\r\n" + b"x" * 30_000_000)
        await writer.drain()

    h = await house(flood)
    ear, call = await ask(h.pool, wait=False)
    await until(lambda: len(ear.body) > 0)
    call.pause()
    await asyncio.sleep(0.02)
    stood = len(ear.body)
    await asyncio.sleep(0.1)
    assert len(ear.body) == stood < 30_000_000
    call.resume()
    await asyncio.wait_for(ear.over.wait(), 3)
    assert len(ear.body) == 30_000_000 and ear.events[-1] == ("end", True)


async def test_the_connection_limit_makes_calls_wait_in_order(house) -> None:
    h = await house(upstream=UpstreamLimits(max_connections=2))
    ears = [(await ask(h.pool, b"%d" % n, wait=False))[0] for n in range(9)]
    for ear in ears:
        await asyncio.wait_for(ear.over.wait(), 2)
        assert ear.events == [("head", 200), ("end", True)]
    assert h.fake.opened == 2 and h.pool.idle == 2


async def test_waiting_calls_get_a_new_connection_when_one_dies(house) -> None:
    h = await house(plays(b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok"),
                    upstream=UpstreamLimits(max_connections=1))
    ears = [(await ask(h.pool, wait=False))[0] for _ in range(4)]
    for ear in ears:
        await asyncio.wait_for(ear.over.wait(), 2)
        assert ear.body == b"ok"
    assert h.fake.opened == 4


async def test_close_fails_what_is_under_way(house) -> None:
    async def silent(fake: Fake, reader, writer) -> None:
        await read_request(reader)
        await reader.read()

    h = await house(silent)
    ear, _ = await ask(h.pool, wait=False)
    await until(lambda: h.fake.opened == 1)
    await h.pool.close()
    assert ear.events == [("fail", "upstream_unavailable")]
    ear, _ = await ask(h.pool)
    assert ear.events == [("fail", "upstream_unavailable")]


async def test_idle_connections_are_bounded(house) -> None:
    h = await house(upstream=UpstreamLimits(max_idle=3))
    ears = [(await ask(h.pool, wait=False))[0] for _ in range(8)]
    for ear in ears:
        await ear.over.wait()
    await until(lambda: h.pool.connections == 3)
    assert h.pool.idle == 3


async def test_a_sweep_between_connecting_and_asking_spares_the_connection(house, monkeypatch) -> None:
    """On a busy loop the clock is looked at while a connection is up and its call has not begun."""
    joined = Pool.joined

    def swept(pool: Pool, link) -> None:
        joined(pool, link)
        link.sweep(pool.now)
    monkeypatch.setattr(Pool, "joined", swept)
    h = await house(plays(OK))
    ear, _ = await ask(h.pool)
    assert ear.events == [("head", 200), ("end", True)]


@pytest.mark.parametrize(("url", "shape"), [
    ("http://api.example", ("http", "api.example", 80, "", b"api.example")),
    ("http://127.0.0.1:8000/", ("http", "127.0.0.1", 8000, "", b"127.0.0.1:8000")),
    ("https://api.example/openai/", ("https", "api.example", 443, "/openai", b"api.example")),
    ("https://api.example:444", ("https", "api.example", 444, "", b"api.example:444")),
    ("http://[::1]:81", ("http", "::1", 81, "", b"[::1]:81"))])
def test_origins(url: str, shape: tuple) -> None:
    o = Origin.parse(url)
    assert (o.scheme, o.host, o.port, o.prefix, o.authority) == shape
    assert (o.ssl is not None) == (o.scheme == "https")


@pytest.mark.parametrize("url", ["", "api.example", "ftp://a", "http://", "http://u:p@a", "http://a?x=1", "http://a#x",
                                 "http://a:99999", "http://a:b", "http://a b", "http://a/b\r\nc", "http://a%0d"])
def test_wrong_origins(url: str) -> None:
    with pytest.raises(FirewallError) as caught:
        Origin.parse(url)
    assert caught.value.fault == "ours" and "u:p" not in str(caught.value)


async def test_the_environment_is_not_asked(house, monkeypatch) -> None:
    for name in ("http_proxy", "HTTP_PROXY", "ALL_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    h = await house(answers)
    assert (await ask(h.pool))[0].body == b"/v1/x"
