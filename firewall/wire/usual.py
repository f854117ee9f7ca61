"""The usual whole answer of an OpenAI-shaped chat, read in one go.

Most answers that are one document are one finished choice whose message is text, with reasoning or without, and beside
it only what is inert at a glance. For these `usual` gives what `Choices.read` gives; for all others nothing.
"""

from __future__ import annotations

from typing import Any

from firewall.wire.leaves import ARGUMENTS, Leaf, passes
from firewall.wire.openai_words import FINISHED, INERT_TOP, PLACE, REASONING, SCALARS
from firewall.wire.vocabulary import KEYS

_LAST: dict[str, str] = {}      # inert field -> its value in the last answer: most say the same


def usual(document: dict[str, Any]) -> list[Leaf] | None:
    """What a new `Choices` reads in a whole answer; None where that takes a closer look. In what is read here all keys are
    names of the protocols and nothing is deep (`body.few`), `id` and `model` are inert strings or null, and choice 0, the
    only one, is finished."""
    said = None
    for key, value in document.items():
        kind = type(value)
        if kind is str:
            if _LAST.get(key) != value:
                if key not in INERT_TOP or not passes(PLACE[key], value):
                    return None
                _LAST[key] = value
        elif kind in SCALARS:
            if key not in KEYS or (key in INERT_TOP and value is not None):
                return None
        elif key == "choices" and kind is list and len(value) == 1:
            said = value[0]
        elif key != "usage" or not silent(value):
            return None
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


def silent(value: Any) -> bool:
    """Whether something is numbers under names of the protocols, or objects of such: no walk finds words in it, wherever
    it stands."""
    if type(value) is not dict:
        return type(value) in SCALARS
    for key, inner in value.items():
        if type(inner) not in SCALARS and (type(inner) is not dict or key in ARGUMENTS or not _flat(inner)):
            return False
    return KEYS.issuperset(value)


def _flat(value: dict[str, Any]) -> bool:
    return SCALARS.issuperset(map(type, value.values())) and KEYS.issuperset(value)
