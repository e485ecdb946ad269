from pathlib import Path

import pytest
from tests.conftest import S3

from loupe.cloud.checkpoints import Checkpoints
from loupe.cloud.mailbox import Mailbox
from loupe.names import UnsafeNameError


def write(runs: Path, step: int, run: str = "rdn-1") -> None:
    """A checkpoint as the trainer leaves it: renamed into place, the two latest kept."""
    folder = runs / run
    folder.mkdir(parents=True, exist_ok=True)
    (folder / ".new.part").write_bytes(f"state at {step}".encode())
    (folder / ".new.part").replace(folder / f"checkpoint-{step:08}.pt")
    for old in sorted(folder.glob("checkpoint-*.pt"))[:-2]:
        old.unlink()


def stored(s3: S3) -> dict[str, bytes]:
    found = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="ec2/checkpoints/").get("Contents", [])
    return {
        entry["Key"].removeprefix("ec2/checkpoints/"): s3.client.get_object(Bucket=s3.bucket, Key=entry["Key"])[
            "Body"
        ].read()
        for entry in found
    }


def test_the_next_machine_finds_the_newest(mailbox: Mailbox, s3: S3, tmp_path: Path) -> None:
    here = Checkpoints(mailbox, "key", tmp_path / "here")
    assert here.fetch() == []
    for step in (10, 20, 30):
        write(tmp_path / "here", step)
        assert here.send() == [f"rdn-1/checkpoint-{step:08}.pt"]
        assert here.send() == []
    there = Checkpoints(Mailbox(s3.bucket, "ec2", "another-run"), "key", tmp_path / "there")
    assert there.fetch() == ["rdn-1/checkpoint-00000030.pt"]
    came = {path.name: path.read_bytes() for path in (tmp_path / "there" / "rdn-1").iterdir()}
    assert came == {"checkpoint-00000020.pt": b"state at 20", "checkpoint-00000030.pt": b"state at 30"}
    assert there.send() == []  # what has just come does not go back
    assert Checkpoints(mailbox, "other-key", tmp_path / "other").fetch() == []


def test_two_of_a_run_are_kept_in_s3_and_the_newest_is_never_overwritten(
    mailbox: Mailbox, s3: S3, tmp_path: Path
) -> None:
    before = b""
    for step in range(1, 6):
        first = Checkpoints(mailbox, "key", tmp_path)
        first.fetch()  # each time by a machine that knows nothing but what is in S3
        write(tmp_path, step)
        first.send()
        now = stored(s3)
        assert len(now) <= 2
        assert f"state at {step}".encode() in now.values()
        assert not before or before in now.values()
        before = f"state at {step}".encode()


def test_what_grows_is_sent_again_and_what_is_half_written_is_not(mailbox: Mailbox, s3: S3, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    write(runs, 1)
    events = runs / "rdn-1" / "events.out.tfevents.1"
    events.write_bytes(b"a")
    (runs / "rdn-1" / ".half.part").write_bytes(b"half")
    here = Checkpoints(mailbox, "key", runs)
    here.send()
    with events.open("ab") as stream:
        stream.write(b"b")
    here.send()
    assert stored(s3) == {"key/rdn-1/checkpoint.0": b"state at 1", "key/rdn-1/events.out.tfevents.1": b"ab"}
    there = Checkpoints(mailbox, "key", tmp_path / "launcher")
    there.fetch(checkpoints=False)
    assert [path.name for path in (tmp_path / "launcher" / "rdn-1").iterdir()] == [events.name]


def test_a_checkpoint_that_vanishes_meanwhile_is_no_error(mailbox: Mailbox, s3: S3, tmp_path: Path) -> None:
    runs = tmp_path / "runs"
    (runs / "rdn-1").mkdir(parents=True)
    (runs / "rdn-1" / "checkpoint-00000001.pt").symlink_to(runs / "gone")  # is listed, and cannot be opened
    write(runs, 2, "rdn-2")
    assert Checkpoints(mailbox, "key", runs).send() == ["rdn-2/checkpoint-00000002.pt"]


def test_no_name_in_s3_leads_out_of_the_folder(mailbox: Mailbox, s3: S3, tmp_path: Path) -> None:
    s3.client.put_object(Bucket=s3.bucket, Key="ec2/checkpoints/key/../../evil", Body=b"x")
    with pytest.raises(UnsafeNameError):
        Checkpoints(mailbox, "key", tmp_path / "runs").fetch()
    s3.client.delete_object(Bucket=s3.bucket, Key="ec2/checkpoints/key/../../evil")
    evil = {"name": "../../evil"}
    s3.client.put_object(Bucket=s3.bucket, Key="ec2/checkpoints/key/rdn/checkpoint.0", Body=b"x", Metadata=evil)
    with pytest.raises(UnsafeNameError):
        Checkpoints(mailbox, "key", tmp_path / "runs").fetch()
    assert not list(tmp_path.rglob("evil"))
