"""AUROC and calibration arithmetic against values worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
pytestmark = pytest.mark.ml

from trainer.encoder.calibrate import _equal, _unseen, platt  # noqa: E402
from trainer.encoder.data import Ask, Item  # noqa: E402
from trainer.encoder.measure import auroc  # noqa: E402


def test_auroc_counts_ties_as_half() -> None:
    assert auroc(np.array([0.1, 0.4, 0.35, 0.8]), np.array([0, 0, 1, 1])) == 0.75
    assert auroc(np.array([1.0, 1.0]), np.array([0, 1])) == 0.5
    assert np.isnan(auroc(np.array([1.0]), np.array([1])))


def test_platt_puts_one_half_between_the_classes_whatever_their_share() -> None:
    rng = np.random.default_rng(0)
    for good in (100, 2000):
        z = np.concatenate((rng.normal(2, 3, 100), rng.normal(-4, 3, good)))
        a, b = platt(z, np.array([1] * 100 + [0] * good))
        assert a > 0 and -b / a == pytest.approx(-1, abs=0.6)


def test_each_direction_has_its_own_equal_error_point() -> None:
    """A direction with few texts goes by those of both."""
    def texts(way: int, label: int, mean: float, count: int) -> list:
        return [(Item("own/a", str(n), (("t", ""),), way, (Ask("a", label),)), np.array([mean + (1 if n % 2 else -1)]))
                for n in range(count)]
    prompts = texts(0, 1, 4.0, 20) + texts(0, 0, 0.0, 20)
    both = _equal(prompts + texts(1, 1, 1.0, 20) + texts(1, 0, -3.0, 20), ["a"], ["a"])
    assert both[0][0] == pytest.approx(2.0) and both[1][0] == pytest.approx(-1.0)
    few = _equal(prompts + texts(1, 1, 1.0, 2) + texts(1, 0, -3.0, 2), ["a"], ["a"])
    assert few[0][0] == pytest.approx(2.0) and 1.5 < few[1][0] < 2.0


def test_unseen_false_positives_are_those_of_thresholds_set_without_them() -> None:
    """One wild text in ten: thresholds that have seen it spare it, thresholds set without it do not."""
    z = np.zeros((100, 1), np.float32)
    z[:, 0] = np.linspace(0, 1, 100)
    never = {0: np.array([99.0]), 1: np.array([99.0])}
    low = {0: np.array([-99.0]), 1: np.array([-99.0])}
    assert _unseen([z, z], never, np.array([True])) == 0.0
    assert 0.0 < _unseen([z, z], low, np.array([True])) < 0.06
