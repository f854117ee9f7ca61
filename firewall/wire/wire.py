"""What every dialect gives: the words of a request, a reader of its answers, and the few bytes we compose ourselves.

A codec reads to judge and never to write. The only bytes it composes are refusals, endings, error bodies, and the
re-serialised document of a redaction. `Wire` objects have no state; a `Reader` belongs to one answer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple, Protocol

import orjson

from firewall.case import Message
from firewall.errors import FirewallError
from firewall.verdict import Span
from firewall.wire.frame import Frame
from firewall.wire.leaves import Leaf, resolve
from firewall.wire.origin import origins, sound

DECODED = "#decoded"        # a message that shows another's words decoded (`Message.where`)
SPANS = 16_384              # of one request: what is redacted more often is blocked


@dataclass(frozen=True, slots=True)
class StreamLimits:
    """Args:
        event: bytes of one event or line.
        body: bytes of an answer that is one document.
        copies: show every copy of words that a dialect repeats (Responses repeats them five times) as pieces. Off,
            a copy that equals what was already judged is no piece; needed where words may be redacted.
    """

    event: int = 1_048_576
    body: int = 16_777_216
    copies: bool = False


class Together(Message):
    """A message whose text is the lines of several leaves, and these as they were read: who rewrites it does not walk a
    second time, by rules that may differ. A line may hold line feeds itself."""

    leaves: list[Leaf]


def together(role: str, found: list[Leaf], where: str) -> Together:
    message = Together(role, "\n".join([leaf.text for leaf in found]), where)
    message.leaves = found
    return message


class Size(NamedTuple):
    """How many answers, or how many tokens of each, a request asks for, and where it says so."""

    kind: Literal["candidates", "tokens"]
    param: str
    number: int


@dataclass(slots=True)
class Asked:
    """A request, read. Nobody changes it; it is not `frozen`, which would make it six times as dear for each request.

    Args:
        model: as the client named it.
        stream: it asked for a stream.
        messages: all its words. `where` is the JSON path of the leaf, or of the container whose leaves are the lines
            of `text` (a tool definition, a schema).
        document: the request itself.
        opaque: paths that pass uninspected (base64 media, encrypted state).
        sizes: what makes its answer large, wherever this dialect says it.
    """

    model: str
    stream: bool
    messages: tuple[Message, ...]
    document: dict[str, Any]
    opaque: tuple[str, ...] = ()
    sizes: tuple[Size, ...] = ()

    def rewrite(self, spans: Iterable[Span], mask: Callable[[Span], str]) -> bytes:
        """The request with every span replaced by `mask(span)`, re-serialised. `Span.channel` is `Message.where`.

        Words that only appear decoded are cut out of the text that hides them.

        Raises:
            FirewallError: `unredactable` where a span lies in a key, in numbers, or in base64, or there are over `SPANS`.
        """
        spans = list(spans)
        if len(spans) > SPANS:
            raise unredactable()
        said = {message.where: message for message in self.messages}
        document = orjson.loads(orjson.dumps(self.document))
        stamps: dict[int, dict[str, str]] = {}
        for where, hits in _merged(self._traced(spans)).items():
            if where not in said:
                raise unredactable()
            for path, text, edits in _edits(said[where], hits, mask):
                try:
                    holder, key = resolve(document, path, stamps)
                    same = str(holder[key]) == text     # of arguments, numbers are words too
                except (LookupError, ValueError, TypeError):
                    raise unredactable() from None
                if not same:
                    raise unredactable()
                holder[key] = cut(text, edits)
        return orjson.dumps(document)

    def _traced(self, spans: list[Span]) -> list[Span]:
        """Spans of decoded words as spans of the words that hide them."""
        out: list[Span] = []
        hidden: dict[str, list[tuple[int, int]]] = {}
        for span in spans:
            if span.channel.endswith(DECODED):
                hidden.setdefault(span.channel, []).append((span.start, span.end))
            else:
                out.append(span)
        if hidden:
            said = {message.where: message.text for message in self.messages}
            for where, hits in hidden.items():
                source = where.removesuffix(DECODED)
                found = origins(said[source], said[where], hits) if where in said and source in said else None
                if found is None:
                    raise unredactable()
                out += [Span(source, start, end) for start, end in found]
        return out


class Reader(Protocol):
    """One answer, incrementally. The joined `raw` of all frames is the input."""

    content_type: bytes

    @property
    def complete(self) -> bool:
        """A terminal event was seen."""

    @property
    def opaque(self) -> list[str]:
        """Paths that passed uninspected."""

    def feed(self, data: bytes) -> list[Frame]:
        """The frames that ended in `data`.

        Raises:
            FirewallError: upstream's fault: `event_too_large`, `unreadable_event`, `unjudgeable_field`.
        """

    def close(self) -> list[Frame]:
        """Upstream ended: the frames that are left. Raises FirewallError `upstream_truncated` without a terminal
        event or a whole document."""

    def ending(self, after: Any, message: str) -> bytes:
        """The rest of a legal answer for a client that has read up to `after` (None: nothing): a refusal."""

    def fault(self, after: Any, error: FirewallError) -> bytes:
        """The same for a failure: the dialect's error."""

    def rewrite(self, frame: Frame, texts: Sequence[str | None]) -> bytes:
        """The frame's bytes with the i-th piece's text replaced (None: unchanged). Raises `unredactable`."""

    def unplaced(self, raw: bytes) -> bytes:
        """A frame's bytes without annotations that point into words which were replaced (cases.md G11); an event that
        is nothing else becomes b"". Raises `unredactable`."""


# Holds the words of a leaf that stand in no bytes of its document: they left earlier, as a copy of words judged then.
PAST: dict[str, str] = {}


class Wire(Protocol):
    """A dialect."""

    name: str

    def ask(self, document: dict[str, Any]) -> Asked:
        """Finds the words. Raises FirewallError (client) for what must be refused; `param` names the path."""

    def reader(self, asked: Asked, content_type: bytes, limits: StreamLimits = ...) -> Reader:
        """The reader for the actual content type. Raises FirewallError (upstream) `unreadable_content_type`."""

    def error(self, error: FirewallError, request_id: str) -> bytes:
        """An error body in the dialect's shape; constant texts only."""

    def blocked(self, message: str, rules: tuple[str, ...], request_id: str) -> bytes:
        """The body of the 400 for a blocked request."""

    def withheld(self, asked: Asked, message: str, request_id: str) -> bytes:
        """An unstreamed answer (HTTP 200) in place of a blocked one."""


def refused(param: str, code: str = "unsupported_field") -> FirewallError:
    return FirewallError(code, "This field is not supported by the firewall, because what it stands for cannot be "
                         "inspected.", param=param)


def malformed(param: str) -> FirewallError:
    return FirewallError("invalid_field", "This field is missing or has the wrong type or size.", param=param)


def unreadable(detail: str, code: str = "unreadable_event") -> FirewallError:
    return FirewallError(code, "The answer of the upstream could not be read.", fault="upstream", status=502,
                         detail=detail)


def truncated() -> FirewallError:
    return FirewallError("upstream_truncated", "The upstream's answer ended too early.", fault="upstream", status=502)


def unredactable() -> FirewallError:
    return FirewallError("unredactable", "The text could not be redacted.", fault="ours", status=500)


def cut(text: str, edits: Iterable[tuple[int, int, str]]) -> str:
    """Replaces characters `start:end`; edits are sorted and apart."""
    out, at = [], 0
    for start, end, new in edits:
        out += [text[at:start], new]
        at = end
    return "".join([*out, text[at:]])


def _merged(spans: Iterable[Span]) -> dict[str, list[Span]]:
    """Spans by channel, sorted, overlapping ones joined."""
    out: dict[str, list[Span]] = {}
    for span in sorted(spans):
        row = out.setdefault(span.channel, [])
        if row and span.start < row[-1].end:
            row[-1] = Span(span.channel, row[-1].start, max(span.end, row[-1].end))
        else:
            row.append(span)
    return out


def _edits(message: Message, hits: list[Span], mask: Callable[[Span], str],
           ) -> Iterator[tuple[str, str, list[tuple[int, int, str]]]]:
    """(path, text, what is replaced) of each leaf that the hits touch; they are sorted and apart. One that reaches over
    several lines is cut out of each."""
    at = first = 0
    found = message.leaves if type(message) is Together else [Leaf(message.where, message.text)]
    for path, text, _, _ in found:
        size = len(text)
        while first < len(hits) and hits[first].end <= at:
            first += 1
        rows: list[tuple[int, int]] = []
        n = first
        while n < len(hits) and hits[n].start < at + size:
            rows.append((max(hits[n].start - at, 0), min(hits[n].end - at, size)))
            n += 1
        if rows:
            if (spots := sound(text, rows)) is None:
                raise unredactable()
            yield path, text, [(spot.start, spot.end, spot.quote + mask(hits[first + spot.hit]) + spot.quote)
                               for spot in spots]
        first = max(first, n - 1)       # the last may reach on
        at += size + 1
