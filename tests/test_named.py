"""Models by name, and the network that ships."""

import subprocess
import sys
from pathlib import Path

import pytest

from loupe.errors import InputError
from loupe.named import SEED, model_at, shipped
from loupe.release.manifest import verify_folder
from loupe.release.registry import check_version
from loupe.release.store import open_store
from loupe.release.versions import read_alias, read_versions


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("LOUPE_STORE", raising=False)


def test_without_a_store_production_is_the_network_that_ships(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = model_at("production")
    assert folder.parent.parent == SEED
    verify_folder(folder)
    assert "no release store in LOUPE_STORE" in caplog.text
    assert not list(tmp_path.iterdir()), "nothing is copied"
    with pytest.raises(InputError, match=r"^1\.0\.0: no such file or folder, nor is there a release store"):
        model_at("1.0.0")  # a number is that of a store; whose, is not said


def test_a_store_goes_before_what_ships(tmp_path: Path) -> None:
    (tmp_path / "releases").mkdir()
    with pytest.raises(InputError, match="releases: has no production"):
        model_at("production")


def test_what_ships_is_whole_small_and_works_here() -> None:
    store = open_store(SEED)
    versions = read_versions(store)
    event = read_alias(store, "production")
    assert event is not None
    assert event.identity == versions[-1].identity
    assert shipped() == {version.identity for version in versions}
    assert sum(path.stat().st_size for path in SEED.rglob("*") if path.is_file()) < 20e6  # what every wheel carries
    for version in versions:
        check_version(store, version)
        assert sum(path.stat().st_size for path in (SEED / version.path).rglob("*") if path.is_file()) < 15e6
        command = [sys.executable, str(SEED / version.path / "verify.py")]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stdout + done.stderr
        assert "the bundle is in order" in done.stdout
