"""Kinds of pixels on pictures whose kinds are known, and intervals of known figures."""

import math

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFont
from tests.conftest import picture

from loupe.evaluation.intervals import interval
from loupe.evaluation.slices import KINDS, kinds_of
from loupe.imaging.resize import Pixels


def shares(kinds: Pixels) -> dict[str, float]:
    return {name: float((kinds == number).mean()) for number, name in enumerate(KINDS)}


def test_one_colour_is_flat_whatever_the_noise_of_compression() -> None:
    rng = np.random.default_rng(0)
    noisy = (240 + rng.integers(-2, 3, (60, 80, 1))).repeat(3, axis=2).astype(np.uint8)
    assert shares(kinds_of(noisy))["flat"] == 1
    assert shares(kinds_of(np.zeros((1, 1, 3), np.uint8)))["flat"] == 1


@pytest.mark.parametrize("turned", [False, True])
def test_a_step_is_an_edge_between_flats(turned: bool) -> None:
    step = np.full((60, 60), 40, np.uint8)
    step[:, 30:] = 200
    kinds = kinds_of(step.T if turned else step)
    kinds = kinds.T if turned else kinds
    assert (kinds[:, 28:32] == KINDS.index("edge")).all()
    assert (kinds[:, :28] == KINDS.index("flat")).all()
    assert (kinds[:, 32:] == KINDS.index("flat")).all()


def test_noise_is_texture() -> None:
    noise = np.random.default_rng(0).integers(60, 190, (80, 80), np.uint8)
    assert shares(kinds_of(noise))["texture"] > 0.85


@pytest.mark.parametrize(("ink", "paper"), [(20, 250), (250, 30), (110, 255)])
def test_text_is_text(ink: int, paper: int) -> None:
    page = Image.new("L", (300, 120), paper)
    draw = ImageDraw.Draw(page)
    draw.multiline_text((10, 10), "Solid oak table\n180 x 90 cm\nmade in Bremen", ink, ImageFont.load_default(20))
    kinds = kinds_of(np.asarray(page))
    inked = np.asarray(page) != paper
    assert (kinds[inked] == KINDS.index("text")).mean() > 0.85
    assert (kinds[:, 250:] == KINDS.index("flat")).all()


def test_a_photograph_holds_little_text() -> None:
    assert shares(kinds_of(picture(3, 200, 200)))["text"] < 0.3


def test_colour_and_gray_agree() -> None:
    gray = picture(1)[..., 0]
    colour = gray[..., None].repeat(3, axis=2)
    assert (kinds_of(gray) == kinds_of(colour)).mean() > 0.8  # luma of colour spans 219 levels of 255


def test_the_interval_of_known_figures() -> None:
    figures = np.random.default_rng(1).normal(30, 2, 400)
    found = interval(figures.tolist())
    assert found is not None
    half = 1.96 * figures.std() / math.sqrt(400)
    assert found == pytest.approx((figures.mean() - half, figures.mean() + half), abs=0.02)
    assert found == interval(figures.tolist())
    assert interval([3.0, 3.0, 3.0]) == (3.0, 3.0)
    two = interval([10.0, 20.0])
    assert two == (10.0, 20.0)


def test_nothing_is_said_of_one_picture_or_of_infinity() -> None:
    assert interval([30.0]) is None
    assert interval([]) is None
    assert interval([30.0, math.inf]) is None
