"""`Cascade`: stages from cheap to deep. A certain answer stops; what is not certain goes on.

A stage's answer is certain about a policy when the stage was validated on that policy, the policy asks for no more
depth than the stage has, and the score lies outside the grey band around the policy's threshold. Confidence alone never
gates: a one-token verdict is at chance on compositional rules however sure it looks (guard-science.md, crossed rule x
scenario AUROC .507), so a policy nobody validated the stage on always goes deeper. A stage may be one-sided: it can
only say `bad`, and its silence proves nothing.

The next stage is asked about the open policies only; the cut keeps its prompt short. What earlier stages decided for
certain stays, what later ones decide replaces the earlier guess. Each exchange (its boundary) has a budget of tokens
or questions for the deeper stages; when it is used up, the last stage reached decides, and `budget` stands in the path.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.compose import DEPTHS, merge, steady
from firewall.guards.guard import Guard, forget, warm
from firewall.policy import Policy, PolicySet
from firewall.verdict import Depth, Verdict, decide


@dataclass(frozen=True, slots=True)
class Stage:
    """A guard and what it is trusted with.

    Args:
        depth: the depth it thinks at; `Policy.depth` is a floor on it.
        validated: policy ids, or digests of sets of that one policy, it was measured on; None means all (the last
            stage). A guard's own `validated` attribute counts too.
        low, high: the grey band, as probabilities relative to a threshold of 0.5: at or above `high` it is certainly
            bad, at or below `low` certainly good.
        one_sided: it can only say `bad`.
    """

    guard: Guard
    depth: Depth = "snap"
    validated: Container[str] | None = None
    low: float = 0.15
    high: float = 0.9
    one_sided: bool = False


class Cascade:
    """Args:
        stages: cheap to deep; guards, or `Stage`s. Bare guards become stages at their own `depth` attribute; all but
            the last are trusted with `validated` only.
        validated: policy ids or digests that bare cheap guards were measured on.
        budget: deeper questions one exchange may cause (0: no bound). When it is used up, `closed` says what then:
            True (default): the cheap stage's grey finding counts as certain, and without one there is no verdict; False:
            its answer stands as it is.
    """

    name = "cascade"

    def __init__(self, stages: Sequence[Guard | Stage], validated: frozenset[str] = frozenset(), *,
                 budget: int = 0, closed: bool = True) -> None:
        self.stages = tuple(s if isinstance(s, Stage) else Stage(
            s, getattr(s, "depth", "snap"), validated if i < len(stages) - 1 else None)
            for i, s in enumerate(stages))
        if not self.stages:
            raise ValueError("a cascade needs a stage")
        self.budget, self.closed, self.steady = budget, closed, all(steady(s.guard) for s in self.stages)
        self._spent: OrderedDict[str, int] = OrderedDict()

    @property
    def fingerprint(self) -> str:
        return ">".join(s.guard.fingerprint for s in self.stages)

    async def start(self) -> None:
        for stage in self.stages:
            await stage.guard.start()

    async def close(self) -> None:
        for stage in self.stages:
            await stage.guard.close()

    def ready(self) -> str:
        return next((reason for s in self.stages if (reason := s.guard.ready())), "")

    def warm(self, policies: PolicySet) -> None:
        for stage in self.stages:
            warm(stage.guard, policies)

    def forget(self, boundary: str) -> None:
        self._spent.pop(boundary, None)
        for stage in self.stages:
            forget(stage.guard, boundary)

    def known(self, case: Case) -> Verdict | None:
        """Only if the first stage knows at once and leaves nothing open."""
        verdict = self.stages[0].guard.known(case)
        if verdict is None or open_after(self.stages[0], verdict, case.policies):
            return None
        return verdict

    async def judge(self, case: Case) -> Verdict:
        began = time.perf_counter()
        settled: list[Verdict] = []
        asked = case
        for i, stage in enumerate(self.stages):
            verdict = stage.guard.known(asked) or await stage.guard.judge(asked)
            left = open_after(stage, verdict, asked.policies) if i < len(self.stages) - 1 else ()
            if left and certain_block(stage, verdict, asked.policies):
                left = ()
            if left and not self._pay(case.boundary):
                settled.append(self._broke(verdict, left))
                break
            if not left:
                settled.append(verdict)
                break
            rules = {r.id for p in left for r in p.rules}
            kept = tuple(f for f in verdict.findings if f.rule not in rules)
            settled.append(replace(verdict, findings=kept, score=max((f.score for f in kept), default=0.0)))
            asked = asked._replace(policies=PolicySet.of(left))
        path = tuple(step for v in settled for step in (v.path or (f"{v.guard}:{v.depth}",)))
        return replace(merge(settled, (time.perf_counter() - began) * 1e3), guard=self.name, path=path)

    def _pay(self, exchange: str) -> bool:
        if not self.budget:
            return True
        spent = self._spent.pop(exchange, 0)
        self._spent[exchange] = spent + 1
        while len(self._spent) > 4096:
            self._spent.popitem(last=False)
        return spent < self.budget

    def _broke(self, verdict: Verdict, left: Sequence[Policy]) -> Verdict:
        """Out of budget: closed, every open policy's grey finding counts as certain; open, it stands as it is.

        Raises:
            GuardDown: `guard_budget`, where nobody knows about an open policy: silence is no finding, and no answer.
        """
        path = (*(verdict.path or (f"{verdict.guard}:{verdict.depth}",)), "budget")
        if not self.closed:
            return replace(verdict, path=path)
        rules = {r.id: p for p in left for r in p.rules}
        findings = tuple(f._replace(score=max(f.score, rules[f.rule].threshold)) if f.rule in rules else f
                         for f in verdict.findings)
        heard = {rules[f.rule].id for f in findings if f.rule in rules}
        closed = replace(verdict, findings=findings, path=path)
        if any(p.id not in heard for p in left) and not decide([closed], PolicySet.of(left)).stops:
            raise GuardDown("guard_budget", "cascade: this exchange has used up its questions to the deeper guard")
        return closed


def open_after(stage: Stage, verdict: Verdict, policies: PolicySet) -> tuple[Policy, ...]:
    """The policies about which the stage's answer is not certain."""
    score: dict[str, float] = {}
    for f in verdict.findings:
        policy = policies.owner.get(f.rule)
        if policy:
            score[policy.id] = max(score.get(policy.id, 0.0), even(f.score, policy.threshold))
    return tuple(p for p in policies if not _certain(stage, p, score.get(p.id), verdict.score))


def certain_block(stage: Stage, verdict: Verdict, policies: PolicySet) -> bool:
    """What is certainly violated blocks already: nothing deeper can change the outcome."""
    sure = tuple(f for f in verdict.findings if (p := policies.owner.get(f.rule)) is not None
                 and even(f.score, p.threshold) >= stage.high and _fit(stage, p))
    return decide([replace(verdict, findings=sure)], policies).action == "block"


def even(score: float, threshold: float) -> float:
    """A score on the scale where every threshold is 0.5 (piecewise linear)."""
    return 0.5 * score / threshold if score < threshold else 0.5 + 0.5 * (score - threshold) / (1 - threshold)


def _fit(stage: Stage, policy: Policy) -> bool:
    own: Container[str] = getattr(stage.guard, "validated", ())         # a guard may bring its card, once loaded
    trusted = stage.validated is None or any(
        key in known for known in (stage.validated, own) for key in (policy.id, PolicySet((policy,)).digest))
    return trusted and DEPTHS[stage.depth] >= DEPTHS[policy.depth or "snap"]


def _certain(stage: Stage, policy: Policy, score: float | None, highest: float) -> bool:
    if not _fit(stage, policy):
        return False
    if score is not None:
        return score >= stage.high or (score <= stage.low and not stage.one_sided)
    # nothing was found under this policy: the verdict's highest suspicion bounds it
    return not stage.one_sided and even(min(highest, 1.0), policy.threshold) <= max(stage.low, 0.0)
