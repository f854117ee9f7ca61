"""Anthropic Messages.

Blocks, as anthropic-sdk-python's types read them: a refused request is `{"type":"error",...}`; a refused answer closes
its open blocks and ends with `stop_reason: "refusal"`, the policy's message as `stop_details.explanation`, and
`message_stop`; a failure in mid-stream is `event: error`. A second `message_start` is never sent.
"""

from __future__ import annotations

from typing import Any

import orjson

from firewall.case import Message
from firewall.errors import FirewallError
from firewall.wire import usual
from firewall.wire.anthropic_words import ANSWER, BLOCK, Blocks, Seen
from firewall.wire.leaves import FILE, LINK, MEDIA, SECRET, TOKEN, Inert, Leaf, passes, trie, words
from firewall.wire.reader import reader
from firewall.wire.request import NAMED, Words, flag, inspectable, items, named, quick_message, sizes, text, turns
from firewall.wire.wire import Asked, Reader, StreamLimits, malformed

ROLES = frozenset(("user", "assistant", "system"))
_SOURCE: Inert = {"data": MEDIA, "media_type": TOKEN, "file_id": FILE, "url": LINK}
_TRIED: Inert = {
    "speed": words("standard fast"),
    "thinking.type": words("enabled disabled adaptive between_tools"),
    "thinking.display": words("summarized omitted updates full"),
    "output_config.effort": words("low medium high xhigh max"),
}
INERT: Inert = {
    "model": TOKEN,
    "service_tier": words("auto standard_only standard priority batch"),
    "inference_geo": TOKEN,
    "tool_choice.type": words("auto any tool none"),
    **_TRIED, "fallbacks.": words("default"), "fallbacks[].model": TOKEN,
    **{f"fallbacks[].{path}": shape for path, shape in _TRIED.items()},
    "cache_control.ttl": words("5m 1h"),
    "system[].cache_control.ttl": words("5m 1h"),
    "tools[].cache_control.ttl": words("5m 1h"),
    "messages[].role": ROLES,
    "mcp_servers[].authorization_token": SECRET,
    "container.skills[].type": words("anthropic custom"),
    "container.skills[].skill_id": FILE,
    "container.skills[].version": TOKEN,
    **{f"messages[].content[].{path}": shape for path, shape in BLOCK.items()},
    "messages[].content[].cache_control.ttl": words("5m 1h"),
    **{f"messages[].content[].{place}source.{path}": shape for path, shape in _SOURCE.items()   # of a block, in a tool's
       for place in ("", "content[].", "source.content[].", "content[].source.content[].")},    # result, in a document
}
_PLACE = trie(INERT)
_MESSAGE = _PLACE["messages"]["[]"]
_KNOWN = frozenset(("messages", "model", "system"))
TYPES = {400: "invalid_request_error", 401: "authentication_error", 403: "permission_error", 404: "not_found_error",
         413: "request_too_large", 429: "rate_limit_error", 529: "overloaded_error"}
_ATTEMPT = frozenset(("model", "max_tokens", "thinking", "output_config", "speed"))


def _tries(value: Any) -> bool:
    """Whether `fallbacks` are the vendor's own: few models to try where one refuses, and nothing else about them."""
    return value == "default" or (type(value) is list and 0 < len(value) <= 16 and all(
        type(attempt) is dict and _ATTEMPT.issuperset(attempt) and type(attempt.get("model")) is str for attempt in value))


class Anthropic:
    """`POST /v1/messages`; `count.py` has `/v1/messages/count_tokens`."""

    name = "anthropic-messages"
    inert = INERT
    inert_answer = ANSWER

    def ask(self, document: dict[str, Any]) -> Asked:
        again = document.get("fallbacks")
        tried = _tries(again)
        asked = inspectable({**document, "fallbacks": None} if tried else document)
        model, stream = text(document, "model"), flag(document, "stream")
        found = Words()
        system = document.get("system")
        if type(system) is str:
            found.messages.append(Message("system", system, "system"))
        elif system is not None:
            if type(system) is not list:
                raise malformed("system")
            found.each("system", system, _PLACE["system"], "system")
        said = turns(document.get("messages"), ROLES)
        found.messages += said or ()
        for i, message in enumerate(items(document, "messages") if said is None else ()):
            role, content = message.get("role"), message.get("content")
            known = type(role) is str and role in ROLES
            if len(message) == 2 and known and type(content) is str:
                found.messages.append(quick_message((role, content, f"messages.{i}.content")))
            else:
                self._blocks(found, role if known else "user", message, f"messages.{i}")
        found.rest(document, _KNOWN, _PLACE)
        if tried:
            found.each("request", again, _PLACE["fallbacks"], "fallbacks")
            for i, attempt in enumerate(again if type(again) is list else ()):
                asked += sizes(attempt, f"fallbacks.{i}.")
        if model not in NAMED and not named(model):
            found.each("request", model, TOKEN, "model")
        return Asked(model, stream, found.said(), document, tuple(found.opaque), asked)

    def _blocks(self, found: Words, role: str, message: dict[str, Any], path: str) -> None:
        """A message of blocks; what a tool brought in speaks as a tool."""
        blocks = message.get("content")
        if type(blocks) is not list:
            found.each(role, message, _MESSAGE, path)
            return
        found.each(role, {**message, "content": None}, _MESSAGE, path)
        for j, block in enumerate(blocks):
            type_ = block.get("type") if type(block) is dict else ""
            brought = type(type_) is str and type_.endswith("tool_result")
            found.each("tool" if brought else role, block, _MESSAGE["content"]["[]"], f"{path}.content.{j}")

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        return reader(Answer(asked), content_type, limits or StreamLimits())

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return envelope(error.named, kind(error), request_id)

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return envelope(message or "The request was blocked by the content policy of this service.",
                        "invalid_request_error", request_id)

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return Answer(asked).withheld(message, "msg_" + request_id)


def envelope(message: str, type_: str, request_id: str) -> bytes:
    """Anthropic's error body."""
    return orjson.dumps({"type": "error", "error": {"type": type_, "message": message},
                         "request_id": request_id or None})


def kind(error: FirewallError) -> str:
    """Anthropic's `error.type`; a guard or an upstream that fails is an `api_error`."""
    return TYPES.get(error.status, "invalid_request_error" if error.fault == "client" else "api_error")


def _event(document: dict[str, Any]) -> bytes:
    return b"event: " + document["type"].encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n"


class Answer(Blocks):
    """The answer to one request, as heard so far (a `Speech`)."""

    def again(self) -> Answer:
        return Answer(self.asked)

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        found = usual.message(document)
        if found is not None:
            self.id = document.get("id") or ""
            self.last = self.complete = True
        return found

    def drop(self, document: dict[str, Any]) -> None:
        return

    def ending(self, after: Any, message: str) -> bytes:
        seen: Seen = after or Seen()
        if seen.ended:
            return b""
        out = [] if seen.started else [_event({"type": "message_start", "message": self._composed(None, None)})]
        out += [_event({"type": "content_block_stop", "index": index}) for index in seen.open]
        if not seen.stopped:
            out.append(_event({"type": "message_delta", "delta": {
                "stop_reason": "refusal", "stop_sequence": None, "stop_details": _details(message)},
                "usage": {"output_tokens": 0}}))
        return b"".join([*out, _event({"type": "message_stop"})])

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return b"event: error\ndata: " + self.error(error) + b"\n\n"

    def error(self, error: FirewallError) -> bytes:
        return orjson.dumps({"type": "error", "error": {"type": kind(error), "message": error.public}})

    def withheld(self, message: str, id_: str = "") -> bytes:
        return orjson.dumps(self._composed("refusal", _details(message), id_))

    def _composed(self, reason: str | None, details: dict[str, Any] | None, id_: str = "") -> dict[str, Any]:
        model = self.asked.model if passes(TOKEN, self.asked.model) else ""
        return {"id": id_ or self.id or "msg_withheld", "type": "message", "role": "assistant", "model": model,
                "content": [], "stop_reason": reason, "stop_sequence": None,
                **({"stop_details": details} if details else {}), "usage": {"input_tokens": 0, "output_tokens": 0}}


def _details(message: str) -> dict[str, Any]:
    return {"type": "refusal", "category": None, "explanation": message or None}

