"""OpenAI Responses. Stored state is refused: what stands behind an id was never seen here.

A refused answer ends with `response.incomplete`, `incomplete_details.reason: "content_filter"`, the policy's message
as a refusal in the final output; `sequence_number` goes on. A failure is an `error` event and `response.failed`.
"""

from __future__ import annotations

from typing import Any

import orjson

from firewall.case import Message
from firewall.errors import FirewallError
from firewall.wire.leaves import DATA, FILE, LINK, MEDIA, SECRET, TOKEN, Inert, passes, trie, unplaced, words
from firewall.wire.openai_chat import BLOCKED, BREAK, CACHED, WITHHELD, envelope, kind
from firewall.wire.reader import reader
from firewall.wire.request import Words, flag, inspectable, items, text
from firewall.wire.responses_shapes import ANSWER, CHECKS, ITEM, ITEM_TYPES
from firewall.wire.responses_words import Output, Seen
from firewall.wire.wire import Asked, Reader, StreamLimits, refused

ROLES = frozenset(("system", "developer", "user", "assistant"))
PARTS = ITEM_TYPES | words("input_text input_image input_file input_audio item_reference computer_screenshot")
_PART: Inert = {
    "type": PARTS, "image_url": DATA, "file_data": DATA, "file_url": LINK, "file_id": FILE,
    "detail": words("auto low high original"), "input_audio.data": MEDIA, "input_audio.format": words("wav mp3"), **BREAK,
    "annotations[].type": PARTS, "annotations[].file_id": TOKEN, "annotations[].url": LINK,
}
INERT: Inert = {
    "model": TOKEN,
    "service_tier": words("auto default flex scale priority fast"),
    "truncation": words("auto disabled"),
    "tool_choice.type": PARTS | words("allowed_tools"),
    "reasoning.effort": words("none minimal low medium high xhigh max"),
    "reasoning.summary": words("auto concise detailed"),
    "text.verbosity": words("low medium high"),
    "prompt_cache_key": TOKEN,
    "prompt_cache_retention": words("in_memory in-memory 24h"),
    **CACHED,
    "include[]": TOKEN,
    **{f"input[].{path}": shape for path, shape in ITEM.items()},
    "input[].type": PARTS, "input[].role": ROLES,
    **{f"input[].{place}.{path}": shape for place in ("content[]", "output[]", "output") for path, shape in _PART.items()},
    "tools[].type": PARTS | words("""web_search web_search_preview web_search_2025_08_26 file_search mcp shell
        code_interpreter image_generation computer_use_preview computer local_shell apply_patch tool_search x_search
        web_search_preview_2025_03_11 programmatic_tool_calling namespace"""),
    "input[].acknowledged_safety_checks[].code": CHECKS,
    "tools[].authorization": SECRET,
    "tools[].headers.Authorization": SECRET, "tools[].headers.authorization": SECRET,
    "tools[].vector_store_ids[]": FILE,
    "tools[].input_image_mask.image_url": DATA, "tools[].input_image_mask.file_id": FILE,
    "tools[].container.type": words("auto"),
    "tools[].container.file_ids[]": FILE,
}
_PLACE = trie(INERT)
BARE = frozenset(("id", "type", "status", "role", "phase"))     # what says nothing of its own


class OpenAIResponses:
    """`POST /v1/responses`."""

    name = "openai-responses"
    inert = INERT
    inert_answer = ANSWER

    def ask(self, document: dict[str, Any]) -> Asked:
        sizes = inspectable(document)
        model, stream = text(document, "model"), flag(document, "stream")
        if document.get("prompt") is not None:
            raise refused("prompt")             # a template stored at the vendor
        found = Words()
        found.each("system", document.get("instructions"), None, "instructions")
        if type(document.get("input")) is str:
            found.messages.append(Message("user", document["input"], "input"))
        elif document.get("input") is not None:
            for i, item in enumerate(items(document, "input")):
                heard, seen = len(found.messages), len(found.opaque)
                found.each(_role(item), item, _PLACE["input"]["[]"], f"input.{i}")
                own = [m.where for m in found.messages[heard:]] + found.opaque[seen:]
                if _stored(item, any(where.startswith(f"input.{i}.content") for where in own)):
                    raise refused(f"input.{i}")
                if item.get("type") == "reasoning" and not own:
                    found.opaque.append(f"input.{i}")       # kept at the vendor: as unseen as its encrypted form
        if document.get("tool_choice") in ("auto", "none", "required"):
            skipped = frozenset(("input", "instructions", "model", "tool_choice"))
        else:
            skipped = frozenset(("input", "instructions", "model"))
        found.rest(document, skipped, _PLACE)
        if not passes(TOKEN, model):
            found.each("request", model, TOKEN, "model")
        return Asked(model, stream, found.said(), document, tuple(found.opaque), sizes)

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        limits = limits or StreamLimits()
        return reader(Answer(asked, limits.copies), content_type, limits)

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return envelope(error.public, kind(error), error.param, error.code)

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return envelope(message or BLOCKED, "invalid_request_error", None, "content_policy_violation")

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return Answer(asked).withheld(message, "resp_" + request_id)


def _stored(item: dict[str, Any], said: bool) -> bool:
    """Whether an item may stand for a stored one: `item_reference` or, as its type may be left out, anything with an id
    that is not whole without it. A message is whole with content, what has another type with any field more, and what has
    none with a role and words.

    Args:
        said: it has content of its own.
    """
    type_, role = item.get("type"), item.get("role")
    if type_ == "item_reference" or set(item) == {"id"}:
        return True
    if not item.get("id"):
        return False
    if type_ == "message":
        return not item.get("content")      # models say nothing at times: one part that is empty
    if type(type_) is str:
        return all(item[name] is None for name in item.keys() - BARE)
    return not (said and type(role) is str and role in ROLES)


def _role(item: dict[str, Any]) -> str:
    role, type_ = item.get("role"), item.get("type")
    if type(role) is str and role in ROLES:
        return role
    if type(type_) is str and type_.endswith("_output"):
        return "tool"
    return "assistant" if type(type_) is str and (type_.endswith("_call") or type_ == "reasoning") else "user"


class Answer(Output):
    """The answer to one request, as heard so far (a `Speech`)."""

    def again(self) -> Answer:
        return Answer(self.asked, copies=True)

    def drop(self, document: dict[str, Any]) -> None:
        todo: list[Any] = [document]
        while todo:
            node = todo.pop()
            if isinstance(node, dict):
                if node.get("logprobs"):
                    node["logprobs"] = []
                node = list(node.values())
            todo += [value for value in node if isinstance(value, dict | list)]
        unplaced(document)

    def ending(self, after: Any, message: str) -> bytes:
        seen: Seen = after or Seen()
        if seen.ended:
            return b""
        out, number = [], seen.sequence
        if after is None:
            number += 1
            out.append(_event("response.created", number, response=self._composed(seen, "in_progress", None)))
        return b"".join([*out, _event("response.incomplete", number + 1,
                                      response=self._composed(seen, "incomplete", message or WITHHELD))])

    def fault(self, after: Any, error: FirewallError) -> bytes:
        seen: Seen = after or Seen()
        failed = self._composed(seen, "failed", None) | {"error": {"code": "server_error", "message": error.public}}
        return _event("error", seen.sequence + 1, code=error.code, message=error.public, param=error.param) + _event(
            "response.failed", seen.sequence + 2, response=failed)

    def error(self, error: FirewallError) -> bytes:
        return envelope(error.public, kind(error), error.param, error.code)

    def withheld(self, message: str, id_: str = "") -> bytes:
        return orjson.dumps(self._composed(Seen(id=id_), "incomplete", message or WITHHELD))

    def _composed(self, seen: Seen, status: str, refusal: str | None) -> dict[str, Any]:
        """A response object; with a refusal it is incomplete because of the content filter."""
        output = [] if refusal is None else [{
            "id": "msg_withheld", "type": "message", "role": "assistant", "status": "incomplete",
            "content": [{"type": "refusal", "refusal": refusal}]}]
        return {"id": seen.id or "resp_withheld", "object": "response", "created_at": seen.created, "status": status,
                "error": None, "incomplete_details": {"reason": "content_filter"} if refusal is not None else None,
                "instructions": None, "metadata": {}, "parallel_tool_calls": True, "temperature": None, "top_p": None,
                "tool_choice": "auto", "tools": [], "output": output,
                "model": seen.model or (self.asked.model if passes(TOKEN, self.asked.model) else "")}


def _event(type_: str, number: int, **fields: Any) -> bytes:
    document = {"type": type_, "sequence_number": number, **fields}
    return b"event: " + type_.encode() + b"\ndata: " + orjson.dumps(document) + b"\n\n"
