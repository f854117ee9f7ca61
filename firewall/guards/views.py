"""Views of a text: how it reads once a disguise is taken off. For deterministic matching; the text stays as it is.

Views are additive: what is found in the original counts, and what is found in any view counts too. Only the cleaned view
keeps places (`origin`), to cut out what is found in it (and what escapes spell in the arguments of a call: escaped.py).

    cleaned     as `cleaned.bare` reads it: without format characters and accents, lookalikes as Latin
    tags        U+E0000 tag characters and variation selectors as bytes       bidi   as a reader would see it
    decoded     base64, hex, percent, HTML entities, backslash escapes, up to two deep
    plain       without Markdown and HTML marks; s p a c e d words joined; l33t and rot13 read; reversed

Every reading goes character by character: it says the same of a text whatever comes later, however it is cut. Bounds: a
caller hands over at most `CHUNK` characters at a time (longer texts overlap by `REACH`), every view is linear, a
character reads as at most four, decoding goes two deep. A text whose views together exceed `BUDGET` times its length is
refused (`GuardDown`), never half read (cases.md R4, H14, H23). Which view is worth making is decided by one linear
hyperscan pass, so that ordinary text costs microseconds.

After Hackett et al., LLMSec 2025 (character injection), and garak's encoding probes.
"""

from __future__ import annotations

import binascii
import codecs
import html
import re
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import NamedTuple
from urllib.parse import unquote_to_bytes

import hyperscan

from firewall.case import Case
from firewall.errors import GuardDown
from firewall.guards.cleaned import ALTERED, bare, fold, typed, wide
from firewall.guards.escaped import ESCAPES, HINT, unescape

CHUNK, REACH = 16_384, 1_024
BUDGET, FLOOR = 32, 4_096   # characters of all views per character of input; what any input may have


class View(NamedTuple):
    kind: str
    text: str


_LEET = str.maketrans("013457@$!|+", "oieastasilt")
_MARKS = re.compile(r"<!--.{0,512}?-->|</?[A-Za-z][^<>]{0,256}>|[*_~`\\]+", re.S)
_SPACED = re.compile(r"(?<!\w)(?:\w([ ._\-*/|]))(?:\w\1){1,}\w(?!\w)")
HINTS: dict[str, str] = {
    "base64": r"[A-Za-z0-9+/_-]{12}", "hex": r"(?:[0-9A-Fa-f]{2}[ :]?){6}", "percent": r"%[0-9A-Fa-f]{2}",
    "entity": r"&(?:#[0-9xX]|[A-Za-z]{2,8};)", "escape": HINT,
    "plain": r"[*_~`\\]|<!--|</?[A-Za-z]", "spaced": r"\b\w[ ._\-*/|]\w[ ._\-*/|]\w\b",
    "leet": r"[A-Za-z][0-9@$!|+][A-Za-z]|\b[0-9@$!|+][A-Za-z]",
}
BASE64 = re.compile(r"[A-Za-z0-9+/_-]{12,}={0,2}")
_TURNED = re.compile("[\u202a-\u202e\u2066-\u2069]")
_TAGS = re.compile("[\ufe00-\ufe0f\U000E0020-\U000E007E\U000E0100-\U000E01EF]")
_HEX = re.compile(r"(?:[0-9A-Fa-f]{2}[ :]?){6,}")


def views(text: str, words: bool = True, least: int = 0) -> Iterator[View]:
    """Every view of at most `CHUNK` characters that differs from it.

    Args:
        words: also those that only serve phrases.
        least: base64 and hex of fewer bytes are not decoded alone, because nothing that is looked for fits into them.

    Raises:
        GuardDown: the text has more views than are read.
    """
    budget = BUDGET * len(text) + FLOOR
    todo = [(text, 0)]
    seen = {text}
    while todo:
        source, depth = todo.pop()
        for view in _once(source, words, least, depth == 0):
            if view.text in seen or not view.text:
                continue
            seen.add(view.text)
            budget -= len(view.text)
            if budget < 0:
                raise GuardDown("guard_too_long", "a text is disguised in more ways than are read")
            yield view
            if depth == 0 and view.kind in ("cleaned", "decoded", "tags"):
                todo.append((view.text, 1))


def disguised(text: str) -> bool:
    """Whether tags, variation selectors or writing directions say something besides the cleaned text."""
    return wide(text, 2) and bool(_TURNED.search(text) or _TAGS.search(text) and _hidden(text))


def chunks(text: str) -> Iterator[tuple[int, str]]:
    """(offset, part): parts of at most `CHUNK` characters that overlap by `REACH`."""
    if len(text) <= CHUNK:
        yield 0, text
        return
    for at in range(0, len(text) - REACH, CHUNK - REACH):
        yield at, text[at:at + CHUNK]


def seams(texts: Sequence[str], reach: int = REACH // 4) -> Iterator[tuple[str, int]]:
    """Where texts meet (H16): the last `reach` characters of all before + the first of the next; the place between."""
    tail = ""
    for text in texts:
        if tail and text:
            head = text[:reach]
            yield tail + head, len(tail)
            if tail[-1].isspace() or head[0].isspace():
                yield tail.rstrip() + head.lstrip(), len(tail.rstrip())
        tail = (tail + text[-reach:])[-reach:]


def joined(case: Case, texts: Sequence[str] | None = None) -> list[list[str]]:
    """The runs of text that a reader may put together: the user's turns, then everything on trial in order.

    `texts`: what to read instead of the words on trial, one for each (a caller may have blanked parts).
    """
    texts = [t for _, t in case.trial()] if texts is None else texts
    runs = [list(texts)]
    if case.direction == "input":
        users = [t for t, m in zip(texts, case.messages, strict=True) if m.role == "user"]
        runs += [users] if len(users) < len(texts) else []
    return [run for run in runs if len(run) > 1]


def everything(case: Case) -> Iterator[str]:
    """Every view of everything on trial, folded, seams included: what a phrase is looked for in besides the text."""
    for _, text in case.trial():
        for _, part in chunks(text):
            yield fold(part)
            yield from (fold(v.text) for v in views(part))
    for run in joined(case):
        for seam, _ in seams(run):
            yield fold(seam)
            yield from (fold(v.text) for v in views(seam))


def _once(text: str, words: bool, least: int, first: bool) -> Iterator[View]:
    hints = _hints(text)
    altered = not typed(text) and ALTERED.search(text)
    if altered:
        yield View("cleaned", bare(text))
        if hidden := _hidden(text):
            yield View("tags", hidden)
        if _TURNED.search(text):
            yield View("bidi", bare(_visual(text)))
    if "base64" in hints:
        for read in based(BASE64.findall(text), least):
            yield View("decoded", read)
    if "hex" in hints:
        for read in hexed(text, least):
            yield View("decoded", read)
    if "percent" in hints:
        yield View("decoded", unquote_to_bytes(text.encode("utf-8", "replace")).decode("utf-8", "replace"))
    if "entity" in hints:
        yield View("decoded", html.unescape(text))
    if "escape" in hints:
        yield View("decoded", ESCAPES.sub(unescape, text))
    if not words or altered and first:          # the cleaned view has these views too
        return
    if "plain" in hints:
        yield View("plain", _MARKS.sub("", text))
    if "spaced" in hints:
        yield View("plain", _SPACED.sub(lambda m: m[0].replace(m[1], ""), text))
    if "leet" in hints:
        yield View("plain", text.translate(_LEET))
    yield View("plain", codecs.encode(text, "rot13"))
    yield View("plain", text[::-1])


def _hidden(text: str) -> str:
    """Bytes in tag characters (U+E0020..7E) and in variation selectors (VS1-16 are 0-15, VS17-256 are 16-255)."""
    tags = "".join(chr(ord(c) - 0xE0000) for c in text if "\U000E0020" <= c <= "\U000E007E")
    picks = bytes(ord(c) - 0xFE00 if c <= "\ufe0f" else ord(c) - 0xE0100 + 16 for c in text
                  if "\ufe00" <= c <= "\ufe0f" or "\U000E0100" <= c <= "\U000E01EF")
    return tags + (_text(picks) if len(picks) > 2 else "")


def _visual(text: str) -> str:
    """Explicit right-to-left runs turned round, inner first: what the eye reads of `RLO ... PDF`."""
    stack: list[tuple[bool, list[str]]] = [(False, [])]
    for char in text:
        if char in "\u202d\u202e\u202a\u202b\u2066\u2067\u2068":
            stack.append((char in "\u202e\u202b\u2067", []))
        elif char in "\u202c\u2069" and len(stack) > 1:
            turned, run = stack.pop()
            stack[-1][1].append("".join(run)[::-1] if turned else "".join(run))
        else:
            stack[-1][1].append(char)
    while len(stack) > 1:
        turned, run = stack.pop()
        stack[-1][1].append("".join(run)[::-1] if turned else "".join(run))
    return "".join(stack[0][1])


def based(runs: list[str], least: int = 0) -> Iterator[str]:
    """Base64 runs decoded at every phase (a chunk may begin inside one): the long ones, and all put together."""
    for run in [*runs, "".join(runs)] if len(runs) > 1 else runs:
        if len(run) * 3 < least * 4:
            continue
        body = run.rstrip("=").replace("-", "+").replace("_", "/")
        for k in range(4):
            part = body[k:]
            spare = len(part) % 4
            try:
                data = binascii.a2b_base64(part[:-1] if spare == 1 else part + _PAD[spare])
            except ValueError:
                continue
            if data[1:2] != b"\0" and (read := data.decode("utf-8", "replace")).count("\ufffd") * 8 > len(read):
                continue        # most words, at nearly every phase
            if read := _text(data):
                yield read


_PAD = ("", "", "==", "=")


def hexed(text: str, least: int = 0) -> Iterator[str]:
    """Hex runs of at least `least` bytes, decoded from their first and from their second digit."""
    for found in _HEX.findall(text):
        packed = found.replace(" ", "").replace(":", "")
        if len(packed) < least * 2:
            continue
        for k in (0, 1):
            if read := _text(bytes.fromhex(packed[k:len(packed) - (len(packed) - k) % 2])):
                yield read


def _text(data: bytes) -> str:
    """Bytes as text if they look like text: at most one in eight characters is not printable."""
    for encoding in ("utf-8", "utf-16-le") if data[1:2] == b"\0" else ("utf-8",):
        read = data.decode(encoding, "replace")
        if read and read.count("\ufffd") * 8 <= len(read) and len(_BINARY.findall(read)) * 8 <= len(read):
            return read
    return ""


_BINARY = re.compile("[\x00-\x08\x0b\x0e-\x1f\x7f-\x9f\ufffd]")


def _hints(text: str) -> set[str]:
    found: set[int] = set()
    _hint_db().scan(text.encode("latin-1", "replace"), match_event_handler=lambda i, *_: found.add(i))
    return {name for i, name in enumerate(HINTS) if i in found}


@lru_cache(maxsize=1)
def _hint_db() -> hyperscan.Database:
    db = hyperscan.Database(mode=hyperscan.HS_MODE_BLOCK)
    db.compile(expressions=[p.encode() for p in HINTS.values()], ids=list(range(len(HINTS))),
               elements=len(HINTS), flags=[hyperscan.HS_FLAG_SINGLEMATCH] * len(HINTS))
    return db
