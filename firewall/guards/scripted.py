"""`ScriptedGuard`: words -> rule ids. The guard of tests and of the demo; it can also be slow, dead, hanging or lying.

It answers at once (`known`) unless it was told to be slow, so that it costs nothing where the cost of everything else
is measured. On a partial case it holds back a tail that could become one of its words.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Literal

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.verdict import Finding, Span, Verdict

Mode = Literal["ok", "dead", "hang", "crash", "lie"]


class ScriptedGuard:
    """Finds words, case-folded, in everything on trial.

    Args:
        rules: word -> rule id. A rule that is not active in a case is not found in it.
        delay: seconds each answer takes; 0 answers through `known`.
        mode: `ok`; `dead` raises `GuardDown`; `hang` never answers; `crash` breaks the contract with a foreign
            exception; `lie` returns a verdict that cites an unknown rule. May be changed while running.
        views: also look in the views of `views.py` (decoded, joined); such findings have no spans.
        record: keep every case in `seen` (tests ask what the guard was shown).
    """

    def __init__(self, rules: Mapping[str, str] | None = None, *, delay: float = 0.0, mode: Mode = "ok",
                 views: bool = False, record: bool = False, name: str = "scripted") -> None:
        self.rules = {word.casefold(): rule for word, rule in (rules or {}).items() if word}
        self.delay, self.mode, self.views, self.record, self.name = delay, mode, views, record, name
        self.fingerprint = "scripted-" + hashlib.sha256(repr(sorted(self.rules.items())).encode(
            "utf-8", "surrogatepass")).hexdigest()[:12]
        self.seen: list[Case] = []
        self.asked = self.cancelled = 0
        self.closed = False
        self._clean = Verdict(name, path=(name,))
        self._starts = {word[:k] for word in self.rules for k in range(1, len(word))}
        self._reach = max(map(len, self.rules), default=1) - 1

    async def start(self) -> None:
        self.closed = False

    async def close(self) -> None:
        self.closed = True

    def ready(self) -> str:
        if self.closed:
            return f"guard {self.name} is closed"
        return "" if self.mode in ("ok", "lie") else f"guard {self.name} is {self.mode}"

    def known(self, case: Case) -> Verdict | None:
        if self.delay or self.mode != "ok" or self.closed:
            return None
        return self._answer(case)

    async def judge(self, case: Case) -> Verdict:
        if self.closed:
            raise GuardDown("guard_closed", f"guard {self.name} was closed")
        try:
            if self.delay or self.mode == "hang":
                await (asyncio.sleep(self.delay) if self.mode != "hang" else asyncio.Event().wait())
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.mode == "dead":
            raise GuardDown("guard_unavailable", f"guard {self.name} is dead")
        if self.mode == "crash":
            raise RuntimeError("scripted crash")
        if self.mode == "lie":
            return Verdict(self.name, (Finding("no-such-rule", 7.0),), 7.0, path=(self.name,))
        return self._answer(case)

    def _answer(self, case: Case) -> Verdict:
        self.asked += 1
        if self.record:
            self.seen.append(case)
        if not self.rules:
            return self._clean
        hits: dict[str, list[Span]] = {}
        unsure: list[tuple[str, int]] = []
        for channel, text in case.trial():
            folded = text.casefold()
            same = len(folded) == len(text)         # folding only ever lengthens: equal length means equal places
            for word, rule in self.rules.items():
                at = folded.find(word)
                while at >= 0:
                    found = hits.setdefault(rule, [])
                    if same:
                        found.append(Span(channel, at, at + len(word)))
                    at = folded.find(word, at + len(word))
            if not case.whole and (start := self._held(folded)) < len(folded):
                unsure.append((channel, start if same else 0))
        if self.views:
            from firewall.guards.views import everything
            for view in everything(case):
                for word, rule in self.rules.items():
                    if word in view:
                        hits.setdefault(rule, [])
        findings = tuple(Finding(rule, 1.0, tuple(spans)) for rule, spans in hits.items()
                         if rule in case.policies.owner)
        return Verdict(self.name, findings, 1.0 if findings else 0.0, unsure=tuple(unsure), path=(self.name,))

    def _held(self, folded: str) -> int:
        """Where the longest tail begins that one of the words begins with."""
        for k in range(min(self._reach, len(folded)), 0, -1):
            if folded[-k:] in self._starts:
                return len(folded) - k
        return len(folded)
