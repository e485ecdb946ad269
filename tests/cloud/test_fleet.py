import time
from base64 import b64decode
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from tests.cloud.deployment import Deployment
from tests.system.gate import Gate

from loupe.cloud import fleet as fleet_module
from loupe.cloud.aws import CredentialsError
from loupe.cloud.fleet import CapacityError, Fleet
from loupe.cloud.records import Instance, Rung
from loupe.errors import InputError

DEADLINE = "2026-02-01T12:00:00Z"
IMAGE = "ami-0123456789abcdef0"
SCRIPT = "#!/bin/bash\nshutdown -h +60\n"


def rung(account: Deployment, market: Any = "spot", subnet: int = 0) -> Rung:
    zone = ("us-east-1a", "us-east-1b")[subnet]
    return Rung(market, "g4dn.xlarge", zone, account.stack.subnets[subnet], 0.2)


def launch(fleet: Fleet, rung: Rung, run: str = "r1", attempt: int = 1, deadline: str = DEADLINE) -> Instance:
    return fleet.launch(rung, run=run, attempt=attempt, image=IMAGE, user_data=SCRIPT, deadline=deadline)


def described(account: Deployment, instance: Instance) -> dict[str, Any]:
    reply = account.ec2.describe_instances(InstanceIds=[instance.id])
    found: dict[str, Any] = reply["Reservations"][0]["Instances"][0]
    return found


def test_a_machine_is_what_the_rung_says(account: Deployment, gate: Gate) -> None:
    before = datetime.now(UTC) - timedelta(seconds=2)
    one = launch(Fleet(account.stack), rung(account))
    assert (one.run, one.attempt, one.deadline, one.market) == ("r1", 1, DEADLINE, "spot")
    assert (one.type, one.zone, one.state) == ("g4dn.xlarge", "us-east-1a", "pending")
    assert one.launched > before and not one.ended
    item = described(account, one)
    assert (item["SubnetId"], item["ImageId"], item["InstanceLifecycle"]) == (account.stack.subnets[0], IMAGE, "spot")
    [request] = gate.asked("RunInstances")
    asked = request.parameters
    assert asked["LaunchTemplate.LaunchTemplateId"] == account.stack.launch_template
    assert asked["LaunchTemplate.Version"] == "$Latest"
    assert asked["InstanceInitiatedShutdownBehavior"] == "terminate"
    assert (asked["MinCount"], asked["MaxCount"]) == ("1", "1")
    assert b64decode(asked["UserData"]).decode() == SCRIPT
    assert asked["InstanceMarketOptions.SpotOptions.SpotInstanceType"] == "one-time"
    assert asked["InstanceMarketOptions.SpotOptions.InstanceInterruptionBehavior"] == "terminate"
    kinds = [asked[f"TagSpecification.{number}.ResourceType"] for number in (1, 2, 3)]
    assert kinds == ["instance", "volume", "spot-instances-request"]


def test_machine_and_disk_carry_all_tags(account: Deployment) -> None:
    one = launch(Fleet(account.stack), rung(account, "on-demand"))
    assert one.market == "on-demand"
    expected = {
        "loupe:project": account.stack.project,
        "loupe:run": "r1",
        "loupe:attempt": "1",
        "loupe:deadline": DEADLINE,
        "Name": "loupe r1",
    }
    item = described(account, one)
    volume = account.ec2.describe_volumes(VolumeIds=[item["BlockDeviceMappings"][0]["Ebs"]["VolumeId"]])["Volumes"][0]
    for tagged in (item, volume):
        tags = {tag["Key"]: tag["Value"] for tag in tagged["Tags"] if not tag["Key"].startswith("aws:")}
        assert tags == expected


def test_the_same_launch_has_the_same_token_and_another_one_another(account: Deployment, gate: Gate) -> None:
    fleet = Fleet(account.stack)
    assert launch(fleet, rung(account)).id == launch(fleet, rung(account)).id
    launch(fleet, rung(account), attempt=2)
    launch(fleet, rung(account), run="r2")
    launch(fleet, rung(account, "on-demand"))
    launch(fleet, rung(account, subnet=1))
    first, repeated, *others = (asked.parameters["ClientToken"] for asked in gate.asked("RunInstances"))
    assert first == repeated
    assert len({first, *others}) == 5
    assert all(len(token) <= 64 for token in (first, *others))


@pytest.mark.parametrize(
    "code", ["InsufficientInstanceCapacity", "MaxSpotInstanceCountExceeded", "VcpuLimitExceeded", "Unsupported"]
)
def test_no_capacity_is_told_at_once(account: Deployment, gate: Gate, code: str) -> None:
    gate.fail("RunInstances", code)
    began = time.monotonic()
    with pytest.raises(CapacityError, match=rf"g4dn\.xlarge as spot in us-east-1a: {code}: by order of a test"):
        launch(Fleet(account.stack), rung(account))
    assert len(gate.asked("RunInstances")) == 1, "the next rung may do: this one is not tried again"
    assert time.monotonic() - began < 5
    assert Fleet(account.stack).all() == []


def test_throttling_and_broken_answers_are_waited_out_with_one_token(account: Deployment, gate: Gate) -> None:
    gate.fail("RunInstances", "RequestLimitExceeded", times=1)
    gate.fail("RunInstances", "InternalError", times=1)
    one = launch(Fleet(account.stack), rung(account))
    asked = gate.asked("RunInstances")
    assert [request.status for request in asked] == [503, 500, 200]
    assert len({request.parameters["ClientToken"] for request in asked}) == 1
    assert [found.id for found in Fleet(account.stack).all()] == [one.id]


def test_other_refusals_are_no_capacity_errors(account: Deployment, gate: Gate) -> None:
    gate.fail("RunInstances", "UnauthorizedOperation", times=1)
    gate.fail("RunInstances", "RequestExpired", times=1)
    with pytest.raises(InputError, match=r"launching g4dn\.xlarge as spot in us-east-1a: AWS refused") as caught:
        launch(Fleet(account.stack), rung(account))
    assert not isinstance(caught.value, CapacityError)
    with pytest.raises(CredentialsError, match="have expired"):
        launch(Fleet(account.stack), rung(account))


def test_a_launch_that_is_repeated_otherwise_gives_the_first_machine(
    account: Deployment, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "PAUSES", (0.1,) * 10)
    gate.lag = 0.5  # EC2 knows the token, and does not list the machine at once
    fleet = Fleet(account.stack)
    one = launch(fleet, rung(account))
    assert launch(fleet, rung(account), deadline="2026-02-01T13:00:00Z").id == one.id
    gate.fail("RunInstances", "IdempotentParameterMismatch")
    with pytest.raises(InputError, match="IdempotentParameterMismatch"):
        launch(fleet, rung(account), attempt=2)


def test_machines_of_a_run_are_found_the_living_first(account: Deployment) -> None:
    fleet = Fleet(account.stack)
    first, second = (launch(fleet, rung(account), attempt=number) for number in (1, 2))
    other = launch(fleet, rung(account), run="r2")
    fleet.terminate([second.id])
    assert [(found.id, found.state) for found in fleet.find("r1")] == [
        (first.id, "running"),
        (second.id, "terminated"),
    ]
    assert {found.id for found in fleet.all()} == {first.id, other.id}
    assert fleet.find("r3") == []


def test_machines_of_others_are_not_seen(account: Deployment) -> None:
    account.ec2.run_instances(ImageId=IMAGE, MinCount=1, MaxCount=1)
    assert Fleet(account.stack).all() == []


def test_all_pages_are_read(account: Deployment, gate: Gate) -> None:
    gate.page = 2
    fleet = Fleet(account.stack)
    launched = {launch(fleet, rung(account), attempt=number).id for number in (1, 2, 3)}
    assert {found.id for found in fleet.all()} == launched
    assert len(gate.asked("DescribeInstances")) == 2


def test_an_ended_machine_says_why_and_since_when(account: Deployment) -> None:
    fleet = Fleet(account.stack)
    one = launch(fleet, rung(account))
    fleet.terminate([one.id])
    assert fleet.wait_gone([one.id], 5) == []
    [found] = fleet.find("r1")
    assert found.state == "terminated"
    assert "User initiated shutdown" in found.reason
    ended = datetime.strptime(found.ended, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert abs(datetime.now(UTC) - ended) < timedelta(minutes=1)


def test_one_unknown_machine_does_not_save_the_others(
    account: Deployment, gate: Gate, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleet_module, "PAUSES", (0.05, 0.05))
    fleet = Fleet(account.stack)
    one, two = (launch(fleet, rung(account), attempt=number) for number in (1, 2))
    fleet.terminate([one.id, "i-0123456789abcdef0", two.id])
    assert fleet.all() == []
    gate.requests.clear()
    # One that EC2 does not know yet is ended when it does
    gate.fail("TerminateInstances", "InvalidInstanceID.NotFound", times=1)
    three = launch(fleet, rung(account), attempt=3)
    fleet.terminate([three.id])
    assert fleet.all() == []
    assert len(gate.asked("TerminateInstances")) == 2


def test_a_machine_that_may_not_be_ended_is_named_and_the_others_are_ended(account: Deployment, gate: Gate) -> None:
    fleet = Fleet(account.stack)
    one, two = (launch(fleet, rung(account), attempt=number) for number in (1, 2))
    gate.fail("TerminateInstances", "UnauthorizedOperation", times=1)
    with pytest.raises(InputError, match=f"ending {one.id}: AWS refused"):
        fleet.terminate([one.id, two.id])
    assert [found.id for found in fleet.all()] == [one.id]


def test_waiting_ends_when_the_time_is_up(account: Deployment, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fleet_module, "POLL_SECONDS", 0.1)
    fleet = Fleet(account.stack)
    one, two = (launch(fleet, rung(account), attempt=number) for number in (1, 2))
    fleet.terminate([two.id])
    began = time.monotonic()
    assert fleet.wait_gone([one.id, two.id, "i-0123456789abcdef0"], 0.5) == [one.id]
    assert 0.3 < time.monotonic() - began < 5


def test_the_console_is_read(account: Deployment, gate: Gate) -> None:
    fleet = Fleet(account.stack)
    one = launch(fleet, rung(account))
    lines = fleet.console(one.id)
    assert any("Linux version" in line for line in lines)
    gate.fail("GetConsoleOutput", "UnsupportedOperation", times=1)
    assert fleet.console(one.id) == lines, "types without Nitro have the console of their start only"
    assert [asked.parameters.get("Latest") for asked in gate.asked("GetConsoleOutput")][-2:] == ["true", None]
    assert fleet.console("i-0123456789abcdef0") == []


def test_disks_and_snapshots_that_were_left_are_listed(account: Deployment) -> None:
    fleet = Fleet(account.stack)
    launch(fleet, rung(account))
    assert fleet.leftovers() == [], "a disk in use is none"
    tags = [{"Key": "loupe:project", "Value": account.stack.project}, {"Key": "loupe:run", "Value": "r1"}]
    volume = account.ec2.create_volume(
        AvailabilityZone="us-east-1a", Size=20, TagSpecifications=[{"ResourceType": "volume", "Tags": tags}]
    )["VolumeId"]
    account.ec2.create_volume(AvailabilityZone="us-east-1a", Size=20)
    snapshot = account.ec2.create_snapshot(
        VolumeId=volume, TagSpecifications=[{"ResourceType": "snapshot", "Tags": tags[:1]}]
    )["SnapshotId"]
    left = fleet.leftovers()
    assert [(one.kind, one.id, one.run, one.gib) for one in left] == [
        ("volume", volume, "r1", 20),
        ("snapshot", snapshot, "", 20),
    ]
    assert all(abs(datetime.now(UTC) - one.created) < timedelta(minutes=5) for one in left)


def test_the_stacks_template_is_safe(account: Deployment) -> None:
    assert Fleet(account.stack).check_template() == []


DISK = {"VolumeSize": 100, "VolumeType": "gp3", "Encrypted": True, "DeleteOnTermination": True}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ({"MetadataOptions": {"HttpTokens": "optional"}}, "does not require IMDSv2"),
        ({"MetadataOptions": None}, "does not require IMDSv2"),
        ({"BlockDeviceMappings": None}, "names no disk"),
        ({"Ebs": {"Encrypted": False}}, "has a disk that is not encrypted"),
        ({"Ebs": {"DeleteOnTermination": False}}, "has a disk that would be left"),
        ({"Ebs": {"VolumeType": "io2"}}, "has a disk that is not gp3"),
        ({"InstanceInitiatedShutdownBehavior": "stop"}, "does not terminate a machine that shuts itself down"),
        ({"InstanceInitiatedShutdownBehavior": None}, "does not terminate a machine that shuts itself down"),
        ({"KeyName": "mine"}, "has a key pair"),
        ({"IamInstanceProfile": None}, "names no instance profile"),
        ({"SecurityGroupIds": None}, "names no security group"),
        ({"NetworkInterfaces": [{"DeviceIndex": 0}]}, "has network interfaces"),
        ({"InstanceMarketOptions": {"MarketType": "spot"}}, "chooses the market"),
    ],
)
def test_what_is_unsafe_about_a_template_is_said(account: Deployment, changed: dict[str, Any], expected: str) -> None:
    disk = changed.pop("Ebs", None)
    if disk:
        changed = {"BlockDeviceMappings": [{"DeviceName": "/dev/sda1", "Ebs": DISK | disk}]}
    account.change_template(**changed)
    [found] = Fleet(account.stack).check_template()
    assert found.startswith(expected)


def test_a_security_group_that_lets_others_in_is_named(account: Deployment) -> None:
    account.ec2.authorize_security_group_ingress(
        GroupId=account.group,
        IpPermissions=[{"IpProtocol": "tcp", "FromPort": 22, "ToPort": 22, "IpRanges": [{"CidrIp": "10.0.0.0/8"}]}],
    )
    assert Fleet(account.stack).check_template() == [f"has the security group {account.group}, which lets others in"]


def test_a_template_that_is_not_there_is_named(account: Deployment) -> None:
    account.ec2.delete_launch_template(LaunchTemplateId=account.stack.launch_template)
    with pytest.raises(InputError, match=f"reading the launch template {account.stack.launch_template}: Invalid"):
        Fleet(account.stack).check_template()
