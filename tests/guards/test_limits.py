from __future__ import annotations

import asyncio
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.breaker import Breaker
from firewall.guards.cascade import Cascade
from firewall.guards.compose import AllOf
from firewall.guards.limits import SHORT, Limits
from firewall.guards.memory import Memory
from firewall.guards.queue import Queue
from firewall.guards.scripted import ScriptedGuard
from firewall.policy import PolicySet
from firewall.verdict import Finding, Span, Verdict, decide

from .cases import FRAUD, SET, asked, said


class Flaky(ScriptedGuard):
    """Fails with the given codes, one a call, then answers."""

    def __init__(self, *codes: str) -> None:
        super().__init__({"bomb": "weapons/1"}, delay=1e-9)
        self.codes, self.calls = list(codes), 0

    async def judge(self, case: Case) -> Verdict:
        self.calls += 1
        if self.codes and (code := self.codes.pop(0)):
            raise GuardDown(code)
        return await super().judge(case)


async def down(limits: Limits, case: Case | None = None) -> GuardDown:
    with pytest.raises(GuardDown) as e:
        await limits.judge(case or asked("x"))
    return e.value


async def test_late_is_down_within_the_deadline_and_cancelled() -> None:
    guard = ScriptedGuard(mode="hang")
    limits = Limits(guard, deadline=0.05)
    began = time.monotonic()
    assert (await down(limits)).code == "guard_timeout"
    assert time.monotonic() - began < 0.5 and guard.cancelled == 1


@pytest.mark.parametrize("code", ["guard_unreachable", "guard_error"])
async def test_one_retry_on_a_broken_connection(code: str) -> None:
    guard = Flaky(code)
    assert (await Limits(guard).judge(asked("bomb"))).score == 1.0 and guard.calls == 2
    guard = Flaky(code, code)
    assert (await down(Limits(guard))).code == code and guard.calls == 2


async def test_no_retry_for_other_failures() -> None:
    guard = Flaky("guard_unreadable")
    assert (await down(Limits(guard))).code == "guard_unreadable" and guard.calls == 1


async def test_breaker_opens_probes_and_closes() -> None:
    guard = ScriptedGuard(mode="dead")
    limits = Limits(guard, failures=3, cooldown=0.1)
    assert [(await down(limits)).code for _ in range(4)] == ["guard_unavailable"] * 3 + ["guard_breaker_open"]
    assert "3 failures" in limits.ready()
    began = time.monotonic()
    assert (await down(limits)).retry_after is not None and time.monotonic() - began < 0.5
    await asyncio.sleep(0.12)
    assert (await down(limits)).code == "guard_unavailable"          # the probe
    assert (await down(limits)).code == "guard_breaker_open"
    await asyncio.sleep(0.12)
    guard.mode = "ok"
    await limits.judge(asked("x"))
    assert limits.ready() == "" and limits.breaker.state(time.monotonic()) == "closed"


async def test_failures_that_a_text_provokes_do_not_open_the_breaker() -> None:
    limits = Limits(Flaky(*["guard_unreadable"] * 9), failures=3)
    assert {(await down(limits)).code for _ in range(9)} == {"guard_unreadable"}


async def test_a_cancelled_probe_lets_the_next_try() -> None:
    guard = ScriptedGuard(mode="dead")
    limits = Limits(guard, failures=1, cooldown=0.0)
    await down(limits)
    guard.mode = "hang"
    task = asyncio.create_task(limits.judge(asked("x")))
    await asyncio.sleep(0.01)
    assert (await down(limits)).code == "guard_breaker_open"
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    guard.mode = "ok"
    await limits.judge(asked("x"))


async def test_foreign_exceptions_and_lies_are_failures_not_answers() -> None:
    assert (await down(Limits(ScriptedGuard(mode="crash")))).code == "guard_crashed"
    assert (await down(Limits(ScriptedGuard(mode="lie")))).code == "guard_bad_answer"


@pytest.mark.parametrize("verdict", [
    Verdict("g", score=float("nan")), Verdict("g", (Finding("weapons/1", float("nan")),)),
    Verdict("g", (Finding("weapons/1", 1.5),)), Verdict("g", (Finding("weapons/9", 1.0),)),
    Verdict("g", (Finding("weapons/1", 1.0, (Span("messages/0/content", 0, 99),)),)),
    Verdict("g", (Finding("weapons/1", 1.0, (Span("elsewhere", 0, 1),)),)),
    Verdict("g", unsure=(("messages/0/content", -1),)),
])
async def test_impossible_verdicts(verdict: Verdict) -> None:
    class Liar(ScriptedGuard):
        async def judge(self, case: Case) -> Verdict:
            return verdict
    error = await down(Limits(Liar()))
    assert error.code == "guard_bad_answer"
    assert decide([], SET, [error]).action == "error"


async def test_cancelling_reaches_the_guard() -> None:
    guard = ScriptedGuard(mode="hang")
    limits = Limits(guard)
    task = asyncio.create_task(limits.judge(asked("x")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guard.cancelled == 1 and limits.queue.active == 0


async def test_full_queue_says_so_at_once() -> None:
    limits = Limits(ScriptedGuard(mode="hang"), slots=2)
    tasks = [asyncio.create_task(limits.judge(asked("x"))) for _ in range(10)]
    await asyncio.sleep(0.01)
    assert (limits.queue.active, limits.queue.waiting) == (2, 8)
    began = time.monotonic()
    error = await down(limits)
    assert error.code == "guard_overloaded" and error.retry_after and error.retry_after >= 1
    assert time.monotonic() - began < 0.5
    for t in tasks:
        t.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (limits.queue.active, limits.queue.waiting, dict(limits.queue.running)) == (0, 0, {})


async def test_waiting_in_line_is_no_failure_of_the_guard() -> None:
    """A long question of A holds every slot until B's time is up, or nearly: the breaker is none the wiser."""
    guard = ScriptedGuard(mode="hang")
    limits = Limits(guard, deadline=0.2, patience=0.1, slots=2, failures=3, memory=0)
    floods = [asyncio.create_task(limits.judge(asked("x" * 100_000, tenant="a"))) for _ in range(2)]
    await asyncio.sleep(0.01)
    errors = await asyncio.gather(*(down(limits, asked("x", tenant="b")) for _ in range(6)))
    assert {e.code for e in errors} == {"guard_overloaded"} and all(e.retry_after for e in errors)
    waiting = [asyncio.create_task(down(limits, asked("x", tenant="b"))) for _ in range(2)]
    await asyncio.sleep(0.16)                                   # A hangs up: 40 ms are left, and answers take longer
    for f in floods:
        f.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    assert [(await w).code for w in waiting] == ["guard_overloaded"] * 2
    assert limits.breaker.row == 0 and limits.ready() == guard.ready()
    guard.mode = "ok"
    await limits.judge(asked("x", tenant="b"))


async def test_a_hung_guard_opens_the_breaker_behind_a_line_too() -> None:
    limits = Limits(ScriptedGuard(mode="hang"), deadline=0.05, slots=1, failures=3)
    codes = [(await asyncio.gather(*(down(limits, asked("x")) for _ in range(3))))[0].code for _ in range(4)]
    assert codes == ["guard_timeout"] * 3 + ["guard_breaker_open"]


async def test_long_texts_do_not_shut_a_healthy_guard() -> None:
    """Not for others, not for themselves; and a guard that hangs is still told from a slow one."""
    guard = ScriptedGuard(mode="hang")
    limits = Limits(guard, deadline=0.03, failures=3, cooldown=0.05, memory=0)
    long = asked("x" * (SHORT + 1))
    assert {(await down(limits, long)).code for _ in range(5)} == {"guard_timeout"}
    assert limits.breaker.row == 0 and limits.ready() == guard.ready()
    assert [(await down(limits)).code for _ in range(4)] == ["guard_timeout"] * 3 + ["guard_breaker_open"]
    assert (await down(limits, long)).code == "guard_breaker_open"
    await asyncio.sleep(0.06)
    slow = asyncio.create_task(down(limits, long))              # takes no probe from short questions
    await asyncio.sleep(0.005)
    assert (await down(limits, long)).code == "guard_breaker_open"
    guard.mode = "ok"
    await limits.judge(asked("x"))
    assert limits.breaker.row == 0 and (await slow).code == "guard_timeout" and limits.breaker.row == 0
    guard.mode = "dead"                                         # a length breaks no connection
    assert [(await down(limits, long)).code for _ in range(4)] == ["guard_unavailable"] * 3 + ["guard_breaker_open"]
    await asyncio.sleep(0.06)
    guard.mode = "ok"
    await limits.judge(long)                                    # but if all are long, one of them ends it
    assert limits.breaker.row == 0


async def test_a_timeout_while_others_are_answered_is_no_failure() -> None:
    class Sticks(ScriptedGuard):
        async def judge(self, case: Case) -> Verdict:
            await asyncio.sleep(9 if "stick" in case.messages[0].text else 0)
            return Verdict("sticks")
    limits = Limits(Sticks(), deadline=0.05, failures=2, memory=0)
    for _ in range(3):
        stuck = asyncio.create_task(down(limits, asked("stick")))
        await asyncio.sleep(0.01)
        await limits.judge(asked("x"))
        assert (await stuck).code == "guard_timeout" and limits.breaker.row == 0


async def test_a_guards_own_timeout_is_its_failure() -> None:
    class Late(ScriptedGuard):
        async def judge(self, case: Case) -> Verdict:
            raise TimeoutError
    limits = Limits(Late(delay=1), failures=2)
    assert [(await down(limits)).code for _ in range(3)] == ["guard_timeout"] * 2 + ["guard_breaker_open"]


async def test_an_attacking_tenant_does_not_slow_another() -> None:
    """R11: B's p99 while A floods is at most twice its own pace (one of A's questions must end first)."""
    limits = Limits(ScriptedGuard(delay=0.02), slots=4, memory=0, deadline=5)

    async def attack() -> None:
        while True:
            try:
                await limits.judge(asked("x", tenant="a"))
            except GuardDown:
                await asyncio.sleep(0.001)
    floods = [asyncio.create_task(attack()) for _ in range(40)]
    await asyncio.sleep(0.05)
    took = []
    for _ in range(20):
        began = time.monotonic()
        await limits.judge(asked("y", tenant="b"))
        took.append(time.monotonic() - began)
    for f in floods:
        f.cancel()
    await asyncio.gather(*floods, return_exceptions=True)
    assert sorted(took)[10] < 2 * 0.02 + 0.03       # the middle, and 30 ms: a busy machine


async def test_tenants_share_the_slots_while_both_wait() -> None:
    queue = Queue(4, 40)
    order: list[str] = []

    async def ask(tenant: str) -> None:
        await queue.enter(tenant)
        order.append(tenant)
        assert not (queue._lines.get("a") and queue._lines.get("b")) or queue.running[tenant] <= 2 or len(order) <= 4
        await asyncio.sleep(0)
        queue.leave(tenant)
    await asyncio.gather(*(ask("a") for _ in range(20)), *(ask("b") for _ in range(20)))
    assert abs(order[4:24].count("a") - order[4:24].count("b")) <= 4


async def test_a_newcomer_takes_room_from_the_crowd() -> None:
    queue = Queue(1, 4)
    await queue.enter("a")
    crowd = [asyncio.create_task(queue.enter("a")) for _ in range(4)]
    await asyncio.sleep(0)
    other = asyncio.create_task(queue.enter("b"))
    await asyncio.sleep(0.01)
    assert isinstance(crowd[-1].exception(), GuardDown) and not other.done()
    for t in crowd:
        t.cancel()
    await asyncio.gather(*crowd, return_exceptions=True)
    queue.leave("a")
    await asyncio.wait_for(other, 1)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["enter", "leave", "cancel"])), max_size=60))
@settings(max_examples=60, deadline=None)
def test_the_queue_never_loses_a_slot(steps: list[tuple[str, str]]) -> None:
    async def run() -> None:
        queue = Queue(2, 3)
        inside: list[str] = []
        tasks: list[asyncio.Task[None]] = []

        async def come(tenant: str) -> None:
            await queue.enter(tenant)
            inside.append(tenant)
        for tenant, what in steps:
            if what == "enter":
                tasks.append(asyncio.create_task(come(tenant)))
            elif what == "leave" and inside:
                queue.leave(inside.pop(0))
            elif what == "cancel" and tasks:
                tasks.pop(len(tasks) // 2).cancel()
            await asyncio.sleep(0)
            assert 0 <= queue.active <= 2 and 0 <= queue.waiting <= 3
            assert queue.waiting == sum(map(len, queue._lines.values()))
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for tenant in inside:
            queue.leave(tenant)
        assert (queue.active, queue.waiting) == (0, 0) and not queue.running
    asyncio.run(run())


def test_breaker_is_pure() -> None:
    b = Breaker(2, 5)
    b.failed(0)
    b.succeeded()
    b.failed(1)
    assert b.admit(1) == 0 and b.state(1) == "closed"
    b.failed(1)
    assert b.state(2) == "open" and b.admit(2) == 4
    assert b.admit(6) == 0 and b.state(6) == "half-open" and b.admit(6) > 0
    b.failed(6)
    assert b.state(10.9) == "open" and b.state(11.1) == "half-open"


async def test_memory_answers_the_same_question_only() -> None:
    guard = Flaky()
    limits = Limits(guard)
    first = await limits.judge(asked("bomb", tenant="t", boundary="b1"))
    again = limits.known(asked("bomb", tenant="t", boundary="b2"))
    assert again is not None and again.findings == first.findings and again.path[-1] == "memory"
    assert (again.ms, again.tokens) == (0.0, 0)
    for other in (asked("bomb", tenant="u"), asked("bomb!", tenant="t"), asked("bo", "mb", tenant="t"),
                  asked("bomb", tenant="t", policies=PolicySet.of([FRAUD])), said("bomb", whole=True, tenant="t")):
        assert limits.known(other) is None
    await limits.judge(said("bomb"))
    assert limits.known(said("bomb")) is None                       # partial answers are not remembered
    await limits.close()
    assert limits.known(asked("bomb", tenant="t")) is None


async def test_a_guard_whose_rules_may_change_unseen_is_not_remembered() -> None:
    guard, flaky = Flaky(), Flaky()
    flaky.steady = False                                        # type: ignore[attr-defined]
    for one in (flaky, AllOf(guard, flaky), Cascade((guard, flaky)), Limits(flaky)):
        limits = Limits(one)
        await limits.judge(asked("bomb"))
        assert limits.known(asked("bomb")) is None
    assert Limits(AllOf(guard, guard)).memory.entries and Limits(Cascade((guard, guard))).memory.entries


def test_memory_is_bounded() -> None:
    memory = Memory(entries=10, size=10_000)
    for i in range(100):
        memory.put(memory.key(asked(str(i)), "f"), Verdict("g", reason="x" * (i * 10)))
        assert len(memory) <= 10 and memory.held <= 10_000
    memory.put(memory.key(asked("big"), "f"), Verdict("g", reason="x" * 10_000))
    assert memory.get(memory.key(asked("big"), "f")) is None
    assert memory.get(memory.key(asked("99"), "other")) is None


@given(st.lists(st.text(max_size=3), max_size=4), st.lists(st.text(max_size=3), max_size=4))
def test_no_two_cases_share_a_key(one: list[str], two: list[str]) -> None:
    memory = Memory()
    same = memory.key(asked(*one), "f") == memory.key(asked(*two), "f")
    assert same == (one == two)


@pytest.mark.parametrize("how", ["timeout", "refused", "status", "parse", "breaker"])
async def test_every_way_to_fail_ends_closed(how: str) -> None:
    """cases.md J10: no verdict, whatever the reason, and `decide` turns it into an error, never an allow."""
    from aiohttp import web

    from firewall.guards.webhook import WebhookGuard

    from .server import serving

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if how == "timeout":
            await asyncio.sleep(5)
        return web.Response(status=404 if how == "status" else 200, body=b"hm")
    async with serving(answer) as url:
        guard = Limits(WebhookGuard("http://127.0.0.1:9" if how == "refused" else url), deadline=0.2, failures=1)
        if how == "breaker":
            await down(guard)
        error = await down(guard)
        await guard.close()
    known = {"timeout": "guard_timeout", "refused": "guard_unreachable", "breaker": "guard_breaker_open"}
    assert error.code == known.get(how, "guard_bad_answer")
    assert error.status == 503 and error.retry_after
    assert decide([], SET, [error]).action == "error" and decide([Verdict("g")], SET, [error]).action == "error"
