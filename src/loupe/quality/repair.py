"""What can be done for a picture that is not fit as it is, without inventing anything: make it smaller.

A picture whose pixels are all there two or three times is halved or thirded: that is what it was made from. One that
JPEG has damaged is halved by an antialiased filter: blocks of 8 become blocks of 4, and errors average.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from loupe.imaging.facts import Facts
from loupe.imaging.resize import Pixels, downscale
from loupe.quality.gate import Limit, Limits

MOST = 3  # repairs of one picture: x4 by doubling twice, then its blocks
REPEATS = (2, 3)


@dataclass(frozen=True)
class Repaired:
    """pixels: uint8 [H, W, 3] or [H, W], smaller than before. change: what was done, and why."""

    pixels: Pixels
    change: str


def needs_repair(facts: Facts, limits: Limits) -> bool:
    """Whether `repaired` does anything for a picture with these facts."""
    return _repeats(facts, limits) or bool(_damage(facts, limits))


def repaired(pixels: Pixels, facts: Facts, limits: Limits) -> Repaired:
    """The picture, made smaller for the most serious of its faults.

    Args:
        pixels: uint8 [H, W, 3] or [H, W], upright.
        facts: its facts, for which `needs_repair` says yes.
        limits: what is allowed.
    """
    if _repeats(facts, limits):
        factor = min(REPEATS, key=lambda factor: repetition_error(pixels, factor))
        reason = f"its pixels were repeated (doubling {facts.doubling:.2f})"
        return Repaired(_reduced(pixels, factor), f"reduced to 1/{factor}: {reason}")
    return Repaired(downscale(pixels, 2), f"reduced to 1/2: {_damage(facts, limits)}")


def repetition_error(pixels: Pixels, factor: int) -> float:
    """Mean difference in levels between uint8 [H, W, ...] and the same with blocks of factor x factor made even."""
    even = np.repeat(np.repeat(_reduced(pixels, factor), factor, axis=0), factor, axis=1)
    even = even[: pixels.shape[0], : pixels.shape[1]]
    return float(np.abs(pixels.astype(np.int16) - even).mean())


def _reduced(pixels: Pixels, factor: int) -> Pixels:
    """Means of blocks of factor x factor pixels; where all pixels of a block are equal, exactly these."""
    return np.asarray(Image.fromarray(pixels).reduce(factor))


def _repeats(facts: Facts, limits: Limits) -> bool:
    return facts.doubling > _first(limits.max_doubling)


def _damage(facts: Facts, limits: Limits) -> str:
    """What JPEG has done to a picture; "" for nothing that counts."""
    if facts.blockiness > _first(limits.max_blockiness):
        return f"JPEG had left its grid (blockiness {facts.blockiness:.2f})"
    quality = limits.min_jpeg_quality
    if facts.jpeg_quality < max(bound for bound in (quality.critical, quality.warning, 0.0) if bound is not None):
        return f"JPEG had rounded it coarsely (quality {facts.jpeg_quality:.0f})"
    return ""


def _first(limit: Limit) -> float:
    """Where a fact that is too large first deserves a word; NaN is never beyond."""
    return min(bound for bound in (limit.critical, limit.warning, float("inf")) if bound is not None)
