"""`loupe upscale` and `loupe demo` as a person runs them: real processes, their output and their exit codes."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import picture
from tests.upscaling.networks import CONFIG, network

import loupe
from loupe.imaging.files import write_png
from loupe.models.export import to_onnx


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bundle")
    (folder / "model.onnx").write_bytes(to_onnx(network()).SerializeToString())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "contract.json").write_text(json.dumps({"scale": 2, "tiles": {"halo": 9}}))
    return folder


def run(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loupe.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)


def test_a_folder_with_a_bad_file(tmp_path: Path, bundle: Path) -> None:
    pixels = picture(1, 60, 50)
    write_png(tmp_path / "in" / "deep" / "a.png", pixels)
    (tmp_path / "in" / os.fsdecode(b"bad \x1b[31m\xe9.png")).write_bytes(b"nothing")
    done = run("upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", bundle, "--memory", "10M")
    assert done.returncode == 1
    assert "refused: not an image that can be decoded" in done.stderr
    assert "\x1b" not in done.stderr
    assert "1 pictures written, 0 there already, 1 failed, see" in done.stdout
    with Image.open(tmp_path / "out" / "deep" / "a.png") as image:
        np.testing.assert_array_equal(np.asarray(image), loupe.load(bundle).upscale(pixels))
    done = run("upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", bundle, "--json")
    found = json.loads(done.stdout)
    assert (found["done"], found["skipped"], found["failed"]) == (0, 1, 1)
    assert len(found["model"]["sha256"]) == 64


def test_one_picture_to_a_file_four_times_the_size_by_the_network_that_ships(tmp_path: Path) -> None:
    Image.fromarray(picture(2, 20, 30)).save(tmp_path / "a.png")
    done = run("upscale", "a.png", "-o", "new/big.webp", "--scale", 4, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "new" / "big.webp") as image:
        assert (image.format, image.size) == ("WEBP", (120, 80))
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["big.webp"]


def test_a_dry_run_says_what_would_be_done(tmp_path: Path, bundle: Path) -> None:
    write_png(tmp_path / "in" / "a.png", picture(1, 60, 50))
    done = run("upscale", tmp_path / "in", "-o", tmp_path / "out", "--model", bundle, "--dry-run", "--format", "jpeg")
    assert done.returncode == 0, done.stderr
    assert re.search(r"a\.png -> .*out/a\.jpg, 100 x 120\n", done.stdout)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["-o", "out", "--model", "gone"], "gone: no such file or folder, nor is there a release store releases"),
        (["-o", "out", "--model", "BUNDLE", "--fast"], "holds no model-int8.onnx"),
        (["-o", "out", "--model", "BUNDLE", "--memory", "much"], "'much' is no size; give 500M or 2G"),
        (["-o", "out", "--model", "BUNDLE", "--scale", "3"], "enlarges 2 times, or 4 times by two passes; not 3"),
        (["-o", "in", "--model", "BUNDLE"], "in: is the folder of the pictures themselves"),
        (["-o", "out", "--model", "BUNDLE", "--format", "psd"], "no format 'psd'"),
        (["-o", "out", "--model", "BUNDLE", "--workers", "2"], "--address and --workers are for --engine ray"),
        (["-o", "http://shop/out", "--model", "BUNDLE"], "'http://shop/out': neither a file nor a folder"),
    ],
)
def test_wrong_use_is_explained(tmp_path: Path, bundle: Path, arguments: list[str], said: str) -> None:
    write_png(tmp_path / "in" / "a.png", picture(1, 10, 10))
    done = run("upscale", "in", *(str(bundle) if word == "BUNDLE" else word for word in arguments), cwd=tmp_path)
    assert done.returncode == 2
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_log_gets_lines_about_progress(tmp_path: Path, bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        write_png(tmp_path / "in" / f"{number}.png", picture(number, 60, 50))
    (tmp_path / "in" / "0.png").write_bytes(b"torn")
    arguments = ("upscale", "in", "-o", "out", "--model", bundle, "--json")
    monkeypatch.setenv("LOUPE_PROGRESS_SECONDS", "0")
    done = run(*arguments, cwd=tmp_path)
    lines = re.findall(r"^picture +(\d)/3  1 failed(  [0-9.]+ pictures/s, \d+ s left)?$", done.stderr, re.MULTILINE)
    assert [number for number, _ in lines] == ["1", "2", "3"]
    assert not lines[0][1], "nothing was made yet, so no pace is known"
    assert lines[2][1].endswith(" 0 s left")
    json.loads(done.stdout)
    monkeypatch.delenv("LOUPE_PROGRESS_SECONDS")
    assert "picture " not in run(*arguments, cwd=tmp_path).stderr, "one a minute is enough"
    monkeypatch.setenv("LOUPE_PROGRESS_SECONDS", "soon")
    assert "LOUPE_PROGRESS_SECONDS=soon: no number" in run(*arguments, cwd=tmp_path).stderr


def test_what_a_million_pictures_cost(tmp_path: Path, bundle: Path) -> None:
    for number in range(3):
        write_png(tmp_path / "in" / f"{number}.png", picture(number, 60, 50))
    arguments = ("upscale", "in", "-o", "out", "--model", bundle, "--price", 7.2)
    found = json.loads(run(*arguments, "--json", cwd=tmp_path).stdout)
    assert found["pictures_per_second"] == pytest.approx(3 / found["seconds"], rel=0.05)
    assert found["hours_per_million"] == pytest.approx(1e6 / found["pictures_per_second"] / 3600, rel=0.05)
    assert found["cost_per_million"] == pytest.approx(7.2 * found["hours_per_million"], rel=0.05)
    assert "cost" not in run(*arguments, cwd=tmp_path).stdout, "nothing was made, so nothing is known"
    said = run(*arguments, "--format", "webp", cwd=tmp_path).stdout
    assert re.search(r"a million like these take [0-9.]+ hours and cost [0-9.]+\n", said)


def test_a_missing_file_is_a_failure_of_that_file(tmp_path: Path, bundle: Path) -> None:
    write_png(tmp_path / "a.png", picture(1, 10, 10))
    done = run("upscale", "a.png", "gone.png", "-o", "out", "--model", bundle, cwd=tmp_path)
    assert done.returncode == 1
    assert "gone.png: refused: cannot be read" in done.stderr
    assert (tmp_path / "out" / "a.png").exists()


def test_demo_writes_one_page(tmp_path: Path, bundle: Path) -> None:
    write_png(tmp_path / "a.png", picture(1, 10, 10))
    done = run("demo", "a.png", "--model", bundle, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "look at a.html\n"
    assert "10 × 10 pixels, enlarged to 20 × 20" in (tmp_path / "a.html").read_text("utf-8")
    assert run("demo", "gone.png", "--model", bundle, cwd=tmp_path).returncode == 2
