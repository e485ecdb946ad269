"""The command line as a person uses it: real processes, their output and their exit codes."""

import importlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from tests.conftest import picture
from tests.horrors import make_horrors

from loupe.cli import exit_as_loupe
from loupe.imaging.files import read_image, write_png
from loupe.imaging.resize import downscale
from loupe.models.weights import build_network, save_network
from loupe.patches.index import PatchIndex

ROOT = Path(__file__).parents[1]
CONFIG = {"name": "rdn", "D": 1, "C": 1, "G": 4, "G0": 4, "scale": 2, "residual": "bicubic"}


def loupe(*arguments: object, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "loupe.cli", *map(str, arguments)]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name, seed in (("a.png", 1), ("deep/b.png", 2)):
        write_png(tmp_path / "hr" / name, picture(seed, 40, 51))
    (tmp_path / "hr" / "deep" / "none").mkdir()
    return tmp_path


def test_help_is_there_at_once_and_needs_no_torch() -> None:
    script = "import sys, loupe.cli; assert not {'torch', 'pandas', 'dvc', 'prefect'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60)
    done = loupe("--help")
    assert done.returncode == 0
    assert "evaluate" in done.stdout
    quickest = min(_seconds(loupe, "--help") for _ in range(3))
    assert quickest < 0.6 * float(os.environ.get("LOUPE_SLOWDOWN", "2"))  # a loaded machine gets twice the promise


def _seconds(call: object, *arguments: str) -> float:
    start = time.monotonic()
    call(*arguments)  # type: ignore[operator]
    return time.monotonic() - start


def test_downscale(folder: Path) -> None:
    done = loupe("downscale", folder / "hr", "-o", folder / "lr")
    assert done.returncode == 0, done.stderr
    np.testing.assert_array_equal(read_image(folder / "lr" / "a.png").pixels, downscale(picture(1, 40, 51)))
    assert (folder / "lr" / "deep" / "b.png").exists()


def test_downscale_names_what_fails_and_does_the_rest(folder: Path) -> None:
    (folder / "hr" / "torn.png").write_bytes(b"\x89PNG")
    write_png(folder / "hr" / "dot.png", picture(1, 1, 1))
    done = loupe("downscale", folder / "hr", "-o", folder / "lr", "--scale", 3)
    assert done.returncode == 1
    assert "torn.png: refused" in done.stderr
    assert "dot.png: an image of 1 x 1 pixels is too small to divide by 3" in done.stderr
    assert "Traceback" not in done.stderr
    assert read_image(folder / "lr" / "a.png").pixels.shape == (13, 17, 3)
    before = (folder / "hr" / "a.png").read_bytes()
    done = loupe("downscale", folder / "hr", "-o", folder / "hr")
    assert done.returncode == 1
    assert "would overwrite itself" in done.stderr
    assert (folder / "hr" / "a.png").read_bytes() == before


def test_evaluate_takes_what_an_index_holds_out(tmp_path: Path, make_index: Callable[..., PatchIndex]) -> None:
    make_index(train=1, valid=2)
    index = tmp_path / "index-2-16-computed"
    done = loupe("evaluate", "--hr", index, "--json")
    assert done.returncode == 0, done.stderr
    assert {name: one["n"] for name, one in json.loads(done.stdout)["sets"].items()} == {"photos": 2}
    for given, said in (
        (["--sr", tmp_path], "--lr and --sr are for folders"),
        (["--scale", 3], "made for scale 2, but"),
    ):
        done = loupe("evaluate", "--hr", index, *given)
        assert done.returncode == 2
        assert said in done.stderr


def test_evaluate_prints_a_table_or_json_and_writes_files(folder: Path) -> None:
    done = loupe("evaluate", "--hr", folder / "hr", "--out", folder / "out")
    assert done.returncode == 0, done.stderr
    assert "PSNR-Y" in done.stdout
    assert sorted(path.name for path in (folder / "out").iterdir()) == ["evaluate.json", "per_image.csv", "report"]
    assert f"look at {folder}/out/report/index.html" in done.stdout
    assert (folder / "out" / "report" / "index.html").exists()
    done = loupe("evaluate", "--hr", folder / "hr", "--json")
    scores = json.loads(done.stdout)["sets"][folder.name]
    assert scores["n"] == 2
    assert scores["gain_db"] == 0


def test_evaluate_runs_a_model(folder: Path) -> None:
    save_network(folder / "model", build_network(CONFIG), CONFIG)
    done = loupe("evaluate", "--hr", folder / "hr", "--model", folder / "model", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["model"]["label"] == "RDN D1 C1 G4"
    assert report["sets"][folder.name]["psnr_y"] != report["sets"][folder.name]["bicubic"]["psnr_y"]


def test_evaluate_compresses_the_inputs(folder: Path) -> None:
    clean, *jpeg = (
        json.loads(loupe("evaluate", "--hr", folder / "hr", *given, "--json").stdout)["sets"]
        for given in ((), ("--jpeg", "90"), ("--jpeg", "30"))
    )
    name = folder.name
    assert [*jpeg[0], *jpeg[1]] == [f"{name}-jpeg90", f"{name}-jpeg30"]
    assert clean[name]["psnr_y"] > jpeg[0][f"{name}-jpeg90"]["psnr_y"] > jpeg[1][f"{name}-jpeg30"]["psnr_y"]


def test_evaluate_scores_finished_pictures_and_reports_the_missing_one(folder: Path) -> None:
    write_png(folder / "sr" / "a.png", picture(1, 40, 51))
    done = loupe("evaluate", "--hr", folder / "hr", "--sr", folder / "sr")
    assert done.returncode == 1
    assert "deep/b.png: no counterpart" in done.stderr
    assert "inf" in done.stdout


def test_facts_are_summed_up_and_written(folder: Path) -> None:
    done = loupe("facts", folder / "hr", "--out", folder / "facts.csv")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("2 files: 2 PNG\n")
    assert ["width", "51", "51", "51"] in [line.split() for line in done.stdout.splitlines()]
    rows = (folder / "facts.csv").read_text().splitlines()
    assert [row.split(",")[0] for row in rows] == ["path", "a.png", "deep/b.png"]


def test_facts_of_horrors(tmp_path: Path) -> None:
    horrors = make_horrors(tmp_path / "horrors")
    write_png(tmp_path / "good" / "a.png", picture(1))
    done = loupe("facts", tmp_path / "good", tmp_path / "horrors", "--json", "--out", tmp_path / "facts.parquet")
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    summary = json.loads(done.stdout)
    listed = {name: horror for name, horror in horrors.items() if horror.listed}
    assert summary["files"] == 1 + len(listed)
    bad = {f"{tmp_path}/horrors/{name}" for name, horror in listed.items() if horror.error}
    followed = f"{tmp_path}/horrors/link-out.png"  # DVC may keep a project's pictures so
    assert followed not in summary["undecodable"]
    assert bad - set(summary["undecodable"]) <= {followed, f"{tmp_path}/horrors/secret.png"}  # which root can read
    assert f"{tmp_path}/horrors/text.jpg: refused: not an image" in done.stderr
    names = pd.read_parquet(tmp_path / "facts.parquet")["path"]
    assert names[0] == f"{tmp_path}/good/a.png"
    assert f"{tmp_path}/horrors/line\nbreak.png" in set(names)


def test_drift_between_folders_and_tables(tmp_path: Path) -> None:
    (tmp_path / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for number in range(40):
        write_png(tmp_path / ("old" if number % 2 else "new") / f"{number}.png", picture(number))
        write_png(tmp_path / "dark" / f"{number}.png", picture(number) // 3)
    done = loupe("drift", "old", "new", "--out", "out", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == (
        "No drift: 20 pictures beside 20 of the reference differ no more than chance lets them"
    )
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["drift.json", "index.html"]
    for table in ("old.csv", "old.parquet"):
        assert loupe("facts", "old", "--out", table, cwd=tmp_path).returncode == 0
        done = loupe("drift", table, "dark", "--json", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        found = json.loads(done.stdout)
        assert (found["drift"], found["n_reference"], found["n_current"]) == (True, 20, 40)
        assert {"brightness", "contrast"} <= set(found["drifted"])
    (tmp_path / "new" / "torn.png").write_bytes(b"\x89PNG")
    (tmp_path / "new" / "0.png").unlink()
    done = loupe("drift", "old", "new", cwd=tmp_path)
    assert done.returncode == 1
    assert "torn.png: refused" in done.stderr
    assert "Too few to tell: 19 pictures beside 20 of the reference; at least 20 of either are needed" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["evaluate", "--hr", "nowhere"], "nowhere: no such folder"),
        (["evaluate", "--hr", "hr", "--model", "hr"], "hr: no model here: config.json is missing"),
        (["evaluate", "--hr", "hr", "--model", "m", "--sr", "s"], "--sr and --model exclude each other"),
        (["evaluate", "--hr", "hr", "--jpeg", "75", "--sr", "s"], "--sr and --jpeg exclude each other"),
        (["evaluate", "--hr", "hr", "--jpeg", "0"], "Invalid value for '--jpeg'"),
        (["downscale", "nowhere.png", "-o", "lr"], "nowhere.png: refused"),
        (["profile", "nope"], "no profile 'nope'"),
        (["validate", "hr/deep/none"], "hr/deep/none: no images here; give a folder"),
        (["facts", "nowhere"], "nowhere: no such folder"),
        (["facts", "hr/deep/none"], "hr/deep/none: no images here"),
        (["facts", "hr", "--out", "facts.xlsx"], "facts.xlsx: a table is written as .parquet or .csv"),
        (["drift", "hr", "nowhere"], "nowhere: neither a folder of images nor a table that `loupe facts --out` wrote"),
        (["drift", "hr", "hr/deep/none"], "hr/deep/none: no images here"),
        (["drift", "nowhere.csv", "hr"], "nowhere.csv: no such file"),
        (["drift", "hr", "notes.csv"], "notes.csv: no table of facts ("),
        (["drift", "hr", "notes.parquet"], "notes.parquet: no table of facts ("),
        (["evaluate"], "Missing option '--hr'"),
    ],
)
def test_wrong_use_is_explained(folder: Path, arguments: list[str], message: str) -> None:
    (folder / "params.yaml").write_bytes((ROOT / "params.yaml").read_bytes())
    for name in ("notes.csv", "notes.parquet"):
        (folder / name).write_text("path,note\na.png,fine\n")
    done = loupe(*arguments, cwd=folder)
    assert done.returncode == (1 if arguments[0] == "downscale" else 2)
    assert message in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (ModuleNotFoundError("x", name="ruamel.yaml"), "needs ruamel.yaml, which is not installed: pip"),
        (PermissionError(13, "Permission denied", "releases"), "Permission denied: 'releases'; see to it"),
    ],
)
def test_what_is_missing_on_this_machine_is_explained(
    error: Exception, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def command() -> None:
        raise error

    with pytest.raises(SystemExit) as ended:
        exit_as_loupe(command)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_module_of_our_own_that_is_missing_is_a_fault_with_its_traceback() -> None:
    with pytest.raises(ModuleNotFoundError):
        exit_as_loupe(lambda: importlib.import_module("loupe.nowhere"))


def test_profiles_are_listed_and_applied(tmp_path: Path) -> None:
    (tmp_path / "profiles").mkdir()
    for path in (ROOT / "profiles").glob("*.yaml"):
        (tmp_path / "profiles" / path.name).write_bytes(path.read_bytes())
    assert "smoke" in loupe("profile", cwd=tmp_path).stdout.split()
    done = loupe("profile", "smoke", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "steps: 40" in (tmp_path / "params.yaml").read_text()


def test_bench_lists_the_benchmarks_and_hands_arguments_on(folder: Path) -> None:
    assert {"data", "downscale", "recipes"} <= set(loupe("bench", cwd=ROOT).stdout.split())
    done = loupe("bench", "downscale", "--json", "--rounds", 1, "--out", folder / "report.json", cwd=ROOT)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report.keys() >= {"machine", "rows", "ratios"}
    assert json.loads((folder / "report.json").read_text()) == report
    assert loupe("bench", "downscale", "--no-such", cwd=ROOT).returncode == 2


def test_bench_names_what_there_is(tmp_path: Path) -> None:
    done = loupe("bench", "nothing", cwd=ROOT)
    assert done.returncode == 2
    known = "data, downscale, evaluate, facts, kills, recipes, train, upscale"
    assert f"no benchmark 'nothing'; there are {known}\n" in done.stderr
    done = loupe("bench", "data", cwd=tmp_path)
    assert done.returncode == 2
    assert "run in the project's root folder" in done.stderr


def test_flows_names_what_there_is_and_hands_arguments_on(tmp_path: Path) -> None:
    assert loupe("flows", cwd=ROOT).stdout.split() == ["deploy", "doctor", "up"]
    assert "usage: loupe flows up" in loupe("flows", "up", "--help", cwd=ROOT).stdout
    assert loupe("flows", "up", "--no-such", cwd=ROOT).returncode == 2
    done = loupe("flows", "nothing", cwd=ROOT)
    assert done.returncode == 2
    assert "no flows command 'nothing'; there are deploy, doctor, up" in done.stderr
    done = loupe("flows", "up", cwd=tmp_path)
    assert done.returncode == 2
    assert "run in the project's root folder" in done.stderr
