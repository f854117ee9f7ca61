"""Mutation fuzzing of both parsers' glue (cases.md P10): `pytest -m slow tests/proxy/http1/test_fuzz.py`.

Seeds are the cases of the other files. Each mutant is read whole and cut at random: the same answer, no exception
but FirewallError, and where h11 takes the message too, the same message. FUZZ_SECONDS (default 20 a parser); the same
mutants in every run, others with FUZZ_SEED=n, new ones with FUZZ_SEED=0.
"""

from __future__ import annotations

import os
import random
import time

import h11
import pytest
import test_request as ours
import test_response as theirs

pytestmark = [pytest.mark.slow, pytest.mark.timeout(0)]
SECONDS = float(os.environ.get("FUZZ_SECONDS", "20"))
SEED = int(os.environ.get("FUZZ_SEED", "1")) or random.SystemRandom().randrange(1 << 32)

SPICE = [b"\r\n", b"\n", b"\r", b"\0", b" ", b"\t", b":", b",", b";", b"0", b"_", b"+", b"\xff", b"\x0b", b"chunked",
         b"Content-Length: 3\r\n", b"Transfer-Encoding: chunked\r\n", b"Host: b\r\n", b"\r\n\r\n", b"0\r\n\r\n",
         b"HTTP/1.1", b"x" * 210, b"Connection: close\r\n", b"Upgrade: h2c\r\n", b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
         b"HTTP/1.1 200 OK\r\n", b"5\r\nhello\r\n"]


def mutate(pick: random.Random, seeds: list[bytes]) -> bytes:
    data = bytearray(pick.choice(seeds))
    for _ in range(pick.randrange(1, 5)):
        at = pick.randrange(len(data) + 1)
        kind = pick.randrange(6)
        if kind == 0:
            data[at:at] = pick.choice(SPICE)
        elif kind == 1:
            del data[at:at + pick.randrange(1, 9)]
        elif kind == 2 and at < len(data):
            data[at] = pick.randrange(256)
        elif kind == 3:
            data[at:at + pick.randrange(9)] = pick.choice(SPICE)
        elif kind == 4:
            other = pick.choice(seeds)
            data[at:] = other[pick.randrange(len(other)):]
        else:
            end = at + pick.randrange(1, 40)
            data[at:at] = data[at:end]
    return bytes(data)


def cuts(pick: random.Random, data: bytes) -> list[bytes]:
    return ours.cut(data, [pick.randrange(len(data) + 1) for _ in range(pick.randrange(1, 6))])


def h11_request(raw: bytes) -> tuple | None:
    """(method, target, body) of the first request, or None when h11 will not have it or wants more."""
    try:
        method, target, _, body = ours.by_h11(raw)
    except (h11.ProtocolError, AssertionError, ValueError):
        return None
    return method, target, body


def test_requests() -> None:
    pick = random.Random(SEED)
    seeds = [raw for raw, _ in ours.REFUSED.values()] + list(ours.LEGAL.values()) * 3
    end, count, agreed = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        data = mutate(pick, seeds)
        whole = ours.read([data])
        pieces = cuts(pick, data)
        assert ours.read(pieces) == whole, (SEED, data, pieces)
        count += 1
        if whole and len(whole[0]) == 9:
            other = h11_request(data)
            if other is not None:
                method, target, *_, body, _, _ = whole[0]
                assert (method, target, body) == other, (SEED, data)
                agreed += 1
    print(f"{count} mutants, h11 agreed on {agreed}, seed {SEED}")
    assert count > 1000 * SECONDS / 20 and agreed


def test_responses() -> None:
    pick = random.Random(SEED)
    seeds = [a[0] for a in theirs.ANSWERS.values()] * 3 + list(theirs.REFUSED.values())
    end, count, agreed = time.monotonic() + SECONDS, 0, 0
    while time.monotonic() < end:
        data = mutate(pick, seeds)
        whole = theirs.read([data])
        pieces = cuts(pick, data)
        cut = theirs.read(pieces)
        # trailers are bounded by what comes without a body in a row, and one segment: in a single one longer ones pass
        long = len(data) > theirs.SMALL.max_head and cut == ("upstream_protocol",)
        assert cut == whole or long, (SEED, data, pieces)
        count += 1
        if len(whole) == 5 and whole[3]:
            other = h11_response(data)
            if other is not None:
                assert other == (whole[0], whole[2]), (SEED, data)
                agreed += 1
    print(f"{count} mutants, h11 agreed on {agreed}, seed {SEED}")
    assert count > 1000 * SECONDS / 20 and agreed


def h11_response(raw: bytes) -> tuple | None:
    peer = h11.Connection(h11.CLIENT)
    peer.send(h11.Request(method="GET", target="/", headers=[("Host", "a")]))
    peer.send(h11.EndOfMessage())
    body = b""
    try:
        peer.receive_data(raw)
        peer.receive_data(b"")
        event = peer.next_event()
        while isinstance(event, h11.InformationalResponse):
            event = peer.next_event()
        status = event.status_code
        while isinstance(event := peer.next_event(), h11.Data):
            body += bytes(event.data)
    except (h11.ProtocolError, AttributeError):
        return None
    return (status, body) if isinstance(event, h11.EndOfMessage) else None
