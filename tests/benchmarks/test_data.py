"""`loupe bench data`: a tiny run from end to end, and that every rival feeds what it says."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

from benchmarks._build import SCALE
from benchmarks.data import Material, contenders, photograph, prepare
from loupe.imaging.files import read_image
from loupe.imaging.resize import Pixels, downscale
from loupe.patches.batches import turned

ROOT = Path(__file__).parents[2]
PATCH, BATCH = 16, 4
SINGLE_PROCESS = [
    "pool, LR stored",
    "pool, LR computed",
    "grid, LR stored",
    "random, from files",
    "batch decode",
    "PNG, workers: 0",
    "LMDB, workers: 0",
]  # workers run the same code


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    return prepare(tmp_path_factory.mktemp("material"), images=2, width=530, height=490, patch=PATCH)


@pytest.mark.parametrize("name", SINGLE_PROCESS)
def test_a_batch_holds_patches_and_their_exact_reductions(material: Material, name: str) -> None:
    pictures = [read_image(path).pixels for path in material.hr]
    batches = contenders(material, PATCH, BATCH)[name].batches()
    places = set()
    for lr, hr in (next(batches) for _ in range(3)):
        for low, high in zip(pixels(lr), pixels(hr), strict=True):
            assert low.shape == (PATCH, PATCH, 3)
            number, y, x, turn = place(high, pictures)
            reduced = downscale(pictures[number])[y // SCALE :, x // SCALE :][:PATCH, :PATCH]
            np.testing.assert_array_equal(turned(low, turn), reduced)
            places.add((number, y, x))
    assert len(places) > 2 * BATCH, "patches are drawn at random"


def pixels(batch: torch.Tensor | npt.NDArray[np.float64]) -> Pixels:
    """uint8 [N, H, W, 3] of float32 [N, 3, H, W] or float64 [N, H, W, 3] in [0, 1]."""
    if isinstance(batch, torch.Tensor):
        assert batch.dtype == torch.float32
        batch = batch.permute(0, 2, 3, 1).double().numpy()
    assert batch.min() >= 0
    assert 0.1 < batch.max() <= 1
    return np.rint(batch * 255).astype(np.uint8)


def place(patch: Pixels, pictures: list[Pixels]) -> tuple[int, int, int, int]:
    """(picture, y, x, turn) where `patch`, turned so, lies in a picture."""
    side = len(patch)
    for number, picture in enumerate(pictures):
        for turn in range(8):
            upright = turned(patch, turn)
            for y, x in np.argwhere((picture[: 1 - side, : 1 - side] == upright[0, 0]).all(-1)):
                if (picture[y : y + side, x : x + side] == upright).all():
                    return number, int(y), int(x), turn
    raise AssertionError("the patch lies in no picture")


def test_pictures_are_as_hard_to_compress_as_photographs(tmp_path: Path) -> None:
    material = prepare(tmp_path, images=2, width=1020, height=678, patch=PATCH)
    for path in material.hr:  # 3.5 to 5 MB at DIV2K's 2040 x 1356
        assert 3.5 < 4 * path.stat().st_size / 1e6 < 5
    assert (photograph(1, 64, 48) == photograph(1, 64, 48)).all()
    assert (photograph(1, 64, 48) != photograph(2, 64, 48)).any()


def test_a_tiny_run_reports_every_contender(tmp_path: Path) -> None:
    options = "--json --images 2 --size 490 480 --seconds 0.05 --rounds 1 --patch 16 --batch 2"
    command = [sys.executable, "-m", "loupe.cli", "bench", "data", *options.split(), "--out", str(tmp_path / "r.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert json.loads((tmp_path / "r.json").read_text()) == report
    assert report["ratios"].keys() == {"pool_vs_batch_decode", "pool_vs_png", "pool_vs_lmdb", "index_vs_decode"}
    assert all(ratio > 0 for ratio in report["ratios"].values())
    rows = {row["name"]: row for row in report["rows"]}
    assert rows.keys() >= {*SINGLE_PROCESS, "PNG, workers: 1", "PNG, workers: 2", "LMDB, workers: 2"}
    assert rows["pool, LR stored"]["mb_per_s"] == pytest.approx(
        rows["pool, LR stored"]["patches_per_s"] * 16 * 16 * 3 * 5 / 1e6
    )
    assert 0 < report["training_step"]["share"] < 1
    assert rows["index build"]["peak_mb_of_twice_as_many"] > 50
