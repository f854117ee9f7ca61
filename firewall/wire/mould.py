"""The short way through a stream: events that differ in one string, read without parsing the rest.

The deltas of one channel are the same bytes but for one string (and, in some dialects, a sequence number before it and
random padding after it). When a document was read in full, held exactly that one string of words and changed no
state, its bytes around the string are kept as a `Mould`. A later slice with the same bytes and, between them, the
inside of one valid JSON string is the same document with another string in it: parsing that string tells all it says.
(Not where the string is a `type`, which says what all others are.)

Why that is exact: the prefix ends just inside the string, at a place found without doubt (the key stands once in the
slice, after `{` or `,`), so a parser is in the same state there; one whole JSON string, and nothing after it, leads
to the same suffix. Padding must be letters and digits, a number must be digits: neither can end its place early.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from firewall.wire.leaves import Leaf

NUMBER = b'"sequence_number":'
PADDING = b'"obfuscation":"'


class Mould(NamedTuple):
    """Slices that differ in one string.

    Args:
        prefix: the bytes before it, up to a sequence number where there is one.
        after: the bytes between that number and the string; empty without a number.
        suffix: the bytes after it.
        bare: the suffix without spaces, where it only closes; vendors pad with spaces.
        pad: the suffix around random padding, or None.
        channel: where the words belong.
        pending: whether a call is under way.
        inside: where the string stands with its quotes, if all else is `prefix` and `suffix`; None with a number or padding.
    """

    prefix: bytes
    after: bytes
    suffix: bytes
    bare: bytes
    pad: tuple[bytes, bytes] | None
    channel: str
    pending: bool
    inside: slice | None = None


def pour(raw: bytes, mould: Mould) -> tuple[str, int] | None:
    """A slice that begins with the mould's prefix -> its words and number (-1: none); None where it does not fit."""
    start, number = len(mould.prefix), -1
    if mould.after:
        end = raw.find(mould.after, start)
        digits = raw[start:end]
        if end < 0 or not digits.isdigit() or len(digits) > 15 or (digits[0] == 48 and len(digits) > 1):
            return None
        start, number = end + len(mould.after), int(digits)
    if mould.pad is not None:
        head, foot = mould.pad
        end = raw.find(head, start)
        padding = raw[end + len(head):len(raw) - len(foot)]
        if end < 0 or len(padding) > 512 or not padding.isalnum() or not raw.endswith(foot):
            return None
    elif raw.endswith(mould.suffix):
        end = len(raw) - len(mould.suffix)
    else:
        end = raw.rfind(b'"')
        if not mould.bare or raw[end:].replace(b" ", b"") != mould.bare:
            return None
    try:
        return orjson.loads(raw[start - 1:end + 1]), number     # strict: one string, its quotes not one and the same
    except orjson.JSONDecodeError:
        return None


def cast(raw: bytes, data: bytes, leaf: Leaf, document: dict[str, Any], pending: bool) -> Mould | None:
    """A mould of a slice whose only words are `leaf`; None where its string cannot be found without doubt."""
    if type(leaf.key) is not str or type(leaf.holder) is not dict or leaf.holder.get(leaf.key) != leaf.text or (
            leaf.key == "type"):
        return None
    key = b'"' + leaf.key.encode() + b'":'
    needle = key + (b'"' if key + b'"' in data else b' "')
    at, lead = raw.find(needle), raw.find(data)
    if lead < 0 or at < lead or raw.count(key) != 1 or raw[lead:at].rstrip()[-1:] not in (b"{", b","):
        return None
    start = end = at + len(needle)
    while (end := raw.find(b'"', end)) > 0 and _escaped(raw, end):
        end += 1
    if orjson.loads(raw[start - 1:end + 1]) != leaf.text:
        return None
    prefix, after, suffix = raw[:start], b"", raw[end:]
    number = document.get("sequence_number")
    if type(number) is int:
        digits = str(number).encode()
        place = prefix.find(NUMBER + digits)
        if place < 0 or raw.count(NUMBER) != 1:
            return None
        cut = place + len(NUMBER)
        prefix, after = raw[:cut], raw[cut + len(digits):start]
    pad = None
    padding = document.get("obfuscation")
    if isinstance(padding, str) and padding.isascii() and padding.isalnum():
        head, mark, foot = suffix.partition(PADDING + padding.encode() + b'"')
        if not mark:
            return None
        pad = (head + PADDING, b'"' + foot)
    bare = suffix.replace(b" ", b"")
    if pad is not None or bare.strip(b'"}]\n'):
        bare = b""
    inside = None if after or pad is not None else slice(len(prefix) - 1, 1 - len(suffix))
    return Mould(prefix, after, suffix, bare, pad, leaf.path, pending, inside)


def _escaped(raw: bytes, quote: int) -> bool:
    """Whether a quote is escaped: an odd number of backslashes before it."""
    start = quote
    while raw[start - 1] == 92:
        start -= 1
    return bool((quote - start) % 2)
