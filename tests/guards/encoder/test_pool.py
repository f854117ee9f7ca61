"""Worker threads: order of results, turns, bounds, cancellation, failure."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from firewall.errors import GuardDown
from firewall.guards.encoder.pool import Pool


@pytest_asyncio.fixture
async def pool() -> AsyncIterator[Pool]:
    one = Pool(1, room=8)
    one.start()
    yield one
    await asyncio.to_thread(one.close)


async def test_results_come_in_order(pool: Pool) -> None:
    assert await pool.run([lambda i=i: i * i for i in range(20)]) == [i * i for i in range(20)]
    assert await pool.run([]) == []


async def test_a_long_case_lets_a_short_one_pass(pool: Pool) -> None:
    done: list[str] = []
    gate = threading.Event()
    long = asyncio.create_task(pool.run([gate.wait, *(lambda i=i: done.append(f"long{i}") for i in range(6))]))
    await asyncio.sleep(0.02)
    short = asyncio.create_task(pool.run([lambda: done.append("short")]))
    await asyncio.sleep(0.02)
    gate.set()
    await asyncio.gather(long, short)
    assert done.index("short") == 0


async def test_a_full_queue_is_a_failure_of_the_guard(pool: Pool) -> None:
    gate = threading.Event()
    running = asyncio.create_task(pool.run([gate.wait], "a"))
    await asyncio.sleep(0.02)
    waiting = [asyncio.create_task(pool.run([lambda: 1], "a")) for _ in range(8)]
    await asyncio.sleep(0.02)
    with pytest.raises(GuardDown, match="queue full") as caught:
        await pool.run([lambda: 1], "a")
    assert caught.value.code == "guard_overloaded"
    other = asyncio.create_task(pool.run([lambda: 2], "b"))         # the line of one tenant is not that of another
    await asyncio.sleep(0.02)
    gate.set()
    assert await other == [2] and await asyncio.gather(*waiting) == [[1]] * 8
    await running
    assert await pool.run([lambda: 1], "a") == [1] and pool.waiting == 0


async def test_a_case_of_any_length_turns_nobody_away(pool: Pool) -> None:
    gate = threading.Event()
    done: list[str] = []
    long = asyncio.create_task(pool.run([gate.wait, *[lambda: done.append("long")] * 1000]))
    await asyncio.sleep(0.02)
    short = [asyncio.create_task(pool.run([lambda i=i: done.append(f"short{i}")])) for i in range(4)]
    await asyncio.sleep(0.02)
    assert pool.waiting == 1004
    gate.set()
    await asyncio.gather(*short)
    assert max(done.index(f"short{i}") for i in range(4)) <= 4
    await long
    assert done.count("long") == 1000


async def test_tenants_take_turns_however_many_cases_one_has(pool: Pool) -> None:
    gate = threading.Event()
    done: list[str] = []
    first = asyncio.create_task(pool.run([gate.wait], "a"))
    await asyncio.sleep(0.02)
    many = [asyncio.create_task(pool.run([lambda: done.append("a")] * 5, "a")) for _ in range(8)]
    await asyncio.sleep(0.02)
    one = asyncio.create_task(pool.run([lambda: done.append("b")] * 3, "b"))
    await asyncio.sleep(0.02)
    gate.set()
    await asyncio.gather(first, one, *many)
    assert [n for n, name in enumerate(done) if name == "b"] == [0, 2, 4] and len(done) == 43


async def test_one_case_uses_all_workers() -> None:
    pool = Pool(3, room=8)
    pool.start()
    together = threading.Barrier(3, timeout=5)
    assert len(await pool.run([together.wait] * 6)) == 6
    await asyncio.to_thread(pool.close)


async def test_cancelling_drops_what_did_not_start(pool: Pool) -> None:
    ran: list[int] = []
    gate = threading.Event()
    task = asyncio.create_task(pool.run([gate.wait, *(lambda i=i: ran.append(i) for i in range(5))]))
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    gate.set()
    await pool.run([lambda: time.sleep(0.01)])
    assert ran == [] and pool.waiting == 0


async def test_a_crash_is_named_without_its_words(pool: Pool) -> None:
    def crash() -> None:
        raise RuntimeError("the user's text")
    with pytest.raises(GuardDown) as caught:
        await pool.run([lambda: 1, crash, lambda: 3])
    assert caught.value.code == "guard_crashed" and "user's text" not in str(caught.value)
    assert await pool.run([lambda: 2]) == [2]


async def test_closing_fails_those_who_wait() -> None:
    pool = Pool(1, room=8)
    pool.start()
    gate = threading.Event()
    busy = asyncio.create_task(pool.run([gate.wait]))
    await asyncio.sleep(0.02)
    waiting = asyncio.create_task(pool.run([lambda: 1]))
    await asyncio.sleep(0.02)
    closing = asyncio.create_task(asyncio.to_thread(pool.close))
    with pytest.raises(GuardDown):
        await waiting
    gate.set()
    await closing
    await asyncio.gather(busy, return_exceptions=True)
    with pytest.raises(GuardDown):
        await pool.run([lambda: 1])
