"""How far a mean over pictures can be trusted: percentile bootstrap. Efron and Tibshirani, 1993, chapter 13."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy import special

RESAMPLES = 10_000
SEED = 0  # the same figures give the same interval

Floats = npt.NDArray[np.float64]


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
    means = _means(figures, len(figures), np.random.default_rng(SEED))
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def interval_of_groups(groups: Sequence[Sequence[float]], level: float = 0.95) -> tuple[float, float] | None:
    """The interval of the mean of the groups' means: groups count alike, however many pictures each holds.

    For decisions, so two things keep it honest where pictures are few. One less than there are is drawn from each
    group, without which means of resamples vary too little (Rao and Wu, "Resampling inference with complex survey
    data", 1988). And the tails are cut where Student's t would cut them, with Welch's degrees of freedom (Hesterberg,
    "What teachers should know about the bootstrap", 2015). Of two groups of four normal figures, 3 % of means lie below
    an interval of 95 %; without both, 7 %. Rare large losses that none of the pictures shows are beyond any interval.

    Args:
        groups: one figure a picture, by group; the order within a group makes no difference.
        level: in (0, 1).

    Returns:
        Lower and upper end; None if a group has fewer than two pictures, there is none, or a figure is not finite.
    """
    figures = [np.sort(np.asarray(values, np.float64)) for values in groups]
    if not figures or any(len(values) < 2 or not np.isfinite(values).all() for values in figures):
        return None
    variances = np.array([values.var(ddof=1) / len(values) for values in figures])
    if not variances.any():
        mean = float(np.mean([values.mean() for values in figures]))
        return mean, mean
    draws = np.random.default_rng(SEED)
    means = np.mean([_means(values, len(values) - 1, draws) for values in figures], axis=0)
    freedom = variances.sum() ** 2 / sum(
        variance**2 / (len(values) - 1) for variance, values in zip(variances, figures, strict=True)
    )
    tail = float(special.ndtr(special.stdtrit(freedom, (1 - level) / 2)))
    low, high = np.quantile(means, [tail, 1 - tail])
    return float(low), float(high)


def _means(figures: Floats, size: int, draws: np.random.Generator) -> Floats:
    """Means of RESAMPLES draws of so many `figures`, with replacement."""
    chunk = max(1, 2**22 // size)  # rows at a time, so that memory stays small
    return np.concatenate(
        [
            figures[draws.integers(len(figures), size=(min(chunk, RESAMPLES - start), size))].mean(axis=1)
            for start in range(0, RESAMPLES, chunk)
        ]
    )
