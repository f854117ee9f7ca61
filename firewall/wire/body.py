"""Bytes -> one JSON object, read so strictly that every parser reads the same.

What was judged is forwarded byte for byte, so a body on which two parsers could disagree is refused (cases.md C):
duplicate keys (escaped spellings and, from clients, spellings of a field that fold to one), integers beyond 64 bits,
numbers beyond a double, anything but UTF-8, lone surrogates, more than one document, a top level that is no object; and
bodies that cost more than they are worth: deeper than 64, more than 200,000 nodes, decoded beyond the limit. An answer
may have more nodes (1,000 tokens with twenty alternatives each have 300,000). What a model writes into a call must be
accepted as its echo: floats of any size, `x` beside `X` in arguments, a question as a key.

The fast path: bound the nodes by `bytes.count` before anything is built (8 MiB of `[[]],` cost a parser 245 MiB), one
orjson parse, one walk over the containers. orjson keeps the last of duplicate keys, so keys are counted twice: in
the tree and, as `":` but not `\\":`, in the bytes. With no white space before a colon and no backslash in a key the
latter is exactly the keys written; in all other cases, and where the two differ, json.loads with a pairs hook decides.

The shortest path: a document of few containers, whose keys are all names of the protocols (short, and none is another in
other capitals), and which orjson writes again byte for byte. What it writes names no key of an object twice, and a float
with a point or an exponent, so that no wide integer became one. Most requests and many answers are such.

Nothing of the input is ever in an error.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from firewall.errors import Fault, FirewallError
from firewall.wire.leaves import ARGUMENTS
from firewall.wire.vocabulary import KEYS

STEP = 65_536           # decoded bytes a turn: a bomb is seen after one of them too many
SMALL = 4_096           # bytes up to which bytes.count beats numpy
FEW = 64                # containers of a document that takes the shortest path, characters of its keys
CONTAINERS = frozenset((dict, list))
MARKS = (b",", b":", b"{", b"[")
NAMES = frozenset(("properties", "patternProperties", "$defs", "definitions"))      # whose keys are names
CHOSEN = ARGUMENTS | {"response"}       # below which all keys are, where they hold an object


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """Args:
        size: bytes of the decoded body.
        ratio: decoded bytes per encoded byte, once `free` decoded bytes are exceeded.
        depth: containers inside one another.
        nodes: values and keys of a request.
        answer: the same of an upstream's document.
        key: characters of a key.
    """

    size: int = 16_777_216
    ratio: int = 20
    free: int = 1_048_576
    depth: int = 64
    nodes: int = 200_000
    answer: int = 2_000_000
    key: int = 1024


LIMITS = BodyLimits()


def document(body: bytes, encoding: bytes | None = None, limits: BodyLimits = LIMITS) -> dict[str, Any]:
    """A request's body -> its JSON object.

    Args:
        encoding: the Content-Encoding as it came; identity and gzip are read.

    Raises:
        FirewallError: 415 `unsupported_encoding`; 413 `body_too_large`; 400 `invalid_encoding`, `invalid_json`,
            `duplicate_key`, `too_deep`, `too_many_nodes`, `key_too_long`, `number_out_of_range`.
    """
    return strict(plain(body, encoding, limits) if encoding or len(body) > limits.size else body, limits)


def plain(body: bytes, encoding: bytes | None, limits: BodyLimits = LIMITS) -> bytes:
    """Undoes the Content-Encoding within the limits.

    Raises:
        FirewallError: 415 `unsupported_encoding`, 413 `body_too_large`, 400 `invalid_encoding`.
    """
    if not encoding and len(body) <= limits.size:
        return body
    coding = (encoding or b"").strip().lower()
    if coding in (b"", b"identity"):
        if len(body) > limits.size:
            raise _large()
        return body
    if coding != b"gzip":
        raise FirewallError("unsupported_encoding", "Only the content encodings identity and gzip are read here.",
                            status=415, param="content-encoding")
    return inflate(body, limits)


def inflate(body: bytes, limits: BodyLimits = LIMITS) -> bytes:
    """One gzip member, decoded in steps; never holds more than the limit and one step."""
    machine, out, size = zlib.decompressobj(wbits=31), [], 0
    allowed = min(limits.size, max(limits.free, limits.ratio * len(body)))
    try:
        part = machine.decompress(body, STEP)
        while part or machine.unconsumed_tail:
            size += len(part)
            if size > allowed:
                raise _large()
            out.append(part)
            part = machine.decompress(machine.unconsumed_tail, STEP)
    except zlib.error:
        raise _broken("invalid_encoding", "The body is not valid gzip.") from None
    if not machine.eof or machine.unused_data:
        raise _broken("invalid_encoding", "The body is not exactly one gzip member.")
    return b"".join(out)


def few(tree: dict[str, Any]) -> bool:
    """Whether all keys are names of the protocols, and the containers few, so that none is deep."""
    todo: list[Any] = [tree]
    for node in todo:           # grows as it goes
        if type(node) is dict:
            if not KEYS.issuperset(node):
                return False
            node = node.values()
        for value in node:
            if type(value) in CONTAINERS:
                if len(todo) == FEW:
                    return False
                todo.append(value)
    return True


def strict(raw: bytes, limits: BodyLimits = LIMITS, *, fault: Fault = "client", fold: bool = True,
           glance: Callable[[dict[str, Any]], bool] = few) -> dict[str, Any]:
    """UTF-8 JSON -> its object.

    Args:
        fault: whose bytes these are; upstream's are answered with 502.
        fold: refuse keys of one object that differ in case only (a model's own arguments may hold `a` and `A`).
        glance: says that all keys are names of the protocols and no container is deep, or that it does not know.
    """
    most = limits.answer if fault == "upstream" else limits.nodes
    if len(raw) > most and _nodes(raw, most) > most:        # a node is at least one byte
        raise _broken("too_many_nodes", "The JSON document has too many values.", fault, 413)
    try:
        tree = orjson.loads(raw)
    except orjson.JSONDecodeError:
        raise _broken("invalid_json", "The body is not valid JSON in UTF-8.", fault) from None
    if type(tree) is not dict:
        raise _broken("invalid_json", "The JSON document must be an object.", fault)
    if (glance(tree) and limits.depth >= FEW <= limits.key and b"\n" not in raw
            and (len(raw) <= SMALL or (len(raw) <= STEP and raw.isascii()))     # else counting costs less than writing
            and orjson.dumps(tree) == raw):
        return tree
    keys, large = _keys(tree, limits.depth, fault)
    if large and _wide(raw):
        raise _broken("number_out_of_range", "A number of the JSON document is out of range.", fault)
    joined = "".join(keys)
    if len(joined) > limits.key and max(map(len, keys)) > limits.key:
        raise _broken("key_too_long", "A key of the JSON document is too long.", fault)
    if "\\" in joined or _written(raw) != len(keys):
        try:
            json.loads(raw, object_pairs_hook=_once)
        except _Twice:
            raise _broken("duplicate_key", "A key of the JSON document stands twice.", fault) from None
    if fold and not (joined.isascii() and joined == joined.lower()) and _alike(tree):
        raise _broken("duplicate_key", "Two keys of one object differ in case only.", fault)
    return tree


def _keys(tree: dict[str, Any], depth: int, fault: Fault) -> tuple[list[str], bool]:
    """All keys, and whether a number may have lost digits: an integer of more than 64 bits arrives as a float. Refuses
    containers deeper than `depth`."""
    keys: list[str] = []
    large = False
    level: list[Any] = [tree]
    deep = 0
    while level:
        deep += 1
        if deep > depth:
            raise _broken("too_deep", "The JSON document is nested too deeply.", fault)
        below: list[Any] = []
        for node in level:
            if type(node) is dict:
                keys += node
                node = node.values()
            for value in node:
                kind = type(value)
                if kind is dict or kind is list:
                    below.append(value)
                elif kind is float and not -9.2e18 < value < 9.2e18:
                    large = True
        level = below
    return keys, large


def _wide(raw: bytes) -> bool:
    """Whether an integer of more than 64 bits is written somewhere in valid JSON."""
    try:
        json.loads(raw, parse_int=_narrow)
    except _Wide:
        return True
    return False


class _Wide(ValueError):
    pass


def _narrow(digits: str) -> None:
    if len(digits) > 18 and not (len(digits) <= 20 and -1 << 63 <= int(digits) < 1 << 64):
        raise _Wide


def _written(raw: bytes) -> int:
    """Keys as written in valid JSON whose keys end in no backslash; -1 where white space may precede a colon."""
    if len(raw) < SMALL:
        if b" :" in raw or (b"\n" in raw and b"\n:" in raw) or (b"\t" in raw and b"\t:" in raw) or (
                b"\r" in raw and b"\r:" in raw):
            return -1
        return raw.count(b'":') - (raw.count(b'\\":') if b"\\" in raw else 0)
    array = np.frombuffer(raw, np.uint8)        # bytes.count of two bytes costs 1.3 ns a byte, this a quarter
    colon = np.flatnonzero(array == 58)
    before = array[colon - 1]
    return -1 if (before <= 32).any() else int(np.count_nonzero((before == 34) & (array[colon - 2] != 92)))


def _nodes(raw: bytes, limit: int) -> int:
    """Values and keys: the marks `, : { [`, exactly where that decides; above `limit` a lower bound."""
    most = sum(raw.count(mark) for mark in MARKS)
    if most <= limit:
        return most
    bare = raw.replace(b"\\\\", b"").replace(b'\\"', b"") if b"\\" in raw else raw
    strings = bare.count(b'"') // 2
    if strings > limit:
        return strings
    outside = b"".join(bare.split(b'"')[::2])
    return sum(outside.count(mark) for mark in MARKS)


class _Twice(ValueError):
    pass


def _once(pairs: list[tuple[str, Any]]) -> None:
    if len({key for key, _ in pairs}) != len(pairs):
        raise _Twice


def _alike(tree: dict[str, Any]) -> bool:
    """Whether an object holds two keys that fold to one, as a case-blind reader (Go's) takes them for the same. Names that
    somebody chose are no fields: a schema's properties, and all in a call's arguments and a function's response."""
    todo: list[tuple[Any, bool]] = [(tree, True)]
    while todo:
        node, fields = todo.pop()
        if type(node) is dict:
            if fields and len({key.casefold() for key in node}) != len(node):
                return True
            for key, value in node.items():
                if type(value) is dict:
                    if fields and key in CHOSEN and node is not tree:
                        continue
                    todo.append((value, not (fields and key in NAMES)))
                elif type(value) is list:
                    todo.append((value, True))
        else:
            todo += [(value, True) for value in node if type(value) is dict or type(value) is list]
    return False


def _large() -> FirewallError:
    return FirewallError("body_too_large", "The request body is too large.", status=413)


def _broken(code: str, public: str, fault: Fault = "client", status: int = 400) -> FirewallError:
    if fault == "upstream":
        return FirewallError("unreadable_event", "The answer of the upstream could not be read.", fault="upstream",
                             status=502, detail=f"upstream JSON: {code}")
    return FirewallError(code, public, fault=fault, status=status)
