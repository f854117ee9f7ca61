"""Stray requests: an answer keeps its label whatever was asked, and both kinds of answers meet the other kind of request."""

from __future__ import annotations

from trainer.encoder.data import Ask, Item
from trainer.encoder.stray import LEAST, stray


def item(key: str, text: str, way: int, label: int) -> Item:
    return Item("own/x", key, ((text, "its own request" if way else ""),), way, (Ask("hate", label),), ("drugs",))


GOOD, BAD = item("a", "An innocent answer. " * 6, 1, 0), item("b", "A violating answer. " * 6, 1, 1)
CALM, HARSH = item("c", "A calm request", 0, 0), item("d", "A harsh request", 0, 1)


def test_an_answer_meets_the_other_kind_of_request() -> None:
    got = stray([GOOD, BAD, CALM, HARSH], 20, 1)
    assert len(got) == 20
    assert {(i.texts[0], i.asks) for i in got} == {
        ((GOOD.texts[0][0], "A harsh request"), GOOD.asks), ((BAD.texts[0][0], "A calm request"), BAD.asks)}
    assert len({i.key for i in got}) == 2 and not {i.key for i in got} & {"a", "b", "c", "d"}


def test_a_word_of_agreement_needs_its_own_request() -> None:
    short = item("e", "Yes, go ahead."[:LEAST - 1], 1, 0)
    assert stray([short, BAD, CALM, HARSH], 5, 1) == []


def test_the_same_seed_draws_the_same_rows() -> None:
    items = [GOOD, BAD, CALM, HARSH, item("f", "Another calm request", 0, 0), item("g", "Another harsh request", 0, 1)]
    assert stray(items, 9, 3) == stray(items, 9, 3) != stray(items, 9, 4)
