"""OpenAI chat completions, and everybody who speaks them: vLLM, DeepSeek, Groq, Mistral, Azure, xAI, Perplexity...

Blocks, as openai-python's types read them: a refused request is an error envelope; a refused answer ends with the legal
`finish_reason: "content_filter"`, the policy's message as `refusal`, then `[DONE]`; a failure in mid-stream is
`data: {"error": ...}`, which the SDK raises as APIError.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import orjson

from firewall.errors import FirewallError
from firewall.wire import usual
from firewall.wire.leaves import DATA, FILE, MEDIA, TOKEN, Inert, Leaf, passes, trie, unplaced, words
from firewall.wire.openai_words import ANSWER, STATE, Choices
from firewall.wire.reader import reader
from firewall.wire.request import NAMED, Words, flag, inspectable, items, named, quick_message, text, turns
from firewall.wire.wire import Asked, Reader, StreamLimits, refused

ROLES = frozenset(("system", "developer", "user", "assistant", "tool", "function"))

CACHED: Inert = {"prompt_cache_options.mode": words("implicit explicit"), "prompt_cache_options.ttl": words("30m 12h")}
BREAK: Inert = {"prompt_cache_breakpoint.mode": words("explicit"), "prompt_cache_breakpoint.ttl": words("30m 12h")}
INERT: Inert = {
    "model": TOKEN,
    "messages[].role": ROLES,
    "messages[].tool_call_id": TOKEN,
    "messages[].tool_calls[].id": TOKEN,
    **{f"messages[].{path}": shape for path, shape in STATE.items()},
    "messages[].content[].image_url.url": DATA,
    "messages[].content[].image_url.detail": words("auto low high"),
    "messages[].content[].input_audio.data": MEDIA,
    "messages[].content[].input_audio.format": words("wav mp3 flac opus pcm16"),
    "messages[].content[].video_url.url": DATA,        # vLLM
    "messages[].content[].audio_url.url": DATA,
    "messages[].content[].file.file_data": DATA,
    "messages[].content[].file.file_id": FILE,
    "messages[].content[].cache_control.ttl": words("5m 1h"),
    "service_tier": words("auto default flex scale priority fast standard_only"),
    "reasoning_effort": words("none minimal low medium high xhigh max auto default"),
    "reasoning.effort": words("none minimal low medium high xhigh max auto default"),
    "verbosity": words("low medium high"),
    "tool_choice": words("none auto required any"),
    "function_call": words("none auto"),
    "prompt_cache_key": TOKEN,
    "prompt_cache_retention": words("in_memory 24h"),
    **CACHED,
    **{f"messages[].content[].{path}": shape for path, shape in BREAK.items()},
    "moderation.model": TOKEN,
    "moderation.policy.input.mode": words("score block"),
    "moderation.policy.output.mode": words("score block"),
    "modalities[]": words("text"),
    "web_search_options.search_context_size": words("low medium high"),
}
_PLACE = trie(INERT)
_MESSAGE = _PLACE["messages"]["[]"]
# Mistral: strings where others have objects.
FLAT: Inert = {"messages[].content[].image_url": DATA, "messages[].content[].document_url": DATA,
               "messages[].content[].input_audio": MEDIA}
_FLAT = trie({**{path: shape for path, shape in INERT.items() if path.rpartition(".")[0] not in FLAT},
              **FLAT})["messages"]["[]"]
_KNOWN = frozenset(("messages", "model"))
_SPEECH = frozenset(("audio", "modalities"))
_NAMES = [path.rpartition(".")[2] for path in FLAT]


class OpenAIChat:
    """`POST /v1/chat/completions`."""

    name = "openai-chat"
    inert = {**INERT, **FLAT}
    inert_answer = ANSWER

    def ask(self, document: dict[str, Any]) -> Asked:
        sizes = inspectable(document)
        model, stream = text(document, "model"), "stream" in document and flag(document, "stream")
        if not _SPEECH.isdisjoint(document):
            spoken = document.get("modalities")
            if document.get("audio") is not None or (type(spoken) is list and "audio" in spoken):
                raise refused("modalities")         # speech cannot be judged before it is heard
        said = turns(document.get("messages"), ROLES)
        if said and _KNOWN.issuperset(document) and (model in NAMED or named(model)):
            return Asked(model, stream, said, document)         # a usual request: all its words are said
        found = Words()
        found.messages += said or ()
        for i, message in enumerate(items(document, "messages") if said is None else ()):
            role, content = message.get("role"), message.get("content")
            if len(message) == 2 and type(content) is str and type(role) is str and role in ROLES:
                found.messages.append(quick_message((role, content, f"messages.{i}.content")))
            else:
                place = _FLAT if type(content) is list and any(map(_flat, content)) else _MESSAGE
                found.each(role if type(role) is str and role in ROLES else "user", message, place, f"messages.{i}")
        found.rest(document, _KNOWN, _PLACE)
        if model not in NAMED and not named(model):
            found.each("request", model, _PLACE["model"], "model")
        return Asked(model, stream, found.said(), document, tuple(found.opaque), sizes)

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits | None = None) -> Reader:
        return reader(Chat(asked), content_type, limits or StreamLimits())

    def error(self, error: FirewallError, request_id: str) -> bytes:
        return envelope(error.public, kind(error), error.param, error.code)

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        return envelope(message or BLOCKED, "invalid_request_error", None, "content_policy_violation")

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        return Chat(asked).withheld(message, "chatcmpl-" + request_id)


def _flat(part: Any) -> bool:
    """Whether a part has a string where others have an object."""
    return type(part) is dict and any(type(part.get(name)) is str for name in _NAMES)


BLOCKED = "The request was blocked by the content policy of this service."


def envelope(message: str, type_: str, param: str | None, code: str) -> bytes:
    """OpenAI's error body (openai-python `error_object.py`)."""
    return orjson.dumps({"error": {"message": message, "type": type_, "param": param, "code": code}})


def kind(error: FirewallError) -> str:
    """OpenAI's `error.type`."""
    if error.status == 429:
        return "rate_limit_error"
    return "invalid_request_error" if error.fault == "client" or error.status < 500 else "server_error"


class Seen(NamedTuple):
    """What a client has seen open."""

    id: str = ""
    model: str = ""
    created: int = 0
    open: tuple[int, ...] = ()
    closed: tuple[int, ...] = ()
    ended: bool = False


# See `frame.quick_frame`.
quick_seen: Callable[[tuple[str, str, int, tuple[int, ...], tuple[int, ...], bool]], Seen] = partial(tuple.__new__, Seen)


class Chat:
    """The answer to one chat request, as heard so far (a `Speech`)."""

    done: bytes | None = b"[DONE]"
    names: frozenset[bytes] = frozenset((b"message", b"completion", b"chunk", b"done", b"error"))
    object_ = "chat.completion"

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.after: Seen | None = None
        self.last = self.complete = False
        self._choices: Choices | None = None

    @property
    def choices(self) -> Choices:
        """Made when an answer is not a `usual` one."""
        if self._choices is None:
            self._choices = Choices(self.expected())
        return self._choices

    def expected(self) -> int:
        """How many choices the client asked for."""
        number = self.asked.document.get("n")
        return number if type(number) is int else 1

    @property
    def plain(self) -> bool:
        choices = self.choices
        return choices.plain and not choices.loose

    @property
    def pending(self) -> bool:
        return self._choices is not None and bool(self._choices.calling)

    @property
    def opaque(self) -> list[str]:
        return [] if self._choices is None else self._choices.opaque

    @property
    def state(self) -> Any:
        return self.after

    def heard(self, channel: str, text: str, number: int) -> None:
        self.choices.heard(channel, text)

    def again(self) -> Chat:
        other = type(self)(self.asked)
        other.choices.copies = True
        return other

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        found = usual.choice(document)
        if found is None or ("n" in self.asked.document and self.expected() > 1):
            return None
        self.after = quick_seen((document.get("id") or "", document.get("model") or "", _created(document), (), (0,), True))
        self.last = self.complete = True
        return found

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        choices = self.choices
        found = choices.read(document)
        seen = self.after
        if seen is None or seen.open != choices.open or seen.closed != choices.closed:
            if seen is None or not seen.id:
                name, model = document.get("id"), document.get("model")
                seen = Seen(name if type(name) is str and passes(TOKEN, name) else "",
                            model if type(model) is str and passes(TOKEN, model) else "",
                            _created(document))
            self.after = seen._replace(open=choices.open, closed=choices.closed)
            if len(choices.closed) >= choices.expected and not choices.open:
                self.last = self.complete = True
        if "error" in document and document["error"]:
            self.last = self.complete = True        # in-band error: nothing follows it
        return found

    def finish(self) -> list[Leaf]:
        if self.complete and self.after is not None and not self.after.ended:
            self.after = Seen(*self.after[:-1], ended=True)
        return [] if self._choices is None else self._choices.finish()

    def drop(self, document: dict[str, Any]) -> None:
        for choice in document.get("choices") or ():
            if "logprobs" in choice:
                choice["logprobs"] = None
        unplaced(document)

    def ending(self, after: Any, message: str) -> bytes:
        seen = after or Seen()
        if seen.ended:
            return b""
        out = []
        for index in range(max(self.choices.expected, *(i + 1 for i in (*seen.open, *seen.closed, 0)))):
            if index in seen.closed:
                continue
            delta: dict[str, Any] = {} if index in seen.open else {"role": "assistant", "content": None}
            if message or delta:
                out.append(self._chunk(seen, index, delta | ({"refusal": message} if message else {}), None))
            out.append(self._chunk(seen, index, {}, "content_filter"))
        return b"".join([*out, b"data: [DONE]\n\n"])

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return b"data: " + self.error(error) + b"\n\ndata: [DONE]\n\n"

    def error(self, error: FirewallError) -> bytes:
        return envelope(error.public, kind(error), error.param, error.code)

    def withheld(self, message: str, id_: str = "") -> bytes:
        """A chat completion that says the policy's message as its refusal."""
        return orjson.dumps({
            "id": id_ or self._id(Seen()), "object": self.object_, "created": 0, "model": _model(self.asked),
            "choices": [{"index": i, "message": {"role": "assistant", "content": None, "refusal": message or WITHHELD},
                         "logprobs": None, "finish_reason": "content_filter"} for i in range(self.choices.expected)],
            "usage": {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}})

    def _chunk(self, seen: Seen, index: int, delta: dict[str, Any], reason: str | None) -> bytes:
        return b"data: " + orjson.dumps({
            "id": self._id(seen), "object": self.object_ + ".chunk", "created": seen.created,
            "model": seen.model or _model(self.asked),
            "choices": [{"index": index, "delta": delta, "finish_reason": reason}]}) + b"\n\n"

    def _id(self, seen: Seen) -> str:
        return seen.id or "chatcmpl-withheld"


def _created(document: dict[str, Any]) -> int:
    created = document.get("created")
    return created if type(created) is int else 0


WITHHELD = "The answer was withheld by the content policy of this service."


def _model(asked: Asked) -> str:
    return asked.model if passes(TOKEN, asked.model) else ""
