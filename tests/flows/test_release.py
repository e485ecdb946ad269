"""Promotion and rollback where something fails, or is killed, at the moment that counts."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from tests.flows.conftest import Project
from tests.release.conftest import DECISION, make_bundle

from flows.release import _moved_before
from flows.workspace import Workspace, open_workspace
from loupe.release.registry import promote
from loupe.release.store import Store, open_store
from loupe.release.tags import Tags
from loupe.release.versions import Event, read_alias

ROOT = Path(__file__).parents[2]
ROLLBACK = """
from flows.release import rollback

state = rollback(return_state=True)
print(state.name, state.message, sep=": ")
"""


def published(repository: Path, store: Store, bundle: Path) -> Event:
    """A bundle in production, from the commit that the repository is at."""
    make_bundle(bundle, bundle.name)
    champion = read_alias(store, "production")
    return promote(store, bundle, Tags(repository), DECISION, champion=champion, by="Ada", say=lambda line: None)


def test_a_promotion_that_was_killed_after_the_move_is_gone_on_with(project: Project, tmp_path: Path) -> None:
    store = open_store(tmp_path / "releases")

    def run(name: str) -> Workspace:
        workspace = open_workspace(project.folder, name, len)
        (workspace.folder / "params.yaml").write_text(f"steps: 2 # {name}\n")
        workspace.commit("Retrain")
        return workspace

    first = run("r1")
    assert _moved_before(first, store) is None
    event = published(first.folder, store, tmp_path / "one")
    assert _moved_before(first, store) == event.to_json()
    second = run("r2")
    assert _moved_before(second, store) is None, "production is another run's"
    published(second.folder, store, tmp_path / "two")
    assert _moved_before(first, store) is None, "somebody has moved it since"


@pytest.mark.timeout(180)
def test_a_rollback_whose_tags_cannot_be_pushed_is_done_all_the_same(
    project: Project, tmp_path: Path, prefect_server: str, prefect_env: dict[str, str]
) -> None:
    store = open_store(tmp_path / "releases")
    for name in ("one", "two", "three"):
        project.commit(name)
        published(project.folder, store, tmp_path / name)
    project.git("remote", "add", "origin", str(tmp_path / "away.git"))
    env = {
        **prefect_env,
        **{name: value for name, value in os.environ.items() if name.startswith(("GIT_", "DVC_", "HOME", "LOUPE_"))},
        "PREFECT_API_URL": prefect_server,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "LOUPE_STORE": str(tmp_path / "releases"),
        "LOUPE_RETRY_SECONDS": "0.1",
    }
    command = [sys.executable, "-c", ROLLBACK]
    done = subprocess.run(command, cwd=project.folder, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    (said,) = [line for line in done.stdout.splitlines() if line.startswith("RolledBack: ")]
    assert "production is version 1.1.0 again" in said
    assert "the tags are not at origin" in said
    event = read_alias(store, "production")
    assert event is not None
    assert event.version == "1.1.0"
    assert project.git("tag", "--list", "rdn-x2#production#4"), "made here"
