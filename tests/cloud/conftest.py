"""Shared by the tests of rented machines: an account as the stack leaves it, a mailbox, a project to train in."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.cloud.deployment import Deployment, deploy
from tests.cloud.metadata import MetadataServer
from tests.conftest import S3
from tests.system.gate import Gate
from tests.system.test_pipeline import Copy

from loupe.cloud.agent import use_remote
from loupe.cloud.fleet import Fleet
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import fetch_inputs, git
from loupe.cloud.records import Order


@pytest.fixture
def account(s3: S3) -> Iterator[Deployment]:
    """An account in which the stack has been deployed, in two zones; its machines are ended with the test."""
    deployment = deploy(Zones="2")
    fleet = Fleet(deployment.stack)  # made here, so that no gate is before it
    try:
        yield deployment
    finally:
        fleet.terminate([instance.id for instance in fleet.all()])


@pytest.fixture
def gate(account: Deployment, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before EC2, which clients that are made from now on go through; SSM and S3 have none."""
    with Gate(s3_endpoint) as gate:
        monkeypatch.setenv("AWS_ENDPOINT_URL_EC2", gate.url)
        yield gate


@pytest.fixture
def mailbox(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """An empty mailbox of the run `run-1`."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")  # nobody waits for a server that a test has made fail
    return Mailbox(s3.bucket, "ec2", "run-1")


@pytest.fixture
def metadata() -> Iterator[MetadataServer]:
    """A machine's metadata service."""
    with MetadataServer("i-0123456789abcdef0") as server:
        yield server


@pytest.fixture(scope="session")
def indexed(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project of the profile `smoke` in which everything before the stage `train` was made; not to be changed."""
    copy = Copy(tmp_path_factory.mktemp("indexed") / "project")
    copy.run("loupe", "profile", "smoke")
    copy.run("dvc", "pull", "data.dvc")
    copy.run("dvc", "repro", "patch-index")
    return copy


class Clone(Copy):
    """A folder that is a project already; its commands run with the environment that the test has by now."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.environment = os.environ | {
            "PYTHONPATH": str(folder / "src"),
            "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
            "DVC_NO_ANALYTICS": "1",
            "DO_NOT_TRACK": "1",
        }


def clone(origin: Copy, folder: Path, bucket: str) -> Clone:
    """A project of its own with the files and the DVC cache of another, and its DVC remote in a bucket."""
    subprocess.run(["cp", "-a", str(origin.folder), str(folder)], check=True)
    copy = Clone(folder)
    copy.run("dvc", "remote", "add", "--local", "--default", "s3", f"s3://{bucket}/dvc")
    return copy


def unpack(mailbox: Mailbox, order: Order, folder: Path, inputs: bool = True) -> Clone:
    """What a machine does to have the order's tree, and its inputs."""
    for name, sha256 in (("code.bundle", order.bundle), ("changes.patch", order.patch)):
        if sha256:
            mailbox.get_file(name, folder.parent / name, sha256)
    subprocess.run(["git", "init", "--quiet", str(folder)], check=True)
    git(folder, "fetch", "--quiet", str(folder.parent / "code.bundle"), "HEAD")
    git(folder, "checkout", "--quiet", "--detach", order.commit)
    if order.patch:
        git(folder, "apply", "--index", str(folder.parent / "changes.patch"))
    if inputs:
        fetch_inputs(folder, mailbox, order, print)
        use_remote(folder, order.remote)
    return Clone(folder)
