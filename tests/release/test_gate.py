"""The gate on constructed scores: what must be refused is, by the right guard, and what is better gets through."""

import dataclasses
import json
import math
import random
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loupe.evaluation.slices import KINDS
from loupe.release.gate import (
    CEILING,
    Contender,
    Decision,
    GateError,
    ImageScore,
    Limits,
    Override,
    Verification,
    allowed,
    decide,
    decision_table,
    shown,
    verdict,
)

LIMITS = Limits(
    min_images=4,
    min_gain=0.05,
    min_gain_over_bicubic=0.5,
    max_ssim_loss=0.001,
    max_image_loss=0.2,
    max_patch_loss=0.5,
    max_set_loss=0.05,
    max_slice_loss=0.1,
    max_flat_loss=2.0,
    max_latency_ratio=1.25,
    max_onnx_levels=1,
)
SOUND = Verification(onnx_levels=1, golden_failed=0)
SETS = ("photos", "products")
LEVEL = {"flat": 55.0, "text": 24.0, "edge": 31.0, "texture": 36.0}  # dB before
PIXELS = (200_000, 10_000, 40_000, 50_000)


def image(name: str, gain: float = 0.0, kinds: dict[str, float] | None = None, **changed: Any) -> ImageScore:
    """A score of the picture `name`, such as photos/1, that gains so many dB, some kinds of pixel more or less."""
    base = 30 + 8 * random.Random(name).random()
    decibels = [LEVEL[kind] + gain + (kinds or {}).get(kind, 0.0) for kind in KINDS]
    score = ImageScore(
        set=name.split("/")[0],
        name=name.split("/")[1] + ".png",
        sha256=f"sha of {name}",
        psnr_y=base + gain,
        ssim_y=0.93,
        worst_patch_psnr_y=base - 9 + gain,
        pixels=PIXELS,
        errors=tuple(n * 255**2 / 10 ** (psnr / 10) for n, psnr in zip(PIXELS, decibels, strict=True)),
    )
    return dataclasses.replace(score, **changed)


def side(
    gains: Sequence[float] | float = 0.0, count: int = 6, sha256: str = "a" * 64, ms: float = 10.0, **changed: Any
) -> Contender:
    """A contender with so many pictures a set that gain this, one figure for all or one each."""
    each = [gains] * count if isinstance(gains, float) else list(gains)
    images = tuple(image(f"{name}/{n}", gain, **changed) for name in SETS for n, gain in enumerate(each))
    return Contender("RDN", sha256, images, ms)


def changed(contender: Contender, number: int, **fields: Any) -> Contender:
    """With one picture's score changed."""
    images = list(contender.images)
    images[number] = dataclasses.replace(images[number], **fields)
    return dataclasses.replace(contender, images=tuple(images))


CHAMPION = side()
BETTER = side([0.2, 0.25, 0.3, 0.15, 0.22, 0.28], sha256="b" * 64)


def failed(decision: Decision) -> list[str]:
    return [guard.name for guard in decision.failed]


def judged(challenger: Contender, champion: Contender = CHAMPION, limits: Limits = LIMITS) -> Decision:
    return decide(challenger, champion, limits, SOUND)


def row(decision: Decision, name: str) -> str:
    """The line of the table about one guard."""
    return next(line for line in decision_table(decision).splitlines() if line.startswith(f"{name} "))


def test_a_better_one_is_promoted_and_the_record_says_why() -> None:
    decision = judged(BETTER)
    assert decision.promoted and decision.passed and failed(decision) == []
    assert decision.gain_db == pytest.approx(1.4 / 6)
    assert decision.interval_95 is not None
    low, high = decision.interval_95
    assert 0.15 < low < decision.gain_db < high < 0.3
    assert verdict(decision).startswith("promoted: RDN (bbbbbbbbbbbb) instead of RDN (aaaaaaaaaaaa): +0.23 dB")
    names = [guard.name for guard in decision.guards]
    slices = [f"{name}: {kind}" for name in SETS for kind in KINDS]
    means = [f"{name}: mean" for name in SETS]
    top = ["images", "gain", "SSIM", "5th percentile image", "worst patches"]
    assert names == [*top, *means, *slices, "latency", "ONNX", "golden files"]
    record = json.loads(json.dumps(decision.as_dict(), allow_nan=False))
    assert Decision.from_dict(record | {"measured": {}}) == decision
    assert record["promoted"] is True and record["override"] is None
    assert record["challenger"] == {"label": "RDN", "sha256": "b" * 64}
    assert len(record["gains"]) == 12
    assert record["gains"][0].keys() == {"set", "name", "sha256", "gain_db"}
    assert record["limits"]["min_gain"] == 0.05


WORSE_IN_TEXT = side([0.3, 0.35, 0.3, 0.25, 0.32, 0.28], kinds={"text": -0.6})
PHOTOS_ONLY = dataclasses.replace(
    CHAMPION, images=tuple(image(f"{name}/{n}", 0.5 if name == "photos" else -0.1) for name in SETS for n in range(6))
)


@pytest.mark.parametrize(
    ("challenger", "names", "says"),
    [
        (side(-0.3), {"gain", "5th percentile image", "photos: mean", "products: text"}, "-0.30 dB over RDN"),
        (WORSE_IN_TEXT, {"photos: text", "products: text"}, "24.00 dB before, 23.70 now"),
        (PHOTOS_ONLY, {"products: mean"}, "mean gain over 6 pictures"),
        (side([4.0, -0.1, -0.1, -0.1, -0.1, -0.1]), {"gain"}, "may be luck"),
        (side([0.9, 0.0, 0.0, 0.0, 0.0, 0.0]), {"gain"}, "may be luck"),
        (side(0.3, ssim_y=0.925), {"SSIM"}, "mean change of"),
        (side([0.4, 0.4, 0.4, 0.4, 0.4, -0.3]), {"5th percentile image"}, "/5.png: -0.30 dB"),
        (changed(BETTER, 3, worst_patch_psnr_y=12.0), {"worst patches"}, "of photos/3.png"),
        (dataclasses.replace(BETTER, milliseconds=13.0), {"latency"}, "10 ms before, 13 now"),
        (dataclasses.replace(BETTER, milliseconds=None), {"latency"}, "not measured"),
        (CHAMPION, {"gain"}, "mean +0.00 dB over RDN, 95 % interval +0.00 to +0.00: too little"),
        (side(0.04), {"gain"}, "too little"),
    ],
    ids=[
        "worse", "worse on text", "better on photos only", "luck with losses", "luck", "worse structure",
        "loses one picture", "an artefact", "slower", "not timed", "the same again", "hardly better",
    ],
)  # fmt: skip
def test_what_is_refused_is_refused_for_the_right_reason(challenger: Contender, names: set[str], says: str) -> None:
    decision = judged(challenger)
    assert not decision.promoted
    assert names <= set(failed(decision))
    rows = [row(decision, name) for name in names]
    assert all(" FAILS " in line for line in rows)
    assert any(says in line for line in rows), rows
    assert verdict(decision).startswith("refused: ")
    assert all(name in verdict(decision) for name in names)


@pytest.mark.parametrize(
    ("challenger", "only"),
    [
        (WORSE_IN_TEXT, {"photos: text", "products: text"}),
        (side(0.3, ssim_y=0.925), {"SSIM"}),
        (changed(BETTER, 3, worst_patch_psnr_y=12.0), {"worst patches"}),
        (side(0.04), {"gain"}),
    ],
)
def test_nothing_else_is_held_against_it(challenger: Contender, only: set[str]) -> None:
    assert set(failed(judged(challenger))) == only


def test_too_few_pictures_are_refused_however_clear_they_are() -> None:
    decision = judged(side(1.0, count=3), side(count=3))
    assert failed(decision) == ["images"]
    assert "3 of photos, 3 of products: too few" in row(decision, "images")
    alone = judged(side(1.0, count=1), side(count=1))
    assert failed(alone) == ["images", "gain"]
    assert "one picture of a set tells nothing about others" in row(alone, "gain")


def test_the_same_mean_is_luck_on_few_pictures_and_a_gain_on_many() -> None:
    gains = [0.9, -0.15, 0.0, -0.1, 0.6]  # mean 0.25
    few, many = judged(side(gains), side(count=5)), judged(side(gains * 12), side(count=60))
    assert few.gain_db == pytest.approx(many.gain_db)
    assert "gain" in failed(few)
    assert "gain" not in failed(many)


def test_a_bundle_that_does_not_hold_is_refused() -> None:
    assert failed(decide(BETTER, CHAMPION, LIMITS)) == ["ONNX", "golden files"]
    assert failed(decide(BETTER, CHAMPION, LIMITS, Verification(2, 0))) == ["ONNX"]
    assert failed(decide(BETTER, CHAMPION, LIMITS, Verification(math.nan, 0))) == ["ONNX"]
    broken = decide(BETTER, CHAMPION, LIMITS, Verification(1, 2))
    assert failed(broken) == ["golden files"]
    assert "checks of verify.py that failed" in row(broken, "golden files")
    assert row(broken, "golden files").split()[2:4] == ["FAILS", "2"]


def test_the_first_champion_must_beat_bicubic_by_its_own_margin() -> None:
    bicubic = Contender("bicubic", "", CHAMPION.images)
    first = judged(side(0.7), bicubic)
    assert first.promoted
    assert "latency" not in [guard.name for guard in first.guards]
    assert "instead of bicubic: +0.70 dB" in verdict(first)
    short = judged(BETTER, bicubic)
    assert failed(short) == ["gain"]
    assert "over +0.50 dB" in row(short, "gain")


def test_an_override_is_recorded_with_reason_and_name_and_hides_nothing() -> None:
    override = Override(reason="the label font changed", who="Ada")
    forced = decide(WORSE_IN_TEXT, CHAMPION, LIMITS, SOUND, override)
    assert forced.promoted and not forced.passed
    assert verdict(forced) == (
        "promoted by override of Ada: RDN (aaaaaaaaaaaa) instead of RDN (aaaaaaaaaaaa), though photos: text, "
        "products: text failed: the label font changed"
    )
    assert forced.as_dict()["override"] == {"reason": "the label font changed", "who": "Ada"}
    assert Decision.from_dict(forced.as_dict()) == forced
    assert " FAILS " in row(forced, "photos: text")
    for empty in (Override("", "Ada"), Override("because", " ")):
        with pytest.raises(GateError, match="an override needs a reason, and the name of who decides"):
            decide(WORSE_IN_TEXT, CHAMPION, LIMITS, SOUND, empty)


def test_different_pictures_are_refused() -> None:
    fewer = dataclasses.replace(BETTER, images=BETTER.images[:-5])
    with pytest.raises(
        GateError, match=r"RDN was scored on 7 pictures, RDN on 12.*only one has .* and 2 more; score both"
    ):
        judged(fewer)
    other = changed(BETTER, 0, sha256="another input")
    with pytest.raises(GateError, match=r"only one has photos/0\.png, photos/0\.png; score both on the same pictures"):
        judged(other)
    with pytest.raises(GateError, match="no picture was scored"):
        judged(Contender("RDN", "b", ()), Contender("RDN", "a", ()))


def test_a_picture_that_is_there_twice_is_refused() -> None:
    twice = dataclasses.replace(BETTER, images=(*BETTER.images, image("products/copy", sha256=BETTER.images[0].sha256)))
    with pytest.raises(GateError, match=r"photos/0\.png and products/copy\.png are the same picture"):
        judged(twice)


@pytest.mark.parametrize(
    "fields",
    [
        {"psnr_y": math.nan},
        {"ssim_y": math.nan},
        {"worst_patch_psnr_y": math.nan},
        {"errors": (math.nan, 0.0, 0.0, 0.0)},
        {"errors": (math.inf, 0.0, 0.0, 0.0)},
        {"ssim_y": -math.inf},
    ],
)
def test_what_is_no_number_is_refused(fields: dict[str, Any]) -> None:
    for pair in ((changed(BETTER, 2, **fields), CHAMPION), (BETTER, changed(CHAMPION, 2, **fields))):
        with pytest.raises(GateError, match=r"a score of photos/2\.png is no number"):
            judged(*pair)


@pytest.mark.parametrize("ms", [math.nan, 0.0, -1.0, math.inf])
def test_a_time_that_cannot_be_is_refused(ms: float) -> None:
    with pytest.raises(GateError, match="ms cannot be; measure it again"):
        judged(dataclasses.replace(BETTER, milliseconds=ms))


def test_identical_pictures_are_infinitely_good_and_gains_stay_finite() -> None:
    perfect = {"psnr_y": math.inf, "worst_patch_psnr_y": math.inf, "errors": (0.0,) * 4}
    both = judged(changed(BETTER, 0, **perfect), changed(CHAMPION, 0, **perfect))
    assert both.gains[0].gain_db == 0
    ours = judged(changed(BETTER, 0, **perfect))
    assert ours.gains[0].gain_db == pytest.approx(CEILING - CHAMPION.images[0].psnr_y)
    json.dumps(ours.as_dict(), allow_nan=False)
    lost = judged(BETTER, changed(CHAMPION, 0, **perfect))
    assert "5th percentile image" in failed(lost)


@pytest.mark.parametrize(("before", "now", "passed"), [(80.0, 57.0, True), (80.0, 56.0, False), (50.0, 47.5, False)])
def test_losses_in_flat_areas_have_their_own_limit_and_count_from_the_ceiling(
    before: float, now: float, passed: bool
) -> None:
    """80 dB in flat white is nothing but rounding: 58.9 would be as good."""
    ours, theirs = (side(gain, kinds={"flat": level - LEVEL["flat"]}) for gain, level in ((0.0, now), (0.0, before)))
    flat = [guard for guard in judged(ours, theirs).guards if guard.name.endswith(": flat")]
    assert [guard.passed for guard in flat] == [passed, passed]


def test_kinds_of_a_few_pixels_are_left_out() -> None:
    rare = (*PIXELS[:3], 100)
    decision = judged(side(0.3, pixels=rare), side(pixels=rare))
    names = [guard.name for guard in decision.guards]
    assert "photos: edge" in names
    assert "photos: texture" not in names


def test_names_of_strangers_stay_on_one_line() -> None:
    hostile = changed(changed(BETTER, 0, name="a\n\x1b[2J.png"), 0, psnr_y=20.0)
    table = decision_table(judged(hostile))
    assert "\x1b" not in table
    assert r"'photos/a\n\x1b[2J.png'" in table


def test_figures_carry_units() -> None:
    guards = {guard.name: guard for guard in judged(BETTER).guards}
    assert (shown(guards["latency"]), allowed(guards["latency"])) == ("1.00 times", "at most 1.25 times")
    assert (shown(guards["SSIM"]), allowed(guards["SSIM"])) == ("+0.0000", "at least -0.0010")
    assert (shown(guards["ONNX"]), allowed(guards["ONNX"])) == ("1 level", "at most 1 level")
    assert allowed(guards["gain"]) == "over +0.05 dB"
    assert (shown(guards["images"]), allowed(guards["images"])) == ("6", "at least 4")


Gains = Callable[[float, float], st.SearchStrategy[list[float]]]
some_gains: Gains = lambda low, high: st.lists(st.floats(low, high), min_size=4, max_size=12)  # noqa: E731


@settings(deadline=None, max_examples=60)
@given(some_gains(-5, 0))
def test_a_uniformly_worse_one_is_never_promoted(gains: list[float]) -> None:
    assert not judged(side(gains), side(count=len(gains))).promoted


@settings(deadline=None, max_examples=60)
@given(some_gains(-2, 3), st.floats(0, 1))
def test_of_two_never_both_beat_the_other(gains: list[float], least: float) -> None:
    """With limits that forbid nothing else, so that only the gain decides."""
    lax = Limits(4, least, 0.5, 99, 99, 99, 99, 99, 99, 99, 1)
    one, other = side(gains), side(count=len(gains))
    assert not (judged(one, other, lax).promoted and judged(other, one, lax).promoted)


@settings(deadline=None, max_examples=30)
@given(some_gains(-0.2, 1), st.randoms(use_true_random=False))
def test_the_order_of_pictures_makes_no_difference(gains: list[float], random_: random.Random) -> None:
    ours, theirs = side(gains), side(count=len(gains))

    def shuffled(one: Contender) -> Contender:
        return dataclasses.replace(one, images=tuple(random_.sample(one.images, len(one.images))))

    assert judged(shuffled(ours), shuffled(theirs)) == judged(ours, theirs)


def test_the_mean_counts_sets_alike() -> None:
    many = tuple(image(f"photos/{n}", 0.1) for n in range(60)) + tuple(image(f"products/{n}", 0.5) for n in range(6))
    before = tuple(image(f"{one.set}/{one.name.removesuffix('.png')}") for one in many)
    decision = judged(Contender("RDN", "b", many, 10.0), Contender("RDN", "a", before, 10.0))
    assert decision.gain_db == pytest.approx(np.mean([0.1, 0.5]))
