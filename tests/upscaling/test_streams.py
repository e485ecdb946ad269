"""Large pictures written in strips: any decoder must see what a whole one would have been."""

import io
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tests.conftest import picture
from tests.upscaling.enlargers import Repeating

from loupe.imaging.files import ImageError
from loupe.imaging.resize import Pixels
from loupe.upscaling import batch
from loupe.upscaling.pictures import read_picture
from loupe.upscaling.streams import write_strips
from loupe.upscaling.upscaler import Upscaler

ROOT = Path(__file__).parents[2]


def written(kind: str, pixels: Pixels, cuts: list[int], **options: Any) -> Image.Image:
    stream = io.BytesIO()
    write_strips(stream, kind, np.split(pixels, cuts), pixels.shape[0], pixels.shape[1], options)
    image = Image.open(io.BytesIO(stream.getvalue()))
    image.load()
    return image


@pytest.mark.parametrize("kind", ["L", "LA", "RGB", "RGBA"])
@pytest.mark.parametrize("height", [1, 63, 64, 65, 300])
def test_png_in_strips_is_the_picture(kind: str, height: int) -> None:
    pixels = np.asarray(Image.fromarray(picture(1, 300, 37)[:height]).convert(kind))
    image = written("PNG", pixels, [5, 70, 71, 200], dpi=(300, 300))
    assert (image.mode, round(image.info["dpi"][0])) == (kind, 300)
    np.testing.assert_array_equal(np.asarray(image), pixels)


def test_png_in_strips_is_about_as_small_as_pillows() -> None:
    pixels = picture(2, 700, 500)
    sizes: list[int] = []
    for stream in (io.BytesIO(), io.BytesIO()):
        if sizes:
            write_strips(stream, "PNG", [pixels], 700, 500, {"compress_level": 6})
        else:
            Image.fromarray(pixels).save(stream, "PNG")
        sizes.append(len(stream.getvalue()))
    assert sizes[1] < 1.05 * sizes[0]


@pytest.mark.parametrize("kind", ["L", "RGB"])
@pytest.mark.parametrize("height", [1, 8, 63, 64, 65, 128, 700, 1111])
def test_jpeg_in_strips_is_pillows_to_the_last_bit(kind: str, height: int) -> None:
    pixels = np.asarray(Image.fromarray(picture(3, 1111, 45)[:height]).convert(kind))
    options = {"quality": 92, "subsampling": 0, "comment": b"kept", "dpi": (300, 300)}
    image = written("JPEG", pixels, [9, 64, 500], **options)
    whole = io.BytesIO()
    Image.fromarray(pixels).save(whole, "JPEG", **options)
    with Image.open(io.BytesIO(whole.getvalue())) as expected:
        assert (image.mode, image.info["comment"], image.info["dpi"]) == (kind, b"kept", (300, 300))
        np.testing.assert_array_equal(np.asarray(image), np.asarray(expected))


@pytest.mark.parametrize(("suffix", "kind"), [("png", ""), ("jpg", ""), ("webp", ""), ("png", "jpeg")])
def test_large_pictures_come_out_as_small_ones_would(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str, kind: str
) -> None:
    source = Image.fromarray(np.dstack([picture(4, 230, 150), picture(5, 230, 150)[..., 0]]))
    source = source if suffix != "jpg" else source.convert("RGB")
    source.save(tmp_path / f"a.{suffix}", lossless=suffix == "webp")
    made: list[Pixels] = []
    for number, limit in enumerate((10**6, 1000)):
        monkeypatch.setattr("loupe.upscaling.pictures.LARGE", limit)
        out = tmp_path / str(number)
        jobs = batch.plan([tmp_path / f"a.{suffix}"], out, kind)
        outcomes: list[batch.Outcome] = []
        upscaler = Upscaler(Repeating(), memory=100 * 40 * 150)
        found = batch.run(jobs, upscaler, out, kind, batch.Stop(), outcomes.append)
        assert found["done"] == 1, found
        assert outcomes[0].size == (150, 230)
        if kind:
            assert "RGBA composited on white: JPEG has no transparency" in outcomes[0].notes
        with Image.open(str(jobs[0].target)) as image:
            made.append(np.asarray(image))
    np.testing.assert_array_equal(made[0], made[1])


def test_no_room_for_a_large_picture_is_its_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.upscaling.pictures.LARGE", 1000)
    Image.fromarray(picture(1)).save(tmp_path / "a.png")
    full = Path("/dev/full").open("r+b", buffering=0)  # noqa: SIM115  # closed by its new owner
    monkeypatch.setattr("tempfile.TemporaryFile", lambda: full)
    with pytest.raises(ImageError, match=r"a.png: refused: no room for it in .*TMPDIR"):
        read_picture(tmp_path / "a.png")


def peak(folder: Path, height: int, width: int) -> int:
    """The most memory, in bytes, that a process takes to enlarge a JPEG of that size with a network of 256 MiB."""
    Image.effect_noise((64, 64), 60).convert("RGB").resize((width, height)).save(folder / "a.jpg")
    command = [sys.executable, "-m", "tests.upscaling.hungry_run", str(folder / "a.jpg"), str(folder / f"{height}.jpg")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True, timeout=120)
    with Image.open(folder / f"{height}.jpg") as image:
        assert image.size == (2 * width, 2 * height)
    return int(done.stdout)


def test_memory_does_not_grow_with_the_picture(tmp_path: Path) -> None:
    assert peak(tmp_path, 4000, 4000) < 1.2 * peak(tmp_path, 1900, 2000)
