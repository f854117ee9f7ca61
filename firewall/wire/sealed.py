"""What is no words although it is a string: pictures, state that only its vendor can open, and such tokens in a link.

Three questions, each answered so that nothing readable passes. `media`: is this base64 of what is not text, by a kind that
never is (a picture, a sound), or by itself? `sealed`: is this the signature or the encrypted state of a vendor, base64 (or
hexadecimal) that neither decodes to text nor spells words as it stands? `shown`: which words has a link, where a signed
URL's tokens are one mark each? What decodes to text (`unpacked`) is shown decoded.

Ten letters are three quarters of what people write in the Latin alphabet, and ten of 26 of a cipher's letters. That tells
words (`how_to_build_it`) from state, in every window of 256 letters; five standard deviations, so that no state is taken for
words.
"""

from __future__ import annotations

import math
import re
from base64 import b64decode
from operator import eq
from typing import Any, Final
from urllib.parse import unquote

import numpy as np

PICTURES = ("image/", "audio/", "video/", "font/", "application/pdf")    # what a vendor reads as nothing else
HIDDEN: Final = "\u2026"    # an opaque token in a link
WINDOW, FEW = 256, 20   # letters
SHARE = 10 / 26         # of a cipher's letters: `_COMMON`
LEAST = 64      # characters of state: what is shorter may be a piece of words, and no vendor's state is

_BASE64 = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/=_-"
_CONTROL = bytes(code for code in (*range(32), 127) if code not in b"\b\t\n\v\f\r\x1b")
_COMMON = bytes(chr(code) in "etaoinsrhlETAOINSRHL" for code in range(256))
_OTHER = b"0123456789+/=_-"
_KINDS = bytes(97 if 97 <= code < 123 else 65 if 65 <= code < 91 else 48 if 48 <= code < 58 else 45 for code in range(256))
_HEX = re.compile(r"[0-9a-f]+|[0-9A-F]+")
# Google says of its search results only this, and where they are in a token.
_RUN = re.compile(r"(?P<known>https://vertexaisearch\.cloud\.google\.com/grounding-api-redirect/)?"
                  r"(?P<token>(?:[A-Za-z0-9_+~-]|%[0-9A-Fa-f]{2}){32,}={0,2})")


def media(text: str, holder: Any) -> bool:
    """Whether a leaf is base64 of what is not text: of a kind that never is, by what its neighbours say, or by itself.
    Who says nothing, something else or `application/octet-stream` is not believed: what reads as text is words."""
    kinds = _kinds(text, holder)
    data = text.partition(",")[2] if text.startswith("data:") else text
    if kinds is None or not data.isascii() or data.encode().translate(None, _BASE64 + b"\r\n"):
        return False
    if kinds and all(kind.startswith(PICTURES) and "svg" not in kind for kind in kinds):
        return True
    return _bytes(data) is not None and not unpacked(text, holder)


def sealed(text: str) -> bool:
    """Whether this is state that only a vendor can open: no text in it, and none of it words."""
    if not text.isascii() or text.encode().translate(None, _BASE64):
        return False
    if _HEX.fullmatch(text):
        return not _spoken(bytes.fromhex(text[:len(text) // 2 * 2]))
    body = text.rstrip("=")
    for cut in range(4):        # a fragment of it may begin and end anywhere
        piece = body[cut:]
        data = _bytes(piece[:-1] if len(piece) % 4 == 1 else piece)
        if data is None or _spoken(data):
            return False
    return not _worded(text, 5 if len(text) > WINDOW else 4)


class Unread(list[str]):
    """Paths of a stream that passed unread. A vendor sends state whole; where it comes in pieces, each must be sealed and
    none of it words when put together. From the first that is not, all on that path is words, and decoded at the end.

    Attributes:
        spoken: path -> pieces that were words, until `ended`.
    """

    def __init__(self) -> None:
        super().__init__()
        self.spoken: dict[str, list[str]] = {}
        self._passed: dict[str, list[str]] = {}
        self._lost: set[str] = set()        # paths whose state is words

    def words(self, path: str, text: str, fits: bool) -> list[str]:
        """What is words with the next piece of a path, which `fits` by itself: nothing, the piece, or what passed before
        it and the piece."""
        if fits and path not in self._lost:
            before = self._passed.setdefault(path, [])
            if not before or not _worded("".join((*before[-8:], text)), 4):
                before.append(text)
                self.append(path)
                return []
        self._lost.add(path)
        said = [said for said in ("".join(self._passed.pop(path, ())), text) if said]
        self.spoken.setdefault(path, []).extend(said)
        return said

    def ended(self, path: str) -> list[tuple[str, str]]:
        """(path, text) of what was words in pieces on all paths that begin so, and is base64 of text."""
        found = []
        for name in [name for name in self.spoken if name.startswith(path)]:
            said = self.spoken.pop(name)
            if len(said) > 1 and (text := unpacked("".join(said), None)):
                found.append((name, text))
        return found


def shown(link: str) -> str:
    """A link, its tokens that are `sealed` one mark each: a signature says nothing, host, path and names do."""
    return _RUN.sub(_mark, link) if len(link) >= 32 else link


def _mark(found: re.Match[str]) -> str:
    token = unquote(found["token"]).replace("~", "/")
    return HIDDEN if sealed(token) and _mixed(token) else found[0]


def _mixed(token: str) -> bool:
    """Whether a token is hexadecimal, or has a long part without a joint, and jumps between small letters, capitals and
    digits at every other step: no words do, and a cipher's base64 does at two of three."""
    if _HEX.fullmatch(token):
        return True
    parts = token.encode().translate(_KINDS).split(b"-")
    kinds = b"".join(parts)
    return max(map(len, parts)) >= 16 and len(set(kinds)) == 3 and (
        sum(map(eq, kinds, kinds[1:])) < 0.53 * len(kinds)) and not _worded(token, 3)


def _worded(text: str, far: int = 5) -> bool:
    """Whether a window of this has the letters of words, however these are joined and written: more of the common ones than
    a cipher has, by `far` standard deviations."""
    common = np.frombuffer(text.encode().translate(_COMMON, _OTHER), np.uint8)      # of each letter, whether it is
    if len(common) < FEW:
        return False
    width = min(WINDOW, len(common))
    so_far = np.concatenate(([0], np.cumsum(common, dtype=np.int32)))
    begins = np.append(np.arange(0, len(common) - width, WINDOW // 2), len(common) - width)
    most = (so_far[begins + width] - so_far[begins]).max()
    return bool(most > (SHARE + far * math.sqrt(SHARE * (1 - SHARE) / width)) * width)


def _kinds(text: str, holder: Any) -> list[str] | None:
    """The MIME types that are given for a leaf, without parameters (none is `text/plain`, RFC 2397); None where it is no
    base64."""
    kinds: list[str] = []
    if isinstance(holder, dict):
        if holder.get("type") in ("text", "content") or holder.get("file_type") == "text":
            return None
        kinds = [str(holder[name]) for name in ("media_type", "mimeType", "mime_type") if name in holder]
    if text.startswith("data:"):
        head, comma, _ = text.partition(",")
        if not comma or not head.endswith(";base64"):
            return None
        kinds.append(head[5:-7])
    return [kind.partition(";")[0].strip().lower() or "text/plain" for kind in kinds]


def _bytes(data: str) -> bytes | None:
    """Base64 of either alphabet, with or without padding."""
    plain = data.replace("\r", "").replace("\n", "").rstrip("=").replace("-", "+").replace("_", "/")
    try:
        return b64decode(plain + "=" * (-len(plain) % 4), validate=True)
    except ValueError:
        return None


def unpacked(text: str, holder: Any) -> str:
    """Base64 of text, as text; empty where it is none.

    Text is what has few control characters, whatever its encoding (bytes that are no UTF-8 become U+FFFD; UTF-16 loses
    its zeros, or is read by its mark); of a kind that is no text by name, it must also be UTF-8 in the main.
    """
    kinds = _kinds(text, holder)
    if kinds is None or not (data := _bytes(text.rpartition(",")[2])):
        return ""
    return _spoken(data, any(kind.startswith("text/") for kind in kinds),
                   any(kind != "application/octet-stream" for kind in kinds))


def _spoken(data: bytes, named: bool = False, known: bool = False) -> str:
    """Bytes as text, empty where they are none; `named` text by who sent it, or of a `known` kind."""
    if data[:2] in (b"\xff\xfe", b"\xfe\xff"):
        data = data.decode("utf-16", "replace").encode("utf-8", "replace")
    data = data.translate(None, b"\0")
    if not named and len(data.translate(None, _CONTROL)) < 0.95 * len(data):
        return ""
    out = data.decode("utf-8", "replace")
    return out if named or known or out.count("\ufffd") < 0.2 * len(out) else ""
