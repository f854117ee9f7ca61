"""The model's words as they came: append-only runs, and the way back from a channel's offset to a mark.

The gate counts characters over all channels in arrival order (marks); guards speak of offsets in one channel. This
file is the only place that converts between the two.

A question may come with every run, so none may cost the number of runs: what is handed out shares the runs that are
complete, and each channel's words are joined once, by the first question after they came.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence

from firewall.case import Runs, Said, quick_said


class Transcript:
    """Runs of words in arrival order; neighbouring words of one channel are one run."""

    __slots__ = ("_channel", "_joined", "_known", "_parts", "_places", "_sealed", "_sizes")

    def __init__(self) -> None:
        self._sealed: list[Said] = []                       # all runs but the last
        self._parts: list[str] = []                         # words of the last run
        self._channel = ""                                  # its channel
        self._sizes: dict[str, int] = {}
        self._places: dict[str, tuple[list[int], list[int]]] = {}   # channel -> of each run: offset in it, mark before it
        self._joined: dict[str, str] = {}                   # channel -> its words in the first `_known` runs
        self._known = 0

    def add(self, channel: str, text: str, mark: int) -> None:
        """Appends words whose first character stands after `mark` characters of the whole answer."""
        if not text:
            return
        if channel != self._channel:
            if self._parts:
                self._seal()
            self._channel = channel
            starts, marks = self._places.setdefault(channel, ([], []))
            starts.append(self._sizes.setdefault(channel, 0))
            marks.append(mark)
        self._parts.append(text)
        self._sizes[channel] += len(text)

    def said(self) -> Sequence[Said]:
        """The answer so far, for a `Case`; it does not change when more is added."""
        parts = self._parts
        if not parts:
            return ()
        if len(parts) > 1:
            parts[:] = ("".join(parts),)
        last = quick_said((self._channel, parts[0]))
        if not self._sealed:
            return (last,)
        self._join()
        return Runs(self._sealed, last, self._joined)

    def words(self, channel: str) -> str:
        """A channel's words so far."""
        said = self.said()
        if isinstance(said, Runs):
            return said.channels.get(channel, "")
        return "".join([run.text for run in said if run.channel == channel])

    def mark(self, channel: str, offset: int) -> int:
        """Characters of the whole answer that came before character `offset` of `channel`.

        An unknown channel is a guard's mistake and gives 0: nothing is vouched for.
        """
        if channel not in self._places:
            return 0
        starts, marks = self._places[channel]
        run = bisect_right(starts, offset) - 1
        return marks[run] + offset - starts[run] if run >= 0 else 0

    def size(self, channel: str) -> int:
        return self._sizes.get(channel, 0)

    def _seal(self) -> None:
        self._sealed.append(Said(self._channel, "".join(self._parts)))
        self._parts.clear()

    def _join(self) -> None:
        """Brings `_joined` up to all sealed runs."""
        joined = self._joined
        fresh: dict[str, list[str]] = {}
        for channel, text in self._sealed[self._known:]:
            fresh.setdefault(channel, [joined.get(channel, "")]).append(text)
        for channel, texts in fresh.items():
            joined[channel] = "".join(texts)
        self._known = len(self._sealed)
