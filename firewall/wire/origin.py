"""Where words that only appear decoded stand in the text that hides them.

`leaves.decoded` shows what escapes stand for: `\\u007a` is a letter, and JSON in a string of JSON is read again. To
redact such words the escapes that spell them are cut out of the text itself, which stays the JSON it was: every
character of the decoded form remembers the characters it came from.

Words found in the text as it is written may begin inside of an escape (`nbob` in `\\nbob`), reach from one string into
the next, or be a number: `sound` gives the places to cut out so that JSON stays JSON.
"""

from __future__ import annotations

import re
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from json import JSONDecodeError, JSONDecoder
from typing import NamedTuple

import orjson

# Strings and scalars of a JSON document, in document order.
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*+)"|[^\s\[\]{},:"]+', re.S)
# A run without escapes, a surrogate pair, a code unit, any other escape.
_PART = re.compile(r"[^\\]+|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.?)", re.S)
_STRING = r'"(?:[^"\\]++|\\.)*+"'
_SCALAR = r'(?:-?\d++(?:\.\d*+)?(?:[eE][+-]?\d*+)?|true|false|null)'
_FLAT = rf'[\s:,]++|{_STRING}|{_SCALAR}(?=\s*[,\]}}])'
# Whole items of JSON that stand within something, as far as they are flat.
_SKIP = re.compile(rf'(?:{_FLAT}|[{{\[](?:{_FLAT})*+[}}\]])*+', re.S)
# The next step of JSON that may still grow: nothing, an opening, an end, a scalar, the beginning of a string.
_STEP = re.compile(rf'[\s:,]+|([{{\[])|([}}\]])|({_SCALAR})(?=\s*(?:[,\]}}]|\Z))|(")', re.S)
_REST = re.compile(r'(?:[^"\\]++|\\.)*+', re.S)     # of a string
# The beginning of a string that no further character changes.
_FIRM = re.compile(r'(?:[^\\]++|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|'
                   r'\\u[dD][89abAB][0-9a-fA-F]{2}(?=[^\\]|\\[^u]|\\u[0-9a-fA-F]{4}))*+', re.S)
# What begins a string of JSON in a string (`_opens`, however it is spelled), and escapes that JSON does not have.
_INNER = re.compile(r'(?:\\?[ \t\r\n]|\\[trn]|\\u00(?:20|09|0[aAdD])){0,255}+(?:\\?[{\[]|\\u00[57][bB])')
_WRONG = re.compile(r'((?:[^\\]++|\\["\\/bfnrt]|\\u[0-9a-fA-F]{4})++)|\\(.?)', re.S)
_LENIENT = JSONDecoder(strict=False)
LONGEST = 12        # characters of an escape: a surrogate pair
NEAR = 64           # what is cut out seldom begins so far before its hit
STEPS = 1 << 17     # of JSON up to the last hit: what would take longer cannot be redacted
TRACED = 1 << 18    # characters whose places are kept one by one, likewise
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Line(NamedTuple):
    """A line of the decoded form; its i-th character stands for characters `starts[i]:ends[i]` of the source."""

    text: str
    starts: Sequence[int]
    ends: Sequence[int]


class Spot(NamedTuple):
    """Characters `start:end` that can be cut out; what takes their place stands between two `quote`s where it was no
    string. `hit`: the number of the hit they belong to."""

    start: int
    end: int
    quote: str
    hit: int


def origins(text: str, hidden: str, hits: list[tuple[int, int]], rounds: int = 2) -> list[tuple[int, int]] | None:
    """Places in `text` of characters `start:end` of its decoded form `hidden` (see `leaves.decoded`).

    A hit over several lines of the decoded form has a place in each; hits that overlap are one. None where `hidden` is not
    the decoded form, and for more than `TRACED` characters: each of them has its place kept, and what cannot be traced in
    time is not redacted but blocked.
    """
    if len(text) > TRACED:
        return None
    lines = [_itself(text)]
    for _ in range(rounds):
        lines = [part for line in lines for part in (_undone(line) if "\\" in line.text else [line])]
    if "\n".join([line.text for line in lines]) != hidden:
        return None
    begins, size = [], 0
    for line in lines:
        begins.append(size)
        size += len(line.text) + 1
    apart: list[tuple[int, int]] = []
    for start, end in sorted(hits):
        if apart and start < apart[-1][1]:
            start, end = apart[-1][0], max(apart.pop()[1], end)
        apart.append((start, end))
    out = []
    for start, end in apart:
        number = bisect_right(begins, start) - 1
        while start < end and number < len(lines):
            line, at = lines[number], begins[number]
            first, last = start - at, min(end - at, len(line.text))
            if first < last:
                out.append((line.starts[first], line.ends[last - 1]))
            number += 1
            start = at + len(line.text) + 1
    return out


@dataclass(slots=True)
class Read:
    """How far a text that grows was read as JSON: a place before its last hit.

    Args:
        at: characters before it.
        depth: containers it stands in; -1: what follows can be no JSON, however it goes on.
        begin: where the string begins that it stands in, between two escapes; None outside of strings.
        inner: the same of JSON in that string. Its text begins at `at`.
    """

    at: int = 0
    depth: int = 0
    begin: int | None = None
    inner: Read | None = None

    def again(self) -> None:
        """From the beginning."""
        self.at, self.depth, self.begin, self.inner = 0, 0, None, None


def sound(text: str, hits: Sequence[tuple[int, int]], rounds: int = 2, read: Read | None = None) -> list[Spot] | None:
    """What to cut out of a text for its hits, so that JSON stays JSON, in a string of JSON too.

    Of strings, characters: an escape of which a hit has a part stays (its letters are no letters; what it stands for is
    judged decoded), unless nothing else is hit. Numbers, `true` and the like whole. Nothing between them: None where a hit
    has nothing else, or JSON has over `STEPS` steps. What cannot be JSON, from there to the end, is cut as it is.

    Costs a search for what is near the hits, and one decoding of strings that are JSON themselves.

    Args:
        text: all of it, or what came so far.
        hits: sorted and apart.
        rounds: how deep JSON is looked for in strings.
        read: of a text that grows: `Read()` at first and kept here, so that many questions do not each read all of it.
    """
    if not _opens(text):
        return [Spot(start, end, "", i) for i, (start, end) in enumerate(hits)]
    read = Read() if read is None else read
    if (spots := _sound(text, hits, rounds, read)) is None:
        read.again()
    return spots


def _sound(text: str, hits: Sequence[tuple[int, int]], rounds: int, read: Read) -> list[Spot] | None:
    """See `sound`: of what is known to be JSON, from `read` on."""
    if hits and hits[0][0] < read.at:
        read.again()
    out: list[Spot] = []
    known: set[int] = set()     # hits that have something
    at, depth, begin = read.at, read.depth, read.begin
    n = steps = 0
    grows = False       # the text ends in a string
    while n < len(hits) and depth >= 0 and not grows:
        if (steps := steps + 1) > STEPS:
            return None
        start = at      # of the step
        if begin is None:
            if depth and (flat := _SKIP.match(text, at, hits[n][0])):
                start = at = flat.end()
            read.at, read.depth, read.begin, read.inner = at, depth, None, None
            step = _STEP.match(text, at)
            kind = step.lastindex if step else None
            if step is None or (kind in (2, 3, 4) and not depth):       # no JSON, or the document ended before
                if step or len(text) - at > len("false"):
                    read.depth = -1
                break
            at = step.end()
            depth += 1 if kind == 1 else -1 if kind == 2 else 0
            if kind == 3 and hits[n][0] < at:
                touched = [i for i in range(n, bisect_left(hits, (at, 0), n)) if hits[i][1] > start]
                out += [Spot(start, at, '"', i) for i in touched[:1]]
                known.update(touched)
            elif kind == 4:
                begin = at
        if begin is not None:
            first, at = at, _end(_REST, text, at)
            grows = text[at:at + 1] != '"'
            if grows or hits[n][0] <= at:
                end = _end(_FIRM, text, first) if grows else at
                inside = [(max(hits[i][0], first), min(hits[i][1], end), i)
                          for i in range(n, bisect_left(hits, (end, 0), n)) if hits[i][1] > first]
                if (cuts := _cuts(text, begin, first, end, inside, rounds, read) if inside else []) is None:
                    return None
                out += cuts
                known.update([i for _, _, i in inside])
            at, begin = at + (not grows), None
        while n < len(hits) and hits[n][1] <= at:
            n += 1
    if len(known.union(range(n, len(hits)))) < len(hits):
        return None
    return out + [Spot(max(hits[i][0], at), hits[i][1], "", i) for i in range(n, len(hits))]


def _end(pattern: re.Pattern[str], text: str, at: int) -> int:
    found = pattern.match(text, at)
    return found.end() if found else at


def _opens(text: str) -> bool:
    return text[:256].lstrip(" \t\r\n")[:1] in ("{", "[")


def _cuts(text: str, begin: int, first: int, end: int, hits: list[tuple[int, int, int]], rounds: int, read: Read,
          ) -> list[Spot] | None:
    """See `sound`: of one string, which is characters `begin:end`, those from `first` on."""
    rows: list[Spot] = []
    border = first
    for start, stop, n in hits:
        border, behind = _char(text, start, border, end)
        left, right = start if border == start else behind, _char(text, stop, border, end)[0]
        if left >= right:       # it lies within an escape
            left, right = border, behind
        if not rows or left >= rows[-1].end:
            rows.append(Spot(left, right, "", n))
    inner = read.inner
    if inner is None and rounds > 1 and _INNER.match(text, begin, end):
        inner, first = Read(), begin
    if inner is not None and inner.depth >= 0:
        spots = _inside(text, first, end, rows, rounds, inner)
        border = first + inner.at if inner.depth >= 0 else border
    else:
        spots = rows
    read.at, read.begin, read.inner = border, begin, inner
    if inner is not None:
        inner.at, inner.begin = 0, None if inner.begin is None else 0
    return spots


def _inside(text: str, first: int, end: int, rows: list[Spot], rounds: int, inner: Read) -> list[Spot] | None:
    """See `sound`: of JSON in a string, from character `first` on. `inner.at` becomes characters of the string."""
    bounds = [first]
    for row in rows:
        bounds += [_char(text, max(row.start - NEAR, bounds[-1]), bounds[-1], end)[0], row.start, row.end]
    bounds.append(end)
    words = [_said(text[a:b]) for a, b in pairwise(bounds)]
    sizes = list(accumulate(map(len, words), initial=0))

    def back(at: int) -> int:
        """Where a character of the words stands in the text."""
        number = min(bisect_right(sizes, at), len(words)) - 1
        left, place = at - sizes[number], bounds[number]
        while left and (part := _PART.match(text, place, bounds[number + 1])):
            size = min(part.end() - place, left) if text[place] != "\\" else 1
            place = place + size if text[place] != "\\" else part.end()
            left -= size
        return place

    hits = [(sizes[3 * i + 2], sizes[3 * i + 3]) for i in range(len(rows))]
    whole = "".join(words)
    spots = (_sound if inner.depth else sound)(whole, hits, rounds - 1, inner)
    if spots is None:
        return None
    if inner.depth >= 0:
        inner.at = back(inner.at) - first
    return [Spot(back(spot.start), back(spot.end), orjson.dumps(spot.quote)[1:-1].decode(), rows[spot.hit].hit)
            for spot in spots]


def _char(text: str, at: int, border: int, end: int) -> tuple[int, int]:
    """The character of a string, an escape or itself, that covers place `at`; `border` stands between two before it.

    Behind what is no backslash no escape of two characters goes on: reading begins there, an escape further back.
    """
    begin = max(at - LONGEST, border)
    while begin > border and text[begin - 1] == "\\":
        begin -= 1
        if begin < at - NEAR and (found := _REST.match(text, border, begin)):
            begin = found.end()
            break
    for part in _PART.finditer(text, begin, min(at + LONGEST, end)):
        if part.end() > at:
            return part.span() if text[part.start()] == "\\" else (at, at + 1)
    return at, at


def _said(text: str) -> str:
    """A string, or a part of it between two escapes, with its escapes undone."""
    if "\\" not in text:
        return text
    try:
        return str(_LENIENT.decode(f'"{text}"'))
    except JSONDecodeError:
        return str(_LENIENT.decode('"' + _WRONG.sub(r"\1\2", text) + '"'))


def _itself(text: str) -> Line:
    return Line(text, range(len(text)), range(1, len(text) + 1))


def _undone(line: Line) -> list[Line]:
    """All strings, keys and scalars of a JSON document; of text that is none, the text with its escapes undone."""
    try:
        orjson.loads(line.text)
    except orjson.JSONDecodeError:
        return [_spelled(line, 0, len(line.text))]
    out = []
    for item in _ITEM.finditer(line.text):
        if item[1] is not None:
            out.append(_spelled(line, item.start(1), item.end(1)))
        elif item[0] != "null":
            said = str(orjson.loads(item[0]))
            out.append(Line(said, [line.starts[item.start()]] * len(said), [line.ends[item.end() - 1]] * len(said)))
    return out


def _spelled(line: Line, begin: int, end: int) -> Line:
    """Characters `begin:end` of a line with their escapes undone; halves of surrogate pairs become U+FFFD."""
    words: list[str] = []
    starts: list[int] = []
    ends: list[int] = []
    for part in _PART.finditer(line.text, begin, end):
        a, b = part.span()
        high, low, unit, mark = part.groups()
        if high is None and unit is None and mark is None:
            words.append(part[0])
            starts += line.starts[a:b]
            ends += line.ends[a:b]
            continue
        if high is not None:
            word = chr(0x10000 + ((int(high, 16) - 0xD800) << 10) + int(low, 16) - 0xDC00)
        elif unit is not None:
            word = chr(int(unit, 16))
            word = "\ufffd" if "\ud800" <= word < "\ue000" else word
        else:
            word = _SIMPLE.get(mark, mark)
        words.append(word)
        starts += [line.starts[a]] * len(word)
        ends += [line.ends[b - 1]] * len(word)
    return Line("".join(words), starts, ends)
