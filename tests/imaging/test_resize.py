"""MATLAB's bicubic, against a second implementation written differently and against the official images."""

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from loupe.imaging.resize import Pixels, crop_to_multiple, downscale, imresize, imresize_tensor, upscale

BENCHMARKS = os.environ.get("LOUPE_BENCHMARKS")


def noise(*shape: int) -> Pixels:
    return np.random.default_rng(sum(shape)).integers(0, 256, shape, np.uint8)


def halve_rows_by_hand(image: Pixels) -> Pixels:
    """The x2 filter as integers, sample by sample, with mirrored borders: rows only."""
    taps = [-3, -9, 29, 111, 111, 29, -9, -3]
    height = len(image)
    rows = []
    for i in range(height // 2):
        total = np.zeros(image.shape[1:], np.int64)
        for k, tap in enumerate(taps):
            source = 2 * i - 3 + k
            while not 0 <= source < height:
                source = -1 - source if source < 0 else 2 * height - 1 - source
            total += tap * image[source].astype(np.int64)
        rows.append(np.clip((total + 128) // 256, 0, 255))
    return np.array(rows, np.uint8)


@pytest.mark.parametrize("shape", [(2, 2, 3), (4, 2), (6, 10, 3), (32, 48, 3), (50, 22)])
def test_halving_is_the_eight_tap_integer_filter(shape: tuple[int, ...]) -> None:
    image = noise(*shape)
    columns_next = halve_rows_by_hand(image).swapaxes(0, 1)
    expected = halve_rows_by_hand(columns_next).swapaxes(0, 1)
    np.testing.assert_array_equal(downscale(image), expected)


def test_extremes_are_clipped_between_rows_and_columns() -> None:
    image = np.zeros((16, 16), np.uint8)
    image[8:, :] = 255
    image[:, 8:] = 255 - image[:, 8:]  # a checker of four squares overshoots in both directions
    expected = halve_rows_by_hand(halve_rows_by_hand(image).swapaxes(0, 1)).swapaxes(0, 1)
    np.testing.assert_array_equal(downscale(image), expected)


def test_enlarging_by_two_by_hand() -> None:
    # samples at distances 1/4, 3/4, 5/4, 7/4 of a cubic with a = -0.5 weigh 111, 29, -9, -3 of 128
    row = np.array([[10, 200, 30, 90, 250]], np.uint8)
    padded = [200, 10, 10, 200, 30, 90, 250, 250, 90]
    expected = []
    for i in range(5):
        before, after = padded[i : i + 4], padded[i + 1 : i + 5]
        expected.append((-3 * before[0] + 29 * before[1] + 111 * before[2] - 9 * before[3]) / 128)
        expected.append((-9 * after[0] + 111 * after[1] + 29 * after[2] - 3 * after[3]) / 128)
    columns = np.clip(np.floor(np.array(expected) + 0.5), 0, 255)
    np.testing.assert_array_equal(upscale(row), np.tile(columns, (2, 1)))


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2.0, 3.0, 4.0])
@pytest.mark.parametrize("size", [(1, 1), (1, 7), (5, 3), (24, 36), (61, 47)])
def test_torch_and_numpy_agree_to_the_last_bit(scale: float, size: tuple[int, int]) -> None:
    images = noise(2, 3, *size)
    ours = imresize_tensor(torch.tensor(images), scale).numpy()
    for batch, image in enumerate(images):
        np.testing.assert_array_equal(ours[batch].transpose(1, 2, 0), imresize(image.transpose(1, 2, 0), scale))


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_sizes(scale: int) -> None:
    for side in range(1, 14):
        assert upscale(noise(side, 5, 3), scale).shape == (side * scale, 5 * scale, 3)
        if side >= scale:
            assert downscale(noise(side, 9), scale).shape == (side // scale, 9 // scale)


@pytest.mark.parametrize("scale", [1 / 2, 1 / 3, 1 / 4, 2.0, 3.0])
def test_a_flat_picture_stays_flat(scale: float) -> None:
    for level in (0, 1, 127, 254, 255):
        assert (imresize(np.full((12, 9, 3), level, np.uint8), scale) == level).all()


def test_what_is_no_image_is_refused() -> None:
    with pytest.raises(ValueError, match="uint8"):
        imresize(np.zeros((4, 4), np.float32), 0.5)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="axes"):
        imresize(np.zeros(4, np.uint8), 0.5)
    with pytest.raises(ValueError, match="scale"):
        imresize(np.zeros((4, 4), np.uint8), 0)
    with pytest.raises(ValueError, match="1 x 1 pixels is too small"):
        downscale(np.zeros((1, 1, 3), np.uint8))


@pytest.mark.skipif(not BENCHMARKS, reason="LOUPE_BENCHMARKS names no folder with Set5 and Set14")
@pytest.mark.parametrize(("dataset", "count"), [("Set5", 5), ("Set14", 14)])
def test_official_low_resolution_images_bit_for_bit(dataset: str, count: int) -> None:
    folder = Path(str(BENCHMARKS)) / dataset
    files = sorted((folder / "HR").glob("*.png"))
    assert len(files) == count
    for path in files:
        official = np.asarray(Image.open(folder / "LR_bicubic" / "X2" / f"{path.stem}x2.png"))
        hr = np.asarray(Image.open(path))
        np.testing.assert_array_equal(downscale(hr), official, err_msg=path.name)
        if hr.ndim == 3:
            batch = torch.tensor(crop_to_multiple(hr, 2)).permute(2, 0, 1)[None]
            ours = imresize_tensor(batch, 1 / 2)[0].permute(1, 2, 0).numpy()
            np.testing.assert_array_equal(ours, official, err_msg=path.name)
