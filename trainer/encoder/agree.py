"""Texts that stand under opposite labels, in one source or in two: neither label teaches anything."""

from __future__ import annotations

import re
from collections.abc import Iterable

from trainer.encoder.data import Item

_WORD = re.compile(r"\w+")


def agreeing(items: Iterable[Item]) -> list[Item]:
    """The items without those whose words another item of the same direction has under the opposite label of a policy."""
    items = list(items)
    said: dict[tuple[int, str], tuple[set[str], set[str]]] = {}
    for item in items:
        yes, no = said.setdefault(_name(item), (set(), set()))
        yes.update(a.policy for a in item.asks if a.label == 1)
        no.update(item.clean, (a.policy for a in item.asks if a.label == 0))
    return [item for item in items if not set.intersection(*said[_name(item)])]


def _name(item: Item) -> tuple[int, str]:
    return item.way, " ".join(_WORD.findall(" ".join(text for pair in item.texts for text in pair).lower()))
