"""`loupe registry ...` as people use it: real networks in real bundles, real processes, their output and exit codes."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ruamel.yaml import YAML
from tests.release.conftest import SOURCE, Repository

import loupe
from loupe.errors import InputError
from loupe.evaluation.methods import stored
from loupe.evaluation.pairs import held_out
from loupe.evaluation.run import evaluate, to_json
from loupe.models.weights import build_network, save_network
from loupe.named import model_at
from loupe.patches.index import PatchIndex
from loupe.release.bundle import Source, write_bundle

pytestmark = pytest.mark.timeout(300)

CONFIG = {"name": "rdn", "D": 1, "C": 1, "G": 4, "G0": 4, "scale": 2, "residual": "bicubic"}
# Of an untrained network little can be asked. It is a little better than bicubic, and than itself too bright.
LENIENT = {"min_images": 2, "min_gain": 0.0, "min_gain_over_bicubic": 0.01, "max_latency_ratio": 100.0}
LENIENT |= {f"max_{what}_loss": 10.0 for what in ("ssim", "image", "patch", "set", "slice", "flat")}
Registry = Callable[..., str]


@pytest.fixture
def registry(repository: Repository, tmp_path: Path) -> Registry:
    """Runs `loupe registry` in a project; gives what it printed, and checks the exit code."""
    params: dict[str, Any] = YAML(typ="safe").load((SOURCE.parent / "params.yaml").read_text())
    params["promotion"] |= LENIENT
    with (repository.folder / "params.yaml").open("w") as stream:
        YAML().dump(params, stream)
    (repository.folder / ".gitignore").write_text("/index\n/.cache\n")
    repository.commit("parameters")

    def run(*arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "loupe.cli", "registry", *map(str, arguments)],
            cwd=repository.folder,
            env=os.environ | {"PYTHONPATH": str(SOURCE), "LOUPE_STORE": str(tmp_path / "releases")},
            capture_output=True,
            text=True,
            timeout=120,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    return run


@pytest.fixture
def bundles(repository: Repository, make_index: Callable[..., PatchIndex], tmp_path: Path) -> dict[str, Path]:
    """Bundles of an untrained network, `good`, and of the same made a grey level too bright, `fair`."""
    make_index(train=1, valid=4)
    (tmp_path / "index-2-16-computed").rename(repository.folder / "index")
    index = PatchIndex(repository.folder / "index")
    torch.manual_seed(0)
    network = build_network(CONFIG)
    made = {}
    for name in ("good", "fair"):
        if name == "fair":
            network.state_dict()["output.bias"].add_(0.004)
        folder = tmp_path / name
        save_network(folder / "models", network, CONFIG)
        scores = to_json(evaluate(held_out(index), stored(folder / "models")).summary)
        (folder / "evaluate.json").write_text(scores)
        source = Source(folder / "models", index, folder / "evaluate.json", "", jpeg_share=0.0, lineage={})
        write_bundle(folder / "bundle", source, held_out(index), None)
        made[name] = folder / "bundle"
    return made


def identity_of(model: str) -> str:
    """Which network `loupe.load` gives."""
    return loupe.load(model).identity


def sha256(bundle: Path) -> str:
    return hashlib.sha256((bundle / "model.onnx").read_bytes()).hexdigest()


def test_a_day_at_the_registry(
    registry: Registry,
    bundles: dict[str, Path],
    repository: Repository,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("LOUPE_STORE", str(tmp_path / "releases"))
    monkeypatch.setenv("LOUPE_CACHE", str(tmp_path / "cache"))
    assert "no versions yet" in registry("list")
    assert "has no production" in registry("pull", "-o", tmp_path / "served", code=2)

    told = registry("promote", "--bundle", bundles["fair"], "--dry-run")
    assert "instead of bicubic" in told
    assert "no versions yet" in registry("list"), "a trial publishes nothing"
    assert "production: version 1.0.0" in registry("promote", "--bundle", bundles["fair"], "--by", "run 7")
    again = registry("promote", "--bundle", bundles["fair"], code=1)
    assert again.startswith("refused: ")
    assert "gain" in again.splitlines()[0]
    assert "production" not in repository.git("tag", "--list", "*#2")

    repository.commit("two")
    told = registry("promote", "--bundle", bundles["good"], "--reason", "not too bright")
    assert "production: version 1.1.0" in told
    assert "FAILS" not in told
    table = registry("list")
    assert table.index("1.1.0") < table.index("1.0.0")
    assert json.loads(registry("list", "--json"))[0]["aliases"] == ["production"]
    shown = json.loads(registry("show", "--json"))
    assert "model.onnx" in shown["files"]
    kept = tmp_path / "releases" / shown["events"][-1]["decision"]["path"]
    record = json.loads(kept.read_text())
    assert record["promoted"] and record["passed"]
    assert record["measured"]["models"]["model.onnx"][0]["seconds"] > 0
    assert (tmp_path / "releases" / shown["events"][-1]["picture"]["path"]).read_text().startswith("<svg")

    assert identity_of("production") == sha256(bundles["good"])
    assert identity_of("1.0.0") == sha256(bundles["fair"])
    for name, message in (("staging", "has no staging"), ("2.0.0", "has no 2.0.0"), ("no/where", "no model here")):
        with pytest.raises(InputError, match=message):
            loupe.load(name)
    with pytest.raises(InputError, match="nope: no such file or folder, nor is there a release store nowhere"):
        model_at("nope", "nowhere")

    worse = registry("promote", "--bundle", bundles["fair"], code=1)
    assert "gain" in worse.splitlines()[0]
    assert "--force needs --reason" in registry("promote", "--bundle", bundles["fair"], "--force", code=2)

    assert "version 1.1.0" in registry("pull", "-o", tmp_path / "served")
    assert "version 1.0.0" in registry("rollback", "--reason", "halos on rings")
    assert identity_of("production") == sha256(bundles["fair"])
    assert [line.split()[2] for line in registry("history").splitlines()[3:]] == ["promote", "promote", "rollback"]
    assert json.loads(registry("prune", "--keep", "1", "--json")) == []
    repository.git("tag", "--delete", "rdn-x2#production#3")
    assert "mended: tag rdn-x2#production#3 was missing" in (told := registry("verify"))
    assert "all is well" in told
    assert (tmp_path / "releases" / "index.html").exists()
    next((tmp_path / "releases" / "versions").glob("1.1.0-*/model.onnx")).write_text("tampered")
    assert json.loads(registry("verify", "--json", code=1))[0]["mended"] is False


def test_what_the_gate_refuses_can_be_forced_and_that_is_kept(
    registry: Registry, bundles: dict[str, Path], repository: Repository, tmp_path: Path
) -> None:
    registry("promote", "--bundle", bundles["good"])
    repository.commit("two")
    force = ("promote", "--bundle", bundles["fair"], "--force", "--by", "Ada")
    told = registry(*force, "--reason", "to try the alarm")
    assert told.startswith("promoted by override of Ada")
    event = json.loads(registry("history", "--json"))[-1]
    record = json.loads((tmp_path / "releases" / event["decision"]["path"]).read_text())
    assert record["override"] == {"reason": "to try the alarm", "who": "Ada"}
    assert not record["passed"]


def test_a_damaged_bundle_is_not_even_judged(registry: Registry, bundles: dict[str, Path], tmp_path: Path) -> None:
    (bundles["good"] / "model.onnx").write_bytes(b"tampered")
    assert "model.onnx is damaged" in registry("promote", "--bundle", bundles["good"], code=2)
    assert not (tmp_path / "releases").exists()
