from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import GuardDown
from firewall.guards.guard import Guard
from firewall.guards.scripted import ScriptedGuard
from firewall.verdict import Finding, Span, decide

from .cases import SET, asked, said


def test_it_is_a_guard() -> None:
    assert isinstance(ScriptedGuard(), Guard)


def test_words_become_rules_with_places() -> None:
    guard = ScriptedGuard({"Bomb": "weapons/1", "gun": "weapons/2"})
    verdict = guard.known(asked("a BOMB and a bomb", "no"))
    assert verdict is not None
    at = "messages/0/content"
    assert verdict.findings == (Finding("weapons/1", 1.0, (Span(at, 2, 6), Span(at, 13, 17))),)
    assert decide([verdict], SET).action == "block"


def test_a_rule_that_is_not_active_is_not_found() -> None:
    verdict = ScriptedGuard({"bomb": "other/1"}).known(asked("bomb"))
    assert verdict is not None and verdict.findings == () and verdict.score == 0.0


def test_words_without_exact_places_have_no_spans() -> None:
    verdict = ScriptedGuard({"strasse": "fraud/1"}).known(asked("die Straße"))
    assert verdict is not None and verdict.findings == (Finding("fraud/1", 1.0, ()),)


@given(st.text("bom x", max_size=20), st.text("bom x", max_size=20))
def test_no_half_of_a_word_is_vouched_for(before: str, after: str) -> None:
    guard = ScriptedGuard({"bomb": "weapons/1"})
    part, whole = guard.known(said(before)), guard.known(said(before + after, whole=True))
    assert part is not None and whole is not None
    cleared = dict(part.unsure).get("a", len(before))
    for finding in whole.findings:
        for span in finding.spans:
            assert span.start >= cleared or span.end <= len(before)
    assert not whole.unsure


async def test_modes() -> None:
    guard = ScriptedGuard(mode="dead")
    with pytest.raises(GuardDown):
        await guard.judge(asked("x"))
    assert guard.known(asked("x")) is None and "dead" in guard.ready()
    guard.mode = "crash"
    with pytest.raises(RuntimeError):
        await guard.judge(asked("x"))
    guard.mode = "hang"
    task = asyncio.create_task(guard.judge(asked("x")))
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert guard.cancelled == 1
    guard.mode = "ok"
    await guard.close()
    with pytest.raises(GuardDown):
        await guard.judge(asked("x"))


async def test_slow_answers_only_through_judge() -> None:
    guard = ScriptedGuard({"bomb": "weapons/1"}, delay=0.01, record=True)
    assert guard.known(asked("bomb")) is None
    assert (await guard.judge(asked("bomb"))).score == 1.0
    assert [c.messages[0].text for c in guard.seen] == ["bomb"]
