"""Where words that only appear decoded stand in the text that hides them.

`leaves.decoded` shows what escapes stand for: `\\u007a` is a letter, and JSON in a string of JSON is read again. To
redact such words the escapes that spell them are cut out of the text itself, which stays the JSON it was: every
character of the decoded form remembers the characters it came from.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from typing import NamedTuple

import orjson

# Strings and scalars of a JSON document, in document order.
_ITEM = re.compile(r'"((?:[^"\\]|\\.)*+)"|[^\s\[\]{},:"]+', re.S)
# A run without escapes, a surrogate pair, a code unit, any other escape.
_PART = re.compile(r"[^\\]+|\\u([dD][89abAB][0-9a-fA-F]{2})\\u([dD][c-fC-F][0-9a-fA-F]{2})|\\u([0-9a-fA-F]{4})|\\(.?)", re.S)
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


class Line(NamedTuple):
    """A line of the decoded form; its i-th character stands for characters `starts[i]:ends[i]` of the source."""

    text: str
    starts: list[int]
    ends: list[int]


def origins(text: str, hidden: str, hits: list[tuple[int, int]], rounds: int = 2) -> list[tuple[int, int]] | None:
    """Places in `text` of characters `start:end` of its decoded form `hidden` (see `leaves.decoded`).

    A hit over several lines of the decoded form has a place in each; hits that overlap are one. None where `hidden` is not
    the decoded form.
    """
    lines = [Line(text, list(range(len(text))), list(range(1, len(text) + 1)))]
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
