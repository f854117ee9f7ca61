"""The model card's columns mean what the benchmarks' mean."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.score import recall_at
from trainer.encoder.bench import _recall_at


def test_one_false_positive_in_twenty_is_five_percent():
    scores = np.array([*range(20), 18.5, 17.5])
    assert _recall_at(scores, np.array([0] * 20 + [1] * 2), 0.05) == 0.5


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 30)), min_size=2, max_size=150), st.sampled_from((0.01, 0.05, 0.2)))
def test_recall_at_a_rate_is_that_of_the_benchmarks(rows, rate):
    labels, scores = (np.array(column) for column in zip(*rows, strict=True))
    theirs = recall_at(rate)(labels, scores.astype(float))
    ours = _recall_at(scores.astype(float), labels.astype(np.int64), rate)
    assert np.isnan(ours) if theirs is None else ours == pytest.approx(theirs)
