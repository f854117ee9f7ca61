"""Where the words are in an OpenAI-shaped answer: choices, deltas, messages, tool calls, log-probabilities.

Channels: `choice/0/text`, `choice/0/refusal`, `choice/0/reasoning`, `choice/0/tool/1/name|arguments|input`,
`choice/0/call/name|arguments`, `choice/0/logprobs[/top|/bytes]`; anything else is named by its path, `choice/0/said/...`
in a message, `choice/0/beside/...` beside it. A message and the deltas of a stream have the same channels, so that the
verdict is the same streamed or not. A channel is one field's for the whole answer (`owners.py`); calls with an index are
one field, those without it another.

Vendors differ. Reasoning is `reasoning_content` (DeepSeek, xAI, old vLLM) or `reasoning` (Groq, OpenRouter, new vLLM),
or both with the same words, and log-probabilities spell the text again: no piece as long as they do (`repeats.py`). A
tool call's index may start at 1 or be missing; its id may come once. Mistral's content is a list. Perplexity repeats all
citations in every chunk: said once.

A tool call is pending from its first fragment until its choice has a finish reason. Then arguments whose escapes hide
words are shown decoded. Token ids cannot be judged: refused.
"""

from __future__ import annotations

from typing import Any

import orjson

from firewall.wire.leaves import (
    BASE64,
    DATA,
    ENCRYPTED,
    LINK,
    OPAQUE,
    PAD,
    TOKEN,
    Inert,
    Leaf,
    decoded,
    leaves,
    passes,
    spelt,
    tokenish,
    trie,
    words,
)
from firewall.wire.owners import Owners
from firewall.wire.repeats import Repeats
from firewall.wire.sealed import Unread
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import unreadable

SEVERITY = words("safe low medium high")
_FILTERS: Inert = {f"{place}.{name}.severity": SEVERITY
                   for place in ("prompt_filter_results[].content_filter_results", "choices[].content_filter_results")
                   for name in ("hate", "self_harm", "sexual", "violence", "profanity")}
# What an assistant's message holds beside its words, and the next request repeats.
_DETAIL: Inert = {"data": ENCRYPTED, "signature": BASE64}
STATE: Inert = {
    "content[].image_url.url": DATA, "images[].image_url.url": DATA,        # OpenRouter
    "reasoning_details[].type": words("reasoning.text reasoning.summary reasoning.encrypted"),
    "reasoning_details[].format": words("""unknown openai-responses-v1 azure-openai-responses-v1 xai-responses-v1
        anthropic-claude-v1 google-gemini-v1"""),
    **{f"{place}[].{name}": shape for place in ("reasoning_details", "thinking_blocks") for name, shape in _DETAIL.items()},
    "reasoning_details[].id": TOKEN,
    **{f"{place}{path}": BASE64 for place in ("", "tool_calls[].") for path in (        # Gemini's OpenAI endpoint, LiteLLM
        "extra_content.google.thought_signature", "provider_specific_fields.thought_signature",
        "provider_specific_fields.thought_signatures[]")},
    "annotations[].url_citation.url": LINK,
}
ANSWER: Inert = {
    "id": TOKEN,
    "object": words("chat.completion chat.completion.chunk chat.completion.done text_completion"),
    "model": TOKEN,
    "system_fingerprint": TOKEN,
    "service_tier": words("auto default flex scale priority fast on_demand performance standard"),
    "obfuscation": PAD,
    "provider": TOKEN,
    "x_groq.id": TOKEN,
    "choices[].finish_reason": words("stop length tool_calls content_filter function_call end_turn eos abort error"),
    "choices[].native_finish_reason": words("stop length tool_calls content_filter STOP MAX_TOKENS end_turn completed"),
    "choices[].delta.role": words("assistant tool"),
    "choices[].delta.tool_calls[].id": TOKEN,
    "choices[].message.role": words("assistant tool"),
    "choices[].message.tool_calls[].id": TOKEN,
    **{f"choices[].{said}.{path}": shape for said in ("delta", "message") for path, shape in STATE.items()},
    "citations[]": LINK, "search_results[].url": LINK, "images[].image_url": LINK, "images[].origin_url": LINK,
    **_FILTERS,
}
PLACE = trie(ANSWER)
_CHOICE = PLACE["choices"]["[]"]
_SAID = _CHOICE["message"]
REASONING = frozenset(("reasoning_content", "reasoning", "thinking"))
SNAPSHOTS = frozenset(("citations", "search_results", "images", "related_questions"))
IDS = frozenset(("token_ids", "prompt_token_ids", "output_token_ids"))
SCALARS = frozenset((int, float, bool, type(None)))
INERT_TOP = frozenset(("id", "object", "model", "system_fingerprint", "service_tier", "provider"))
FINISHED = ANSWER["choices[].finish_reason"]


def judgeable(leaf: Leaf) -> None:
    """Raises `unjudgeable_field` for token ids: a list of integers under a name that speaks of tokens."""
    if leaf.path.endswith("#ints") and tokenish(leaf.path.removesuffix("#ints"), leaf.key):
        raise unreadable("token ids in the answer", "unjudgeable_field")


def generic(value: Any, node: Any, path: str, holder: Any, key: Any, opaque: list[str]) -> list[Leaf]:
    """Leaves of anything, with channels for paths. Token ids are refused."""
    out = []
    for leaf in leaves(value, node, path, holder, key, opaque):
        judgeable(leaf)
        out.append(leaf._replace(path=leaf.path.replace(".", "/")))
    return out


class Choices:
    """What was said on every choice, and what is open. `read` gives the words of one document."""

    def __init__(self, expected: int = 1, copies: bool = False) -> None:
        self.copies = copies                    # show folded copies too: to redact them
        self.expected = max(1, expected)        # choices the client asked for
        self.opaque = Unread()
        self.open: tuple[int, ...] = ()         # choices begun and not finished
        self.closed: tuple[int, ...] = ()
        self.plain = True                       # nothing of the last document was left out because it was said before
        self.loose = False                      # calls without an index: where words belong depends on what came
        self.calling: set[int] = set()          # choices with a tool call under way
        self._calls: dict[int, list[str]] = {}              # choice -> ids of its calls, in order
        self._written: dict[str, list[str]] = {}            # channel -> fragments of arguments
        self._channel = Owners().of                         # the channel of a field
        self._repeats = Repeats()
        self._shown: dict[str, str] = {}                    # snapshot channel -> its words
        self._passed: dict[str, str] = {}                   # inert fields of the stream and their values

    def read(self, document: dict[str, Any]) -> list[Leaf]:
        """Raises FirewallError (upstream) where the shape makes judging impossible."""
        out: list[Leaf] = []
        self.plain = True
        for key, value in document.items():
            if key == "choices":
                if value is not None and type(value) is not list:       # null: an empty list in Go
                    raise unreadable("choices is no list")
                for place, choice in enumerate(value or ()):
                    self._choice(choice, place, out)
                continue
            if (type(value) in SCALARS and key in KEYS) or (type(value) is str and self._passed.get(key) == value):
                continue
            if key in IDS and value:
                raise unreadable("token ids in the answer", "unjudgeable_field")
            found = self._other(document, key, value, PLACE, "")
            if not found and type(value) is str and len(self._passed) < 32 and key in INERT_TOP:
                self._passed[key] = value
            if key in SNAPSHOTS and found:
                self.plain = False
                found = self._fresh(found)
            out += found
        return out

    def finish(self) -> list[Leaf]:
        """The end: arguments not yet shown decoded."""
        return [leaf for index in sorted(self.calling) for leaf in self._called(index)]

    def heard(self, channel: str, text: str) -> None:
        """More of what is written on a channel of arguments."""
        if channel in self._written:
            self._written[channel].append(text)

    def _fresh(self, found: list[Leaf]) -> list[Leaf]:
        """Without what a field that repeats itself in every chunk has already said."""
        new = [leaf for leaf in found if self._shown.get(leaf.path) != leaf.text]
        self._shown.update((leaf.path, leaf.text) for leaf in new)
        return new

    def _choice(self, choice: Any, place: int, out: list[Leaf]) -> None:
        if type(choice) is not dict:
            raise unreadable("a choice is no object")
        index = choice.get("index")
        index = place if index is None else index
        if type(index) is not int or not 0 <= index < max(128, self.expected):
            raise unreadable("a choice's index is no small number")
        if index not in self.open and index not in self.closed:
            self.open = (*self.open, index)
        ended = None
        begin = len(out)
        copies: list[Leaf] = []
        for key, value in choice.items():
            if key == "delta" or key == "message":
                if type(value) is dict:
                    self._said(value, index, self._channel(f"choice/{index}", key), out)
                    continue
            elif key == "text" and type(value) is str:
                if value:
                    out.append(Leaf(self._channel(f"choice/{index}/text", key), value, choice, key))
                continue
            elif key == "logprobs" and type(value) is dict:
                copies = self._logprobs(value, f"choice/{index}/logprobs", out)
                continue
            elif key == "finish_reason" and type(value) is str and value:
                ended = value
                if value in FINISHED:
                    continue
            if type(value) in SCALARS and key in KEYS:
                continue
            if key in IDS and value:
                raise unreadable("token ids in the answer", "unjudgeable_field")
            out += self._other(choice, key, value, _CHOICE, f"choice.{index}.beside")
        text = f"choice/{index}/text"
        if copies or not self._repeats.alone(text):
            self._fold(text, "".join([leaf.text for leaf in out[begin:] if leaf.path == text]), copies, out)
        if ended:
            out += self._called(index)
            self.open = tuple([i for i in self.open if i != index])
            if index not in self.closed:
                self.closed = (*self.closed, index)

    def _other(self, holder: dict[str, Any], key: str, value: Any, place: Any, path: str) -> list[Leaf]:
        """Any other field, its key included where it is no protocol word."""
        if type(value) is str:
            node = place.get(key)
            shaped = type(node) is not dict and node is not None and node not in OPAQUE and passes(node, value, holder)
            if shaped or (not value and key in KEYS):
                return []       # the common case, without a walk
        found = generic({key: value}, place, path, None, None, self.opaque)
        if type(value) is str:      # the walk saw a copy of the container
            found = [leaf if "#" in leaf.path else leaf._replace(holder=holder, key=key) for leaf in found]
        return found

    def _said(self, said: dict[str, Any], index: int, base: str, out: list[Leaf]) -> None:
        """A delta or a message."""
        thoughts: list[Leaf] = []
        for key, value in said.items():
            if type(value) in SCALARS and key in KEYS:
                continue
            if key == "content" and type(value) is str:
                if value:
                    out.append(Leaf(self._channel(base + "/text", key), value, said, key))
            elif key == "content" and type(value) is list and any(type(part) is not int for part in value):
                self._parts(value, base, out)
            elif key in REASONING and type(value) is str:
                if value:
                    thoughts.append(Leaf(self._channel(base + "/reasoning", key), value, said, key))
            elif key == "refusal" and type(value) is str:
                if value:
                    out.append(Leaf(base + "/refusal", value, said, key))
            elif key == "tool_calls" and type(value) is list:
                for call in value:
                    self._call(call, index, base, out)
            elif key == "function_call" and type(value) is dict:
                self.calling.add(index)
                self._function(value, base + "/call", out)
            elif not (key == "role" and value == "assistant"):
                if key in IDS and value:
                    raise unreadable("token ids in the answer", "unjudgeable_field")
                out += self._other(said, key, value, _SAID, base.replace("/", ".") + ".said")
        if self.opaque.spoken:      # state in pieces that is words: held until it is whole, and can be decoded
            self.calling.add(index)
            self.plain = False
        if thoughts:
            lead = base + "/reasoning"
            first = [leaf for leaf in thoughts if leaf.path == lead]
            out += first
            self._fold(lead, first[0].text if first else "", [leaf for leaf in thoughts if leaf.path != lead], out)

    def _fold(self, lead: str, text: str, others: list[Leaf], out: list[Leaf]) -> None:
        """See `Repeats.fold`. Copies are shown where words may be changed in them."""
        if folded := self._repeats.fold(lead, text, others, out):
            self.plain = False
            if self.copies:
                out += [leaf for leaf in folded if leaf.holder is not None]

    def _parts(self, parts: list[Any], base: str, out: list[Leaf]) -> None:
        """Mistral: `[{type:"text",text} | {type:"thinking",thinking:[{type,text}]}]`."""
        for i, part in enumerate(parts):
            type_ = part.get("type") if type(part) is dict else None
            if type_ == "text" and type(part.get("text")) is str and len(part) == 2:
                if part["text"]:
                    out.append(Leaf(self._channel(base + "/text", "content"), part["text"], part, "text"))
            elif type_ == "thinking" and _thoughts(part):
                channel = self._channel(base + "/reasoning", "content")
                out += [Leaf(channel, t["text"], t, "text") for t in part["thinking"] if t["text"]]
            else:
                place = _SAID["content"]["[]"]
                out += generic(part, place, f"{base.replace('/', '.')}.content.{i}", parts, i, self.opaque)

    def _call(self, call: Any, index: int, base: str, out: list[Leaf]) -> None:
        if type(call) is not dict:
            raise unreadable("a tool call is no object")
        self.calling.add(index)
        ids = self._calls.setdefault(index, [])
        name = call.get("id")
        number = call.get("index")
        way = "counted"
        if type(number) is not int:
            self.loose, way = True, "loose"
            if type(name) is str and name and name not in ids:
                ids.append(name)
            number = ids.index(name) if name in ids else max(0, len(ids) - 1)
        elif not 0 <= number < 1024:
            raise unreadable("a tool call's index is no small number")
        channel = f"{self._channel(base + '/tool', way)}/{number}"
        for key, value in call.items():
            if (type(value) in SCALARS and key in KEYS) or (key == "type" and value in ("function", "custom")):
                continue
            if (key == "function" or key == "custom") and type(value) is dict:
                self._function(value, self._channel(channel, key), out)
            else:
                out += self._other(call, key, value, _SAID["tool_calls"]["[]"], channel.replace("/", ".") + ".beside")

    def _function(self, function: dict[str, Any], channel: str, out: list[Leaf]) -> None:
        for key, value in function.items():
            if key in KEYS and (value == "" or type(value) in SCALARS):
                continue
            if key in ("name", "arguments", "input"):
                said = value if type(value) is str else orjson.dumps(value).decode()
                out.append(Leaf(f"{channel}/{key}", said, function, key))
                if key != "name":
                    self._written.setdefault(f"{channel}/{key}", []).append(said)
            else:
                out += self._other(function, key, value, {}, channel.replace("/", ".") + ".said")

    def _called(self, index: int) -> list[Leaf]:
        """The calls of a choice are whole: what their escapes hide."""
        out = []
        self.calling.discard(index)
        for channel in [name for name in self._written if name.startswith(f"choice/{index}/")]:
            inside = decoded("".join(self._written.pop(channel)))
            if inside:
                out.append(Leaf(channel + "/decoded", inside))
        ended = self.opaque.ended(f"choice.{index}.") if self.opaque.spoken else ()
        return out + [Leaf(path.replace(".", "/") + "/decoded", inside) for path, inside in ended]

    def _logprobs(self, value: dict[str, Any], channel: str, out: list[Leaf]) -> list[Leaf]:
        """Adds the words of log-probabilities, but for those that may repeat the text: these are returned."""
        copies: list[Leaf] = []
        for key, rows in value.items():
            if key in ("content", "refusal") and type(rows) is list:
                own = self._channel(channel, key)
                found = tokens(rows, "", own, self.opaque)
                copies += [leaf for leaf in found if leaf.path == own]
                out += [leaf for leaf in found if leaf.path != own]
            elif key == "tokens" and type(rows) is list and all(type(row) is str for row in rows):
                said = "".join(rows)
                copies += [Leaf(self._channel(channel, key), said)] if said else []
            elif key == "top_logprobs" and type(rows) is list and all(type(row) is dict for row in rows if row):
                top = [token for row in rows if row for token in row]
                top += [leaf.text for row in rows if row for odd in row.values() if type(odd) not in SCALARS
                        for leaf in generic(odd, None, "logprobs", None, None, self.opaque)]
                out += [Leaf(self._channel(channel + "/top", key), "\n".join(top))] if top else []
            elif type(rows) not in SCALARS or key not in KEYS:
                out += self._other(value, key, rows, {}, channel.replace("/", ".") + ".beside")
        return copies


def tokens(rows: list[Any], spoken: str, channel: str, opaque: list[str]) -> list[Leaf]:
    """The words of a list of log-probabilities. Tokens that repeat the words beside them (`spoken`) are no piece; all
    others, alternatives, and bytes that spell something else are."""
    chosen = ""
    top: list[str] = []
    spelled: list[str] = []
    for row in rows:
        if type(row) is not dict:
            raise unreadable("a log-probability is no object", "unjudgeable_field")
        chosen += _token(row, spelled)
        for other in row.get("top_logprobs") or ():
            if type(other) is not dict:
                raise unreadable("a log-probability is no object", "unjudgeable_field")
            top.append(_token(other, spelled))
            top += _strange(other, ("token", "bytes"), opaque)
        top += _strange(row, ("token", "bytes", "top_logprobs"), opaque)
    out = [Leaf(channel, chosen)] if chosen and chosen != spoken else []
    out += [Leaf(channel + "/top", "\n".join(top))] if top else []
    return out + ([Leaf(channel + "/bytes", "\n".join(spelled))] if spelled else [])


def _thoughts(part: dict[str, Any]) -> bool:
    """Whether the words of a thinking part are those of its texts."""
    value = part.get("thinking")
    return not set(part) - {"type", "thinking", "closed"} and type(part.get("closed")) in (bool, type(None)) and (
        type(value) is list and all(type(t) is dict and set(t) == {"type", "text"} and type(t["text"]) is str
                                    and t["type"] == "text" for t in value))


def _token(row: dict[str, Any], spelled: list[str]) -> str:
    token, numbers = row.get("token"), row.get("bytes")
    if token is not None and type(token) is not str:
        raise unreadable("a token is no string", "unjudgeable_field")
    if numbers and (type(numbers) is not list or not all(type(number) is int for number in numbers)):
        raise unreadable("a token's bytes are no list", "unjudgeable_field")
    if numbers and spelt(numbers) != (token or ""):
        spelled.append(spelt(numbers))
    return token or ""


def _strange(row: dict[str, Any], read: tuple[str, ...], opaque: list[str]) -> list[str]:
    """Words in fields that a log-probability does not have, or not as words; those of `read` were read."""
    rest = {key: value for key, value in row.items() if key not in read and (
        type(value) not in SCALARS or key not in KEYS)}
    return [leaf.text for leaf in generic(rest, None, "logprobs", None, None, opaque)] if rest else []
