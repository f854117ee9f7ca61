"""Arithmetic of measurements, without torch."""

from __future__ import annotations

import numpy as np


def auroc(scores: np.ndarray, labels: np.ndarray) -> float:
    """Area under the ROC curve (rank statistic, ties count half); nan where one class is missing."""
    good = int(labels.sum())
    bad = len(labels) - good
    if not good or not bad:
        return float("nan")
    order = np.argsort(scores, kind="stable")
    ranks = np.empty(len(scores))
    values = scores[order]
    start = 0
    for end in range(1, len(values) + 1):
        if end == len(values) or values[end] != values[start]:
            ranks[order[start:end]] = (start + end + 1) / 2
            start = end
    return float((ranks[labels == 1].sum() - good * (good + 1) / 2) / (good * bad))
