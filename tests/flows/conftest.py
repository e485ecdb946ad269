"""A small project with real git and DVC, as people and flows work in it."""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.flows.processes import marked

RECIPE = """
stages:
  train:
    cmd: python train.py
    deps: [train.py, data/products]
    params: [steps]
    outs: [models]
    metrics:
      - metrics/evaluate.json: {cache: false}
"""
TRAIN = """
import json, pathlib
pictures = sorted(path.read_text() for path in pathlib.Path("data/products").iterdir())
pathlib.Path("models").mkdir()
pathlib.Path("models/weights").write_text("".join(pictures))
pathlib.Path("metrics").mkdir(exist_ok=True)
pathlib.Path("metrics/evaluate.json").write_text(json.dumps({"pictures": len(pictures)}))
pathlib.Path("runs/checkpoint").write_text("kept")
"""
IGNORED = "/.cache/\n/runs\n/models\n"


class Project:
    """A repository of git and DVC in which a person works."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def run(self, *command: str, fails: bool = False) -> str:
        """Run a command in it; its output."""
        done = subprocess.run(
            command, cwd=self.folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120
        )
        assert (done.returncode != 0) == fails, f"{command}: {done.stdout}"
        return done.stdout

    def git(self, *arguments: str) -> str:
        """Run git in it; its stripped output."""
        return self.run("git", *arguments).strip()

    def dvc(self, *arguments: str) -> str:
        """Run dvc in it; its output."""
        return self.run(sys.executable, "-m", "dvc", *arguments)

    def commit(self, name: str, text: str = "") -> str:
        """Commit a file; the commit's id."""
        (self.folder / name).write_text(text or name)
        self.git("add", "--", name)
        self.git("commit", "--quiet", "--message", name)
        return self.git("rev-parse", "HEAD")

    def state(self) -> dict[str, str]:
        """All that a run must not touch: files (but for what git ignores), index, HEAD, branches, configuration."""
        names = filter(None, self.run("git", "ls-files", "-co", "--exclude-standard", "-z").split("\0"))
        files = {name: hashlib.sha256((self.folder / name).read_bytes()).hexdigest() for name in names}
        inside = {
            name: hashlib.sha256((self.folder / ".git" / name).read_bytes()).hexdigest()
            for name in ("HEAD", "index", "config")
        }
        branches = self.git("for-each-ref", "--format=%(refname) %(objectname)", "refs/heads")
        kept = "\n".join(line for line in branches.splitlines() if "/retrain/" not in line)
        return files | inside | {"status": self.git("--no-optional-locks", "status", "--porcelain"), "branches": kept}


@pytest.fixture(autouse=True)
def clean_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Git and DVC that know nothing of the developer's settings; what a test starts is ended."""
    for name in [name for name in os.environ if name.startswith(("DVC_", "GIT_", "LOUPE_"))]:
        monkeypatch.delenv(name)
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        monkeypatch.setenv(name, str(tmp_path / name.lower()))
    home = tmp_path / "home"
    home.mkdir()
    (home / ".gitconfig").write_text("[user]\nname = Pat\nemail = pat@loupe.invalid\n[init]\ndefaultBranch = main\n")
    monkeypatch.setenv("HOME", str(home))
    for name, value in {
        "GIT_CONFIG_NOSYSTEM": "1",
        "DVC_NO_ANALYTICS": "1",
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
    }.items():
        monkeypatch.setenv(name, value)
    with marked() as mark:
        monkeypatch.setenv("LOUPE_RUN_ID", mark)
        yield


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that has been reproduced once; its DVC cache is empty, the bundled remote holds the pictures."""
    project = Project(tmp_path_factory.mktemp("template"))
    with pytest.MonkeyPatch.context() as patch:
        for name in [name for name in os.environ if name.startswith("GIT_")]:
            patch.delenv(name)
        for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
            patch.setenv(name, str(tmp_path_factory.mktemp("dvc")))
        patch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
        patch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
        project.git("init", "--quiet", "--initial-branch=main")
        project.git("config", "user.name", "Pat")
        project.git("config", "user.email", "pat@loupe.invalid")
        project.dvc("init", "--quiet")
        for name, text in {
            ".dvc/config": "[core]\n    remote = bundled\n    analytics = false\n    check_update = false\n"
            "['remote \"bundled\"']\n    url = remote\n",
            ".gitignore": IGNORED,
            "dvc.yaml": RECIPE,
            "train.py": TRAIN,
            "params.yaml": "steps: 1\n",
            "data/products/one.txt": "one",
            "data/.gitignore": "/products\n",
        }.items():
            (project.folder / name).parent.mkdir(parents=True, exist_ok=True)
            (project.folder / name).write_text(text)
        (project.folder / "runs").mkdir()
        # As in the project: data.dvc at the root, so that `data` is free for other outputs.
        (project.folder / "data.dvc").write_text("outs:\n- path: data/products\n  hash: md5\n")
        project.dvc("commit", "--force", "--quiet", "data.dvc")
        project.dvc("push", "--quiet", "data.dvc")
        project.dvc("repro", "--quiet")
        project.git("add", "--all")
        project.git("commit", "--quiet", "--message", "Start")
        project.git("config", "--remove-section", "user")
    for name in (".dvc/cache", ".dvc/tmp", "models", "runs", "data/products"):
        shutil.rmtree(project.folder / name)
    return project.folder


@pytest.fixture
def project(template: Path, tmp_path: Path) -> Project:
    """A fresh clone of the template."""
    shutil.copytree(template, tmp_path / "project", symlinks=True)
    return Project(tmp_path / "project")


@pytest.fixture
def origin(project: Project, tmp_path: Path) -> Project:
    """A bare repository that the project pushes to."""
    folder = tmp_path / "origin.git"
    project.run("git", "clone", "--quiet", "--bare", str(project.folder), str(folder))
    project.git("remote", "add", "origin", str(folder))
    project.git("fetch", "--quiet", "origin")
    return Project(folder)
