"""What runs have left behind, removed: `python -m flows.reap --days 14`, or its deployment every hour.

A run that ends in an orderly way leaves nothing. After a power cut, or `kill -9` of all at once, it may leave a
worktree and processes. They stay while the Prefect flow run is not in a final state: it may run, wait for a person, or
be tried again. Checkpoints in runs/, branches and DVC's cache are never touched. Rented machines are ended that are
past their deadline, or that nobody watches any more.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any
from uuid import UUID

import psutil
import typer
from prefect import flow, get_run_logger
from prefect.artifacts import create_markdown_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.objects import State
from prefect.exceptions import ObjectNotFound
from prefect.states import Completed
from pydantic import Field
from tabulate import tabulate

from flows._supervise import UNKILLABLE
from flows.child import grace, run
from flows.evaluate import WORK as EVALUATIONS
from flows.settings import FOLDER
from flows.workspace import Owner, locate, owner_file, read_owner
from loupe.cli_ec2 import rented_here
from loupe.cloud.records import RUN_NAME
from loupe.errors import InputError

STALE = timedelta(days=1)  # an evaluation takes hours at most
SETTLED = timedelta(minutes=2)  # what has just ended may still be tidying up, what has just begun has no owner yet


@dataclass(frozen=True)
class Removed:
    """One thing that is gone: what it was, its name, and why."""

    what: str
    name: str
    why: str


@flow(name="reap")
def reap(
    days: Annotated[int, Field(ge=0)] = 14,
) -> State[Any]:
    """Remove worktrees, processes and rented machines of runs that are over, and old reports and evaluations.

    Checkpoints and branches stay.

    Args:
        days: How long published reports are kept on this machine.
    """
    project, now = Path.cwd().resolve(), datetime.now(UTC)
    removed: list[Removed] = []
    failures: list[str] = []
    processes = running(project, now)
    for name in sorted({*worktrees(project), *processes}):
        owner = read_owner(project, name)
        why = why_over(owner, flow_state(owner), last_touched(project, name), now)
        if not why:
            continue
        try:
            if ended := end(processes.get(name, ())):
                removed.append(Removed("processes", name, f"{', '.join(ended)}: {why}"))
            if name in worktrees(project):
                locate(project, name, get_run_logger().info).remove()
                removed.append(Removed("worktree", name, why))
        except (InputError, OSError) as error:
            failures.append(f"{name}: {error}")
    try:
        removed += machines(project)
    except InputError as error:
        failures.append(str(error))
    for what, folder, age in (
        ("report", project / FOLDER / "reports", timedelta(days=days)),
        ("evaluation", project / EVALUATIONS, STALE),
    ):
        for left in old_folders(folder, now - age):
            try:
                shutil.rmtree(left)
                removed.append(Removed(what, left.name, f"older than {age.days} days"))
            except OSError as error:
                failures.append(f"{left}: {error}")
    return told(removed, failures)


def machines(project: Path) -> list[Removed]:
    """End rented machines that nobody needs; see `loupe ec2 reap`. All is well where no account is set up.

    If machines were ever rented from here, it must not be that the account cannot be asked.

    Raises:
        InputError: AWS does not answer, or refuses.
    """
    command = [sys.executable, "-m", "loupe.cli", "ec2", "reap", "--json"]
    command += [] if rented_here(project).is_dir() else ["--if-set-up"]
    found = json.loads(run(command, cwd=project, say=get_run_logger().info, ok=(0, 1), echo=False))
    for disk in found["left"]:
        get_run_logger().warning("left at EC2: %s %s, %s GiB; delete it", disk["kind"], disk["id"], disk["gib"])
    if failed := [f"{one['id']}: {one['why']}" for one in found["machines"] if one["outcome"] == "failed"]:
        raise InputError("machines could not be ended: " + "; ".join(failed))
    ended = [one for one in found["machines"] if one["outcome"] == "ended"]
    return [Removed("machine", one["run"] or one["id"], f"{one['id']}: {one['why']}") for one in ended]


def told(removed: Sequence[Removed], failures: Sequence[str]) -> State[Any]:
    """Say what was done in the log, in the artifact `reap`, and in the state that the flow ends in.

    Raises:
        InputError: something could not be removed.
    """
    for one in removed:
        get_run_logger().info("%s of %s: removed; %s", one.what, one.name, one.why)
    rows = [(one.what, f"`{one.name}`", one.why) for one in removed]
    table = tabulate(rows, ["removed", "of", "why"], tablefmt="github") if rows else "There was nothing to remove."
    create_markdown_artifact(table, key="reap", description="What runs had left behind")
    if failures:
        raise InputError("not all could be removed: " + "; ".join(failures))
    counts = Counter(one.what for one in removed)
    return Completed(message=", ".join(f"{what}: {count}" for what, count in counts.items()) or "nothing to remove")


def worktrees(project: Path) -> set[str]:
    """The names of all runs that have a worktree here, or a record of who uses it."""
    folders = (project / FOLDER / "worktrees").glob("*")
    records = (project / FOLDER / "owners").glob("*.json")
    names = {folder.name for folder in folders} | {record.stem for record in records}
    return {name for name in names if RUN_NAME.fullmatch(name)}


def last_touched(project: Path, run: str) -> datetime:
    """When a run's worktree was made, or opened last."""
    moments = [0.0]
    for path in (project / FOLDER / "worktrees" / run, owner_file(project, run)):
        with suppress(FileNotFoundError):
            moments.append(path.lstat().st_mtime)
    return datetime.fromtimestamp(max(moments), UTC)


def flow_state(owner: Owner | None) -> State[Any] | None:
    """The state of the Prefect flow run that uses a worktree; None if none does, or the server knows of none."""
    if owner is None or not owner.flow_run:
        return None
    try:
        with get_client(sync_client=True) as client:
            return client.read_flow_run(UUID(owner.flow_run)).state
    except (ObjectNotFound, ValueError):
        return None


def why_over(owner: Owner | None, state: State[Any] | None, touched: datetime, now: datetime) -> str:
    """Why nobody needs a run's worktree and processes any more; empty while somebody may.

    Args:
        owner: who uses it, as recorded.
        state: of the owner's flow run; None if Prefect knows of none.
        touched: when it was opened last.
        now: the time.
    """
    if now - touched < SETTLED:
        return ""
    if state is not None:
        over = state.is_final() and now - state.timestamp >= SETTLED
        return f"{state.name} at {state.timestamp:%Y-%m-%d %H:%M} UTC" if over else ""
    if owner is not None and owner.is_alive:  # opened by hand, or for another Prefect server
        return ""
    return "Prefect knows of no flow run that uses it, and its process has ended"


def running(project: Path, now: datetime) -> dict[str, list[psutil.Process]]:
    """The processes of a project's runs, by run; they carry its name in their environment (see `Workspace`).

    Those of `loupe flows up`, its worker and the flows among them, carry the project's name alone.
    """
    found: dict[str, list[psutil.Process]] = defaultdict(list)
    for process in psutil.process_iter():
        with suppress(psutil.Error):  # it has ended, or belongs to somebody else
            environment = process.environ()
            begun = datetime.fromtimestamp(process.create_time(), UTC)
            ours = environment.get("LOUPE_PROJECT") == str(project) and process.pid != os.getpid()
            run = environment.get("LOUPE_RUN_ID", "")
            if ours and RUN_NAME.fullmatch(run) and now - begun >= SETTLED:
                found[run].append(process)
    return dict(found)


def end(processes: Iterable[psutil.Process]) -> list[str]:
    """SIGTERM, and LOUPE_GRACE seconds later SIGKILL; the names of those that were there."""
    left = []
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.terminate()
            left.append((process.name(), process))
    _, stubborn = psutil.wait_procs([process for _, process in left], timeout=grace(os.environ))
    for process in stubborn:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(stubborn, timeout=UNKILLABLE)  # their folder goes next
    return [name for name, _ in left]


def old_folders(folder: Path, before: datetime) -> list[Path]:
    """The folders in `folder` in which nothing has changed since `before`; one that is changing now is none."""
    folders = sorted(path for path in folder.glob("*") if path.is_dir() and not path.is_symlink())
    old = []
    for one in folders:
        with suppress(FileNotFoundError):
            if max(path.lstat().st_mtime for path in (one, *one.rglob("*"))) < before.timestamp():
                old.append(one)
    return old


def main(days: Annotated[int, typer.Option(min=0, help="Keep reports so long.")] = 14) -> None:
    """Remove what runs have left behind."""
    reap(days)


if __name__ == "__main__":
    typer.run(main)
