"""`Patterns`: deterministic detectors and phrases. The first guard of every chain; it needs no model and no wait.

A policy turns them on with `detect: [email, aws-key, "phrase:project zebra"]`. All triggers of a policy set become one
hyperscan database (block mode, vectorised, linear), compiled once per policy digest. Phrases are literals, case-folded,
looked for in the cleaned text. What has a place in the text is reported with exact character spans; what is found only
in a view (views.py: decoded, reversed, joined over messages) has none, so that `redact` becomes a block.

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
import difflib
import re
import re._parser as sre  # type: ignore[import-not-found]
import time
from collections import OrderedDict
from collections.abc import Generator, Iterator
from typing import NamedTuple

import hyperscan

from firewall.case import Case
from firewall.errors import GuardDown, Mistakes
from firewall.guards.detectors import DETECTORS, Detector
from firewall.guards.views import CHUNK, REACH, chunks, clean, fold, joined, origin, seams, views
from firewall.policy import Policy, PolicySet
from firewall.verdict import Finding, Span, Verdict

INLINE = 16_384         # characters that are judged at once, without giving way to other work
PHRASE = 256            # the longest phrase
SPACED = 96             # how far back a beginning with blanks is looked for
WIDEST = 512            # the widest trigger accepted, in characters
TAIL, STREAMS = 64, 8192    # characters that identify a growing text; growing answers remembered
BACK = 256              # how far back a look begins, for views that decode across the last one
READ = ("cleaned", "tags", "bidi", "decoded")       # views in which shapes, not only phrases, mean something


class Patterns:
    """A guard over all policies with `detect`. `sets`: how many compiled policy sets are kept."""

    name = "patterns"
    fingerprint = "patterns-1"

    def __init__(self, sets: int = 32) -> None:
        self.sets = sets
        self._kept: OrderedDict[str, Compiled | None] = OrderedDict()
        self._streams: OrderedDict[str, dict[str, Seen]] = OrderedDict()
        self._clean = Verdict(self.name, path=(self.name,))

    @staticmethod
    def check(policies: PolicySet) -> None:
        """Raises `Mistakes`: unknown detectors (the nearest is named), phrases that are empty or too long."""
        wrong = [f"policy {p.id}: detect: {problem}" for p in policies for name in p.detect
                 if (problem := _wrong(name))]
        if wrong:
            raise Mistakes(wrong)

    async def start(self) -> None:
        return

    async def close(self) -> None:
        self._kept.clear()
        self._streams.clear()

    def ready(self) -> str:
        return ""

    def known(self, case: Case) -> Verdict | None:
        """The verdict, where judging it takes well under a millisecond."""
        compiled = self._compiled(case.policies)
        if compiled is None:
            return self._clean
        if case.direction == "input":
            size = sum(len(m.text) + 512 for m in case.messages)
        else:
            size = sum(len(s.text) for s in case.answer)
            size -= sum(s.length for s in self._seen(case).values())
        if size > INLINE:
            return None
        try:
            work = self._work(case, compiled)
            while True:
                next(work)
        except StopIteration as done:
            verdict: Verdict = done.value
            return verdict

    async def judge(self, case: Case) -> Verdict:
        try:
            compiled = self._compiled(case.policies)
        except Mistakes as e:
            raise GuardDown("guard_config", e.lines[0]) from None
        if compiled is None:
            return self._clean
        work = self._work(case, compiled)
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
        if any(p.detect for p in policies):
            self.check(policies)
        self._kept[key] = Compiled(policies) if any(p.detect for p in policies) else None
        while len(self._kept) > self.sets:
            self._kept.popitem(last=False)
        return self._kept[key]

    def _seen(self, case: Case) -> dict[str, Seen]:
        """What is known of a growing answer, by channel."""
        return self._streams.get(case.boundary + case.policies.digest, {}) if case.boundary else {}

    def _work(self, case: Case, c: Compiled) -> Generator[None, None, Verdict]:
        began = time.perf_counter()
        places: dict[str, list[Span]] = {}
        loose: set[str] = set()
        unsure: list[tuple[str, int]] = []
        rest: list[str] = []
        trial = case.trial()
        growing = case.direction == "output" and bool(case.boundary)
        seen = self._seen(case) if growing and (len(trial) == 1 or not case.whole) else {}
        seams_too = case.whole and len(trial) > 1
        now: dict[str, Seen] = {}
        for channel, text in trial:
            start, hits = 0, set()
            before = seen.get(channel)
            if before is not None and before.follows(text):
                start, hits = _word_start(text, before.held), set(before.hits)
                loose |= before.loose
            blank: list[str] = []
            wild: set[str] = set()
            for at, part in chunks(text[start:] if start else text):
                found = c.exact(text, start + at, part)
                hits |= found
                bare = _blanked(part, [(s - start - at, e - start - at) for _, s, e, _ in found])
                if seams_too:
                    blank.append(bare if at == 0 else bare[REACH:])
                for view in views(bare, words=bool(c.phrases)):
                    wild |= {rule for rule, _, _ in c.seen(view.text, shapes=view.kind in READ)}
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
            if held < end:
                unsure.append((channel, held))
            if growing and not case.whole:
                if start and before is not None:
                    wild |= before.loose
                settled = frozenset(h for h in hits if h[2] <= held and h[2] < end)
                now[channel] = Seen(end, text[-TAIL:], held, settled, frozenset(wild))
            rest.append("".join(blank))
        if growing:
            self._remember(case, now)
        for run in joined(case, rest) if seams_too else ():
            for seam, joint in seams(run):
                loose |= {rule for rule, start, end in c.seen(seam) if start < joint < end}
                for view in views(seam, words=False):
                    loose |= {rule for rule, _, _ in c.seen(view.text, shapes=view.kind in READ)}
            yield
        findings = tuple(Finding(rule, 1.0, () if rule in loose else tuple(sorted(places[rule])))
                         for rule in sorted({*places, *loose}))
        return Verdict(self.name, findings, 1.0 if findings else 0.0, ms=(time.perf_counter() - began) * 1e3,
                       unsure=tuple(unsure), path=(self.name,))

    def _remember(self, case: Case, now: dict[str, Seen]) -> None:
        key = case.boundary + case.policies.digest
        self._streams.pop(key, None)
        if now:
            self._streams[key] = now
            if len(self._streams) > STREAMS:
                self._streams.popitem(last=False)


class Seen(NamedTuple):
    """A growing text so far: its length, its last characters, where it was held, and what was settled.

    Nothing before `held` can begin a match (that is what holding means), so the next look starts there. That the text
    only grows is the pump's promise within one exchange; its last characters are compared all the same.
    """

    length: int
    tail: str
    held: int
    hits: frozenset[tuple[str, int, int, bool]]
    loose: frozenset[str]

    def follows(self, text: str) -> bool:
        return len(text) >= self.length and text.endswith(self.tail, 0, self.length)


class Compiled:
    """One policy set, ready to scan. Raises `Mistakes` for a trigger without a bound.

    `shapes`: (detector, its rules) of each trigger; `phrases`: folded text -> its rules.
    """

    def __init__(self, policies: PolicySet) -> None:
        self.shapes: list[tuple[Detector, tuple[str, ...]]] = []
        self.phrases: dict[str, tuple[str, ...]] = {}
        wanted: dict[str, tuple[str, ...]] = {}
        for policy in policies:
            for name in policy.detect:
                wanted[name] = (*wanted.get(name, ()), _rule(policy, name))
        triggers: list[str] = []
        for name, rules in wanted.items():
            if name.startswith("phrase:"):
                self.phrases[fold(name[7:])] = rules
            else:
                self.shapes += [(DETECTORS[name], rules)] * len(DETECTORS[name].triggers)
                triggers += DETECTORS[name].triggers
        wrong = [f"pattern {t!r} has no bound below {WIDEST} characters" for t in triggers if width(t) > WIDEST]
        if wrong:
            raise Mistakes(wrong)
        som = hyperscan.HS_FLAG_SOM_LEFTMOST
        self._database = _database([t.encode() for t in triggers], som) if triggers else None
        self._literals = _database([p.encode() for p in self.phrases], literal=True) if self.phrases else None
        live = {d.name: d for d, _ in self.shapes}.values()
        self._tight = _ending(d.live for d in live if not d.spaced)
        self._loose = _ending(d.live for d in live if d.spaced)
        self._spelt = list(self.phrases.items())
        self._starts = {p[:k] for p in self.phrases for k in range(1, len(p))}
        self._longest = max(map(len, self.phrases), default=0)

    def exact(self, text: str, at: int, part: str) -> set[tuple[str, int, int, bool]]:
        """(rule, start, end, certain) in `text`, for hits that begin in its `part` at `at`."""
        found = {(rule, start, end, d.certain) for d, rules, start, end in self._shapes(part, text, at)
                 for rule in rules}
        plain = clean(part)
        if plain != part:
            for d, rules, start, end in self._shapes(plain, plain, 0):
                a, b = origin(part, start, end)
                b = len(part) if end == len(plain) else b
                found |= {(rule, at + a, at + b, d.certain) for rule in rules}
        for rules, start, end in self._phrases(fold(part)):
            a, b = origin(part, start, end, folded=True)
            found |= {(rule, at + a, at + b, True) for rule in rules}
        return found

    def seen(self, view: str, shapes: bool = True) -> Iterator[tuple[str, int, int]]:
        """(rule, start, end) in a view: strong shapes, if they mean something there, and phrases."""
        for part in (view[i:i + CHUNK] for i in range(0, max(1, len(view) - REACH), CHUNK - REACH)):
            if shapes:
                for d, rules, start, end in self._shapes(part, part, 0):
                    if d.strong:
                        yield from ((rule, start, end) for rule in rules)
            for rules, start, end in self._phrases(fold(part)):
                yield from ((rule, start, end) for rule in rules)

    def held(self, text: str) -> int:
        """Where the earliest beginning of a match at the end of `text` stands; `len(text)` if there is none."""
        tail = text[-REACH:]
        base, best = len(text) - len(tail), len(tail)
        for read in {tail, clean(tail)}:
            last = max(read.rfind(" "), read.rfind("\n"), read.rfind("\t")) + 1
            for pattern, start in ((self._tight, last), (self._loose, max(0, last - SPACED))):
                if pattern and (m := pattern.search(read, start)):
                    best = min(best, m.start() if read is tail else origin(tail, m.start(), m.end())[0])
        if self.phrases:
            folded = fold(tail)
            for k in range(min(self._longest - 1, len(folded)), 0, -1):
                if folded[-k:] in self._starts:
                    best = min(best, origin(tail, len(folded) - k, len(folded), folded=True)[0])
                    break
        return base + best

    def _shapes(self, part: str, text: str, at: int) -> Iterator[tuple[Detector, tuple[str, ...], int, int]]:
        if self._database is None:
            return
        hits: dict[tuple[int, int], int] = {}

        def hit(i: int, start: int, end: int, *_: object) -> None:
            hits[i, start] = max(end, hits.get((i, start), 0))
        self._database.scan(part.encode("latin-1", "replace"), match_event_handler=hit)   # one byte a character
        covered: dict[str, int] = {}
        for (i, start), end in sorted(hits.items(), key=lambda found: found[0][1]):
            detector, rules = self.shapes[i]
            if start < covered.get(detector.name, 0):
                continue
            if place := detector.finish(text, at + start, at + end):
                covered[detector.name] = place[1] - at
                yield detector, rules, *place

    def _phrases(self, folded: str) -> Iterator[tuple[tuple[str, ...], int, int]]:
        if self._literals is None or not folded:
            return
        data = folded.encode()
        hits: list[tuple[int, int]] = []
        self._literals.scan(data, match_event_handler=lambda i, _, end, *__: hits.append((end, i)))
        chars = done = 0
        for end, i in sorted(hits):         # bytes -> characters, in one walk
            chars += len(data[done:end].decode()) if len(data) != len(folded) else end - done
            done = end
            phrase, rules = self._spelt[i]
            yield rules, chars - len(phrase), chars


def _word_start(text: str, held: int) -> int:
    """A place at a word's start, `BACK` or more before `held`; 0 if the words are too long to tell."""
    at = held - BACK
    if at <= 0:
        return 0
    return max(text.rfind(" ", max(0, at - REACH), at), text.rfind("\n", max(0, at - REACH), at)) + 1


def width(pattern: str) -> int:
    """The most characters a pattern can match; huge where it has no bound."""
    return int(sre.parse(pattern).getwidth()[1])


def _database(expressions: list[bytes], flags: int = 0, literal: bool = False) -> hyperscan.Database:
    db = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    n = len(expressions)
    db.compile(expressions=expressions, ids=list(range(n)), elements=n, flags=[flags] * n, literal=literal)
    return db


def _ending(lives: Iterator[str]) -> re.Pattern[str] | None:
    joined_lives = "|".join(f"(?:{live})" for live in lives)
    return re.compile(rf"(?:{joined_lives})\Z", re.A) if joined_lives else None


def _rule(policy: Policy, name: str) -> str:
    """The first rule whose text mentions what is detected, else the policy's first."""
    words = (name[7:].casefold(),) if name.startswith("phrase:") else DETECTORS[name].words
    return next((r.id for r in policy.rules if any(w in r.text.casefold() for w in words)), policy.rules[0].id)


def _wrong(name: str) -> str:
    if name.startswith("phrase:"):
        folded = fold(name[7:])
        if not folded.strip():
            return "an empty phrase would match everything"
        return f"a phrase of more than {PHRASE} characters" if len(folded) > PHRASE else ""
    if name in DETECTORS:
        return ""
    near = difflib.get_close_matches(name, DETECTORS, 1)
    known = ", ".join(sorted(DETECTORS))
    return (f"unknown detector {name!r}{f'; did you mean {near[0]!r}?' if near else ''}; "
            f"known: {known}, phrase:TEXT")


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
