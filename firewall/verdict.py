"""What guards believe, how their answers are read, and what the firewall does about it.

This is the only place where a guard's answer is understood (`read`) and where verdicts become a decision
(`decide`). Training and serving share it: the trainer's reward calls `read` too.

Three things are kept apart: *no verdict yet* (nothing is released), *the guard broke* (`GuardDown`, which only
`decide` turns into a decision, closed by default) and *allowed*.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

from firewall.errors import GuardDown
from firewall.policy import PolicySet

Depth = Literal["snap", "reason", "deliberate"]
Outcome = Literal["allow", "redact", "block", "flag", "error"]
RANK: dict[str, int] = {"allow": 0, "flag": 1, "redact": 2, "error": 3, "block": 4}


class Span(NamedTuple):
    """Characters `start:end` of one channel's joined words (or of one message's, by `where`)."""

    channel: str
    start: int
    end: int


class Finding(NamedTuple):
    """One rule that may be violated. `score` is a probability; 0.5 is the guard's own operating point."""

    rule: str
    score: float
    spans: tuple[Span, ...] = ()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one guard believes about one case.

    Args:
        guard: its name.
        findings: suspected rules; `decide` compares their scores with each policy's threshold.
        score: the highest suspicion in [0, 1], also when nothing is found.
        depth: how hard it thought.
        ms: wall milliseconds it took.
        unsure: (channel, offset): words from that offset on are not vouched for yet. Only on partial cases; the
            gate holds them back until a later verdict covers them.
        tokens: tokens computed for it (prompt tokens not cached, plus answer).
        path: names and depths of the guards asked on the way, for the record.
        reason: the guard's thinking. For the operator; it may repeat user text and is never logged by default.
    """

    guard: str
    findings: tuple[Finding, ...] = ()
    score: float = 0.0
    depth: Depth = "snap"
    ms: float = 0.0
    unsure: tuple[tuple[str, int], ...] = ()
    tokens: int = 0
    path: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class Decision:
    """What the firewall does, because of which rules, with which errors (as in Cedar: three separate outputs)."""

    action: Outcome = "allow"
    rules: tuple[str, ...] = ()
    errors: tuple[str, ...] = ()
    spans: tuple[Span, ...] = ()
    message: str = ""

    @property
    def stops(self) -> bool:
        return self.action in ("block", "error")


ALLOW = Decision()


def decide(verdicts: Iterable[Verdict], policies: PolicySet, errors: Iterable[GuardDown] = ()) -> Decision:
    """Verdicts and failures -> one decision. Pure and order-free: block > error > redact > flag > allow.

    A failed guard means *error* unless every active policy says `on-guard-error: open`, or only reports (`release: watch`).
    Among the rules of the winning action, the message is that of the surest: the furthest on the way from its policy's
    threshold to 1.
    """
    hit: dict[str, list[Span] | None] = {}      # None: something is there that no cutting out removes
    sure: dict[str, float] = {}
    for verdict in verdicts:
        for finding in verdict.findings:
            policy = policies.owner.get(finding.rule)
            if policy is not None and finding.score >= policy.threshold:
                known = hit.get(finding.rule, [])
                hit[finding.rule] = None if known is None or not finding.spans else [*known, *finding.spans]
                how = (finding.score - policy.threshold) / ((1 - policy.threshold) or 1)
                sure[finding.rule] = max(how, sure.get(finding.rule, how))
    failed = tuple(sorted({e.code for e in errors}))
    if not hit and not failed:
        return ALLOW
    action: Outcome = "allow"
    message = ""
    spans: list[Span] = []
    for rule in sorted(hit, key=lambda rule: (-sure[rule], rule)):
        policy = policies.owner[rule]
        does: Outcome = "flag" if policy.release == "watch" else policy.action
        if does == "redact":
            spans += hit[rule] or ()
            if not hit[rule]:       # the whole must not pass
                does = "block"
        if RANK[does] > RANK[action]:
            action, message = does, policy.message
    if failed and RANK[action] < RANK["error"] and not (
            policies.policies and all(p.open for p in policies)):
        action, message = "error", ""
    return Decision(action, tuple(sorted(hit)), failed, tuple(sorted(set(spans))), message)


class Unreadable(ValueError):
    """A guard's answer that does not follow the format: the worst reward in training, a failure in service."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A guard's answer, read. `rules` is empty exactly when `safe`."""

    safe: bool
    rules: tuple[str, ...]
    think: str


BOX = "\\boxed{"
OPEN, CLOSE = "<think>", "</think>"


def read(text: str, rule_ids: Sequence[str], depth: Depth = "reason") -> Answer:
    r"""`<think>...</think>` then one box: `\boxed{safe}` or `\boxed{unsafe: rule-id, ...}`, and nothing after.

    After RSafe (arXiv 2506.07736, guided reasoning), made strict: the thought is not empty unless `snap`, one think,
    one box, known rule ids each once.

    Raises:
        Unreadable: anything else.
    """
    text = text.strip()
    if not text.startswith(OPEN) or text.count(OPEN) != 1 or text.count(CLOSE) != 1:
        raise Unreadable("exactly one <think>...</think> must open the answer")
    think, _, tail = text[len(OPEN):].partition(CLOSE)
    think, tail = think.strip(), tail.strip()
    if not think and depth != "snap":
        raise Unreadable("empty thought")
    if text.count(BOX) != 1 or not tail.startswith(BOX) or not tail.endswith("}"):
        raise Unreadable("exactly one box must end the answer")
    inside = tail[len(BOX):-1].strip()
    if inside == "safe":
        return Answer(True, (), think)
    if not inside.startswith("unsafe:"):
        raise Unreadable("the box holds neither `safe` nor `unsafe: rule-id, ...`")
    rules = tuple(r.strip() for r in inside[len("unsafe:"):].split(","))
    if len(set(rules)) != len(rules) or any(r not in rule_ids for r in rules):
        raise Unreadable("the box cites an unknown rule, or one twice")
    return Answer(False, tuple(sorted(rules)), think)
