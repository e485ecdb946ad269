"""The decision rule as a table."""

import pytest

from loupe.quality.decision import Decision, RetrainLimits, should_retrain

LIMITS = RetrainLimits(drift_share=0.25, new_images=100, champion_days=90)
CALM = {"drift_share": 0.0, "drifted": (), "new_images": 12, "champion_days": 3.0}
TWO = ("sharpness", "noise")
NOTHING_NEW = ["no new images since the champion was trained"]


@pytest.mark.parametrize(
    ("changes", "retrain", "reasons"),
    [
        ({}, False, ["no drift", "12 new images (limit 100)", "champion 3 days old (limit 90)"]),
        ({"drift_share": 0.26, "drifted": TWO}, True, ["drift in sharpness, noise (26% of the facts; limit 25%)"]),
        (
            {"drift_share": 0.25, "drifted": TWO, "new_images": 1},
            False,
            [
                "drift in sharpness, noise (25% of the facts; limit 25%)",
                "1 new image (limit 100)",
                "champion 3 days old (limit 90)",
            ],
        ),
        ({"new_images": 100}, True, ["100 new images (limit 100)"]),
        ({"new_images": 214}, True, ["214 new images (limit 100)"]),
        ({"new_images": 99, "champion_days": 89.9}, False, None),
        ({"champion_days": 90.0}, True, ["champion 90 days old (limit 90)"]),
        (
            {"drift_share": 1.0, "drifted": TWO, "new_images": 500, "champion_days": 1000.0},
            True,
            [
                "drift in sharpness, noise (100% of the facts; limit 25%)",
                "500 new images (limit 100)",
                "champion 1000 days old (limit 90)",
            ],
        ),
        # training again on what the champion has seen gives the champion again
        ({"new_images": 0, "champion_days": 1000.0}, False, NOTHING_NEW),
        ({"new_images": 0, "drift_share": 1.0, "drifted": TWO}, False, NOTHING_NEW),
        ({"champion_days": None}, True, ["there is no champion yet"]),
        ({"champion_days": None, "new_images": 0}, True, ["there is no champion yet"]),
    ],
)
def test_the_rule(changes: dict[str, object], retrain: bool, reasons: list[str] | None) -> None:
    decision = should_retrain(**(CALM | changes), limits=LIMITS)  # type: ignore[arg-type]
    assert decision.retrain is retrain
    assert decision.reasons == tuple(reasons or decision.reasons)
    assert decision.reasons


def test_limits_are_of_ones_own() -> None:
    strict = RetrainLimits(drift_share=0.0, new_images=1, champion_days=0.5)
    assert should_retrain(drift_share=0.0, drifted=(), new_images=1, champion_days=0.0, limits=strict) == Decision(
        True, ("1 new image (limit 1)",)
    )
