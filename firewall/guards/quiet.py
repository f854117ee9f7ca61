r"""`Quiet`: one scan that tells that a text holds nothing which a detector, a phrase or a view could make something of.

Nearly all texts are plain words, and a verdict on plain words must cost next to nothing. `Quiet` never finds anything;
it only says "nothing there" (then the careful path of patterns.py would find nothing either) or does not know.

Why that is so. A finding needs a trigger in the text, in its cleaned form or in a view of it.
- The scan looks for everything that a trigger begins with: the triggers themselves, cut short at their end.
- The scan looks for control characters, which the bare text leaves out. Where another is odd (`ALTERED`), the bare text
  is scanned too, and nothing may be hidden in tags or directions.
- A decoded view needs a percent sign, an entity, an escape (the scan looks for them all), or base64 or hex that decodes
  to text: what looks like it is decoded by the very functions that make the views, and hardly any word reads as text.
- A view for phrases needs a mark, spaced letters or digits in words, or is the text in rot13 or reversed; the scan
  looks for each phrase in all three spellings.

For an answer that grows, only its end is scanned: what was quiet stays quiet, so that whatever is new reaches into the
new words and begins no farther before them than the widest pattern. Base64 is decoded all together, however far apart,
so the places of its runs are carried along. The bare text grows as the text does, character by character, and is read
the same way; where its places are others (a character reads as none or several), it is read anew. The same scan tells
whether the text could end in the beginning of a match. `\b` at the cut is true here where the text may have none: that
only makes the scan find more.
"""

from __future__ import annotations

import codecs
import re
import re._parser as sre  # type: ignore[import-not-found]
from collections.abc import Iterable, Sequence

import hyperscan

from firewall.guards.cleaned import ALTERED, CONTROL, ROUNDS, bare
from firewall.guards.detectors import Detector
from firewall.guards.views import BASE64, CHUNK, HINTS, REACH, based, disguised, hexed

SPACED = 96             # how far back a beginning with blanks is looked for
TIGHT, LOOSE, HARD, RUN, FIRST, HEX = 1, 2, 4, 5, 6, 7
BACK = 256              # how far back a look at a growing text begins, for views that decode across the last one
CODE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/-_")
_UNCODED = re.compile(r"[^A-Za-z0-9+/=_-]")
RUNNING = 12            # characters from which on base64 is read
CONTEXT = 4 * REACH     # what is kept of the bare text before what is looked at


class Trace:
    """What quiet looks at a growing text leave for the next one; `Quiet.grown` brings it up to date.

    Attributes:
        length: characters seen.
        since: from here on nothing hard was found.
        runs: places of base64 runs, oldest first; `read`: those that were decoded last, from `start` on.
        hex: hex may stand before here.
        odd, wide: an altered character, one that reads as none or as several may stand before here.
        plain, twin: the end of the bare text, place for place (from `twin.since` on), while it differs, and its own
            trace, which counts from where `plain` begins (`base`).
        ends: the text may end in the beginning of a match without (`TIGHT`), with blanks (`LOOSE`).
    """

    __slots__ = ("base", "ends", "hex", "length", "odd", "plain", "read", "runs", "since", "start", "twin", "wide")

    def __init__(self, since: int) -> None:
        self.length, self.since, self.start, self.hex = 0, since, since, 0
        self.ends = self.odd = self.wide = self.base = 0
        self.plain = ""
        self.twin: Trace | None = None
        self.runs: list[tuple[int, int]] = []
        self.read: list[tuple[int, int]] = []

    def move(self, by: int) -> None:
        """The first `by` characters of the text are gone: places count from behind them."""
        self.length, self.since, self.start, self.hex = (at - by for at in (self.length, self.since, self.start, self.hex))
        self.runs = [(a - by, b - by) for a, b in self.runs if a >= by]
        self.read = [(a - by, b - by) for a, b in self.read]


class Quiet:
    """Args: the active detectors, the active phrases (folded)."""

    def __init__(self, detectors: Iterable[Detector], phrases: Sequence[str]) -> None:
        active = tuple(detectors)
        strong = [d.least for d in active if d.strong]
        self.least = 0 if phrases else min(strong, default=0)
        self.reads = bool(phrases or strong)            # else views mean nothing
        self._ascii = bool(phrases)                     # folding other scripts is left to the careful path
        hard = [(CONTROL, 0), *((p, 0) for d in active for p in d.sure or map(_short, d.triggers))]
        if self.reads:
            hard += [(HINTS[name], 0) for name in ("percent", "entity", "escape")]
        if phrases:
            hard += [(HINTS[name], 0) for name in ("plain", "spaced", "leet")]
            hard += [(_spelt(p), hyperscan.HS_FLAG_CASELESS) for phrase in phrases if phrase.isascii()
                     for p in (phrase, phrase[::-1], codecs.encode(phrase, "rot13"))]
        pairs = max(6, self.least)
        blanks = (2 ** ROUNDS - 1) * max((p.count(" ") for p in phrases), default=0)
        self.width = 1 + blanks + max([3 * pairs, RUNNING + 1, *map(len, phrases),
                                       *(int(sre.parse(p).getwidth()[1]) for p, f in hard if not f)])
        single = hyperscan.HS_FLAG_SINGLEMATCH
        rows = [(p, HARD, single | flags) for p, flags in hard]
        if self.reads:
            rows += [(rf"[^A-Za-z0-9+/_-][A-Za-z0-9+/_-]{{{RUNNING}}}", RUN, 0),
                     (rf"^[A-Za-z0-9+/_-]{{{RUNNING}}}", FIRST, single),
                     (rf"(?:[0-9A-Fa-f]{{2}}[ :]?){{{pairs}}}", HEX, single)]
        self._whole = _database(rows)
        self._growing = _database(rows + [(_ends(d.ends or d.live), LOOSE if d.spaced else TIGHT, single) for d in active])
        self._events: list[tuple[int, int]] = []

    def alone(self, text: str) -> bool:
        """Whether nothing can be found in at most `CHUNK` characters that stand for themselves."""
        if text.isascii():
            return self._empty(text, text.encode(), self._whole) >= 0
        return self._both(text, self._whole) >= 0

    def _both(self, text: str, database: hyperscan.Database) -> int:
        """`_empty` for a text that is not ASCII and for its cleaned form."""
        if self._ascii or (ends := self._empty(text, text.encode("latin-1", "replace"), database)) < 0:
            return -1
        plain = bare(text)
        if plain == text:
            return ends
        if len(plain) > CHUNK or disguised(text):
            return -1
        more = self._empty(plain, plain.encode("latin-1", "replace"), database)
        return more if more < 0 else ends | more

    def _empty(self, text: str, data: bytes, database: hyperscan.Database) -> int:
        """-1 if something may be found in `text`, else how it may end. `data`: one byte a character."""
        events = self._events
        events.clear()
        try:
            database.scan(data, self._note)
        except hyperscan.ScanTerminated:
            return -1
        if not events:
            return 0
        starts: list[int] = []
        coded, ends = False, 0
        for kind, end in events:
            if kind == RUN or kind == FIRST:
                starts.append(end - RUNNING)
            elif kind == HEX:
                coded = True
            else:
                ends |= kind
        if starts:
            starts.sort()
            if any(based([m[0] for s in starts if (m := BASE64.match(text, s))], self.least)):
                return -1
        return -1 if coded and any(hexed(text, self.least)) else ends

    def grown(self, text: str, before: Trace | None = None, held: int = 0) -> Trace | None:
        """Whether nothing can be found in `text` from `word_start(text, held)` on; None: it might.

        `before`: what is known of a text that this one begins with; it is used up.
        """
        if text.isascii() or self._ascii:
            return self._grown(text, before, held)
        start = word_start(text, held)
        if before is not None and before.since > start:
            before = None
        new = text[start if before is None else before.length:]
        trace = self._grown(text, before, held, start)
        if trace is None:
            return None
        if ALTERED.search(new):
            trace.odd = trace.length
            if any(len(bare(c)) != 1 for c in new):
                trace.wide = trace.length
        if trace.odd > start:
            return self._read(trace, text, new, held, start)
        trace.twin, trace.plain = None, ""
        return trace

    def _read(self, trace: Trace, text: str, new: str, held: int, start: int) -> Trace | None:
        """`grown` for the bare text, where it differs from `start` on. It grows as the text does."""
        twin = trace.twin
        if twin is not None and (trace.base + twin.since > start or trace.base and trace.base + CONTEXT // 2 > start):
            twin = None
        if trace.wide > start:
            part = bare(text[start:])
            hidden = len(part) > CHUNK or disguised(text[start:])
            ends = -1 if hidden else self._empty(part, part.encode("latin-1", "replace"), self._growing)
            if ends < 0:
                return None
            twin = None
        else:
            if twin is None:
                trace.base = start - CONTEXT if start > CONTEXT else 0
                trace.plain = text[trace.base:start] + bare(text[start:])
            else:
                trace.plain += bare(new)
                if start - trace.base > 4 * CONTEXT:
                    twin.move(start - CONTEXT - trace.base)
                    trace.plain, trace.base = trace.plain[start - CONTEXT - trace.base:], start - CONTEXT
            base = trace.base
            if (twin := self._grown(trace.plain, twin, held - base, start - base)) is None:
                return None
            ends = twin.ends
        trace.twin = twin
        trace.ends |= ends
        return trace

    def _grown(self, text: str, before: Trace | None, held: int, start: int = -1) -> Trace | None:
        """`grown` for a text as it stands. `start`: `word_start(text, held)`, where it is known."""
        size = len(text)
        if size - held > CHUNK - BACK - REACH:
            return None
        if start < 0 and (before is None or before.since):
            start = word_start(text, held)
        if before is not None and (not before.since or before.since <= start):
            trace, at = before, before.length - self.width
        else:
            if start and text[start - 1] in CODE:
                return None
            trace, at = Trace(start), start - 1
        low = size - REACH if size > REACH else 0
        word = after_blank(text, low, size) - SPACED
        if word <= low:
            word = low
        if word <= at:
            at = word - 1                                           # far enough for the beginning of a match
        if at < 0:
            at = 0
        part, ends = text[at:], 0
        if part.isascii():
            data = part.encode()
        elif self._ascii:
            return None
        else:
            data = part.encode("latin-1", "replace")
        runs = trace.runs
        last = runs[-1][0] if runs else -1
        starts: list[int] = []
        events = self._events
        events.clear()
        try:
            self._growing.scan(data, self._note)
        except hyperscan.ScanTerminated:
            return None
        for kind, end in events:
            if kind <= LOOSE:
                ends |= kind
            elif kind == HEX:
                trace.hex = size
            elif (kind == RUN or at == 0) and at + end - RUNNING > last:
                starts.append(at + end - RUNNING)
        if starts or runs or trace.hex:
            start = word_start(text, held) if start < 0 else start
            if not self._decoded(text, trace, start, starts):
                return None
        trace.length, trace.ends = size, ends
        return trace

    def _decoded(self, text: str, trace: Trace, start: int, starts: list[int]) -> bool:
        """Whether base64 and hex from `start` on say nothing. `starts`: where new runs begin."""
        runs = trace.runs
        if (starts or start < trace.start or trace.read and trace.read[0][0] < start
                or runs and runs[-1][1] + 2 >= trace.length):
            if runs:
                runs = runs[:-1] + _runs(text, (runs[-1][0],))     # it may have grown, or have got its `=`
            starts.sort()
            runs = [run for run in runs + _runs(text, starts) if run[1] > start - 2 * REACH]     # `held` may go back
            read = [(s if s > start else start, e) for s, e in runs if e > start]
            if read != trace.read and any(
                    based([m[0] for s, _ in read if (m := BASE64.match(text, s))], self.least)):
                return False
            trace.runs, trace.read, trace.start = runs, read, start
        return trace.hex <= start or not any(hexed(text[start:], self.least))

    def _note(self, kind: int, _: int, end: int, *__: object) -> bool:
        self._events.append((kind, end))
        return kind == HARD             # ends the scan


def word_start(text: str, held: int) -> int:
    """A place at a word's start, `BACK` to `BACK + REACH` characters before `held`, or 0.

    Where there is no blank, a word begins behind anything that neither words nor codes are made of; in a word longer
    than `REACH` it is a place in the middle.
    """
    at = held - BACK
    if at <= 0:
        return 0
    low = at - REACH if at > REACH else 0
    cut = text.rfind(" ", low, at) + 1
    cut = max(text.rfind("\n", cut or low, at) + 1, cut)
    if cut or not low:
        return cut
    other = _UNCODED.search(text[low:at][::-1])
    return at - other.start() if other else low


def after_blank(text: str, low: int, end: int) -> int:
    """The place behind the last blank of `text[low:end]`; `low` where there is none."""
    at = max(text.rfind(" ", low, end) + 1, low)
    at = max(text.rfind("\n", at, end) + 1, at)
    return max(text.rfind("\t", at, end) + 1, at)


def _runs(text: str, starts: Iterable[int]) -> list[tuple[int, int]]:
    return [m.span() for s in starts if (m := BASE64.match(text, s))]


def _short(trigger: str) -> str:
    """What a trigger's matches begin with: without a boundary behind them, and with few of what is counted last."""
    return re.sub(r"\{(\d+)\}$", lambda m: f"{{{min(4, int(m[1]))}}}", trigger.removesuffix(r"\b"))


def _ends(live: str) -> str:
    """A text that ends like this; without upper bounds, which cost time to compile."""
    unbounded = re.sub(r"\{(\d+),\d{3,}\}", r"{\1,}", live)
    return rf"(?:{unbounded})\z"


def _spelt(phrase: str) -> str:
    return "".join(r"[ \n\t\r]+" if c == " " else f"\\x{ord(c):02x}" for c in phrase)


def _database(rows: Sequence[tuple[str, int, int]]) -> hyperscan.Database:
    db = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    db.compile(expressions=[p.encode() for p, _, _ in rows], ids=[i for _, i, _ in rows], elements=len(rows),
               flags=[f for _, _, f in rows])
    return db
