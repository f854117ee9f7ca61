"""`Patterns`: deterministic detectors and phrases. The first guard of every chain; it needs no model and no wait.

A policy turns them on with `detect: [email, aws-key, "phrase:project zebra"]`. All triggers of a policy set become one
hyperscan database (block mode, vectorised, linear), compiled once per policy digest. Phrases are literals, case-folded,
looked for in the cleaned text. What has a place in the text is reported with exact character spans; what is found only
in a view (views.py: decoded, reversed, joined over messages) has none, so that `redact` becomes a block. What escapes
spell in the arguments of a call has a place where the wire shows beside them what they say, and waits for that
(escaped.py): every dialect redacts alike.

Promises
- Linear: bounded triggers only (`width` proves it when a set is compiled), growth bounded, texts cut into overlapping
  chunks with a breath for the event loop after each. `re` sees no more than the characters around a hit.
- Nothing that could be the beginning of a match is vouched for: on a partial case `Verdict.unsure` names the place of
  the earliest live beginning at the end of each channel (never farther back than the widest match begins), and a match
  that reaches into it waits there, for it may grow or come to nothing.
- A growing answer is not read twice: the next look begins where nothing was held back, found places are remembered.
- What was found in place is blanked before the views are read, so that a view never reports it a second time.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections import OrderedDict
from collections.abc import Generator
from typing import NamedTuple

from firewall.case import Case
from firewall.errors import GuardDown, Mistakes
from firewall.guards.compiled import WIDEST, Compiled, Hit, width, wrong
from firewall.guards.escaped import COMING, beside
from firewall.guards.quiet import Trace, word_start
from firewall.guards.views import REACH, chunks, joined, seams
from firewall.policy import PolicySet
from firewall.verdict import Finding, Span, Verdict

__all__ = ["WIDEST", "Patterns", "width"]

INLINE = 16_384         # characters that are judged at once, without giving way to other work
TAIL, STREAMS = 64, 8192    # characters that identify a growing text; growing answers remembered
NEVER = 1 << 62
NEW: dict[str, Seen] = {}


class Patterns:
    """A guard over all policies with `detect`.

    Args:
        sets: how many compiled policy sets are kept.
        quick: whether texts that hold nothing of interest take the short way (quiet.py); the verdicts are the same.
    """

    name = "patterns"
    fingerprint = "patterns-4"

    def __init__(self, sets: int = 32, *, quick: bool = True) -> None:
        self.sets, self.quick = sets, quick
        self._kept: OrderedDict[str, Compiled | None] = OrderedDict()
        self._streams: OrderedDict[str, dict[str, Seen]] = OrderedDict()
        self._clean = Verdict(self.name, path=(self.name,))

    @staticmethod
    def check(policies: PolicySet) -> None:
        """Raises `Mistakes`: unknown detectors (the nearest is named), phrases that are empty or too long."""
        mistakes = [f"policy {p.id}: detect: {problem}" for p in policies for name in p.detect
                    if (problem := wrong(name))]
        if mistakes:
            raise Mistakes(mistakes)

    def warm(self, policies: PolicySet) -> None:
        """Compiles a set (and what each direction takes of it) now, not in the first exchange: about half a second.

        Raises:
            Mistakes: as `check`.
        """
        for part in (policies.side("input"), policies.side("output")):
            self._compiled(part)

    async def start(self) -> None:
        return

    async def close(self) -> None:
        self._kept.clear()
        self._streams.clear()

    def forget(self, boundary: str) -> None:
        """An exchange has ended: nothing of its words stays."""
        for digest in self._kept:
            self._streams.pop(boundary + digest, None)

    def ready(self) -> str:
        return ""

    def known(self, case: Case) -> Verdict | None:
        """The verdict, where judging it takes well under a millisecond."""
        compiled = self._compiled(case.policies)
        if compiled is None:
            return self._clean
        seen, size = NEW, 0
        quick = glance = self.quick
        if case.direction == "input":
            for message in case.messages:
                size += len(message.text) + 512
        else:
            texts = (case.answer[0].text,) if len(case.answer) == 1 else case.channels().values()
            for text in texts:
                size += len(text)
            if case.boundary:
                seen = self._streams.get(case.boundary + case.policies.digest, NEW)
                for before in seen.values():
                    size -= before.length
                    if before.hits or before.loose or before.veiled < NEVER:
                        glance = False
        if size > INLINE:
            return None
        if glance:
            if (verdict := self._glance(case, compiled, seen)) is not None:
                return verdict
            quick = len(case.messages if case.direction == "input" else case.answer) > 1
        return _run(self._work(case, compiled, quick))

    async def judge(self, case: Case) -> Verdict:
        try:
            compiled = self._compiled(case.policies)
        except Mistakes as e:
            raise GuardDown("guard_config", e.lines[0]) from None
        if compiled is None:
            return self._clean
        work = self._work(case, compiled, self.quick)
        try:
            while True:
                next(work)
                await asyncio.sleep(0)
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict

    def _compiled(self, policies: PolicySet) -> Compiled | None:
        key = policies.digest
        if key in self._kept:
            return self._kept[key]
        active = PolicySet(tuple(p for p in policies if p.detect))
        same = next((c for c in self._kept.values() if c is not None and c.policies == active), None)
        if active.policies and same is None:
            self.check(active)
            same = Compiled(active)
        self._kept[key] = same          # both directions of one set often share their detectors
        while len(self._kept) > self.sets:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _glance(self, case: Case, c: Compiled, seen: dict[str, Seen]) -> Verdict | None:
        """The verdict on a case in which nothing can be found; None where that is not certain."""
        quiet, whole = c.quiet, case.whole
        if case.direction == "input" or not case.boundary:
            texts = [text for _, text in case.trial()]
            quiescent = whole and all(map(quiet.alone, texts)) and (len(texts) < 2 or all(
                quiet.alone(seam) for run in joined(case, texts) for seam, _ in seams(run)))
            return self._clean if quiescent else None
        trial = case.answer if len(case.answer) == 1 else case.trial()
        if whole and len(trial) != 1:
            return None
        unsure: list[tuple[str, int]] = []
        now: dict[str, Seen] = {}
        for channel, text in trial:
            trace, done = None, 0
            before = seen.get(channel)
            if before is not None and before.follows(text):
                trace, done = before.trace, before.held
            trace = quiet.grown(text, trace, done)
            if trace is None:
                return None
            held = size = trace.length
            if not whole:
                if trace.ends or c.phrases:
                    held = c.held(text, trace.ends)
                    if held < size:
                        unsure.append((channel, held))
                now[channel] = Seen(size, text[-TAIL:], held, NONE, NOTHING, trace)
        self._remember(case.boundary + case.policies.digest, now)
        return Verdict(self.name, unsure=tuple(unsure), path=(self.name,)) if unsure else self._clean

    def _work(self, case: Case, c: Compiled, quick: bool) -> Generator[None, None, Verdict]:
        began = time.perf_counter()
        places: dict[str, list[Span]] = {}
        loose: set[str] = set()
        unsure: list[tuple[str, int]] = []
        rest: list[str] = []
        trial = case.trial()
        growing = case.direction == "output" and bool(case.boundary)
        key = case.boundary + case.policies.digest
        seen = self._streams.get(key, NEW) if growing and (len(trial) == 1 or not case.whole) else NEW
        seams_too = case.whole and len(trial) > 1
        now: dict[str, Seen] = {}
        channels = {channel for channel, _ in trial}
        for channel, text in trial:
            start, hits = 0, set()
            shown = beside(case, channel, channels) if "\\" in text else ""
            veiled, before = NEVER, seen.get(channel)
            if before is not None and shown == COMING:
                veiled = before.veiled
            elif before is not None and (before.veiled < NEVER or shown and shown not in seen):
                before = None           # what its escapes spell has places now, or will never have any
            if before is not None and before.follows(text):
                start, hits = word_start(text, before.held), set(before.hits)
                while (inside := min((s for _, s, e, _ in hits if s < start < e), default=start)) < start:
                    start = inside              # the rest of what was found would be found again, as something shorter
                loose |= before.loose
            blank: list[str] = []
            wild: set[str] = set()
            for at, part in chunks(text[start:] if start else text):
                bare = part
                if not (quick and c.quiet.alone(part)):
                    found = c.exact(text, start + at, part)
                    if at == 0 and start and _WORD.match(text, start - 1):      # cut in a word: none begins here anew
                        found = {hit for hit in found if hit[1] > start or hit in hits}
                    bare = _blanked(part, [(s - start - at, e - start - at) for _, s, e, _ in found])
                    viewed = c.hidden(bare)
                    if viewed and shown:
                        spelt = c.escaped(part, start + at, start + at + len(part) < len(text))
                        bare = _blanked(bare, [(s - start - at, e - start - at) for _, s, e, _ in spelt])
                        viewed = c.hidden(bare)
                        if shown == COMING:
                            veiled = min([veiled, *(hit[1] for hit in spelt)])
                        else:
                            found |= spelt
                    hits |= {hit for hit in found if hit[1] < hit[2]}
                    wild |= viewed | {hit[0] for hit in found if hit[1] >= hit[2]}
                if seams_too:
                    blank.append(bare if at == 0 else bare[REACH:])
                yield
            loose |= wild
            end = len(text)
            held = end if case.whole else c.held(text)
            for rule, first, last, certain in sorted(hits, key=lambda hit: -hit[2]):
                grows = not case.whole and (last == end or last > held)     # what is held back may lengthen it
                if certain or not grows:
                    places.setdefault(rule, []).append(Span(channel, first, last))
                if grows:
                    held = min(held, first)
            if (clear := min(held, veiled)) < end:
                unsure.append((channel, clear))
            if growing and not case.whole:
                if start and before is not None:
                    wild |= before.loose
                settled = frozenset(h for h in hits if h[2] <= held and h[2] < end)
                now[channel] = Seen(end, text[-TAIL:], held, settled, frozenset(wild), None, veiled)
            rest.append("".join(blank))
        if growing:
            self._remember(key, now)
        for run in joined(case, rest) if seams_too else ():
            for seam, joint in seams(run):
                if not (quick and c.quiet.alone(seam)):
                    loose |= {rule for rule, start, end in c.seen(seam) if start < joint < end}
                    loose |= c.hidden(seam, words=False)
            yield
        findings = tuple(Finding(rule, 1.0, () if rule in loose else tuple(sorted(places[rule])))
                         for rule in sorted({*places, *loose}))
        return Verdict(self.name, findings, 1.0 if findings else 0.0, ms=(time.perf_counter() - began) * 1e3,
                       unsure=tuple(unsure), path=(self.name,))

    def _remember(self, key: str, now: dict[str, Seen]) -> None:
        streams = self._streams
        if not now:
            streams.pop(key, None)
            return
        streams[key] = now
        streams.move_to_end(key)
        if len(streams) > STREAMS:
            streams.popitem(last=False)


class Seen(NamedTuple):
    """A growing text so far: its length, its last characters, where it was held, and what was settled.

    Nothing before `held` can begin a match (that is what holding means), so the next look starts there. That the text
    only grows is the pump's promise within one exchange; its last characters are compared all the same. `trace` is
    what a quiet look left. From `veiled` on nothing is vouched for until what escapes spell is shown.
    """

    length: int
    tail: str
    held: int
    hits: frozenset[Hit]
    loose: frozenset[str]
    trace: Trace | None
    veiled: int = NEVER

    def follows(self, text: str) -> bool:
        return len(text) >= self.length and text.endswith(self.tail, 0, self.length)


_WORD = re.compile(r"\w\w", re.A)
NONE: frozenset[Hit] = frozenset()
NOTHING: frozenset[str] = frozenset()


def _run(work: Generator[None, None, Verdict]) -> Verdict:
    try:
        while True:
            next(work)
    except StopIteration as done:
        verdict: Verdict = done.value
        return verdict


def _blanked(text: str, places: list[tuple[int, int]]) -> str:
    if not places:
        return text
    out: list[str] = []
    done = 0
    for start, end in sorted(places):
        start, end = max(done, start), min(len(text), end)
        if start < end:
            out += text[done:start], " " * (end - start)
            done = end
    return "".join([*out, text[done:]])
