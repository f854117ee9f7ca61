"""A guard people already run, spoken to as its model card says: what is asked, and how the answer is read.

A dialect is pure: `ask` turns a case into questions, `read` turns an answer into a belief. `DialectGuard` does the rest
(windows, fan-out, strictness). Two kinds: models with a fixed taxonomy, whose categories are mapped onto policy ids,
and models that take the policy as text. A policy that a fixed taxonomy does not cover is never silently passed: judging
it fails, unless the guard was told that it judges only in part (then the path says which policies were left out).

These templates have no boundary and no quoting of their own, so control tokens in the evidence are broken up
(`plain`); their injection resistance is the model's. Where there is a choice, prefer our own template.

Each dialect's docstring ends with "Verified:", the public text that its prompt, its answers and its categories were
compared with, and what no public text that we could read confirms.
"""

from __future__ import annotations

import asyncio
import math
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.compose import merge
from firewall.guards.endpoints import Endpoints
from firewall.guards.engine import Ask, Reply, Seat
from firewall.guards.windows import windows
from firewall.policy import Direction, Policy, PolicySet
from firewall.verdict import Depth, Finding, Unreadable, Verdict

FAN = 8
_CONTROL = re.compile(r"<(?=\||/?(?:s|bos|eos|pad|unk|think|no-think|guardian|score|start_of_turn|end_of_turn)\b"
                      r"|/?(?:BEGIN|END)\b)|\[(?=/?INST\])")


@dataclass(frozen=True, slots=True)
class Question:
    """`messages` for a chat server, or a whole `prompt`; `extra` are more fields of the request body. `parts`: the
    model's chat template reads contents as lists of typed parts, and a server that does not convert would show it an
    empty conversation."""

    policies: tuple[Policy, ...]
    messages: tuple[tuple[str, str], ...] = ()
    prompt: str = ""
    limit: int = 32
    extra: Mapping[str, Any] = field(default_factory=dict)
    parts: bool = False

    @property
    def body(self) -> dict[str, Any]:
        """Fields of the chat request beside the plain ones, or in their place."""
        if not self.parts:
            return dict(self.extra)
        return {**self.extra, "messages": [{"role": r, "content": [{"type": "text", "text": t}]} for r, t in
                                           self.messages]}


YES, NO = 1.0, 0.0      # a verdict in words brings no number: it holds whatever threshold a policy sets


@dataclass(frozen=True, slots=True)
class Belief:
    """`score` in [0, 1]; `rules`: what is violated, should the score reach the threshold; `reason` for the operator."""

    score: float
    rules: tuple[str, ...]
    reason: str = ""


class Dialect(Protocol):
    name: str
    depth: Depth

    def covers(self, policy: Policy, direction: Direction) -> bool:
        """Whether it can judge this policy in requests ("input") or in answers ("output")."""

    def ask(self, case: Case) -> list[Question]: ...

    def read(self, question: Question, reply: Reply, case: Case) -> Belief:
        """Raises `Unreadable` for anything the model card does not describe."""


class DialectGuard(Seat):
    """Args: `dialect`, the servers, and whether it may leave out policies that it cannot judge."""

    def __init__(self, dialect: Dialect, engine: Endpoints, *, partial: bool = False) -> None:
        super().__init__(dialect.name, engine)
        self.dialect, self.engine, self.partial = dialect, engine, partial
        self.depth = dialect.depth
        self.fingerprint = f"{dialect.name}-{engine.model or 'served'}-2"

    async def judge(self, case: Case) -> Verdict:
        self.open()
        began = time.perf_counter()
        left = [p.id for p in case.policies if not self.dialect.covers(p, case.direction)]
        if left and (not self.partial or len(left) == len(case.policies)):
            raise GuardDown("guard_config", f"{self.name} has no category for {', '.join(left)} on {case.direction};"
                                            " disable them, or give them to a guard that reads policies")
        case = case._replace(policies=PolicySet.of(p for p in case.policies if p.id not in left))
        gate = asyncio.Semaphore(FAN)
        tasks = [asyncio.ensure_future(self._one(q, part, gate)) for part in windows(case, self._fits)
                 for q in self.dialect.ask(part)]
        try:
            verdicts = await asyncio.gather(*tasks)
        except Unreadable as e:
            raise GuardDown("guard_unreadable", f"guard {self.name}: {e}") from None
        finally:
            for t in tasks:
                t.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        path = (f"{self.name}:{self.depth}", *(f"unjudged:{id}" for id in left))
        merged = merge(verdicts, (time.perf_counter() - began) * 1e3)
        return Verdict(self.name, merged.findings, merged.score, self.depth, merged.ms, (), merged.tokens, path,
                       merged.reason)

    def _fits(self, case: Case) -> bool:
        room = self.engine.context or 8192
        return all(sum(len(t.encode("utf-8", "replace")) for _, t in q.messages) + len(q.prompt.encode(
            "utf-8", "replace")) <= (room - q.limit - 64) * 2 for q in self.dialect.ask(case))

    async def _one(self, question: Question, case: Case, gate: asyncio.Semaphore) -> Verdict:
        async with gate:
            if question.prompt:
                reply = await self.engine.complete(Ask(question.prompt, question.limit, affinity=case.boundary,
                                                         odds=True))
            else:
                reply = await self.engine.converse(question.messages, question.limit, question.body, case.boundary)
        belief = self.dialect.read(question, reply, case)
        if not 0 <= belief.score <= 1:
            raise Unreadable("a score outside [0, 1]")
        found = tuple(Finding(r, belief.score) for r in belief.rules)
        return Verdict(self.name, found, belief.score, self.depth, reason=belief.reason,
                       tokens=max(0, reply.prompt - reply.cached) + reply.new)


def plain(text: str) -> str:
    """Evidence with control tokens broken up by a zero-width space; half surrogates replaced."""
    return _CONTROL.sub(lambda m: m[0] + "\u200b", text).encode("utf-8", "replace").decode()


def request(case: Case) -> str:
    """The request as one text: the only message bare, several with their roles."""
    if len(case.messages) == 1:
        return plain(case.messages[0].text)
    return "\n\n".join(f"{plain(m.role)}: {plain(m.text)}" for m in case.messages)


def answer(case: Case) -> str:
    return plain("\n\n".join(case.channels().values()))


def turns(case: Case) -> tuple[tuple[str, str], ...]:
    """One user turn, and the answer as the assistant's turn if that is on trial."""
    user = ("user", request(case))
    return (user, ("assistant", answer(case))) if case.direction == "output" else (user,)


def first_rules(policies: Sequence[Policy]) -> tuple[str, ...]:
    """A model that names no rule: the first rule of each policy stands for it."""
    return tuple(p.rules[0].id for p in policies)


def text_of(policy: Policy) -> str:
    """One policy as prose for models that take it as text and answer without naming a rule."""
    return plain(f"{policy.title}\n" + lines_of(policy))


def lines_of(policy: Policy) -> str:
    """The policy's rules, then what it allows and excepts, one a line."""
    return plain("\n".join([f"- {r.text}" for r in policy.rules] + [f"- allowed: {t}" for t in policy.allowed]
                           + [f"- exception: {t}" for t in policy.exceptions]))


def odds(first: Mapping[int | str, float], bad: str, good: str, otherwise: float) -> float:
    """Probability of `bad` against `good` at the first place; `otherwise` where the server gives no probabilities."""
    p = {w: sum(math.exp(v) for t, v in first.items()
                if isinstance(t, str) and (said := t.strip().lower()) and w.lower().startswith(said))
         for w in (bad, good)}
    total = p[bad] + p[good]
    return p[bad] / total if total > 0 else otherwise
