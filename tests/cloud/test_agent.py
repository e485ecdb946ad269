"""The agent on a toy project, as a process of its own, with a metadata service and an S3 server on loopback."""

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from tests.cloud.conftest import Clone, unpack
from tests.cloud.metadata import MetadataServer
from tests.cloud.toy import make_toy
from tests.conftest import S3
from tests.servers import end_process_group, free_port

from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import receive, ship
from loupe.cloud.records import ENDS, Status, now

ROOT = Path(__file__).parents[2]
SECONDS = 90.0
INSTANCE = "i-0123456789abcdef0"

Start = Callable[..., subprocess.Popen[str]]


@pytest.fixture
def start(mailbox: Mailbox, metadata: MetadataServer, tmp_path: Path) -> Iterator[Start]:
    """Starts an agent on a machine that has nothing but what was shipped."""
    started: list[subprocess.Popen[str]] = []

    def begin(attempt: int = 1, **variables: str) -> subprocess.Popen[str]:
        folder = tmp_path / f"machine-{attempt}"
        folder.mkdir()
        machine = unpack(mailbox, mailbox.read_order(), folder / "project", inputs=False)
        command = [sys.executable, "-m", "loupe.cloud.agent", "--bucket", mailbox.bucket, "--prefix", mailbox.prefix]
        command += ["--run", mailbox.run, "--attempt", str(attempt), "--instance", INSTANCE, "--began", now()]
        environment = machine.environment | {
            "PYTHONPATH": str(ROOT / "src"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.address,
            "LOUPE_HEARTBEAT_SECONDS": "0.3",
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
        }
        with (folder / "log").open("wb") as log:
            agent = subprocess.Popen(
                command,
                cwd=machine.folder,
                env=environment | variables,
                stdout=log,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
        started.append(agent)
        return agent

    yield begin
    for agent in started:
        end_process_group(agent)


def until(condition: Callable[[], object], what: str) -> None:
    """Wait for something."""
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"{what}: not within {SECONDS} s"
        time.sleep(0.1)


def ended(mailbox: Mailbox, agent: subprocess.Popen[str]) -> tuple[Status, str]:
    """The last status of an agent that ended, and all of its log."""
    assert agent.wait(SECONDS) == 0
    status = mailbox.read_status()
    assert status is not None
    assert status.phase in ENDS
    return status, "\n".join(mailbox.log_after("")[0])


def shipped(mailbox: Mailbox, s3: S3, tmp_path: Path, *, steps: int = 20, mood: str = "good") -> Clone:
    """The launcher's project, after it was shipped."""
    toy = make_toy(tmp_path / "here", s3.bucket, steps=steps, mood=mood)
    ship(toy.folder, mailbox, say=print)
    return toy


def logged(mailbox: Mailbox, text: str) -> Callable[[], bool]:
    return lambda: any(text in line for line in mailbox.log_after("")[0])


def test_a_stage_is_computed_and_its_result_comes_back(mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path) -> None:
    toy = shipped(mailbox, s3, tmp_path)
    agent = start(LOUPE_TEST="value that nobody prints")
    until(lambda: (status := mailbox.read_status()) and "step " in status.message, "a line of progress in the status")
    working = mailbox.read_status()
    assert working is not None
    assert (working.phase, working.instance, working.attempt) == ("working", INSTANCE, 1)
    assert "train on " in working.message
    status, log = ended(mailbox, agent)
    assert (status.phase, status.message) == ("done", "train is computed")
    assert "step 20/20" in log
    assert "value that nobody prints" not in log
    receive(toy.folder, mailbox, print)
    assert "didn't change, skipping" in toy.run("dvc", "repro", "train")
    assert (toy.folder / "models/model").read_text() == f"20 steps on {sum(range(256)) * 4000}"
    assert (toy.folder / "metrics/train/curves.csv").read_text() == "step\n20\n"


@pytest.mark.parametrize("way", ["notice", "SIGTERM", "deadline"])
def test_whatever_takes_the_machine_away_the_next_one_goes_on(
    way: str, mailbox: Mailbox, s3: S3, metadata: MetadataServer, start: Start, tmp_path: Path
) -> None:
    toy = shipped(mailbox, s3, tmp_path, steps=100)  # ten seconds at least, so that the deadline comes before the end
    agent = start(1, LOUPE_STOP_AT=str(time.time() + (8 if way == "deadline" else 3600)))
    if way != "deadline":
        until(logged(mailbox, "step 3/100"), "the third step")
    if way == "notice":
        metadata.interrupt()
    elif way == "SIGTERM":
        agent.send_signal(signal.SIGTERM)
    status, log = ended(mailbox, agent)
    assert status.phase == "interrupted"
    assert {"notice": "EC2 is going to terminate", "SIGTERM": "SIGTERM", "deadline": "deadline"}[way] in status.message
    steps = log.count("/100")
    assert mailbox.read_result() is None
    metadata.answers.pop("/latest/meta-data/spot/instance-action", None)
    status, log = ended(mailbox, start(2))
    assert status.phase == "done"
    if steps:
        assert f"going on from step {steps}" in log
    receive(toy.folder, mailbox, print)
    assert (toy.folder / "models/model").read_text() == f"100 steps on {sum(range(256)) * 4000}"


def test_a_machine_that_vanishes_is_gone_on_with_from_what_is_at_s3(
    mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path
) -> None:
    shipped(mailbox, s3, tmp_path, steps=100)

    def newest() -> int:
        """The step of the newest checkpoint at S3."""
        listed = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="ec2/checkpoints/").get("Contents", [])
        keys = [one["Key"] for one in listed if "/checkpoint." in one["Key"]]
        heads = [s3.client.head_object(Bucket=s3.bucket, Key=key) for key in keys]
        return max((int(head["Metadata"]["name"].split("-")[1].removesuffix(".pt")) for head in heads), default=0)

    agent = start(1)
    until(lambda: newest() >= 10, "the checkpoint of the tenth step, or a later one")
    end_at_once(agent)
    reached = newest()
    status, log = ended(mailbox, start(2))
    assert status.phase == "done"
    assert f"going on from step {reached} " in log


def test_a_stage_that_fails_says_why(mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path) -> None:
    shipped(mailbox, s3, tmp_path, mood="bad")
    status, log = ended(mailbox, start())
    assert status.phase == "failed"
    assert "error: the toy is broken: wind it up" in status.message
    assert "error: the toy is broken: wind it up" in status.tail
    assert "failed: train ended with code" in log
    assert mailbox.read_result() is None


def test_other_inputs_than_ordered_are_refused_before_work_begins(
    mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path
) -> None:
    shipped(mailbox, s3, tmp_path)
    order = mailbox.read_order()
    s3.client.put_object(Bucket=s3.bucket, Key=f"ec2/inputs/{order.inputs['index']}/b", Body=b"c")
    status, log = ended(mailbox, start())
    assert status.phase == "failed"
    assert status.message.startswith("index: its MD5 is ")
    assert "step 1/" not in log


def test_another_tree_than_shipped_is_refused(mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path) -> None:
    shipped(mailbox, s3, tmp_path)
    order = replace(mailbox.read_order(), key="0" * 64)
    s3.client.put_object(Bucket=s3.bucket, Key="ec2/runs/run-1/order.json", Body=order.to_json())
    status, _ = ended(mailbox, start())
    assert (status.phase, status.message) == (
        "failed",
        "the checkout is not what was shipped; launch the run again",
    )


def test_all_gpus_are_used(mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path) -> None:
    shipped(mailbox, s3, tmp_path, steps=1)
    program = tmp_path / "bin" / "nvidia-smi"
    program.parent.mkdir()
    program.write_text(
        "#!/bin/sh\necho 'GPU 0: NVIDIA A10G (UUID: GPU-1f2e)'\necho 'GPU 1: NVIDIA A10G (UUID: GPU-3c4d)'\n"
    )
    program.chmod(0o755)
    status, log = ended(mailbox, start(PATH=f"{program.parent}{os.pathsep}{os.environ['PATH']}"))
    assert status.phase == "done"
    assert "this machine: 2 x NVIDIA A10G" in log
    assert "beginning 2" in log


def test_a_remote_of_dvc_that_cannot_be_written_is_found_before_work_begins(
    mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path
) -> None:
    toy = make_toy(tmp_path / "here", s3.bucket)
    toy.run("dvc", "remote", "modify", "--local", "s3", "url", "s3://no-such-bucket-here/dvc")
    ship(toy.folder, mailbox, say=print)
    status, log = ended(mailbox, start())
    assert status.phase == "failed"
    assert "s3://no-such-bucket-here/dvc" in status.message
    assert "step 1/" not in log


def test_s3_may_be_away_while_training_ends(mailbox: Mailbox, s3: S3, start: Start, tmp_path: Path) -> None:
    toy = shipped(mailbox, s3, tmp_path, steps=30)
    port = free_port()
    moto = pytest.importorskip("moto.server")
    server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)  # sees the same buckets
    server.start()
    try:
        agent = start(AWS_ENDPOINT_URL=f"http://127.0.0.1:{port}", AWS_MAX_ATTEMPTS="1")
        until(logged(mailbox, "step 3/30"), "the third step")
        server.stop()
        time.sleep(8)  # training ends after 3
        assert agent.poll() is None
        assert mailbox.read_result() is None
        server = moto.ThreadedMotoServer(ip_address="127.0.0.1", port=port, verbose=False)
        server.start()
        status, log = ended(mailbox, agent)
    finally:
        server.stop()
    assert status.phase == "done"
    assert log.count("step 30/30") == 1
    receive(toy.folder, mailbox, print)
    assert (toy.folder / "models/model").read_text() == f"30 steps on {sum(range(256)) * 4000}"


def end_at_once(agent: subprocess.Popen[str]) -> None:
    """As EC2 ends a machine: all of its processes are gone."""
    found = subprocess.run(["ps", "-eo", "pid,ppid"], check=True, capture_output=True, text=True).stdout.split("\n")[1:]
    parents = {int(pid): int(parent) for pid, parent in (line.split() for line in found if line)}
    doomed = {agent.pid}
    while new := {pid for pid, parent in parents.items() if parent in doomed} - doomed:
        doomed |= new
    for pid in doomed:
        with contextlib.suppress(ProcessLookupError):  # it has ended by itself meanwhile
            os.kill(pid, signal.SIGKILL)
    agent.wait()
