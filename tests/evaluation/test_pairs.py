"""Which files belong together, and what is said when they do not."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import picture

from loupe.errors import InputError
from loupe.evaluation.pairs import Pair, compressed, held_out, match_files, read_pairs, set_name, unseen
from loupe.imaging.files import ImageError, write_png
from loupe.imaging.resize import downscale
from loupe.patches.index import PatchIndex


def paths(folder: str, *names: str) -> list[Path]:
    return [Path(folder) / name for name in names]


def read(hr: Path, lr: Path | None = None, sr: Path | None = None) -> tuple[dict[str, Pair], list[str]]:
    failures: list[str] = []
    return {pair.name: pair for pair in read_pairs(hr, lr, sr, 2, failures.append)}, failures


def test_names_of_the_field_are_matched() -> None:
    hr = paths("hr", "baby.png", "head.png", "head_2.png", "a.png")
    others = paths("sr", "babyx2.png", "head_RDN_x2.png", "head_2_RDN_x2.png", "ahead.png")
    found = {ours.name: theirs.name for ours, theirs in match_files(hr, Path("hr"), others, Path("sr")).items()}
    assert found == {"baby.png": "babyx2.png", "head.png": "head_RDN_x2.png", "head_2.png": "head_2_RDN_x2.png"}
    both = paths("sr", "a.png", "a-old.png")
    assert match_files(hr, Path("hr"), both, Path("sr"))[Path("hr/a.png")].name == "a.png"
    with pytest.raises(ImageError, match=r"sr: a-new.png, a-old.png all belong to a.png"):
        match_files(hr, Path("hr"), paths("sr", "a-new.png", "a-old.png"), Path("sr"))


def test_files_of_one_name_belong_to_their_folders() -> None:
    hr = paths("hr", "a/1.png", "b/1.png", "c/2.png")

    def found(*names: str) -> dict[str, str]:
        matches = match_files(hr, Path("hr"), paths("sr", *names), Path("sr"))
        return {ours.as_posix(): theirs.as_posix() for ours, theirs in matches.items()}

    assert found("a/1x2.png", "b/1.png") == {"hr/a/1.png": "sr/a/1x2.png", "hr/b/1.png": "sr/b/1.png"}
    assert found("b/1.png") == {"hr/b/1.png": "sr/b/1.png"}
    assert found("1.png", "2.png") == {"hr/c/2.png": "sr/2.png"}, "whose the first is nobody knows"
    with pytest.raises(ImageError, match=r"^sr: a/1-new.png, a/1-old.png all belong to 1.png"):
        found("a/1-new.png", "a/1-old.png")


def test_sets_are_called_by_their_folder() -> None:
    assert set_name(Path("/x/Set5/HR")) == "Set5"
    assert set_name(Path("/x/holiday")) == "holiday"


def test_inputs_are_made_when_none_are_given(tmp_path: Path) -> None:
    write_png(tmp_path / "HR" / "sub" / "odd.png", picture(1, 51, 60))
    pairs, failures = read(tmp_path / "HR")
    assert failures == []
    pair = pairs["sub/odd.png"]
    assert pair.set == tmp_path.name
    np.testing.assert_array_equal(pair.hr, picture(1, 51, 60)[:50])
    np.testing.assert_array_equal(pair.lr, downscale(picture(1, 51, 60)))


def test_every_mismatch_is_named_and_the_others_are_scored(tmp_path: Path) -> None:
    hr, lr, sr = (tmp_path / name for name in ("hr", "lr", "sr"))
    for name in ("good", "lonely", "size", "gray", "odd"):
        write_png(hr / f"{name}.png", picture(1, 41, 40) if name == "odd" else picture(1, 40, 40))
        write_png(lr / f"{name}x2.png", picture(1, 20, 20))
        write_png(sr / f"{name}.png", picture(2, 41, 40) if name == "odd" else picture(2, 40, 40))
    (sr / "lonely.png").rename(sr / "stranger.png")
    write_png(sr / "size.png", picture(2, 38, 40))
    write_png(sr / "gray.png", picture(2, 40, 40)[..., 0])
    (hr / "torn.png").write_bytes(b"\x89PNG\r\n\x1a\n torn")
    write_png(hr / "dot.png", picture(1, 1, 1))
    pairs, failures = read(hr, lr, sr)
    assert list(pairs) == ["good.png", "odd.png"]
    assert pairs["odd.png"].sr is not None and pairs["odd.png"].sr.shape == (40, 40, 3)
    text = "\n".join(failures).replace(f"{tmp_path}/", "")
    assert "hr/lonely.png: no counterpart in sr" in text
    assert "hr/size.png: its super-resolved picture is 40 x 38 pixels, not 40 x 40" in text
    assert "sr/gray.png: gray, but hr/gray.png is colour" in text
    assert "hr/torn.png: refused" in text
    assert "hr/dot.png: no counterpart in lr" in text
    assert "sr/stranger.png: no ground truth of this name in hr" in text
    assert len(failures) == 6
    _, failures = read(hr)
    assert any("dot.png: an image of 1 x 1 pixels is too small" in line for line in failures)


def test_an_input_of_another_scale_is_refused(tmp_path: Path) -> None:
    write_png(tmp_path / "hr" / "a.png", picture(1, 40, 40))
    write_png(tmp_path / "lr" / "a.png", picture(1, 10, 10))
    pairs, failures = read(tmp_path / "hr", tmp_path / "lr")
    assert not pairs
    assert "low-resolution picture is 10 x 10 pixels; for scale 2 it must be 20 x 20" in failures[0]


def test_gray_stored_as_colour_matches_gray(tmp_path: Path) -> None:
    gray = picture(1, 40, 40)[..., 0]
    write_png(tmp_path / "hr" / "a.png", gray)
    Image.fromarray(gray).convert("RGB").save(tmp_path / "a.png")
    (tmp_path / "sr").mkdir()
    (tmp_path / "a.png").rename(tmp_path / "sr" / "a.png")
    pairs, failures = read(tmp_path / "hr", None, tmp_path / "sr")
    assert failures == []
    np.testing.assert_array_equal(pairs["a.png"].sr, gray)


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="no such folder"):
        read(tmp_path / "missing")
    with pytest.raises(ImageError, match="no images here"):
        read(tmp_path)


def test_inputs_can_be_those_of_jpeg_files(make_index: Callable[..., PatchIndex]) -> None:
    colour = list(held_out(make_index(valid=2)))
    gray = [Pair("gray", "a.png", colour[0].hr[..., 0], colour[0].lr[..., 0])]
    for pair, found in zip([*colour, *gray], compressed([*colour, *gray], 60), strict=True):
        stream = io.BytesIO()
        Image.fromarray(pair.lr).save(stream, "JPEG", quality=60)  # Pillow halves colour by itself
        np.testing.assert_array_equal(found.lr, np.asarray(Image.open(stream)))
        assert (found.set, found.name, found.hr is pair.hr) == (f"{pair.set}-jpeg60", pair.name, True)


def test_pictures_that_were_trained_on_are_not_scored(make_index: Callable[..., PatchIndex]) -> None:
    index = make_index(train=3, valid=2)
    unknown = list(held_out(index))
    assert list(unseen(unknown, index)) == unknown
    number, row = next((number, row) for number, row in enumerate(index.images) if row.split == "train")
    brighter = np.minimum(index.hr(number), 250) + 5
    known = Pair("Set5", "baby.png", brighter, downscale(brighter, 2))
    with pytest.raises(
        InputError, match=rf"^Set5/baby\.png: nearly the same picture as .*{row.name}, which was trained"
    ):
        list(unseen([*unknown, known], index))
