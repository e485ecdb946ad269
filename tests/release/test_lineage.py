"""What a bundle says about its origin."""

from pathlib import Path

import pytest

from loupe.errors import InputError
from loupe.release.lineage import lineage

LOCK = """\
schema: '2.0'
stages:
  train:
    cmd: python -m loupe.stages.train
    deps:
    - {path: index, hash: md5, md5: aaaa.dir, size: 1}
    - {path: src/loupe/models/rdn.py, hash: md5, md5: bbbb, size: 1}
    params:
      params.yaml: {scale: 2}
    outs:
    - {path: models, hash: md5, md5: cccc.dir, size: 1}
  package:
    cmd: python -m loupe.stages.package
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "dvc.lock").write_text(LOCK)
    (tmp_path / "data.dvc").write_text("outs:\n- {path: data/products, md5: dddd.dir, hash: md5}\n")
    return tmp_path


def test_data_and_parameters_are_told(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOUPE_RUN_ID", raising=False)
    monkeypatch.delenv("LOUPE_COST_USD", raising=False)
    told = lineage(project, "cpu", None)
    assert told["data"] == {"data/products": "dddd.dir"}
    assert told["stages"] == {
        "train": {"params": {"scale": 2}, "deps": {"index": "aaaa.dir"}, "outs": {"models": "cccc.dir"}}
    }
    assert told["packages"]["torch"] and told["packages"]["onnxruntime"]
    assert (told["device"], told["run"], told["cost_usd"]) == ("cpu", None, None)
    assert told["trained_on"] is None
    assert lineage(project, "cpu", "PyTorch 3, an abacus")["trained_on"] == "PyTorch 3, an abacus"


def test_run_and_cost_come_from_whoever_knows_them(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_RUN_ID", "nightly-7")
    monkeypatch.setenv("LOUPE_COST_USD", "1.25")
    told = lineage(project, "cuda", None)
    assert (told["run"], told["cost_usd"]) == ("nightly-7", 1.25)
    monkeypatch.setenv("LOUPE_COST_USD", "cheap")
    with pytest.raises(InputError, match="LOUPE_COST_USD=cheap: no number"):
        lineage(project, "cpu", None)


def test_nothing_is_made_up(tmp_path: Path) -> None:
    told = lineage(tmp_path, "cpu", None)
    assert (told["data"], told["stages"]) == ({}, {})
