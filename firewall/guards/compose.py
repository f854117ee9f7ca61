"""`AllOf`: several guards judge the same case, and everything they find counts.

The cheap ones first, in turn: when what they found already blocks for certain, the rest is not asked. A guard that has
no verdict means that all have none, for nobody vouched for what it would have seen; a block found before that stands.

What a guard found for a policy that redacts leaves nobody: the guards behind it judge the rest (`rest`), for a finding of
theirs about the same words, which they cannot place, would block what the cut has mended.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from functools import cache

from firewall.case import Case, Said
from firewall.guards.guard import Guard, forget, warm
from firewall.policy import PolicySet
from firewall.verdict import Depth, Finding, Span, Verdict, decide

DEPTHS: dict[str, int] = {"snap": 0, "reason": 1, "deliberate": 2}


def steady(guard: object) -> bool:
    """Whether a guard says the same as long as its fingerprint stays. One that does not says `steady = False`."""
    return bool(getattr(guard, "steady", True))


class AllOf:
    """Args: `guards` in the order they are asked; the last one's name is the name of all."""

    def __init__(self, *guards: Guard) -> None:
        self.guards, self.steady = guards, all(map(steady, guards))

    @property
    def name(self) -> str:
        return self.guards[-1].name

    @property
    def fingerprint(self) -> str:
        return "+".join(g.fingerprint for g in self.guards)

    async def start(self) -> None:
        for guard in self.guards:
            await guard.start()

    async def close(self) -> None:
        for guard in self.guards:
            await guard.close()

    def ready(self) -> str:
        return next((reason for g in self.guards if (reason := g.ready())), "")

    def warm(self, policies: PolicySet) -> None:
        for guard in self.guards:
            warm(guard, policies)

    def forget(self, boundary: str) -> None:
        for guard in self.guards:
            forget(guard, boundary)

    def known(self, case: Case) -> Verdict | None:
        """All at once or nothing; the likeliest to say no is asked first."""
        verdicts = []
        for guard in reversed(self.guards):
            if (verdict := guard.known(case)) is None:
                return None
            verdicts.append(verdict)
        verdicts.reverse()
        asked = case
        for i, guard in enumerate(self.guards[1:], 1):
            asked = rest(asked, verdicts[i - 1])
            if asked is not case:
                if (verdict := guard.known(asked)) is None:
                    return None
                verdicts[i] = verdict
        return _calm(verdicts) or merge(verdicts)

    async def judge(self, case: Case) -> Verdict:
        began = time.perf_counter()
        verdicts: list[Verdict] = []
        asked = case
        for guard in self.guards:
            verdicts.append(guard.known(asked) or await guard.judge(asked))
            if decide(verdicts, case.policies).action == "block":
                break
            asked = rest(asked, verdicts[-1])
        return merge(verdicts, (time.perf_counter() - began) * 1e3)


def rest(case: Case, verdict: Verdict) -> Case:
    """What is left on trial once policies that redact have cut out what `verdict` places: blanks as long, so that every
    place stays the same. Of a growing answer nothing from an unsure place on is left: it may be a beginning of such.

    The rest of a longer answer begins with the rest of a shorter one, hence streamed and whole verdicts agree.
    """
    if not case.policies.redacts or not (verdict.findings or verdict.unsure):
        return case
    cut: dict[str, list[Span]] = {}
    for finding in verdict.findings:
        policy = case.policies.owner[finding.rule]
        if policy.action == "redact" and policy.release != "watch" and finding.score >= policy.threshold:
            for span in finding.spans:
                cut.setdefault(span.channel, []).append(span)
    ends = dict(verdict.unsure)
    trial = case.trial()
    if not (cut or ends) or len({channel for channel, _ in trial}) < len(trial):
        return case
    left = [text if channel not in cut and channel not in ends else _left(text, cut.get(channel, ()), ends.get(channel))
            for channel, text in trial]
    if case.direction == "input":
        return case._replace(messages=tuple(m._replace(text=t) for m, t in zip(case.messages, left, strict=True)))
    return case._replace(answer=tuple(Said(c, t) for (c, _), t in zip(trial, left, strict=True)))


def _left(text: str, cut: Iterable[Span], end: int | None) -> str:
    out: list[str] = []
    done = 0
    for _, first, last in sorted(cut):
        if last > done:
            first = max(first, done)
            out += text[done:first], " " * (last - first)
            done = last
    return "".join([*out, text[done:]])[:end]


def _calm(verdicts: list[Verdict]) -> Verdict | None:
    """What `merge` would say, where nobody found anything and at most one was unsure: most tokens of a stream."""
    unsure: tuple[tuple[str, int], ...] = ()
    for v in verdicts:
        if v.findings or v.score or v.tokens or v.reason or (v.unsure and unsure):
            return None
        unsure = unsure or v.unsure
    shown = _shown(tuple([(v.guard, v.path, v.depth) for v in verdicts]))
    return Verdict(shown.guard, (), 0.0, shown.depth, 0.0, unsure, 0, shown.path) if unsure else shown


@cache
def _shown(told: tuple[tuple[str, tuple[str, ...], Depth], ...]) -> Verdict:
    """A clean verdict of several guards. Names and paths come from our own tables: there are few."""
    return Verdict(told[-1][0], depth=max((depth for _, _, depth in told), key=lambda d: DEPTHS[d]),
                   path=tuple(name for _, path, _ in told for name in path))


def merge(verdicts: Iterable[Verdict], ms: float | None = None) -> Verdict:
    """One verdict with everything in it: the highest score of each rule, all spans, the earliest unsure place.

    A finding without spans outweighs the same rule's spans: something is there that no cutting out removes.
    """
    given = list(verdicts)
    if len(given) == 1 and ms is None:
        return given[0]
    score: dict[str, float] = {}
    spans: dict[str, list[Span] | None] = {}
    unsure: dict[str, int] = {}
    for v in given:
        for f in v.findings:
            score[f.rule] = max(f.score, score.get(f.rule, 0.0))
            kept = spans.get(f.rule, [])
            spans[f.rule] = None if kept is None or not f.spans else [*kept, *f.spans]
        for channel, at in v.unsure:
            unsure[channel] = min(at, unsure.get(channel, at))
    depth: Depth = max((v.depth for v in given), key=lambda d: DEPTHS[d], default="snap")
    findings = tuple(Finding(rule, score[rule], tuple(sorted(set(spans[rule] or ())))) for rule in sorted(score))
    return Verdict(given[-1].guard, findings, max((v.score for v in given), default=0.0), depth,
                   sum(v.ms for v in given) if ms is None else ms, tuple(unsure.items()), sum(v.tokens for v in given),
                   tuple(name for v in given for name in v.path), "\n".join(v.reason for v in given if v.reason))
