"""A project's folder with real git and DVC, for what takes images in and versions them."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from tests.conftest import fabric

from loupe.imaging.files import write_png
from loupe.params import apply_profile

ROOT = Path(__file__).parents[2]


def dvc(folder: Path, *arguments: str) -> None:
    subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=folder, check=True, capture_output=True)


@pytest.fixture(scope="session")
def pristine(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one product image, versioned as the real one is, and the parameters of the sample."""
    folder = tmp_path_factory.mktemp("project")
    subprocess.run(["git", "init", "-q", "."], cwd=folder, check=True)
    dvc(folder, "init", "-q")
    dvc(folder, "remote", "add", "--default", "bundled", str(folder.with_name("project-remote")))
    apply_profile("sample", ROOT / "profiles", folder / "params.yaml")
    write_png(folder / "data/products/first.png", fabric(100, 420, 440))
    (folder / "data.dvc").write_text("outs:\n- path: data/products\n")
    dvc(folder, "commit", "-q", "-f", "data.dvc")
    return folder


@pytest.fixture
def project(pristine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it, which is the working directory."""
    folder = tmp_path / "project"
    shutil.copytree(pristine, folder, symlinks=True)
    monkeypatch.chdir(folder)
    monkeypatch.setenv("DVC_NO_ANALYTICS", "1")
    return folder
