"""Redaction of a growing answer: each span becomes one placeholder in the frames that are still held.

A frame may be rewritten more than once while it is held (a second secret is found when more text came), so every
rewrite starts from the bytes as they came and applies all spans known so far. Annotations behind redacted words lose
their places: they would mark the wrong ones. A match that may still grow is left to
a later verdict; its words are held anyway. Words that only appear decoded are cut out of the words that hide them. What
cannot be redacted is blocked by the caller (`blocked`): a span of which a part has left, one that lies in a key.
"""

from __future__ import annotations

from collections.abc import Iterable

from firewall.errors import FirewallError
from firewall.gate import Gate
from firewall.proxy.headers import masked
from firewall.transcript import Transcript
from firewall.verdict import Decision, Span
from firewall.wire.frame import Frame
from firewall.wire.origin import origins
from firewall.wire.wire import Reader


class Redaction:
    """The spans of one answer that were redacted so far."""

    __slots__ = ("gate", "spans", "transcript")

    def __init__(self, gate: Gate, transcript: Transcript) -> None:
        self.gate, self.transcript = gate, transcript
        self.spans: set[Span] = set()

    def apply(self, found: Iterable[Span], unsure: Iterable[tuple[str, int]], reader: Reader) -> bool:
        """Rewrites held frames. False when that cannot be done: a part of a span has left, or it cannot be cut out.

        Args:
            found: all spans of the verdict, those of earlier verdicts included.
            unsure: (channel, offset) from which the verdict does not vouch.
        """
        growing = dict(unsure)
        ripe = [span for span in found if span.start < growing.get(span.channel, span.start + 1)]
        fresh = {place for span in ripe for place in self._origins(span)} - self.spans
        if not fresh:
            return True
        at = self._starts()
        if any(s.start < at.get(s.channel, self.transcript.size(s.channel)) for s in fresh):
            return False
        self.spans |= fresh

        def change(frame: Frame) -> Frame:
            texts: list[str | None] = []
            for channel, text in frame.pieces:
                begin = at[channel]
                at[channel] = begin + len(text)
                texts.append(masked(text, begin, [s for s in self.spans if s.channel == channel]))
            if all(text is None for text in texts):
                return self.later(frame, reader)
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

    def _origins(self, span: Span) -> list[Span]:
        """A span of words that only appear decoded, as spans of the words that hide them, where these are known."""
        source = span.channel.removesuffix("/decoded")
        if source == span.channel:
            return [span]
        hiding, shown = self.transcript.words(source), self.transcript.words(span.channel)
        found = origins(hiding, shown, [(span.start, span.end)])
        return [span] if not found else [Span(source, start, end) for start, end in found]

    def _starts(self) -> dict[str, int]:
        """Channel -> offset of its first character that is still held."""
        held: dict[str, int] = {}

        def count(frame: Frame) -> Frame:
            for channel, text in frame.pieces:
                held[channel] = held.get(channel, 0) + len(text)
            return frame

        self.gate.rewrite(count)
        return {channel: self.transcript.size(channel) - size for channel, size in held.items()}


def blocked(decision: Decision) -> Decision:
    """What becomes of a decision to redact that cannot be carried out."""
    return Decision("block", decision.rules, decision.errors, (), decision.message)
