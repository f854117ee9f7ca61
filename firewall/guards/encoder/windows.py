"""Canonical windows: where a text is cut for the encoder, whether it streams or not.

Window k of a text starts at character `k * STRIDE` and holds `SIZE` characters. Its words depend on these characters
alone, so a window that is complete (`more` characters follow it) reads the same in every longer text. That is why a
verdict over complete windows is final, and why streamed and whole verdicts agree: the whole text has the same windows
plus one tail. Nothing is ever cut off: consecutive windows overlap by `SIZE - STRIDE` characters.

A word broken by an edge is dropped from that window when it is short (`WORD` characters); its neighbour, which
overlaps by far more, holds all of it.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterator
from typing import NamedTuple

SIZE, STRIDE, WORD = 512, 384, 32
LONG = 64               # longer runs without a space are broken, so that the tokenizer never gives up on a word
CONTEXT_HEAD, CONTEXT_TAIL = 120, 80


class Window(NamedTuple):
    """`text` starts at character `start` of its view; `complete` windows never change when the text grows."""

    start: int
    text: str
    complete: bool


def windows(text: str) -> Iterator[Window]:
    """All windows of a text, the tail last. An empty or blank text has none."""
    start, total = 0, len(text)
    while True:
        end = start + SIZE
        complete = end < total
        left, right = start, min(end, total)
        if start and not text[start - 1].isspace():
            left += _edge(text[start:start + WORD])
        if complete and not text[end].isspace():
            right -= _edge(text[right - WORD:right][::-1])
        if text[left:right].strip():
            yield Window(left, text[left:right], complete)
        if end >= total:
            return
        start += STRIDE


def visible(text: str) -> tuple[str, list[int]] | None:
    """The text without format characters (zero width, soft hyphen, bidi marks), with the offset of each character.

    None when there are none, which is nearly always. The strip looks at one character at a time, so a prefix of the
    text gives a prefix of the result.
    """
    if text.isascii() or not any(unicodedata.category(c) == "Cf" for c in text):
        return None
    kept = [(i, c) for i, c in enumerate(text) if unicodedata.category(c) != "Cf"]
    return "".join(c for _, c in kept), [i for i, _ in kept]


def plain(window: str) -> str:
    """The compatibility form of a window's text (NFKC), which undoes full-width and styled letters."""
    return window if window.isascii() else unicodedata.normalize("NFKC", window)


def spaced(text: str) -> str:
    """Breaks runs of more than `LONG` characters without white space."""
    if len(text) <= LONG or max(map(len, text.split()), default=0) <= LONG:
        return text
    return " ".join(word[i:i + LONG] for word in text.split() for i in range(0, len(word), LONG))


def context(text: str) -> str:
    """The user's turn as it stands beside an answer's window: its beginning and its end."""
    text = " ".join(text.split())
    if len(text) <= CONTEXT_HEAD + CONTEXT_TAIL:
        return text
    return f"{text[:CONTEXT_HEAD]} ... {text[-CONTEXT_TAIL:]}"


def _edge(piece: str) -> int:
    """Length of the broken word at the start of `piece`; 0 when no space is near."""
    for i, c in enumerate(piece):
        if c.isspace():
            return i
    return 0
