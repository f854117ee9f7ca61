"""The model's words as they came: append-only runs, and the way back from a channel's offset to a mark.

The gate counts characters over all channels in arrival order (marks); guards speak of offsets in one channel. This
file is the only place that converts between the two.
"""

from __future__ import annotations

from firewall.case import Said


class Transcript:
    """Runs of words in arrival order; neighbouring words of one channel are one run."""

    __slots__ = ("_frozen", "_parts", "_runs", "_sizes")

    def __init__(self) -> None:
        self._frozen: list[Said] = []                       # all runs but the last
        self._parts: list[str] = []                         # words of the last run
        self._runs: list[tuple[str, int, int]] = []         # (channel, offset in it, mark before it) of every run
        self._sizes: dict[str, int] = {}

    def add(self, channel: str, text: str, mark: int) -> None:
        """Appends words whose first character stands after `mark` characters of the whole answer."""
        if not text:
            return
        size = self._sizes.get(channel, 0)
        if not self._runs or self._runs[-1][0] != channel:
            self._seal()
            self._runs.append((channel, size, mark))
        self._parts.append(text)
        self._sizes[channel] = size + len(text)

    def said(self) -> tuple[Said, ...]:
        """The answer so far, for a `Case`."""
        if not self._runs:
            return ()
        if len(self._parts) > 1:
            self._parts[:] = ["".join(self._parts)]
        last = Said(self._runs[-1][0], self._parts[0])
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
