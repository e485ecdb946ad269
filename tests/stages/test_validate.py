"""The stage `validate` and the command: what is critical stops, is named, and is on the page all the same."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pandas as pd
import pytest
from tests.conftest import fabric, picture

from loupe.imaging.files import write_png
from loupe.params import apply_profile

ROOT = Path(__file__).parents[2]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A project's folder with pictures and the parameters of the sample."""
    apply_profile("sample", ROOT / "profiles", tmp_path / "params.yaml")
    for number, name in enumerate(["photos/train/a", "photos/train/b", "photos/valid/c", "products/d", "products/e"]):
        write_png(tmp_path / "data" / f"{name}.png", fabric(number, 420, 440))
    return tmp_path


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = os.environ | {"PYTHONPATH": str(ROOT / "src")}
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )


def test_good_pictures_pass_and_leave_their_facts(folder: Path) -> None:
    done = run(folder, "loupe.stages.validate")
    assert done.returncode == 0, done.stderr
    found = json.loads((folder / "metrics/validation.json").read_text())
    assert found["success"]
    assert [found["sets"][name]["images"] for name in ("photos", "products")] == [3, 2]
    facts = pd.read_parquet(folder / "reports/validation/photos.parquet")
    assert facts["path"].tolist() == ["train/a.png", "train/b.png", "valid/c.png"]
    assert (folder / "reports/validation/index.html").exists()


def test_critical_pictures_stop_the_pipeline_and_are_named(folder: Path) -> None:
    (folder / "data/products/torn.png").write_bytes((folder / "data/products/d.png").read_bytes()[:900])
    (folder / "data/photos/valid/leak.png").write_bytes((folder / "data/photos/train/a.png").read_bytes())
    write_png(folder / "data/products/thumb.png", picture(9, 60, 90))
    done = run(folder, "loupe.stages.validate")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert "data/products/torn.png: decodable refused: damaged or truncated" in done.stderr
    assert "data/photos/valid/leak.png: leak train/a.png, allowed is in one split only" in done.stderr
    assert "data/products/thumb.png: min side 60, allowed is at least 128 pixels" in done.stderr
    assert "change the limits in params.yaml" in done.stderr
    found = json.loads((folder / "metrics/validation.json").read_text())
    assert not found["success"]
    assert found["sets"]["products"]["refused"] == ["thumb.png", "torn.png"]
    page = (folder / "reports/validation/index.html").read_text()
    assert "3 of 8 pictures must not be trained on" in page


def test_the_command_checks_any_folder(folder: Path) -> None:
    done = run(folder, "loupe.cli", "validate", "data/products", "--out", "out", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["sets"]["products"]["images"] == 2
    assert (folder / "out/index.html").exists()
    write_png(folder / "data/products/thumb.png", picture(9, 60, 90))
    done = run(folder, "loupe.cli", "validate", "data/products", "--data-docs", "docs")
    assert done.returncode == 1
    assert "thumb.png: min side 60" in done.stderr
    assert list((folder / "docs").rglob("index.html")), "Great Expectations' own pages"
    done = run(folder, "loupe.cli", "validate", "nowhere")
    assert done.returncode == 2
    assert "nowhere: no such folder" in done.stderr
