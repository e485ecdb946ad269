"""What works on a rented machine: `python -m loupe.cloud.agent`, started by bootstrap.py in the checkout.

    check the tree -> inputs from S3, champion by DVC -> check their MD5 -> checkpoints -> dvc repro --single-item
                                                                            -> dvc push -> result/ -> result.json

Beside it go a heartbeat (status.json, and the log's new lines), a look for a spot notice every five seconds, and
checkpoints to S3 as soon as they are written. A notice, SIGTERM and the machine's own deadline end the stage by
SIGTERM: it writes a checkpoint, which goes to S3, and another machine goes on from there. When S3 does not answer, the
stage works on; what must get there in the end is tried for some minutes.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TypeVar

from loupe.cloud.aws import CredentialsError, UnreachableError
from loupe.cloud.bootstrap import BEAT, NOTICE, Interrupted, Metadata, arguments
from loupe.cloud.checkpoints import Checkpoints
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import LOCK, check_remote, fetch_inputs, git, key_of, needs_of
from loupe.cloud.records import Order, Phase, Result, Status, now
from loupe.errors import InputError

GRACE = 90.0  # seconds from SIGTERM on; EC2 leaves two minutes, and a checkpoint must be uploaded, too
PAUSES = (2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0)  # seconds between tries of what must get to S3
LOOK = 0.1  # seconds until it is looked again whether a command has ended
TAIL = 20  # lines of a failure
LINE = 2000  # characters; longer ones are cut
BACKLOG = 20_000  # lines kept while S3 does not answer
RUNS = "runs"
REMOTE = "ordered"  # DVC's name for the order's remote

T = TypeVar("T")


class StageError(InputError):
    """The stage itself failed: the message says how it ended, the log why."""


class Log:
    """Lines for people: printed at once, and sent to S3 with the heartbeat."""

    def __init__(self, mailbox: Mailbox, attempt: int) -> None:
        self.tail: deque[str] = deque(maxlen=TAIL)
        self._mailbox, self._attempt = mailbox, attempt
        self._lines: deque[str] = deque(maxlen=BACKLOG)
        self._sending: list[str] = []  # a chunk whose arrival is unknown: it is sent as it was
        self._lock = threading.Lock()

    def say(self, line: str) -> None:
        """Add a line."""
        line = line[:LINE]
        print(line, flush=True)
        with self._lock:
            self.tail.append(line)
            self._lines.append(line)

    def send(self) -> None:
        """Bring to S3 what is new. One thread at a time."""
        while True:
            if not self._sending:
                with self._lock:
                    self._sending = list(self._lines)
                    self._lines.clear()
            if not self._sending:
                return
            self._mailbox.append_log(self._attempt, self._sending)
            self._sending = []


class Agent:
    """One machine's work on an order.

    Args:
        mailbox: of the run.
        attempt: the number of the machine.
        instance: its id.
        began: when its work began.
        project: the checkout.
    """

    def __init__(self, mailbox: Mailbox, attempt: int, instance: str, began: str, project: Path) -> None:
        self._mailbox, self._attempt, self._instance, self._began = mailbox, attempt, instance, began
        self._project = project
        self.log = Log(mailbox, attempt)
        self._phase: Phase = "preparing"
        self._message = "starting"
        self._taken = ""  # why the machine is taken away
        self._over = threading.Event()
        self._beat = float(os.environ.get("LOUPE_HEARTBEAT_SECONDS") or BEAT)
        self._stop_at = float(os.environ.get("LOUPE_STOP_AT") or 0)  # seconds since 1970; user-data says it
        self._metadata = Metadata()

    def take_away(self, reason: str) -> None:
        """End the work as soon as it can go on elsewhere; fit for a signal handler."""
        self._taken = self._taken or reason

    def run(self) -> None:
        """Work to the end, and say how it ended.

        Raises:
            InputError: that could not be said, for S3 does not answer.
        """
        threads = [
            threading.Thread(target=self._every, args=(self._beat, self._heartbeat), daemon=True),
            threading.Thread(target=self._every, args=(min(self._beat, NOTICE), self._listen), daemon=True),
        ]
        for thread in threads:
            thread.start()
        phase: Phase
        try:
            phase, message = "done", self._work()
        except Interrupted as reason:
            phase, message = "interrupted", str(reason)
        except Exception as error:  # whatever it is, the launcher must learn of it
            phase = "failed"
            message = str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {error}"
        self._over.set()
        for thread in threads:
            thread.join()  # an older status must not come after the last
        self._phase, self._message = phase, message
        self.log.say(f"{phase}: {message}")
        self._insist("the log", self.log.send)
        self._insist("the status", self._post)

    def _work(self) -> str:
        order = self._insist("the order", self._mailbox.read_order)
        machine = describe_machine()
        self.log.say(f"this machine: {machine.words}")
        self._doing("checking the code")
        self._check_tree(order)
        environment = {**os.environ, **order.environment}
        if machine.gpus > 1 and environment.get("LOUPE_DEVICE", "cuda") == "cuda":
            environment.setdefault("LOUPE_DEVICES", str(machine.gpus))
        use_remote(self._project, order.remote)
        self._insist("DVC's remote", lambda: check_remote(self._project))
        self._doing("fetching the inputs")
        self._insist("inputs", lambda: fetch_inputs(self._project, self._mailbox, order, self.log.say, self._check))
        if order.tracked:
            self._doing(f"fetching {', '.join(order.tracked)}")
            self._dvc(environment, "pull", *order.tracked)
        self._check_inputs(order)
        checkpoints = Checkpoints(self._mailbox, order.key, self._project / RUNS)
        for name in self._insist("checkpoints", checkpoints.fetch):
            self.log.say(f"{name}: from S3")
        self._check()
        self._phase, self._message = "working", f"{order.stage} on {machine.words}"
        self._stage(order, environment, checkpoints, machine.words)
        self._message = "sending the results"
        self._deliver(order, environment)
        return f"{order.stage} is computed"

    def _stage(self, order: Order, environment: Mapping[str, str], checkpoints: Checkpoints, machine: str) -> None:
        """Run the stage while its checkpoints go to S3.

        Raises:
            StageError: it failed.
            Interrupted: it was ended; its checkpoint is in S3.
        """
        ended = threading.Event()

        def mirror() -> None:
            while not ended.wait(min(self._beat, 2.0)):
                try:
                    checkpoints.send()
                except Exception as error:  # the stage works on meanwhile, and without this thread in vain
                    self.log.say(f"checkpoints: {error}; it is tried again")

        def shown(line: str) -> None:
            self.log.say(line)
            self._message = f"{order.stage} on {machine}: {line}"[:LINE]

        mirroring = threading.Thread(target=mirror)
        mirroring.start()
        try:
            code = self._command(["dvc", "repro", "--single-item", order.stage], environment, shown)
        finally:
            ended.set()
            mirroring.join()
        self._insist("checkpoints", checkpoints.send)
        if code == 0:
            return
        if self._taken:
            raise Interrupted(f"{self._taken}; {checkpoints.newest or 'no new checkpoint'} is in S3")
        raise StageError(f"{order.stage} ended with code {code}: {self._reason()}")

    def _deliver(self, order: Order, environment: Mapping[str, str]) -> None:
        """Bring what the stage made to where the launcher finds it; the order of things counts."""
        self._dvc(environment, "push", order.stage, whatever=True)
        needs = needs_of(self._project, order.stage, current=False)
        files = {}
        for name in (LOCK, *needs.loose):
            files[name] = self._insist(name, partial(self._mailbox.put_file, f"result/{name}", self._project / name))
        result = Result(self._mailbox.run, self._attempt, order.commit, files, now())
        self._insist("the result", lambda: self._mailbox.write_result(result))

    def _check_tree(self, order: Order) -> None:
        tree = git(self._project, "write-tree").strip()
        if key_of(tree, order.inputs) != order.key:
            raise InputError("the checkout is not what was shipped; launch the run again")

    def _check_inputs(self, order: Order) -> None:
        """Refuse what DVC here would not take for the inputs there: the result could not be used."""
        self._doing("checking the inputs")
        found = needs_of(self._project, order.stage, current=False).inputs
        for path, md5 in order.inputs.items():
            if found.get(path) != md5:
                raise InputError(
                    f"{path}: its MD5 is {found.get(path)}, and {md5} was ordered; launch the run again, which "
                    "sends it anew"
                )

    def _dvc(self, environment: Mapping[str, str], *arguments: str, whatever: bool = False) -> None:
        """Run a transfer by DVC, and again if it fails; until the machine is taken away, or `whatever` happens."""
        for wait in PAUSES:
            code = self._command(["dvc", *arguments], environment, self.log.say, whatever)
            if not code:
                return
            if not whatever:
                self._check()
            self.log.say(f"`dvc {' '.join(arguments)}` ended with code {code}; once more in {wait:.0f} s")
            self._pause(wait, whatever)
        raise InputError(f"`dvc {' '.join(arguments)}` ended with code {code}: {self._reason()}")

    def _command(
        self,
        arguments: list[str],
        environment: Mapping[str, str],
        say: Callable[[str], object],
        whatever: bool = False,
    ) -> int:
        """Run a Python module to its end, or end it if the machine is taken away, unless `whatever`; its exit code.

        It has ended when nobody holds its output any more: of a group that gets SIGTERM DVC falls first, and the
        trainer, which writes its checkpoint, last.
        """
        process = subprocess.Popen(
            [sys.executable, "-m", *arguments],
            cwd=self._project,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,  # a progress bar's carriage return ends a line, too
            errors="replace",
            start_new_session=True,
        )

        def read() -> None:
            for line in process.stdout or ():
                if line.strip():
                    say(line.rstrip())

        reader = threading.Thread(target=read, daemon=True)
        reader.start()
        kill_at: float | None = None
        try:
            while reader.is_alive():
                reader.join(LOOK)
                taken = self._taken if not whatever else ""
                if kill_at is None and (taken or process.poll() is not None):
                    if taken:
                        self.log.say(f"{taken}; ending `{' '.join(arguments)}`")
                    kill_at = time.monotonic() + GRACE
                    _signal(process.pid, signal.SIGTERM)
                if kill_at is not None and time.monotonic() >= kill_at:
                    break
        finally:
            _signal(process.pid, signal.SIGKILL)  # what is left of the group
            reader.join()
            process.wait()
            if process.stdout:
                process.stdout.close()
        return process.returncode

    def _insist(self, what: str, act: Callable[[], T]) -> T:
        """Do something that needs S3, and again for some minutes while it does not answer."""
        for wait in PAUSES:
            try:
                return act()
            except (UnreachableError, CredentialsError) as error:
                print(f"{what}: {error}; once more in {wait:.0f} s", flush=True)
                time.sleep(wait)
        return act()

    def _pause(self, seconds: float, whatever: bool) -> None:
        until = time.monotonic() + seconds
        while time.monotonic() < until:
            time.sleep(LOOK)
            if not whatever:
                self._check()

    def _check(self) -> None:
        if self._taken:
            raise Interrupted(self._taken)

    def _doing(self, what: str) -> None:
        self._message = what
        self.log.say(what)
        self._check()

    def _reason(self) -> str:
        """The first of the last lines that names an error, else the last line."""
        lines = list(self.log.tail)
        errors = [line for line in lines if line.lower().startswith("error")]
        return (errors or lines[-1:] or ["it said nothing"])[0]

    def _every(self, seconds: float, act: Callable[[], object]) -> None:
        while not self._over.is_set():
            try:
                act()
            except Exception as error:  # it is tried again; without this thread the machine would seem lost
                print(error, flush=True)
            self._over.wait(seconds)

    def _heartbeat(self) -> None:
        self._post()
        self.log.send()

    def _listen(self) -> None:
        if reason := self._metadata.notice():
            self.take_away(reason)
        if self._stop_at and time.time() >= self._stop_at:
            self.take_away("the deadline of the machine is near")

    def _post(self) -> None:
        tail = tuple(self.log.tail) if self._phase == "failed" else ()
        status = Status(
            self._mailbox.run, self._attempt, self._instance, self._phase, self._message, now(), self._began, tail
        )
        self._mailbox.write_status(status)


@dataclass(frozen=True)
class Hardware:
    """gpus: how many there are. words: what the machine computes with, for people."""

    gpus: int
    words: str


def describe_machine() -> Hardware:
    """The GPUs that NVIDIA's driver knows, else the processors."""
    if shutil.which("nvidia-smi"):
        done = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=60, check=False)
        names = re.findall(r"^GPU \d+: (.+?)(?: \(UUID.*)?$", done.stdout, re.MULTILINE)
        if done.returncode == 0 and names:
            return Hardware(len(names), f"{len(names)} x {names[0]}" if len(names) > 1 else names[0])
    return Hardware(0, f"{os.cpu_count()} CPU cores, no GPU")


def use_remote(project: Path, remote: Mapping[str, str]) -> None:
    """Make an order's remote DVC's default here; rights to use it are the machine's."""
    from dvc.config import Config

    with Config(str(project / ".dvc")).edit("local") as config:
        endpoint = {"endpointurl": remote["endpoint"]} if remote["endpoint"] else {}
        config["remote"][REMOTE] = {"url": remote["url"], **endpoint}
        config["core"]["remote"] = REMOTE


def main() -> None:
    """Work on an order, as bootstrap.py asks for."""
    parser = arguments("What works on a rented machine.")
    parser.add_argument("--instance", required=True)
    parser.add_argument("--began", required=True)
    given = parser.parse_args()
    mailbox = Mailbox(given.bucket, given.prefix, given.run)
    agent = Agent(mailbox, given.attempt, given.instance, given.began, Path.cwd())

    def told(number: int, frame: FrameType | None) -> None:
        agent.take_away("the machine was told to end (SIGTERM)")

    signal.signal(signal.SIGTERM, told)
    agent.run()


def _signal(group: int, number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(group, number)


if __name__ == "__main__":
    main()
