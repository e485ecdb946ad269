"""From one clone to another and back, over a real S3 server, by real git and DVC."""

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest
from tests.cloud.conftest import Clone, clone, unpack
from tests.conftest import S3
from tests.system.test_pipeline import Copy

from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import fetch_inputs, git, key_of, needs_of, receive, remote_of, ship
from loupe.cloud.records import Order, Result, now
from loupe.errors import InputError


@pytest.fixture
def here(indexed: Copy, s3: S3, tmp_path: Path) -> Clone:
    """The launcher's project."""
    return clone(indexed, tmp_path / "here", s3.bucket)


def test_what_a_machine_trains_counts_as_trained_here(here: Clone, mailbox: Mailbox, s3: S3, tmp_path: Path) -> None:
    lines: list[str] = []
    order = ship(here.folder, mailbox, environment={"LOUPE_THREADS": "1"}, say=lines.append)
    assert mailbox.read_order() == order
    assert list(order.inputs) == ["index"]
    assert any(line.startswith("index: ") and "to S3" in line for line in lines)

    (tmp_path / "machine").mkdir()
    machine = unpack(mailbox, order, tmp_path / "machine" / "project")
    assert key_of(git(machine.folder, "write-tree").strip(), order.inputs) == order.key
    assert needs_of(machine.folder, "train", current=False).inputs == order.inputs
    machine.run("dvc", "repro", "--single-item", "train")
    machine.run("dvc", "push", "train")
    names = ("dvc.lock", "metrics/train/curves.csv")
    files = {name: mailbox.put_file(f"result/{name}", machine.folder / name) for name in names}

    with pytest.raises(InputError, match=r"no result of the run run-1 \(yet\)"):
        receive(here.folder, mailbox, print)
    mailbox.write_result(Result("run-1", 1, order.commit, files, now()))
    (here.folder / "models").mkdir()  # of an earlier training, in no cache
    (here.folder / "models/old").write_bytes(b"old")
    receive(here.folder, mailbox, print)

    assert here.run("dvc", "status", "train").strip() == "Data and pipelines are up to date."
    assert "Stage 'train' didn't change, skipping" in here.run("dvc", "repro", "train")
    for name in (*names, "models/model.safetensors", "models/config.json"):
        assert (here.folder / name).read_bytes() == (machine.folder / name).read_bytes(), name
    assert not (here.folder / "models/old").exists()
    pushed = s3.client.list_objects_v2(Bucket=s3.bucket, Prefix="dvc/")["KeyCount"]
    assert pushed == 3  # two files of models/, and their list: the index did not go to DVC's remote

    # the same again, by another launcher: inputs are there, and no byte of them moves
    lines.clear()
    again = ship(here.folder, Mailbox(s3.bucket, "ec2", "run-2"), say=lines.append)
    assert any("index: is in S3 already" in line for line in lines)
    assert again.inputs == order.inputs


def test_a_result_that_does_not_belong_here_leaves_all_as_it_was(here: Clone, mailbox: Mailbox, tmp_path: Path) -> None:
    order = ship(here.folder, mailbox, say=print)
    lock, curves = here.folder / "dvc.lock", here.folder / "metrics/train/curves.csv"
    theirs = tmp_path / "dvc.lock"
    before = lock.read_bytes(), curves.read_bytes()
    theirs.write_text(lock.read_text().replace("steps: 3500", "steps: 40"))  # trained with what is here no more
    (tmp_path / "curves.csv").write_text("step\n")
    files = {
        "dvc.lock": mailbox.put_file("result/dvc.lock", theirs),
        "metrics/train/curves.csv": mailbox.put_file("result/metrics/train/curves.csv", tmp_path / "curves.csv"),
    }
    mailbox.write_result(Result("run-1", 1, order.commit, files, now()))
    with pytest.raises(InputError, match=r"does not belong to what is here \(changed deps: .*params.yaml"):
        receive(here.folder, mailbox, print)
    assert (lock.read_bytes(), curves.read_bytes()) == before

    mailbox.write_result(Result("run-1", 1, order.commit, files | {"dvc.lock": "0" * 64}, now()))
    with pytest.raises(InputError, match="refused"):
        receive(here.folder, mailbox, print)
    for strange in ("src/loupe/cli.py", "../evil"):
        mailbox.write_result(Result("run-1", 1, order.commit, files | {strange: "0" * 64}, now()))
        with pytest.raises(InputError, match="is no output of train"):
            receive(here.folder, mailbox, print)
    assert (lock.read_bytes(), curves.read_bytes()) == before


def test_a_half_upload_is_finished(here: Clone, mailbox: Mailbox, s3: S3) -> None:
    order = ship(here.folder, mailbox, say=print)
    prefix = f"ec2/inputs/{order.inputs['index']}/"
    files = {path.name: path.stat().st_size for path in (here.folder / "index").iterdir()}
    assert mailbox.sizes(prefix) == files
    s3.client.delete_object(Bucket=s3.bucket, Key=prefix + "patches.parquet")
    s3.client.put_object(Bucket=s3.bucket, Key=prefix + "images.parquet", Body=b"cut off")
    ship(here.folder, Mailbox(s3.bucket, "ec2", "run-2"), say=print)
    assert mailbox.sizes(prefix) == files
    with pytest.raises(InputError, match="is not there"):
        fetch_inputs(here.folder, mailbox, Order(**vars(order) | {"inputs": {"index": "0.dir"}}), print)


def test_the_tree_that_is_here_is_the_tree_that_is_shipped(here: Clone, s3: S3, tmp_path: Path) -> None:
    """In a linked worktree with a detached HEAD, with changed, new, staged and strangely named files."""
    work = tmp_path / "worktree"
    here.run("git", "worktree", "add", "--quiet", "--detach", str(work))
    for name in ("params.yaml", "dvc.lock", "metrics/validation.json"):
        (work / name).write_bytes((here.folder / name).read_bytes())
    for name in ("index", "data", "reports"):
        subprocess.run(["cp", "-a", str(here.folder / name), str(work)], check=True)
    (work / ".dvc/config.local").write_bytes((here.folder / ".dvc/config.local").read_bytes())
    linked = Clone(work)
    linked.run("dvc", "cache", "dir", "--local", str(here.folder / ".dvc/cache"))
    strange = work / "metrics" / 'n\new "ü".json'
    strange.write_text("{}")
    (work / "src/loupe/training/ema.py").chmod(0o755)
    (work / "src/loupe/training/new.py").write_text("NEW = 1\n")
    (work / "data.bin").write_bytes(bytes(range(256)))
    (work / "unrelated.txt").write_text("stays here")
    linked.run("git", "add", "data.bin")
    index = linked.run("git", "status", "--porcelain")

    def mailbox(run: str) -> Mailbox:
        return Mailbox(s3.bucket, "ec2", run)

    with pytest.raises(InputError, match=r"src/loupe/training/new\.py: git does not know"):
        ship(work, mailbox("a"), say=print)
    order = ship(work, mailbox("b"), dirty=True, say=print)
    assert linked.run("git", "status", "--porcelain") == index
    (tmp_path / "machine").mkdir()
    machine = unpack(mailbox("b"), order, tmp_path / "machine" / "project")
    assert key_of(git(machine.folder, "write-tree").strip(), order.inputs) == order.key
    for path in (strange, work / "data.bin", work / "src/loupe/training/new.py"):
        assert (machine.folder / path.relative_to(work)).read_bytes() == path.read_bytes()
    assert (machine.folder / "src/loupe/training/ema.py").stat().st_mode & 0o100
    assert not (machine.folder / "unrelated.txt").exists()

    (work / "src/loupe/training/new.py").unlink()
    with pytest.raises(InputError, match=r"data\.bin, src/loupe/training/ema\.py: changed, and not committed"):
        ship(work, mailbox("c"), say=print)


def test_the_champion_goes_by_dvc(here: Clone, mailbox: Mailbox, s3: S3, tmp_path: Path) -> None:
    (here.folder / "champion/1.0.0").mkdir(parents=True)
    (here.folder / "champion/1.0.0/model.safetensors").write_bytes(b"weights")
    here.run("dvc", "add", "--quiet", "champion")  # as the flow does: git has not heard of it yet
    order = ship(here.folder, mailbox, say=print)
    assert order.tracked == ("champion.dvc",)
    (tmp_path / "machine").mkdir()
    machine = unpack(mailbox, order, tmp_path / "machine" / "project")
    machine.run("dvc", "pull", *order.tracked)
    assert (machine.folder / "champion/1.0.0/model.safetensors").read_bytes() == b"weights"


def test_what_cannot_be_shipped_says_what_to_do(here: Clone, mailbox: Mailbox, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"environment: AWS_SECRET_ACCESS_KEY: .*leave secrets out"):
        ship(here.folder, mailbox, environment={"AWS_SECRET_ACCESS_KEY": "x"}, say=print)
    with pytest.raises(InputError, match=r"dvc\.yaml: there is no stage nothing"):
        ship(here.folder, mailbox, stage="nothing", say=print)
    params = here.folder / "params.yaml"
    before = params.read_text()
    params.write_text(before.replace("size: 32", "size: 24"))
    with pytest.raises(InputError, match=r"patch-index: not up to date.*run `dvc repro patch-index` first"):
        ship(here.folder, mailbox, say=print)
    params.write_text(before)
    here.run("dvc", "remote", "default", "--local", "bundled")
    with pytest.raises(InputError, match=r"default remote is .*remote, which a machine on EC2 cannot reach; run `dvc"):
        ship(here.folder, mailbox, say=print)
    shallow = tmp_path / "shallow"
    here.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--allow-empty", "-qm", "second")
    here.run("git", "clone", "--quiet", "--depth=1", f"file://{here.folder}", str(shallow))
    (shallow / ".dvc/config.local").write_text("[core]\n remote = s3\n['remote \"s3\"']\n url = s3://b/dvc\n")
    with pytest.raises(InputError, match="git fetch --unshallow"):
        ship(shallow, mailbox, say=print)


def test_no_credential_leaves_with_the_remote(here: Clone, mailbox: Mailbox, s3: S3) -> None:
    for key, value in (
        ("endpointurl", s3.endpoint),
        ("access_key_id", "AKIAEXAMPLE"),
        ("secret_access_key", "example-secret"),
    ):
        here.run("dvc", "remote", "modify", "--local", "s3", key, value)
    assert vars(remote_of(here.folder)) == {"url": f"s3://{s3.bucket}/dvc", "endpoint": s3.endpoint}
    ship(here.folder, mailbox, say=print)
    objects: list[dict[str, Any]] = s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]
    for entry in objects:
        data = s3.client.get_object(Bucket=s3.bucket, Key=entry["Key"])["Body"].read()
        assert b"AKIAEXAMPLE" not in data, entry["Key"]
        assert b"example-secret" not in data, entry["Key"]
    assert json.loads(s3.client.get_object(Bucket=s3.bucket, Key="ec2/runs/run-1/order.json")["Body"].read())["remote"]
