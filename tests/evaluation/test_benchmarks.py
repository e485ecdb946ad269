"""Benchmarks of the field: folders as they are handed around."""

from collections.abc import Callable
from pathlib import Path

import pytest
from tests.conftest import picture

from loupe.errors import InputError
from loupe.evaluation.benchmarks import score_benchmarks
from loupe.evaluation.methods import bicubic
from loupe.imaging.files import write_png
from loupe.imaging.resize import downscale
from loupe.patches.index import PatchIndex


def test_each_is_scored_with_its_own_inputs_where_it_has_some(
    make_index: Callable[..., PatchIndex], tmp_path: Path
) -> None:
    folder = tmp_path / "benchmarks"
    for number in (101, 102):
        write_png(folder / "Set5" / "HR" / f"{number}.png", picture(number))
        write_png(folder / "Set14" / "HR" / f"{number}.png", picture(number))
        darker = downscale(picture(number), 2) // 2
        write_png(folder / "Set14" / "LR_bicubic" / "X2" / f"{number}x2.png", darker)
    found = score_benchmarks(folder, bicubic(2, "model"), make_index())
    assert list(found) == ["Set5", "Set14"]
    assert found["Set5"]["n"] == 2
    assert found["Set5"]["psnr_y"] > found["Set14"]["psnr_y"] + 10


def test_what_cannot_count_is_refused(make_index: Callable[..., PatchIndex], tmp_path: Path) -> None:
    index = make_index()
    with pytest.raises(InputError, match=r"benchmarks: no benchmarks here; evaluation\.benchmarks needs a folder"):
        score_benchmarks(tmp_path / "benchmarks", bicubic(2, "model"), index)
    hr = tmp_path / "benchmarks" / "SetA" / "HR"
    write_png(hr / "1.png", picture(101))
    (hr / "2.png").write_bytes(b"torn")
    with pytest.raises(InputError, match=r"2\.png: "):
        score_benchmarks(tmp_path / "benchmarks", bicubic(2, "model"), index)
    (hr / "2.png").unlink()
    write_png(hr / "3.png", index.hr(0))
    with pytest.raises(InputError, match=r"SetA/3\.png: nearly the same picture as .* which was trained on"):
        score_benchmarks(tmp_path / "benchmarks", bicubic(2, "model"), index)
