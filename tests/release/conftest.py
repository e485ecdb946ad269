"""Shared by the tests of the registry: bundles, a git repository, and a store of each kind."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from loupe.release.manifest import write_manifest
from loupe.release.registry import promote
from loupe.release.store import Store, open_store
from loupe.release.tags import Tags
from loupe.release.versions import Event, read_alias

SOURCE = Path(__file__).parents[2] / "src"
DECISION = {"promote": True, "gain_db": 0.31}


class Repository:
    """A git repository whose commits stand for bundles."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir()
        self.git("init", "--quiet", "--initial-branch=main")
        self.commit("first")

    def git(self, *arguments: str) -> str:
        identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
        command = ["git", *identity, *arguments]
        return subprocess.run(command, cwd=self.folder, check=True, capture_output=True, text=True).stdout

    def commit(self, content: str) -> str:
        (self.folder / "dvc.lock").write_text(content)
        self.git("add", "--all")
        self.git("commit", "--quiet", "--message", content)
        return self.git("rev-parse", "HEAD").strip()

    def tags(self) -> list[str]:
        return self.git("tag").split()


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository(tmp_path / "repository")


@pytest.fixture(params=["folder", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store; every test that takes it runs over a folder and over S3."""
    if request.param == "folder":
        return open_store(tmp_path / "releases")
    return new_bucket(request.getfixturevalue("s3").endpoint)


def new_bucket(endpoint: str) -> Store:
    """A store at S3, in a bucket of its own."""
    import boto3

    bucket = f"b{uuid.uuid4().hex[:12]}"
    boto3.client("s3", endpoint_url=endpoint).create_bucket(Bucket=bucket)
    return open_store(f"s3://{bucket}/models/rdn-x2")


def make_bundle(folder: Path, content: str, size: int = 0) -> Path:
    """A bundle all of whose files say `content`, the network with zeros behind it."""
    (folder / "golden").mkdir(parents=True)
    (folder / "model.onnx").write_bytes(content.encode() + bytes(size))
    (folder / "golden" / "größe 1.png").write_text(content)
    sets = {"photos": {"n": 4, "psnr_y": 34.09, "ssim_y": 0.9333, "gain_db": 2.23}}
    (folder / "metrics.json").write_text(json.dumps({"content": content, "sets": sets}))
    write_manifest(folder)
    return folder


@pytest.fixture
def publish(store: Store, repository: Repository, tmp_path: Path) -> Callable[..., Event]:
    """Promotes a bundle that says `content`, from a commit of its own."""

    def publish(content: str, **options: Any) -> Event:
        bundle = tmp_path / f"bundle-{content}"
        if not bundle.exists():
            make_bundle(bundle, content)
            repository.commit(content)
        champion = options.pop("champion") if "champion" in options else read_alias(store, "production")
        given: dict[str, Any] = {"by": "tester", "say": lambda line: None} | options
        return promote(store, bundle, Tags(repository.folder), DECISION, champion=champion, **given)

    return publish


def python(code: str, *arguments: object, **environment: str) -> "subprocess.Popen[str]":
    """A Python process of its own that runs `code`."""
    return subprocess.Popen(
        [sys.executable, "-c", code, *map(str, arguments)],
        env=os.environ | {"PYTHONPATH": str(SOURCE)} | environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
