"""How far a mean over pictures can be trusted: percentile bootstrap. Efron and Tibshirani, 1993, chapter 13."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

RESAMPLES = 10_000
SEED = 0  # the same figures give the same interval


def interval(values: Sequence[float], level: float = 0.95) -> tuple[float, float] | None:
    """The interval that holds the mean with probability `level`, if pictures like these were drawn again.

    Args:
        values: one figure a picture.
        level: in (0, 1).

    Returns:
        Lower and upper end; None for fewer than two pictures, of which nothing can be said, or if one is not finite.
    """
    figures = np.asarray(values, np.float64)
    if len(figures) < 2 or not np.isfinite(figures).all():
        return None
    draws = np.random.default_rng(SEED)
    chunk = max(1, 2**22 // len(figures))  # rows at a time, so that memory stays small
    means = np.concatenate(
        [
            figures[draws.integers(len(figures), size=(min(chunk, RESAMPLES - start), len(figures)))].mean(axis=1)
            for start in range(0, RESAMPLES, chunk)
        ]
    )
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)
