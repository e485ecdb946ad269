import threading
from dataclasses import replace
from pathlib import Path

import pytest
from tests.conftest import S3

from loupe.cloud.aws import UnreachableError
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.records import Attempt, Order, Result, Status, moment, now
from loupe.errors import InputError

ORDER = Order(
    run="run-1",
    stage="train",
    commit="0" * 40,
    bundle="1" * 64,
    patch="",
    inputs={"index": "0f3a.dir"},
    tracked=("champion.dvc",),
    remote={"url": "s3://bucket/dvc", "endpoint": ""},
    key="2" * 64,
    environment={"LOUPE_THREADS": "2"},
)
ATTEMPT = Attempt(
    run="run-1",
    number=1,
    market="spot",
    type="g5.xlarge",
    zone="eu-central-1a",
    subnet="subnet-1",
    price=0.41,
    deadline="2026-01-31T18:00:00Z",
    began="2026-01-31T12:00:00Z",
)


def test_an_order_is_written_once(mailbox: Mailbox) -> None:
    with pytest.raises(InputError, match="there is no run run-1"):
        mailbox.read_order()
    mailbox.write_order(ORDER)
    mailbox.write_order(ORDER)  # a launcher that was killed in between
    assert mailbox.read_order() == ORDER
    with pytest.raises(InputError, match="name this one otherwise"):
        mailbox.write_order(replace(ORDER, commit="f" * 40))


def test_a_status_comes_back_as_it_was(mailbox: Mailbox) -> None:
    assert mailbox.read_status() is None
    status = Status("run-1", 1, "i-1", "failed", "no room", now(), now(), ("line", "last line"))
    mailbox.write_status(status)
    assert mailbox.read_status() == status


def test_of_launchers_that_claim_the_same_number_one_gets_it(mailbox: Mailbox, s3: S3) -> None:
    got: list[str] = []

    def claim(zone: str) -> None:
        if Mailbox(s3.bucket, "ec2", "run-1").claim(replace(ATTEMPT, zone=zone)):
            got.append(zone)

    threads = [threading.Thread(target=claim, args=(f"zone-{number}",)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(got) == 1
    assert [attempt.zone for attempt in mailbox.attempts()] == got
    ended = replace(ATTEMPT, zone=got[0], instance="i-1", outcome="interrupted")
    mailbox.save(ended)
    assert mailbox.claim(replace(ATTEMPT, number=2))
    assert mailbox.attempts() == [ended, replace(ATTEMPT, number=2)]


def test_a_log_is_read_on_from_where_one_was(mailbox: Mailbox, s3: S3) -> None:
    assert mailbox.log_after("") == ([], "")
    mailbox.append_log(1, ["one", "two"])
    mailbox.append_log(1, [])
    lines, cursor = mailbox.log_after("")
    assert lines == ["one", "two"]
    assert mailbox.log_after(cursor) == ([], cursor)
    Mailbox(s3.bucket, "ec2", "run-1").append_log(1, ["drei · ü", ""])  # another process goes on with the numbers
    mailbox.append_log(2, ["of the next machine"])
    lines, cursor = mailbox.log_after(cursor)
    assert lines == ["drei · ü", "", "of the next machine"]
    assert cursor == "log/0002-000001.txt"


def test_files_are_taken_only_if_they_are_what_was_announced(mailbox: Mailbox, tmp_path: Path) -> None:
    (tmp_path / "there").write_bytes(b"content")
    sha256 = mailbox.put_file("result/metrics/curves.csv", tmp_path / "there")
    mailbox.get_file("result/metrics/curves.csv", tmp_path / "here", sha256)
    assert (tmp_path / "here").read_bytes() == b"content"
    with pytest.raises(InputError, match="refused"):
        mailbox.get_file("result/metrics/curves.csv", tmp_path / "here", "0" * 64)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["here", "there"]


def test_result_and_launcher(mailbox: Mailbox) -> None:
    assert mailbox.read_result() is None
    result = Result("run-1", 2, "0" * 40, {"dvc.lock": "1" * 64}, now())
    mailbox.write_result(result)
    assert mailbox.read_result() == result
    assert mailbox.last_beat() is None
    mailbox.beat()
    beat = mailbox.last_beat()
    assert beat is not None
    assert abs((beat - moment(now())).total_seconds()) < 5


def test_records_of_another_version_are_told_as_such(mailbox: Mailbox, s3: S3) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="ec2/runs/run-1/status.json", Body=b'{"run": "run-1"}')
    with pytest.raises(InputError, match=r"status\.json: no status of this version"):
        mailbox.read_status()


@pytest.mark.parametrize("name", ["", "../up", "a/b", ".hidden", "-x", "a b", "x" * 101, "a.lock"])
def test_names_that_no_run_can_have(s3: S3, name: str) -> None:
    with pytest.raises(InputError, match="cannot name a run"):
        Mailbox(s3.bucket, "ec2", name)


def test_a_server_that_does_not_answer_is_told_as_such(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    away = Mailbox(s3.bucket, "ec2", "run-1")
    with pytest.raises(UnreachableError, match=r"status\.json: AWS does not answer"):
        away.read_status()
