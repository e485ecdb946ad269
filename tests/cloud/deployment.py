"""The stack, deployed at moto as docs/operations-ec2.md has it; and what IAM would say there.

moto executes the template, but knows no conditions of IAM: `allows` judges by those that the policies use.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any
from uuid import uuid4

import boto3

from loupe.cloud.stack import template

Policy = Mapping[str, Any]


@dataclass(frozen=True)
class Deployment:
    """A deployed stack: its outputs, the machine's role, and the policies as IAM holds them, named as their files."""

    outputs: Mapping[str, str]
    role: str
    policies: Mapping[str, Policy]


def deploy(**parameters: str) -> Deployment:
    """Deploy the stack, under a name of its own, at the endpoint of the environment.

    It stays there until the server ends: moto deletes such a stack in an order that it then refuses.

    Args:
        parameters: of the template. moto does not split the default of a list, so a list should be given.
    """
    document = json.loads(template())
    del document["Resources"]["BucketPolicy"]  # moto's CloudFormation does not know them, and warns
    cloudformation, iam = boto3.client("cloudformation"), boto3.client("iam")
    project = f"p{uuid4().hex[:12]}"
    given = {"ProjectName": project, "InstanceTypes": "g4dn.*,g5.*"} | parameters
    cloudformation.create_stack(
        StackName=project,
        TemplateBody=json.dumps(document),
        Parameters=[{"ParameterKey": key, "ParameterValue": value} for key, value in given.items()],
        Capabilities=["CAPABILITY_IAM"],
    )
    stack = cloudformation.describe_stacks(StackName=project)["Stacks"][0]
    assert stack["StackStatus"] == "CREATE_COMPLETE", stack
    resources = cloudformation.list_stack_resources(StackName=project)["StackResourceSummaries"]
    made = {found["LogicalResourceId"]: found["PhysicalResourceId"] for found in resources}
    policies = {
        name.removesuffix("Policy").lower(): iam.get_policy_version(PolicyArn=arn, VersionId="v1")["PolicyVersion"]
        for name, arn in made.items()
        if name.endswith("Policy")
    }
    return Deployment(
        outputs={output["OutputKey"]: output["OutputValue"] for output in stack["Outputs"]},
        role=made["InstanceRole"],
        policies={name: version["Document"] for name, version in policies.items()},
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
