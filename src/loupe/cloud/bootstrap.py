"""What a rented machine runs first: code and packages come, and the agent takes over. Standard library and `aws` only.

    python3 bootstrap.py --bucket B --prefix P --run R --attempt 1

userdata.sh fetches this file alone, and runs it by the machine's own Python 3.12: nothing of loupe is there yet. In
LOUPE_HOME (/opt/loupe):

    bundle, patch              from S3, checked by the sha256 of order.json
    project/                   the checkout
    venv-0f3a5b7c9d1e/         packages, by the hash of requirements.lock; an image may bring it

Meanwhile status.json says what is being done, the log is in S3 too, and the notice that a spot machine is taken away is
heard. Whatever goes wrong ends as status `failed`, with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import suppress
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from types import FrameType
from typing import Any
from urllib.parse import urlsplit

BEAT = 10.0  # seconds between two heartbeats; LOUPE_HEARTBEAT_SECONDS
NOTICE = 5.0  # seconds between two looks for a spot notice, at most; AWS advises it
TRIES, PAUSE = 6, 2.0  # of what fails when the network does; seconds before the second try, doubled each time
SOON = 2.0  # seconds that the metadata service may take
LONG, SHORT = 600.0, 60.0  # seconds that fetching the code may take, and writing a few lines
TAIL = 20  # lines of a failure
COMMIT = re.compile(r"[0-9a-f]{40}")
SPOT = "spot/instance-action"


class FailedError(Exception):
    """It cannot go on; the message says why."""


class Interrupted(Exception):  # noqa: N818  # no error: another machine goes on
    """The machine is being taken away; the message says by whom."""


class Metadata:
    """The machine's metadata service, by IMDSv2: at AWS_EC2_METADATA_SERVICE_ENDPOINT, or where EC2 has it."""

    def __init__(self) -> None:
        address = os.environ.get("AWS_EC2_METADATA_SERVICE_ENDPOINT") or "http://169.254.169.254"
        self._host = urlsplit(address).netloc  # no proxy is asked: it is the machine itself
        self._token = ""

    def get(self, path: str) -> str | None:
        """What latest/meta-data/PATH says; None where there is nothing (404).

        Raises:
            OSError: the service does not answer, or refuses.
        """
        for _ in range(2):
            if not self._token:
                status, self._token = self._ask(
                    "PUT", "/latest/api/token", "X-aws-ec2-metadata-token-ttl-seconds", "21600"
                )
                if status != 200:
                    self._token = ""
                    raise OSError(f"the metadata service gives no token ({status})")
            status, text = self._ask("GET", f"/latest/meta-data/{path}", "X-aws-ec2-metadata-token", self._token)
            if status == 200:
                return text
            if status == 404:
                return None
            self._token = ""  # it may have expired
        raise OSError(f"the metadata service answers {status} for {path}")

    def notice(self) -> str:
        """What EC2 is about to do with a spot machine, in a few words; empty if nothing, or if it is not heard."""
        try:
            text = self.get(SPOT)
            action = json.loads(text) if text else {}
            return f"EC2 is going to {action['action']} the machine at {action['time']}" if action else ""
        except (OSError, ValueError, KeyError, TypeError):
            return ""

    def _ask(self, method: str, path: str, header: str, value: str) -> tuple[int, str]:
        connection = HTTPConnection(self._host, timeout=SOON)
        try:
            connection.request(method, path, headers={header: value})
            answer = connection.getresponse()
            return answer.status, answer.read().decode(errors="replace")
        except HTTPException as error:
            raise OSError(f"the metadata service does not speak HTTP: {error}") from None
        finally:
            connection.close()


class Machine:
    """This machine while it is being prepared: what it tells, and what it is told."""

    def __init__(self, bucket: str, prefix: str, run: str, attempt: int) -> None:
        self.run, self.attempt = run, attempt
        self.began = _now()
        self.metadata = Metadata()
        self.instance = ""
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._folder = f"s3://{bucket}/{prefix}/runs/{run}" if prefix else f"s3://{bucket}/runs/{run}"
        self._doing = "starting"
        self._unsent: list[str] = []
        self._chunk = 0
        self._child: subprocess.Popen[str] | None = None
        self._taken = ""  # why the machine is taken away
        self._handed_over = False
        self._over = threading.Event()
        self._watch = threading.Thread(target=self._watching, daemon=True)

    def begin(self) -> None:
        """From now on there is a heartbeat, and notices are heard."""
        for left in reversed(range(TRIES)):
            with suppress(OSError):
                self.instance = self.metadata.get("instance-id") or ""
            if self.instance or not left:
                break
            time.sleep(PAUSE / 4)
        self._watch.start()

    def hand_over(self) -> None:
        """From now on the agent writes status and log, and hears notices."""
        self._over.set()
        self._watch.join()
        self._flush()
        self._handed_over = True

    def end(self, phase: str, message: str) -> None:
        """Say how it ended."""
        self._over.set()
        self._watch.join()
        self.say(f"{phase}: {message}")
        if not self._handed_over:  # else the chunk has an agent's number
            self._flush()
        if not self._post(phase, message, TRIES):
            print("the status could not be written to S3", flush=True)

    def say(self, line: str) -> None:
        """A line for the log."""
        print(line, flush=True)
        self.tail.append(line)
        self._unsent.append(line)

    def doing(self, what: str) -> None:
        """What comes next, for people.

        Raises:
            Interrupted: the machine is being taken away.
        """
        self._doing = what
        self.say(what)
        self._check()

    def call(self, *command: str, cwd: Path | None = None) -> None:
        """Run a command to its end; its lines go to the log.

        Raises:
            FailedError: it ended with another code than 0, or cannot be started.
            Interrupted: the machine is being taken away; the command was ended.
        """
        try:
            self._child = subprocess.Popen(
                command,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
            )
        except OSError as error:
            raise FailedError(f"{command[0]}: {error.strerror}") from None
        with self._child as child:
            for line in child.stdout or ():
                self.say(line.rstrip())
        self._child = None
        self._check()
        if child.returncode:
            raise FailedError(f"{self._doing}: `{' '.join(command[:4])} ...` ended with code {child.returncode}")

    def insist(self, *command: str) -> None:
        """`call`, and again where it fails, with pauses: a mirror may be away, or the machine be updating itself."""
        for is_last in _tries(TRIES):
            self._check()
            try:
                self.call(*command)
                return
            except FailedError as error:
                if is_last:
                    raise
                self.say(f"{error}; trying again")

    def fetch(self, name: str, path: Path, sha256: str | None = None) -> None:
        """Bring an object of the run's folder to a file.

        Raises:
            FailedError: it cannot be had, or is not what the order says.
        """
        for is_last in _tries(TRIES):
            done = _aws(f"{self._folder}/{name}", str(path))
            if not done:
                break
            self._check()
            if is_last:
                raise FailedError(f"{self._folder}/{name}: {done}")
        if sha256 is not None and hashlib.sha256(path.read_bytes()).hexdigest() != sha256:
            raise FailedError(f"{self._folder}/{name}: refused: it is not what order.json says")

    def take_away(self, reason: str) -> None:
        """End what is being done: `doing`, `call` or `fetch` raise Interrupted."""
        self._taken = self._taken or reason
        child = self._child
        if child and child.poll() is None:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)  # nothing that prepares is worth waiting for

    def _check(self) -> None:
        if self._taken:
            raise Interrupted(self._taken)

    def _watching(self) -> None:
        beat = float(os.environ.get("LOUPE_HEARTBEAT_SECONDS") or BEAT)
        beaten = -beat
        while not self._over.is_set():
            if reason := self.metadata.notice():
                self.take_away(reason)
            if time.monotonic() - beaten >= beat:
                beaten = time.monotonic()
                self._post("preparing", self._doing, 1)
                self._flush()
            self._over.wait(min(beat, NOTICE))

    def _post(self, phase: str, message: str, tries: int) -> bool:
        """Write status.json, a `Status` of records.py."""
        status = {
            "run": self.run,
            "attempt": self.attempt,
            "instance": self.instance,
            "phase": phase,
            "message": message,
            "time": _now(),
            "began": self.began,
            "tail": list(self.tail) if phase == "failed" else [],
        }
        data = json.dumps(status, indent=2).encode() + b"\n"
        return self._put("status.json", data, tries)

    def _flush(self) -> None:
        """Send new lines as the next chunk of the log, as mailbox.py names it."""
        count = len(self._unsent)
        if count:
            name = f"log/{self.attempt:04}-{self._chunk + 1:06}.txt"
            if self._put(name, "".join(f"{line}\n" for line in self._unsent[:count]).encode(errors="replace"), 1):
                self._chunk += 1
                del self._unsent[:count]

    def _put(self, name: str, data: bytes, tries: int) -> bool:
        return any(not _aws("-", f"{self._folder}/{name}", data) for _ in _tries(tries))


def prepare(machine: Machine, home: Path) -> tuple[dict[str, Any], Path, Path]:
    """Bring code and packages.

    Returns:
        The order; the checkout; the Python that has the packages.

    Raises:
        FailedError: it cannot be done.
        Interrupted: the machine is being taken away.
    """
    home.mkdir(parents=True, exist_ok=True)
    machine.doing("fetching the order")
    machine.fetch("order.json", home / "order.json")
    order: dict[str, Any] = json.loads((home / "order.json").read_text())
    if order["run"] != machine.run or not COMMIT.fullmatch(order["commit"]):
        raise FailedError("order.json: refused: it is not this run's, or names no commit")
    machine.doing("fetching the code")
    project = home / "project"
    shutil.rmtree(project, ignore_errors=True)
    machine.fetch("code.bundle", home / "bundle", order["bundle"])
    machine.call("git", "init", "--quiet", str(project))
    machine.call("git", "fetch", "--quiet", "--no-tags", str(home / "bundle"), "HEAD", cwd=project)
    machine.call("git", "checkout", "--quiet", "--detach", order["commit"], cwd=project)
    if order["patch"]:
        machine.fetch("changes.patch", home / "patch", order["patch"])
        machine.call("git", "apply", "--index", "--whitespace=nowarn", str(home / "patch"), cwd=project)
    return order, project, packages(machine, home, project / "requirements.lock")


def packages(machine: Machine, home: Path, lock: Path) -> Path:
    """The Python of a virtual environment with what a lock file pins; made if it is not there.

    Raises:
        FailedError: it cannot be made.
        Interrupted: the machine is being taken away.
    """
    folder = home / f"venv-{hashlib.sha256(lock.read_bytes()).hexdigest()[:12]}"
    python = folder / "bin" / "python"
    if folder.is_dir():
        machine.say(f"packages: those in {folder}")
        return python
    machine.doing("installing packages")
    try:
        try:
            machine.call(sys.executable, "-m", "venv", str(folder))
        except FailedError:  # Ubuntu's Python comes without the part that puts pip into a new environment
            shutil.rmtree(folder, ignore_errors=True)
            wait = ("-o", "DPkg::Lock::Timeout=300")  # a fresh machine may be updating itself
            quiet = ("env", "DEBIAN_FRONTEND=noninteractive", "apt-get", *wait)
            machine.insist(*quiet, "update", "--quiet")
            machine.insist(*quiet, "install", "--yes", "python3-venv")
            machine.call(sys.executable, "-m", "venv", str(folder))
        install = ("-m", "pip", "install", "--no-input", "--disable-pip-version-check", "--progress-bar=off")
        machine.insist(str(python), *install, "--retries=10", "-r", str(lock))
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)  # a half would be taken for whole
        raise
    return python


def work(machine: Machine, order: Mapping[str, Any], project: Path, python: Path) -> int:
    """Let the agent work from the checkout; its exit code. Of one that fell its last lines are told."""
    environment = {
        **os.environ,
        **order["environment"],
        "PATH": f"{python.parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(project / "src"),
        "PYTHONUNBUFFERED": "1",
        "DVC_NO_ANALYTICS": "1",
        "DO_NOT_TRACK": "1",
    }
    machine.hand_over()
    command = [str(python), "-m", "loupe.cloud.agent", *sys.argv[1:]]
    command += ["--instance", machine.instance, "--began", machine.began]
    with subprocess.Popen(
        command,
        cwd=project,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
    ) as agent:
        signal.signal(signal.SIGTERM, lambda number, frame: agent.send_signal(number))
        for line in agent.stdout or ():
            print(line, end="", flush=True)
            machine.tail.append(line.rstrip())
    if agent.returncode:
        machine.end("failed", f"the agent ended with code {agent.returncode}")
    return agent.returncode


def arguments(description: str) -> argparse.ArgumentParser:
    """What bootstrap and agent are told: whose machine this is."""
    parser = argparse.ArgumentParser(description=description)
    for name in ("--bucket", "--prefix", "--run"):
        parser.add_argument(name, required=True)
    parser.add_argument("--attempt", required=True, type=int)
    return parser


def main() -> int:
    """Prepare the machine and let the agent work; 0 if somebody has been told how it ended, and it was no failure."""
    given = arguments("What a rented machine runs first.").parse_args()
    machine = Machine(given.bucket, given.prefix, given.run, given.attempt)
    home = Path(os.environ.get("LOUPE_HOME") or "/opt/loupe")

    def told(number: int, frame: FrameType | None) -> None:
        machine.take_away("the machine was told to end (SIGTERM)")

    signal.signal(signal.SIGTERM, told)
    machine.begin()
    try:
        order, project, python = prepare(machine, home)
    except Interrupted as reason:
        machine.end("interrupted", str(reason))
        return 0
    except FailedError as error:
        machine.end("failed", str(error))
        return 1
    except Exception as error:  # whatever it is, the launcher must learn of it
        machine.end("failed", f"{type(error).__name__}: {error}")
        return 1
    return work(machine, order, project, python)


def _tries(count: int) -> Iterator[bool]:
    """So many tries, with longer and longer pauses between them; whether it is the last."""
    for number in range(count):
        if number:
            time.sleep(PAUSE * 2 ** (number - 1))
        yield number == count - 1


def _aws(source: str, target: str, data: bytes | None = None) -> str:
    """Copy by the AWS CLI, from `data` where the source is `-`; what it complains about, empty if all went well."""
    command = ["aws", "s3", "cp", "--only-show-errors", source, target]
    patience = LONG if data is None else SHORT
    try:
        done = subprocess.run(command, input=data, capture_output=True, timeout=patience, check=False)
    except (OSError, subprocess.TimeoutExpired) as error:
        return str(error)
    complaint = (done.stderr or done.stdout).decode(errors="replace").strip()
    return (complaint or f"aws ended with code {done.returncode}") if done.returncode else ""


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


if __name__ == "__main__":
    sys.exit(main())
