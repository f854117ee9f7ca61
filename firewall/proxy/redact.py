"""Redaction of a growing answer: each span becomes one placeholder in the frames that are still held.

A frame may be rewritten more than once while it is held (a second secret is found when more text came), so every
rewrite starts from the bytes as they came and applies all spans known so far. Annotations behind redacted words lose
their places: they would mark the wrong ones. A match that may still grow is left to
a later verdict; its words are held anyway. Words that only appear decoded are cut out of the words that hide them, and
JSON stays JSON (`origin.sound`). What cannot be redacted is blocked by the caller (`blocked`): a span of which a part has
left, one that lies in a key.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Mapping, Sequence
from operator import itemgetter

from firewall.errors import FirewallError
from firewall.gate import Gate
from firewall.proxy.headers import MASK
from firewall.transcript import Transcript
from firewall.verdict import Decision, Span
from firewall.wire.frame import Frame
from firewall.wire.origin import Read, origins, sound
from firewall.wire.wire import Reader

Place = tuple[int, int]     # characters `start:end` of a channel; rows of them are sorted and do not overlap
END = itemgetter(1)
NO_QUOTES: Mapping[int, str] = {}


class Redaction:
    """The places of one answer that were redacted so far, by channel."""

    __slots__ = ("_known", "_read", "gate", "quotes", "spans", "transcript")

    def __init__(self, gate: Gate, transcript: Transcript) -> None:
        self.gate, self.transcript = gate, transcript
        self.spans: dict[str, list[Place]] = {}
        self.quotes: dict[str, dict[int, str]] = {}     # start of a place that was no string -> what encloses the mask
        self._read: dict[str, Read] = {}       # how far channels were read as JSON
        self._known: set[Span] = set()      # what guards found of it: every verdict repeats those before

    def apply(self, found: Iterable[Span], unsure: Iterable[tuple[str, int]], reader: Reader) -> bool:
        """Rewrites held frames. False when that cannot be done: a part of a span has left, or it cannot be cut out.

        Args:
            found: all spans of the verdict, those of earlier verdicts included.
            unsure: (channel, offset) from which the verdict does not vouch.
        """
        growing = dict(unsure)
        ripe = [span for span in found if span not in self._known
                and span.start < growing.get(span.channel, span.start + 1)]
        if not ripe:
            return True
        # A number that a span ends in may go on: that is a longer place.
        self._known.update([span for span in ripe if span.end < self.transcript.size(span.channel)])
        fresh = self._places(ripe)
        if not fresh:
            return fresh is not None
        at = self._starts()
        if any(row[0][0] < at.get(channel, self.transcript.size(channel)) for channel, row in fresh.items()):
            return False
        begun = bool(self.spans)
        for channel, row in fresh.items():
            join(self.spans.setdefault(channel, []), row)

        def change(frame: Frame) -> Frame:
            begins, touched = [], False
            for channel, text in frame.pieces:
                begin = at[channel]
                begins.append(begin)
                at[channel] = begin + len(text)
                touched = touched or first(fresh.get(channel, ()), begin, begin + len(text)) is not None
            if not touched:
                return frame if begun else self.later(frame, reader)    # once is enough
            texts = [masked(text, begin, self.spans.get(channel, ()), self.quotes.get(channel, {}))
                     for (channel, text), begin in zip(frame.pieces, begins, strict=True)]
            source = frame.source or frame.raw
            raw = reader.unplaced(reader.rewrite(frame._replace(raw=source), texts))
            return frame._replace(raw=raw, source=source)

        try:
            self.gate.rewrite(change)
        except FirewallError:
            return False
        return True

    def later(self, frame: Frame, reader: Reader) -> Frame:
        """A frame that stands behind redacted words: its offsets into them are off, and go.

        Raises:
            FirewallError: `unredactable`.
        """
        raw = reader.unplaced(frame.raw)
        return frame if raw is frame.raw else frame._replace(raw=raw, source=frame.source or frame.raw)

    def _places(self, ripe: Iterable[Span]) -> dict[str, list[Place]] | None:
        """Spans as rows of what is not redacted yet; those of words that only appear decoded as places in the words that
        hide them, where these are known. None where there is nothing to cut out for one."""
        hits: dict[str, list[Place]] = {}
        for span in ripe:
            hits.setdefault(span.channel, []).append((span.start, span.end))
        out: dict[str, list[Place]] = {}
        for channel, places in hits.items():
            source = channel.removesuffix("/decoded")
            found = None if source == channel else origins(self.transcript.words(source), self.transcript.words(channel),
                                                           places)
            name, places = (source, found) if found else (channel, places)
            old = self.spans.get(name, ())
            row: list[Place] = []
            join(row, sorted([place for place in places if not covered(old, place)]))
            read = self._read.setdefault(name, Read())
            if (spots := sound(self.transcript.words(name), row, read=read) if row else []) is None:
                return None
            if new := [spot for spot in spots if not covered(old, spot[:2])]:
                join(out.setdefault(name, []), [spot[:2] for spot in new])
                self.quotes.setdefault(name, {}).update({spot.start: spot.quote for spot in new if spot.quote})
        return out

    def _starts(self) -> dict[str, int]:
        """Channel -> offset of its first character that is still held."""
        held: dict[str, int] = {}

        def count(frame: Frame) -> Frame:
            for channel, text in frame.pieces:
                held[channel] = held.get(channel, 0) + len(text)
            return frame

        self.gate.rewrite(count)
        return {channel: self.transcript.size(channel) - size for channel, size in held.items()}


def masked(text: str, begin: int, row: Sequence[Place], quotes: Mapping[int, str] = NO_QUOTES) -> str | None:
    """`text` stands at offset `begin` of its channel: cuts the places out and puts one mask where each starts.

    None when none touches it.
    """
    stop = begin + len(text)
    number = first(row, begin, stop)
    if number is None:
        return None
    out, at = [], 0
    while number < len(row) and row[number][0] < stop:
        start, end = row[number][0] - begin, row[number][1] - begin
        out.append(text[at:max(start, 0)])
        if start >= 0:
            quote = quotes.get(row[number][0], "")
            out.append(quote + MASK + quote)
        at = end
        number += 1
    return "".join((*out, text[at:]))


def first(row: Sequence[Place], start: int, end: int) -> int | None:
    """The first place of a row that touches characters `start:end`, by its number."""
    number = bisect_right(row, start, key=END)
    return number if number < len(row) and row[number][0] < end else None


def covered(row: Sequence[Place], place: Place) -> bool:
    """Whether a place lies within one of a row."""
    number = first(row, *place)
    return number is not None and row[number][0] <= place[0] and place[1] <= row[number][1]


def join(row: list[Place], fresh: Iterable[Place]) -> None:
    """Adds sorted places to a row. What overlaps becomes one; costs what is new and what stands behind its start."""
    fresh = list(fresh)
    while row and fresh and row[-1][1] > fresh[0][0]:
        fresh.append(row.pop())
    for place in sorted(fresh):
        if row and place[0] < row[-1][1]:
            row[-1] = (row[-1][0], max(row[-1][1], place[1]))
        else:
            row.append(place)


def blocked(decision: Decision) -> Decision:
    """What becomes of a decision to redact that cannot be carried out."""
    return Decision("block", decision.rules, decision.errors, (), decision.message)
