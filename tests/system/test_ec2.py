"""Training on a rented machine: the launcher, user-data, bootstrap and agent as they are, on simulated computers.

Every test ends with the right weights or a clear failure, and always with no machine left.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
from tests.system.gate import Gate, client
from tests.system.hypervisor import Account, Hypervisor, Machine, account, bake
from tests.system.test_pipeline import Copy

pytestmark = pytest.mark.timeout(900)

SHORT, LONG = 40, 800  # steps; the second lasts long enough to do something meanwhile
PATIENCE = 240.0  # seconds for a launch beside other work
PRICES = {("g5.xlarge", "us-east-1a"): 0.40, ("g5.xlarge", "us-east-1b"): 0.50, ("g6.xlarge", "us-east-1a"): 0.60}
ZONES = {"g5.xlarge": ["us-east-1a", "us-east-1b"], "g6.xlarge": ["us-east-1a"]}
POLICY = """parameter: {parameter}
image: {image}
types: [g5.xlarge, g6.xlarge]
markets: [spot, on-demand]
budget_usd: {budget}
deadline_hours: {hours}
spot_losses: {losses}
"""
FAST = {
    "LOUPE_MACHINE_DEVICE": "cpu",
    "LOUPE_MACHINE_THREADS": "1",  # the same sums on machine and twin
    "LOUPE_MACHINE_CHECKPOINT_SECONDS": "0.5",
    "LOUPE_MACHINE_HEARTBEAT_SECONDS": "0.5",
    "LOUPE_EC2_POLL_SECONDS": "0.5",
    "LOUPE_EC2_STALE_SECONDS": "30",
    "AWS_MAX_ATTEMPTS": "3",
}


class Launch:
    """`loupe ec2 launch`, as a process: what it prints, and its end."""

    def __init__(self, project: Copy, arguments: tuple[str, ...], log: Path) -> None:
        command = [sys.executable, "-m", "loupe.cli", "ec2", "launch", "--json", "--hours", "1", *arguments]
        self.log = log
        with log.open("wb") as stderr:
            self.process = subprocess.Popen(
                command,
                cwd=project.folder,
                env=project.environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=stderr,
                start_new_session=True,
            )

    def said(self) -> str:
        """What it has said so far."""
        return self.log.read_text(errors="replace")

    def until(self, words: str, seconds: float = PATIENCE) -> None:
        """Wait until it says some words."""
        deadline = time.monotonic() + seconds
        while words not in self.said():
            assert self.process.poll() is None, f"it has ended before it said {words!r}:\n{self.said()}"
            assert time.monotonic() < deadline, f"it did not say {words!r} within {seconds} s:\n{self.said()}"
            time.sleep(0.1)

    def end(self, seconds: float = PATIENCE) -> tuple[int, dict[str, Any]]:
        """Its exit code, and the JSON that it printed."""
        try:
            out, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            self.kill()
            pytest.fail(f"it did not end within {seconds} s:\n{self.said()}")
        return self.process.returncode, json.loads(out) if out.strip() else {}

    def kill(self) -> None:
        """SIGKILL of it and all that it has started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        if self.process.stdout and not self.process.stdout.closed:
            self.process.stdout.close()


class Site:
    """A project, an account of its own, and the machines that run in it."""

    def __init__(self, project: Copy, gate: Gate, folder: Path) -> None:
        self.project, self.gate, self.folder = project, gate, folder
        self.account: Account = account(gate.upstream, f"shop-{uuid4().hex[:8]}")
        self.s3 = client("s3", gate.upstream, self.account.region)
        project.environment = {
            name: value for name, value in project.environment.items() if not name.startswith(("AWS_", "LOUPE_EC2"))
        }
        project.environment |= self.account.environment(gate.url) | FAST
        project.environment["AWS_CONFIG_FILE"] = str(folder / "no-aws-config")  # DVC finds fault with /dev/null
        project.run("dvc", "remote", "add", "-q", "--local", "-f", "-d", "shop", f"s3://{self.account.bucket}/dvc")
        project.run("dvc", "remote", "modify", "-q", "--local", "shop", "endpointurl", gate.url)
        self.launches: list[Launch] = []
        self.policy()

    def policy(self, budget: float = 20, hours: float = 12, losses: int = 3) -> None:
        """Commit ec2.yaml."""
        text = POLICY.format(
            parameter=self.account.parameter, image=self.account.image, budget=budget, hours=hours, losses=losses
        )
        (self.project.folder / "ec2.yaml").write_text(text)
        commit(self.project, "Set the policy")

    def launch(self, *arguments: str) -> Launch:
        """Start `loupe ec2 launch`."""
        log = self.folder / f"launch-{len(self.launches) + 1}.log"
        self.launches.append(Launch(self.project, arguments, log))
        return self.launches[-1]

    def finish(self, *arguments: str) -> tuple[int, dict[str, Any], str]:
        """`loupe ec2 launch` to its end: exit code, JSON, and what it said."""
        launch = self.launch(*arguments)
        code, found = launch.end()
        return code, found, launch.said()

    def recipe(self, steps: int) -> None:
        """Commit how long is trained."""
        changes = (f"--set=train.steps={steps}", f"--set=train.validate_every={steps}")
        self.project.run("loupe", "profile", *changes)
        commit(self.project, "Set the steps")

    def weights(self) -> bytes:
        """The network that came back."""
        return (self.project.folder / "models/model.safetensors").read_bytes()

    def objects(self, prefix: str) -> list[str]:
        """The keys of the bucket below a prefix."""
        pages = self.s3.get_paginator("list_objects_v2").paginate(Bucket=self.account.bucket, Prefix=prefix)
        return [one["Key"] for page in pages for one in page.get("Contents", ())]


def commit(project: Copy, message: str) -> None:
    """Commit tracked changes and ec2.yaml, if there are any."""
    identity = ("-c", "user.name=test", "-c", "user.email=test@localhost")
    project.run("git", "add", "ec2.yaml")
    if project.run("git", "status", "--porcelain", "--untracked-files=no").strip():
        project.run("git", *identity, "commit", "-q", "-a", "-m", message)


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Copy:
    """A project in which all before the training has been done."""
    copy = Copy(tmp_path_factory.mktemp("ec2") / "project")
    copy.run("loupe", "profile", "smoke", "--set=package.int8=false")
    copy.run("dvc", "pull", "-q", "data.dvc")
    copy.run("dvc", "repro", "patch-index")
    commit(copy, "The shop's recipe")
    return copy


@pytest.fixture(scope="module")
def expected(project: Copy, tmp_path_factory: pytest.TempPathFactory) -> dict[int, bytes]:
    """The weights that training on this computer gives, by steps."""
    weights = {}
    twin = tmp_path_factory.mktemp("twin") / "project"
    shutil.copytree(project.folder, twin, symlinks=True)
    environment = project.environment | {"PYTHONPATH": str(twin / "src"), "LOUPE_THREADS": "1"}
    for steps in (SHORT, LONG):
        changes = [f"--set=train.steps={steps}", f"--set=train.validate_every={steps}"]
        for command in (["loupe", "profile", *changes], ["dvc", "repro", "train"]):
            subprocess.run(command, cwd=twin, env=environment, check=True, capture_output=True, timeout=300)
        weights[steps] = (twin / "models/model.safetensors").read_bytes()
    return weights


@pytest.fixture
def site(project: Copy, s3_endpoint: str, tmp_path: Path) -> Iterator[Site]:
    """A new account; the project knows nothing of what was trained before. Afterwards no machine is left."""
    cache = project.folder / ".dvc/cache"
    before = {path for path in cache.rglob("*") if path.is_file()}
    with Gate(s3_endpoint) as gate:
        gate.spot_prices(PRICES)
        gate.offerings(ZONES)
        site = Site(project, gate, tmp_path)
        try:
            yield site
        finally:
            for launch in site.launches:
                launch.kill()
    for path in {path for path in cache.rglob("*") if path.is_file()} - before:
        path.unlink()
    for name in ("models", "runs", "bundle", "metrics/train", ".cache/ec2"):
        shutil.rmtree(project.folder / name, ignore_errors=True)
    project.run("git", "checkout", "-q", ".")


@pytest.fixture
def hypervisor(site: Site, tmp_path: Path) -> Iterator[Hypervisor]:
    """The machines."""
    lock = site.project.folder / "requirements.lock"
    with Hypervisor(
        site.gate, site.account.project, tmp_path / "machines", speed=30, image=lambda home: bake(home, lock)
    ) as hypervisor:
        yield hypervisor
        assert not hypervisor.left(), hypervisor.describe()


def working(hypervisor: Hypervisor, site: Site) -> Machine:
    """The machine, when it trains and its first checkpoint is in S3."""
    machine = hypervisor.wait(1, PATIENCE)[-1]
    deadline = time.monotonic() + PATIENCE
    while not any("/checkpoint." in key for key in site.objects("ec2/checkpoints/")):
        assert not machine.ended and time.monotonic() < deadline, hypervisor.describe()
        time.sleep(0.1)
    return machine


def test_training_comes_back_as_if_it_had_run_here(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(SHORT)
    code, found, said = site.finish("--rest")
    assert code == 0, said + hypervisor.describe()
    assert "fetching the code" in said  # the bootstrap's lines and the agent's are one log
    assert list(site.project.folder.glob("runs/*/events.out.tfevents.*"))
    assert site.weights() == expected[SHORT]
    assert "up to date" in site.project.run("dvc", "repro")
    (attempt,) = found["attempts"]
    assert (attempt["type"], attempt["market"], attempt["zone"]) == ("g5.xlarge", "spot", "us-east-1a")
    assert 0 < found["usd"] < 0.1 < found["estimate"]["usd"] < 1
    assert f"{found['estimate']['usd']:.2f}" in said
    lineage = json.loads((site.project.folder / "bundle/lineage.json").read_text())
    assert lineage["cost_usd"] == pytest.approx(found["usd"], abs=0.001)
    assert hypervisor.left() == {}
    (machine,) = hypervisor.machines()
    assert machine.ended in ("shutdown", "terminated")
    code, _, said = site.finish()
    assert code == 0
    assert "nothing to launch" in said
    assert len(site.gate.asked("RunInstances")) == 1


def test_rungs_without_capacity_are_passed(site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]) -> None:
    site.recipe(SHORT)
    full = site.gate.fail(
        "RunInstances",
        "InsufficientInstanceCapacity",
        when=lambda request: request.parameters.get("InstanceMarketOptions.MarketType") == "spot",
    )
    code, found, said = site.finish("--no-rest")
    assert code == 0, said + hypervisor.describe()
    assert full.hits >= 3
    assert site.weights() == expected[SHORT]
    assert found["attempts"][-1]["market"] == "on-demand"


def test_no_capacity_anywhere_is_said_for_every_rung(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(SHORT)
    site.gate.fail("RunInstances", "InsufficientInstanceCapacity")
    began = time.monotonic()
    code, _, said = site.finish("--no-rest")
    assert code == 2
    assert "no machine is to be had" in said
    for rung in ("g5.xlarge as spot in us-east-1a", "g6.xlarge as spot in us-east-1a", "g5.xlarge as on-demand"):
        assert rung in said
    assert hypervisor.machines() == []
    assert time.monotonic() - began < PATIENCE / 2


def test_spot_taken_away_is_gone_on_with_elsewhere(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    machine = working(hypervisor, site)
    hypervisor.notice(machine.id)
    code, found = launch.end()
    assert code == 0, launch.said() + hypervisor.describe()
    assert "going on from step" in launch.said()
    assert site.weights() == expected[LONG]
    first, second = found["attempts"]
    assert (first["zone"], second["zone"]) == ("us-east-1a", "us-east-1b")
    assert first["ended"] and second["outcome"] == "done"


def test_a_machine_that_is_gone_without_a_word_costs_little(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    hypervisor.kill(working(hypervisor, site).id)
    code, found = launch.end()
    assert code == 0, launch.said() + hypervisor.describe()
    assert "going on from step" in launch.said()
    assert site.weights() == expected[LONG]
    assert len(found["attempts"]) == 2


def test_a_machine_that_hangs_is_replaced(site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]) -> None:
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    hypervisor.freeze(working(hypervisor, site).id)
    code, _ = launch.end()
    assert code == 0, launch.said() + hypervisor.describe()
    assert "no sign of life" in launch.said()
    assert site.weights() == expected[LONG]


def test_after_losses_a_machine_on_demand_is_taken(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.policy(losses=1)
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    hypervisor.kill(working(hypervisor, site).id)
    code, found = launch.end()
    assert code == 0, launch.said() + hypervisor.describe()
    assert [one["market"] for one in found["attempts"]] == ["spot", "on-demand"]
    assert site.weights() == expected[LONG]


def test_a_bootstrap_that_fails_shows_its_log(site: Site, tmp_path: Path) -> None:
    site.recipe(SHORT)

    def broken(home: Path) -> None:
        folder = bake(home, site.project.folder / "requirements.lock")
        shutil.rmtree(folder / "lib")

    with Hypervisor(site.gate, site.account.project, tmp_path / "machines", speed=30, image=broken) as hypervisor:
        code, _, said = site.finish("--no-rest")
        assert code == 2
        assert "needs the extra `s3`" in said  # the last lines of the machine's log
        assert "the agent ended with code 1" in said
        assert not hypervisor.left()


def test_s3_may_be_away_for_a_while(site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]) -> None:
    site.recipe(LONG)
    site.project.environment["LOUPE_EC2_STALE_SECONDS"] = "180"  # a heartbeat may be a minute late afterwards
    launch = site.launch("--no-rest")
    working(hypervisor, site)
    away = site.gate.fail("s3", "SlowDown", seconds=60)
    code, found = launch.end()
    assert code == 0, launch.said() + hypervisor.describe()
    assert away.hits
    assert site.weights() == expected[LONG]
    assert len(found["attempts"]) == 1


def test_a_killed_launcher_is_followed_by_one_that_adopts(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    working(hypervisor, site)
    launch.kill()
    code, found, said = site.finish("--no-rest")
    assert code == 0, said + hypervisor.describe()
    assert "taking over" in said or found["attempts"][0]["outcome"] == "done"
    assert site.weights() == expected[LONG]
    assert len(site.gate.asked("RunInstances")) == 1


def test_a_launcher_killed_before_it_heard_the_answer_launches_no_second_machine(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(LONG)
    site.gate.lag = 5.0  # the next launcher does not see the machine by its tag at first
    lost = site.gate.fail("RunInstances", "lost", times=1)
    launch = site.launch("--no-rest")
    assert lost.wait(PATIENCE)
    launch.kill()
    code, _, said = site.finish("--no-rest")
    assert code == 0, said + hypervisor.describe()
    assert site.weights() == expected[LONG]
    assert len(hypervisor.machines()) == 1


def test_a_terminated_launcher_ends_its_machine_and_the_next_goes_on(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    working(hypervisor, site)
    launch.process.terminate()
    code, _ = launch.end(60)
    assert code == 128 + signal.SIGTERM
    assert not hypervisor.left()
    code, _, said = site.finish("--no-rest")
    assert code == 0, said + hypervisor.describe()
    assert "going on from step" in said
    assert site.weights() == expected[LONG]


def test_the_deadline_ends_machine_and_launcher(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(100_000)
    site.policy(hours=0.02)  # a minute
    hypervisor.speed = 1
    launch = site.launch("--no-rest", "--hours", "0.001")
    code, _ = launch.end()
    assert code == 2, launch.said()
    assert "deadline" in launch.said()
    assert "is kept" in launch.said()


def test_a_budget_that_is_too_small_launches_nothing(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(SHORT)
    code, _, said = site.finish("--budget", "0.05")
    assert code == 2
    assert "0.05 USD are too little" in said
    assert not site.gate.asked("RunInstances")
    assert not site.objects("ec2/")


def test_throttling_is_waited_for(site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]) -> None:
    site.recipe(SHORT)
    site.project.environment["AWS_MAX_ATTEMPTS"] = "8"  # as without this variable
    slow = [site.gate.fail(what, "RequestLimitExceeded", times=3) for what in ("Describe*", "RunInstances")]
    code, _, said = site.finish("--no-rest")
    assert code == 0, said + hypervisor.describe()
    assert [fault.hits for fault in slow] == [3, 3]
    assert len(hypervisor.machines()) == 1
    assert site.weights() == expected[SHORT]


def test_expired_credentials_are_named_and_the_machine_is_found_again(
    site: Site, hypervisor: Hypervisor, expected: dict[int, bytes]
) -> None:
    site.recipe(LONG)
    launch = site.launch("--no-rest")
    working(hypervisor, site)
    for service in ("ec2", "s3"):
        site.gate.fail(service, "ExpiredToken", when=lambda request: request.key == "AKIALAUNCHER")
    code, _ = launch.end()
    assert code == 2
    assert "credentials have expired" in launch.said()
    site.gate.heal()
    code, _, said = site.finish("--no-rest")
    assert code == 0, said + hypervisor.describe()
    assert site.weights() == expected[LONG]
    assert len(site.gate.asked("RunInstances")) == 1


def test_the_doctor_finds_all_well_or_says_what_is_not(site: Site) -> None:
    found = json.loads(site.project.run("loupe", "ec2", "doctor", "--json"))
    names = ("ec2.yaml", "credentials", "stack", "launch template", "image", "machines", "bucket", "dvc remote")
    assert [one["name"] for one in found] == list(names)
    assert site.account.bucket in found[2]["message"]
    command = [sys.executable, "-m", "loupe.cli", "ec2", "doctor"]
    environment = site.project.environment | {"AWS_DEFAULT_REGION": "eu-west-1"}
    done = subprocess.run(
        command, cwd=site.project.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert f"MEND  stack           SSM has no parameter {site.account.parameter} in eu-west-1" in done.stdout


def test_reaping_ends_what_a_dead_launcher_left(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(100_000)
    launch = site.launch("--no-rest")
    machine = working(hypervisor, site)
    launch.kill()
    assert f"kept: {machine.id}" in site.project.run("loupe", "ec2", "reap")
    assert machine.id in site.project.run("loupe", "ec2", "status")
    hypervisor.freeze(machine.id)
    (status,) = [key for key in site.objects("ec2/runs/") if key.endswith("/status.json")]
    said = json.loads(site.s3.get_object(Bucket=site.account.bucket, Key=status)["Body"].read())
    past = {"time": "2026-01-01T00:00:00Z"}
    for name, record in (("status.json", said | past), ("launcher.json", {"owner": "killed"} | past)):
        key = status.replace("status.json", name)
        site.s3.put_object(Bucket=site.account.bucket, Key=key, Body=json.dumps(record).encode())
    assert f"ended: {machine.id}" in site.project.run("loupe", "ec2", "reap")
    assert not hypervisor.left()
    assert "no machines" in site.project.run("loupe", "ec2", "reap")


def test_a_machine_that_nobody_watches_ends_at_its_deadline(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(100_000)
    site.policy(hours=0.02)  # a minute
    hypervisor.speed = 1
    launch = site.launch("--no-rest", "--hours", "0.001")
    (machine,) = hypervisor.wait(1, PATIENCE)
    launch.kill()
    assert machine.wait_over(150), hypervisor.describe()
    assert machine.ended in ("shutdown", "deadline")
    assert not hypervisor.left()


def test_what_a_person_ends_is_not_launched_anew(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(100_000)
    launch = site.launch("--no-rest")
    machine = working(hypervisor, site)
    run = site.objects("ec2/runs/")[0].split("/")[2]
    assert "another launcher works" in site.finish("--no-rest")[2]
    assert not machine.ended
    assert machine.id in site.project.run("loupe", "ec2", "terminate", run)
    code, _ = launch.end()
    assert code == 2
    assert "somebody has ended it" in launch.said()
    assert len(hypervisor.machines()) == 1
    assert "Running stage 'train'" in site.project.run("loupe", "ec2", "logs", "--follow", run)


def test_ctrl_c_before_ec2_shows_the_machine_ends_it(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(LONG)
    site.gate.lag = 4.0
    launch = site.launch("--no-rest")
    launch.until("launched i-")
    launch.process.send_signal(signal.SIGINT)
    code, _ = launch.end(60)
    assert code != 0
    assert not hypervisor.left()


def test_all_gpus_of_a_machine_are_used(site: Site, tmp_path: Path) -> None:
    site.recipe(SHORT)
    del site.project.environment["LOUPE_MACHINE_DEVICE"]
    lock = site.project.folder / "requirements.lock"
    with Hypervisor(
        site.gate,
        site.account.project,
        tmp_path / "machines",
        speed=30,
        gpus={"g5.xlarge": 2, "g6.xlarge": 2},
        image=lambda home: bake(home, lock),
    ) as hypervisor:
        code, _, said = site.finish("--no-rest")
        assert not hypervisor.left()
    assert code == 2  # its driver does not work: a machine here has no GPU
    assert "LOUPE_DEVICE=cuda" in said


def test_no_secret_is_in_anything_that_is_written(site: Site, hypervisor: Hypervisor) -> None:
    site.recipe(SHORT)
    secret = "S3cretAccessKeyOfTheLauncher"  # noqa: S105
    site.project.environment |= {"AWS_SECRET_ACCESS_KEY": secret, "AWS_SESSION_TOKEN": "TokenOfTheLauncher"}
    code, _, said = site.finish("--no-rest")
    assert code == 0, said
    written = [site.s3.get_object(Bucket=site.account.bucket, Key=key)["Body"].read() for key in site.objects("ec2/")]
    texts = [said.encode(), *written, *(machine.console().encode() for machine in hypervisor.machines())]
    texts += [request.parameters.get("UserData", "").encode() for request in site.gate.asked("RunInstances")]
    texts += [json.dumps(request.parameters).encode() for request in site.gate.asked("ec2")]
    for text in texts:
        assert secret.encode() not in text
        assert b"TokenOfTheLauncher" not in text
