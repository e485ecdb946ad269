"""A model scored by a flow: on a folder and on the project's own pictures, alone and beside the champion."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.conftest import picture
from tests.flows.runs import Flow
from tests.upscaling.networks import CONFIG, network

from loupe.imaging.files import write_png
from loupe.models.weights import save_network
from loupe.patches.index import PatchIndex
from loupe.release.manifest import write_manifest
from loupe.release.registry import promote
from loupe.release.store import open_store
from loupe.release.tags import Tags

Start = Callable[[str, Path], Flow]
Artifacts = Callable[[str], dict[str, dict[str, Any]]]
EVALUATE = "flows.evaluate:evaluate_and_report"


@pytest.fixture
def project(tmp_path: Path, make_index: Callable[..., PatchIndex], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with an index and a model that is in production."""
    folder = tmp_path / "project"
    make_index(train=1, valid=2)
    (tmp_path / "index-2-16-computed").rename(tmp_path / "project-index")
    folder.mkdir()
    (tmp_path / "project-index").rename(folder / "index")
    save_network(folder / "bundle", network(), CONFIG)
    (folder / "bundle" / "metrics.json").write_text('{"sets": {}}')
    write_manifest(folder / "bundle")
    (folder / ".gitignore").write_text("/index\n/.cache\n/flow.log\n/releases\n")
    git(folder, "init", "--quiet", "--initial-branch=main")
    git(folder, "add", "--all")
    git(folder, "commit", "--quiet", "--message", "first")
    monkeypatch.setenv("LOUPE_REPORTS", str(tmp_path / "published"))
    for name in ("LOUPE_STORE", "LOUPE_CACHE", "LOUPE_REPORTS_URL"):
        monkeypatch.delenv(name, raising=False)
    return folder


def git(folder: Path, *arguments: str) -> str:
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    done = subprocess.run(["git", *identity, *arguments], cwd=folder, check=True, capture_output=True, text=True)
    return done.stdout


def test_production_and_what_stands_beside_it(
    start_flow: Start, artifacts: Artifacts, project: Path, tmp_path: Path
) -> None:
    store = open_store(project / "releases")
    promote(store, project / "bundle", Tags(project), {}, champion=None, by="tester", reason="", say=lambda line: None)
    evaluate = start_flow(EVALUATE, project)
    before = git(project, "status", "--porcelain", "--ignored")

    alone = evaluate()
    assert alone.type == "COMPLETED", evaluate.log()
    assert alone.message.startswith("PSNR-Y of RDN")
    found = artifacts(alone.run)
    assert found.keys() == {"scores", "links"}
    assert "photos" in found["scores"]["data"]
    assert "beside bicubic enlargement alone" in found["scores"]["description"]
    assert f"<http://127.0.0.1:4210/{alone.run}/evaluation/index.html>" in found["links"]["data"]
    assert (tmp_path / "published" / alone.run / "evaluation" / "index.html").is_file()

    torch.manual_seed(1)
    save_network(tmp_path / "other", network(1), CONFIG)
    write_png(tmp_path / "shoes" / "a.png", picture(3))
    (tmp_path / "shoes" / "torn.png").write_bytes(b"torn")
    beside = evaluate(model=str(tmp_path / "other"), pictures=str(tmp_path / "shoes"))
    assert (beside.type, beside.name) == ("COMPLETED", "SomeFailed"), evaluate.log()
    scores = artifacts(beside.run)["scores"]
    assert "shoes" in scores["data"]
    assert "beside the champion, RDN" in scores["description"]
    assert "torn.png: refused" in evaluate.log()
    assert list((tmp_path / "published" / beside.run / "evaluation" / "pictures" / "0001").glob("champion.*"))

    assert not any((project / ".cache" / "flows" / "evaluations").iterdir()), "what was published is not kept twice"
    status = git(project, "status", "--porcelain", "--ignored")
    assert set(status.splitlines()) == {*before.splitlines(), "!! .cache/"}, "the rest of the project is as it was"


def test_an_index_that_is_only_in_dvcs_cache(
    start_flow: Start, artifacts: Artifacts, project: Path, tmp_path: Path
) -> None:
    env = {name: value for name, value in os.environ.items() if not name.startswith(("DVC_", "GIT_"))}
    env |= {"DVC_NO_ANALYTICS": "1", "DVC_DAEMON": "1"}

    def dvc(*arguments: str) -> None:
        subprocess.run([sys.executable, "-m", "dvc", *arguments], cwd=project, env=env, check=True, capture_output=True)

    evaluate = start_flow(EVALUATE, project)
    shutil.move(project / "index", tmp_path / "index")
    failed = evaluate(model="bundle")
    assert failed.type == "FAILED"
    assert "run `dvc repro patch-index` first" in failed.message

    shutil.move(tmp_path / "index", project / "index")
    dvc("init", "--quiet")
    (project / "dvc.yaml").write_text("stages:\n  patch-index:\n    cmd: 'true'\n    outs: [index]\n")
    dvc("commit", "--force")
    shutil.rmtree(project / "index")
    found = evaluate(model="bundle")
    assert found.type == "COMPLETED", evaluate.log()
    assert "photos" in artifacts(found.run)["scores"]["data"]
    assert not (project / "index").exists()
