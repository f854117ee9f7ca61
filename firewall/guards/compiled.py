"""`Compiled`: the detectors and phrases of one policy set, ready to scan texts and views.

All triggers of a set become one hyperscan database (block mode, vectorised, linear). Phrases are literals, case-folded,
looked for in the cleaned text. `Quiet` (quiet.py) is compiled from the same parts.
"""

from __future__ import annotations

import difflib
import re
import re._parser as sre  # type: ignore[import-not-found]
from collections.abc import Iterator

import hyperscan

from firewall.errors import GuardDown, Mistakes
from firewall.guards.cleaned import LONGEST, back, bare, fold, origin
from firewall.guards.detectors import DETECTORS, GROWTH, NEAR, Detector
from firewall.guards.escaped import Undone
from firewall.guards.quiet import LOOSE, SPACED, TIGHT, Quiet, after_blank
from firewall.guards.views import CHUNK, REACH, View, views
from firewall.policy import Policy, PolicySet

PHRASE = 256            # the longest phrase
WIDEST = 512            # the widest trigger accepted, in characters
FAR = 4 * GROWTH        # the farthest back a beginning may stand (a JWT has three parts)
READ = ("cleaned", "tags", "bidi", "decoded")       # views in which shapes, not only phrases, mean something
Hit = tuple[str, int, int, bool]                    # rule, start, end, certain


class Compiled:
    """One policy set, ready to scan. Raises `Mistakes` for a trigger without a bound.

    `shapes`: (detector, its rules) of each trigger; `phrases`: folded text -> its rules.
    """

    def __init__(self, policies: PolicySet) -> None:
        self.policies = policies
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
        self.quiet = Quiet(live, tuple(self.phrases))
        self._tight = _ending(d.live for d in live if not d.spaced)
        self._loose = _ending(d.live for d in live if d.spaced)
        self._far = _ending(d.live for d in live if d.far)
        self._spelt = list(self.phrases.items())
        self._starts = {p[:k] for p in self.phrases for k in range(1, len(p))}
        self._longest = max(map(len, self.phrases), default=0)

    def exact(self, text: str, at: int, part: str) -> set[Hit]:
        """(rule, start, end, certain) in `text`, for hits that begin in its `part` at `at`."""
        found = {(rule, start, end, d.certain) for d, rules, start, end in self._shapes(part, text, at)
                 for rule in rules}
        plain = bare(part)
        if plain != part:
            lead = bare(text[max(0, at - NEAR):at])
            for d, rules, first, last in self._shapes(plain, lead + plain, len(lead)):
                start, end = max(0, first - len(lead)), last - len(lead)
                a, b = origin(part, start, end, bare)
                b = len(part) if end == len(plain) else b
                if d.certain and end == len(plain) and at + len(part) < len(text):
                    b = a                           # it goes on in the next part
                found |= {(rule, at + a, at + b, d.certain) for rule in rules}
        for rules, start, end in self._phrases(fold(part)):
            a, b = origin(part, start, end, fold)
            found |= {(rule, at + a, at + b, True) for rule in rules}
        return found

    def escaped(self, part: str, at: int, more: bool) -> set[Hit]:
        """`exact` for words that escapes spell in the `part` at `at`. `more`: it has not all of the text; what may go on
        behind it, and began too far back for the next part, is left to the views."""
        undone, found = Undone(part), set()
        for rule, start, end, certain in self.exact(undone.text, 0, undone.text):
            start, end = undone.place(start, end)
            if not more or end < len(part) or start >= end - REACH:
                found.add((rule, at + start, at + end, certain))
        return found

    def hidden(self, text: str, words: bool = True) -> set[str]:
        """The rules of what is found in views of `text`. `words`: also in those that only serve phrases.

        A text with more views than are read counts as a hit of everything that is looked for in views.
        """
        if not self.quiet.reads:
            return set()
        made: Iterator[View] = views(text, words and bool(self.phrases), self.quiet.least)
        try:
            return {rule for view in made for rule, _, _ in self.seen(view.text, shapes=view.kind in READ)}
        except GuardDown:
            strong = [rules for d, rules in self.shapes if d.strong]
            return {rule for rules in (*strong, *self.phrases.values()) for rule in rules}

    def seen(self, view: str, shapes: bool = True) -> Iterator[tuple[str, int, int]]:
        """(rule, start, end) in a view: strong shapes, if they mean something there, and phrases."""
        for part in (view[i:i + CHUNK] for i in range(0, max(1, len(view) - REACH), CHUNK - REACH)):
            if shapes:
                for d, rules, start, end in self._shapes(part, part, 0):
                    if d.strong:
                        yield from ((rule, start, end) for rule in rules)
            for rules, start, end in self._phrases(fold(part)):
                yield from ((rule, start, end) for rule in rules)

    def held(self, text: str, ends: int = TIGHT | LOOSE) -> int:
        """Where the earliest beginning of a match at the end of `text` stands; `len(text)` if there is none.

        `ends`: what can begin there besides phrases (`Trace.ends`).
        """
        tail = text[-REACH:]
        base, best = len(text) - len(tail), len(tail)
        near = tail[max(0, after_blank(tail, 0, len(tail)) - LONGEST * SPACED):] if ends else ""
        for read in {near, bare(near)} if near else ():
            last = after_blank(read, 0, len(read))
            run = word(read, last)
            if not run and base and self._far and TIGHT & ends:
                best = min(best, self._begun(text) - base)
            for pattern, start, wanted in ((self._tight, run, TIGHT), (self._loose, max(0, last - SPACED), LOOSE)):
                if pattern and wanted & ends and (m := pattern.search(read, start)):
                    best = min(best, back(tail, len(read) - m.start(), read is not near))
        if self.phrases:
            folded = fold(tail)
            for k in range(min(self._longest - 1, len(folded)), 0, -1):
                if folded[-k:] in self._starts:
                    best = min(best, origin(tail, len(folded) - k, len(folded), fold)[0])
                    break
        return base + best

    def _begun(self, text: str) -> int:
        """`held` for what may begin more than `REACH` back, in a word that is longer."""
        best, tail = len(text), text[-FAR:]
        for read in {tail, bare(tail)}:
            if self._far and (m := self._far.search(read, word(read))):
                best = min(best, back(text, len(read) - m.start(), read is not tail))
        return best

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
                covered[detector.name] = place[1] - at if place[1] > place[0] else len(part)
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


def word(text: str, low: int = 0) -> int:
    """Where, from `low` on, the last run of characters starts that a beginning without blanks may be made of."""
    other = _OUTSIDE.search(text[low:][::-1])
    return len(text) - other.start() if other else low


_OUTSIDE = re.compile(r"[^\w.%+@-]")


def _rule(policy: Policy, name: str) -> str:
    """The first rule whose text mentions what is detected, else the policy's first."""
    words = (name[7:].casefold(),) if name.startswith("phrase:") else DETECTORS[name].words
    return next((r.id for r in policy.rules if any(w in r.text.casefold() for w in words)), policy.rules[0].id)


def wrong(name: str) -> str:
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
