"""What is removed when, by a real Prefect server, real worktrees and real processes."""

import json
import os
import subprocess
import sys
import time
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

import psutil
import pytest
from prefect.client.schemas.objects import State, StateType
from tests.flows.conftest import Project
from tests.flows.processes import wait_for

from flows.reap import SETTLED, end, old_folders, running, why_over, worktrees
from flows.workspace import Owner, open_workspace, owner_file

ROOT = Path(__file__).parents[2]
NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)
LONG_AGO = NOW - timedelta(hours=3)
DEAD = Owner(str(uuid4()), 1, 0.5)  # another process has this number
ALIVE = Owner("", os.getpid(), psutil.Process().create_time())


def state(kind: StateType, moment: datetime = LONG_AGO) -> State[Any]:
    return State(type=kind, timestamp=moment)


@pytest.mark.parametrize("kind", list(StateType))
def test_what_is_not_final_is_kept(kind: StateType) -> None:
    final = kind.value in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
    assert bool(why_over(DEAD, state(kind), LONG_AGO, NOW)) == final


def test_what_has_just_ended_or_begun_is_kept() -> None:
    crashed, just_now = state(StateType.CRASHED), NOW - SETTLED / 2
    assert why_over(DEAD, crashed, LONG_AGO, NOW) == "Crashed at 2026-05-04 09:00 UTC"
    assert why_over(ALIVE, crashed, LONG_AGO, NOW), "its process hangs"
    assert not why_over(DEAD, state(StateType.CRASHED, just_now), LONG_AGO, NOW)
    assert not why_over(DEAD, crashed, just_now, NOW), "reopened by another flow"
    assert not why_over(None, None, just_now, NOW), "it is being made"


def test_what_prefect_does_not_know_is_kept_while_its_process_lives() -> None:
    assert not why_over(ALIVE, None, LONG_AGO, NOW)
    for owner in (DEAD, None):
        assert why_over(owner, None, LONG_AGO, NOW).startswith("Prefect knows of no flow run that uses it")


def test_processes_are_found_by_project_and_run(tmp_path: Path) -> None:
    with ExitStack() as stack:
        for project, run in ((tmp_path, "mine"), (tmp_path / "other", "mine"), (tmp_path, "theirs")):
            process = sleeper(project, run)
            stack.callback(stop, process)
        for run in ("", "../mine"):  # such as the worker, and the flows that it runs
            stack.callback(stop, sleeper(tmp_path, run))
        found = running(tmp_path, datetime.now(UTC) + SETTLED)
        assert {run: len(processes) for run, processes in found.items()} == {"mine": 1, "theirs": 1}
        assert running(tmp_path, datetime.now(UTC)) == {}, "what has just begun is left alone"


def test_processes_are_ended_however_stubborn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_GRACE", "0.5")
    stubborn, willing = sleeper(tmp_path, "r1", stubborn=True), sleeper(tmp_path, "r1")
    gone = sleeper(tmp_path, "r1")
    try:
        processes = [psutil.Process(process.pid) for process in (stubborn, willing, gone)]
        stop(gone)
        assert len(end(processes)) == 2
        assert not any(process.is_running() for process in processes)
    finally:
        for process in (stubborn, willing, gone):
            stop(process)


def test_old_reports(tmp_path: Path) -> None:
    def report(name: str, moment: datetime, page: str = "index.html") -> None:
        path = tmp_path / name / page
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
        for one in (path, *path.parents[: len(path.relative_to(tmp_path).parts) - 1]):
            os.utime(one, (moment.timestamp(), moment.timestamp()))

    report("new", NOW)
    report("old", LONG_AGO)
    report("gone-on", LONG_AGO)
    report("gone-on", NOW, "evaluation/index.html")
    (tmp_path / "file").touch()
    (tmp_path / "link").symlink_to(tmp_path / "old")
    assert [path.name for path in old_folders(tmp_path, NOW - timedelta(hours=1))] == ["old"]
    assert old_folders(tmp_path / "none", NOW) == []


def test_a_report_that_changes_meanwhile_is_not_old(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "report").mkdir()
    monkeypatch.setattr(Path, "rglob", lambda self, pattern: iter([self / "evaluation.part"]))  # renamed by then
    assert old_folders(tmp_path, NOW + timedelta(days=3650)) == []


# --------------------------------------------------------------------------------------------------------- the flow

REAP = """
import sys
from datetime import timedelta
import flows.reap
flows.reap.SETTLED = timedelta(seconds=-60)  # the test does not wait
flows.reap.reap(14)
"""
STATES = {
    "running": ("RUNNING", "Running"),
    "paused": ("PAUSED", "Paused"),
    "waiting": ("SCHEDULED", "AwaitingRetry"),
    "ending": ("CANCELLING", "Cancelling"),
    "crashed": ("CRASHED", "Crashed"),
    "done": ("COMPLETED", "Refused"),
}


def sleeper(project: Path, run: str, stubborn: bool = False) -> "subprocess.Popen[bytes]":
    """A process that a run might have started."""
    code = (
        "import signal, sys, time\n"
        f"signal.signal(signal.SIGTERM, signal.{'SIG_IGN' if stubborn else 'SIG_DFL'})\n"
        "print(flush=True); time.sleep(60)"
    )
    env = os.environ | {"LOUPE_PROJECT": str(project), "LOUPE_RUN_ID": run}
    if not run:
        del env["LOUPE_RUN_ID"]
    process = subprocess.Popen([sys.executable, "-c", code], env=env, stdout=subprocess.PIPE)
    assert process.stdout
    process.stdout.readline()
    return process


def stop(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()
    if process.stdout:
        process.stdout.close()


def ask(url: str, **body: Any) -> Any:
    """One JSON request to the server, again while its sqlite is busy."""
    request = Request(url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"})
    for pause in (0.5, 1, 2, 4, None):
        try:
            with build_opener(ProxyHandler({})).open(request, timeout=20) as response:
                return json.loads(response.read())
        except HTTPError as error:
            error.close()
            if error.code != HTTPStatus.SERVICE_UNAVAILABLE or pause is None:
                raise
            time.sleep(pause)
    return None


def test_the_flow(project: Project, prefect_server: str, prefect_env: dict[str, str]) -> None:
    flow = ask(f"{prefect_server}/flows/", name="retrain")["id"]
    ids = {}
    for run, (kind, name) in STATES.items():
        ids[run] = ask(f"{prefect_server}/flow_runs/", flow_id=flow, state={"type": kind, "name": name})["id"]
    ids |= {"deleted": str(uuid4()), "not-an-id": "x"}
    for run, flow_run in ids.items():
        workspace = open_workspace(project.folder, run, len, owner=flow_run)
        (workspace.folder / "runs" / f"checkpoint-{run}").touch()
        record = json.loads(owner_file(project.folder, run).read_text())
        owner_file(project.folder, run).write_text(json.dumps(record | {"process": 1}))
    opened = open_workspace(project.folder, "by-hand", len)
    (project.folder / ".cache/flows/worktrees/.hidden").mkdir()
    (project.folder / ".cache/flows/reports/new").mkdir(parents=True)
    old = project.folder / ".cache/flows/reports/old"
    old.mkdir()
    os.utime(old, (0, 0))
    before = project.state()

    env = {
        **prefect_env,
        **{name: value for name, value in os.environ.items() if name.startswith(("GIT_", "DVC_", "HOME"))},
        "PREFECT_API_URL": prefect_server,
        "PYTHONPATH": f"{ROOT / 'src'}{os.pathsep}{ROOT}",
        "LOUPE_GRACE": "0.5",
    }
    with ExitStack() as stack:
        processes = {}
        for run in ("running", "crashed", "gone"):
            processes[run] = sleeper(project.folder, run, stubborn=True)
            stack.callback(stop, processes[run])
        worker = sleeper(project.folder, "")  # what `loupe flows up` starts names the project alone
        stack.callback(stop, worker)
        done = subprocess.run(
            [sys.executable, "-c", REAP], cwd=project.folder, env=env, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, done.stderr
        assert wait_for(lambda: processes["crashed"].poll() == -9)
        assert wait_for(lambda: processes["gone"].poll() == -9), "nothing else is left of its run"
        assert processes["running"].poll() is None
        assert worker.poll() is None

    kept = {"running", "paused", "waiting", "ending", "by-hand"}
    assert worktrees(project.folder) == kept
    listed = project.git("worktree", "list", "--porcelain")
    assert {run for run in [*ids, "by-hand"] if f"worktrees/{run}\n" in listed} == kept
    assert opened.folder.is_dir()
    assert [path.name for path in old.parent.iterdir()] == ["new"]
    assert {path.name for path in (project.folder / "runs").iterdir()} == {f"checkpoint-{run}" for run in ids}
    assert len(project.git("branch", "--list", "retrain/*").splitlines()) == len(ids) + 1
    assert project.state() == before

    (artifact,) = ask(f"{prefect_server}/artifacts/latest/filter", artifacts={"key": {"any_": ["reap"]}})
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in artifact["data"].splitlines()[2:]]
    assert [row[:2] for row in rows] == [
        ["processes", "`crashed`"],
        ["worktree", "`crashed`"],
        ["worktree", "`deleted`"],
        ["worktree", "`done`"],
        ["processes", "`gone`"],
        ["worktree", "`not-an-id`"],
        ["report", "`old`"],
    ]
    assert rows[1][2].startswith("Crashed at 20")
    assert rows[3][2].startswith("Refused at 20")
    assert "worktree: 4" in done.stderr + done.stdout, "the state says it as well"
