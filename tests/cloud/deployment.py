"""The stack, deployed at moto as docs/operations-ec2.md has it; and what IAM would say there.

moto executes the template, but knows no conditions of IAM: `allows` judges by those that the policies use.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from uuid import uuid4

import boto3

from loupe.cloud.settings import Stack
from loupe.cloud.stack import template

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Deployment:
    """A deployed stack.

    stack: what the SSM parameter `parameter` says. outputs: of CloudFormation. role, group: the machine's role and
    security group. policies: as IAM holds them, named as their files. ec2: a client.
    """

    stack: Stack
    parameter: str
    outputs: Mapping[str, str]
    role: str
    group: str
    policies: Mapping[str, Policy]
    ec2: Any

    def change_template(self, **changed: Any) -> None:
        """Add a version of the launch template that differs from the latest one; a key that is changed to None goes."""
        name = self.stack.launch_template
        found = self.ec2.describe_launch_template_versions(LaunchTemplateId=name, Versions=["$Latest"])
        data = found["LaunchTemplateVersions"][0]["LaunchTemplateData"] | changed
        given = {key: value for key, value in data.items() if value is not None}
        self.ec2.create_launch_template_version(LaunchTemplateId=name, LaunchTemplateData=given)


def deploy(client: Callable[[str], Any] = boto3.client, **parameters: str) -> Deployment:
    """Deploy the stack.

    It stays there until the server ends: moto deletes such a stack in an order that it then refuses.

    Args:
        client: makes one of a service; without it, the environment says where and who.
        parameters: of the template; without ProjectName it gets a name of its own. moto does not split the default of a
            list, so a list should be given.
    """
    document = json.loads(template())
    del document["Resources"]["BucketPolicy"]  # moto's CloudFormation does not know them, and warns
    cloudformation, iam = client("cloudformation"), client("iam")
    given = {"ProjectName": f"p{uuid4().hex[:12]}", "InstanceTypes": "g4dn.*,g5.*"} | parameters
    name = given["ProjectName"]
    cloudformation.create_stack(
        StackName=name,
        TemplateBody=json.dumps(document),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    described = cloudformation.describe_stacks(StackName=name)["Stacks"][0]
    assert described["StackStatus"] == "CREATE_COMPLETE", described
    outputs = {output["OutputKey"]: output["OutputValue"] for output in described["Outputs"]}
    said = json.loads(client("ssm").get_parameter(Name=outputs["Parameter"])["Parameter"]["Value"])
    resources = cloudformation.list_stack_resources(StackName=name)["StackResourceSummaries"]
    made = {found["LogicalResourceId"]: found["PhysicalResourceId"] for found in resources}
    policies = {
        resource.removesuffix("Policy").lower(): iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
        for resource, arn in made.items()
        if resource.endswith("Policy")
    }
    return Deployment(
        stack=Stack(**(said | {"subnets": tuple(said["subnets"])})),
        parameter=outputs["Parameter"],
        outputs=outputs,
        role=made["InstanceRole"],
        group=made["SecurityGroup"],
        policies={policy: version["Document"] for policy, version in policies.items()},
        ec2=client("ec2"),
    )


def allows(policy: Policy, action: str, resource: str, context: Mapping[str, str] | None = None) -> bool:
    """Whether a policy allows an action on a resource in a context, by condition keys such as aws:RequestTag/NAME.

    Raises:
        NotImplementedError: the policy uses what this judge does not know.
    """
    return any(_grants(statement, action, resource, context or {}) for statement in policy["Statement"])


def listed(value: str | Sequence[str]) -> list[str]:
    """Strings, of which IAM writes a single one without its list."""
    return [value] if isinstance(value, str) else list(value)


def _grants(statement: Policy, action: str, resource: str, context: Mapping[str, str]) -> bool:
    unknown = statement.keys() - {"Sid", "Effect", "Action", "Resource", "Condition"}
    if unknown or statement["Effect"] != "Allow":
        raise NotImplementedError(f"{statement}: not known here")
    return (
        any(fnmatchcase(action.lower(), pattern.lower()) for pattern in listed(statement["Action"]))
        and any(fnmatchcase(resource, pattern) for pattern in listed(statement["Resource"]))
        and all(
            key in context and any(_meets(operator, context[key], wanted) for wanted in listed(values))
            for operator, conditions in statement.get("Condition", {}).items()
            for key, values in conditions.items()
        )
    )


def _meets(operator: str, value: str, wanted: str) -> bool:
    if operator in ("StringEquals", "Bool"):
        return value == wanted
    if operator in ("StringLike", "ArnEquals"):  # ArnEquals, too, knows wildcards
        return fnmatchcase(value, wanted)
    raise NotImplementedError(f"{operator}: not known here")
