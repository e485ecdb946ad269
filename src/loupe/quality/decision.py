"""When to train anew: one pure function of what happened since the network in use was trained."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class RetrainLimits:
    """The parameters `retrain`; profiles/sample.yaml gives the reason of each.

    drift_share: of the compared facts, 0 to 1; more than this is too much. new_images, champion_days: so many are
    enough.
    """

    drift_share: float
    new_images: int
    champion_days: float


@dataclass(frozen=True)
class Decision:
    """Whether to train anew, and why, or why not, in a few words each: never empty."""

    retrain: bool
    reasons: tuple[str, ...]


def should_retrain(
    *,
    drift_share: float,
    drifted: Sequence[str],
    new_images: int,
    champion_days: float | None,
    limits: RetrainLimits,
) -> Decision:
    """Decide whether to train anew.

    Training is deterministic: on the pictures that the champion has seen it would give the champion again, and the
    same decision tomorrow. So nothing is a reason where no picture is new.

    Args:
        drift_share: share of the compared facts of the new pictures that drifted, 0 to 1; 0 if there were too few to
            tell. See `loupe.quality.drift.Drift`.
        drifted: the names of these facts.
        new_images: pictures accepted since the champion was trained.
        champion_days: age of the champion, days; None if there is none yet.
        limits: see there.

    Returns:
        The decision. Its reasons are those whose limit was reached, or, if none was, all of them.
    """
    if champion_days is None:
        return Decision(True, ("there is no champion yet",))
    if new_images <= 0:
        return Decision(False, ("no new images since the champion was trained",))
    share = f"{drift_share:.0%} of the facts; limit {limits.drift_share:.0%}"
    rules = (
        (drift_share > limits.drift_share, f"drift in {', '.join(drifted)} ({share})" if drifted else "no drift"),
        (
            new_images >= limits.new_images,
            f"{new_images} new image{'s' * (new_images > 1)} (limit {limits.new_images})",
        ),
        (
            champion_days >= limits.champion_days,
            f"champion {champion_days:.0f} days old (limit {limits.champion_days:g})",
        ),
    )
    reached = tuple(reason for met, reason in rules if met)
    return Decision(bool(reached), reached or tuple(reason for _, reason in rules))
