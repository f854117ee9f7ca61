"""How a text reads to the encoder: as it stands, and as a person or a model reads it when that differs.

    plain       the text itself, always
    bare        disguises off (`guards.cleaned.clean`), and every sign that is no letter, mark, number or punctuation is a
                blank: a vocabulary that lacks one character of a word lacks the word, so an emoji at each word blinds
    hidden      letters written in tag characters or variation selectors, which nobody sees and a model may follow

    coded       what base64 in a request says (`coded`); not of answers, where a run may still grow

Each reading but the last looks at one character at a time, so a longer text gives longer readings that begin the same:
complete windows never change. Each knows the places of its characters. Text in ASCII, and other text without any of
these characters, has the plain reading only.
"""

from __future__ import annotations

import binascii
import re
import unicodedata
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from firewall.guards.cleaned import clean, origin

# everything but ASCII and some ranges of nothing but letters, marks, numbers, punctuation and blanks: a quick look
_RARE = re.compile("[^\x00-\x7f\xa0\xaa\xb5\xba\xc0-\xd6\xd8-\xf6\xf8-\u02c1\u0300-\u0373\u0391-\u03a1\u03a3-\u03e1"
                   "\u0400-\u0481\u0483-\u052f\u05d0-\u05ea\u0620-\u06d5\u0900-\u097f\u0e01-\u0e3a\u0e40-\u0e5b"
                   "\u10d0-\u10ff\u1e00-\u1eff\u2010-\u2027\u3001-\u3003\u3041-\u3096\u30a1-\u30ff\u4e00-\u9fff"
                   "\uac00-\ud7a3]")
# U+E0020..7E are ASCII in tags; byte b as a variation selector is U+E0100 + b - 16 from 16 on
_HIDDEN = re.compile("[\U000E0020-\U000E007E\U000E0110-\U000E016E]")


class Reading(NamedTuple):
    """`place` maps start and end in `text` to those in the text as it stands; None where they are the same."""

    text: str
    place: Callable[[int, int], tuple[int, int]] | None = None


def readings(text: str) -> list[Reading]:
    """All readings of a text that differ, the plain one first."""
    out = [Reading(text)]
    if text.isascii():
        return out
    bare = clean(text)
    if _RARE.search(bare):
        bare = bare.translate(_WORDS)
    if bare == text:
        return out
    out.append(Reading(bare, partial(origin, text)))
    if places := [m.start() for m in _HIDDEN.finditer(text)]:
        out.append(Reading("".join(_shown(text[i]) for i in places), partial(_hidden, places)))
    return out


def coded(text: str) -> list[Reading]:
    """What the base64 in a whole text says, where it says something in words; places are those of all of the base64."""
    out = []
    for run in _BASE64.finditer(text):
        body = "".join(run[0].split()).rstrip("=").translate(_STANDARD)
        try:
            said = binascii.a2b_base64(body[:len(body) - (len(body) % 4 == 1)] + "=" * (-len(body) % 4)).decode()
        except ValueError:                  # UnicodeDecodeError is one
            continue
        if " " in said and said.replace("\n", "").replace("\r", "").replace("\t", "").isprintable():
            out.append(Reading(said, partial(_whole, *run.span())))
    return out


# at least 18 bytes; lines of 60 and more go on in the next
_BASE64 = re.compile(r"(?:[A-Za-z0-9+/_-]{60,}+\r?\n)*+[A-Za-z0-9+/_-]{24,}={0,2}")
_STANDARD = str.maketrans("-_", "+/")


def _whole(first: int, last: int, start: int, end: int) -> tuple[int, int]:
    return first, last if end > start else first


class _Words(dict[int, str]):
    """Code point -> itself, or a blank; filled as characters are met (`str.translate` asks once for each)."""

    def __missing__(self, point: int) -> str:
        if len(self) > 65_536:               # a text with every character of Unicode must not fill the memory
            self.clear()
        char = chr(point)
        self[point] = char if char.isspace() or unicodedata.category(char)[0] in "LMNP" else " "
        return self[point]


_WORDS = _Words({i: chr(i) for i in range(128)})


def _shown(char: str) -> str:
    point = ord(char) - 0xE0000
    return chr(point if point < 0x100 else point - 0x100 + 16)


def _hidden(places: list[int], start: int, end: int) -> tuple[int, int]:
    first = places[start]
    return first, places[end - 1] + 1 if end > start else first
