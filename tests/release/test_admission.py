"""What int8 may cost: the decision, and the figures it rests on."""

import math

import numpy as np
import pytest
from tests.conftest import picture

from loupe.release.admission import Limits, Loss, SetLoss, by_set, loss, refusals

LIMITS = Limits(db=0.07, level_9999=8, level=24)


@pytest.mark.parametrize(
    ("sets", "reasons"),
    [
        ({"photos": SetLoss(4, 0.07, 8, 24)}, []),
        ({"photos": SetLoss(4, -0.01, 0, 0)}, []),
        ({"photos": SetLoss(4, 0.071, 8, 24)}, ["photos: loses 0.071 dB PSNR-Y; 0.07 are allowed"]),
        ({"photos": SetLoss(4, math.nan, 8, 24)}, ["photos: loses nan dB"]),
        ({"photos": SetLoss(4, math.inf, 8, 24)}, ["photos: loses inf dB"]),
        ({"photos": SetLoss(4, 0.0, 9, 24)}, ["photos: one in 10,000 samples of a picture is 9 grey levels off"]),
        ({"photos": SetLoss(4, 0.0, 8, 25)}, ["photos: a sample is 25 grey levels off; 24 are allowed"]),
        (
            {"photos": SetLoss(4, 0.02, 2, 5), "products": SetLoss(6, 0.5, 30, 49)},
            ["products: loses 0.500", "products: one in 10,000", "products: a sample is 49"],
        ),
        ({}, ["no validation pictures"]),
    ],
)
def test_every_limit_holds_for_every_set(sets: dict[str, SetLoss], reasons: list[str]) -> None:
    found = refusals(sets, LIMITS)
    assert len(found) == len(reasons)
    for line, reason in zip(found, reasons, strict=True):
        assert reason in line


def test_a_single_wrong_pixel_is_seen_though_the_mean_hides_it() -> None:
    hr = picture(1, 200, 200)
    sr = np.clip(hr.astype(int) + np.random.default_rng(0).integers(-9, 10, hr.shape), 0, 255).astype(np.uint8)
    int8 = sr.copy()
    int8[100, 100] = sr[100, 100] ^ 64
    found = loss(hr, sr, int8, 2)
    assert abs(found.db) < 0.07
    assert found.level == 64
    assert found.level_9999 == 0, "3 of 120,000 samples"
    int8[100, 100:105] = sr[100, 100:105] ^ 64
    assert loss(hr, sr, int8, 2).level_9999 == 64, "15 of 120,000 samples"


def test_equal_pictures_cost_nothing() -> None:
    pixels = picture(1)
    assert loss(pixels, pixels, pixels, 2) == Loss(0.0, 0.0, 0)


def test_a_set_has_the_mean_loss_and_the_worst_pictures_levels() -> None:
    losses = [("a", Loss(0.125, 3, 9)), ("b", Loss(0.0, 0, 0)), ("a", Loss(0.375, 1, 20))]
    assert by_set(losses) == {"a": SetLoss(2, 0.25, 3, 20), "b": SetLoss(1, 0.0, 0, 0)}
