"""The usual whole answer, read in one go.

Most answers that are one document are one finished choice whose message is text, with reasoning or without, or one block
of text, and beside it only what is inert at a glance. For these a function here gives what the dialect's general reading
gives, for all others None. In what is read here all keys are names of the protocols and nothing is deep (`body.strict`).
"""

from __future__ import annotations

from typing import Any

from firewall.wire import anthropic_words
from firewall.wire.leaves import ARGUMENTS, TOKEN, Leaf, Tree, passes, quick_leaf
from firewall.wire.openai_words import FINISHED, INERT_TOP, PLACE, REASONING, SCALARS
from firewall.wire.vocabulary import KEYS

_MESSAGE = anthropic_words.PLACE["message"]
INERT_MESSAGE = frozenset(("id", "type", "role", "model", "stop_reason"))
_USAGE: Tree = {}       # where OpenAI's has inert strings
# See `_alone`; most answers say the same.
_LAST: dict[str, str] = {}
_LAST_MESSAGE: dict[str, str] = {}
# Answers that were read, without what differs from one to the next: an answer and its block, or its choice and its message.
_VARIES = dict.fromkeys(("id", "created", "choices", "usage"))
_VARIES_MESSAGE = dict.fromkeys(("id", "content", "usage"))
_READ: list[tuple[dict[str, Any], ...]] = []
MANY = 8                # of them


def choice(document: dict[str, Any]) -> list[Leaf] | None:
    """What a new `Choices` (OpenAI) reads. Choice 0, the only one, is finished; `id` and `model` are inert or null.

    Each field is judged by itself, and equal ones alike (but for an index that is false or 0.0): of what equals an answer
    that was read, but for some fields, only these are looked at."""
    try:
        [said] = document["choices"]
        message = said["message"]
        text = message["content"]
        rest = {**document, **_VARIES}, {**said, "message": None}, {**message, "content": None}
    except (LookupError, TypeError, ValueError):
        return _choice(document)
    known, name, usage = rest in _READ, document.get("id"), document.get("usage")
    if (known and type(text) is str and text and type(said["index"]) is int and type(document.get("created")) in SCALARS
            and (name == _LAST.get("id") or (type(name) is str and passes(TOKEN, name)))
            and ((type(usage) is dict and SCALARS.issuperset(map(type, usage.values())) and KEYS.issuperset(usage))
                 or silent(usage, _USAGE))):        # the former is most of the latter, without a call
        return [quick_leaf(("choice/0/text", text, message, "content"))]
    found = _choice(document)
    if not known and found is not None and len(found) == 1 and found[0].key == "content":
        _keep(rest)
    return found


def _keep(rest: tuple[dict[str, Any], ...]) -> None:
    _READ[MANY - 1:] = []
    _READ.insert(0, rest)


def _choice(document: dict[str, Any]) -> list[Leaf] | None:
    """The same, field by field."""
    said = _alone(document, "choices", INERT_TOP, PLACE, _LAST, _USAGE)
    if type(said) is not dict or type(said.get("index")) is not int or said["index"]:
        return None
    message = None
    ended = False
    for key, value in said.items():
        if key == "message" and type(value) is dict:
            message = value
        elif key == "finish_reason" and type(value) is str and value in FINISHED:
            ended = True
        elif type(value) not in SCALARS or key not in KEYS:
            return None
    if message is None or not ended:
        return None
    text = thought = None
    for key, value in message.items():
        if key == "content" and type(value) is str and value:
            text = Leaf("choice/0/text", value, message, key)
        elif key in REASONING and type(value) is str and value:
            if thought is not None:
                return None
            thought = Leaf("choice/0/reasoning", value, message, key)
        elif not (key == "role" and value == "assistant") and not (
                key in KEYS and (type(value) in SCALARS or value == "" or value == [])):
            return None
    return [leaf for leaf in (text, thought) if leaf is not None]


def message(document: dict[str, Any]) -> list[Leaf] | None:
    """What new `Blocks` (Anthropic) read. The `id` is inert or null. Answers are known as those of `choice` are."""
    try:
        [said] = document["content"]
        text = said["text"]
        rest = {**document, **_VARIES_MESSAGE}, {**said, "text": None}
    except (LookupError, TypeError, ValueError):
        return _message(document)
    known, name = rest in _READ, document.get("id")
    if (known and type(text) is str and text and (name == _LAST_MESSAGE.get("id") or (
            type(name) is str and passes(TOKEN, name))) and silent(document.get("usage"), _MESSAGE["usage"])):
        return [quick_leaf(("block/0/text", text, said, "text"))]
    found = _message(document)
    if found and not known:
        _keep(rest)
    return found


def _message(document: dict[str, Any]) -> list[Leaf] | None:
    """The same, field by field."""
    said = _alone(document, "content", INERT_MESSAGE, _MESSAGE, _LAST_MESSAGE, _MESSAGE["usage"])
    if type(said) is not dict or document.get("type") != "message":
        return None
    text = None
    for key, value in said.items():
        if key == "text" and type(value) is str and value:
            text = Leaf("block/0/text", value, said, key)
        elif not (key == "type" and value == "text") and not (key in KEYS and (type(value) in SCALARS or value == "")):
            return None
    return [text] if text is not None else []


def _alone(document: dict[str, Any], name: str, inert: frozenset[str], place: Tree, last: dict[str, str],
           usage: Tree) -> Any:
    """The one item of the list `name`, where all beside it is inert at a glance; else None. `last`: inert field -> its
    value in the last answer."""
    said = None
    for key, value in document.items():
        kind = type(value)
        if kind is str:
            if last.get(key) != value:
                if key not in inert or not passes(place[key], value):
                    return None
                last[key] = value
        elif kind in SCALARS:
            if key not in KEYS or (key in inert and value is not None):
                return None
        elif key == name and kind is list and len(value) == 1:
            said = value[0]
        elif key != "usage" or not silent(value, usage):
            return None
    return said


def silent(value: Any, place: Tree) -> bool:
    """Whether something is numbers under names of the protocols, strings that are inert at that place, or objects of
    numbers: no walk finds words in it."""
    if type(value) is not dict:
        return type(value) in SCALARS
    for key, inner in value.items():
        kind = type(inner)
        if kind in SCALARS:
            continue
        if kind is dict:
            if key in ARGUMENTS or not SCALARS.issuperset(map(type, inner.values())) or not KEYS.issuperset(inner):
                return False
        elif kind is not str or not passes(place.get(key), inner):
            return False
    return KEYS.issuperset(value)
