"""Readers: framing outside, a dialect's `Speech` inside. Three framings, one contract.

`Streamed` reads server-sent events, `Listed` NDJSON, `Whole` one document. Each hands documents to the dialect's
`Speech`, which says where the words are and keeps what a client has seen open; the reader makes frames of it.

`Streamed` takes the short way of `mould.py` wherever an event differs from one already read in its words only; any
change of the speech's state drops the moulds. Everything else is read in full. Whatever a speech cannot read, for
whatever reason, is the upstream's mistake: `unreadable_event`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from operator import itemgetter
from typing import Any, TypeVar

import orjson

from firewall.errors import FirewallError
from firewall.wire.body import few, strict
from firewall.wire.frame import Frame, Piece, quick_frame, quick_piece
from firewall.wire.leaves import Leaf, placed, unplaced
from firewall.wire.mould import Mould, cast, pour
from firewall.wire.ndjson import Lines
from firewall.wire.speech import Array, Speech
from firewall.wire.sse import EVENTS, Events, event, large, spoken
from firewall.wire.wire import PAST, Reader, StreamLimits, truncated, unreadable, unredactable

T = TypeVar("T")
DONE = b"[DONE]"        # some servers (vLLM) write it in dialects that have another end: there it is no word, and no end
KEYS = "keys"           # the channel of keys that are no protocol words, a key a line
CHANNELS = 4096         # of one stream: each question to a guard costs as much as there are


class _Read:
    """What the three framings share."""

    content_type = b"application/json"

    def __init__(self, speech: Speech, limits: StreamLimits) -> None:
        self.speech, self.limits = speech, limits
        self._ended = False
        self._keys: set[str] = set()        # unknown keys already said
        self._channels: set[str] = set()    # that have been heard
        self._past: set[Piece] = set()      # words that had left when they were judged

    @property
    def complete(self) -> bool:
        return self.speech.complete

    @property
    def opaque(self) -> list[str]:
        return self.speech.opaque

    def ending(self, after: Any, message: str) -> bytes:
        return self.speech.ending(after, message)

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return self.speech.fault(after, error)

    def rewrite(self, frame: Frame, texts: Sequence[str | None]) -> bytes:
        """See `Reader.rewrite`. Pieces find their leaves by order and text; folded copies change with them."""
        if all(text is None for text in texts):
            return frame.raw
        try:
            return self._rewritten(frame, texts)
        except FirewallError:
            raise
        except Exception:       # a shape that can be read and not be written
            raise unredactable() from None

    def _rewritten(self, frame: Frame, texts: Sequence[str | None]) -> bytes:
        data = self._data(frame.raw)
        if data is None:
            raise unredactable()
        document = self._parse(data)
        slots = self._slots(document)
        new: dict[str, str] = {}
        taken: set[int] = set()
        at = 0
        for piece, text in zip(frame.pieces, texts, strict=True):
            if piece in self._past or piece.channel == KEYS:
                if text is not None:
                    raise unredactable()
                continue
            place = next((i for i in range(at, len(slots)) if slots[i].text == piece.text), None)
            if place is None:
                if text is not None and "/logprobs" not in piece.channel:
                    raise unredactable()
                continue
            at = place + 1
            taken.add(place)
            if text is not None:
                new.setdefault(piece.text, text)
                _put(slots[place], text)
        for place, leaf in enumerate(slots):
            if place not in taken and leaf.text in new:
                _put(leaf, new[leaf.text])
        self.speech.drop(document)
        return self._bytes(frame.raw, document)

    def unplaced(self, raw: bytes) -> bytes:
        if b'_index"' not in raw and b'Index"' not in raw:
            return raw
        data = self._data(raw)
        if data is None:
            return raw
        document = self._parse(data)
        if placed(document.get("annotation")):          # Responses: an annotation is an event of its own
            return b""
        before = orjson.dumps(document)
        unplaced(document)
        return raw if orjson.dumps(document) == before else self._bytes(raw, document)

    def _slots(self, document: dict[str, Any]) -> list[Leaf]:
        """The leaves of a document already read once; by a fresh speech, so that no state changes."""
        return self.speech.again().read(document, isinstance(self, Whole))

    def _sure(self, read: Callable[..., T], *given: Any) -> T:
        """What `read` gives; whatever goes wrong in it is upstream's fault."""
        try:
            return read(*given)
        except FirewallError:
            raise
        except Exception as error:
            raise unreadable(f"{type(error).__name__} while reading") from None

    def _parse(self, data: bytes) -> dict[str, Any]:
        return strict(data, fault="upstream", fold=False)

    def _data(self, raw: bytes) -> bytes | None:
        return raw

    def _bytes(self, raw: bytes, document: dict[str, Any]) -> bytes:
        return orjson.dumps(document)

    def _new(self, found: list[Leaf]) -> list[Leaf]:
        """Unknown keys on a channel for all, so that a fresh one in every chunk is no channel each; and without those that
        were said before, as a vendor's new field comes with every chunk."""
        out = []
        for leaf in found:
            if leaf.path.endswith("#key"):
                if leaf.text in self._keys:
                    continue
                if len(self._keys) < 1000:
                    self._keys.add(leaf.text)
                leaf = Leaf(KEYS, leaf.text + "\n")
            out.append(leaf)
        return out

    def _frame(self, raw: bytes, found: list[Leaf]) -> Frame:
        speech = self.speech
        last = speech.last and not self._ended
        self._ended = self._ended or last
        pieces = []
        for path, text, holder, _ in found:
            self._channels.add(path)
            pieces.append(said := quick_piece((path, text)))
            if holder is PAST:
                self._past.add(said)
        if len(self._channels) > CHANNELS and not isinstance(self, Whole):      # that is one question
            raise unreadable("the answer has too many channels")
        return quick_frame((raw, tuple(pieces), speech.after, speech.pending, last, False, b""))


class Streamed(_Read):
    """Server-sent events."""

    content_type = EVENTS

    def __init__(self, speech: Speech, limits: StreamLimits) -> None:
        super().__init__(speech, limits)
        self._events = Events(limits.event)
        self._moulds: list[Mould] = []
        self._quick: Mould | None = None        # what the last event fitted, if it has an `inside` and no slice is under way

    def feed(self, data: bytes) -> list[Frame]:
        quick = self._quick
        if quick and quick.inside and data.startswith(quick.prefix) and data.endswith(quick.suffix) and (
                len(data) <= self.limits.event):
            try:        # most of a stream: one event, for a string has no line end in it
                return [self._poured(data, quick, orjson.loads(data[quick.inside]), -1)]
            except orjson.JSONDecodeError:
                pass
        self._quick = fits = None
        moulds, out = self._moulds, []
        for raw in self._events.feed(data):
            for mould in moulds:
                if raw.startswith(mould.prefix) and (found := pour(raw, mould)) is not None:
                    out.append(self._poured(raw, mould, *found))
                    fits = mould
                    break
            else:
                out.append(self._sure(self._full, raw))
                fits = moulds[0] if moulds else None
        if fits and fits.inside and self._events.between:
            self._quick = fits
        return out

    def close(self) -> list[Frame]:
        raw = self._events.close()
        try:
            out = [self._sure(self._full, raw)] if raw else []
        except FirewallError:
            raise truncated() from None
        rest = self._sure(self.speech.finish)
        if not self.complete:
            raise truncated()
        if rest or not self._ended:
            self.speech.last = True
            out.append(self._frame(b"", rest))
        return out

    def _poured(self, raw: bytes, mould: Mould, text: str, number: int) -> Frame:
        speech = self.speech
        if mould.pending or number >= 0:
            speech.heard(mould.channel, text, number)
        pieces = (quick_piece((mould.channel, text)),) if text else ()
        return quick_frame((raw, pieces, speech.after, mould.pending, False, False, b""))

    def _full(self, raw: bytes) -> Frame:
        name, data, rest = event(raw)
        speech = self.speech
        found: list[Leaf] = []
        type_: Any = None
        if data and (text := data.strip()):
            if text == speech.done:
                speech.complete = speech.last = True
                found = speech.finish()
                self._moulds.clear()
            elif text != DONE:
                document = self._parse(data)
                type_ = document.get("type")
                state, before = speech.state, (speech.pending, speech.last, speech.complete)
                found = self._new(speech.read(document, False))
                if speech.state is not state or (speech.pending, speech.last, speech.complete) != before:
                    self._moulds.clear()
                elif speech.plain and len(found) == 1 and not rest and (not name or name in speech.names):
                    self._learn(raw, data, found[0], document)
        if name and name not in speech.names and (said := name.decode("utf-8", "replace")) != type_:
            found = [*found, Leaf("event", said)]
        if rest and (said := spoken(rest)):
            found = [*found, Leaf("comment", said)]
        return self._frame(raw, found)

    def _learn(self, raw: bytes, data: bytes, leaf: Leaf, document: dict[str, Any]) -> None:
        mould = cast(raw, data, leaf, document, self.speech.pending)
        if mould is not None:
            self._moulds[3:] = []
            self._moulds.insert(0, mould)

    def _data(self, raw: bytes) -> bytes | None:
        return event(raw).data

    def _bytes(self, raw: bytes, document: dict[str, Any]) -> bytes:
        name = event(raw).name
        return (b"event: " + name + b"\n" if name else b"") + b"data: " + orjson.dumps(document) + b"\n\n"


class Listed(_Read):
    """Newline-delimited JSON."""

    content_type = b"application/x-ndjson"

    def __init__(self, speech: Speech, limits: StreamLimits) -> None:
        super().__init__(speech, limits)
        self._lines = Lines(limits.event)

    def feed(self, data: bytes) -> list[Frame]:
        return [self._sure(self._line, raw, text) for raw, text in self._lines.feed(data)]

    def close(self) -> list[Frame]:
        line = self._lines.close()
        try:
            out = [self._sure(self._line, *line)] if line is not None else []
        except FirewallError:
            raise truncated() from None
        rest = self._sure(self.speech.finish)
        if not self.complete:
            raise truncated()
        if rest:
            out.append(self._frame(b"", rest))
        return out

    def _line(self, raw: bytes, data: bytes | None) -> Frame:
        return self._frame(raw, self._new(self.speech.read(self._parse(data), False)) if data is not None else [])

    def _bytes(self, raw: bytes, document: dict[str, Any]) -> bytes:
        return orjson.dumps(document) + b"\n"


class Whole(_Read):
    """One document: one frame, at the end."""

    def __init__(self, speech: Speech, limits: StreamLimits) -> None:
        super().__init__(speech, limits)
        self._parts: list[bytes] = []
        self._size = 0
        self._seen: list[Leaf] | None = None        # the words, where a glance was enough

    def feed(self, data: bytes) -> list[Frame]:
        self._size += len(data)
        if self._size > self.limits.body:
            raise large()
        self._parts.append(data)
        return []

    def close(self) -> list[Frame]:
        raw = b"".join(self._parts)
        if not raw.strip():
            raise truncated()
        try:
            found = self._sure(self._heard, raw)
        except FirewallError as error:
            if error.code != "unreadable_event" or raw.rstrip()[-1:] in (b"}", b"]"):
                raise
            raise truncated() from None         # the document ends before it is whole
        speech = self.speech
        speech.complete = speech.last = True
        if self._seen is None:
            return [self._frame(raw, found)]
        pieces = tuple(map(quick_piece, map(_SAID, found)))
        return [quick_frame((raw, pieces, speech.after, speech.pending, True, False, b""))]

    def _heard(self, raw: bytes) -> list[Leaf]:
        document = self._parse(raw, self._glance)
        return self._new(self.speech.read(document, True)) + self.speech.finish() if self._seen is None else self._seen

    def _glance(self, document: dict[str, Any]) -> bool:
        self._seen = self.speech.glance(document)
        return self._seen is not None or few(document)

    def _parse(self, data: bytes, glance: Callable[[dict[str, Any]], bool] = few) -> dict[str, Any]:
        """An object; an array of them (Gemini) as an `Array`."""
        if data[:1] == b"{" or data.lstrip()[:1] != b"[":
            return strict(data, fault="upstream", fold=False, glance=glance)
        array = Array(super()._parse(b'{"[]":' + data + b"}"))
        if len(array) != 1:
            raise unreadable("the answer is no JSON")
        return array

    def _bytes(self, raw: bytes, document: dict[str, Any]) -> bytes:
        return orjson.dumps(document["[]"] if isinstance(document, Array) else document)

    def ending(self, after: Any, message: str) -> bytes:
        return self.speech.withheld(message)

    def fault(self, after: Any, error: FirewallError) -> bytes:
        return self.speech.error(error)


def reader(speech: Speech, content_type: bytes, limits: StreamLimits, *, lines: bool = False) -> Reader:
    """The reader for an actual content type; `lines`: the dialect streams NDJSON.

    Raises:
        FirewallError: upstream's fault, `unreadable_content_type`.
    """
    return _framing(content_type, lines)(speech, limits)


@lru_cache(64)          # one upstream says one or two
def _framing(content_type: bytes, lines: bool) -> Callable[[Speech, StreamLimits], Reader]:
    kind, _, options = content_type.partition(b";")
    kind = kind.strip().lower()
    charset = options.lower().replace(b" ", b"").replace(b'"', b"")
    if b"charset=" in charset and b"charset=utf-8" not in charset and b"charset=utf8" not in charset:
        raise unreadable("the upstream's charset is not UTF-8", "unreadable_content_type")
    if kind == b"text/event-stream":
        return Streamed
    if kind in (b"application/x-ndjson", b"application/jsonl", b"application/ndjson") and lines:
        return Listed
    if kind == b"application/json":
        return Whole
    raise unreadable("the upstream's content type is not one this dialect answers with", "unreadable_content_type")


_SAID = itemgetter(0, 1)        # path and text of a leaf


def _put(leaf: Leaf, text: str) -> None:
    if leaf.holder is None and "/logprobs" in leaf.path:
        return      # tokens are many places: `drop` removes them all
    if leaf.holder is None or "#" in leaf.path:
        raise unredactable()
    if isinstance(leaf.holder[leaf.key], str):
        leaf.holder[leaf.key] = text
        return
    try:
        leaf.holder[leaf.key] = orjson.loads(text)      # an object that was judged as JSON text
    except orjson.JSONDecodeError:
        raise unredactable() from None
