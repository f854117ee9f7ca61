"""Examples: what may not exist, round trips, and an order that is a function of the seed and never splits a pair."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from firewall.errors import Mistakes
from tests.trainer import world
from trainer import data
from trainer.data import Example


@pytest.mark.parametrize(("change", "why"), [
    ({"case": world.examples(1)[0].case._replace(policies=type(world.ARMS)(()))}, "no policy"),
    ({"unsafe": False}, "cannot violate"), ({"rules": ("arms/9",)}, "arms/9")])
def test_what_may_not_exist(change, why):
    with pytest.raises(ValueError, match=why):
        replace(world.examples(1)[0], **change)


def test_round_trip_and_torn_files(tmp_path):
    rows = world.examples(5)
    data.write(tmp_path / "x.jsonl", rows)
    assert data.read(tmp_path / "x.jsonl") == rows
    with (tmp_path / "x.jsonl").open("a") as out:
        out.write('{"id": "torn')
    with pytest.raises(Mistakes, match=r"x\.jsonl:6: not a prepared example"):
        data.read(tmp_path / "x.jsonl")
    (tmp_path / "y.jsonl").write_text(json.dumps(data.pack(rows[0]) | {"rules": ["other/1"]}) + "\n")
    with pytest.raises(Mistakes, match=r"y\.jsonl:1: .*other/1"):
        data.read(tmp_path / "y.jsonl")


def grouped(sizes: list[int]) -> list[Example]:
    one = world.examples(1)[0]
    return [replace(one, id=f"{g}.{i}", group=f"g{g}") for g, n in enumerate(sizes) for i in range(n)]


@given(st.lists(st.integers(1, 4), min_size=8, max_size=40), st.integers(0, 5), st.integers(0, 6))
def test_batches(sizes, seed, start):
    rows = grouped(sizes)
    size = 8
    if len(rows) < size:
        return
    endless = data.batches(rows, size, seed)
    many = [next(endless) for _ in range(start + 3)]
    assert all(len(b) == size for b in many)
    # resuming at any batch gives the batches that would have come
    again = data.batches(rows, size, seed, start)
    assert [next(again) for _ in range(3)] == many[start:]


@given(st.integers(0, 9))
def test_pairs_stay_together_and_an_epoch_is_complete(seed):
    rows = grouped([4] * 12)
    endless = data.batches(rows, 8, seed)
    seen = [e.id for _ in range(6) for e in next(endless)]
    assert sorted(seen) == sorted(e.id for e in rows)
    for b in (next(endless) for _ in range(6)):
        for g in {e.group for e in b}:
            assert sum(e.group == g for e in b) == 4


def test_too_few_rows():
    with pytest.raises(ValueError, match="3 examples do not fill"):
        next(data.batches(world.examples(3), 8, 0))


def test_split_is_by_content():
    rows = [replace(e, id=f"{e.id}{k}") for e in world.examples(400) for k in "ab"]
    train, held = data.split(rows, 0.2)
    assert 0.1 < len(held) / len(rows) < 0.3
    assert not {e.words for e in train} & {e.words for e in held}
    assert not data.split([replace(e, weak=True) for e in rows], 0.9)[1]
