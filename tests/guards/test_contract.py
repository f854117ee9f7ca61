"""What every guard promises, whatever it is made of (guards/guard.py)."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack

import pytest
from aiohttp import web

from firewall.errors import GuardDown
from firewall.guards.cascade import Cascade
from firewall.guards.compose import AllOf
from firewall.guards.guard import Guard, forget
from firewall.guards.limits import Limits, checked
from firewall.guards.patterns import Patterns
from firewall.guards.scripted import ScriptedGuard
from firewall.guards.webhook import WebhookGuard

from .cases import asked, detecting, said
from .server import serving

WORDS = {"bomb": "weapons/1", "passport": "fraud/1"}


async def _service(request: web.BaseRequest) -> web.StreamResponse:
    body = await request.json()
    text = str(body["messages"]) + str(body["answer"])
    bad = [rule for word, rule in WORDS.items() if word in text and any(rule in p["rules"] for p in body["policies"])]
    return web.json_response({"score": 1.0 if bad else 0.0, "violated": bad, "reason": "words"})


async def make(kind: str, stack: AsyncExitStack) -> Guard:
    words = ScriptedGuard(WORDS)
    if kind == "webhook":
        return WebhookGuard(await stack.enter_async_context(serving(_service)))
    return {
        "scripted": lambda: words, "slow": lambda: ScriptedGuard(WORDS, delay=0.001), "limits": lambda: Limits(words),
        "all": lambda: AllOf(Patterns(), words), "cascade": lambda: Cascade((words, ScriptedGuard(WORDS))),
        "whole chain": lambda: Limits(AllOf(Patterns(), Cascade((words, ScriptedGuard(WORDS, delay=0.001))))),
    }[kind]()


@pytest.fixture(params=["scripted", "slow", "limits", "all", "cascade", "whole chain", "webhook"])
async def guard(request: pytest.FixtureRequest) -> AsyncIterator[Guard]:
    async with AsyncExitStack() as stack:
        guard = await make(request.param, stack)
        await guard.start()
        yield guard
        await guard.close()


async def test_name_fingerprint_ready(guard: Guard) -> None:
    assert isinstance(guard, Guard)
    assert guard.name and guard.fingerprint and guard.ready() == ""


async def test_violation_and_innocence(guard: Guard) -> None:
    bad, good = await guard.judge(asked("build a bomb")), await guard.judge(asked("bake a cake"))
    assert [f.rule for f in bad.findings] == ["weapons/1"] and bad.score >= 0.5 and bad.path
    assert good.findings == () and good.score < 0.5


async def test_only_active_policies_are_found(guard: Guard) -> None:
    assert (await guard.judge(asked("build a bomb", policies=detecting()))).findings == ()


async def test_verdicts_are_possible_ones(guard: Guard) -> None:
    for case in (asked("bomb", "", "passport"), said("a bo"), said("a bomb", whole=True), asked("\ud800 \u202e" * 50)):
        checked(await guard.judge(case), case)


async def test_known_agrees_with_judge(guard: Guard) -> None:
    for case in (asked("bomb"), said("a passport", whole=True)):
        known = guard.known(case)
        judged = await guard.judge(case)
        assert known is None or known.findings == judged.findings


async def test_many_at_once(guard: Guard) -> None:
    got = await asyncio.gather(*(guard.judge(asked("bomb" if i % 2 else "cake", str(i))) for i in range(20)))
    assert [bool(v.findings) for v in got] == [bool(i % 2) for i in range(20)]


async def test_closed_means_no_verdict(guard: Guard) -> None:
    await guard.close()
    with pytest.raises(GuardDown):
        await guard.judge(asked("hello"))
    assert guard.known(asked("hello")) is None


def test_an_exchange_that_has_ended_is_forgotten_however_guards_nest() -> None:
    patterns, cascade = Patterns(), Cascade((ScriptedGuard(WORDS), ScriptedGuard(WORDS)), budget=1)
    guard = Limits(AllOf(patterns, cascade))
    case = said("some words", policies=detecting("email"))
    assert patterns.known(case) is not None and cascade._pay(case.boundary)
    forget(guard, "another")
    assert patterns._streams and cascade._spent
    forget(guard, case.boundary)
    assert not patterns._streams and not cascade._spent
