"""Where the words are in an answer of OpenAI's Responses API.

The same words come up to five times: as deltas, in `.done`, in the finished part, in the finished item and in the final
response, which also repeats the request's instructions and tools. Channels are named by where the words stand in the
final response, `item/0/content/0/text`, `item/1/arguments`, `item/0/summary/0/text`, for all of them: so a copy is
known by its channel, and one that equals what was said there is no new piece. Copies that differ are pieces on one
channel beside it, `.../copy`. With `copies` (words may be redacted) every copy is a piece:
`item/0/content/0/text/response.completed`. Fields of an event that stand nowhere in the final response repeat nothing:
whatever they say from event to event is the growing text of one channel (`event/0/0/...` in item 0, content 0).
What grows belongs to one kind of event (`owners.py`): `response.reasoning_text` has a channel of its own where
`response.output_text` has spoken.

A call is pending from its start, or its first delta, until its end; then arguments whose escapes hide words are shown
decoded, and so is each copy of them that is a piece: `item/0/arguments/response.completed/decoded`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from firewall.wire.leaves import TOKEN, Leaf, decoded, inert, leaves, passes, stamp
from firewall.wire.openai_words import judgeable, tokens
from firewall.wire.owners import Owners
from firewall.wire.repeats import Repeats
from firewall.wire.responses_shapes import EVENTS, PLACE, SHELL, WHOLE
from firewall.wire.vocabulary import KEYS
from firewall.wire.wire import Asked, unreadable

SCALARS = frozenset((int, float, bool, type(None)))
# What a vendor's server runs itself and shows in `status` only; all other calls leave whole.
SERVED = frozenset(("web_search_call", "file_search_call", "image_generation_call", "x_search_call"))
# Event -> (field that holds the words, where they stand in the final response).
TEXTS: dict[str, tuple[str, str]] = {}
for _name, _field, _place in (
        ("output_text", "text", "item.{o}.content.{c}.text"), ("refusal", "refusal", "item.{o}.content.{c}.refusal"),
        ("reasoning_text", "text", "item.{o}.content.{c}.text"),
        ("reasoning_summary_text", "text", "item.{o}.summary.{s}.text"),
        ("function_call_arguments", "arguments", "item.{o}.arguments"),
        ("mcp_call_arguments", "arguments", "item.{o}.arguments"),
        ("custom_tool_call_input", "input", "item.{o}.input"),
        ("code_interpreter_call_code", "code", "item.{o}.code"),
        ("shell_call_command", "command", "item.{o}.action.commands.{k}"),
        ("audio.transcript", "transcript", "audio.transcript")):
    TEXTS[f"response.{_name}.delta"] = ("delta", _place)
    TEXTS[f"response.{_name}.done"] = (_field, _place)
TEXTS["response.shell_call_command.added"] = ("command", "item.{o}.action.commands.{k}")
CALLED = (".arguments", ".input")
# Deltas of a call, whose start a vendor may leave out.
WRITTEN = frozenset(name for name, (_field, _place) in TEXTS.items() if _field == "delta" and _place.endswith((
    ".arguments", ".input", ".code", ".commands.{k}")))


class Seen(NamedTuple):
    """What a client has seen open."""

    id: str = ""
    model: str = ""
    created: int = 0
    sequence: int = -1
    ended: bool = False


class Output:
    """The words of one answer, and its state (the reading half of a `Speech`)."""

    done: bytes | None = b"[DONE]"
    names: frozenset[bytes] = frozenset(name.encode() for name in EVENTS)

    def __init__(self, asked: Asked, copies: bool = False) -> None:
        self.asked, self.copies = asked, copies
        self.after: Seen | None = None
        self.last = self.complete = False
        self.opaque: list[str] = []
        self._calls: set[int] = set()               # output indices of calls under way
        self._said: dict[str, list[str]] = {}       # channel -> its words
        self._copied: dict[str, set[str]] = {}      # channel -> copies that differ from them
        self._sent: frozenset[str] | None = None    # the request's words, once an echo came
        self._event = ""
        self._owners = Owners()
        self._repeats = Repeats()
        self._state = Seen()                        # what a client has seen open, but for the number
        self.plain = False

    @property
    def pending(self) -> bool:
        return bool(self._calls)

    @property
    def state(self) -> Any:
        return self._state

    def heard(self, channel: str, text: str, number: int) -> None:
        if text:
            self._said.setdefault(channel, []).append(text)
        seen = self.after or Seen()
        if number > seen.sequence:
            self.after = Seen(seen.id, seen.model, seen.created, number, seen.ended)

    def finish(self) -> list[Leaf]:
        return [leaf for index in sorted(self._calls) for leaf in self._called(index)]

    def glance(self, document: dict[str, Any]) -> list[Leaf] | None:
        return None

    def read(self, document: dict[str, Any], whole: bool) -> list[Leaf]:
        out: list[Leaf] = []
        self.plain = False
        if whole and "type" not in document:
            self._event = "whole"
            self._response(document, out)
            self.last = self.complete = True
            return out
        type_ = document.get("type")
        self._event = type_ if type(type_) is str else ""
        spoken = TEXTS.get(self._event)
        known: tuple[str, ...] = ()
        if spoken is not None and type(document.get(spoken[0])) is str:
            path = self._owned(self._channel(document, spoken[1]), self._event.rpartition(".")[0])
            if self._event in WRITTEN:
                self._calls.add(_index(document, "output_index"))
            self._say(Leaf(path, document[spoken[0]], document, spoken[0]), self._event.endswith(".delta"), out)
            if self._event.endswith(".delta"):
                self._spelt(document.get("logprobs"), document[spoken[0]], path, out)
            elif document.get("logprobs"):
                self._logprobs(document["logprobs"], document[spoken[0]], path, out)
            known = (spoken[0], "logprobs")
            self.plain = self._event.endswith(".delta") and bool(document["delta"]) and not document.get("logprobs")
        elif type(document.get("item")) is dict and self._event.startswith("response.output_item."):
            self._item(document["item"], _index(document, "output_index"), "item", out)
            known = ("item",)
        elif type(document.get("part")) is dict:
            place = "item.{o}.summary.{s}" if "summary" in self._event else "item.{o}.content.{c}"
            self._part(document["part"], self._channel(document, place), PLACE["part"], out)
            known = ("part",)
        elif type(document.get("annotation")) is dict:
            place = self._channel(document, "item.{o}.content.{c}.annotations.{a}")
            self._walk(document["annotation"], PLACE["annotation"], place, out)
            known = ("annotation",)
        elif type(document.get("response")) is dict:
            self._response(document["response"], out)
            known = ("response",)
        elif self._event == "response.shell_call_output_content.delta" and type(document.get("delta")) is dict:
            self._walk(document["delta"], SHELL, self._channel(document, "item.{o}.output.{k}"), out, delta=True)
            known = ("delta",)
        elif self._event == "response.shell_call_output_content.done" and type(document.get("output")) is list:
            for number, part in enumerate(document["output"], _index(document, "command_index")):
                self._walk(part, SHELL, self._channel(document, "item.{o}.output.") + str(number), out)
            known = ("output",)
        for key, value in document.items():
            if key in known or (type(value) in SCALARS and key in KEYS):
                continue
            if key != "type" or self._event not in EVENTS:
                place = self._channel(document, "event.{o}.{c}") if "output_index" in document else ""
                self._walk({key: value}, PLACE, place, out, document, delta=key != "type")
        self._mark(document, out)
        return out

    def _mark(self, document: dict[str, Any], out: list[Leaf]) -> None:
        seen = self.after or Seen()
        response = document.get("response")
        if type(response) is dict and not seen.id:
            name, model, created = response.get("id"), response.get("model"), response.get("created_at")
            seen = seen._replace(id=name if type(name) is str and passes(TOKEN, name) else "",
                                 model=model if type(model) is str and passes(TOKEN, model) else "",
                                 created=created if type(created) is int else 0)
        number = document.get("sequence_number")
        if type(number) is int and number > seen.sequence:
            seen = seen._replace(sequence=number)
        if self._event in ("response.completed", "response.incomplete", "response.failed", "error") or (
                "error" in document and document["error"]):
            self.last = self.complete = True
            out += self.finish()        # calls that it cuts short
            seen = seen._replace(ended=True)
        self.after = seen
        if seen._replace(sequence=-1) != self._state:
            self._state = seen._replace(sequence=-1)

    def _channel(self, document: dict[str, Any], place: str) -> str:
        return place.format(o=_index(document, "output_index"), c=_index(document, "content_index"),
                            s=_index(document, "summary_index"), k=_index(document, "command_index"),
                            a=_index(document, "annotation_index"))

    def _owned(self, path: str, field: str) -> str:
        """The path, or one below it, on which the words of a kind of event grow."""
        if self._owners.of(path, field) == path.replace(".", "/") or path.endswith("#key"):
            return path
        if path.endswith(CALLED):       # two writers of one call: their escapes are decoded together
            raise unreadable("events of two kinds write a call's arguments")
        return f"{path}.{field}"

    def _response(self, response: dict[str, Any], out: list[Leaf]) -> None:
        for key, value in response.items():
            if inert(WHOLE, key, value):
                continue
            if key == "output" and type(value) is list:
                for index, item in enumerate(value):
                    self._item(item, index, "output", out)
            elif key == "error":
                self._walk({key: value}, WHOLE, "response", out, response)
            else:
                found: list[Leaf] = []
                self._walk({key: value}, WHOLE, "response", found, response)
                out += [leaf for leaf in found if self.copies or leaf.text not in self._request()]

    def _request(self) -> frozenset[str]:
        """The request's words: what the vendor repeats of it was judged there."""
        if self._sent is None:
            self._sent = frozenset(leaf.text for leaf in leaves(self.asked.document))
        return self._sent

    def _item(self, item: Any, index: int, where: str, out: list[Leaf]) -> None:
        if type(item) is not dict:
            raise unreadable("an item is no object")
        type_ = item.get("type")
        call = type(type_) is str and type_.endswith("_call") and type_ not in SERVED
        if call and self._event == "response.output_item.added":
            self._calls.add(index)
        path = f"item.{index}"
        for key, value in item.items():
            if inert(PLACE["item"], key, value):
                continue
            if key == "content" and type(value) is list:
                for place, part in enumerate(value):
                    self._part(part, f"{path}.content.{place}", PLACE["part"], out)
            else:
                self._walk({key: value}, PLACE["item"], path, out, item)
        if call and self._event != "response.output_item.added":
            out += self._called(index)

    def _part(self, part: Any, path: str, place: Any, out: list[Leaf]) -> None:
        if type(part) is not dict:
            raise unreadable("a part is no object")
        for key, value in part.items():
            if inert(place, key, value):
                continue
            if key == "logprobs":
                self._logprobs(value, str(part.get("text", "")), path + ".text", out)
            else:
                self._walk({key: value}, place, path, out, part)

    def _logprobs(self, rows: Any, spoken: str, path: str, out: list[Leaf]) -> None:
        if type(rows) is not list:
            raise unreadable("log-probabilities are no list", "unjudgeable_field")
        channel = path.replace(".", "/") + "/logprobs"
        for leaf in tokens(rows, spoken, channel, self.opaque):
            self._say(leaf._replace(path=leaf.path.replace("/", ".")), False, out)

    def _spelt(self, rows: Any, text: str, path: str, out: list[Leaf]) -> None:
        """Log-probabilities of more words: no piece while they have spelled every word so far (`repeats.py`)."""
        lead = path.replace(".", "/")
        if not rows and self._repeats.alone(lead):
            return
        if rows is not None and type(rows) is not list:
            raise unreadable("log-probabilities are no list", "unjudgeable_field")
        found = tokens(rows or [], "", f"{lead}/logprobs", self.opaque)
        chosen = [leaf for leaf in found if leaf.path == f"{lead}/logprobs"]
        self._repeats.fold(lead, text, chosen, out)
        for leaf in found[len(chosen):]:
            self._say(leaf._replace(path=leaf.path.replace("/", ".")), True, out)

    def _walk(self, value: Any, place: Any, path: str, out: list[Leaf], holder: Any = None, *,
              delta: bool = False) -> None:
        """Any leaves, each a copy or new. `holder` is the container that a one-field `value` was taken from."""
        for leaf in leaves(value, place, path, opaque=self.opaque):
            judgeable(leaf)
            if holder is not None and leaf.holder is value and "#" not in leaf.path:
                leaf = leaf._replace(holder=holder)
            if delta:
                field = self._event if self._event in EVENTS else stamp(self._event)
                leaf = leaf._replace(path=self._owned(leaf.path, field))
            self._say(leaf, delta, out)

    def _say(self, leaf: Leaf, delta: bool, out: list[Leaf]) -> None:
        """Words on their channel: more of them, or a copy of what was said there."""
        if not leaf.text:
            return
        channel = leaf.path.replace(".", "/")
        said = self._said.setdefault(channel, [])
        if delta or not said:
            said.append(leaf.text)
            out.append(leaf._replace(path=channel))
            return
        if len(said) > 1:
            said[:] = ["".join(said)]
        name = f"{channel}/copy"
        if self.copies:
            name = f"{channel}/{self._event}" if self._event in EVENTS else name
        elif said[0] == leaf.text or leaf.text in (copied := self._copied.setdefault(channel, set())):
            return
        else:
            copied.add(leaf.text)
        out.append(leaf._replace(path=name))
        if leaf.path.endswith(CALLED) and (inside := decoded(leaf.text)):       # it leaves, or is cut, on its own
            out.append(Leaf(f"{name}/decoded", inside))

    def _called(self, index: int) -> list[Leaf]:
        """A call is whole: what the escapes of its arguments hide."""
        self._calls.discard(index)
        out: list[Leaf] = []
        for name in CALLED:
            channel = f"item/{index}/{name[1:]}"
            inside = decoded("".join(self._said.get(channel, ())))
            channel += "/decoded"
            if inside and self._said.get(channel) != [inside]:
                self._said[channel] = [inside]
                out.append(Leaf(channel, inside))
        return out


def _index(document: dict[str, Any], name: str) -> int:
    value = document.get(name) or 0
    if type(value) is not int or not 0 <= value < 100_000:
        raise unreadable("an index is no small number")
    return value
