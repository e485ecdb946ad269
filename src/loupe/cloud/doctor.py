"""Is everything there that a launch needs? Says of each thing whether it is well, or what is wrong."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from loupe.cloud import aws
from loupe.cloud.fleet import Fleet
from loupe.cloud.parcel import remote_of
from loupe.cloud.prices import ladder
from loupe.cloud.settings import Policy, Stack, find_image, load_policy, read_stack
from loupe.errors import InputError


@dataclass(frozen=True)
class Finding:
    """What is known about one thing, in a sentence that also says what to do where it is wrong."""

    name: str
    ok: bool
    message: str


def examine(project: Path, policy_file: Path) -> Iterator[Finding]:
    """Look at one thing after the other, each as soon as what it needs is known to be well; changes nothing.

    Args:
        project: the root folder, whose DVC remote is looked at.
        policy_file: ec2.yaml.
    """
    try:
        policy = load_policy(policy_file)
    except InputError as error:
        yield Finding("ec2.yaml", False, str(error))
        return
    yield Finding("ec2.yaml", True, f"{', '.join(policy.types)}; a run may cost {policy.budget_usd:.2f} USD")
    who = _look("credentials", _caller)
    yield who
    if not who.ok:
        return
    try:
        stack = read_stack(policy.parameter)
    except InputError as error:
        yield Finding("stack", False, str(error))
        return
    yield Finding("stack", True, f"{stack.project} in {stack.region}, bucket {stack.bucket}")
    yield _look("launch template", lambda: _template(stack))
    yield _look("image", lambda: find_image(policy.image))
    yield _look("machines", lambda: _offers(policy, stack))
    yield _look("bucket", lambda: _bucket(stack))
    yield _look("dvc remote", lambda: remote_of(project).url)


def _look(name: str, find: Callable[[], str]) -> Finding:
    try:
        return Finding(name, True, find())
    except InputError as error:
        return Finding(name, False, str(error))


def _caller() -> str:
    with aws.told("asking AWS who we are"):
        return str(aws.client("sts").get_caller_identity()["Arn"])


def _template(stack: Stack) -> str:
    if wrong := Fleet(stack).check_template():
        raise InputError(f"{stack.launch_template} {'; '.join(wrong)}; deploy the stack anew: docs/operations-ec2.md")
    return stack.launch_template


def _offers(policy: Policy, stack: Stack) -> str:
    first, *others = ladder(policy, stack)
    return f"{first.type}, {first.market}, in {first.zone} for {first.price:.3f} USD an hour; {len(others)} places more"


def _bucket(stack: Stack) -> str:
    with aws.told(f"s3://{stack.bucket}/{stack.prefix}/"):
        aws.client("s3").list_objects_v2(Bucket=stack.bucket, Prefix=f"{stack.prefix}/", MaxKeys=1)
    return f"s3://{stack.bucket}/{stack.prefix}/"
