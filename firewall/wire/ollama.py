"""Ollama: `/api/chat` and `/api/generate`, NDJSON or one document. Streaming is the default there.

A refused answer ends with `done: true` and `done_reason: "content_filter"`; a failure is `{"error": text}`.

`context` (generate): token ids of the whole conversation. They spell what was judged, so they pass, counted as opaque,
with the line that ends the answer, which waits for a verdict on the whole. Where words were redacted they would bring
them back: they are dropped. In a request they are a prompt that nobody can read: refused.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from firewall.errors import FirewallError
from firewall.wire.leaves import MEDIA, TOKEN, Inert, Leaf, decoded, leaves, passes, trie, words
from firewall.wire.openai_words import judgeable, tokens
from firewall.wire.owners import Owners
from firewall.wire.reader import Listed, Streamed, reader
from firewall.wire.repeats import Repeats
from firewall.wire.request import ENDLESS, Words, flag, inspectable, integer, items, sizes, text
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import Asked, Reader, Size, StreamLimits, malformed, refused, unreadable

ROLES = frozenset(("system", "user", "assistant", "tool"))
INERT: Inert = {
    "model": TOKEN,
    "keep_alive": TOKEN,
    "think": words("low medium high max"),
    "format": words("json"),
    "images[]": MEDIA,
    "messages[].role": ROLES,
    "messages[].images[]": MEDIA,
    "messages[].tool_call_id": TOKEN,
    "messages[].tool_calls[].id": TOKEN,
}
ANSWER: Inert = {
    "model": TOKEN,
    "remote_model": TOKEN,
    "created_at": TOKEN,
    "done_reason": words("stop length load unload content_filter tool_calls"),
    "message.role": words("assistant"),
    "message.tool_calls[].id": TOKEN,
}
_PLACE, _ANSWER = trie(INERT), trie(ANSWER)
SCALARS = frozenset((int, float, bool, type(None)))
NAMED = {"content": "text", "response": "text", "thinking": "reasoning"}


class Ollama:
    """One endpoint of two: `ollama-chat`, `ollama-generate`."""

    inert = INERT
    inert_answer = ANSWER

    def __init__(self, chat: bool) -> None:
        self.chat = chat
        self.name = "ollama-chat" if chat else "ollama-generate"

    def ask(self, document: dict[str, Any]) -> Asked:
        asked = inspectable(document) + _predicted(document)
        model = text(document, "model")
        stream = document.get("stream") is None or flag(document, "stream")
        if document.get("context"):
            raise refused("context")
        found = Words()
        if self.chat:
            for i, message in enumerate(items(document, "messages")):
                role = message.get("role")
                known = type(role) is str and role in ROLES
                found.each(role if known else "user", message, _PLACE["messages"]["[]"], f"messages.{i}")
        for name, role in (("system", "system"), ("template", "template"), ("prompt", "user"), ("suffix", "user")):
            if type(document.get(name)) not in (str, type(None)):
                raise malformed(name)
            found.each(role, document.get(name), None, name)
        found.rest(document, frozenset(("messages", "system", "template", "prompt", "suffix")), _PLACE)
        return Asked(model, stream, found.said(), document, tuple(found.opaque), asked)

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        limits, speech = limits or StreamLimits(), Lines(asked, self.chat)
        found = reader(speech, content_type, limits, lines=True)
        speech.spells = not isinstance(found, Streamed)
        return Told(speech, limits) if isinstance(found, Listed) else found

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return orjson.dumps({"error": error.named})

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return orjson.dumps({"error": message or "The request was blocked by the content policy of this service."})

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return Lines(asked, self.chat).withheld(message)


def _predicted(document: dict[str, Any]) -> tuple[Size, ...]:
    """The sizes among the options. Zero and below is no end at all; Go reads a field's name in any case."""
    out: tuple[Size, ...] = ()
    for name, options in document.items():
        if name.casefold() == "options" and options is not None:
            if type(options) is not dict:
                raise malformed("options")
            endless = integer(options.get("num_predict")) in (-2, 0)
            out += sizes({**options, "num_predict": ENDLESS} if endless else options, "options.")
    return out


class Told(Listed):
    """NDJSON whose last line may spell the whole answer a second time."""

    def unplaced(self, raw: bytes) -> bytes:
        if not raw.strip():
            return raw
        document = self._parse(raw)
        return super().unplaced(raw if document.pop("context", None) is None else self._bytes(raw, document))


class Seen(NamedTuple):
    """What a client has seen open."""

    model: str = ""
    created_at: str = ""
    ended: bool = False


class Lines:
    """The answer to one request (a `Speech`). Tool calls come whole, in one line."""

    done: bytes | None = None
    names: frozenset[bytes] = frozenset()
    plain = False
    pending = False

    def __init__(self, asked: Asked, chat: bool) -> None:
        self.asked, self.chat = asked, chat
        self.after: Seen | None = None
        self.last = self.complete = False
        self.opaque: list[str] = []
        self.spells = True      # token ids may come: the framing can drop them where words were redacted
        self._calls = 0
        self._repeats = Repeats()
        self._owners = Owners()

    def again(self) -> Lines:
        return Lines(self.asked, self.chat)

    @property
    def state(self) -> Any:
        return self.after

    def heard(self, channel: str, text: str, number: int) -> None:
        return

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        return None

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        out: list[Leaf] = []
        copies: list[Leaf] = []
        for key, value in document.items():
            if key == "logprobs" and type(value) is list:
                found = tokens(value, "", "choice/0/logprobs", self.opaque)
                copies = [leaf for leaf in found if leaf.path == "choice/0/logprobs"]
                out += found[len(copies):]
            elif key == "message" and type(value) is dict:
                for name, inner in value.items():
                    self._field(value, name, inner, _ANSWER["message"], key, out)
            elif key == "context" and type(value) is list and all(type(number) is int for number in value):
                if value and not (self.spells and document.get("done") is True):
                    raise unreadable("token ids in the answer", "unjudgeable_field")
                self.opaque.append("context")
            else:
                self._field(document, key, value, _ANSWER, "beside", out)
        text = "choice/0/text"
        if copies or not self._repeats.alone(text):
            self._repeats.fold(text, "".join([leaf.text for leaf in out if leaf.path == text]), copies, out)
        if self.after is None:
            model, created = document.get("model"), document.get("created_at")
            self.after = Seen(model if type(model) is str and passes(TOKEN, model) else "",
                              created if type(created) is str and passes(TOKEN, created) else "")
        if document.get("done") is True or document.get("error"):
            self.last = self.complete = True
            self.after = self.after._replace(ended=True)
        return out

    def finish(self) -> list[Leaf]:
        return []

    def drop(self, document: dict[str, Any]) -> None:
        document.pop("context", None)
        document.pop("logprobs", None)

    def _field(self, holder: dict[str, Any], key: str, value: Any, place: Any, where: str, out: list[Leaf]) -> None:
        if key in KEYS and (value == "" or type(value) in SCALARS):
            return
        if key in NAMED and type(value) is str:
            out.append(Leaf(self._owners.of(f"choice/0/{NAMED[key]}", f"{where}/{key}"), value, holder, key))
        elif key == "tool_calls" and type(value) is list:
            for call in value:
                self._call(call, place, out)
        else:
            self._other(holder, key, value, place, "", out, where)

    def _call(self, call: Any, place: Any, out: list[Leaf]) -> None:
        function = call.get("function") if type(call) is dict else None
        if type(function) is not dict:
            raise unreadable("a tool call is no object")
        channel = f"choice/0/tool/{self._calls}"
        self._calls += 1
        for key, value in function.items():
            if key in ("name", "arguments") and type(value) not in SCALARS and value != "":
                said = value if type(value) is str else orjson.dumps(value).decode()
                out.append(Leaf(f"{channel}/{key}", said, function, key))
                if key == "arguments" and (inside := decoded(said)):
                    out.append(Leaf(f"{channel}/{key}/decoded", inside))
            elif key not in ("name", "arguments"):
                self._other(function, key, value, None, channel.replace("/", "."), out)
        for key, value in call.items():
            if key != "function":
                self._other(call, key, value, {"id": TOKEN}, channel.replace("/", "."), out)

    def _other(self, holder: dict[str, Any], key: str, value: Any, place: Any, path: str, out: list[Leaf],
               where: str = "call") -> None:
        for leaf in leaves({key: value}, place, path, opaque=self.opaque):
            judgeable(leaf)
            if type(value) is str and "#" not in leaf.path:
                leaf = leaf._replace(holder=holder, key=key)
            out.append(leaf._replace(path=self._owners.of(leaf.path, where)))

    def ending(self, after: Any, message: str) -> bytes:
        seen = after or Seen()
        return b"" if seen.ended else self._last(seen, "" if after else message) + b"\n"

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return self.error(error) + b"\n"

    def error(self, error: FirewallError) -> bytes:
        return orjson.dumps({"error": error.public})

    def withheld(self, message: str) -> bytes:
        return self._last(self.after or Seen(), message)

    def _last(self, seen: Seen, message: str) -> bytes:
        model = seen.model or (self.asked.model if passes(TOKEN, self.asked.model) else "")
        said: dict[str, Any] = {"message": {"role": "assistant", "content": message}} if self.chat else {
            "response": message}
        return orjson.dumps({"model": model, "created_at": seen.created_at or "1970-01-01T00:00:00Z", **said,
                             "done": True, "done_reason": "content_filter"})
