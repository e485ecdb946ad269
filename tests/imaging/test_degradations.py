"""Each step against a direct formula, measured statistics or a real file; parts against the whole picture."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, JpegImagePlugin

from loupe.errors import InputError
from loupe.imaging.degradations import (
    Degradation,
    Settings,
    Subsampling,
    add_gaussian_noise,
    add_poisson_noise,
    apply,
    degrade,
    draw,
    gaussian_blur,
    jpeg,
    margin,
)
from loupe.imaging.files import read_image
from loupe.imaging.resize import Pixels, downscale

EVERYTHING = Degradation(blur_probability=0.5, shot_probability=0.5, noise_probability=0.5, jpeg_probability=0.5)
SUBSAMPLINGS: list[Subsampling] = ["4:2:0", "4:4:4"]


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def picture(height: int, width: int) -> Pixels:
    """Soft colour patches with hard edges, as a photographed label has."""
    soft = Image.fromarray(noise(height // 8 + 2, width // 8 + 2, 3)).resize((width, height), Image.Resampling.BICUBIC)
    image = np.array(soft)
    image[height // 3 : height // 3 + 5] = 255
    image[:, ::13] = (20, 30, 90)
    return image


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


@given(st.integers(4, 40), st.integers(4, 40), st.sampled_from([2, 3, 4]), st.booleans())
def test_with_everything_off_it_is_downscale(height: int, width: int, scale: int, gray: bool) -> None:
    hr = noise(height, width) if gray else noise(height, width, 3)
    np.testing.assert_array_equal(degrade(hr, scale, Degradation(), rng(0)), downscale(hr, scale))


@pytest.mark.parametrize("sigma", [0.3, 1.0, 2.2])
@pytest.mark.parametrize("shape", [(17, 23, 3), (9, 40), (2, 3, 3)])
def test_blur_is_a_direct_convolution_with_mirrored_borders(sigma: float, shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    radius = int(np.ceil(3 * sigma))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    kernel = np.exp(-(x**2 + y**2) / (2 * sigma**2))
    kernel /= kernel.sum()
    padded = np.pad(image, [(radius, radius)] * 2 + [(0, 0)] * (image.ndim - 2), "symmetric").astype(float)
    expected = np.zeros(shape)
    for i in range(2 * radius + 1):
        for j in range(2 * radius + 1):
            expected += kernel[i, j] * padded[i : i + shape[0], j : j + shape[1]]
    assert np.abs(gaussian_blur(image, sigma) - expected).max() <= 0.5001  # rounded, and summed in another order


def test_blur_keeps_flat_areas_and_the_mean_and_lowers_contrast() -> None:
    for level in (0, 1, 127, 254, 255):
        assert (gaussian_blur(np.full((12, 9, 3), level, np.uint8), 1.7) == level).all()
    image = noise(64, 64, 3)
    np.testing.assert_array_equal(gaussian_blur(image, 0), image)
    spreads = [image.std(), *(gaussian_blur(image, sigma).std() for sigma in (0.5, 1, 2))]
    assert spreads == sorted(spreads, reverse=True)
    assert gaussian_blur(image, 2).mean(axis=(0, 1)) == pytest.approx(image.mean(axis=(0, 1)), abs=0.05)


@pytest.mark.parametrize("sigma", [1.0, 4.0, 10.0])
def test_gaussian_noise_has_the_spread_asked_for(sigma: float) -> None:
    error = add_gaussian_noise(np.full((300, 300, 3), 128, np.uint8), sigma, rng(1)) - 128.0
    assert error.std() == pytest.approx(np.sqrt(sigma**2 + 1 / 12), rel=0.01)  # rounding adds a twelfth
    assert error.mean() == pytest.approx(0, abs=0.01 * sigma)
    channels = error.reshape(-1, 3).T
    assert np.abs(np.corrcoef(channels) - np.eye(3)).max() < 0.01


@pytest.mark.parametrize("peak", [400.0, 4000.0])
def test_shot_noise_variance_is_proportional_to_the_signal(peak: float) -> None:
    for level in (0, 30, 60, 120, 180):
        noisy = add_poisson_noise(np.full((300, 300, 3), level, np.uint8), peak, rng(level)).astype(float)
        assert noisy.mean() == pytest.approx(level, abs=0.05)
        rounding = 1 / 12 if level else 0
        assert noisy.var() == pytest.approx(255 * level / peak + rounding, rel=0.02)


@pytest.mark.parametrize("quality", [1, 40, 75, 95, 100])
@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_jpeg_is_what_comes_back_from_a_file(quality: int, subsampling: Subsampling, tmp_path: Path) -> None:
    for image in (picture(45, 70), picture(45, 70)[..., 0], noise(1, 1, 3)):
        path = tmp_path / "shot.jpg"
        Image.fromarray(image).save(path, quality=quality, subsampling=subsampling)
        if image.ndim == 3:
            with Image.open(path) as written:
                assert JpegImagePlugin.get_sampling(written) == SUBSAMPLINGS.index(subsampling) * -2 + 2
        np.testing.assert_array_equal(jpeg(image, quality, subsampling), read_image(path).pixels)


@pytest.mark.parametrize("subsampling", SUBSAMPLINGS)
def test_jpeg_error_falls_with_quality_and_with_full_colour(subsampling: Subsampling) -> None:
    image = picture(96, 128).astype(float)
    qualities = (5, 10, 20, 40, 60, 75, 90, 100)
    errors = [np.square(jpeg(image.astype(np.uint8), q, subsampling) - image).mean() for q in qualities]
    assert errors == sorted(errors, reverse=True)
    assert errors[-1] >= np.square(jpeg(image.astype(np.uint8), 100, "4:4:4") - image).mean()


def test_a_sample_depends_on_its_seed_alone() -> None:
    hr = picture(64, 80)
    forwards = [degrade(hr, 2, EVERYTHING, rng(5, i)) for i in range(20)]
    backwards = [degrade(hr, 2, EVERYTHING, rng(5, i)) for i in reversed(range(20))]
    np.testing.assert_array_equal(forwards, backwards[::-1])
    assert len({sample.tobytes() for sample in forwards}) > 15  # the rest drew nothing but the reduction


def test_drawing_and_applying_can_be_told_apart() -> None:
    hr = picture(64, 80)
    for i in range(10):
        generator = rng(6, i)
        drawn = draw(EVERYTHING, generator)
        np.testing.assert_array_equal(apply(hr, 2, drawn, generator), degrade(hr, 2, EVERYTHING, rng(6, i)))


def test_draws_follow_probabilities_and_ranges() -> None:
    degradation = replace(EVERYTHING, blur_probability=0.2, shot_peak=(100.0, 10000.0), jpeg_quality=(70, 72))
    generator = rng(7)
    drawn = [draw(degradation, generator) for _ in range(4000)]
    sigmas = [s.blur_sigma for s in drawn if s.blur_sigma is not None]
    peaks = [s.shot_peak for s in drawn if s.shot_peak is not None]
    qualities = [s.jpeg_quality for s in drawn if s.jpeg_quality is not None]
    assert len(sigmas) / 4000 == pytest.approx(0.2, abs=0.03)
    assert 0.3 <= min(sigmas) < 0.32
    assert 1.48 < max(sigmas) <= 1.5
    assert 100 <= min(peaks) <= max(peaks) <= 10000
    assert np.median(peaks) == pytest.approx(1000, rel=0.15)  # even on a logarithmic scale
    assert np.bincount(qualities)[70:] / len(qualities) == pytest.approx([1 / 3] * 3, abs=0.05)
    halved = [s.jpeg_subsampling == "4:2:0" for s in drawn if s.jpeg_quality is not None]
    assert np.mean(halved) == pytest.approx(0.75, abs=0.04)
    assert {s.blur_sigma is None for s in drawn if s.noise_sigma is None} == {True, False}
    nothing = [s for s in drawn if {s.blur_sigma, s.shot_peak, s.noise_sigma, s.jpeg_quality} == {None}]
    assert set(nothing) == {Settings()} == {draw(Degradation(), generator)}


def test_switching_one_step_on_leaves_the_draws_of_the_others() -> None:
    for i in range(50):
        without = draw(EVERYTHING, rng(8, i))
        sharper = draw(replace(EVERYTHING, blur_probability=0.0), rng(8, i))
        assert replace(without, blur_sigma=None) == sharper


def test_colour_of_a_narrow_part_is_enlarged_as_in_the_whole_picture() -> None:
    hr, drawn = picture(24, 136), Settings(jpeg_quality=1, jpeg_subsampling="4:2:0")
    whole = apply(hr, 4, drawn, rng(0))
    for left in range(28, 34):  # up to the right border, just behind a block's
        part = (slice(0, 2), slice(left, 34))
        np.testing.assert_array_equal(apply(hr, 4, drawn, rng(0), part), whole[part])


@settings(max_examples=150)
@given(data=st.data())
def test_a_part_is_that_part_of_the_whole_picture(data: st.DataObject) -> None:
    scale = data.draw(st.sampled_from([2, 4]))
    hr = picture(data.draw(st.integers(24, 200)), data.draw(st.integers(24, 200)))
    drawn = Settings(
        blur_sigma=data.draw(st.none() | st.floats(0, 4)),
        jpeg_quality=data.draw(st.none() | st.integers(1, 100)),
        jpeg_subsampling=data.draw(st.sampled_from(SUBSAMPLINGS)),
    )
    part = []
    for side in hr.shape[:2]:
        start = data.draw(st.integers(0, side // scale - 1))
        part.append(slice(start, data.draw(st.integers(start + 1, side // scale))))
    whole = apply(hr, scale, drawn, rng(0))
    np.testing.assert_array_equal(apply(hr, scale, drawn, rng(0), (part[0], part[1])), whole[tuple(part)])


@settings(max_examples=60)
@given(
    st.floats(0.1, 3),
    st.sampled_from([2, 3, 4]),
    st.sampled_from([0.0, 1.0]),
    st.sampled_from([0.0, 1.0]),
    st.tuples(st.integers(0, 40), st.integers(0, 40)),
)
def test_nothing_beyond_the_margin_matters(
    sigma: float, scale: int, with_jpeg: float, share: float, corner: tuple[int, int]
) -> None:
    degradation = Degradation(1.0, (sigma, sigma), 1.0, noise_probability=1.0, jpeg_probability=with_jpeg)
    degradation = replace(degradation, jpeg_420_share=share)
    hr, (y, x), border = picture(70 * scale, 72 * scale), corner, margin(degradation, scale)
    other = 255 - hr
    window = np.s_[
        max(y * scale - border, 0) : (y + 8) * scale + border, max(x * scale - border, 0) : (x + 8) * scale + border
    ]
    other[window] = hr[window]
    part = np.s_[y : y + 8, x : x + 8]
    patch = degrade(hr, scale, degradation, rng(9), part)
    assert patch.shape == (8, 8, 3)
    np.testing.assert_array_equal(patch, degrade(other, scale, degradation, rng(9), part))


def test_margins_by_hand() -> None:
    assert margin(Degradation(), 2) == 4  # the filter's three HR pixels, in whole LR pixels
    assert margin(Degradation(blur_probability=1.0, blur_sigma=(0.0, 1.5)), 2) == 10  # and ceil(4.5)
    assert margin(Degradation(jpeg_probability=1.0, jpeg_420_share=0.0), 2) == 4 + 2 * 7
    assert margin(Degradation(jpeg_probability=1.0), 2) == 4 + 2 * 16


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"blur_probability": 1.5}, "blur_probability must be in"),
        ({"jpeg_420_share": -0.1}, "jpeg_420_share must be in"),
        ({"noise_probability": float("nan")}, "noise_probability must be in"),
        ({"blur_sigma": (2.0, 1.0)}, r"blur_sigma must be .*HR pixels, not \[2.0, 1.0\]"),
        ({"shot_peak": (0.0, 100.0)}, "shot_peak"),
        ({"noise_sigma": (-1.0, 2.0)}, "noise_sigma"),
        ({"jpeg_quality": (0, 90)}, "jpeg_quality"),
        ({"jpeg_quality": (50, 101)}, "jpeg_quality"),
    ],
)
def test_wrong_ranges_are_refused(wrong: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Degradation(**wrong)


def test_wrong_arguments_are_refused() -> None:
    image = noise(8, 8, 3)
    with pytest.raises(ValueError, match="blur_sigma"):
        gaussian_blur(image, -1)
    with pytest.raises(ValueError, match="noise_sigma"):
        add_gaussian_noise(image, float("nan"), rng(0))
    with pytest.raises(ValueError, match="shot_peak"):
        add_poisson_noise(image, 0, rng(0))
    with pytest.raises(ValueError, match="jpeg_quality"):
        jpeg(image, 0, "4:2:0")
    with pytest.raises(ValueError, match="subsampling must be 4:2:0 or 4:4:4, not 4:2:2"):
        jpeg(image, 80, "4:2:2")  # type: ignore[arg-type]
    for wrong in (image.astype(np.float32), noise(4, 4, 4), noise(4)):
        with pytest.raises(ValueError, match=r"expected uint8 \[H, W, 3\] or \[H, W\]"):
            apply(wrong, 2, Settings(), rng(0))  # type: ignore[arg-type]
    for part in (np.s_[4:8, 0:4], np.s_[0:4:2, 0:4], np.s_[2:2, 0:4]):
        with pytest.raises(ValueError, match="part must be"):
            apply(image, 2, Settings(), rng(0), part)
    with pytest.raises(ValueError, match="too small to divide"):
        apply(noise(1, 5, 3), 2, Settings(), rng(0))
