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
from typing import NamedTuple

import orjson

# Strings and scalars of a JSON document, in document order.
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*+)"|[^\s\[\]{},:"]+', re.S)
# A run without escapes, a surrogate pair, a code unit, any other escape.
_PART = re.compile(r"[^\\]+|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.?)", re.S)
# The next step of JSON that may still grow: nothing, an opening, an end, a string (and its end), a scalar.
_STEP = re.compile(r'[\s:,]+|([{\[])|([}\]])|"((?:[^"\\]|\\.)*+)("?)|'
                   r'(-?\d++(?:\.\d*+)?(?:[eE][+-]?\d*+)?|true|false|null)(?=\s*(?:[,\]}]|\Z))', re.S)
# The beginning of a string that no further character changes.
_FIRM = re.compile(r'(?:[^\\]|\\[^u]|\\u(?![dD][89abAB])[0-9a-fA-F]{4}|'
                   r'\\u[dD][89abAB][0-9a-fA-F]{2}(?=[^\\]|\\[^u]|\\u[0-9a-fA-F]{4}))*+', re.S)
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
    the decoded form.
    """
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


def sound(text: str, hits: Sequence[tuple[int, int]], rounds: int = 2, read: list[int] | None = None) -> list[Spot] | None:
    """What to cut out of a text for its hits, so that JSON stays JSON, in a string of JSON too.

    Of strings, characters: an escape of which a hit has a part stays (its letters are no letters; what it stands for is
    judged decoded), unless nothing else is hit. Numbers, `true` and the like whole. Nothing between them: None where a hit
    has nothing else. What cannot be JSON, from there to the end, is cut as it is.

    Args:
        text: all of it, or what came so far.
        hits: sorted and apart.
        rounds: how deep JSON is looked for in strings.
        read: of a text that grows, `[0, 0]` at first: how far it was read (and how deep that is), kept here, so that many
            questions do not each read all of it.
    """
    if not _opens(text):
        return [Spot(start, end, "", i) for i, (start, end) in enumerate(hits)]
    out: list[Spot] = []
    known: set[int] = set()     # hits that have something
    at, depth = read if read and hits and read[0] <= hits[0][0] else (0, 0)
    n = 0
    while n < len(hits) and (step := _STEP.match(text, at)) is not None:
        if read:
            read[:] = at, depth
        opens, closes, string, ended, scalar = step.groups()
        if (closes or string is not None or scalar) and not depth:      # the document ended before
            break
        at = step.end()
        depth += 1 if opens else -1 if closes else 0
        if scalar and hits[n][0] < at:
            touched = [i for i in range(n, bisect_left(hits, (at, 0), n)) if hits[i][1] > step.start()]
            out += [Spot(step.start(), at, '"', i) for i in touched[:1]]
            known.update(touched)
        elif string is not None and hits[n][0] < at:
            begin, end = step.span(3)
            if not ended and (firm := _FIRM.match(text, begin)):
                end = firm.end()
            inside = [(max(hits[i][0], begin), min(hits[i][1], end), i)
                      for i in range(n, bisect_left(hits, (end, 0), n)) if hits[i][1] > begin]
            if (cuts := _cuts(text, begin, end, inside, rounds)) is None:
                return None
            out += cuts
            known.update([i for _, _, i in inside])
        while n < len(hits) and hits[n][1] <= at:
            n += 1
    if len(known.union(range(n, len(hits)))) < len(hits):
        return None
    return out + [Spot(max(hits[i][0], at), hits[i][1], "", i) for i in range(n, len(hits))]


def _opens(text: str) -> bool:
    return text[:256].lstrip(" \t\r\n")[:1] in ("{", "[")


def _cuts(text: str, begin: int, end: int, hits: list[tuple[int, int, int]], rounds: int) -> list[Spot] | None:
    """See `sound`: of one string, which is characters `begin:end`."""
    if not hits or "\\" not in text[begin:end]:
        return [Spot(start, stop, "", n) for start, stop, n in hits]
    line = _spelled(_itself(text), begin, end)
    rows: list[Spot] = []       # characters of the line
    for start, stop, n in hits:
        first, last = bisect_left(line.starts, start), bisect_right(line.ends, stop)
        if first >= last:       # it lies within an escape
            first = max(bisect_right(line.starts, start) - 1, 0)
            last = first + 1
        if not rows or first >= rows[-1].end:
            rows.append(Spot(first, last, "", n))
    if rounds > 1 and _opens(line.text):
        inner = sound(line.text, [(row.start, row.end) for row in rows], rounds - 1)
        if inner is None:
            return None
        rows = [spot._replace(quote=orjson.dumps(spot.quote)[1:-1].decode(), hit=rows[spot.hit].hit) for spot in inner]
    return [row._replace(start=line.starts[row.start], end=line.ends[row.end - 1]) for row in rows]


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
