"""Verdicts and failures -> one decision: pure, order-free, block wins, a broken guard is never an allow."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from firewall.errors import GuardDown
from firewall.policy import Policy, PolicySet
from firewall.verdict import ALLOW, RANK, Decision, Finding, Span, Verdict, decide

BASE = {"block": "b", "redact": "r", "flag": "f"}
SET = PolicySet.of(replace(Policy.from_text(i, "a rule"), action=a, message=f"no {i}") for a, i in BASE.items())
findings = st.builds(Finding, st.sampled_from(["b/1", "r/1", "f/1", "b", "ghost/1"]), st.floats(0, 1),
                     st.sampled_from([(), (Span("c", 0, 3),)]))
verdicts = st.lists(st.builds(lambda f: Verdict("g", tuple(f)), st.lists(findings, max_size=4)), max_size=4)
errors = st.lists(st.builds(GuardDown, st.sampled_from(["guard_timeout", "guard_unreadable"])), max_size=2)


@given(verdicts, errors, st.randoms())
def test_order_free(found, failed, random):
    first = decide(found, SET, failed)
    random.shuffle(found)
    random.shuffle(failed)
    assert decide(found, SET, failed) == first


@example([Verdict("g", (Finding("r/1", 1.0),))], [], [Verdict("g", (Finding("r/1", 1.0, (Span("c", 0, 3),)),))])
@given(verdicts, errors, verdicts)
def test_more_evidence_never_weakens(found, failed, more):
    """Monotone: another verdict can only make the decision as severe or more."""
    assert RANK[decide(found + more, SET, failed).action] >= RANK[decide(found, SET, failed).action]


@given(verdicts, errors)
def test_a_failure_is_never_an_allow(found, failed):
    decision = decide(found, SET, failed)
    if failed:
        assert decision.action in ("error", "block") and decision.errors
    if any(f.rule in ("b", "b/1") and f.score >= 0.5 for v in found for f in v.findings):
        assert decision.action == "block"


def test_thresholds_belong_to_policies():
    strict = PolicySet.of([replace(SET.owner["b"], threshold=0.9)])
    at = (Verdict("g", (Finding("b/1", 0.8),)),)
    assert decide(at, SET).action == "block" and decide(at, strict) == ALLOW


def test_redact_needs_spans_and_messages_come_from_the_winner():
    assert decide((Verdict("g", (Finding("r/1", 1.0),)),), SET).action == "block"
    got = decide((Verdict("g", (Finding("r/1", 1.0, (Span("c", 1, 2),)), Finding("f/1", 1.0))),), SET)
    assert got == Decision("redact", ("f/1", "r/1"), (), (Span("c", 1, 2),), "no r")


@given(st.permutations([("a/1", 0.6), ("b/1", 0.9), ("b/1", 0.55), ("f/1", 1.0), ("c/1", 0.91)]))
def test_the_client_is_told_the_surest_policys_message(found):
    """Not the first name's; and a policy's own threshold says what is sure: 0.91 is hardly anything above 0.9."""
    each = [replace(Policy.from_text(i, "a rule"), message=f"no {i}", threshold=0.9 if i == "c" else 0.5,
                    action="flag" if i == "f" else "block") for i in "abcf"]
    got = decide([Verdict("g", (Finding(*f),)) for f in found], PolicySet.of(each))
    assert (got.action, got.message) == ("block", "no b") and got.rules == ("a/1", "b/1", "c/1", "f/1")
    even = [Verdict("g", (Finding(rule, 0.75),)) for rule, _ in found if rule != "c/1"]
    assert decide(even, PolicySet.of(each)).message == "no a"


def test_watch_policies_only_flag_and_open_policies_let_a_failure_pass():
    watched = PolicySet.of([replace(SET.owner["b"], release="watch")])
    assert decide((Verdict("g", (Finding("b/1", 1.0),)),), watched).action == "flag"
    lenient = PolicySet.of([replace(SET.owner["f"], on_guard_error="open")])
    assert decide((), lenient, [GuardDown()]) == Decision("allow", (), ("guard_unavailable",))
    assert decide((), PolicySet(), [GuardDown()]).action == "error"
    assert decide((), watched, [GuardDown()]) == Decision("allow", (), ("guard_unavailable",)), "it stops nothing"
    mixed = PolicySet.of([*watched, SET.owner["f"]])
    assert decide((), mixed, [GuardDown()]).action == "error"
