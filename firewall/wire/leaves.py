"""One walk over the string leaves of a document: what is words, and what is inert.

The rule (DESIGN, "Wire"): allow-list what is inert, never what is text. A dialect publishes its inert paths as data, a
mapping from a path such as `choices[].finish_reason` to the *shape* its value must have to pass unseen. Every other
string leaf is words, so a vendor's new field is judged from its first day, and an inert path with an unusual value
is judged too. Keys outside the protocol's vocabulary are words somebody chose: judged. Lists of integers can spell
text: judged as the characters they are.

Iterative: depth costs no stack. Paths name places with dots, `messages.0.content`; a key that is a word is named by its
digest, `metadata.~9f2c51d0a7be...`, so that a path never repeats input and a field has one name in every event of a stream,
wherever it stands. `path#key` is the key itself, `path#ints` a list of
integers read as text, `path#decoded` what escapes or base64 inside the leaf stand for, `path#shown` a link without its
opaque tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from functools import lru_cache, partial
from hashlib import blake2b
from typing import Any, Final, Literal, NamedTuple

import orjson

from firewall.wire.sealed import HIDDEN, LEAST, Unread, media, sealed, shown, unpacked
from firewall.wire.vocabulary import KEYS

Shape = frozenset[str] | Literal["token", "base64", "encrypted", "pad", "media", "data", "link", "file", "numbers",
                                 "secret", "spoken"]
Inert = Mapping[str, Shape]
Tree = dict[str, Any]       # a trie over path steps; leaves are shapes

TOKEN: Final = "token"      # an id, a model, a time: at most 128 of the characters below
BASE64: Final = "base64"    # signatures and encrypted state, no text (`sealed.py`): opaque, and counted as such
ENCRYPTED: Final = "encrypted"      # the same, where `type` beside it says so
PAD: Final = "pad"          # random padding: at most 512 letters and digits
MEDIA: Final = "media"      # a base64 picture, sound or document: opaque, and counted as such
DATA: Final = "data"        # the same as a data: URL; any other is a link
LINK: Final = "link"        # words, but for a signed URL's tokens: opaque, and counted as such
FILE: Final = "file"        # the id of something stored at the vendor: opaque, and counted as such
SECRET: Final = "secret"    # a credential for the vendor's own use: no model and no guard may see it
SPOKEN: Final = "spoken"    # arguments of a call: numbers are words too
NUMBERS: Final = "numbers"  # a list of integers that are no text (indices); strings there are words

# Values of `type` that pass unseen wherever they stand: JSON schema's, and the parts' of all dialects.
TYPES: frozenset[str] = frozenset("""object string number integer boolean array null text function json_schema
json_object image_url input_audio file refusal custom grammar output_text input_text input_image input_file message
function_call function_call_output reasoning summary_text reasoning_text tool_use tool_result image document base64 url
thinking redacted_thinking video_url audio_url document_url ephemeral auto any tool none enabled disabled adaptive STRING
NUMBER INTEGER BOOLEAN ARRAY
OBJECT NULL""".split())

STATES: frozenset[str] = frozenset((BASE64, ENCRYPTED))
OPAQUE: frozenset[str] = frozenset((BASE64, ENCRYPTED, MEDIA, DATA, LINK, FILE))

ARGUMENTS: frozenset[str] = frozenset(("input", "args", "arguments"))

_TOKEN = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._:/@+=~-"


class Leaf(NamedTuple):
    """Words, where they stand, and the container and key that hold them (for redaction)."""

    path: str
    text: str
    holder: Any = None
    key: Any = None


# The same from a tuple of all fields: a NamedTuple's own constructor is a call into Python.
quick_leaf: Callable[[tuple[str, str, Any, Any]], Leaf] = partial(tuple.__new__, Leaf)


def words(*names: str) -> frozenset[str]:
    """A shape: one of these values. `words("stop length")` splits at white space."""
    return frozenset(word for name in names for word in name.split())


def trie(inert: Inert) -> Tree:
    """Inert paths as a tree of steps; `[]` is any position of a list. A path that ends in a dot is a string where others
    have an object: `image_url.` beside `image_url.url`."""
    root: Tree = {}
    for path, shape in inert.items():
        steps = path.replace("[]", ".[]").split(".")
        node = root
        for step in steps[:-1]:
            node = node.setdefault(step, {})
        node[steps[-1]] = shape
    return root


def passes(shape: Any, text: str, holder: Any = None) -> bool:
    """Whether a value has the shape that lets it pass unseen."""
    if type(shape) is frozenset:
        return text in shape
    if shape == TOKEN or shape == FILE:
        return len(text) <= 128 and text.isascii() and not text.encode().translate(None, _TOKEN)
    if shape == PAD:
        return len(text) <= 512 and (not text or (text.isascii() and text.isalnum()))
    if shape == BASE64 or shape == ENCRYPTED:
        return len(text) >= LEAST and (shape == BASE64 or (
            type(holder) is dict and holder.get("type") in ("reasoning.encrypted", "redacted_thinking"))) and sealed(text)
    if shape == SECRET:
        said = text.removeprefix("Bearer ").strip()
        return len(text) <= 4096 and text.isascii() and text.isprintable() and " " not in said
    if shape == MEDIA or (shape == DATA and text.startswith("data:")):
        return media(text, holder)
    return (shape == LINK or shape == DATA) and shown(text) == HIDDEN


def leaves(value: Any, node: Any = None, path: str = "", holder: Any = None, key: Any = None,
           opaque: list[str] | None = None) -> list[Leaf]:
    """All words under `value`, in document order.

    Args:
        node: the place of `value` in the trie of inert paths, or None.
        path: its name.
        holder, key: what holds it.
        opaque: paths that passed uninspected (base64) are appended here.

    Raises:
        TypeError: something under `value` is of no type that a JSON parser makes.
    """
    out: list[Leaf] = []
    todo: list[tuple[Any, Any, str, Any, Any]] = [(value, node, path, holder, key)]
    while todo:
        value, node, path, holder, key = todo.pop()
        kind = type(value)
        if kind is str:
            if not value:
                continue
            if node is not None:
                if type(node) is dict:
                    node = node.get("")
                fits = passes(node, value, holder)
                if type(opaque) is Unread and type(node) is str and node in STATES:
                    said = opaque.words(path, value, fits)
                    out += [Leaf(path, text) for text in said[:-1]]
                    if not said:
                        continue
                elif fits:
                    if type(node) is str and node in OPAQUE and opaque is not None:
                        opaque.append(path)
                    continue
            if key == "type" and value in TYPES:
                continue
            if node is None:
                out.append(Leaf(path, value, holder, key))
                continue
            if (node == LINK or node == DATA) and not value.startswith("data:") and (text := shown(value)) != value:
                out.append(Leaf(path + "#shown", text))
                if opaque is not None:
                    opaque.append(path)
                continue
            out.append(Leaf(path, value, holder, key))
            if (node == MEDIA or node == DATA) and (text := unpacked(value, holder)):
                out.append(Leaf(path + "#decoded", text))
            elif (node == BASE64 or node == ENCRYPTED) and (text := unpacked(value, None)):
                out.append(Leaf(path + "#decoded", text))
        elif kind is dict:
            under: Tree = node if type(node) is dict else {}
            step = path + "." if path else ""
            fresh: list[tuple[Any, Any, str, Any, Any]] = []
            for name, inner in value.items():
                inside = SPOKEN if node == SPOKEN or (name in ARGUMENTS and type(inner) is dict) else under.get(name)
                if name in KEYS or (name in under and name.isalpha()):      # a header's name is a twin of one of `KEYS`
                    if inside == SPOKEN or type(inner) not in _SILENT:
                        fresh.append((inner, inside, step + name, value, name))
                    continue
                where = step + stamp(name)
                if not (name.isascii() and name.isdigit() and len(name) < 12):
                    fresh.append((_Key(name), None, where + "#key", value, name))
                fresh.append((inner, inside, where, value, name))
            fresh.reverse()
            todo += fresh
        elif kind is list:
            below = node.get("[]") if type(node) is dict else SPOKEN if node == SPOKEN else None
            if value and all(type(item) is int for item in value):
                text = spelt(value) or ("\ufffd" if tokenish(path, key) else "")
                if text and below != NUMBERS:
                    out.append(Leaf(path + "#ints", text, holder, key))
                if below != SPOKEN:
                    continue
            step = path + "." if path else ""
            todo += [(value[i], below, f"{step}{i}", value, i) for i in range(len(value) - 1, -1, -1)]
        elif node == SPOKEN and (kind is int or kind is float):
            out.append(Leaf(path, str(value), holder, key))
        elif kind is _Key:
            if value.name:
                out.append(Leaf(path, value.name, holder, key))
        elif kind not in _SILENT:       # never silence: the words of what is no JSON would leave unjudged
            raise TypeError(f"{kind.__name__} is no JSON")
    return out


def inert(place: Tree, key: str, value: Any) -> bool:
    """Whether a field at `place` is seen without a walk to pass: `leaves` finds no words in it, and nothing opaque. Where
    numbers are words (`SPOKEN`) nobody may ask."""
    if key not in KEYS:
        return False
    if type(value) is str:
        shape = place.get(key)
        return not value or ((type(shape) is frozenset or shape == TOKEN) and passes(shape, value))
    return type(value) in _SILENT or value == []


def stamp(name: str) -> str:
    """What a path calls a key that is no protocol word: 128 bits, so that nobody finds two with one name."""
    return _stamp(name) if len(name) <= 64 else _stamp.__wrapped__(name)


@lru_cache(4096)        # the properties of a tool come with every request
def _stamp(name: str) -> str:
    return "~" + blake2b(name.encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()


_SILENT = frozenset((int, float, bool, type(None)))


class _Key:
    __slots__ = ("name",)

    def __init__(self, name: str) -> None:
        self.name = name


def tokenish(path: str, key: Any) -> bool:
    """Whether a list of integers is token ids, by its name."""
    name = f"{path.rpartition('.')[2]} {key}"
    return "token_id" in name or key in ("tokens", "context", "ids", "input_ids")


def spelt(numbers: list[int]) -> str:
    """The text a list of integers could spell: UTF-8 bytes, else code points. Empty where it cannot be text."""
    if all(0 <= number < 256 for number in numbers):
        text = bytes(numbers).decode("utf-8", "replace")
    elif all(0 <= number < 0x110000 and not 0xD800 <= number < 0xE000 for number in numbers):
        text = "".join(map(chr, numbers))
    else:
        return ""
    return text if any(char >= " " for char in text) else ""


def decoded(text: str, rounds: int = 2) -> str:
    """The words inside JSON text whose escapes hide them (`\\u007a`, JSON in JSON); empty where nothing is hidden.

    All strings and keys of the document, one a line; of text that is no JSON, the text with its escapes undone.
    """
    if "\\" not in text:
        return ""
    out = [text]
    for _ in range(rounds):
        if not any("\\" in line for line in out):
            break
        out = [word for line in out for word in (_undone(line) if "\\" in line else [line])]
    joined = "\n".join(out)
    return joined if joined != text else ""


def _undone(text: str) -> list[str]:
    try:
        document = orjson.loads(text)
    except orjson.JSONDecodeError:
        return [_unescaped(text)]
    if isinstance(document, str):
        return [document]
    found = []
    todo = [document]
    while todo:
        node = todo.pop()
        if isinstance(node, str):
            found.append(node)
        elif isinstance(node, dict):
            todo += [part for pair in node.items() for part in pair][::-1]
        elif isinstance(node, list):
            todo += node[::-1]
        elif node is not None:
            found.append(str(node))
    return found


def _unescaped(text: str) -> str:
    """JSON escapes undone in text that is no JSON; halves of surrogate pairs become U+FFFD."""
    out, at = [], 0
    simple = {"n": "\n", "t": "\t", "r": "\r", "b": "\b", "f": "\f"}
    while (slash := text.find("\\", at)) >= 0:
        out.append(text[at:slash])
        mark = text[slash + 1:slash + 2]
        digits = text[slash + 2:slash + 6]
        if mark == "u" and len(digits) == 4 and all(char in "0123456789abcdefABCDEF" for char in digits):
            out.append(chr(int(digits, 16)))
            at = slash + 6
        else:
            out.append(simple.get(mark, mark))
            at = slash + 2
    out.append(text[at:])
    return "".join(out).encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def resolve(document: Any, path: str, stamps: dict[int, dict[str, str]]) -> tuple[Any, Any]:
    """A path of this module -> (container, key) in a document of the same form.

    Args:
        stamps: id of an object -> its keys by stamp; filled here, so that many paths name each object's keys once. It
            belongs to one document, whose objects stay.

    Raises:
        LookupError, TypeError, ValueError: there is no such place.
    """
    holder: Any = None
    key: Any = None
    node = document
    for step in path.split("."):
        holder = node
        if type(node) is list:
            key = int(step)
        elif step.startswith("~"):
            if id(node) not in stamps:
                stamps[id(node)] = {stamp(name): name for name in node if name not in KEYS}
            key = stamps[id(node)][step]
        else:
            key = step
        node = node[key]
    return holder, key


def grouped(found: Iterable[Leaf]) -> str:
    """Leaves of one thing (a tool, a schema) as one text, a leaf a line."""
    return "\n".join(leaf.text for leaf in found)


PLACES = frozenset(("start_index", "end_index", "startIndex", "endIndex"))
PLACED = frozenset(("annotations", "groundingSupports", "grounding_supports", "citationSources"))


def unplaced(document: Any) -> None:
    """Removes annotations that point into the answer's words by character offsets: words were replaced, and an offset
    that is off by some marks the wrong ones. What points elsewhere (a source document, a list) stays."""
    todo: list[Any] = [document]
    while todo:
        node = todo.pop()
        if isinstance(node, dict):
            for key, value in node.items():
                if key in PLACED and type(value) is list:
                    node[key] = [entry for entry in value if not placed(entry)]
            node = list(node.values())
        todo += [value for value in node if type(value) is dict or type(value) is list]


def placed(entry: Any) -> bool:
    """Whether an annotation points into words by character offsets."""
    return type(entry) is dict and not (PLACES.isdisjoint(entry) and all(
        type(inner) is not dict or PLACES.isdisjoint(inner) for inner in entry.values()))
