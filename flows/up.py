"""All that people need, on this machine: the Prefect server, a worker, the deployments, TensorBoard, the reports.

    loupe flows up                              until Ctrl-C
    loupe flows up --once-ready COMMAND...      until COMMAND has ended, with its exit code
    loupe flows up --no-server                  the same beside the server that PREFECT_API_URL names

All of it listens on loopback only and keeps its things in .cache/flows. A service that dies is started again, each time
after a longer pause. Each runs under flows/_supervise.py, so that all of them end with this process, even by `kill -9`.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock, Timeout

import flows
from flows.deploy import POOL
from flows.settings import (
    LOOPBACK,
    PORT,
    REPORTS_PORT,
    TENSORBOARD_PORT,
    Addresses,
    addresses,
    answers,
    environment,
    folder_of,
    project_here,
    up_file,
)
from loupe.cli import exit_as_loupe
from loupe.errors import InputError
from loupe.s3 import SCHEME

SUPERVISOR = Path(flows.__file__).with_name("_supervise.py")
READY_SECONDS = 180.0  # a fresh environment compiles its bytecode, and a server makes its database and its pages
GRACE = 60  # seconds for a run to end what it started, and to say so
PAUSES = (1.0, 2.0, 5.0, 15.0, 60.0)  # seconds before a service is started again
STEADY = 300.0  # seconds of running that make up for earlier deaths
LOOK = 0.5  # seconds between two looks at the services
LOG_BYTES = 10_000_000  # of a log, at most, when a service is started
PR_SET_CHILD_SUBREAPER = 36  # <linux/prctl.h>

Say = Callable[[str], object]


class Interrupted(Exception):  # noqa: N818  # no error: how people end it
    """Ctrl-C, SIGTERM or the end of the terminal."""


class Ports(NamedTuple):
    """Where the services listen."""

    server: int
    tensorboard: int
    reports: int


@dataclass
class Service:
    """A command that runs until it is stopped."""

    name: str
    command: list[str]
    environment: dict[str, str]
    project: Path  # its working directory
    ready: Callable[[Service], bool]
    process: subprocess.Popen[bytes] | None = None
    logged: int = 0  # bytes of the log when it was started
    failures: int = 0
    since: float = 0.0  # when it was started
    again: float = 0.0  # when it is to be started again

    @property
    def log(self) -> Path:
        """The file that holds what it printed."""
        return folder_of(self.project) / "logs" / f"{self.name}.log"

    def printed(self) -> str:
        """What it has printed since it was started."""
        with self.log.open("rb") as log:
            log.seek(self.logged)
            return log.read().decode(errors="replace")

    def start(self) -> None:
        """Start it. A log that has grown long is put aside first."""
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES:
            self.log.replace(self.log.with_suffix(".old.log"))
        with self.log.open("ab") as log:
            self.logged = log.tell()
            self.process = subprocess.Popen(
                [sys.executable, "-I", "-S", str(SUPERVISOR), "--", *self.command],  # see child.py
                cwd=self.project,
                env=self.environment,
                stdin=subprocess.PIPE,  # no other process holds its other end: the service ends with this one
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C is for us, who say in which order they end
            )
        self.since = time.monotonic()

    def await_ready(self) -> None:
        """Wait until it answers.

        Raises:
            InputError: it has ended, or does not answer.
        """
        deadline = time.monotonic() + READY_SECONDS
        while self.process and not self.ready(self):
            code = self.process.poll()
            if code is not None or time.monotonic() > deadline:
                state = "does not answer" if code is None else f"has ended with code {code}"
                end = "\n".join(self.printed().splitlines()[-15:])
                raise InputError(f"the service {self.name} {state}; its log {self.log} ends with\n{end}")
            time.sleep(LOOK / 2)

    def watch(self, say: Say) -> None:
        """Start it again when it has died: not at once, and each time later."""
        if self.process is None:
            if time.monotonic() >= self.again:
                self.start()
        elif (code := self.process.poll()) is not None:
            self._forget()
            self.failures = 0 if time.monotonic() - self.since > STEADY else self.failures
            pause = PAUSES[min(self.failures, len(PAUSES) - 1)]
            self.failures += 1
            self.again = time.monotonic() + pause
            say(f"{self.name} has ended with code {code}, and is started again in {pause:.0f} s; its log: {self.log}")

    def ask_to_end(self) -> None:
        """Send SIGTERM; its supervisor sees to it that nothing of it is left."""
        if self.process:
            self.process.terminate()

    def end(self) -> None:
        """Wait until it has ended; kill it when that takes too long, or at a second Ctrl-C."""
        if not self.process:
            return
        try:
            self.process.wait(GRACE + 10)
        except (subprocess.TimeoutExpired, Interrupted):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
        self._forget()

    def _forget(self) -> None:
        if self.process and self.process.stdin:
            self.process.stdin.close()
        self.process = None


def up(
    project: Path, ports: Ports, own_server: bool = True, once_ready: list[str] | None = None, say: Say = print
) -> int:
    """Start everything, follow it, and end it.

    Args:
        project: its root folder.
        ports: where to listen.
        own_server: start a Prefect server; else use the one that PREFECT_API_URL names.
        once_ready: a command to run when all is ready; all ends with it. Without one, all goes on until interrupted.
        say: is told what happens.

    Returns:
        The exit code of `once_ready`, else 0.

    Raises:
        InputError: a port is taken, or a service does not start.
    """
    (folder_of(project) / "logs").mkdir(parents=True, exist_ok=True)
    try:
        lock = FileLock(folder_of(project) / "up.lock").acquire(timeout=0)
    except Timeout:
        return _there_already(project, once_ready or [], say)
    with lock, _interruptible():
        services, where = _plan(project, ports, own_server)
        _adopt_orphans()
        try:
            return _run(project, services, where, once_ready or [], say)
        except Interrupted:
            return 0
        finally:
            say("ending; what is under way can be started again, and goes on at its last checkpoint")
            up_file(project).unlink(missing_ok=True)
            _end(services)


def _there_already(project: Path, once_ready: list[str], say: Say) -> int:
    """Say where all of it answers that was started earlier; run the command beside it."""
    where = addresses(project)
    if where is None:
        raise InputError("loupe flows up is being started or ended right now; try again in a moment")
    say("it runs already")
    _show(where, say)
    return subprocess.call(once_ready, env=environment(project, where.api)) if once_ready else 0


def _plan(project: Path, ports: Ports, own_server: bool) -> tuple[list[Service], Addresses]:
    """The services in the order of their start, and where they answer."""
    named = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    local = f"http://{LOOPBACK}:{ports.server}"
    if not own_server and not named:
        raise InputError("--no-server: set PREFECT_API_URL to the address of the server, which ends with /api")
    if own_server and named not in ("", f"{local}/api"):
        raise InputError(f"PREFECT_API_URL is {named}; add --no-server to use that server, or unset it")
    place = os.environ.get("LOUPE_REPORTS") or str(folder_of(project) / "reports")
    served = not place.startswith(SCHEME)
    published = os.environ.get("LOUPE_REPORTS_URL") or f"http://{LOOPBACK}:{ports.reports}"
    where = Addresses(
        ui=(named or f"{local}/api").removesuffix("/api"),
        api=named or f"{local}/api",
        reports=published if served else os.environ.get("LOUPE_REPORTS_URL") or place,
        tensorboard=f"http://{LOOPBACK}:{ports.tensorboard}",
    )
    taken = {"--tensorboard-port": ports.tensorboard}
    taken |= {"--port": ports.server} if own_server else {}
    taken |= {"--reports-port": ports.reports} if served else {}
    for option, port in taken.items():
        _check_free(port, option)
    shared = environment(project, where.api) | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}",
        "PYTHONUNBUFFERED": "1",  # logs are read while the services run
    }
    python = [sys.executable, "-m"]
    server = Service(
        "server",
        [*python, "prefect", "server", "start"],
        shared
        | {
            "PREFECT_SERVER_API_HOST": LOOPBACK,
            "PREFECT_SERVER_API_PORT": str(ports.server),
            "PREFECT_UI_URL": local,  # in messages to people
            "PREFECT_SERVER_UI_STATIC_DIRECTORY": str(folder_of(project) / "prefect" / "ui"),
            "PREFECT_SERVER_UI_SHOW_PROMOTIONAL_CONTENT": "false",
            "PREFECT_SERVER_UI_V2_ENABLED": "false",  # the newer one asks a server of Amplitude at each start
            # Leases in memory are gone when the server starts again, and Prefect ends runs that have lost theirs.
            "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",
            "PREFECT_SERVER_SERVICES_DB_VACUUM_ENABLED": "events,flow_runs",  # a run a minute is half a million a year
        },
        project,
        lambda _: answers(f"{where.api}/health"),
    )
    start = ["prefect", "worker", "start", "--pool", POOL, "--type", "process", "--install-policy", "never"]
    worker = Service(
        "worker",
        [*python, *start, "--name", socket.gethostname()],
        shared
        | {
            "LOUPE_PROJECT": str(project),  # where its runs work: prefect.yaml
            **({"LOUPE_REPORTS_URL": published} if served else {}),
        },
        project,
        lambda service: "started!" in service.printed(),
    )
    tensorboard = Service(
        "tensorboard",
        [*python, "tensorboard.main", "--logdir", "runs", "--host", LOOPBACK, "--port", str(ports.tensorboard)],
        shared,
        project,
        lambda _: answers(where.tensorboard),
    )
    reports = Service(
        "reports",
        [*python, "flows.serve", place, "--port", str(ports.reports)],
        shared,
        project,
        lambda _: answers(f"http://{LOOPBACK}:{ports.reports}"),
    )
    return [*([server] if own_server else []), worker, tensorboard, *([reports] if served else [])], where


def _check_free(port: int, option: str) -> None:
    """Raises InputError when something else listens on a port."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # as servers do: the last one's end is no obstacle
        try:
            probe.bind((LOOPBACK, port))
        except OSError as error:
            raise InputError(
                f"port {port}: {error.strerror}; end what listens there, or choose another: {option}"
            ) from None


def _run(project: Path, services: list[Service], where: Addresses, once_ready: list[str], say: Say) -> int:
    """Start the services and follow them."""
    say("starting; the first time takes a minute")
    (project / "runs").mkdir(exist_ok=True)
    for service in services:
        if service.name == "worker":  # it needs the server, and the work pool as we make it
            _deploy(service, say)
        service.start()
        if service.name == "server":
            service.await_ready()
    for service in services:
        service.await_ready()
    part = up_file(project).with_suffix(".part")
    part.write_text(json.dumps(asdict(where), indent=2) + "\n")
    part.replace(up_file(project))
    _show(where, say)
    if not once_ready:
        say("Ctrl-C ends all of it")
    command = subprocess.Popen(once_ready, env=environment(project, where.api)) if once_ready else None
    try:
        while command is None or command.poll() is None:
            for service in services:
                service.watch(say)
            _bury(services)
            time.sleep(LOOK)
        return command.returncode
    finally:
        if command and command.poll() is None:
            command.terminate()
            command.wait()


def _deploy(worker: Service, say: Say) -> None:
    """Bring the server in line with the project, in a process of its own, for that imports Prefect."""
    done = subprocess.run(
        [sys.executable, "-m", "flows.deploy"],
        cwd=worker.project,
        env=worker.environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        raise InputError(f"the flows could not be deployed:\n{done.stdout.strip()}")
    for line in done.stdout.splitlines():
        say(line)


def _show(where: Addresses, say: Say) -> None:
    """Say where everything answers."""
    say(f"  Prefect      {where.ui}")
    say(f"  reports      {where.reports}")
    say(f"  TensorBoard  {where.tensorboard}")
    say(f"for commands in another terminal: export PREFECT_API_URL={where.api}")


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Signals that are to end this process raise Interrupted instead, wherever it is."""

    def interrupt(number: int, frame: object) -> None:
        raise Interrupted

    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = {number: signal.signal(number, interrupt) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end(services: list[Service]) -> None:
    """The runs first, then their worker, which would kill them; the server is there to be told. Then all others."""
    known = {service.process.pid for service in services if service.process}
    workers = [service for service in services if service.name == "worker" and service.process]
    supervisors = {service.process.pid for service in workers if service.process}
    _terminate(lambda: _children(_children(supervisors)))
    for together in (workers, [service for service in services if service not in workers]):
        for service in together:
            service.ask_to_end()
        for service in together:
            service.end()
        _terminate(lambda: _children({os.getpid()}) - known)


def _terminate(find: Callable[[], set[int]]) -> None:
    """SIGTERM to all processes that are found, and SIGKILL to those that are still found GRACE seconds later."""
    for sent, seconds in ((signal.SIGTERM, GRACE), (signal.SIGKILL, 5)):
        deadline = time.monotonic() + seconds
        asked: set[int] = set()
        with contextlib.suppress(Interrupted):  # a second Ctrl-C: no more patience
            while (left := find()) and time.monotonic() < deadline:
                for one in left - asked:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(one, sent)
                asked |= left
                time.sleep(LOOK / 5)


def _adopt_orphans() -> None:
    """Runs whose worker has died become children of this process, so that it can end them; on Linux."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1)


def _bury(services: list[Service]) -> None:
    """Take note of an orphan that has ended, for else it stays as a zombie."""
    known = {service.process.pid for service in services if service.process}
    with contextlib.suppress(ChildProcessError):
        ended = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        if ended and ended.si_pid not in known:
            os.waitpid(ended.si_pid, os.WNOHANG)


def _children(parents: set[int]) -> set[int]:
    """The living children of some processes."""
    rows: list[list[str]] = []
    if sys.platform == "linux":
        for stat in Path("/proc").glob("[0-9]*/stat"):
            with contextlib.suppress(OSError):  # it has gone meanwhile
                state, parent = stat.read_text(errors="replace").rpartition(")")[2].split()[:2]
                rows.append([stat.parent.name, parent, state])
    else:
        with subprocess.Popen(["ps", "-A", "-o", "pid=,ppid=,stat="], stdout=subprocess.PIPE, text=True) as listing:
            found = [line.split() for line in listing.stdout or []]
            rows = [row for row in found if int(row[0]) != listing.pid]
    return {int(pid) for pid, parent, state in rows if int(parent) in parents and not state.startswith("Z")}


def main() -> int:
    """Read the command line, and go on until interrupted."""
    parser = argparse.ArgumentParser(
        prog="loupe flows up",
        description="Start the Prefect server, a worker, the deployments, TensorBoard and the reports, on loopback.",
    )
    parser.add_argument("--port", type=int, default=PORT, help="of the Prefect server (%(default)s)")
    parser.add_argument(
        "--tensorboard-port", type=int, default=TENSORBOARD_PORT, metavar="PORT", help="of TensorBoard (%(default)s)"
    )
    parser.add_argument(
        "--reports-port", type=int, default=REPORTS_PORT, metavar="PORT", help="of the reports (%(default)s)"
    )
    parser.add_argument("--no-server", action="store_true", help="use the server that PREFECT_API_URL names")
    parser.add_argument(
        "--once-ready",
        nargs=argparse.REMAINDER,
        default=[],
        metavar="COMMAND",
        help="run this when all is ready, and end all with it; the last option",
    )
    arguments = parser.parse_args()
    ports = Ports(arguments.port, arguments.tensorboard_port, arguments.reports_port)

    def say(line: str) -> None:
        print(line, flush=True)

    try:
        return up(project_here(), ports, not arguments.no_server, arguments.once_ready, say)
    except Interrupted:  # a further Ctrl-C: what has not ended yet ends with this process
        return 128 + signal.SIGINT


if __name__ == "__main__":
    exit_as_loupe(main)
