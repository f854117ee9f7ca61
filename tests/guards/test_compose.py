from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.cascade import Cascade, Stage, even
from firewall.guards.compose import AllOf, _calm, merge, rest
from firewall.guards.patterns import Patterns
from firewall.guards.scripted import ScriptedGuard
from firewall.policy import PolicySet, parse
from firewall.verdict import Finding, Span, Verdict, decide

from .cases import FRAUD, SET, WEAPONS, asked, detecting, said


class Says(ScriptedGuard):
    """Gives each rule a fixed score, and remembers which policies it was asked about."""

    def __init__(self, name: str = "says", **scores: float) -> None:
        super().__init__(name=name)
        self.scores = {k.replace("_", "/"): v for k, v in scores.items()}
        self.asked_about: list[tuple[str, ...]] = []

    def known(self, case: Case) -> Verdict | None:
        return None

    async def judge(self, case: Case) -> Verdict:
        self.asked_about.append(tuple(p.id for p in case.policies))
        found = tuple(Finding(r, s) for r, s in self.scores.items() if r in case.policies.owner)
        return Verdict(self.name, found, max((f.score for f in found), default=0.0), path=(self.name,), tokens=10)


async def test_all_of_merges_everything() -> None:
    both = PolicySet.of([*SET, *detecting("email")])
    guard = AllOf(Patterns(), ScriptedGuard({"gun": "weapons/2"}))
    verdict = await guard.judge(asked("a gun for joe@example.com", policies=both))
    assert {f.rule for f in verdict.findings} == {"pii/1", "weapons/2"}
    assert verdict.path == ("patterns", "scripted") and guard.name == "scripted"
    assert guard.known(asked("fine", policies=both)) is not None


class Sees(ScriptedGuard):
    """Minds an address without knowing where it is, as a model does; keeps what it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.shown: list[str] = []

    def known(self, case: Case) -> Verdict | None:
        self.shown.append("|".join(text for _, text in case.trial()))
        return Verdict("sees", (Finding("pii/1", 0.9),) if "@" in self.shown[-1] else (), 0.9)


async def test_what_is_cut_out_is_not_held_against_the_rest() -> None:
    pii, deep = detecting("email"), Sees()
    guard = AllOf(Patterns(), deep)
    for case in (asked("mail joe@example.com today", "yes", policies=pii),
                 said("mail joe@example.com today", policies=pii, whole=True)):
        for verdict in (guard.known(case), await guard.judge(case)):
            assert verdict and decide([verdict], pii).action == "redact"
            assert [s[1:] for f in verdict.findings for s in f.spans] == [(5, 20)]
            assert deep.shown[-1].startswith("mail" + " " * 17 + "today")
    both = asked("joe@example.com or a@b", policies=pii)
    assert decide([await guard.judge(both)], pii).action == "block"       # there is more than was cut
    flagged = detecting("email", action="flag")
    await guard.judge(asked("joe@example.com", policies=flagged))
    assert deep.shown[-1] == "joe@example.com"


pii, patterns = detecting("email"), Patterns()


PARTS = ["joe@example.com", " joe", "@", "ex", "ample.com", " or ", "jim@example.org."]


@given(st.lists(st.sampled_from(PARTS), max_size=8), st.data())
def test_the_rest_of_a_growing_answer_only_grows(parts: list[str], data: st.DataObject) -> None:
    text, shown = "".join(parts), ""
    patterns._streams.clear()
    for cut in sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=4))):
        case = said(text[:cut], policies=pii)
        verdict = patterns.known(case)
        assert verdict is not None
        left = rest(case, verdict).channels()["a"]
        assert left.startswith(shown)
        shown = left
    whole = said(text, policies=pii, whole=True)
    verdict = patterns.known(whole)
    assert verdict is not None
    left = rest(whole, verdict).channels()["a"]
    assert left.startswith(shown) and len(left) == len(text)


async def test_a_certain_block_spares_the_rest_even_a_dead_one() -> None:
    blocking = PolicySet.of([*SET, *detecting("email", action="block")])
    guard = AllOf(Patterns(), ScriptedGuard(mode="dead"))
    verdict = await guard.judge(asked("joe@example.com", policies=blocking))
    assert decide([verdict], blocking).action == "block"
    with pytest.raises(GuardDown):
        await guard.judge(asked("hello", policies=blocking))
    assert guard.known(asked("hello", policies=blocking)) is None and guard.ready()


span = st.builds(Span, st.just("c"), st.integers(0, 3), st.integers(4, 9))
finding = st.builds(Finding, st.sampled_from(["a/1", "b/1"]), st.floats(0, 1), st.lists(span, max_size=2).map(tuple))
verdict_ = st.builds(Verdict, st.just("g"), st.lists(finding, max_size=3).map(tuple), st.floats(0, 1))
verdicts = st.lists(verdict_, min_size=1, max_size=4)


@given(verdicts)
def test_merging_loses_nothing(given_: list[Verdict]) -> None:
    merged = merge(given_)
    assert merged.score == max(v.score for v in given_)
    if len(given_) > 1:
        for rule in {f.rule for v in given_ for f in v.findings}:
            every = [f for v in given_ for f in v.findings if f.rule == rule]
            [one] = [f for f in merged.findings if f.rule == rule]
            assert one.score == max(f.score for f in every)
            if all(f.spans for f in every):
                assert set(one.spans) == {s for f in every for s in f.spans}
            else:
                assert one.spans == ()


calm_ = st.builds(Verdict, st.sampled_from("gh"), depth=st.sampled_from(["snap", "reason"]),
                  unsure=st.lists(st.tuples(st.sampled_from("cd"), st.integers(0, 9)), max_size=2, unique_by=lambda u: u[0])
                  .map(tuple), path=st.lists(st.sampled_from(["p", "q:snap"]), max_size=2).map(tuple),
                  score=st.sampled_from([0.0, 0.0, 0.3]), tokens=st.sampled_from([0, 0, 5]))


@given(st.lists(calm_, min_size=2, max_size=3))
def test_the_short_way_says_what_merging_says(given_: list[Verdict]) -> None:
    short = _calm(given_)
    assert short is None or short == merge(given_)
    assert short is not None or any(v.score or v.tokens for v in given_) or sum(bool(v.unsure) for v in given_) > 1


def cascade(cheap: Says, deep: Says, **more: Any) -> Cascade:
    return Cascade((cheap, deep), validated=frozenset({"weapons", "fraud"}), **more)


async def test_certain_answers_stop() -> None:
    for scores in ({}, {"weapons_1": 0.99}, {"fraud_1": 0.05}):
        deep = Says("deep")
        verdict = await cascade(Says("cheap", **scores), deep).judge(asked("x"))
        assert deep.asked_about == [] and verdict.path == ("cheap",) and verdict.guard == "cascade"


@pytest.mark.parametrize("front", ["release: watch", "action: flag"])
async def test_a_hit_that_does_not_block_spares_nothing(front: str) -> None:
    """Else one word that a watched policy minds buys a pass for everything that only the deep guard sees."""
    harmless = parse(f"---\nid: talk\n{front}\n---\n- Small talk.\n", "talk", "talk.md", strict=False)
    policies, deep = PolicySet.of([harmless, FRAUD]), Says("deep", fraud_1=0.97)
    guard = Cascade((Says("cheap", talk_1=0.99), deep), validated=frozenset({"talk"}))
    verdict = await guard.judge(asked("x", policies=policies))
    assert deep.asked_about == [("fraud",)]
    assert decide([verdict], policies).action == "block" and decide([verdict], policies).rules == ("fraud/1", "talk/1")


@pytest.mark.parametrize(("trusted", "score", "spared"), [("weapons", 0.99, True), ("weapons", 0.8, False),
                                                          ("fraud", 0.99, False)])
async def test_only_a_certain_block_spares_the_deep_stage(trusted: str, score: float, spared: bool) -> None:
    deep = Says("deep")
    guard = Cascade((Says("cheap", weapons_1=score, fraud_1=0.5), deep), validated=frozenset({trusted}))
    await guard.judge(asked("x"))
    assert (deep.asked_about == []) == spared


async def test_the_grey_band_goes_deeper_about_open_policies_only() -> None:
    deep = Says("deep", fraud_1=0.97)
    verdict = await cascade(Says("cheap", fraud_1=0.4, weapons_1=0.1), deep).judge(asked("x"))
    assert deep.asked_about == [("fraud", "weapons")] or deep.asked_about == [("fraud",)]
    assert {f.rule: f.score for f in verdict.findings}["fraud/1"] == 0.97
    assert verdict.path == ("cheap", "deep") and verdict.tokens == 20


async def test_what_the_deep_one_clears_is_cleared() -> None:
    verdict = await cascade(Says("cheap", fraud_1=0.7), Says("deep")).judge(asked("x"))
    assert decide([verdict], SET).action == "allow"


async def test_confidence_does_not_gate_an_unvalidated_policy() -> None:
    deep = Says("deep", fraud_1=0.9)
    guard = Cascade((Says("cheap"), deep), validated=frozenset({"weapons"}))
    verdict = await guard.judge(asked("x"))
    assert deep.asked_about == [("fraud",)] and decide([verdict], SET).rules == ("fraud/1",)


async def test_a_digest_validates_too_and_dies_with_an_edit() -> None:
    trusted = frozenset({PolicySet((WEAPONS,)).digest, PolicySet((FRAUD,)).digest})
    deep = Says("deep")
    guard = Cascade((Says("cheap"), deep), validated=trusted)
    await guard.judge(asked("x"))
    assert deep.asked_about == []
    edited = parse("## Violates\n- `fraud/1` Forges a passport or a visa.\n", "fraud", "fraud.md")
    await guard.judge(asked("x", policies=PolicySet.of([WEAPONS, edited])))
    assert deep.asked_about == [("fraud",)]


async def test_a_guards_own_card_validates_once_it_is_loaded() -> None:
    cheap, deep = Says("cheap"), Says("deep")
    guard = Cascade((cheap, deep))
    await guard.judge(asked("x"))
    assert len(deep.asked_about) == 1
    cheap.validated = frozenset({"weapons", "fraud"})       # type: ignore[attr-defined]
    await guard.judge(asked("x"))
    assert len(deep.asked_about) == 1


async def test_depth_floor() -> None:
    careful = parse("---\nid: fraud\ndepth: reason\n---\n- Forges.\n", "fraud", "f.md", strict=False)
    deep = Says("deep")
    await cascade(Says("cheap"), deep).judge(asked("x", policies=PolicySet.of([WEAPONS, careful])))
    assert deep.asked_about == [("fraud",)]


async def test_a_one_sided_stage_proves_nothing_by_silence() -> None:
    deep = Says("deep")
    guard = Cascade((Stage(Says("cheap"), validated=("weapons", "fraud"), one_sided=True), deep))
    await guard.judge(asked("x"))
    assert deep.asked_about == [("fraud", "weapons")]
    sure = Cascade((Stage(Says("cheap", fraud_1=0.99), validated=("fraud",), one_sided=True), deep))
    assert decide([await sure.judge(asked("x"))], SET).action == "block" and len(deep.asked_about) == 1


async def test_the_budget_ends_closed_and_says_so() -> None:
    deep = Says("deep")
    guard = cascade(Says("cheap", fraud_1=0.3), deep, budget=2)
    outcomes = [decide([v := await guard.judge(asked("x"))], SET).action for _ in range(3)]
    assert outcomes == ["allow", "allow", "block"] and v.path[-1] == "budget" and len(deep.asked_about) == 2
    assert decide([await guard.judge(asked("x", boundary="other"))], SET).action == "allow"
    silent = Cascade((Says("cheap"), deep), budget=1)        # validated on nothing: its silence is no answer
    await silent.judge(asked("x"))
    with pytest.raises(GuardDown, match="guard_budget"):
        await silent.judge(asked("x"))
    loose = cascade(Says("cheap", fraud_1=0.3), deep, budget=1, closed=False)
    for _ in range(3):
        verdict = await loose.judge(asked("x"))
    assert decide([verdict], SET).action == "allow"


async def test_a_dead_deep_stage_is_no_verdict() -> None:
    dead = ScriptedGuard(mode="dead")
    with pytest.raises(GuardDown):
        await Cascade((Says("cheap", fraud_1=0.4), dead), frozenset({"weapons", "fraud"})).judge(asked("x"))


@given(st.floats(0.01, 0.99), st.floats(0, 1), st.floats(0, 1))
def test_even_keeps_order_and_threshold(threshold: float, a: float, b: float) -> None:
    assert abs(even(threshold, threshold) - 0.5) < 1e-9
    assert 0 <= even(a, threshold) <= 1
    assert (a <= b) <= (even(a, threshold) <= even(b, threshold) + 1e-12)
