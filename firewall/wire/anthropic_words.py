"""Where the words are in an answer of the Anthropic Messages API, and what is open.

Channels: `block/2/text`, `block/2/thinking`, `block/2/input` and `block/2/name` of a tool use,
`block/2/citations/0/...`, `block/2/content/...` for what the vendor's own tools bring in; `stop/...`; anything else
by its path. A message's blocks and the deltas of a stream have the same channels. Should a stream hold a second
message, its channels begin with `message/1/`. A channel is one field's for the whole answer (`owners.py`), and fields of
two events are two: but a block begins with the words that its deltas continue. It begins with words only once: where an
index begins again with words after its block ended, that block is `block/2/1/text`, and its deltas are shown on
`block/2/text` as well, for a client may take an index for a place in the list of all blocks (anthropic-sdk-python does).

A tool use is pending from its start, or its first input, until its `content_block_stop`; then input whose escapes hide
words is shown decoded.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from firewall.wire.leaves import BASE64, LINK, MEDIA, TOKEN, Inert, Leaf, decoded, inert, leaves, passes, stamp, trie, words
from firewall.wire.openai_words import judgeable
from firewall.wire.owners import Owners
from firewall.wire.sealed import Unread
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import Asked, unreadable

CALLS = frozenset(("tool_use", "server_tool_use", "mcp_tool_use"))
BLOCK_TYPES = words("""text thinking redacted_thinking tool_use server_tool_use mcp_tool_use tool_result mcp_tool_result
    web_search_tool_result web_search_result web_fetch_tool_result web_fetch_result code_execution_tool_result
    code_execution_result encrypted_code_execution_result bash_code_execution_tool_result bash_code_execution_result
    bash_code_execution_output text_editor_code_execution_tool_result text_editor_code_execution_view_result
    text_editor_code_execution_create_result text_editor_code_execution_str_replace_result tool_search_tool_result
    tool_search_tool_search_result tool_reference advisor_tool_result advisor_result container_upload compaction image
    document search_result base64 url file content ephemeral direct code_execution_20250825 code_execution_20260120
    web_search_result_location char_location page_location content_block_location search_result_location
    web_search_tool_result_error web_fetch_tool_result_error code_execution_tool_result_error""")
BLOCK: Inert = {
    "type": BLOCK_TYPES,
    "id": TOKEN,
    "tool_use_id": TOKEN,
    "signature": BASE64,
    "data": BASE64,
    "encrypted_content": BASE64,
    "caller.type": BLOCK_TYPES,
    "caller.tool_id": TOKEN,
    "content.type": BLOCK_TYPES,
    "content.file_type": words("text image pdf"),
    "content.retrieved_at": TOKEN,
    "content.url": LINK,
    "content.content.": MEDIA,          # a text editor's view of a picture
    "content.content[].type": BLOCK_TYPES,
    "content.content[].file_id": TOKEN,
    "content.content.type": BLOCK_TYPES,
    "content.content.source.type": BLOCK_TYPES,
    "content.content.source.media_type": TOKEN,
    "content.content.source.data": MEDIA,
    "content.encrypted_content": BASE64,
    "content.encrypted_stdout": BASE64,
    "content.tool_references[].type": BLOCK_TYPES,
    "content[].type": BLOCK_TYPES,
    "content[].encrypted_content": BASE64,
    "content[].url": LINK,
    "citations[].url": LINK,
    "citations[].type": BLOCK_TYPES,
    "citations[].encrypted_index": BASE64,
    "citations[].file_id": TOKEN,
}
_MESSAGE: Inert = {
    "id": TOKEN,
    "type": words("message error"),
    "role": words("assistant"),
    "model": TOKEN,
    "stop_reason": words("end_turn max_tokens stop_sequence tool_use pause_turn refusal compaction "
                         "model_context_window_exceeded"),
    "stop_details.type": words("refusal"),
    "stop_details.category": words("cyber bio frontier_llm reasoning_extraction general_harms"),
    "container.id": TOKEN,
    "container.expires_at": TOKEN,
    "container.skills[].skill_id": TOKEN,
    "container.skills[].type": words("anthropic custom"),
    "container.skills[].version": TOKEN,
    "usage.inference_geo": TOKEN,
    "usage.service_tier": words("standard priority batch"),
    "usage.speed": words("standard fast"),
    "usage.iterations[].type": words("message advisor_message compaction"),
    "usage.iterations[].model": TOKEN,
}
DELTA: Inert = {
    "type": words("text_delta input_json_delta thinking_delta signature_delta citations_delta compaction_delta"),
    "signature": BASE64,
    "citation.type": BLOCK_TYPES,
    "citation.encrypted_index": BASE64,
    "citation.file_id": TOKEN,
    "citation.url": LINK,
    "encrypted_content": BASE64,
}
OPEN = 64       # blocks that a stream may have open at once; the vendor opens one
PLACED = frozenset(("content_block_start", "content_block_delta", "content_block_stop"))
EVENTS = words("message_start content_block_start content_block_delta content_block_stop message_delta message_stop "
               "ping error")
ANSWER: Inert = {
    "type": EVENTS | words("message"),
    "request_id": TOKEN,
    "error.type": words("invalid_request_error authentication_error permission_error not_found_error request_too_large "
                        "rate_limit_error api_error overloaded_error timeout_error billing_error"),
    **{path: shape for path, shape in _MESSAGE.items() if path != "type"},
    **{f"content[].{path}": shape for path, shape in BLOCK.items()},
    **{f"message.{path}": shape for path, shape in _MESSAGE.items()},
    **{f"message.content[].{path}": shape for path, shape in BLOCK.items()},
    **{f"content_block.{path}": shape for path, shape in BLOCK.items()},
    **{f"delta.{path}": shape for path, shape in {**_MESSAGE, **DELTA}.items() if path != "type"},
    "delta.type": DELTA["type"],
}
PLACE = trie(ANSWER)
_BLOCK, _DELTA = PLACE["content_block"], PLACE["delta"]
NAMED = {"text": "text", "thinking": "thinking", "partial_json": "input"}
WRITTEN = {"text": "text_delta", "thinking": "thinking_delta", "input": "input_json_delta"}     # of a block: by whom
SCALARS = frozenset((int, float, bool, type(None)))


class Seen(NamedTuple):
    """What a client has seen open."""

    started: bool = False
    open: tuple[int, ...] = ()
    stopped: bool = False       # a stop reason
    ended: bool = False         # message_stop, or an error


class Blocks:
    """The words of one answer, and its state (the reading half of a `Speech`)."""

    done: bytes | None = None
    names: frozenset[bytes] = frozenset(name.encode() for name in EVENTS)
    plain = False       # but after a delta: all else changes the state, by its type. Citations are counted

    def __init__(self, asked: Asked) -> None:
        self.asked = asked
        self.after: Seen | None = None
        self.last = self.complete = False
        self.opaque = Unread()
        self.id = ""
        self._messages = 0
        self._owners = Owners()
        self._field = ""        # what the fields that are read now belong to: the event, and the type of its delta
        self._calling: dict[int, list[str]] = {}        # open tool uses -> fragments of their input
        self._cited: dict[int, int] = {}
        self._begun = 0                         # blocks of this message so far
        self._again: dict[int, int] = {}        # index -> how often it began again with words
        self._beside: dict[int, str] = {}       # index -> where its deltas belong too, for who counts blocks

    @property
    def pending(self) -> bool:
        return bool(self._calling)

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        out: list[Leaf] = []
        self.plain = False
        type_ = _type(document)
        self._field = type_ if type_ in EVENTS else stamp(type_)
        seen = self.after or Seen()
        index: int = document.get("index", -1)
        if type_ in PLACED and (type(index) is not int or not 0 <= index < 10_000):
            raise unreadable("a block's index is no small number")
        if type_ == "content_block_delta" and type(document.get("delta")) is dict:
            self.plain = True
            self._rest(document, ("type", "index", "delta"), out)
            self._delta(document["delta"], index, out)
            return out
        if type_ == "content_block_start" and type(document.get("content_block")) is dict:
            block = document["content_block"]
            out += self._called(index)
            self._begin(block, index, index in seen.open, out)
            if _type(block) in CALLS or "input" in block:
                self._calling[index] = []
            self._block(block, index, out)
            self._rest(document, ("type", "index", "content_block"), out)
            if index not in seen.open:
                if len(seen.open) >= OPEN:      # every frame carries what is open
                    raise unreadable("too many blocks are open")
                seen = seen._replace(open=(*seen.open, index))
        elif type_ == "content_block_stop":
            out += self._called(index)
            self._rest(document, ("type", "index"), out)
            seen = seen._replace(open=tuple([i for i in seen.open if i != index]))
        elif type_ == "message_start" and type(document.get("message")) is dict:
            out += self.finish()
            if seen.started:
                self._messages += 1
            self._cited.clear()
            self._begun = 0
            self._again.clear()
            self._beside.clear()
            self._message(document["message"], out)
            self._rest(document, ("type", "message"), out)
            seen = Seen(started=True)
        elif whole and type_ == "message":
            self._message(document, out)
            self.last = self.complete = True
            return out
        else:
            if type_ == "message_delta" and type(document.get("delta")) is dict:
                delta = document["delta"]
                for key, value in delta.items():
                    self._other(delta, key, value, _DELTA, "stop", out)
                self._rest(document, ("type", "delta"), out)
                if delta.get("stop_reason") and not seen.stopped:
                    out += self.finish()
                    seen = seen._replace(stopped=True)
                    self.last = True
            else:
                self._rest(document, (), out)
            if type_ == "message_stop" or type_ == "error":
                self.complete = self.last = True
                seen = seen._replace(ended=True)
        if seen != self.after or type_ == "message_start":
            self.after = seen
        return out

    @property
    def state(self) -> Any:
        return self.after

    def heard(self, channel: str, text: str, number: int) -> None:
        if channel.endswith("/input"):
            for index, written in self._calling.items():
                if channel == f"{self._path(index)}.input".replace(".", "/"):
                    written.append(text)

    def finish(self) -> list[Leaf]:
        return [leaf for index in list(self._calling) for leaf in self._called(index)]

    def _path(self, index: int) -> str:
        path = f"block.{index}" if not self._messages else f"message.{self._messages}.block.{index}"
        return f"{path}.{self._again[index]}" if index in self._again else path

    def _rest(self, document: dict[str, Any], known: tuple[str, ...], out: list[Leaf]) -> None:
        for key, value in document.items():
            if key not in known:
                self._other(document, key, value, PLACE, "", out)

    def _message(self, message: dict[str, Any], out: list[Leaf]) -> None:
        name = message.get("id")
        if type(name) is str and passes(TOKEN, name):
            self.id = name
        for key, value in message.items():
            if key == "content" and type(value) is list:
                for index, block in enumerate(value):
                    if type(block) is not dict:
                        raise unreadable("a block is no object")
                    self._calling[index] = []
                    self._block(block, index, out)
                    out += self._called(index)
                self._begun = len(value)
            else:
                where = "stop" if key.startswith("stop_") else "message"
                self._other(message, key, value, PLACE["message"], where, out)

    def _begin(self, block: dict[str, Any], index: int, open: bool, out: list[Leaf]) -> None:
        """A block that begins with words where its index says otherwise than its place in the message, or once more."""
        place, self._begun = self._begun, self._begun + 1
        said = {key: _said(block[key]) for key in WRITTEN if _speaks(block, key)}
        path = self._path(index)
        if any(f"{path}.{key}".replace(".", "/") in self._owners for key in said):
            if open:
                raise unreadable("a block begins twice")
            self._beside.setdefault(index, path)
            self._again[index] = self._again.get(index, 0) + 1
        if said and place != index:
            path = self._beside[place] = f"message.{self._messages}.place.{place}"
            out += [Leaf(self._owners.of(f"{path}.{key}", WRITTEN[key]), said[key]) for key in said]

    def _block(self, block: dict[str, Any], index: int, out: list[Leaf]) -> None:
        """A block, whole or as it begins."""
        path = self._path(index)
        for key, value in block.items():
            if key in KEYS and (value == "" or type(value) in SCALARS):
                continue
            if key in WRITTEN and _speaks(block, key):
                said = _said(value)
                out.append(Leaf(self._owners.of(f"{path}.{key}", WRITTEN[key]), said, block, key))
                if key == "input":
                    self._calling[index].append(said)
                continue
            self._other(block, key, value, _BLOCK, path, out)

    def _delta(self, delta: dict[str, Any], index: int, out: list[Leaf]) -> None:
        path, type_ = self._path(index), _type(delta)
        type_ = type_ if type_ in DELTA["type"] else stamp(type_)
        self._field = f"delta/{type_}"
        for key, value in delta.items():
            if key in KEYS and (value == "" or type(value) in SCALARS):
                continue
            if key in NAMED and type(value) is str:
                out.append(Leaf(self._owners.of(f"{path}.{NAMED[key]}", type_), value, delta, key))
                if index in self._beside:
                    out.append(Leaf(self._owners.of(f"{self._beside[index]}.{NAMED[key]}", type_), value))
                if key == "partial_json":
                    if type_ != "input_json_delta":     # two writers of one input: their escapes are decoded together
                        raise unreadable("a delta of another type writes a block's input")
                    self._hold(index).append(value)
            elif key == "citation" and type(value) is dict:
                self.plain = False
                number = self._cited[index] = self._cited.get(index, -1) + 1
                for name, inner in value.items():
                    self._other(value, name, inner, _DELTA["citation"], f"{path}.citations.{number}", out)
            else:
                self._other(delta, key, value, _DELTA, path, out)
                if self.opaque.spoken:      # state in pieces that is words: held until it is whole, and can be decoded
                    self._hold(index)
                    self.plain = False

    def _hold(self, index: int) -> list[str]:
        if index not in self._calling and len(self._calling) >= OPEN:
            raise unreadable("too many blocks are open")
        return self._calling.setdefault(index, [])

    def _other(self, holder: dict[str, Any], key: str, value: Any, place: Any, path: str, out: list[Leaf]) -> None:
        """Any field; its key too where it is no protocol word."""
        if inert(place, key, value):
            return
        for leaf in leaves({key: value}, place, path, opaque=self.opaque):
            judgeable(leaf)
            if type(value) is str and "#" not in leaf.path:
                leaf = leaf._replace(holder=holder, key=key)
            out.append(leaf._replace(path=self._owners.of(leaf.path, self._field)))

    def _called(self, index: int) -> list[Leaf]:
        """A tool use is whole: what the escapes of its input hide."""
        inside = decoded("".join(self._calling.pop(index, ())))
        found = [(f"{self._path(index)}.input", inside)] if inside else []
        if self.opaque.spoken:
            found += self.opaque.ended(self._path(index) + ".")
        return [Leaf(f"{path}.decoded".replace(".", "/"), text) for path, text in found]


def _type(node: dict[str, Any]) -> str:
    """What an object says it is; nothing where that is no string."""
    value = node.get("type")
    return value if type(value) is str else ""


def _speaks(block: dict[str, Any], key: str) -> bool:
    """Whether a block begins with words that its deltas continue."""
    value = block.get(key)
    return bool(value) and (type(value) is str or key == "input")


def _said(value: Any) -> str:
    return value if type(value) is str else orjson.dumps(value).decode()
