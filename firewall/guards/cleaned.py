"""How a text reads with disguises off: format characters, accents and fillers dropped, lookalikes read as Latin.

Three readings, each for one reader, all character by character, so that they say the same of a text whatever comes
later, however it is cut:

    clean   for models: ordinary letters keep their accents, dashes and quotes stay what they are
    bare    for detectors: accents and control characters off too, dashes and digits as ASCII
    fold    for phrases: bare, case-folded, runs of blanks as one

`origin` leads from a place in a reading back to the text. NFKC and UTS #39 (confusables; a small table of Cyrillic,
Greek, Armenian and small-capital letters that look Latin). A character reads as at most `LONGEST`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import chain
from sys import getsizeof

LONGEST = 4             # characters that one reads as
ROUNDS = 6              # a run of up to 2 ** ROUNDS blanks reads as one in phrases
_PAIRS = ("аa бb вb гr еe ёe зz иu кk мm нh оo рp сc тt уy хx ѕs іi јj һh ԁd ԛq ԝw ҽe ӏl ѵv ьb "
          "αa βb γy εe ζz ηn ιi κk νv οo ρp σo τt υu χx ωw ϲc ϳj "
          "Աu տs սu օo ցg հh յj զq ոn ᴀa ʙb ᴄc ᴅd ᴇe ꜰf ɢg ʜh ɪi ᴊj ᴋk ʟl ᴍm ɴn ᴏo ᴘp ʀr ꜱs ᴛt ᴜu ᴠv ᴡw ʏy ᴢz ıi ɡg "
          "−- ⁃- ˗- ɑa ℓl ɐa ɔc ǝe ɟf ɥh ɯm ɹr ʇt ʌv ʍw ʎy")
LOOKALIKE = {pair[0]: pair[1] for pair in _PAIRS.split()}
LOOKALIKE = {a.upper(): b for a, b in LOOKALIKE.items() if a.upper() != a and len(a.upper()) == 1} | LOOKALIKE
CONTROL = r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]"       # of ASCII, besides tab and line ends; as a pattern
_CONTROLS = bytes(b for b in range(128) if re.match(CONTROL, chr(b)))
# what `clean` may change: not (ASCII, or an ordinary composed letter of a script without lookalikes)
ODD = re.compile("[^\x00-\x9f\xa1-\xac\xae\xaf\xb0-\u0130\u0132-\u01dc\u01de-\u024f\u3041-\u3163\u3165-\u318e"
                  "\u4e00-\u9fff\uac00-\ud7a3\u2010-\u2027]")
ENCLOSED = 0x249C, 0x1F110, 0x1F150, 0x1F170        # a to z in brackets, and white on black, which NFKC leaves
_FILLERS = frozenset("\u115f\u1160\u3164\uffa0\u2800\u034f\u17b4\u17b5\u180e")


def clean(text: str) -> str:
    """How a text reads, for models: NFKC without format characters, marks and fillers, lookalikes read as Latin.

    Ordinary letters keep their accents, dashes and quotes stay what they are (`ODD`).
    """
    return text if text.isascii() else _changed(text, ODD, _CLEAN)


def bare(text: str) -> str:
    """How a text reads, for detectors: `clean`, and accents and control characters off, dashes and digits as ASCII."""
    if typed(text):
        return text
    if not wide(text, 2) and len((data := text.encode("latin-1")).translate(None, _LONG)) == len(data):
        return data.translate(_LATIN).decode("latin-1")
    return _changed(text, ALTERED, _BARE)


def _changed(text: str, odd: re.Pattern[str], table: Mapping[int, str]) -> str:
    """`text.translate(table)`, which asks for every character once one is not ASCII: most texts hold few odd ones."""
    if len(odd.findall(text, 0, 256)) > 32:
        return text.translate(table)
    return odd.sub(lambda found: table[ord(found[0])], text)


def typed(text: str) -> bool:
    """Whether it is ASCII that can be seen, and blanks: a quick look, for most texts True."""
    return text.isascii() and (text.isprintable() or len(text.encode().translate(None, _CONTROLS)) == len(text))


def wide(text: str, size: int) -> bool:
    """Whether it may hold a character beyond U+00FF (`size` 2) or U+FFFF (4): a string of CPython takes as many bytes a
    character as its widest one needs (PEP 393), so most texts need no search."""
    return getsizeof(text) >= size * len(text)


def fold(text: str) -> str:
    """Bare and case-folded, runs of blanks and line ends as one blank: what phrases are looked for in."""
    read = text.lower() if typed(text) else bare(text).casefold()
    read = read.replace("\n", " ").replace("\t", " ").replace("\r", " ")
    for _ in range(ROUNDS):
        if "  " not in read:
            break
        read = read.replace("  ", " ")
    return read


def origin(text: str, start: int, end: int, read: Callable[[str], str] = clean) -> tuple[int, int]:
    """Place `start:end` of `read(text)` -> the characters of `text` it was read from. `read`: clean, bare or fold."""
    if text.isascii() if read is clean else typed(text) and (read is not fold or len(read(text)) == len(text)):
        return start, end
    owners = _owners(text, read)
    first = owners[start] if start < len(owners) else len(text)
    return first, owners[end - 1] + 1 if end > start else first


def back(text: str, size: int, read: bool) -> int:
    """Where in `text` its last `size` characters begin; `read`: those of `bare(text)`."""
    at = len(text)
    while read and size > 0:
        at -= 1
        size -= len(_BARE[ord(text[at])])
    return at if read else at - size


@lru_cache(maxsize=2)               # every place that was found in a text asks
def _owners(text: str, read: Callable[[str], str]) -> list[int]:
    """For each character of `read(text)` the place of the one it was read from."""
    table = _FOLD if read is fold else _BARE if read is bare else _CLEAN
    pieces = [table[ord(c)] for c in text]
    owners = list(chain.from_iterable((i,) * len(piece) for i, piece in enumerate(pieces)))
    if read is not fold:
        return owners
    kept: list[int] = []
    done = 0
    for run in _RUN.finditer("".join(pieces)):
        left = -(-len(run[0]) >> ROUNDS)            # rounded up, as halving it that often leaves it
        kept += owners[done:run.start() + left]
        done = run.end()
    return kept + owners[done:]


_RUN = re.compile(r"[ \t\n\r]{2,}")


class _Reading(dict[int, str]):
    """Code point -> how it reads; filled as characters are met (`str.translate` asks once for each)."""

    def __init__(self, read: Callable[[str], str]) -> None:
        super().__init__()
        self.read = read

    def __missing__(self, point: int) -> str:
        if len(self) > 65_536:               # a text with every character of Unicode must not fill the memory
            self.clear()
        self[point] = self.read(chr(point))
        return self[point]


def _read(char: str) -> str:
    if char < "\x80":
        return char if " " <= char < "\x7f" or char in "\t\n\r" else ""
    if char in LOOKALIKE:
        return LOOKALIKE[char]
    category = unicodedata.category(char)
    if char in _FILLERS or category in ("Cc", "Cf", "Mn", "Me", "Co", "Cs"):
        return ""
    if category == "Pd":
        return "-"
    if category == "Nd":
        return str(unicodedata.decimal(char))
    if char.isspace():
        return " "
    point = ord(char)
    if 0x1F1E6 <= point <= 0x1F1FF:                     # regional indicators spell letters
        return chr(point - 0x1F1E6 + 97)
    if first := next((first for first in ENCLOSED if first <= point < first + 26), 0):
        return chr(point - first + 97)
    parts = unicodedata.normalize("NFKD", char)
    letters = "".join(c for c in parts if c in _VOICED or
                      unicodedata.category(c) not in ("Mn", "Me", "Cf") and c not in _FILLERS)
    read = "".join(LOOKALIKE.get(c, c) for c in unicodedata.normalize("NFKC", letters))
    return read if len(read) <= LONGEST else char       # U+FDFA is a phrase of 18


_VOICED = "\u3099\u309a"                        # they make another letter of a kana, not a disguised one
_CLEAN = _Reading(lambda char: _read(char) if ODD.match(char) else char)
_BARE, _FOLD = _Reading(_read), _Reading(lambda char: _read(char).casefold())


def _altered() -> re.Pattern[str]:
    """Characters that `bare` changes; of the scripts that are not listed here, and seldom written, all."""
    same = [range(0x3400, 0xA000), range(0xAC00, 0xD7A4), range(0x1F300, 0x1FB00)]      # CJK, Hangul, pictures
    for block in (range(0x600), range(0x1E00, 0x2100), range(0x3000, 0x3200)):
        same += [range(point, point + 1) for point in block if _read(chr(point)) == chr(point)]
    return re.compile(f"[^{''.join(f'{re.escape(chr(r[0]))}-{re.escape(chr(r[-1]))}' for r in same)}]")


ALTERED = _altered()
_ONE = {c: read for c in range(256) if len(read := _BARE[c]) == 1 and ord(read) < 256}
_LATIN = bytes(ord(_ONE.get(c, "\0")) for c in range(256))     # how the characters of Latin-1 read, where that is one
_LONG = bytes(c for c in range(256) if c not in _ONE)
