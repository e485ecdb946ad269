"""Colours of known errors, and bars that say what they mean."""

import io

import matplotlib
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image, ImageFont

from loupe.evaluation.heatmap import (
    BAR_HEIGHT,
    DIFFERENCE_TOP,
    LAST,
    MARGIN,
    NARROWEST,
    TEXT,
    TOP,
    Plane,
    ScaleBar,
    difference,
    difference_bar,
    error_bar,
    heat_map,
    png,
    squared_error,
    with_bar,
)


def plane(*values: float) -> Plane:
    return np.array([values], np.float32)


def colours(picture: Image.Image) -> list[tuple[int, ...]]:
    return [tuple(pixel) for pixel in np.asarray(picture.convert("RGB"))[0].tolist()]


def rgb(stop: str) -> tuple[int, ...]:
    return tuple(bytes.fromhex(stop.removeprefix("#")))


def palette(picture: Image.Image) -> npt.NDArray[np.int64]:
    return np.array(picture.getpalette(), np.int64).reshape(256, 3)


def test_the_error_is_squared_and_of_one_byte_a_colour() -> None:
    error = squared_error(np.array([[16.0, 235.0]]), np.array([[19.0, 230.5]]))
    assert error.dtype == np.float32
    assert error.tolist() == [[9, 20.25]]
    picture = heat_map(np.zeros((3, 5), np.float32))
    assert (picture.mode, picture.size) == ("P", (5, 3))


def test_no_error_has_the_first_colour_and_top_and_more_the_last() -> None:
    first, half, last, beyond = colours(heat_map(plane(0, TOP / 16, TOP, 65025)))
    assert first == rgb("000004")
    assert half == rgb("b63779")
    assert last == beyond == rgb("fcfdbf")
    assert np.asarray(heat_map(plane(0, TOP / 16, TOP, 65025))).tolist() == [[0, LAST // 2, LAST, LAST]]


def test_more_error_never_has_a_lower_colour_and_small_ones_show() -> None:
    places = np.asarray(heat_map(np.linspace(0, 1.1 * TOP, 5000, dtype=np.float32)[None]))[0].astype(int)
    assert (np.diff(places) >= 0).all()
    fine = np.asarray(heat_map(plane(*np.linspace(0, TOP**0.25, 2000) ** 4)))[0]
    assert sorted(set(fine.tolist())) == list(range(LAST + 1))
    assert np.asarray(heat_map(plane(1)))[0, 0] > 0.15 * LAST


def test_the_range_does_not_depend_on_the_picture_unless_asked() -> None:
    alone, beside = heat_map(plane(25, 0)), heat_map(plane(25, 9000))
    assert colours(alone)[0] == colours(beside)[0]
    assert colours(heat_map(plane(25, 0), top=25))[0] == rgb("fcfdbf")
    with pytest.raises(ValueError, match="must be above 0, not 0"):
        heat_map(plane(0), top=0)
    with pytest.raises(ValueError, match="must be above 0"):
        difference(plane(0), plane(0), top=-1)


def test_better_is_blue_worse_is_red_and_equal_is_neutral() -> None:
    champion = plane(0, 49, 400, 25, 9, 900)
    challenger = plane(0, 49, 0, 0, 64, 10_000)
    picture = difference(challenger, champion)
    places = np.asarray(picture)[0].tolist()
    assert places == [LAST // 2, LAST // 2, 0, LAST // 4, LAST * 3 // 4, LAST]
    neutral, also, much_better, better, worse, much_worse = colours(picture)
    assert neutral == also == rgb("f7f7f7")
    assert much_better == rgb("053061")
    assert much_worse == rgb("67001f")
    assert better[2] > better[0]
    assert worse[0] > worse[2]


def test_the_difference_is_symmetric() -> None:
    one, other = (np.random.default_rng(seed).uniform(0, 500, (1, 999)).astype(np.float32) for seed in (1, 2))
    there, back = (np.asarray(difference(*pair)).astype(int) for pair in ((one, other), (other, one)))
    assert np.abs(there + back - LAST).max() <= 1  # rounding
    assert colours(difference(one, other, top=1e6)) == [rgb("f7f7f7")] * 999


def test_colours_are_those_of_matplotlib() -> None:
    for picture, name in ((heat_map(plane(0)), "magma"), (difference(plane(0), plane(0)), "RdBu_r")):
        ours = palette(picture)[: LAST + 1]
        theirs = matplotlib.colormaps[name](np.linspace(0, 1, LAST + 1))[:, :3] * 255
        assert np.abs(ours - theirs).max() < 4


@pytest.mark.parametrize("top", [0.3, 7, TOP, 65025])
def test_ticks_of_the_error_stand_where_errors_have_their_colours(top: float) -> None:
    bar = error_bar(top)
    assert bar.ticks[0] == (0, "0")
    assert bar.ticks[-1] == (1, f">= {top:.4g}")
    for place, label in bar.ticks[:-1]:
        assert np.asarray(heat_map(plane(float(label)), top))[0, 0] == pytest.approx(place * LAST, abs=0.51)
    gaps = np.diff([place for place, _ in bar.ticks])
    assert gaps.min() > 0.08
    assert "grey levels squared" in bar.title


def test_ticks_of_the_default_bars() -> None:
    assert [label for _, label in error_bar().ticks] == ["0", "1", "10", "100", ">= 1600"]
    assert [label for _, label in difference_bar().ticks] == [">= 10 better", "5", "0", "5", ">= 10 worse"]
    places = [place for place, _ in difference_bar().ticks]
    champion = np.full((1, 5), 900, np.float32)
    challenger = (30 + DIFFERENCE_TOP * plane(-1, -0.5, 0, 0.5, 1)) ** 2
    assert np.asarray(difference(challenger, champion))[0].tolist() == [LAST * place for place in places]


@pytest.mark.parametrize("bar", [error_bar(), difference_bar()])
def test_a_page_shows_the_colours_of_the_picture(bar: ScaleBar) -> None:
    known = heat_map(plane(0)) if bar == error_bar() else difference(plane(0), plane(0))
    drawn = palette(known)
    at = np.linspace(0, LAST, len(bar.stops))
    assert [tuple(drawn[int(place)].tolist()) for place in at] == [rgb(stop) for stop in bar.stops]
    assert (at == at.astype(int)).all()
    assert bar.css.startswith(f"linear-gradient(to right, {bar.stops[0]}, {bar.stops[1]}, ")
    assert ImageFont.load_default(TEXT).getlength(bar.title) < NARROWEST - 2 * MARGIN


@pytest.mark.parametrize("size", [(30, 20), (900, 50)])
def test_a_picture_with_its_bar_stands_alone(size: tuple[int, int]) -> None:
    width, height = size
    error = np.random.default_rng(0).uniform(0, 2 * TOP, (height, width)).astype(np.float32)
    picture = heat_map(error)
    whole = with_bar(picture, error_bar())
    assert whole.mode == "P"
    assert whole.width == max(width, NARROWEST)
    pixels, known = np.asarray(whole.convert("RGB")), np.asarray(picture.convert("RGB"))
    np.testing.assert_array_equal(pixels[:height, :width], known)
    below = pixels[height:].astype(int)
    assert (pixels[:height, width:] == 255).all()
    assert (below[0] == 255).all()
    assert (below[-1] == 255).all()
    (bar_rows,) = np.nonzero(
        (below[:, MARGIN] == rgb("000004")).all(axis=1) & (below[:, MARGIN - 1] == 255).all(axis=1)
    )
    assert len(bar_rows) == BAR_HEIGHT
    drawn = below[bar_rows[0]]
    length = np.flatnonzero((drawn == rgb("fcfdbf")).all(axis=1))[-1] + 1 - MARGIN
    assert (drawn[MARGIN + length :] == 255).all()
    ticks = np.flatnonzero((below[bar_rows[-1] + 1] == 0).all(axis=1))
    assert ticks.tolist() == [MARGIN + round(place * (length - 1)) for place, _ in error_bar().ticks]
    text = below[: bar_rows[0]]
    assert text.min() == 0
    assert len(np.unique(text)) > 8  # letters with smooth edges


def test_a_png_is_the_picture() -> None:
    picture = heat_map(np.random.default_rng(0).uniform(0, TOP, (60, 80)).astype(np.float32))
    with Image.open(io.BytesIO(png(picture))) as read:
        assert read.mode == "P"
        np.testing.assert_array_equal(np.asarray(read.convert("RGB")), np.asarray(picture.convert("RGB")))
