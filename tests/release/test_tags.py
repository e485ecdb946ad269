"""The git-side record, as the tools of others read it: gto and DVC, in a real project with a pipeline."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML
from tests.release.conftest import Repository, make_bundle

from loupe.release.registry import promote, rollback, verify
from loupe.release.store import open_store
from loupe.release.tags import ARTIFACT, Tags
from loupe.release.versions import RegistryError, read_alias

RECIPE = f"""
stages:
  package:
    cmd: python make.py
    deps: [make.py, text]
    outs: [bundle]
artifacts:
  {ARTIFACT}:
    type: model
    path: bundle
"""


class Project(Repository):
    """A DVC project whose pipeline makes a bundle."""

    def run(self, *command: str) -> str:
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        environment = os.environ | {"PATH": path, "DVC_NO_ANALYTICS": "1"}
        done = subprocess.run(command, cwd=self.folder, env=environment, capture_output=True, text=True, timeout=100)
        assert done.returncode == 0, f"{command}: {done.stdout}\n{done.stderr}"
        return done.stdout


def test_gto_and_dvc_agree(tmp_path: Path) -> None:
    project, store = Project(tmp_path / "project"), open_store(tmp_path / "releases")
    project.run("dvc", "init", "--quiet")
    (project.folder / "dvc.yaml").write_text(RECIPE)
    (project.folder / "make.py").write_text(
        "import pathlib, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parents[2] / 'src')!r})\n"
        "from loupe.release.manifest import write_manifest\n"
        "bundle = pathlib.Path('bundle')\n"
        "bundle.mkdir()\n"
        "(bundle / 'model.onnx').write_text(pathlib.Path('text').read_text())\n"
        "write_manifest(bundle)\n"
    )
    (project.folder / "dvc.lock").unlink()  # of the first commit, which DVC did not write
    for content in ("one", "two"):
        (project.folder / "text").write_text(content)
        project.run("dvc", "repro", "--quiet")
        project.git("add", "--all")
        project.git("commit", "--quiet", "--message", content)
        champion = read_alias(store, "production")
        promote(store, project.folder / "bundle", Tags(project.folder), {}, champion=champion, by="run 7")
    rollback(store, tags=Tags(project.folder), by="night shift", reason="halos")

    shown = json.loads(project.run("gto", "show", "--json"))
    assert shown[ARTIFACT]["version"] == "v1.1.0"
    assert shown[ARTIFACT]["stage"] == {"production": "v1.0.0"}
    told = json.loads(project.run("gto", "history", "--json", "--asc"))
    assert [
        (event["event"], event.get("version"), event["author"]) for event in told if event["event"] != "commit"
    ] == [
        ("registration", "v1.0.0", "run 7"),
        ("assignment", "v1.0.0", "run 7"),
        ("registration", "v1.1.0", "run 7"),
        ("assignment", "v1.1.0", "run 7"),
        ("assignment", "v1.0.0", "night shift"),
    ]
    tags = Tags(project.folder)
    versions = tags.versions()
    assert tags.moves("production") == {1: versions["1.0.0"], 2: versions["1.1.0"], 3: versions["1.0.0"]}
    assert tags.moves("product") == {}
    elsewhere = tmp_path / "elsewhere"
    for name, arguments in (
        ("staged", ["artifacts", "get", str(project.folder), ARTIFACT, "--stage", "production"]),
        ("numbered", ["get", str(project.folder), "bundle", "--rev", f"{ARTIFACT}@v1.0.0"]),
    ):
        project.run("dvc", *arguments, "--out", str(elsewhere / name))
        assert (elsewhere / name / "model.onnx").read_text() == "one"


def test_dvc_yaml_names_the_model() -> None:
    recipe = YAML(typ="safe").load((Path(__file__).parents[2] / "dvc.yaml").read_text())
    assert recipe["artifacts"][ARTIFACT]["path"] == "bundle"


def test_tags_are_not_signed(repository: Repository, tmp_path: Path) -> None:
    repository.git("config", "tag.gpgSign", "true")
    repository.git("config", "gpg.program", "/bin/false")
    bundle, store = make_bundle(tmp_path / "bundle", "one"), open_store(tmp_path / "releases")
    promote(store, bundle, Tags(repository.folder), {}, champion=None, by="Ada", say=print)
    assert repository.tags() == ["rdn-x2#production#1", "rdn-x2@v1.0.0"]


def test_tags_that_say_something_else(repository: Repository, tmp_path: Path) -> None:
    store, tags = open_store(tmp_path / "releases"), Tags(repository.folder)
    bundle = make_bundle(tmp_path / "bundle", "one")
    for name in ("v1", "rdn-x2@v1.0", "rdn-x2@v1.0.0-rc.1", "other@v9.0.0", "rdn-x2#production#x"):
        repository.git("tag", "-a", "-m", "x", name)
    repository.git("tag", "rdn-x2@v8.0.0")  # no annotated one: not GTO's either
    assert tags.versions() == {}
    assert tags.moves("production") == {}
    repository.git("tag", "-a", "-m", "x", "rdn-x2#production#1")
    repository.commit("one")
    with pytest.raises(RegistryError, match=r"has a tag rdn-x2#production#1 that this store knows nothing of"):
        promote(store, bundle, tags, {}, champion=None, by="tester")
    assert not (tmp_path / "releases").exists(), "refused before anything was written"
    repository.git("tag", "--delete", "rdn-x2#production#1")
    promote(store, bundle, tags, {}, champion=None, by="tester")
    repository.commit("two")
    repository.git("tag", "-a", "-f", "-m", "x", "rdn-x2#production#1")
    (finding,) = verify(store, tags)
    assert not finding.mended
    assert "rdn-x2#production#1: names commit" in finding.what
    repository.git("tag", "--delete", "rdn-x2#production#1")
    assert [finding.mended for finding in verify(store, tags)] == [True]
    (tmp_path / "nothing").mkdir()
    for name in ("nowhere", "nothing"):
        with pytest.raises(RegistryError, match="git rev-parse"):
            Tags(tmp_path / name).commit()
    with pytest.raises(RegistryError, match="git rev-parse"):
        tags.commit("--exec=x")
