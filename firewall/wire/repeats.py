"""Fields that repeat another's words: two names of reasoning, log-probabilities that spell the text again.

A field that began with its lead and agreed with it in every document since is no piece: what it says was judged. When
it parts from it, its words of earlier documents are judged in its own channel, before what is new: whoever puts that
field's fragments together reads what was judged. A field that spoke before its lead, or began later, never repeats it.
"""

from __future__ import annotations

from typing import NamedTuple

from firewall.wire.leaves import Leaf
from firewall.wire.wire import PAST


class Twins(NamedTuple):
    """A channel's words (kept while some field repeats them) and the channels of the fields that do."""

    said: list[str]
    channels: set[str]


class Repeats:
    """Who repeats whom in one answer."""

    __slots__ = ("_twins",)

    def __init__(self) -> None:
        self._twins: dict[str, Twins] = {}      # lead -> who repeats it, since it began to speak

    def alone(self, lead: str) -> bool:
        """The channel spoke, and no field repeats it: only fields that speak are worth a `fold`."""
        twins = self._twins.get(lead)
        return twins is not None and not twins.channels

    def fold(self, lead: str, text: str, others: list[Leaf], out: list[Leaf]) -> list[Leaf]:
        """Adds what must be judged of fields that may repeat a channel's words; returns those that do.

        Args:
            lead, text: the channel, and its words in this document.
            others: the words of such fields in this document, one leaf a field.
        """
        if not text and not others:
            return []
        spoken = {leaf.path: leaf.text for leaf in others}
        twins = self._twins.get(lead)
        if twins is None:
            twins = self._twins[lead] = Twins([], {channel for channel, said in spoken.items() if said == text})
        for channel in sorted(twins.channels):
            if spoken.get(channel, "") != text:
                twins.channels.discard(channel)
                if twins.said:
                    out.append(Leaf(channel, "".join(twins.said), PAST))
        if twins.channels:
            twins.said.append(text)
        else:
            twins.said.clear()
        out += [leaf for leaf in others if leaf.path not in twins.channels]
        return [leaf for leaf in others if leaf.path in twins.channels]
