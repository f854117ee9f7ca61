"""Lists of models, as `GET` answers them: OpenAI and all who copy it (a few with a bare array), Anthropic, Gemini, Ollama.

A name that looks like a name is inert, as `model` is in every answer; descriptions, display names and whatever a vendor
adds are words and are judged like any answer. A list that was stopped is an empty list, a model that was stopped is its
bare name: both parse in the vendors' SDKs.
"""

from __future__ import annotations

from typing import Any

import orjson

from firewall.errors import FirewallError
from firewall.wire.leaves import TOKEN, Inert, Leaf, Tree, passes, trie, words
from firewall.wire.openai_words import generic
from firewall.wire.reader import Whole, reader
from firewall.wire.speech import Array
from firewall.wire.wire import Asked, Reader, StreamLimits, Wire, unreadable

KINDS = words("list model")
_ONE: Inert = {
    "id": TOKEN, "object": KINDS, "type": KINDS, "owned_by": TOKEN, "created_at": TOKEN,          # OpenAI, Anthropic
    "name": TOKEN, "version": TOKEN, "baseModelId": TOKEN, "supportedGenerationMethods[]": TOKEN,       # Gemini
    "model": TOKEN, "modified_at": TOKEN, "digest": TOKEN, "details.parent_model": TOKEN,               # Ollama
    "details.format": TOKEN, "details.family": TOKEN, "details.families[]": TOKEN, "details.parameter_size": TOKEN,
    "details.quantization_level": TOKEN,
}
ANSWER: Inert = {**_ONE, "first_id": TOKEN, "last_id": TOKEN, "nextPageToken": TOKEN,
                 **{f"{place}[].{name}": shape for place in ("data", "models") for name, shape in _ONE.items()}}
_PLACE = trie(ANSWER)
EMPTY: dict[str, dict[str, Any]] = {
    "openai": {"object": "list", "data": []},
    "anthropic": {"data": [], "has_more": False, "first_id": None, "last_id": None},
    "gemini": {"models": []}, "ollama": {"models": []}}


class Models:
    """`GET` of one family's models. `wire`: whose error shape to speak."""

    def __init__(self, family: str, wire: Wire) -> None:
        self.family, self.wire = family, wire
        self.name = f"{family}-models"

    def ask(self, document: dict[str, Any]) -> Asked:
        """A `GET` says nothing but its path."""
        return Asked("", False, (), document)

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        return document(Names(self, asked, _PLACE), content_type, limits)

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return self.wire.error(error, request_id)

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return self.wire.blocked(message, rules, request_id)

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        if not asked.model:
            return orjson.dumps(EMPTY[self.family])
        name = asked.model if passes(TOKEN, asked.model) else ""
        return orjson.dumps({
            "openai": {"id": name, "object": "model", "created": 0, "owned_by": "withheld"},
            "anthropic": {"type": "model", "id": name, "display_name": name, "created_at": "1970-01-01T00:00:00Z"},
        }.get(self.family, {"name": f"models/{name}"}))


def document(speech: Names, content_type: bytes, limits: StreamLimits | None) -> Reader:
    """The reader of an answer that is never a stream. Raises FirewallError (upstream) where it is one."""
    found = reader(speech, content_type, limits or StreamLimits())
    if not isinstance(found, Whole):
        raise unreadable("what is no stream came as one", "unreadable_content_type")
    return found


class Names:
    """One such answer (a `Speech`). `place`: where its inert paths are."""

    done: bytes | None = None
    names: frozenset[bytes] = frozenset()
    plain = pending = False

    def __init__(self, wire: Wire, asked: Asked, place: Tree) -> None:
        self.wire, self.asked, self.place = wire, asked, place
        self.after: Any = None
        self.last = self.complete = False
        self.opaque: list[str] = []

    @property
    def state(self) -> Any:
        return self.after

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        return None

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        if not isinstance(document, Array):
            return generic(document, self.place, "", None, None, self.opaque)
        if "data" not in self.place:
            raise unreadable("the answer is no object")
        return generic(document["[]"], self.place["data"], "", None, None, self.opaque)

    def finish(self) -> list[Leaf]:
        return []

    def heard(self, channel: str, text: str, number: int) -> None:
        return

    def again(self) -> Names:
        return Names(self.wire, self.asked, self.place)

    def drop(self, document: dict[str, Any]) -> None:
        return

    def ending(self, after: Any, message: str) -> bytes:
        return self.withheld(message)

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return self.error(error)

    def withheld(self, message: str) -> bytes:
        return self.wire.withheld(self.asked, message, "")

    def error(self, error: FirewallError) -> bytes:
        return self.wire.error(error, "")
