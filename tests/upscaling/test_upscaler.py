"""What a program calls: kinds of pictures in and out."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import picture
from tests.upscaling.enlargers import Repeating

import loupe
from loupe.errors import InputError
from loupe.imaging.resize import Pixels
from loupe.upscaling.upscaler import premultiplied, straight


@pytest.fixture
def upscaler() -> "loupe.Upscaler":
    return loupe.Upscaler(Repeating())


def test_arrays_come_back_as_their_kind(upscaler: "loupe.Upscaler") -> None:
    for pixels in (picture(1), picture(1)[..., 0], np.dstack([picture(1), np.full((72, 88), 255, np.uint8)])):
        np.testing.assert_array_equal(upscaler.upscale(pixels), pixels.repeat(2, axis=0).repeat(2, axis=1))
    backwards = picture(1)[::-1, ::-1]
    np.testing.assert_array_equal(upscaler.upscale(backwards), backwards.repeat(2, axis=0).repeat(2, axis=1))


@pytest.mark.parametrize("mode", ["L", "LA", "RGB", "RGBA"])
def test_pictures_come_back_as_their_kind(upscaler: "loupe.Upscaler", mode: str) -> None:
    image = Image.fromarray(picture(2)).convert(mode)
    image.info["dpi"] = (300, 300)
    made = upscaler.upscale(image)
    assert (made.mode, made.size, made.info) == (mode, (176, 144), {"dpi": (300, 300)})
    assert made.resize(image.size, Image.Resampling.NEAREST).tobytes() == image.tobytes()


def test_palettes_are_expanded(upscaler: "loupe.Upscaler", tmp_path: Path) -> None:
    Image.fromarray(picture(3)).quantize(8).save(tmp_path / "a.png", transparency=0)
    with Image.open(tmp_path / "a.png") as image:
        made = upscaler.upscale(image)
        assert made.mode == "RGBA"
        assert "transparency" not in made.info
    assert upscaler.upscale(Image.new("1", (3, 2), 1)).mode == "L"


@pytest.mark.parametrize(
    "wrong", [np.zeros((4, 4, 3)), np.zeros(4, np.uint8), np.zeros((4, 4, 5), np.uint8), np.zeros((0, 4, 3), np.uint8)]
)
def test_what_is_no_picture_is_refused(upscaler: "loupe.Upscaler", wrong: Pixels) -> None:
    with pytest.raises(InputError, match=r"a picture is uint8 \[H, W\]"):
        upscaler.upscale(wrong)
    with pytest.raises(InputError, match="mode F; convert"):
        upscaler.upscale(Image.new("F", (3, 3)))


def test_a_network_that_makes_another_size_is_found_out() -> None:
    class Wrong(Repeating):
        scale = 3

    with pytest.raises(InputError, match=r"made uint8 \[1, 8, 8, 3\] of 4 x 4 pixels"):
        loupe.Upscaler(Wrong()).upscale(np.zeros((4, 4, 3), np.uint8))


def test_premultiplying_loses_nothing_that_can_be_seen() -> None:
    colour, alpha = (axis.astype(np.uint8) for axis in np.meshgrid(np.arange(256), np.arange(256)))
    colour = colour[..., None]
    back = straight(premultiplied(colour, alpha), alpha)
    seen = np.abs(back[..., 0].astype(int) - colour[..., 0]) * alpha.astype(int) / 255
    assert seen.max() <= 1
    np.testing.assert_array_equal(back[255], colour[255])
    assert not back[0].any()
