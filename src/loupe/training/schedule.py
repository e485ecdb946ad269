"""The learning rate over a run: a linear warm-up, then half a cosine down to (almost) zero."""

from __future__ import annotations

import math


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """Rate of step `step` in 0..steps-1.

    Args:
        step: the step about to be taken.
        steps: length of the run.
        peak: highest rate.
        warmup: share of the steps in [0, 1) in which the rate rises.

    Returns:
        A rate above 0 and at most `peak`.
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    progress = (step - rising + 0.5) / (steps - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
