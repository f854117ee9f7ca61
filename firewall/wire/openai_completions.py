"""OpenAI completions (legacy), as vLLM and others still serve them: prompts in, `choices[].text` out."""

from __future__ import annotations

from typing import Any

import orjson

from firewall.case import Message
from firewall.wire.leaves import TOKEN, Inert, passes, trie, words
from firewall.wire.openai_chat import BLOCKED, WITHHELD, Chat, Seen, envelope, kind
from firewall.wire.openai_words import ANSWER
from firewall.wire.reader import reader
from firewall.wire.request import Words, flag, inspectable, text
from firewall.wire.wire import Asked, FirewallError, Reader, StreamLimits, malformed, refused

INERT: Inert = {
    "model": TOKEN,
    "service_tier": words("auto default flex scale priority"),
}
_PLACE = trie(INERT)
CHOICES = 512       # answers that one request may ask for: what is open of them is kept with every frame


class OpenAICompletions:
    """`POST /v1/completions`."""

    name = "openai-completions"
    inert = INERT
    inert_answer = ANSWER

    def ask(self, document: dict[str, Any]) -> Asked:
        """Raises FirewallError: prompts of token ids are refused, a guard cannot read them; more than may be answered."""
        sizes = inspectable(document)
        model, stream = text(document, "model"), flag(document, "stream")
        found = Words()
        prompt = document.get("prompt")
        if type(prompt) is str:
            found.messages.append(Message("user", prompt, "prompt"))
        elif type(prompt) is list and all(type(part) is str for part in prompt):
            found.messages += [Message("user", part, f"prompt.{i}") for i, part in enumerate(prompt)]
            if _choices(document) > CHOICES:
                raise FirewallError("invalid_field", "These are more prompts than the firewall allows.", param="prompt")
        elif prompt is not None:
            raise refused("prompt") if type(prompt) is list else malformed("prompt")
        found.rest(document, frozenset(("prompt", "model")), _PLACE)
        if not passes(TOKEN, model):
            found.each("request", model, TOKEN, "model")
        return Asked(model, stream, found.said(), document, tuple(found.opaque), sizes)

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        return reader(Completion(asked), content_type, limits or StreamLimits())

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return envelope(error.public, kind(error), error.param, error.code)

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return envelope(message or BLOCKED, "invalid_request_error", None, "content_policy_violation")

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return Completion(asked).withheld(message, "cmpl-" + request_id)


def _choices(document: dict[str, Any]) -> int:
    """How many answers a request asks for: `n` to each prompt."""
    number, prompt = document.get("n"), document.get("prompt")
    return max(1, number if type(number) is int else 1) * max(1, len(prompt) if type(prompt) is list else 1)


class Completion(Chat):
    """The answer to one completion request. It has no refusal field: the policy's message stands in no text."""

    object_ = "text_completion"

    def expected(self) -> int:
        return _choices(self.asked.document)

    def withheld(self, message: str, id_: str = "") -> bytes:
        model = self.asked.model if passes(TOKEN, self.asked.model) else ""
        return orjson.dumps({
            "id": id_ or self._id(Seen()), "object": self.object_, "created": 0, "model": model,
            "choices": [{"index": i, "text": message or WITHHELD, "logprobs": None, "finish_reason": "content_filter"}
                        for i in range(self.choices.expected)],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}})

    def _chunk(self, seen: Seen, index: int, delta: dict[str, Any], reason: str | None) -> bytes:
        model = seen.model or (self.asked.model if passes(TOKEN, self.asked.model) else "")
        if reason is None:
            return b""
        return b"data: " + orjson.dumps({
            "id": self._id(seen), "object": self.object_, "created": seen.created, "model": model,
            "choices": [{"index": index, "text": "", "logprobs": None, "finish_reason": reason}]}) + b"\n\n"

    def _id(self, seen: Seen) -> str:
        return seen.id or "cmpl-withheld"
