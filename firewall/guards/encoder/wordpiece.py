"""The embedded guard's tokenizer: BERT WordPiece, read from tokenizer.json, without a library of 45 MB behind it.

Promises the ids and the character offsets that Hugging Face `tokenizers` gives for a tokenizer.json whose model is
WordPiece, whose normalizer is BertNormalizer and whose pre-tokenizer is BertPreTokenizer (Devlin et al. 2018). Two
differences, both on purpose: `[SEP]` in a text is five letters and brackets and never a special token, and a lone
surrogate is dropped like a control character instead of raising. No special tokens are added, nothing is cut or padded.

Time is linear in the text, whatever it holds: characters are mapped one at a time, the marks that a mapping leaves are
sorted by run, and no word of more than `max_input_chars_per_word` characters is looked up.
"""

from __future__ import annotations

import json
import re
import unicodedata
from itertools import groupby
from pathlib import Path
from typing import Any, Literal, NamedTuple


def _ranges(text: str) -> tuple[tuple[int, int], ...]:
    return tuple((int(r.split("-")[0], 16), int(r.split("-")[-1], 16)) for r in text.split())


KEPT = 32768                # words (then the memory starts anew) and characters remembered
WORD = re.compile("[^ ]+")
ASCII_WORD = re.compile(r"[0-9A-Za-z]+|[!-/:-@\[-`{-~]")
ASCII_ODD = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f]")
SPACE = frozenset("\t\n\x0b\x0c\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | set(map(chr, range(0x2000, 0x200B)))
CHINESE = ((0x4E00, 0x9FFF), (0x3400, 0x4DBF), (0x20000, 0x2A6DF), (0x2A700, 0x2B73F), (0x2B740, 0x2B81F),
           (0x2B920, 0x2CEAF), (0xF900, 0xFAFF), (0x2F800, 0x2FA1F))
# The library's categories are those of Unicode 8. Marks, punctuation and format characters that came later are letters
# to it; named here (none is in a vocabulary), so that the answer hangs on neither its tables nor this Python's.
LATER = _ranges(
    "5c8-5c9 61d 7fd 890-8e2 9fd-9fe a76 afa-aff b53-b55 c04-c3c c77 c84 d00 d3b-d3c d81 eba ece 180f-1886 1abf-1af0 "
    "1b4e-1b4f 1b7d-1b7f 1df6-1dfb 2e43-2e63 a82c a8c5 a8ff a9bd 10d24-10f89 11070-11074 110c2-110cd 111cf 1123e-11241 "
    "1133b 113bb-1145e 11660-1166c 116b9 1182f-11fff 12ff1-1612f 16d6d-16f4f 16fe2-16fe4 1cf00-1d128 1d25b-1d25c "
    "1e000-1e6f5 1e944-1e95f")
# Its canonical order is that of Unicode 9.
MOVED_LATER = _ranges("8d4-8e1 1dfb 11442 11446 11c3f 1e000-1e02a 1e944-1e94a")
UNMOVED = "\u1715\U00016ff0\U00016ff1"

Piece = tuple[int, int, int]            # id, first character, end: within a word


class Encoding(NamedTuple):
    """Token ids, and for each the (start, end) of its characters in the text as given."""

    ids: list[int]
    offsets: list[tuple[int, int]]


class WordPiece:
    """A vocabulary and its reading rules. Safe to share between threads."""

    def __init__(self, spec: dict[str, Any]) -> None:
        """`spec` is the content of a tokenizer.json. Raises ValueError when it is not a BERT WordPiece tokenizer."""
        model, normal, split = (spec.get(part) or {} for part in ("model", "normalizer", "pre_tokenizer"))
        if [part.get("type") for part in (model, normal, split)] != ["WordPiece", "BertNormalizer", "BertPreTokenizer"]:
            raise ValueError("tokenizer.json is not of BERT's kind (WordPiece, BertNormalizer, BertPreTokenizer)")
        self.vocab: dict[str, int] = model["vocab"]
        self.prefix: str = model.get("continuing_subword_prefix", "##")
        self.limit = int(model.get("max_input_chars_per_word", 100))
        self.unknown = self.vocab[model.get("unk_token", "[UNK]")]
        self.longest = max(map(len, self.vocab))
        self.clean, self.chinese = bool(normal.get("clean_text", True)), bool(normal.get("handle_chinese_chars", True))
        self.lower = bool(normal.get("lowercase", True))
        strip = normal.get("strip_accents")
        self.strip = self.lower if strip is None else bool(strip)
        self._words: dict[str, tuple[Piece, ...]] = {}
        self._chars: dict[str, str] = {}
        self._movable: set[str] = set()

    @classmethod
    def from_file(cls, path: str | Path) -> WordPiece:
        """Raises OSError or ValueError."""
        return cls(json.loads(Path(path).read_text("utf-8")))

    def encode(self, text: str, add_special_tokens: Literal[False] = False) -> Encoding:
        """Ids and places of a text. Asked the way the library is, but special tokens are never added."""
        ids: list[int] = []
        offsets: list[tuple[int, int]] = []
        known = self._words
        if text.isascii() and not ASCII_ODD.search(text):
            for found in ASCII_WORD.finditer(text.lower() if self.lower else text):
                word, at = found[0], found.start()
                for token, a, b in known.get(word) or self._pieces(word):
                    ids.append(token)
                    offsets.append((at + a, at + b))
        else:
            read, places = self._read(text)
            for found in WORD.finditer(read):
                word, at = found[0], found.start()
                for token, a, b in known.get(word) or self._pieces(word):
                    ids.append(token)
                    offsets.append((places[at + a], places[at + b - 1] + 1))
        return Encoding(ids, offsets)

    def _pieces(self, word: str) -> tuple[Piece, ...]:
        """Longest match first; a word that does not come out whole is one unknown token."""
        size = len(word)
        if size > self.limit:
            return ((self.unknown, 0, size),)
        out: list[Piece] = []
        at, vocab = 0, self.vocab
        while at < size:
            lead = self.prefix if at else ""
            for end in range(min(size, at + self.longest), at, -1):
                if (token := vocab.get(lead + word[at:end])) is not None:
                    out.append((token, at, end))
                    at = end
                    break
            else:
                out = [(self.unknown, 0, size)]
                break
        if len(self._words) >= KEPT:
            self._words.clear()
        self._words[word] = pieces = tuple(out)
        return pieces

    def _read(self, text: str) -> tuple[str, list[int]]:
        """The text as the vocabulary spells it, words parted by spaces; for each character its place in `text`."""
        chars, out, places = self._chars, [], []
        for i, c in enumerate(text):
            if (read := chars.get(c)) is None:
                read = "".join(map(self._spell, self._parts(c)))
                if len(chars) < KEPT:
                    chars[c] = read
                if any(map(_order, read)):
                    self._movable.add(c)
            if read:
                out.append(read)
                places += [i] * len(read)
        if self.strip and not self._movable.isdisjoint(text):
            return self._sorted(text)
        return "".join(out), places

    def _sorted(self, text: str) -> tuple[str, list[int]]:
        """`_read` of a text in which marks that stay may change places with others (Unicode's canonical order).

        As in the library, places do not move with their marks: the first mark of a sorted run has the first place.
        """
        parts = {c: self._parts(c) for c in set(text)}
        spelt = {x: self._spell(x) for part in parts.values() for x in part}
        order = {x: _order(x) for x in spelt}
        marks = [(order[x], x, k > 0, i) for i, c in enumerate(text) for k, x in enumerate(parts[c])]
        source = iter([i for _, _, more, i in marks if not more])
        out, places, place = [], [], 0
        for marked, run in groupby(marks, key=lambda m: m[0] > 0):
            for _, x, more, _ in sorted(run, key=lambda m: m[0]) if marked else run:
                place = place if more else next(source)
                read = spelt[x]
                out.append(read)
                places += [place] * len(read)
        return "".join(out), places

    def _parts(self, c: str) -> str:
        """A character without its case and space: "" when it is cleaned away, else its canonical decomposition."""
        if self.clean and _control(c):
            return ""
        return unicodedata.normalize("NFD", c) if self.strip and not _later(c) else c

    def _spell(self, x: str) -> str:
        """What one decomposed character becomes: nothing, letters, or a word of its own between spaces."""
        if _later(x):
            return x
        if self.strip and _mark(x):
            return ""
        alone = self.chinese and _within(x, CHINESE)
        read = "".join(" " if y in SPACE else f" {y} " if _punctuation(y) else y
                       for y in (x.lower() if self.lower else x))
        return f" {read} " if alone else read


def _later(c: str) -> bool:
    return c > "\u05c7" and _within(c, LATER)


def _within(c: str, ranges: tuple[tuple[int, int], ...]) -> bool:
    return any(a <= ord(c) <= b for a, b in ranges)


def _order(c: str) -> int:
    """The canonical combining class."""
    if c in UNMOVED or _later(c) and not _within(c, MOVED_LATER):
        return 0
    return unicodedata.combining(c)


def _control(c: str) -> bool:
    if c in "\t\n\r" or _later(c):
        return False
    return c == "\ufffd" or unicodedata.category(c) in ("Cc", "Cf", "Cs", "Co")


def _mark(c: str) -> bool:
    return unicodedata.category(c) == "Mn" and c != "\U000111c9" or c in "\u1734\U0001171e"


def _punctuation(c: str) -> bool:
    if c.isascii():
        return "!" <= c <= "~" and not c.isalnum()
    return unicodedata.category(c)[0] == "P" or c in "\u166d\U000111c9"
