"""Do simulated machines boot, see, speak, and end as those of EC2 do, and is nothing left of them?"""

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import psutil
import pytest
from tests.flows.processes import living, wait_for
from tests.system.gate import Gate, client
from tests.system.hypervisor import IMAGE, REGION, Account, Hypervisor, Machine, account, bake

pytest.importorskip("boto3")
pytestmark = pytest.mark.timeout(120)
Launch = Callable[..., str]
METADATA = """
metadata() {
    curl --silent --fail --noproxy '*' --header "X-aws-ec2-metadata-token: $token" \\
        "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/$1"
}
token=$(curl --silent --fail --noproxy '*' --request PUT --header 'X-aws-ec2-metadata-token-ttl-seconds: 300' \\
    "$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/api/token")
"""


@pytest.fixture(scope="module")
def gate(s3_endpoint: str) -> Iterator[Gate]:
    with Gate(s3_endpoint) as gate:
        yield gate


@pytest.fixture
def place(s3_endpoint: str) -> Account:
    return account(s3_endpoint, f"loupe-{uuid4().hex[:12]}")


@pytest.fixture
def hypervisor(gate: Gate, place: Account, tmp_path: Path) -> Iterator[Hypervisor]:
    """At 60 times the speed: a minute takes a second. Each process of its machines carries LOUPE_RUN_ID=the project."""
    variables = {"LOUPE_RUN_ID": place.project}
    with Hypervisor(gate, place.project, tmp_path / "machines", speed=60, variables=variables) as hypervisor:
        yield hypervisor
    assert living(place.project) == []


@pytest.fixture
def launch(gate: Gate, place: Account) -> Launch:
    """Launches a machine that runs a script; its id."""

    def launch(script: str, kind: str = "g5.xlarge", place: Account = place, **more: Any) -> str:
        tags = {"loupe:project": place.project, "loupe:run": "run-1"}
        given = {
            "LaunchTemplate": {"LaunchTemplateId": place.launch_template, "Version": "$Latest"},
            "ImageId": IMAGE,
            "InstanceType": kind,
            "SubnetId": place.subnets[1],
            "UserData": script if script.startswith("not ") else f"#!/bin/bash -eu\n{script}\n",
            "TagSpecifications": [
                {"ResourceType": "instance", "Tags": [{"Key": key, "Value": value} for key, value in tags.items()]}
            ],
        } | more
        ec2 = client("ec2", gate.url, REGION)
        return str(ec2.run_instances(MinCount=1, MaxCount=1, **given)["Instances"][0]["InstanceId"])

    return launch


def describe(gate: Gate, instance: str) -> tuple[str, str]:
    """State, and the code of the reason, as EC2 says."""
    groups = client("ec2", gate.url, REGION).describe_instances(InstanceIds=[instance])["Reservations"]
    (described,) = groups[0]["Instances"]
    return described["State"]["Name"], described["StateReason"]["Code"]


def over(hypervisor: Hypervisor, instance: str, seconds: float = 15.0) -> Machine:
    """The machine, after its end."""
    assert wait_for(lambda: instance in [machine.id for machine in hypervisor.machines()]), hypervisor.describe()
    machine = hypervisor.machine(instance)
    assert machine.wait_over(seconds), hypervisor.describe()
    assert not hypervisor.broken, hypervisor.broken
    return machine


def says(machine: Machine, line: str) -> bool:
    """Whether the machine says so, sooner or later."""
    return wait_for(lambda: line in machine.console().splitlines())


def test_a_machine_runs_its_user_data_and_shuts_down(hypervisor: Hypervisor, launch: Launch, gate: Gate) -> None:
    instance = launch("""
        echo "in $PWD, home $HOME, loupe $LOUPE_HOME, temporary $TMPDIR"
        env | grep --extended-regexp '^(AWS_[^E]|PYTHONPATH)' || echo "no keys"
        [[ $- == *e* && $- == *u* ]] && echo "by its first line"
        read line || echo "no input"
        python3 -c 'import sys; print("python", sys.version_info >= (3, 11), file=sys.stderr)'
        git --version | cut -d ' ' -f 1
        ps -o sid= -p $$ | grep --quiet --word-regexp "$$" && echo "a session of its own"
        command -v nvidia-smi || echo "no GPU"
        shutdown -h now
        exec sleep 60
    """)
    machine = over(hypervisor, instance)
    folder = machine.folder
    assert machine.console().splitlines() == [
        f"in {folder / 'home'}, home {folder / 'home'}, loupe {folder / 'loupe'}, temporary {folder / 'tmp'}",
        "no keys",
        "by its first line",
        "no input",
        "python True",
        "git",
        "a session of its own",
        "no GPU",
    ]
    assert (machine.ended, machine.home) == ("shutdown", folder / "loupe")
    assert describe(gate, instance) == ("terminated", "Client.InstanceInitiatedShutdown")
    assert (hypervisor.left(), hypervisor.running()) == ({}, [])
    output = client("ec2", gate.url, REGION).get_console_output(InstanceId=instance)["Output"]
    assert output == machine.console()


def test_the_metadata_of_a_machine(hypervisor: Hypervisor, launch: Launch, place: Account) -> None:
    script = f"""
        service=$AWS_EC2_METADATA_SERVICE_ENDPOINT
        for try in '' '--header X-aws-ec2-metadata-token:wrong' '--request PUT'; do
            curl --silent --noproxy '*' --output /dev/null --write-out '%{{http_code}} ' $try $service/latest/meta-data/
        done
        curl --silent --noproxy '*' --output /dev/null --write-out '%{{http_code}}\\n' --request PUT \\
            $service/latest/api/token
        {METADATA}
        for name in instance-id instance-type placement/region placement/availability-zone instance-life-cycle \\
                tags/instance/ tags/instance/loupe:run iam/security-credentials/; do
            echo $(metadata meta-data/$name)
        done
        metadata meta-data/spot/instance-action || echo "no notice"
        metadata dynamic/instance-identity/document > $HOME/identity
        metadata meta-data/iam/security-credentials/{place.role} > $HOME/credentials
        shutdown -h now
    """
    instance = launch(script, MetadataOptions={"HttpTokens": "required", "InstanceMetadataTags": "enabled"})
    machine = over(hypervisor, instance)
    assert machine.console().splitlines() == [
        "401 401 403 400",
        instance,
        "g5.xlarge",
        REGION,
        "us-east-1b",
        "on-demand",
        "aws:ec2launchtemplate:id aws:ec2launchtemplate:version loupe:project loupe:run",
        "run-1",
        place.role,
        "no notice",
    ]
    identity = json.loads((machine.folder / "home" / "identity").read_text())
    assert (identity["instanceId"], identity["region"]) == (instance, REGION)
    credentials = json.loads((machine.folder / "home" / "credentials").read_text())
    assert (credentials["Code"], credentials["AccessKeyId"]) == ("Success", machine.key)


def test_tools_work_with_the_rights_of_the_role(
    hypervisor: Hypervisor, launch: Launch, place: Account, gate: Gate
) -> None:
    """The AWS CLI, boto3, and aiobotocore by way of s3fs, which DVC uses."""
    instance = launch(f"""
        export AWS_DEFAULT_REGION={place.region}
        echo hello > file
        aws s3 cp --only-show-errors file s3://{place.bucket}/cli
        python3 - <<'END'
import boto3, s3fs
boto3.client("s3").put_object(Bucket="{place.bucket}", Key="boto3", Body=b"hello")
s3fs.S3FileSystem(endpoint_url=boto3.client("s3").meta.endpoint_url).pipe("{place.bucket}/s3fs", b"hello")
END
        shutdown -h now
    """)
    machine = over(hypervisor, instance, 60)
    assert machine.console() == ""
    s3 = client("s3", gate.upstream, REGION)
    assert [found["Key"] for found in s3.list_objects_v2(Bucket=place.bucket)["Contents"]] == ["boto3", "cli", "s3fs"]
    for tool in ("boto3", "cli", "s3fs"):
        assert gate.asked(f"PUT /{place.bucket}/{tool}", key=machine.key)


def test_nothing_outlives_a_machine(hypervisor: Hypervisor, launch: Launch, place: Account) -> None:
    """Neither what ignores SIGTERM, nor what has made itself a daemon and emptied its environment."""
    instance = launch("""
        (trap '' TERM; while true; do sleep 0.1; done) &
        env --ignore-environment "$(command -v python3)" -c '
import os, signal, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork(): os._exit(0)
os.setsid()
if os.fork(): os._exit(0)
with open(sys.argv[1], "w") as file:
    file.write(str(os.getpid()))
time.sleep(300)
' $HOME/daemon
        until [[ -s $HOME/daemon ]]; do sleep 0.05; done
        shutdown -h now
        sleep 60
    """)
    machine = over(hypervisor, instance)
    assert not psutil.pid_exists(int((machine.folder / "home" / "daemon").read_text()))
    assert living(place.project) == []


def test_shutting_down_asks_first(hypervisor: Hypervisor, launch: Launch, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.system.hypervisor.GRACE_SECONDS", 60.0)
    instance = launch("trap 'echo asked; exit' TERM; shutdown -h now; while true; do sleep 0.05 || true; done")
    assert "asked" in over(hypervisor, instance).console()  # long before: nothing was left to wait for


def test_a_deadline_can_be_moved_and_called_off(hypervisor: Hypervisor, launch: Launch, gate: Gate) -> None:
    late, early = launch("shutdown -h +1; echo on; sleep 60"), launch("shutdown -h +1; shutdown -h +600; sleep 60")
    never = launch("shutdown -h +1; shutdown -c; sleep 60")
    assert over(hypervisor, late).ended == "deadline"
    assert describe(gate, late) == ("terminated", "Client.InstanceInitiatedShutdown")
    time.sleep(0.5)
    assert sorted(hypervisor.running()) == sorted([early, never])


def test_a_machine_whose_user_data_ends_runs_on(hypervisor: Hypervisor, launch: Launch) -> None:
    """As at EC2, where it would cost money until somebody sees it."""
    fails, wrong = launch("false"), launch("not a program")
    hypervisor.wait(2)
    assert wait_for(lambda: "cannot be run" in hypervisor.machine(wrong).console())
    time.sleep(1)
    assert sorted(hypervisor.running()) == sorted([fails, wrong])


def test_a_wrong_launch_template_shows(gate: Gate, launch: Launch, s3_endpoint: str, tmp_path: Path) -> None:
    """Without a shutdown behaviour machines stop, and their disks cost; without a profile they have no rights."""
    wrong = {"InstanceInitiatedShutdownBehavior": None, "IamInstanceProfile": None, "MetadataOptions": None}
    place = account(s3_endpoint, f"loupe-{uuid4().hex[:12]}", wrong)
    script = f"{METADATA}\nservice=$AWS_EC2_METADATA_SERVICE_ENDPOINT/latest/meta-data\n"
    script += "curl --silent --noproxy '*' $service/instance-id; echo\n"
    script += "metadata meta-data/iam/ || echo no role; metadata meta-data/tags/ || echo no tags; shutdown -h now"
    with Hypervisor(gate, place.project, tmp_path) as hypervisor:
        instance = launch(script, place=place)
        machine = over(hypervisor, instance)
        assert machine.console().splitlines() == [instance, "no role", "no tags"]
        assert (hypervisor.left(), hypervisor.running()) == ({instance: "stopped"}, [])
    assert hypervisor.left() == {}


def test_a_machine_that_is_terminated_from_outside(hypervisor: Hypervisor, launch: Launch, gate: Gate) -> None:
    instance = launch("trap 'echo asked; sleep 60' TERM; echo ready; while true; do sleep 0.05 || true; done")
    (machine,) = hypervisor.wait(1)
    assert says(machine, "ready")
    client("ec2", gate.url, REGION).terminate_instances(InstanceIds=[instance])
    machine = over(hypervisor, instance)
    assert machine.ended == "terminated"
    assert "asked" in machine.console().splitlines()
    assert describe(gate, instance) == ("terminated", "Client.UserInitiatedShutdown")


def test_a_power_loss_is_silent(hypervisor: Hypervisor, launch: Launch, gate: Gate, place: Account) -> None:
    instance = launch("""
        trap 'echo asked' TERM EXIT
        echo ready
        while true; do sleep 60 || echo "my child has died"; done
    """)
    (machine,) = hypervisor.wait(1)
    assert says(machine, "ready")
    hypervisor.kill(instance)
    assert (machine.ended, machine.console()) == ("power", "ready\n")
    assert living(place.project) == []
    assert describe(gate, instance) == ("terminated", "Server.InternalError")


def test_a_spot_notice(hypervisor: Hypervisor, launch: Launch, gate: Gate) -> None:
    instance = launch(
        f"""
        {METADATA}
        trap 'echo asked' TERM
        metadata meta-data/instance-life-cycle; echo
        until metadata meta-data/spot/instance-action; do sleep 0.1; done
        echo
        sleep 60 || true
    """,
        InstanceMarketOptions={"MarketType": "spot"},
    )
    (machine,) = hypervisor.wait(1)
    assert says(machine, "spot")
    time.sleep(0.3)
    assert machine.console() == "spot\n"
    start = time.monotonic()
    hypervisor.notice(instance)
    machine = over(hypervisor, instance)
    assert time.monotonic() - start >= 2  # two minutes, sixty times as fast
    lines = machine.console().splitlines()
    assert json.loads(lines[1])["action"] == "terminate"
    assert machine.ended == "spot"
    assert "asked" in lines
    assert describe(gate, instance) == ("terminated", "Server.SpotInstanceTermination")


def test_only_spot_machines_get_notices(hypervisor: Hypervisor, launch: Launch) -> None:
    instance = launch("sleep 60")
    hypervisor.wait(1)
    with pytest.raises(AssertionError, match="not a spot machine"):
        hypervisor.notice(instance)


def test_a_machine_that_hangs(hypervisor: Hypervisor, launch: Launch, gate: Gate) -> None:
    instance = launch("while true; do date +%N; sleep 0.02; done")
    (machine,) = hypervisor.wait(1)
    assert wait_for(lambda: machine.console())
    hypervisor.freeze(instance)
    time.sleep(0.3)
    said = machine.console()
    time.sleep(0.3)
    assert machine.console() == said
    assert hypervisor.running() == [instance]
    client("ec2", gate.url, REGION).terminate_instances(InstanceIds=[instance])
    over(hypervisor, instance)


def test_a_machine_that_never_boots(hypervisor: Hypervisor, launch: Launch) -> None:
    hypervisor.paused = True
    instance = launch("echo")
    time.sleep(0.5)
    assert (hypervisor.running(), hypervisor.machines()) == ([instance], [])


def test_a_machine_boots_when_its_launch_is_complete(hypervisor: Hypervisor, gate: Gate, place: Account) -> None:
    """Else it might find no role: moto gives it one last."""
    tags = [{"ResourceType": "instance", "Tags": [{"Key": "loupe:project", "Value": place.project}]}]
    with gate.launching:
        moto = client("ec2", gate.upstream, REGION)
        moto.run_instances(MinCount=1, MaxCount=1, ImageId=IMAGE, TagSpecifications=tags)
        time.sleep(0.5)
        assert hypervisor.machines() == []
    hypervisor.wait(1)


def test_machines_of_another_project_are_left_alone(hypervisor: Hypervisor, launch: Launch, s3_endpoint: str) -> None:
    launch("sleep 60", place=account(s3_endpoint, f"loupe-{uuid4().hex[:12]}"))
    own = launch("sleep 60")
    assert [machine.id for machine in hypervisor.wait(1)] == [own]
    assert hypervisor.running() == [own]


def test_images_and_graphics_cards(gate: Gate, launch: Launch, place: Account, tmp_path: Path) -> None:
    """In the image is the environment of a lock file: torch and DVC are there, and new packages go elsewhere."""
    lock = tmp_path / "requirements.lock"
    lock.write_text("torch\n")
    with Hypervisor(
        gate, place.project, tmp_path / "machines", gpus={"g5.12xlarge": 4}, image=lambda home: bake(home, lock)
    ) as hypervisor:
        script = """
            nvidia-smi -L | wc --lines
            cd "$LOUPE_HOME"/venv-*
            bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))'
            bin/python -c 'import torch, boto3; print(torch.zeros(2).sum().item())'
            bin/python -m dvc --version
            shutdown -h now
        """
        machine = over(hypervisor, launch(script, kind="g5.12xlarge"), 60)
        (folder,) = machine.home.iterdir()
        lines = machine.console().splitlines()
        assert lines[0] == "4"
        assert lines[1].startswith(f"{folder}/")
        assert lines[2] == "0.0"
        assert lines[3].startswith("3.")


def test_closing_ends_everything(gate: Gate, launch: Launch, place: Account, tmp_path: Path) -> None:
    """Also when a test has failed."""
    with (
        pytest.raises(ValueError, match="the test"),
        Hypervisor(gate, place.project, tmp_path, variables={"LOUPE_RUN_ID": place.project}) as hypervisor,
    ):
        for _ in range(5):
            launch("trap '' TERM; while true; do sleep 60; done")
        assert len(hypervisor.wait(5)) == 5
        assert len(living(place.project)) >= 5
        raise ValueError("the test")
    assert living(place.project) == []
    assert hypervisor.left() == {}


def test_machines_end_with_the_tests(hypervisor: Hypervisor, launch: Launch, place: Account) -> None:
    """Where nobody could close it, as after SIGKILL, init sees that its input has ended."""
    launch("trap '' TERM; while true; do sleep 60; done")
    (machine,) = hypervisor.wait(1)
    assert wait_for(lambda: len(living(place.project)) >= 3)  # init, bash, sleep
    assert machine._init.stdin
    machine._init.stdin.close()
    assert wait_for(lambda: living(place.project) == [])
