"""Patches of pictures whose errors are known, and lists of the best and the worst that are known."""

import io
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from loupe.evaluation.ranking import (
    HIGHEST,
    LOWEST,
    MAX_FLAT,
    MIN_COMPLEXITY,
    NEAR,
    SIDE,
    complexity_curve,
    patch_scores,
    select,
    worst_patch,
)
from loupe.evaluation.slices import kinds_of
from loupe.imaging.metrics import luma, psnr, shave
from loupe.imaging.resize import Pixels

WHOLE = (2 * SIDE + 4, 3 * SIDE + 4)  # two by three patches of SIDE, and the border of scale 2


def textured(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(60, 190, (height, width), np.uint8)


def scores(hr: Pixels, error: Any = 0, bicubic_error: Any = 0, scale: int = 2) -> pd.DataFrame:
    """Scores of pictures whose luma is off by so many grey levels."""
    y = luma(hr).astype(np.float32)
    off, bicubic_off = (y + np.asarray(value, np.float32) for value in (error, bicubic_error))
    return patch_scores(hr, y, off, bicubic_off, kinds_of(hr), scale)


def test_an_error_in_one_patch_is_the_psnr_of_that_patch() -> None:
    error = np.zeros(WHOLE)
    error[2 + SIDE : 2 + 2 * SIDE, 2 + SIDE : 2 + 2 * SIDE] = 5
    table = scores(textured(*WHOLE), error, 10)
    assert table[["y", "x"]].to_numpy().tolist() == [[y, x] for y in (2, 98) for x in (2, 98, 194)]
    assert (table[["height", "width"]] == SIDE).all(axis=None)
    known = 20 * math.log10(255 / 5)
    bicubic = 20 * math.log10(255 / 10)
    assert table["psnr_y"].tolist() == [math.inf, math.inf, math.inf, math.inf, pytest.approx(known), math.inf]
    assert table["error"].tolist() == [0, 0, 0, 0, pytest.approx(25), 0]
    assert table["bicubic_psnr_y"].tolist() == pytest.approx([bicubic] * 6)
    assert table["gain_db"].tolist() == [math.inf] * 4 + [pytest.approx(known - bicubic), math.inf]


@pytest.mark.parametrize("shape", [WHOLE, (204, 408), (36, 1200), (12, 12)])
def test_the_worst_patch_is_that_of_the_lowest_psnr(shape: tuple[int, int]) -> None:
    error = np.random.default_rng(2).normal(0, 9, shape).astype(np.float32)
    expected = scores(textured(*shape), error)["psnr_y"].min()
    assert worst_patch(shave(np.square(error), 2), 2) == pytest.approx(expected, abs=1e-3)  # type: ignore[arg-type]
    assert worst_patch(np.zeros((40, 40), np.float32), 2) == math.inf


def test_nothing_gained_where_both_are_perfect() -> None:
    assert scores(textured(40, 40))["gain_db"].tolist() == [0]


@pytest.mark.parametrize("scale", [2, 3, 4])
@pytest.mark.parametrize("shape", [(600, 300), (204, 408), (144, 156), (36, 1200), (12, 12)])
def test_every_scored_pixel_is_in_one_patch(shape: tuple[int, int], scale: int) -> None:
    error = np.random.default_rng(1).normal(0, 9, shape)
    hr = textured(*shape)
    table = scores(hr, error, scale=scale)
    covered = np.zeros(shape, int)
    for y, x, height, width in table[["y", "x", "height", "width"]].to_numpy():
        covered[y : y + height, x : x + width] += 1
        assert not any(value % scale for value in (y, x, height, width))
        assert max(height, width) < 1.5 * SIDE + scale
    assert (shave(covered, scale) == 1).all()
    assert covered.sum() == shave(covered, scale).size
    pooled = (table["error"] * table["height"] * table["width"]).sum() / covered.sum()
    y = luma(hr)
    whole = psnr(shave(y, scale), shave(y + error, scale))
    assert 10 * math.log10(255**2 / pooled) == pytest.approx(whole, abs=1e-4)


def test_the_border_does_not_count_and_nothing_within_it_is_refused() -> None:
    error = np.full((40, 50), 30.0)
    error[2:-2, 2:-2] = 0
    (row,) = scores(textured(40, 50), error).to_dict("records")
    assert (row["y"], row["x"], row["height"], row["width"]) == (2, 2, 36, 46)
    assert row["psnr_y"] == math.inf
    with pytest.raises(ValueError, match="too small to score"):
        scores(textured(4, 4))


def test_complexity_is_the_gradient_in_grey_levels_per_pixel() -> None:
    y, x = np.mgrid[:64, :64]
    (row,) = scores((2 * x).astype(np.uint8)).to_dict("records")
    assert row["complexity"] == pytest.approx(2 * 59 / 60)  # the last of 60 columns has no neighbour
    assert scores((2 * y).astype(np.uint8))["complexity"].tolist() == pytest.approx([2 * 59 / 60])
    (row,) = scores((x + y).astype(np.uint8)).to_dict("records")
    assert row["complexity"] == pytest.approx((59 * 59 * math.sqrt(2) + 2 * 59) / 60**2)
    step = np.full((100, 196), 50, np.uint8)
    step[:, 98:] = 60  # between two patches: it is the left one's
    assert scores(step)["complexity"].tolist() == pytest.approx([10 / 96, 0])


def test_shares_of_flat_and_white_pixels() -> None:
    hr = textured(100, 196)[..., None].repeat(3, axis=2)
    hr[:, 98:] = 250
    hr[:50, 98:, 2] = 249
    table = scores(hr)
    assert table["white"].tolist() == [0, 0.5]
    assert table["flat"][0] < 0.01
    assert 0.95 < table["flat"][1] < 1  # but for its left rim


def test_gray_and_colour_have_one_fingerprint_and_recompression_keeps_it() -> None:
    gray = np.kron(textured(25, 25), np.ones((8, 8), np.uint8))[:196, :196]
    stream = io.BytesIO()
    Image.fromarray(gray).save(stream, format="JPEG", quality=60)
    first, colour, again, other = (
        scores(hr)["fingerprint"].tolist()
        for hr in (
            gray,
            gray[..., None].repeat(3, axis=2),
            np.asarray(Image.open(stream)),
            np.ascontiguousarray(gray[::-1]),
        )
    )
    for mine, its, near, far in zip(first, colour, again, other, strict=True):
        assert (mine ^ its).bit_count() <= NEAR
        assert (mine ^ near).bit_count() <= NEAR
        assert (mine ^ far).bit_count() > 2 * NEAR


def test_empty_patches_look_alike_whatever_their_brightness_and_noise() -> None:
    noise = np.random.default_rng(0).integers(-1, 2, (100, 100))
    prints = [
        scores((level + noise * much).astype(np.uint8))["fingerprint"][0] for level in (9, 250) for much in (0, 1)
    ]
    assert len(set(prints)) == 1


def rows(count: int, **columns: Any) -> pd.DataFrame:
    """Rows as `patch_scores` gives, each of its own picture, and unlike the others."""
    prints = np.random.default_rng(count).integers(0, 2**64, count, np.uint64)
    known = {"y": 2, "x": 2, "psnr_y": 30.0, "error": 65.0, "complexity": 9.0, "flat": 0.1, "fingerprint": prints}
    names = [f"{number:04}.png" for number in range(count)]
    return pd.DataFrame({"set": "photos", "image": names, **known, **columns})


def test_the_best_and_the_worst_come_in_order() -> None:
    table = rows(9, psnr_y=[31.0, 38, 35, math.inf, 30, 33, 32, 39, 34], error=[1.0, 1, 1, 0, 1, 1, 1, 1, 1])
    best, worst = select(table, 3)
    assert best.index.tolist() == [3, 7, 1]
    assert worst.index.tolist() == [4, 0, 6]
    assert list(best.columns) == list(worst.columns) == list(table.columns)
    assert [len(rows) for rows in select(table, 20)] == [9, 8]  # what is without error is not among the worst


def test_the_best_can_be_those_that_gain_most() -> None:
    table = rows(4, psnr_y=[31.0, 38, 35, 33], gain=[3.0, 1, math.nan, 4])
    best, worst = select(table, 3, best="gain")
    assert best.index.tolist() == [3, 0, 1]
    assert worst.index.tolist() == [0, 3, 2]


def test_empty_patches_do_not_flood_the_best_but_can_be_the_worst() -> None:
    white = scores(np.full((980, 980), 255, np.uint8)).assign(set="shop", image="white.png")
    assert len(white) == 100
    assert (white["psnr_y"] == math.inf).all()
    noisy = scores(np.full((100, 100), 255, np.uint8), 40).assign(set="shop", image="noisy.png")
    knit = scores(textured(100, 196), 3).assign(set="shop", image="knit.png")
    best, worst = select(pd.concat([white, noisy, knit], ignore_index=True), 12)
    assert best["image"].tolist() == ["knit.png", "knit.png"]
    assert worst["image"].tolist() == ["noisy.png", "knit.png", "knit.png"]


def test_what_shows_too_little_is_not_among_the_best() -> None:
    table = rows(
        4,
        psnr_y=[40.0, 39, 38, 37],
        complexity=[MIN_COMPLEXITY - 0.01, MIN_COMPLEXITY, 9, 9],
        flat=[0, 0, MAX_FLAT + 0.01, MAX_FLAT],
    )
    best, worst = select(table, 4)
    assert best.index.tolist() == [1, 3]
    assert worst.index.tolist() == [3, 2, 1, 0]


def test_what_looks_alike_is_shown_once() -> None:
    near = (1 << NEAR) - 1
    prints = np.array([0, near, 2 * near + 1, 0], np.uint64)  # NEAR bits from the first, NEAR + 1 bits, none
    best, worst = select(rows(4, psnr_y=[33.0, 32, 31, 30], fingerprint=prints), 4)
    assert best.index.tolist() == [0, 2]
    assert worst.index.tolist() == [3, 2]


def test_one_picture_does_not_fill_a_list() -> None:
    table = rows(8, psnr_y=np.arange(30.0, 38), image=["a"] * 7 + ["b"])
    best, worst = select(table, 4)
    assert best.index.tolist() == [7, 6, 5]
    assert worst.index.tolist() == [0, 1, 7]
    assert len(select(table, 4, per_picture=1)[0]) == 2
    same_name = table.assign(set=list("abcdefgh"))
    assert len(select(same_name, 8)[0]) == 8


def test_ties_do_not_depend_on_the_order_of_rows() -> None:
    table = rows(
        60, y=[2, 98, 194] * 20, x=[2, 98] * 30, image=[name for name in "abcdefghijklmnopqrst" for _ in "123"]
    )
    for lists in zip(select(table, 7), select(table.sample(frac=1, random_state=3), 7), strict=True):
        assert lists[0].index.tolist() == lists[1].index.tolist() == [0, 1, 3, 4, 6, 7, 9]


def test_the_curve_of_known_patches() -> None:
    inside = rows(10, complexity=1.1, psnr_y=np.arange(41.0, 51), bicubic_psnr_y=np.arange(31.0, 41))
    perfect = rows(4, complexity=2.5, psnr_y=[50.0, 51, math.inf, math.inf], bicubic_psnr_y=40.0)
    beyond = rows(1, complexity=9 * HIGHEST, psnr_y=20.0, bicubic_psnr_y=19.0)
    left_out = [
        rows(5, complexity=0.9 * LOWEST, psnr_y=math.inf, bicubic_psnr_y=math.inf),
        rows(5, complexity=1.1, psnr_y=math.nan, bicubic_psnr_y=1.0),
    ]
    curve = complexity_curve(pd.concat([inside, perfect, beyond, *left_out]), bins=8)
    assert curve["low"].tolist() == pytest.approx([1, 2, 32])
    assert curve["high"].tolist() == pytest.approx([2, 4, HIGHEST])
    assert curve["count"].tolist() == [10, 4, 1]
    assert curve.drop(columns=["low", "high", "count"]).to_dict("list") == {
        "psnr_y_10": [41, 50, 20],
        "psnr_y_50": [45, 51, 20],
        "psnr_y_90": [49, math.inf, 20],
        "bicubic_psnr_y_10": [31, 40, 19],
        "bicubic_psnr_y_50": [35, 40, 19],
        "bicubic_psnr_y_90": [39, 40, 19],
    }


def test_no_patches_no_rows() -> None:
    nothing = rows(0, bicubic_psnr_y=30.0)
    assert [len(found) for found in select(nothing, 3)] == [0, 0]
    assert len(complexity_curve(nothing)) == 0
    assert "psnr_y_50" in complexity_curve(nothing)
