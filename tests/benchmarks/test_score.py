"""Figures against slow definitions and known values."""

from __future__ import annotations

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks import score

PAIRS = st.lists(st.tuples(st.booleans(), st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.5001, 0.9, 1.0])), min_size=2,
                 max_size=40)


@settings(max_examples=150)
@given(PAIRS)
def test_auroc_is_the_share_of_ordered_pairs(pairs: list[tuple[bool, float]]) -> None:
    y = np.array([u for u, _ in pairs])
    s = np.array([v for _, v in pairs])
    wins = [1.0 if a > b else 0.5 if a == b else 0.0 for a in s[y] for b in s[~y]]
    found = score.auroc(y, s)
    assert (found is None) == (not wins)
    if wins:
        assert abs(found - float(np.mean(wins))) < 1e-9


@settings(max_examples=150)
@given(PAIRS)
def test_roc_ends_at_one_and_its_area_is_the_auroc(pairs: list[tuple[bool, float]]) -> None:
    y = np.array([u for u, _ in pairs])
    s = np.array([v for _, v in pairs])
    if y.all() or not y.any():
        return
    x, t = score.roc(y, s)
    assert (x[-1], t[-1]) == (1.0, 1.0) and (np.diff(x) >= 0).all() and (np.diff(t) >= 0).all()
    area = float(np.sum(np.diff(x) * (t[1:] + t[:-1]) / 2))
    assert abs(area - score.auroc(y, s)) < 1e-9


def test_known_values() -> None:
    y = [True, True, True, False, False, False]
    out = score.scored(y, [True, True, False, True, False, False], [False] * 6, [0.9, 0.8, 0.3, 0.6, 0.2, 0.1])
    assert out["f1"]["value"] == round(4 / 6, 4)
    assert out["precision"]["value"] == round(2 / 3, 4) and out["recall"]["value"] == round(2 / 3, 4)
    assert out["fpr"]["value"] == round(1 / 3, 4) and out["floor"] == round(2 / 3, 4)
    assert out["auroc"]["value"] == round(8 / 9, 4)
    assert out["auprc"]["value"] == round((1 + 1 + 3 / 4) / 3, 4)
    assert out["recall_at_fpr1"]["value"] == round(2 / 3, 4)
    assert out["f1"]["low"] <= out["f1"]["value"] <= out["f1"]["high"]


def test_unreadable_is_wrong_in_every_figure() -> None:
    y, scores = [True, False], [0.9, 0.1]
    fine = score.scored(y, [True, False], [False, False], scores)
    lost = score.scored(y, [True, False], [True, True], scores)
    assert fine["f1"]["value"] == 1.0 and fine["auroc"]["value"] == 1.0 and fine["fpr"]["value"] == 0.0
    assert lost["f1"]["value"] == 0.0 and lost["auroc"]["value"] == 0.0 and lost["fpr"]["value"] == 1.0
    assert lost["unreadable"] == 2


def test_one_class_has_no_auroc_and_the_floor_says_so() -> None:
    out = score.scored([True] * 5, [True] * 5, [False] * 5, [0.5] * 5)
    assert out["auroc"]["value"] is None and out["fpr"]["value"] is None and out["floor"] == 1.0


def test_intervals_shrink_with_rows() -> None:
    def width(n: int) -> float:
        y = [k % 2 == 0 for k in range(n)]
        hit = [k % 5 != 0 for k in range(n)]
        f = score.scored(y, hit, [False] * n, None)["accuracy"]
        return f["high"] - f["low"]
    assert width(2000) < width(60) / 3
