"""scripts/champion.sh: from two folders of pictures to a release store, also after it was ended on the way."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.conftest import fabric
from tests.system.shop import LENIENT
from tests.system.test_pipeline import Copy

from loupe.imaging.files import write_png
from loupe.release.registry import check_version
from loupe.release.store import open_store
from loupe.release.versions import read_alias, read_version

pytestmark = pytest.mark.timeout(400)


def test_a_network_is_trained_and_published(tmp_path: Path) -> None:
    project = Copy(tmp_path / "project")
    for number in range(6):
        write_png(tmp_path / "photographs" / f"{number}.png", fabric(number))
    for number in range(6, 9):
        write_png(tmp_path / "packshots" / f"{number}.png", fabric(number))
    write_png(tmp_path / "benchmarks" / "Set5" / "HR" / "1.png", fabric(10))
    (tmp_path / "licences.md").write_text("Woven by ourselves.")
    command = ["scripts/champion.sh", "--photos", str(tmp_path / "photographs")]
    command += ["--licences", str(tmp_path / "licences.md"), "--benchmarks", str(tmp_path / "benchmarks")]
    command += ["--products", str(tmp_path / "packshots"), "--store", str(tmp_path / "store"), "--profile", "smoke"]
    gate = LENIENT | {"min_images": "2"}
    changes = ["valid_share=0.5", "package.int8=false", "train.steps=400"]
    changes += [f"promotion.{key}={value}" for key, value in gate.items()]
    for change in changes:
        command += ["--set", change]
    short = subprocess.run(
        [*command, "--minutes", "0.05"], cwd=project.folder, env=project.environment, capture_output=True, text=True
    )
    assert short.returncode == 124, short.stdout + short.stderr
    assert "the same command goes on from here" in short.stderr
    assert "taken in" in short.stdout
    # packed for a machine that has neither DVC nor git, where it is ended once more, and goes on
    project.run(*command, "--pack", str(tmp_path / "pack.tar"))
    bare = project.environment | {"PATH": str(programs(tmp_path / "bin"))}
    apart = tmp_path / "apart"
    apart.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "pack.tar", "-C", apart], check=True)
    assert not (apart / "src/loupe/seed").exists()
    results = str(tmp_path / "results")
    train = ["scripts/train-apart.sh", results]
    with subprocess.Popen(train, cwd=apart, env=bare, stderr=subprocess.PIPE, text=True) as ended:
        while not (apart / "runs").exists() and ended.poll() is None:
            time.sleep(0.05)
        ended.terminate()
        said = ended.communicate()[1]
    assert ended.returncode == 143, said
    assert f"{results}: a checkpoint" in said
    assert project.run(*command, "--trained", results, "--pack", str(tmp_path / "pack.tar")).count("taken in") == 0
    shutil.rmtree(apart)
    apart.mkdir()
    subprocess.run(["tar", "-xf", tmp_path / "pack.tar", "-C", apart], check=True)
    whole = subprocess.run(train, cwd=apart, env=bare, capture_output=True, text=True)
    assert whole.returncode == 0, whole.stdout + whole.stderr
    assert "going on from step" in whole.stdout
    wrong = tmp_path / "wrong"
    wrong.mkdir()
    (apart / "pack.id").write_text("another\n")
    subprocess.run(["tar", "-cf", wrong / "trained.tar.aa", "pack.id", "runs", "models"], cwd=apart, check=True)
    refused = subprocess.run(
        [*command, "--trained", str(wrong)], cwd=project.folder, env=project.environment, capture_output=True, text=True
    )
    assert refused.returncode == 2
    assert f"{wrong}: was trained with other pictures, code or parameters" in refused.stderr
    said = project.run(*command, "--trained", results)
    assert "taken in" not in said, "each call goes on"
    assert "Running stage 'train'" not in said
    assert "Running stage 'evaluate'" in said
    store = open_store(tmp_path / "store")
    event = read_alias(store, "production")
    assert event is not None
    assert event.version == "1.0.0"
    check_version(store, event)
    clone = project.folder / ".cache/champion/loupe"
    version = read_version(store, "1.0.0")
    assert version is not None
    shown = subprocess.run(
        ["git", "show", f"{version.commit}:params.yaml"], cwd=clone, check=True, capture_output=True, text=True
    ).stdout
    assert "photos: {path: ../photos}" in shown
    card = (tmp_path / "store" / version.path / "MODEL_CARD.md").read_text()
    assert "Woven by ourselves." in card
    assert "\n| EDSR-baseline | 37.99 / 0.9604 |\n" in card
    assert project.run("git", "status", "--porcelain") == "", "the project itself is as it was"


def programs(folder: Path) -> Path:
    """A folder for PATH: all that a machine must have to train what was packed."""
    folder.mkdir()
    needed = "bash cmp cp dirname env mkdir mv realpath rm rmdir sleep split tar timeout"
    for name in needed.split():
        found = shutil.which(name)
        assert found, name
        (folder / name).symlink_to(found)
    (folder / "python3").write_text(f'#!{folder / "bash"}\nexec "{sys.executable}" "$@"\n')
    (folder / "python3").chmod(0o755)
    return folder


def test_wrong_use_is_explained(tmp_path: Path) -> None:
    project = Copy(tmp_path / "project")
    for arguments in ([], ["--photos", "x"], ["--photos"], ["--what", "x"]):
        command = ["scripts/champion.sh", *arguments]
        done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
        assert done.returncode == 2
        assert done.stderr.startswith("usage: scripts/champion.sh --photos DIR")


def test_a_folder_without_benchmarks_is_found_out_before_hours_of_training(tmp_path: Path) -> None:
    project = Copy(tmp_path / "project")
    command = ["scripts/champion.sh", "--benchmarks", "benchmarks"]
    for name in ("photos", "products", "store"):
        command += [f"--{name}", str(tmp_path)]
    done = subprocess.run(command, cwd=project.folder, env=project.environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr == f"error: {project.folder}/benchmarks: holds no Set5/HR or the like\n"
    assert not (project.folder / ".cache/champion").exists()
