"""`loupe registry ...` as people use it: real processes, their output and their exit codes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.release.conftest import SOURCE, Repository, make_bundle

pytestmark = pytest.mark.timeout(120)


def test_a_day_at_the_registry(repository: Repository, tmp_path: Path) -> None:
    def registry(*arguments: object, code: int = 0) -> str:
        done = subprocess.run(
            [sys.executable, "-m", "loupe.cli", "registry", *map(str, arguments)],
            cwd=repository.folder,
            env=os.environ | {"PYTHONPATH": str(SOURCE), "LOUPE_STORE": str(tmp_path / "releases")},
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    assert "no versions yet" in registry("list")
    assert "has no production" in registry("pull", "-o", tmp_path / "served", code=2)
    for content in ("one", "two"):
        repository.commit(content)
        make_bundle(tmp_path / content, content)
        told = registry("promote", "--bundle", tmp_path / content, "--by", "run 7", "--reason", "better")
        assert "production: version 1." in told
    assert "production already" in registry("promote", "--bundle", tmp_path / "two", code=2)
    table = registry("list")
    assert "34.09 (+2.23)" in table
    assert table.index("1.1.0") < table.index("1.0.0")
    assert json.loads(registry("list", "--json"))[0]["aliases"] == ["production"]
    assert "model.onnx" in registry("show")
    assert "version 1.1.0" in registry("pull", "-o", tmp_path / "served")
    assert "version 1.0.0" in registry("rollback", "--reason", "halos on rings")
    assert [line.split()[2] for line in registry("history").splitlines()[3:]] == ["promote", "promote", "rollback"]
    assert json.loads(registry("prune", "--keep", "1", "--json")) == []
    repository.git("tag", "--delete", "rdn-x2#production#3")
    assert "mended: tag rdn-x2#production#3 was missing" in (told := registry("verify"))
    assert "all is well" in told
    next((tmp_path / "releases" / "versions").glob("1.1.0-*/model.onnx")).write_text("tampered")
    assert json.loads(registry("verify", "--json", code=1))[0]["mended"] is False
    assert (tmp_path / "releases" / "index.html").exists()
