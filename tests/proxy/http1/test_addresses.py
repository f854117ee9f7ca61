"""Names and what they lead to: nobody waits for another origin's nameserver, nor for an address that is silent."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from conftest import until
from test_client import ask

from firewall.proxy.http1 import Origin, Pool, UpstreamLimits, addresses
from firewall.proxy.http1.addresses import Addresses


class Names:
    """A resolver whose answers a test decides: a list of addresses, an error, or an event that it waits for before it
    has none."""

    def __init__(self) -> None:
        self.known: dict[str, list[str] | OSError | threading.Event] = {}
        self.asked: list[str] = []

    def look(self, host: str, port: int, *args: object, flags: int = 0, **kinds: object) -> list[tuple]:
        if flags & socket.AI_NUMERICHOST:
            raise socket.gaierror(socket.EAI_NONAME, "not numeric")
        self.asked.append(host)
        answer = self.known[host]
        if isinstance(answer, threading.Event):
            answer.wait()
            answer = socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        if isinstance(answer, OSError):
            raise answer
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in answer]


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> Iterator[Names]:
    names = Names()
    monkeypatch.setattr(addresses.socket, "getaddrinfo", names.look)
    yield names
    for answer in names.known.values():
        if isinstance(answer, threading.Event):
            answer.set()


async def took(names: Addresses) -> tuple[list[str], float]:
    start = time.perf_counter()
    return [info[4][0] for info in await names.get()], time.perf_counter() - start


async def test_a_silent_nameserver_holds_up_its_own_origin_alone(house, names: Names) -> None:
    h = await house()
    names.known |= {"dead.test": threading.Event(), "alive.test": ["127.0.0.1"]}
    dead = Pool(Origin.parse("http://dead.test:1"), UpstreamLimits(connect_timeout=0.4))
    alive = Pool(Origin.parse(f"http://alive.test:{h.fake.port}"))
    waiting = [(await ask(dead, wait=False))[0] for _ in range(24)]
    ear, _ = await ask(alive)
    assert ear.body == b"/v1/x"
    await asyncio.gather(*(each.over.wait() for each in waiting))
    assert {each.error.code for each in waiting} == {"upstream_timeout"}
    assert names.asked == ["dead.test", "alive.test"]           # one lookup, however many wait
    await asyncio.gather(dead.close(), alive.close())


async def test_an_answer_is_kept_and_serves_on_when_the_next_lookup_does_not_come(
        names: Names, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(addresses, "PATIENCE", 0.4)
    names.known["a.test"] = ["127.0.0.1"]
    a = Addresses("a.test", 80)
    for _ in range(3):
        assert (await took(a))[0] == ["127.0.0.1"] and names.asked == ["a.test"]
    names.known["a.test"] = socket.gaierror(socket.EAI_NONAME, "gone")
    a._until = 0.0
    assert (await took(a))[0] == ["127.0.0.1"] and len(names.asked) == 2
    names.known["a.test"] = silent = threading.Event()
    found, first = await took(a)
    assert found == ["127.0.0.1"] and first > 0.3
    assert (await took(a))[1] < 0.3 and len(names.asked) == 3          # the patience is one for all that wait
    names.known["a.test"] = ["127.0.0.2", "127.0.0.3"]
    silent.set()
    await until(lambda: a._asked is None)
    assert (await took(a))[0] == ["127.0.0.2", "127.0.0.3"]


async def test_no_address_at_all(names: Names) -> None:
    names.known["no.test"] = socket.gaierror(socket.EAI_NONAME, "Name or service not known")
    pool = Pool(Origin.parse("http://no.test"))
    ear, call = await ask(pool)
    assert ear.error.code == "upstream_connect" and ear.error.detail == "connect to no.test:80: Name or service not known"
    assert call.attempt == 1
    await pool.close()


async def test_the_next_address_is_tried_beside_a_silent_one(house, names: Names) -> None:
    h = await house()
    with socket.socket() as full:
        full.bind(("127.0.0.2", h.fake.port))
        full.listen(0)
        waiting = [socket.socket() for _ in range(4)]
        for each in waiting:                # fill the accept queue: further SYNs are dropped
            each.setblocking(False)
            each.connect_ex(full.getsockname())
        names.known["two.test"] = ["127.0.0.2", "127.0.0.1"]
        pool = Pool(Origin.parse(f"http://two.test:{h.fake.port}"), UpstreamLimits(connect_timeout=2))
        ear, call = await ask(pool)
        assert ear.body == b"/v1/x" and call.attempt == 0
        (link,) = pool._links
        sock = link.transport.get_extra_info("socket")
        assert sock.getpeername()[0] == "127.0.0.1" and sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        await pool.close()
        for each in waiting:
            each.close()


def test_a_literal_address_is_not_looked_up() -> None:
    for host in ("127.0.0.1", "::1"):
        (info,) = Addresses(host, 80)._found
        assert info[4][:2] == (host, 80)
