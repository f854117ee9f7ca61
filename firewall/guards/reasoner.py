r"""`Reasoner`: a generative guard that thinks over the active policies, on any engine.

    snap        the empty thought and the box's opening are prefilled: one token, `safe` or `unsafe`, is the answer
    reason      the model thinks (at most `think` tokens, or the thought is closed for it), then the box as above
    deliberate  one rule a call over a shared prefix (evidence first), fanned out, as `reason`

The verdict is never read from free text. After the box's opening the probabilities of the two verdict tokens give the
score, sigmoid((log p(unsafe) - log p(safe) + bias) / temperature), calibrated per depth by the checkpoint's card; and
only where that could reach a threshold, a second, pattern-constrained completion names the rules. All that was said is
then put together and read by `verdict.read`, the same strict reader as in training: an empty thought, a box inside the
thought or an unknown rule is `Unreadable`, which is a failure here, never an allow (cases.md I01-I10).

A policy's `depth` is a floor: policies that ask for more are judged by themselves, deeper. What does not fit the
engine's context is judged in overlapping windows; policies that do not fit together are judged in halves.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import math
import re
import secrets
import time
from collections.abc import Coroutine, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.compose import DEPTHS, merge
from firewall.guards.engine import Ask, Engine, Reply, Seat, lean
from firewall.guards.tokens import Tokens
from firewall.guards.windows import windows
from firewall.policy import Policy, PolicySet, Rule
from firewall.template import FINGERPRINT, Segment, render
from firewall.verdict import BOX, CLOSE, OPEN, Depth, Finding, Unreadable, Verdict, read

CITED = 8               # rules one box may name
FAN = 8                 # questions of one judgement at the same time
Scale = tuple[float, float]
Rendered = tuple[Case | None, Depth, Rule | None, tuple[Segment, ...]]
NOTHING: Rendered = (None, "snap", None, ())


@dataclass(frozen=True, slots=True)
class Settings:
    """Args:
        depth: how hard it thinks where no policy asks for more.
        think: tokens a thought may have.
        pattern: the engine can be held to a regular expression (vLLM's `structured_outputs`).
        scale: depth -> (temperature, bias) of the score.
        fingerprint: of weights, template and reader.
    """

    depth: Depth = "snap"
    think: int = 192
    pattern: bool = True
    scale: Mapping[str, Scale] = field(default_factory=dict)
    fingerprint: str = FINGERPRINT


class Reasoner(Seat):
    """A guard on an engine. Without `tokens`, prompts are sent as text and only the server knows its tokenizer."""

    def __init__(self, name: str, engine: Engine, tokens: Tokens | None, settings: Settings) -> None:
        super().__init__(name, engine)
        self.engine, self.tokens, self.settings = engine, tokens, settings
        self.fingerprint = settings.fingerprint
        self._safe = tokens.first("safe") if tokens else None
        self._unsafe = tokens.first("unsafe") if tokens else None
        self._salt_key = secrets.token_bytes(32)
        self._last = NOTHING

    @property
    def depth(self) -> Depth:
        return self.settings.depth

    async def judge(self, case: Case) -> Verdict:
        self.open()
        began = time.perf_counter()
        parts: dict[Depth, list[Policy]] = {}
        for policy in case.policies:
            floor = policy.depth or "snap"
            depth = floor if DEPTHS[floor] > DEPTHS[self.depth] else self.depth
            parts.setdefault(depth, []).append(policy)
        gate = asyncio.Semaphore(FAN)
        try:
            verdicts = await _all(self._deep(case if len(parts) == 1 else case._replace(policies=PolicySet.of(policies)),
                                             depth, gate) for depth, policies in parts.items())
        except Unreadable as e:
            raise GuardDown("guard_unreadable", f"guard {self.name}: {e}") from None
        if not verdicts:
            return Verdict(self.name, depth=self.depth, path=(f"{self.name}:{self.depth}",))
        return replace(merge(verdicts, (time.perf_counter() - began) * 1e3), path=tuple(
            dict.fromkeys(step for v in verdicts for step in v.path)))

    async def _deep(self, case: Case, depth: Depth, gate: asyncio.Semaphore) -> Verdict:
        """All of a case's policies at one depth."""
        if depth == "deliberate":
            alone = [(case._replace(policies=PolicySet((p,))), r) for p in case.policies for r in p.rules]
            asks = [self._one(part, depth, rule, gate) for c, rule in alone
                    for part in windows(c, lambda w, r=rule: self._fits(w, depth, r))]      # type: ignore[misc]
            return merge(await _all(asks))
        try:
            parts = windows(case, lambda w: self._fits(w, depth))
        except GuardDown:
            if len(case.policies) < 2:
                raise
            half = len(case.policies) // 2
            return merge(await _all(self._deep(case._replace(policies=PolicySet(some)), depth, gate) for some in
                                    (case.policies.policies[:half], case.policies.policies[half:])))
        return merge(await _all(self._one(part, depth, None, gate) for part in parts))

    def _fits(self, case: Case, depth: Depth, rule: Rule | None = None) -> bool:
        if not self.engine.context:
            return True
        segments = self._rendered(case, depth, rule)
        reserve = self._reserve(case, depth)
        if sum(len(s.text.encode("utf-8", "replace")) for s in segments) + reserve <= self.engine.context:
            return True                 # a token is a byte at least: no need to count them
        prompt = self.prompt(segments)
        have = len(prompt) if isinstance(prompt, list) else len(prompt.encode()) // 2       # text: a careful guess
        return have + reserve <= self.engine.context

    def _rendered(self, case: Case, depth: Depth, rule: Rule | None) -> tuple[Segment, ...]:
        """A case that fits is measured and asked in a row: its prompt is made once."""
        case_, depth_, rule_, segments = self._last
        if case_ is not case or depth_ != depth or rule_ is not rule:
            segments = render(case, depth, rule)
            self._last = (case, depth, rule, segments)
        return segments

    def _reserve(self, case: Case, depth: Depth) -> int:
        """Tokens kept free for the answer: the thought, the box, the cited rules."""
        longest = max((len(r) for r in case.policies.rule_ids), default=8)
        return (0 if depth == "snap" else self.settings.think + 8) + 4 + CITED * (longest // 2 + 2)

    def prompt(self, segments: Sequence[Segment]) -> list[int] | str:
        return self.tokens.encode(segments) if self.tokens else "".join(s.text for s in segments)

    async def _one(self, case: Case, depth: Depth, rule: Rule | None, gate: asyncio.Semaphore) -> Verdict:
        """One question, asked to its end. Raises `Unreadable`."""
        async with gate:
            began = time.perf_counter()
            segments = [*self._rendered(case, depth, rule)]
            self._last = NOTHING
            thought, spent = "", 0
            if depth != "snap":
                said = await self._complete(case, segments, depth, self.settings.think, stop=(CLOSE,))
                thought, spent = said.text.split(CLOSE)[0], _cost(said)
                if not thought.strip() or BOX in thought or OPEN in thought:
                    raise Unreadable("a thought that is empty or forges a verdict")
                segments += [Segment(thought.rstrip() if not said.cut else thought, False),
                             Segment(f"\n{CLOSE}\n\n{BOX}", True)]
            watch = tuple(t for t in (self._safe, self._unsafe) if t is not None)
            box = await self._complete(case, segments, depth, 1, watch=watch)
            temperature, bias = self.settings.scale.get(depth, (1.0, 0.0))
            score = 1 / (1 + math.exp(-(lean(box.first, self._safe, self._unsafe) + bias) / temperature))
            spent += _cost(box)
            rules: tuple[str, ...] = ()
            if score >= min((p.threshold for p in case.policies), default=1.0):
                rules, more = await self._cite(case, segments, depth, rule, thought)
                spent += more
            return Verdict(self.name, tuple(Finding(r, score) for r in rules), score, depth,
                           (time.perf_counter() - began) * 1e3, tokens=spent, path=(f"{self.name}:{depth}",),
                           reason=thought.strip())

    async def _cite(self, case: Case, segments: list[Segment], depth: Depth, rule: Rule | None,
                    thought: str) -> tuple[tuple[str, ...], int]:
        """The rules of an `unsafe` box, and the tokens it took. One candidate needs no question."""
        ids = (rule.id,) if rule else case.policies.rule_ids
        if len(ids) == 1:
            return ids, 0
        names = "|".join(re.escape(r) for r in ids)
        longest = max(map(len, ids))
        said = await self._complete(
            case, [*segments, Segment("unsafe: ", True)], depth, CITED * (longest // 2 + 2), stop=("}",),
            pattern=f"({names})(, ({names})){{0,{CITED - 1}}}" if self.settings.pattern else "")
        cited = list(dict.fromkeys(r.strip() for r in said.text.split(",")))        # greedy decoding may repeat itself
        if said.cut and len(cited) > 1 and cited[-1] not in ids:
            cited.pop()                                                             # the last one was cut short
        text = f"{OPEN}{thought}{CLOSE}{BOX}unsafe: {', '.join(cited)}}}"
        return read(text, ids, depth).rules, _cost(said)

    async def _complete(self, case: Case, segments: Sequence[Segment], depth: Depth, limit: int, *,
                        stop: tuple[str, ...] = (), pattern: str = "", watch: tuple[int, ...] = ()) -> Reply:
        return await self.engine.complete(Ask(
            self.prompt(segments), limit, stop, pattern, watch, self.salt(case.tenant),
            case.boundary or case.policies.digest, depth))

    def share_salt(self, key: bytes) -> None:
        """Takes the key of an engine that several processes share."""
        self._salt_key = key

    def salt(self, tenant: str) -> str:
        """HMAC of the tenant: 43 characters of base64url, unknown to any client (cases.md I18)."""
        digest = hmac.new(self._salt_key, tenant.encode("utf-8", "surrogatepass"), hashlib.sha256).digest()
        return base64.urlsafe_b64encode(digest).decode().rstrip("=")


def _cost(reply: Reply) -> int:
    return max(0, reply.prompt - reply.cached) + reply.new


async def _all(asks: Iterable[Coroutine[Any, Any, Verdict]]) -> list[Verdict]:
    """All answers; the first failure cancels the rest, and so does cancelling this."""
    several = list(asks)
    if len(several) == 1:
        return [await several[0]]
    tasks = [asyncio.ensure_future(a) for a in several]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for t in tasks:
            t.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        raise


