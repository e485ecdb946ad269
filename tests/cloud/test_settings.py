import json
import re
from pathlib import Path

import boto3
import pytest
from tests.cloud.deployment import Deployment

from loupe.cloud.settings import DEEP_LEARNING_IMAGE, Policy, find_image, load_policy, read_stack
from loupe.errors import InputError

ROOT = Path(__file__).parents[2]
LEAST = """
parameter: /loupe/ec2
types: [g4dn.xlarge]
markets: [spot]
budget_usd: 10
deadline_hours: 2
spot_losses: 1
"""


def policy(tmp_path: Path, text: str) -> Policy:
    path = tmp_path / "ec2.yaml"
    path.write_text(text)
    return load_policy(path)


def refused(tmp_path: Path, text: str) -> str:
    with pytest.raises(InputError) as caught:
        policy(tmp_path, text)
    assert str(caught.value).startswith(f"{tmp_path / 'ec2.yaml'}: ")
    return str(caught.value)


def test_the_projects_own_file_is_right() -> None:
    own = load_policy(ROOT / "ec2.yaml")
    assert own.image == DEEP_LEARNING_IMAGE
    assert set(own.markets) == {"spot", "on-demand"}


def test_what_has_a_default_may_be_missing(tmp_path: Path) -> None:
    least = policy(tmp_path, LEAST)
    assert (least.image, dict(least.prices)) == (DEEP_LEARNING_IMAGE, {})
    assert (least.types, least.budget_usd) == (("g4dn.xlarge",), 10.0)


def test_unknown_keys_are_refused_with_the_nearest(tmp_path: Path) -> None:
    message = refused(tmp_path, LEAST + "budget: 3\n")
    assert "unknown key 'budget'. Did you mean 'budget_usd'? Allowed here: parameter, types" in message


def test_missing_keys_are_named(tmp_path: Path) -> None:
    assert "the key 'spot_losses' is missing" in refused(tmp_path, LEAST.replace("spot_losses: 1", ""))


@pytest.mark.parametrize(
    ("line", "key"),
    [
        ("parameter: 'two words'", "parameter"),
        ("types: []", "types"),
        ("types: [g4dn]", "types.0"),
        ("types: g4dn.xlarge", "types"),
        ("markets: [spot, ondemand]", "markets.1"),
        ("markets: []", "markets"),
        ("budget_usd: 0", "budget_usd"),
        ("budget_usd: .nan", "budget_usd"),
        ("budget_usd: .inf", "budget_usd"),
        ("budget_usd: '10'", "budget_usd"),
        ("deadline_hours: -1", "deadline_hours"),
        ("deadline_hours: 721", "deadline_hours"),
        ("spot_losses: 0", "spot_losses"),
        ("spot_losses: 1.5", "spot_losses"),
        ("image: ubuntu", "image"),
        ("prices: {g4dn.xlarge: 0}", "prices.g4dn.xlarge"),
        ("prices: {g4dn: 0.5}", "prices.g4dn"),
    ],
)
def test_values_out_of_range_are_refused_by_name(tmp_path: Path, line: str, key: str) -> None:
    name = line.split(":")[0]
    others = "".join(f"{kept}\n" for kept in LEAST.splitlines() if not kept.startswith(name))
    assert re.search(rf"ec2\.yaml: {re.escape(key)}\b.* = ", refused(tmp_path, f"{others}{line}\n"))


def test_what_is_no_policy_is_refused(tmp_path: Path) -> None:
    assert "not YAML" in refused(tmp_path, "types: [")
    assert "expected keys and values, found list" in refused(tmp_path, "- g4dn.xlarge")
    assert "not YAML" in refused(tmp_path, LEAST + "spot_losses: 2\n"), "a key that comes twice"
    with pytest.raises(InputError, match=r"missing\.yaml: no such file; run in the project's root folder"):
        load_policy(tmp_path / "missing.yaml")


def test_the_stack_is_read(account: Deployment) -> None:
    stack = read_stack(account.parameter)
    assert stack == account.stack
    assert len(stack.subnets) == 2


def test_a_missing_stack_says_what_to_do(account: Deployment) -> None:
    with pytest.raises(
        InputError, match=r"no parameter /nobody/ec2 in us-east-1; set the stack up: docs/operations-ec2"
    ):
        read_stack("/nobody/ec2")


def put(account: Deployment, value: str) -> None:
    boto3.client("ssm").put_parameter(Name=account.parameter, Value=value, Overwrite=True)


def test_a_damaged_stack_names_the_key(account: Deployment) -> None:
    value = json.loads(boto3.client("ssm").get_parameter(Name=account.parameter)["Parameter"]["Value"])
    put(account, json.dumps(value | {"subnets": []}))
    with pytest.raises(InputError, match=rf"{account.parameter} at SSM: subnets = \[\]: .*set the stack up anew"):
        read_stack(account.parameter)
    del value["launch_template"]
    put(account, json.dumps(value))
    with pytest.raises(InputError, match="the key 'launch_template' is missing"):
        read_stack(account.parameter)
    put(account, "subnet-1")
    with pytest.raises(InputError, match=rf"{account.parameter} at SSM: invalid JSON"):
        read_stack(account.parameter)


def test_a_newer_stack_may_say_more(account: Deployment) -> None:
    value = json.loads(boto3.client("ssm").get_parameter(Name=account.parameter)["Parameter"]["Value"])
    put(account, json.dumps(value | {"promoter": "arn:aws:iam::1:role/promoter"}))
    assert read_stack(account.parameter) == account.stack


def test_a_stack_of_another_region_is_refused(account: Deployment) -> None:
    value = json.loads(boto3.client("ssm").get_parameter(Name=account.parameter)["Parameter"]["Value"])
    put(account, json.dumps(value | {"region": "eu-central-1"}))
    with pytest.raises(InputError, match="set AWS_DEFAULT_REGION=eu-central-1"):
        read_stack(account.parameter)


def test_images_are_found_by_id_and_by_parameter(account: Deployment) -> None:
    assert find_image("ami-0123456789abcdef0") == "ami-0123456789abcdef0"
    name = f"{account.parameter}/image"
    boto3.client("ssm").put_parameter(Name=name, Type="String", Value="ami-0fedcba9876543210")
    assert find_image(name) == "ami-0fedcba9876543210"


def test_what_holds_no_image_is_refused(account: Deployment) -> None:
    with pytest.raises(InputError, match=rf"{account.parameter} at SSM holds .*, no image; give another `image`"):
        find_image(account.parameter)
    with pytest.raises(
        InputError, match=r"SSM has no parameter /no/image in us-east-1; give another `image` in ec2\.yaml"
    ):
        find_image("/no/image")
