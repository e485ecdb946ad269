"""Whether the int8 variant may stand beside the float model: what it costs on validation pictures, and the limits.

A mean hides single pixels: int8 can lose 0.05 dB and still be dozens of grey levels off on the rim of a packshot. So
besides PSNR-Y the differences of single samples from the float model's picture have limits, of every picture.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np

from loupe.evaluation.summary import gain
from loupe.imaging.metrics import score
from loupe.imaging.resize import Pixels


@dataclass(frozen=True)
class Limits:
    """The most that int8 may cost: PSNR-Y as the mean of a set, decibels; levels of every picture, as in `Loss`."""

    db: float
    level_9999: float
    level: int


# 0.07 dB is a thirtieth of the gain over bicubic enlargement. The levels were chosen by looking at product shots, four
# times as large: where one sample in 10,000 is 19 levels off and the worst 23, only a difference picture shows it; at
# 40 and 50 every stroke of small letters has a rim and looks softer, though Set5 as a whole loses only 0.02 dB.
LIMITS = Limits(db=0.07, level_9999=12, level=24)


@dataclass(frozen=True)
class Loss:
    """What int8 costs on one picture.

    db: PSNR-Y lost, decibels; negative where int8 is nearer to the original. level_9999, level: 99.99th percentile and
    largest of the absolute differences of all samples (pixels and channels), grey levels.
    """

    db: float
    level_9999: float
    level: int


@dataclass(frozen=True)
class SetLoss:
    """What int8 costs on a data set of `n` pictures: the mean of `db`, the worst picture's `level_9999` and `level`."""

    n: int
    db: float
    level_9999: float
    level: int


def loss(hr: Pixels, sr: Pixels, int8: Pixels, scale: int) -> Loss:
    """Compare the float model's `sr` and the variant's `int8` of one picture; all uint8 [H, W, 3] or [H, W]."""
    off = np.abs(sr.astype(np.int16) - int8)
    db = gain(score(hr, sr, scale).psnr_y, score(hr, int8, scale).psnr_y)
    nearly_all = np.percentile(off, 99.99, method="inverted_cdf")  # a level that occurs
    return Loss(db, float(nearly_all), int(off.max()))


def by_set(losses: Iterable[tuple[str, Loss]]) -> dict[str, SetLoss]:
    """Losses of pictures, each after the name of its set, as figures of sets."""
    pictures: dict[str, list[Loss]] = {}
    for name, one in losses:
        pictures.setdefault(name, []).append(one)
    return {
        name: SetLoss(
            len(found),
            float(np.mean([one.db for one in found])),
            max(one.level_9999 for one in found),
            max(one.level for one in found),
        )
        for name, found in pictures.items()
    }


def refusals(sets: Mapping[str, SetLoss], limits: Limits) -> list[str]:
    """Why the variant is not admitted, a line for each limit that a set breaks; empty if it is admitted."""
    if not sets:
        return ["there are no validation pictures to judge it by"]
    reasons = []
    for name, found in sets.items():
        if not found.db <= limits.db:  # NaN as well
            reasons.append(f"{name}: loses {found.db:.3f} dB PSNR-Y; {limits.db} are allowed")
        if found.level_9999 > limits.level_9999:
            reasons.append(
                f"{name}: one in 10,000 samples of a picture is {found.level_9999:.0f} grey levels off or more; "
                f"{limits.level_9999} are allowed"
            )
        if found.level > limits.level:
            reasons.append(f"{name}: a sample is {found.level} grey levels off; {limits.level} are allowed")
    return reasons
