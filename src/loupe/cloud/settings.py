"""What a machine may be, and where: ec2.yaml says what people decide, the stack's parameter what the account holds."""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from loupe.cloud import aws
from loupe.cloud.aws import told
from loupe.cloud.records import Market
from loupe.errors import InputError
from loupe.s3 import error_code

# As types and subnets are written; a newer stack may say more than this version of loupe reads
STRICT = ConfigDict(extra="forbid", strict=True)
TOLERANT = ConfigDict(extra="ignore", strict=True)
MANUAL = "docs/operations-ec2.md"
DEEP_LEARNING_IMAGE = (
    "/aws/service/deeplearning/ami/x86_64/base-oss-nvidia-driver-gpu-ubuntu-24.04/latest/ami-id"  # AWS keeps it current
)

InstanceType = Annotated[str, Field(pattern=r"^[a-z][a-z0-9-]*\.[a-z0-9-]+$")]
Dollars = Annotated[float, Field(gt=0, allow_inf_nan=False)]


@dataclass(frozen=True, config=STRICT)
class Policy:
    """Everything in `ec2.yaml`, which explains the keys.

    parameter: the SSM parameter that the stack wrote. types, markets: what may be launched; the order is that of
    prices. budget_usd: of a run, all its machines together. deadline_hours: of one machine. spot_losses: after so many
    lost machines only on-demand ones are launched. image: see `find_image`. prices: USD an hour on demand, by type, for
    types that `prices.ON_DEMAND` lacks or has no longer right.
    """

    parameter: Annotated[str, Field(pattern=r"^/?[\w.-]+(/[\w.-]+)*$")]
    types: Annotated[tuple[InstanceType, ...], Field(min_length=1)]
    markets: Annotated[tuple[Market, ...], Field(min_length=1)]
    budget_usd: Annotated[float, Field(gt=0, le=100_000, allow_inf_nan=False)]
    deadline_hours: Annotated[float, Field(gt=0, le=720, allow_inf_nan=False)]
    spot_losses: Annotated[int, Field(ge=1)]
    image: Annotated[str, Field(pattern=r"^(ami-[0-9a-f]+$|/)")] = DEEP_LEARNING_IMAGE
    prices: Mapping[InstanceType, Dollars] = dataclasses.field(default_factory=dict)


@dataclass(frozen=True, config=TOLERANT)
class Stack:
    """What the account's set-up made, as one JSON object in an SSM parameter.

    project: tags all machines. bucket, prefix: where runs are kept at S3. launch_template: its id. subnets: theirs.
    """

    project: Annotated[str, Field(min_length=1)]
    region: Annotated[str, Field(min_length=1)]
    bucket: Annotated[str, Field(min_length=1)]
    prefix: str
    launch_template: Annotated[str, Field(pattern=r"^lt-")]
    subnets: Annotated[tuple[Annotated[str, Field(pattern=r"^subnet-")], ...], Field(min_length=1)]


def load_policy(path: Path = Path("ec2.yaml"), **instead: Any) -> Policy:
    """Read and check `ec2.yaml`.

    Args:
        path: the file.
        instead: values that count instead of its own.

    Raises:
        InputError: it is missing, no YAML, or holds an unknown, missing or out-of-range key.
    """
    try:
        values = YAML(typ="safe").load(path.read_text())
    except FileNotFoundError:
        raise InputError(f"{path}: no such file; run in the project's root folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise InputError(f"{path}: expected keys and values, found {type(values).__name__}")
    try:
        # strict, yet makes tuples of lists
        return TypeAdapter(Policy).validate_json(json.dumps(values | instead, default=str))
    except ValidationError as error:
        told = [("" if item["loc"][0] in instead else f"{path}: ") + _explain(item, Policy) for item in error.errors()]
        raise InputError("\n".join(told)) from None


def read_stack(parameter: str) -> Stack:
    """What the account holds for this project.

    Args:
        parameter: the name of the SSM parameter, as `Policy.parameter`.

    Raises:
        InputError: it is missing, holds something else, or is of another region than that of the AWS settings.
    """
    ssm = aws.client("ssm")
    value = _parameter(ssm, parameter, f"set the stack up: {MANUAL}")
    try:
        stack = TypeAdapter(Stack).validate_json(value)
    except ValidationError as error:
        reasons = "; ".join(_explain(item, Stack) for item in error.errors())
        raise InputError(f"the parameter {parameter} at SSM: {reasons}; set the stack up anew: {MANUAL}") from None
    if stack.region != ssm.meta.region_name:
        raise InputError(
            f"the parameter {parameter} at SSM speaks of {stack.region}, the AWS settings of {ssm.meta.region_name}; "
            f"set AWS_DEFAULT_REGION={stack.region}"
        )
    return stack


def find_image(name: str) -> str:
    """The id of the image that machines start from.

    Args:
        name: an id such as ami-0123456789abcdef0, which is returned as it is, or the SSM parameter that holds one.

    Raises:
        InputError: there is no such parameter in this region, or it holds no image.
    """
    if name.startswith("ami-"):
        return name
    image = _parameter(aws.client("ssm"), name, "give another `image` in ec2.yaml")
    if not image.startswith("ami-"):
        raise InputError(f"the parameter {name} at SSM holds {image!r}, no image; give another `image` in ec2.yaml")
    return image


def _parameter(ssm: Any, name: str, remedy: str) -> str:
    from botocore.exceptions import ClientError

    with told(f"reading the parameter {name} at SSM"):
        try:
            return str(ssm.get_parameter(Name=name)["Parameter"]["Value"])
        except ClientError as error:
            if error_code(error) != "ParameterNotFound":
                raise
            raise InputError(f"SSM has no parameter {name} in {ssm.meta.region_name}; {remedy}") from None


def _explain(item: Any, kind: type) -> str:
    """One pydantic error as a sentence that names the key and what is allowed."""
    key = ".".join(str(part) for part in item["loc"])
    if item["type"] == "unexpected_keyword_argument":
        allowed = [field.name for field in dataclasses.fields(kind)]
        close = difflib.get_close_matches(key, allowed, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}. {hint}Allowed here: {', '.join(allowed)}"
    if item["type"] == "missing":
        return f"the key {key!r} is missing"
    where = f"{key} = {item['input']!r}: " if key else ""
    return f"{where}{item['msg'][0].lower()}{item['msg'][1:]}"
