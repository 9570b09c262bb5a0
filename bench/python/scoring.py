"""How well a ranking finds what was labelled, point by point, without point adjustment."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def average_precision(score: NDArray[Any], truth: NDArray[np.bool_]) -> tuple[float, float]:
    """Area under precision over recall (a step a threshold), and the best F1 of any; equal scores are one step.

    `score` and `truth` have shape (n_rows,); nothing labelled gives (0, 0).
    """
    if not truth.any():
        return 0.0, 0.0
    order = np.argsort(-score, kind="stable")
    ranked = score[order]
    hits = truth[order].cumsum()
    ends = np.flatnonzero(np.r_[ranked[1:] != ranked[:-1], True])
    precision = hits[ends] / (ends + 1)
    recall = hits[ends] / hits[-1]
    best = 2 * hits[ends] / (ends + 1 + hits[-1])
    return float((np.diff(np.r_[0, recall]) * precision).sum()), float(best.max())


def f1(said: NDArray[np.bool_], truth: NDArray[np.bool_]) -> float:
    """Harmonic mean of precision and recall; 0 where both are empty."""
    return float(2 * (said & truth).sum() / max(int(said.sum() + truth.sum()), 1))
