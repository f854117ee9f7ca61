"""The threshold that natural traffic asks for: it rises with the tail and ends shortly above the highest score."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("torch")
from trainer.encoder.calibrate import ABOVE, _quiet, platt  # noqa: E402

CALM = np.random.default_rng(0).normal(size=(400, 3)).astype(np.float32)


def test_a_threshold_rises_with_k_and_ends_above_the_highest_natural_score() -> None:
    low, high, ceiling = _quiet(CALM, 0.0), _quiet(CALM, 1.0), _quiet(CALM, 50.0)
    assert (low < high).all() and (high < ceiling).all()
    assert np.allclose(ceiling, CALM.max(0) + ABOVE)


def test_one_scattered_policy_does_not_raise_its_neighbours_far() -> None:
    wild = CALM.copy()
    wild[:, 2] *= 10
    assert (_quiet(wild, 2.0)[:2] <= CALM.max(0)[:2] + ABOVE).all()


def test_platt_finds_the_slope_of_two_balanced_classes() -> None:
    z = np.concatenate([np.random.default_rng(1).normal(-1, 1, 4000), np.random.default_rng(2).normal(1, 1, 400)])
    slope, shift = platt(z, np.concatenate([np.zeros(4000, int), np.ones(400, int)]))
    assert abs(slope - 2.0) < 0.2 and abs(shift) < 0.2       # two unit normals 2 apart: log odds = 2 z
