"""Shared by the tests of rented machines: an account as the stack leaves it, at moto's server."""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import boto3
import pytest
from tests.cloud.gate import Gate, gate_before
from tests.conftest import S3

from loupe.cloud.fleet import Fleet
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
