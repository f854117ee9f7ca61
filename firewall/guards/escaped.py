r"""Escapes: what they stand for, and where the words that they spell stand.

The arguments of a call come as JSON in a string, and the wire shows what that says on a channel of its own, beside them
(`X/decoded`; of a request `X#decoded`). A view of the text as it is written finds the same words once more. To be cut out
there as well they need places, so every character of this reading knows the characters that spell it. Of a text that has
no such channel beside it, a view has no places: whoever reads it may not undo its escapes.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Container

from firewall.case import Case

HINT = r"\\(?:u[0-9A-Fa-f{]|x[0-9A-Fa-f]|[0-7]{2}|U0)"
ESCAPES = re.compile(r"\\+u([dD][89abAB][0-9A-Fa-f]{2})\\+u([dD][c-fC-F][0-9A-Fa-f]{2})|\\+u\{([0-9A-Fa-f]{1,6})\}"
                     r"|\\+u([0-9A-Fa-f]{4})|\\+U([0-9A-Fa-f]{8})|\\+x([0-9A-Fa-f]{2})|\\+([0-7]{2,3})")
CALLED = ("/arguments", "/input")       # channels of an answer that get one beside them once the call is whole
COMING = "?"
_SLASHES = re.compile(r"\\+")
_ANY = re.compile(ESCAPES.pattern + r'|\\+(["\\/bfnrt])')
_SIMPLE = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}


def unescape(m: re.Match[str]) -> str:
    """What an escape (`ESCAPES`) stands for; a surrogate pair is one."""
    if m[1]:
        return chr(0x10000 + (int(m[1], 16) - 0xD800 << 10) + int(m[2], 16) - 0xDC00)
    point = int(m[7], 8) if m[7] else int(m[3] or m[4] or m[5] or m[6], 16)
    return chr(point) if point < 0x110000 else ""


def beside(case: Case, channel: str, channels: Container[str]) -> str:
    """The one of `channels` that shows what a channel says decoded; `COMING` while a call goes on, "" if there is none."""
    name = channel + ("/decoded" if case.direction == "output" else "#decoded")
    if name in channels:
        return name
    return COMING if case.direction == "output" and not case.whole and channel.endswith(CALLED) else ""


class Undone:
    """`text`: another with its escapes undone, JSON's and those of `ESCAPES`, two deep; `place` leads back to that one."""

    __slots__ = ("_rounds", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self._rounds: list[tuple[list[int], list[tuple[int, int]]]] = []
        for _ in range(2):
            self._undo()

    def place(self, start: int, end: int) -> tuple[int, int]:
        """Characters `start:end` of `text` -> those of the other that spell them; an escape from its own backslash."""
        for ends, spots in reversed(self._rounds):
            start, end = _before(ends, spots, start)[0], _before(ends, spots, end - 1)[1]
        return start, end

    def _undo(self) -> None:
        ends: list[int] = []                    # where the character that takes an escape's place ends
        spots: list[tuple[int, int]] = []       # where the escape stands
        parts: list[str] = []
        done = size = 0
        for m in _ANY.finditer(self.text):
            start, end = m.span()
            mark = m[m.re.groups]
            parts += self.text[done:start], (_SIMPLE.get(mark, mark) if mark else unescape(m)) or "\ufffd"
            size += start - done + 1
            done = end
            ends.append(size)
            slashes = _SLASHES.match(self.text, start, end - 1)         # as many as text that is quoted again has
            spots.append((slashes.end() - 1 if slashes else start, end))
        if done:
            self._rounds.append((ends, spots))
            self.text = "".join([*parts, self.text[done:]])


def _before(ends: list[int], spots: list[tuple[int, int]], at: int) -> tuple[int, int]:
    """Character `at`, or the escape whose place it takes, before a round."""
    n = bisect_right(ends, at)
    if n < len(ends) and at == ends[n] - 1:
        return spots[n]
    at += spots[n - 1][1] - ends[n - 1] if n else 0
    return at, at + 1
