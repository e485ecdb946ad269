"""The learning rate over a run: a linear warm-up, then half a cosine down to (almost) zero, or halvings."""

from __future__ import annotations

import math
from typing import Literal

Schedule = Literal["cosine", "halving"]


def learning_rate(
    step: int, steps: int, peak: float, warmup: float, schedule: Schedule = "cosine", halve_every: int = 1
) -> float:
    """Rate of step `step` in 0..steps-1.

    Args:
        step: the step about to be taken.
        steps: length of the run.
        peak: highest rate.
        warmup: share of the steps in [0, 1) in which the rate rises.
        schedule: what comes after the warm-up: `cosine`, or `halving` every `halve_every` steps (counted from step 0).
        halve_every: see above; cosine does not use it.

    Returns:
        A rate above 0 and at most `peak`.
    """
    rising = math.ceil(steps * warmup)
    if step < rising:
        return peak * (step + 1) / rising
    if schedule == "halving":
        return peak * 0.5 ** (step // halve_every)
    progress = (step - rising + 0.5) / (steps - rising)
    return peak * 0.5 * (1 + math.cos(math.pi * progress))
