"""Machines at moto, records in its S3; the time is the one that `reap` is told."""

import dataclasses
from datetime import UTC, datetime, timedelta

import boto3
import pytest
from tests.cloud.deployment import Deployment
from tests.system.gate import Gate

from loupe.cloud.fleet import Fleet
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.reap import Verdict, reap
from loupe.cloud.records import Attempt, Instance, Phase, Rung, Status
from loupe.errors import InputError

MINUTE = timedelta(minutes=1)


def stamp(time: datetime) -> str:
    return f"{time:%Y-%m-%dT%H:%M:%SZ}"


def now() -> datetime:
    return datetime.now(UTC).replace(microsecond=0)


@dataclasses.dataclass(frozen=True)
class Scene:
    """A project's machines, and what is known of them at S3."""

    account: Deployment
    fleet: Fleet

    def mailbox(self, run: str) -> Mailbox:
        return Mailbox(self.account.stack.bucket, self.account.stack.prefix, run)

    def machine(self, run: str = "r1", attempt: int = 1, deadline: datetime | None = None) -> Instance:
        """A machine that was launched just now, with its record; it ends in a day unless said otherwise."""
        zone, subnet = "us-east-1a", self.account.stack.subnets[0]
        ends = stamp(deadline or now() + timedelta(days=1))
        rung = Rung("spot", "g4dn.xlarge", zone, subnet, 0.2)
        one = self.fleet.launch(
            rung, run=run, attempt=attempt, image="ami-0123456789abcdef0", user_data="#!/bin/bash\n", deadline=ends
        )
        record = Attempt(run, attempt, "spot", "g4dn.xlarge", zone, subnet, 0.2, ends, stamp(now()), one.id)
        self.mailbox(run).save(record)
        return one

    def says(self, one: Instance, phase: Phase, time: datetime) -> None:
        status = Status(one.run, one.attempt, one.id, phase, "step 10 of 100", stamp(time), stamp(time))
        self.mailbox(one.run).write_status(status)

    def reap(self, time: datetime) -> dict[str, Verdict]:
        verdicts = reap(self.fleet, self.mailbox, time)
        alive = {found.id for found in self.fleet.all()}
        for verdict in verdicts:
            assert (verdict.outcome == "ended") == (verdict.instance.id not in alive), verdict
        return {verdict.instance.id: verdict for verdict in verdicts}


@pytest.fixture
def scene(account: Deployment) -> Scene:
    return Scene(account, Fleet(account.stack))


def test_a_machine_past_its_deadline_is_ended_though_its_launcher_lives(scene: Scene) -> None:
    one = scene.machine(deadline=now() + 10 * MINUTE)
    scene.mailbox("r1").beat()
    scene.says(one, "working", now())
    assert scene.reap(now() + 14 * MINUTE)[one.id].outcome == "kept", "it may be shutting itself down"
    verdict = scene.reap(now() + 16 * MINUTE)[one.id]
    assert (verdict.outcome, verdict.reason) == ("ended", f"it is past its deadline {one.deadline}")
    [record] = scene.mailbox("r1").attempts()
    assert record.instance == one.id
    assert record.ended > record.began
    assert record.outcome == f"reaped: it is past its deadline {one.deadline}"


def test_what_a_launcher_watches_is_kept_though_the_machine_is_silent(scene: Scene) -> None:
    one = scene.machine()
    scene.mailbox("r1").beat()
    verdict = scene.reap(now() + 29 * MINUTE)[one.id]
    assert (verdict.outcome, verdict.reason) == ("kept", "its launcher watches it")


def test_an_orphan_that_works_is_kept_until_it_is_silent(scene: Scene) -> None:
    one = scene.machine()
    scene.mailbox("r1").beat()
    for phase in ("preparing", "working"):
        scene.says(one, phase, now() + 60 * MINUTE)  # type: ignore[arg-type]
        verdict = scene.reap(now() + 75 * MINUTE)[one.id]
        assert verdict.outcome == "kept"
        assert f"but it is {phase}; it ends by itself, at {one.deadline} at the latest" in verdict.reason
    verdict = scene.reap(now() + 95 * MINUTE)[one.id]
    assert verdict.outcome == "ended"
    assert "its launcher is silent since" in verdict.reason
    assert "and so is the machine since" in verdict.reason


def test_an_orphan_that_never_said_anything_is_ended(scene: Scene) -> None:
    one = scene.machine()
    assert scene.reap(now() + 29 * MINUTE)[one.id].outcome == "kept"
    verdict = scene.reap(now() + 31 * MINUTE)[one.id]
    assert verdict.outcome == "ended"
    assert "never given a sign of life" in verdict.reason


def test_the_status_of_another_machine_is_no_sign_of_life(scene: Scene) -> None:
    one = scene.machine()
    scene.says(dataclasses.replace(one, id="i-0123456789abcdef0"), "working", now() + 31 * MINUTE)
    assert scene.reap(now() + 31 * MINUTE)[one.id].outcome == "ended"


@pytest.mark.parametrize("phase", ["done", "failed", "interrupted"])
def test_an_orphan_that_has_finished_gets_a_moment_to_shut_down(scene: Scene, phase: Phase) -> None:
    one = scene.machine()
    scene.says(one, phase, now() + 60 * MINUTE)
    assert scene.reap(now() + 64 * MINUTE)[one.id].outcome == "kept"
    verdict = scene.reap(now() + 66 * MINUTE)[one.id]
    assert verdict.outcome == "ended"
    assert f"it is {phase}, and should shut itself down" in verdict.reason


def test_a_machine_whose_run_has_gone_on_is_ended(scene: Scene) -> None:
    first, second = scene.machine(), scene.machine(attempt=2)
    scene.mailbox("r1").beat()
    scene.says(first, "working", now())
    verdicts = scene.reap(now())
    assert verdicts[first.id].outcome == "ended"
    assert verdicts[first.id].reason == f"its run has gone on with attempt 2 ({second.id})"
    assert verdicts[second.id].outcome == "kept"
    assert [bool(record.ended) for record in scene.mailbox("r1").attempts()] == [True, False]


def test_two_machines_of_one_attempt_become_the_recorded_one(scene: Scene) -> None:
    one, two = scene.machine(), scene.machine()  # the second one's record takes the place of the first one's
    scene.mailbox("r1").beat()
    verdicts = scene.reap(now())
    assert (verdicts[one.id].outcome, verdicts[two.id].outcome) == ("ended", "kept")
    [record] = scene.mailbox("r1").attempts()
    assert (record.instance, record.ended) == (two.id, ""), "it is not closed for the other's sake"


def test_a_machine_whose_id_was_not_recorded_yet_is_kept_and_its_record_closed_later(scene: Scene) -> None:
    one = scene.machine()
    mailbox = scene.mailbox("r1")
    [record] = mailbox.attempts()
    mailbox.save(dataclasses.replace(record, instance=""))
    mailbox.beat()
    assert scene.reap(now())[one.id].outcome == "kept"
    assert scene.reap(now() + 31 * MINUTE)[one.id].outcome == "ended"
    [record] = mailbox.attempts()
    assert record.instance == one.id and record.ended


def change_tags(scene: Scene, one: Instance, **tags: str) -> None:
    changed = [{"Key": f"loupe:{key}", "Value": value} for key, value in tags.items()]
    scene.account.ec2.create_tags(Resources=[one.id], Tags=changed)


@pytest.mark.parametrize("tag", ["run", "deadline"])
def test_a_machine_without_tags_is_ended_after_some_minutes(scene: Scene, tag: str) -> None:
    one = scene.machine()
    scene.account.ec2.delete_tags(Resources=[one.id], Tags=[{"Key": f"loupe:{tag}"}])
    assert scene.reap(now() + 4 * MINUTE)[one.id].outcome == "kept"
    verdict = scene.reap(now() + 6 * MINUTE)[one.id]
    assert verdict.outcome == "ended"
    assert tag in verdict.reason


def test_a_deadline_that_cannot_be_read_is_none(scene: Scene) -> None:
    one = scene.machine()
    scene.mailbox("r1").beat()
    change_tags(scene, one, deadline="tomorrow")
    verdict = scene.reap(now() + 6 * MINUTE)[one.id]
    assert (verdict.outcome, verdict.reason) == ("ended", "it has no readable deadline: 'tomorrow'")


def test_a_stopped_machine_is_ended(scene: Scene) -> None:
    one = scene.machine()
    scene.mailbox("r1").beat()
    scene.account.ec2.stop_instances(InstanceIds=[one.id])
    verdict = scene.reap(now())[one.id]
    assert verdict.outcome == "ended"
    assert "it is stopped" in verdict.reason


def test_without_s3_the_deadline_alone_counts(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    late, orphan = scene.machine("r1", deadline=now() + 5 * MINUTE), scene.machine("r2")
    monkeypatch.setenv("AWS_ENDPOINT_URL_S3", "http://127.0.0.1:9")  # nobody answers there
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    verdicts = scene.reap(now() + 60 * MINUTE)
    assert verdicts[late.id].outcome == "ended"
    assert "past its deadline" in verdicts[late.id].reason
    assert "its record stays open" in verdicts[late.id].reason
    assert verdicts[orphan.id].outcome == "kept"
    assert "S3 tells nothing of it, so its deadline alone counts" in verdicts[orphan.id].reason


def test_past_deadlines_do_not_wait_for_a_slow_s3(scene: Scene) -> None:
    first, late = scene.machine("r1"), scene.machine("r2", deadline=now() + 5 * MINUTE)

    def slow(run: str) -> Mailbox:
        assert [found.id for found in scene.fleet.all()] == [first.id], "S3 is asked when that is over"
        raise InputError("S3 is slow")

    verdicts = {verdict.instance.id: verdict for verdict in reap(scene.fleet, slow, now() + 60 * MINUTE)}
    assert (verdicts[first.id].outcome, verdicts[late.id].outcome) == ("kept", "ended")


def test_a_damaged_record_says_so_and_the_others_are_judged(scene: Scene) -> None:
    damaged, orphan = scene.machine("r1"), scene.machine("r2")
    boto3.client("s3").put_object(
        Bucket=scene.account.stack.bucket, Key="ec2/runs/r1/attempts/0001.json", Body=b'{"run": "r1"}'
    )
    verdicts = scene.reap(now() + 60 * MINUTE)
    assert verdicts[damaged.id].outcome == "kept"
    assert "no attempt of this version of loupe" in verdicts[damaged.id].reason
    assert verdicts[orphan.id].outcome == "ended"


def test_what_cannot_be_ended_is_reported_and_the_others_are_ended(account: Deployment, gate: Gate) -> None:
    scene = Scene(account, Fleet(account.stack))
    stuck, other = scene.machine("r1", deadline=now()), scene.machine("r2", deadline=now())
    gate.fail("TerminateInstances", "OperationNotPermitted", when=lambda asked: stuck.id in asked.values("InstanceId"))
    verdicts = scene.reap(now() + 60 * MINUTE)
    assert verdicts[stuck.id].outcome == "failed"
    assert "OperationNotPermitted" in verdicts[stuck.id].reason
    assert verdicts[other.id].outcome == "ended"
    assert not scene.mailbox("r1").attempts()[0].ended


def test_where_nothing_runs_nothing_is_said(scene: Scene) -> None:
    assert scene.reap(now()) == {}
