"""User-data as a machine runs it: by bash, in a folder of its own, with the real AWS CLI and what that fetches."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.cloud.conftest import Clone, clone
from tests.cloud.metadata import MetadataServer
from tests.conftest import S3
from tests.servers import end_process_group
from tests.system.test_pipeline import Copy

from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import ship
from loupe.cloud.records import Status
from loupe.cloud.userdata import render, upload_bootstrap

SECONDS = 240.0


class Machine:
    """A folder in which user-data runs; `shutdown` and `apt-get` only write down that they were called."""

    def __init__(self, folder: Path, mailbox: Mailbox, metadata: MetadataServer, attempt: int = 1) -> None:
        self.folder, self.home = folder, folder / "loupe"
        self.home.mkdir(parents=True)
        bin_ = folder / "bin"
        bin_.mkdir()
        for name, code in (("shutdown", 0), ("apt-get", 1)):
            (bin_ / name).write_text(f'#!/bin/sh\necho {name} "$@" >> "{folder}/calls"\nexit {code}\n')
            (bin_ / name).chmod(0o755)
        upload_bootstrap(mailbox)
        script = folder / "user-data"
        place = {"bucket": mailbox.bucket, "prefix": mailbox.prefix, "run": mailbox.run, "region": "us-east-1"}
        script.write_text(render(**place, attempt=attempt, minutes=60))  # type: ignore[arg-type]
        script.chmod(0o755)
        self.environment = os.environ | {
            "PATH": os.pathsep.join([str(bin_), str(Path(sys.executable).parent), os.environ["PATH"]]),
            "LOUPE_HOME": str(self.home),
            "LOUPE_PER_BOOT": str(self.home / "per-boot"),
            "AWS_EC2_METADATA_SERVICE_ENDPOINT": metadata.address,
            "LOUPE_HEARTBEAT_SECONDS": "1",
            "DVC_SITE_CACHE_DIR": str(folder / "site"),
        }
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        self._process = subprocess.Popen(
            [str(self.folder / "user-data")], env=self.environment, cwd=self.folder, start_new_session=True
        )

    def wait(self) -> list[str]:
        """Wait for the end; what was called."""
        assert self._process is not None
        self._process.wait(SECONDS)
        return (self.folder / "calls").read_text().splitlines()

    def end(self) -> None:
        if self._process:
            end_process_group(self._process)


@pytest.fixture
def machine(mailbox: Mailbox, metadata: MetadataServer, tmp_path: Path) -> Iterator[Callable[[int], Machine]]:
    made: list[Machine] = []

    def make(attempt: int = 1) -> Machine:
        made.append(Machine(tmp_path / f"machine-{attempt}", mailbox, metadata, attempt))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def here(indexed: Copy, s3: S3, tmp_path: Path) -> Clone:
    return clone(indexed, tmp_path / "here", s3.bucket)


def status(mailbox: Mailbox) -> Status:
    found = mailbox.read_status()
    assert found is not None
    return found


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def test_code_that_is_not_what_was_ordered_is_not_run(
    here: Clone, mailbox: Mailbox, machine: Callable[[int], Machine], s3: S3
) -> None:
    ship(here.folder, mailbox, say=print)
    s3.client.put_object(Bucket=s3.bucket, Key="ec2/runs/run-1/code.bundle", Body=b"other code")
    one = machine(1)
    one.start()
    assert one.wait()[-1] == "shutdown -h now"
    assert status(mailbox).phase == "failed"
    assert "code.bundle: refused: it is not what order.json says" in status(mailbox).message
    assert status(mailbox).instance == "i-0123456789abcdef0"


def test_a_bootstrap_script_that_was_exchanged_is_not_run(
    mailbox: Mailbox, machine: Callable[[int], Machine], s3: S3
) -> None:
    one = machine(1)
    sha256 = upload_bootstrap(mailbox)
    s3.client.put_object(Bucket=s3.bucket, Key=f"ec2/bootstrap/{sha256}.py", Body=b"print('evil')")
    one.start()
    assert one.wait() == ["shutdown -h +60", "shutdown -h now"]
    assert "evil" not in (one.home / "boot.log").read_text()
    assert mailbox.read_status() is None


def test_packages_that_cannot_be_installed_end_the_machine_with_the_reason(
    here: Clone, mailbox: Mailbox, machine: Callable[[int], Machine], tmp_path: Path
) -> None:
    lock = here.folder / "requirements.lock"
    lock.write_text("no-such-package==1.0\n")
    here.run("git", "-c", "user.name=t", "-c", "user.email=t@t", "commit", "--quiet", "-am", "lock")
    (tmp_path / "packages").mkdir()
    ship(here.folder, mailbox, say=print)
    one = machine(1)
    one.environment |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(tmp_path / "packages")}
    one.start()
    assert one.wait()[-1] == "shutdown -h now"
    assert status(mailbox).phase == "failed"
    assert status(mailbox).message.startswith("installing packages: ")
    assert any("no-such-package" in line for line in status(mailbox).tail)
    assert not list(one.home.glob("venv-*")), "a half environment would be taken for whole"


def test_a_notice_while_packages_are_installed(
    here: Clone, mailbox: Mailbox, metadata: MetadataServer, machine: Callable[[int], Machine]
) -> None:
    ship(here.folder, mailbox, say=print)
    one = machine(1)
    one.environment |= {"PIP_INDEX_URL": "http://127.0.0.1:9/simple", "PIP_CONFIG_FILE": os.devnull}
    one.start()
    until(lambda: (found := mailbox.read_status()) and found.message == "installing packages")
    assert status(mailbox).phase == "preparing"
    metadata.interrupt()
    assert one.wait()[-1] == "shutdown -h now"
    assert status(mailbox).phase == "interrupted"
    assert status(mailbox).message.startswith("EC2 is going to terminate the machine")
