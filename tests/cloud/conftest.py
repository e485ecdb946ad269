"""Shared by the tests of rented machines: an account as the stack leaves it, a mailbox, a project to train in."""

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import boto3
import pytest
from tests.cloud.gate import Gate, gate_before
from tests.cloud.metadata import MetadataServer
from tests.conftest import S3
from tests.system.test_pipeline import Copy

from loupe.cloud.agent import use_remote
from loupe.cloud.fleet import Fleet
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import fetch_inputs, git
from loupe.cloud.records import Order
from loupe.cloud.settings import Stack

TEMPLATE = {
    "MetadataOptions": {"HttpTokens": "required", "HttpEndpoint": "enabled"},
    "BlockDeviceMappings": [
        {
            "DeviceName": "/dev/sda1",
            "Ebs": {"VolumeSize": 100, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True},
        }
    ],
    "InstanceInitiatedShutdownBehavior": "terminate",
    "IamInstanceProfile": {"Name": "loupe-machine"},
}


@dataclass(frozen=True)
class Account:
    """What the stack made for one test: `stack` says it, `parameter` holds that at SSM, `group` has no inbound rule."""

    stack: Stack
    parameter: str
    group: str
    ec2: Any

    def template(self, **changed: Any) -> None:
        """A newer version of the launch template; a key that is changed to None goes."""
        data = {
            key: value for key, value in ({**TEMPLATE, "SecurityGroupIds": [self.group]} | changed).items() if value
        }
        self.ec2.create_launch_template_version(LaunchTemplateId=self.stack.launch_template, LaunchTemplateData=data)


@pytest.fixture
def account(s3: S3) -> Iterator[Account]:
    """An account with subnets in two zones; its machines are ended with the test."""
    project = f"project-{uuid.uuid4().hex[:12]}"
    ec2, ssm = boto3.client("ec2"), boto3.client("ssm")
    subnets = {item["AvailabilityZone"]: item for item in ec2.describe_subnets()["Subnets"] if item["DefaultForAz"]}
    chosen = [subnets[zone] for zone in ("us-east-1a", "us-east-1b")]
    group = ec2.create_security_group(GroupName=project, Description="none come in", VpcId=chosen[0]["VpcId"])[
        "GroupId"
    ]
    template = ec2.create_launch_template(
        LaunchTemplateName=project, LaunchTemplateData={**TEMPLATE, "SecurityGroupIds": [group]}
    )["LaunchTemplate"]["LaunchTemplateId"]
    values = {
        "project": project,
        "region": "us-east-1",
        "bucket": s3.bucket,
        "prefix": "ec2",
        "launch_template": template,
        "subnets": [subnet["SubnetId"] for subnet in chosen],
    }
    parameter = f"/{project}/ec2"
    ssm.put_parameter(Name=parameter, Type="String", Value=json.dumps(values))
    stack = Stack(**(values | {"subnets": tuple(values["subnets"])}))
    fleet = Fleet(stack)  # made here, so that no gate is before it
    try:
        yield Account(stack, parameter, group, ec2)
    finally:
        fleet.terminate([instance.id for instance in fleet.all()])


@pytest.fixture
def gate(account: Account, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[Gate]:
    """A gate before EC2, which clients that are made from now on go through; SSM and S3 have none."""
    with gate_before(s3_endpoint) as gate:
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
