"""The model's words as they came: append-only runs, and the way back from a channel's offset to a mark.

The gate counts characters over all channels in arrival order (marks); guards speak of offsets in one channel. This
file is the only place that converts between the two.
"""

from __future__ import annotations

from firewall.case import Said


class Transcript:
    """Runs of words in arrival order; neighbouring words of one channel are one run."""

    __slots__ = ("_frozen", "_last", "_parts", "_runs", "_sizes")

    def __init__(self) -> None:
        self._frozen: list[Said] = []                       # all runs but the last
        self._parts: list[str] = []                         # words of the last run
        self._runs: list[tuple[str, int, int]] = []         # (channel, offset in it, mark before it) of every run
        self._sizes: dict[str, int] = {}
        self._last = ""

    def add(self, channel: str, text: str, mark: int) -> None:
        """Appends words whose first character stands after `mark` characters of the whole answer."""
        if not text:
            return
        if channel != self._last:
            self._seal()
            self._last = channel
            self._runs.append((channel, self._sizes.setdefault(channel, 0), mark))
        self._parts.append(text)
        self._sizes[channel] += len(text)

    def said(self) -> tuple[Said, ...]:
        """The answer so far, for a `Case`."""
        parts = self._parts
        if not parts:
            return ()
        if len(parts) > 1:
            parts[:] = ("".join(parts),)
        last = Said(self._last, parts[0])
        return (*self._frozen, last) if self._frozen else (last,)

    def mark(self, channel: str, offset: int) -> int:
        """Characters of the whole answer that came before character `offset` of `channel`.

        An unknown channel is a guard's mistake and gives 0: nothing is vouched for.
        """
        best = 0
        for name, start, before in self._runs:
            if name == channel and start <= offset:
                best = before + offset - start
        return best

    def size(self, channel: str) -> int:
        return self._sizes.get(channel, 0)

    def _seal(self) -> None:
        if self._runs:
            self._frozen.append(Said(self._runs[-1][0], "".join(self._parts)))
            self._parts.clear()
