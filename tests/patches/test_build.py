"""Building the index: aligned pixels, splits by content, a line for what was left out, going on after a kill."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
from PIL import Image
from tests.conftest import picture

from loupe.errors import InputError
from loupe.imaging.files import ImageError, LoadedImage, read_image, write_png
from loupe.imaging.likeness import content_hash
from loupe.imaging.metrics import psnr
from loupe.imaging.resize import Pixels, downscale
from loupe.patches.build import (
    STATISTICS,
    Built,
    Source,
    build_index,
    patch_statistics,
    split_of,
)
from loupe.patches.index import LowResolution, PatchIndex


def sources(folder: Path, **pictures: str | None) -> list[Source]:
    return [Source(folder / f"{name}.png", f"{name}.png", "photos", split) for name, split in pictures.items()]


def build(sources: list[Source], folder: Path, patch: int = 16) -> tuple[Built, list[str]]:
    folder.mkdir()
    lines: list[str] = []
    counts = build_index(sources, folder, scale=2, patch=patch, valid_share=0.3, say=lines.append)
    return counts, lines


@pytest.mark.parametrize("scale", [2, 3, 4])
def test_pool_holds_the_pictures_and_their_exact_reductions(make_index: Callable[..., PatchIndex], scale: int) -> None:
    index = make_index(scale=scale)
    assert [row.split for row in index.images] == ["train", "train", "train", "valid"]
    for number in range(4):
        original = picture(number)
        height, width = (side - side % scale for side in original.shape[:2])
        np.testing.assert_array_equal(index.hr(number), original[:height, :width])
        np.testing.assert_array_equal(index.lr(number), downscale(original, scale))


def test_patches_cover_every_pixel_and_stay_inside(make_index: Callable[..., PatchIndex]) -> None:
    index = make_index()
    for number in range(4):
        covered = np.zeros_like(index.lr(number)[..., 0], bool)
        rows = index.patches[index.patches["image"] == number]
        for y, x in rows[["y", "x"]].to_numpy():
            assert 0 <= y <= covered.shape[0] - 16
            assert 0 <= x <= covered.shape[1] - 16
            covered[y : y + 16, x : x + 16] = True
        assert covered.all()


def statistics(pixels: Pixels, patch: int = 16) -> dict[tuple[int, int], dict[str, float]]:
    rows = patch_statistics(Image.fromarray(pixels), 2, patch)
    return {(int(y), int(x)): dict(zip(STATISTICS, values, strict=True)) for y, x, *values in rows}


def test_statistics_of_known_patches() -> None:
    plane = np.full((32, 96), 90, np.uint8)
    plane[:, 34:62:4] = plane[:, 35:62:4] = 190  # columns of the reduced picture alternate in the second patch
    plane[:, 64:] = np.arange(32) // 2 * 4  # a ramp of 4 grey levels a reduced pixel
    found = statistics(plane)
    assert list(found) == [(0, 0), (0, 16), (0, 32)]
    flat, stripes, ramp = found.values()
    assert flat["variance"] == flat["gradient"] == 0
    assert flat["flat"] == 1
    assert flat["bicubic_psnr"] > stripes["bicubic_psnr"]
    assert stripes["variance"] == pytest.approx(100**2 * (7 / 16) * (9 / 16), rel=1e-3)
    assert stripes["flat"] < 0.2
    assert ramp["variance"] == pytest.approx(16 * (16**2 - 1) / 12, rel=1e-3)
    assert ramp["gradient"] == pytest.approx(15 / 16 * 4 / 2, rel=1e-3)


def test_bicubic_psnr_is_that_of_the_middle_rows() -> None:
    gray = picture(5, 64, 64)[..., 0]
    (row,) = statistics(gray, patch=32).values()
    image = Image.fromarray(gray).crop((0, 24, 64, 40))
    back = np.asarray(image.resize((32, 8), Image.Resampling.BICUBIC).resize((64, 16), Image.Resampling.BICUBIC))
    assert row["bicubic_psnr"] == pytest.approx(psnr(np.asarray(image), back), abs=1e-4)


def test_hard_patches_have_a_lower_psnr(make_index: Callable[..., PatchIndex]) -> None:
    patches = make_index(train=8).patches
    assert patches["bicubic_psnr"].corr(patches["gradient"], method="spearman") < -0.5


def test_pictures_that_cannot_be_used_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(1))
    write_png(tmp_path / "b.png", picture(2))
    write_png(tmp_path / "twin.png", picture(1))
    write_png(tmp_path / "tiny.png", picture(3, 31, 80))
    Image.fromarray(np.dstack([picture(4), np.full((72, 88), 255, np.uint8)])).save(tmp_path / "clear.png")
    (tmp_path / "empty.png").touch()
    given = sources(tmp_path, a="train", b="valid", twin="train", tiny="train", clear="train", empty="train")
    built, lines = build(given, tmp_path / "index")
    patches = len(PatchIndex(tmp_path / "index").patches)
    assert built == Built(train=2, valid=1, aside=0, reduced=0, left_out=3, patches=patches)
    text = "\n".join(line.replace(f"{tmp_path}/", "") for line in lines)
    assert "twin.png: skipped: the same picture as a.png" in text
    assert "tiny.png: skipped: 80 x 31 pixels, smaller than a patch of 32 x 32" in text
    assert "clear.png: converted: RGBA composited on white" in text
    assert "empty.png: refused: the file is empty" in text
    assert [row.note for row in PatchIndex(tmp_path / "index").images] == ["", "", "RGBA composited on white"]


def test_training_pictures_are_there_reduced_too(tmp_path: Path) -> None:
    sides = {"large": (209, 230), "medium": (140, 150), "small": (120, 130), "valid": (220, 230)}
    pictures = {name: picture(number, *size) for number, (name, size) in enumerate(sides.items())}
    pictures |= {"near": pictures["valid"].copy(), "twin": pictures["large"]}
    pictures["near"][0] += 1
    for name, pixels in pictures.items():
        write_png(tmp_path / f"{name}.png", pixels)
    given = sources(tmp_path, **dict.fromkeys(pictures, "train") | {"valid": "valid"})
    (tmp_path / "index").mkdir()
    lines: list[str] = []
    steps: list[None] = []
    built = build_index(
        given,
        tmp_path / "index",
        scale=2,
        patch=16,
        valid_share=0,
        reductions=(2, 3),
        say=lines.append,
        advance=lambda: steps.append(None),
    )
    index = PatchIndex(tmp_path / "index")
    found = [(Path(row.name).stem, row.split, row.reduction) for row in index.images]
    large = [("large", "train", 1), ("large", "train", 2), ("large", "train", 3)]
    rest = [("medium", "train", 1), ("medium", "train", 2), ("small", "train", 1), ("valid", "valid", 1)]
    assert found == [*large, *rest, ("near", "aside", 1), ("near", "aside", 2), ("near", "aside", 3)]
    for number, row in enumerate(index.images):
        whole = pictures[Path(row.name).stem]
        height, width = (side // row.reduction * row.reduction for side in whole.shape[:2])
        reduced = downscale(whole[:height, :width], row.reduction) if row.reduction > 1 else whole
        np.testing.assert_array_equal(index.hr(number), reduced[: row.height, : row.width])
        assert (row.height, row.width) == tuple(side // 2 * 2 for side in reduced.shape[:2])
    assert built == Built(train=3, valid=1, aside=1, reduced=3, left_out=1, patches=len(index.patches))
    assert len(steps) == len(given), "one for each file"
    assert len(lines) == 2, "one for the twin, one for the one set aside"


def test_the_same_picture_on_both_sides_is_an_error_that_names_both(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(1))
    write_png(tmp_path / "b.png", picture(1))
    with pytest.raises(ImageError, match=r"b.png \(valid\) and .*a.png \(train\) are the same picture"):
        build(sources(tmp_path, a="train", b="valid"), tmp_path / "index")


def test_training_pictures_that_nearly_equal_a_validation_picture_are_set_aside(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 2), ("c", 3)):
        write_png(tmp_path / f"{name}.png", picture(seed, 160, 200))
    Image.fromarray(picture(2, 160, 200)).save(tmp_path / "again.jpg", quality=60)
    again = Source(tmp_path / "again.jpg", "again.jpg", "photos", "train")
    built, lines = build([*sources(tmp_path, a="train", b="valid", c="train"), again], tmp_path / "index")
    assert (built.train, built.valid, built.aside) == (2, 1, 1)
    assert any("again.jpg: set aside: nearly the same picture as" in line and "b.png" in line for line in lines)
    index = PatchIndex(tmp_path / "index")
    assert [row.split for row in index.images] == ["train", "valid", "train", "aside"]
    assert set(index.patches[index.patches["image"] == 3]["split"]) == {"aside"}


@pytest.mark.parametrize("low_resolution", ["computed", "stored"])
def test_a_killed_build_goes_on_and_ends_in_the_same_files(
    tmp_path: Path, low_resolution: Literal["computed", "stored"]
) -> None:
    for seed in range(12):
        write_png(tmp_path / f"{seed}.png", picture(seed))
    (tmp_path / "3.png").write_bytes(b"torn")
    given = [Source(tmp_path / f"{n}.png", f"{n}.png", "photos", "valid" if n == 5 else "train") for n in range(12)]

    class KilledError(Exception):
        pass

    def run(folder: Path, stop_after: int | None) -> int:
        steps = 0

        def advance() -> None:
            nonlocal steps
            steps += 1
            if steps == stop_after:
                raise KilledError

        build_index(
            given,
            folder,
            scale=2,
            patch=16,
            valid_share=0.2,
            low_resolution=low_resolution,
            say=lambda line: None,
            advance=advance,
        )
        return steps

    whole, resumed = tmp_path / "whole", tmp_path / "resumed"
    whole.mkdir()
    resumed.mkdir()
    run(whole, None)
    for stop in (4, 9):
        with pytest.raises(KilledError):
            run(resumed, stop)
        with (resumed / "journal.jsonl").open("a") as journal:
            journal.write('[["torn li')
        with (resumed / "hr.bin").open("ab") as pool:
            pool.write(b"pixels without a line in the journal")
    run(resumed, None)
    names = sorted(path.name for path in whole.iterdir())
    assert names == sorted(path.name for path in resumed.iterdir())
    for name in names:
        assert (whole / name).read_bytes() == (resumed / name).read_bytes(), name


BUILD = """
import sys
from pathlib import Path
from loupe.patches.build import Source, build_index

folder, target = map(Path, sys.argv[1:])
files = sorted(folder.glob("*.png"))
sources = [Source(file, file.name, "photos", "valid" if file == files[-1] else "train") for file in files]
build_index(sources, target, scale=2, patch=16, valid_share=0, advance=lambda: print("done", flush=True))
"""


def test_a_build_ended_by_sigkill_goes_on(tmp_path: Path) -> None:
    (tmp_path / "pictures").mkdir()
    for seed in range(24):
        write_png(tmp_path / "pictures" / f"{seed:02}.png", picture(seed, 200, 300))

    def run(target: str, kill_after: int | None) -> int:
        (tmp_path / target).mkdir(exist_ok=True)
        command = [sys.executable, "-c", BUILD, str(tmp_path / "pictures"), str(tmp_path / target)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            assert process.stdout
            for number, _ in enumerate(process.stdout, start=1):
                if number == kill_after:
                    process.kill()
                    break
        return process.returncode

    assert run("whole", None) == 0
    for after in (3, 11, 17):
        assert run("resumed", after) == -signal.SIGKILL
        journal = (tmp_path / "resumed" / "journal.jsonl").read_text()
        assert journal.count("\n") >= after  # its head, and all but the last of the sources that were reported
    assert run("resumed", None) == 0
    names = sorted(path.name for path in (tmp_path / "whole").iterdir())
    assert names == sorted(path.name for path in (tmp_path / "resumed").iterdir())
    for name in names:
        assert (tmp_path / "whole" / name).read_bytes() == (tmp_path / "resumed" / name).read_bytes(), name


def test_resuming_decodes_only_what_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for seed in range(6):
        write_png(tmp_path / f"{seed}.png", picture(seed))
    given = [Source(tmp_path / f"{n}.png", f"{n}.png", "photos", "valid" if n == 5 else "train") for n in range(6)]
    folder = tmp_path / "index"
    folder.mkdir()
    decoded: list[str] = []

    def counting(path: Path) -> LoadedImage:
        decoded.append(path.name)
        if len(decoded) == 4:
            raise KeyboardInterrupt
        return read_image(path)

    monkeypatch.setattr("loupe.patches.build.read_image", counting)
    with pytest.raises(KeyboardInterrupt):
        build_index(given, folder, scale=2, patch=16, valid_share=0, workers=1)
    stored = (folder / "journal.jsonl").read_text().count("\n") - 1
    assert 0 < stored < 4
    write_png(tmp_path / "0.png", picture(77))  # changed since: everything from it on is decoded again
    before = len(decoded)
    build_index(given, folder, scale=2, patch=16, valid_share=0, workers=1)
    assert decoded[before:] == [f"{n}.png" for n in range(6)]
    np.testing.assert_array_equal(PatchIndex(folder).hr(0), picture(77))


class StoppedError(Exception):
    """A build that ends on its way."""


def stopped_after(
    number: int, given: list[Source], folder: Path, low_resolution: LowResolution = "computed", valid_share: float = 0.5
) -> None:
    """Begin a build of `given`, of its pictures at a half as well, that ends when so many files are done."""
    done: list[None] = []

    def advance() -> None:
        done.append(None)
        if len(done) > number:
            raise StoppedError

    folder.mkdir(exist_ok=True)
    finish(given, folder, low_resolution, valid_share, advance)


def finish(
    given: list[Source],
    folder: Path,
    low_resolution: LowResolution = "computed",
    valid_share: float = 0.5,
    advance: Callable[[], object] = lambda: None,
) -> dict[str, bytes]:
    """Build the same; what the files then hold."""
    folder.mkdir(exist_ok=True)
    build_index(
        given,
        folder,
        scale=2,
        patch=16,
        valid_share=valid_share,
        low_resolution=low_resolution,
        reductions=(2,),
        workers=1,
        say=lambda line: None,
        advance=advance,
    )
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.fixture
def pictures(tmp_path: Path) -> list[Source]:
    """Twelve, whose content decides on their side; every third is too small to be halved, and one is no picture."""
    for seed in range(12):
        write_png(tmp_path / f"{seed}.png", picture(seed, 60, 70) if seed % 3 == 0 else picture(seed, 130, 140))
    (tmp_path / "5.png").write_bytes(b"torn")
    return [Source(tmp_path / f"{seed}.png", f"{seed}.png", "photos", None) for seed in range(12)]


def test_a_killed_build_is_not_gone_on_with_under_another_split(pictures: list[Source], tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        stopped_after(9, pictures, tmp_path / "resumed", valid_share=0.9)
    assert finish(pictures, tmp_path / "resumed") == finish(pictures, tmp_path / "whole")


def test_pixels_that_went_missing_after_a_kill_are_made_again(pictures: list[Source], tmp_path: Path) -> None:
    whole = finish(pictures, tmp_path / "whole", "stored")
    for name in ("hr.bin", "lr.bin"):
        for left in (0, 20_000):
            with pytest.raises(StoppedError):
                stopped_after(9, pictures, tmp_path / "resumed", "stored")
            with (tmp_path / "resumed" / name).open("ab") as pool:
                pool.truncate(left)
            assert finish(pictures, tmp_path / "resumed", "stored") == whole


def test_a_killed_build_with_low_resolution_leaves_none_in_one_without(pictures: list[Source], tmp_path: Path) -> None:
    with pytest.raises(StoppedError):
        stopped_after(9, pictures, tmp_path / "resumed", "stored")
    assert finish(pictures, tmp_path / "resumed") == finish(pictures, tmp_path / "whole")


def test_what_one_kill_left_is_there_after_the_next(
    pictures: list[Source], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read: list[str] = []

    def counting(path: Path) -> LoadedImage:
        read.append(path.name)
        return read_image(path)

    monkeypatch.setattr("loupe.patches.build.read_image", counting)
    for number in (7, 9):
        with pytest.raises(StoppedError):
            stopped_after(number, pictures, tmp_path / "resumed")
    read.clear()
    resumed = finish(pictures, tmp_path / "resumed")
    assert set(read) == {"9.png", "10.png", "11.png"}
    assert resumed == finish(pictures, tmp_path / "whole")


def test_an_empty_side_is_an_error(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(1))
    with pytest.raises(ImageError, match="no usable picture is left for the split 'valid'"):
        build(sources(tmp_path, a="train"), tmp_path / "index")


def test_content_decides_the_side_whatever_the_name(tmp_path: Path) -> None:
    sides = [split_of(content_hash(picture(seed)), 0.3) for seed in range(200)]
    assert 35 <= sides.count("valid") <= 85
    assert sides == [split_of(content_hash(picture(seed)), 0.3) for seed in range(200)]
    assert all(later == "valid" for side, later in zip(sides, _sides(0.6), strict=True) if side == "valid")


def _sides(share: float) -> list[str]:
    return [split_of(content_hash(picture(seed)), share) for seed in range(200)]


def test_an_index_that_is_not_whole_is_refused(make_index: Callable[..., PatchIndex], tmp_path: Path) -> None:
    make_index()
    (tmp_path / "index-2-16-computed" / "index.json").unlink()
    with pytest.raises(InputError, match=r"no whole patch index .*dvc repro patch-index"):
        PatchIndex(tmp_path / "index-2-16-computed")
