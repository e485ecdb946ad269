"""The index: aligned pixels, splits by content, and a line for every picture that was left out."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import picture

from loupe.errors import InputError
from loupe.imaging.files import ImageError, write_png
from loupe.imaging.resize import downscale
from loupe.patches.index import PatchIndex, Source, build_index, content_hash, split_of


def sources(folder: Path, **pictures: str | None) -> list[Source]:
    return [Source(folder / f"{name}.png", f"{name}.png", "photos", split) for name, split in pictures.items()]


def build(sources: list[Source], folder: Path, patch: int = 16) -> tuple[dict[str, int], list[str]]:
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


def test_statistics_of_known_patches(tmp_path: Path) -> None:
    flat = np.full((32, 32, 3), 90, np.uint8)
    steps = np.zeros((32, 32, 3), np.uint8)
    steps[:, 1::2] = 255
    write_png(tmp_path / "flat.png", flat)
    write_png(tmp_path / "steps.png", steps)
    build(sources(tmp_path, flat="train", steps="valid"), tmp_path / "index")
    rows = PatchIndex(tmp_path / "index").patches
    assert rows["variance"].tolist() == pytest.approx([0, (219 / 2) ** 2])
    assert rows["flat"].tolist() == pytest.approx([1, 30 / 32])  # central differences skip the stripes inside
    assert rows["gradient"].tolist() == pytest.approx([0, 2 * 219 / 32])


def test_pictures_that_cannot_be_used_are_named_and_the_rest_goes_on(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(1))
    write_png(tmp_path / "b.png", picture(2))
    write_png(tmp_path / "twin.png", picture(1))
    write_png(tmp_path / "tiny.png", picture(3, 31, 80))
    Image.new("RGBA", (40, 40)).save(tmp_path / "clear.png")
    (tmp_path / "empty.png").touch()
    given = sources(tmp_path, a="train", b="valid", twin="train", tiny="train", clear="train", empty="train")
    counts, lines = build(given, tmp_path / "index")
    assert counts == {"images": 3, "train_images": 2, "valid_images": 1, "patches": counts["patches"], "skipped": 3}
    text = "\n".join(line.replace(f"{tmp_path}/", "") for line in lines)
    assert "twin.png: skipped: the same picture as photos/a.png" in text
    assert "tiny.png: skipped: 80 x 31 pixels, smaller than a patch of 32 x 32" in text
    assert "clear.png: converted: RGBA composited on white" in text
    assert "empty.png: refused: the file is empty" in text
    assert [row.note for row in PatchIndex(tmp_path / "index").images] == ["", "", "RGBA composited on white"]


def test_the_same_picture_on_both_sides_is_an_error_that_names_both(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png", picture(1))
    write_png(tmp_path / "b.png", picture(1))
    with pytest.raises(ImageError, match=r"b.png \(valid\) and photos/a.png \(train\) are the same picture"):
        build(sources(tmp_path, a="train", b="valid"), tmp_path / "index")


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
    (tmp_path / "index-2-16" / "index.json").unlink()
    with pytest.raises(InputError, match=r"no whole patch index .*dvc repro patch-index"):
        PatchIndex(tmp_path / "index-2-16")
