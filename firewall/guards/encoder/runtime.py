"""`EncoderGuard`: the embedded default. Reads the policy text, judges in milliseconds on a CPU, needs no torch.

Texts are judged in canonical windows (`windows.py`), each alone. On a partial case only complete windows may produce
findings; the growing tail is judged too, and when it looks bad it is named in `unsure`, so that the gate holds it back
until the window completes or the answer ends. The verdict over a whole text is therefore the same whether it streamed
or not, and a finding never goes away when more text arrives.

A text in disguise (zero-width characters, full-width letters, lookalikes, emoji glued to words, letters in tags) is
judged as it stands and as it reads (`reading.py`). Window scores are remembered by tenant, text and plan, so that a
growing answer costs only its new windows.

Spans say where the words stand that spoke most for a finding. They are no complete list of what violates, hence never
good for cutting out: findings of policies that redact have none, and block.
"""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from firewall.case import Case
from firewall.errors import GuardDown, Mistakes
from firewall.guards.encoder.engine import Engine, Scores
from firewall.guards.encoder.plan import Plan, compile
from firewall.guards.encoder.pool import Pool
from firewall.guards.encoder.reading import coded, readings
from firewall.guards.encoder.windows import context, windows
from firewall.policy import PolicySet
from firewall.verdict import Finding, Span, Verdict

ASSETS = Path(__file__).parent / "assets"
PLANS = 64
CODE = ("rules.py", "reading.py", "windows.py", "plan.py", "engine.py", "wordpiece.py")


class Piece(NamedTuple):
    """One window on trial. `start` counts in the reading that is judged; `place` maps its places to the text's."""

    channel: str
    start: int
    text: str
    final: bool             # it cannot change any more: findings count
    place: Callable[[int, int], tuple[int, int]] | None = None


class EncoderGuard:
    """The policy-conditioned encoder on onnxruntime.

    Args:
        assets: folder with the four graphs, tokenizer.json, codes.npz and card.json.
        threads: worker threads; each runs one window at a time on one core.
        queue: cases of one tenant that may wait, however long; beyond it `GuardDown("guard_overloaded")`.
        memory: window scores remembered.
    """

    def __init__(self, assets: Path = ASSETS, *, threads: int = 1, queue: int = 256, memory: int = 8192,
                 name: str = "embedded") -> None:
        self.assets, self.memory, self.name = assets, memory, name
        self._pool = Pool(max(1, threads), queue, name)
        self._engine: Engine | None = None
        self._plans: OrderedDict[str, Plan] = OrderedDict()
        self._kept: OrderedDict[tuple[str, int, str, str, str], Scores] = OrderedDict()
        self._print = ""

    @property
    def fingerprint(self) -> str:
        """Names the weights, their calibration and the code that cuts texts and policies."""
        if not self._print:
            digest = hashlib.sha256()
            for path in (self.assets / "card.json", *(Path(__file__).parent / name for name in CODE)):
                digest.update(path.read_bytes() if path.exists() else b"?")
            self._print = f"encoder-{digest.hexdigest()[:16]}"
        return self._print

    @property
    def validated(self) -> frozenset[str]:
        """Ids of shipped policies whose scores were good enough on held-out data to stand alone in a cascade."""
        return frozenset(self._engine.card.get("validated", ())) if self._engine else frozenset()

    async def start(self) -> None:
        """Loads the graphs (well under a second). Raises `Mistakes` when the assets are missing or broken."""
        if self._engine is None:
            try:
                self._engine = await asyncio.to_thread(Engine, self.assets, check=True)
            except Exception as e:
                raise Mistakes([f"{self.assets}: the embedded guard cannot load ({type(e).__name__}); reinstall the "
                                "package, or make the weights with `python -m trainer encoder`"]) from None
        self._pool.start()

    async def close(self) -> None:
        await asyncio.to_thread(self._pool.close)
        self._engine = None

    def ready(self) -> str:
        return "" if self._engine else f"guard {self.name} is not loaded"

    def warm(self, policies: PolicySet) -> None:
        """Encodes the sentences of a policy set now, not in the first exchange (some 5 ms for each that is new)."""
        if self._engine is not None:
            for part in (policies.side("input"), policies.side("output")):
                if part.digest not in self._plans:
                    self._plans[part.digest] = compile(part.policies, self._engine.code, self._engine.card["calibration"])

    def known(self, case: Case) -> Verdict | None:
        """A verdict made of remembered windows only, or None."""
        plan = self._plans.get(case.policies.digest)
        if self._engine is None or plan is None:
            return None
        began = time.perf_counter()
        about = _context(case)
        found = []
        for piece in pieces(case):
            if (scores := self._kept.get(self._key(case, about, piece))) is None:
                return None
            found.append((piece, scores))
        return self._verdict(case, plan, found, began, 0)

    async def judge(self, case: Case) -> Verdict:
        if self._engine is None:
            raise GuardDown("guard_closed", f"guard {self.name} is not loaded")
        began = time.perf_counter()
        if not len(case.policies):
            return Verdict(self.name, path=(self.name,))
        plan = await self._plan(case.policies, case.tenant)
        about, way = _context(case), int(case.direction == "output")
        todo: dict[tuple[str, int, str, str, str], str] = {}
        hand: list[tuple[Piece, tuple[str, int, str, str, str]]] = []
        scores: dict[tuple[str, int, str, str, str], Scores] = {}
        for piece in pieces(case):
            key = self._key(case, about, piece)
            hand.append((piece, key))
            if (kept := self._kept.get(key)) is not None:
                self._kept.move_to_end(key)
                scores[key] = kept
            else:
                todo[key] = piece.text
        jobs = [partial(self._engine.score, text, about, way, plan) for text in todo.values()]
        for key, new in zip(todo, await self._pool.run(jobs, case.tenant), strict=True):
            scores[key] = self._kept[key] = new
        while len(self._kept) > self.memory:
            self._kept.popitem(last=False)
        tokens = sum(scores[key].tokens for key in todo)
        return self._verdict(case, plan, [(piece, scores[key]) for piece, key in hand], began, tokens)

    async def _plan(self, policies: PolicySet, tenant: str) -> Plan:
        plan = self._plans.get(policies.digest)
        if plan is None:
            engine = self._engine
            assert engine is not None
            job = partial(compile, policies.policies, engine.code, engine.card["calibration"])
            plan = (await self._pool.run([job], tenant))[0]
            self._plans[policies.digest] = plan
            while len(self._plans) > PLANS:
                self._plans.popitem(last=False)
        return plan

    @staticmethod
    def _key(case: Case, about: str, piece: Piece) -> tuple[str, int, str, str, str]:
        return case.tenant, int(case.direction == "output"), case.policies.digest, about, piece.text

    def _verdict(self, case: Case, plan: Plan, found: list[tuple[Piece, Scores]], began: float, tokens: int) -> Verdict:
        best: dict[str, float] = {}
        spans: dict[str, list[Span]] = {}
        unsure: dict[str, int] = {}
        top = 0.0
        for piece, scores in found:
            if not piece.final:
                if (scores.p >= plan.threshold).any():
                    start = piece.place(piece.start, piece.start)[0] if piece.place else piece.start
                    unsure[piece.channel] = min(start, unsure.get(piece.channel, start))
                continue
            top = max(top, float(scores.p.max(initial=0.0)))
            for r in (scores.p >= plan.report).nonzero()[0]:
                rule = plan.rules[r]
                best[rule] = max(best.get(rule, 0.0), float(scores.p[r]))
                spans.setdefault(rule, [])
            for at, first, last in scores.spans:
                if case.policies.owner[plan.rules[at]].action == "redact":
                    continue            # evidence is not all there is to cut: without a span it blocks
                a, b = first + piece.start, last + piece.start
                if piece.place:
                    a, b = piece.place(a, b)
                spans.setdefault(plan.rules[at], []).append(Span(piece.channel, a, b))
        findings = tuple(Finding(rule, best[rule], tuple(sorted(set(spans[rule])))) for rule in sorted(best))
        return Verdict(self.name, findings, top, ms=(time.perf_counter() - began) * 1e3, unsure=tuple(unsure.items()),
                       tokens=tokens, path=(self.name,))


def pieces(case: Case) -> list[Piece]:
    """Everything on trial, in windows; a disguised text also as it reads, base64 in a request as what it says. Of a growing
    channel only complete windows are final."""
    out: list[Piece] = []
    for channel, text in case.trial():
        for words, place in readings(text) + coded(text) if case.direction == "input" else readings(text):
            out += [Piece(channel, w.start, w.text, case.whole or w.complete, place) for w in windows(words)]
    return out


def _context(case: Case) -> str:
    """The last user turn, beside an answer on trial."""
    if case.direction == "input":
        return ""
    return context(next((m.text for m in reversed(case.messages) if m.role == "user"), ""))


__all__ = ["ASSETS", "EncoderGuard", "pieces"]
