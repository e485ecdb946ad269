"""A small project with flows of a second each, and a Prefect server and a worker for it: for tests of the set-up."""

import contextlib
import json
import os
import shlex
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from tests.servers import answers, end_process_group, free_port

ROOT = Path(__file__).parents[2]

JOBS = '''
import os
import sys
import time
from pathlib import Path
from typing import Literal

from prefect import flow
from prefect.states import Completed


@flow
def note(inbox: str = "inbox", how: Literal["neatly", "quickly"] = "neatly") -> None:
    """Write down where it runs, and with which packages.

    Args:
        inbox: Is written down, too.
        how: Nobody will know.
    """
    import flows
    import loupe

    seen = [inbox, os.getcwd(), sys.executable, flows.__file__, loupe.__file__]
    Path("noted.txt").write_text("\\n".join(seen))


@flow
def fail(reason: str = "on purpose") -> None:
    raise RuntimeError(reason)


@flow
def refuse(reason: str = "worse than the champion"):
    return Completed(name="Refused", message=reason)


@flow
def linger(seconds: float = 300.0) -> None:
    Path("lingers.txt").write_text(str(os.getpid()))
    time.sleep(seconds)
'''

PREFECT = """
pull:
  - prefect.deployments.steps.set_working_directory:
      directory: "{{ $LOUPE_PROJECT }}"
deployments:
  - name: note
    entrypoint: jobs.py:note
    description: Notes.
    tags: [loupe, small]
    work_pool: &pool {name: loupe}
    schedules: [{slug: weekly, cron: "0 3 * * 1", timezone: UTC}]
    concurrency_limit: {limit: 1, collision_strategy: ENQUEUE}
    triggers:
      - {name: "landed starts note", type: event, expect: [loupe.products.landed],
         parameters: {inbox: "{{ event.payload.inbox }}"}}
  - {name: fail, entrypoint: "jobs.py:fail", description: Fails., tags: [loupe], work_pool: *pool}
  - {name: refuse, entrypoint: "jobs.py:refuse", description: Refuses., tags: [loupe], work_pool: *pool}
  - {name: linger, entrypoint: "jobs.py:linger", description: Lingers., tags: [loupe], work_pool: *pool}
"""


def clean_environment(**more: str) -> dict[str, str]:
    """An environment without the developer's own settings of Prefect, git, DVC and loupe."""
    env = {k: v for k, v in os.environ.items() if not k.startswith(("PREFECT_", "GIT_", "DVC_", "LOUPE_", "AWS_"))}
    env |= {
        "DO_NOT_TRACK": "1",
        "DVC_NO_ANALYTICS": "1",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'src'}",
        "PYTHONUNBUFFERED": "1",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
    }
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "loupe test", f"GIT_{role}_EMAIL": "test@loupe.invalid"}
    return env | more


def make_project(folder: Path, env: dict[str, str]) -> Path:
    """A git repository with the small flows, and a DVC remote in it."""
    folder.mkdir(parents=True)
    (folder / "jobs.py").write_text(JOBS)
    (folder / "prefect.yaml").write_text(PREFECT)
    (folder / ".gitignore").write_text("/.cache/\n/remote/\n")
    (folder / "remote").mkdir()
    dvc = [sys.executable, "-m", "dvc"]
    commands = (
        ["git", "init", "--quiet"],
        [*dvc, "init", "--quiet"],
        [*dvc, "remote", "add", "--quiet", "--default", "kept", "remote"],
        ["git", "add", "--all"],
        ["git", "commit", "--quiet", "--message", "Start"],
    )
    for command in commands:
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, f"{shlex.join(command)}:\n{done.stdout}{done.stderr}"
    return folder


@dataclass
class Yard:
    """A project and the server that its environment names."""

    project: Path
    env: dict[str, str]

    def flows(self, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
        """`loupe flows ARGUMENTS` in the project."""
        command = [sys.executable, "-m", f"flows.{arguments[0]}", *arguments[1:]]
        return subprocess.run(
            command, cwd=self.project, env=self.env | more, capture_output=True, text=True, timeout=150
        )

    def deploy(self, *arguments: str) -> str:
        """`loupe flows deploy`; what it said."""
        done = self.flows("deploy", *arguments)
        assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
        return done.stdout

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """One JSON request to the server, by plain HTTP."""
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        request = Request(f"{self.env['PREFECT_API_URL']}{path}", data=data, method=method, headers=headers)
        for pause in (0.2, 1.0, 3.0, None):
            try:
                with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
                    text = response.read()
                break
            except HTTPError as error:
                if error.code != 503 or pause is None:  # a busy sqlite says so now and then
                    raise
                error.close()
                time.sleep(pause)
        return json.loads(text) if text else None

    def deployment(self, name: str) -> Any:
        """A deployment, whose flow has the same name."""
        return self.ask("GET", f"/deployments/name/{name}/{name}")

    def start(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment; its id."""
        body = {"parameters": parameters, "state": {"type": "SCHEDULED"}}
        return str(self.ask("POST", f"/deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> str:
        """The name of a run's state."""
        return str(self.ask("GET", f"/flow_runs/{run}")["state_name"])

    def ends(self, run: str, seconds: float = 60.0) -> str:
        """Waits until a run has ended; the name of its state."""
        final = ("COMPLETED", "FAILED", "CRASHED", "CANCELLED")
        eventually(
            lambda: self.ask("GET", f"/flow_runs/{run}")["state_type"] in final, seconds, lambda: self.state(run)
        )
        return self.state(run)

    @contextlib.contextmanager
    def worker(self) -> Iterator[subprocess.Popen[bytes]]:
        """A worker of the pool, as `loupe flows up` starts it."""
        log = self.project / "worker.log"
        with log.open("wb") as stream:
            process = subprocess.Popen(
                [sys.executable, "-m", "prefect", "worker", "start", "--pool", "loupe", "--type", "process"],
                cwd=self.project,
                env=self.env | {"LOUPE_PROJECT": str(self.project), "PREFECT_WORKER_QUERY_SECONDS": "1"},
                stdin=subprocess.DEVNULL,
                stdout=stream,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            eventually(lambda: "started!" in log.read_text(errors="replace"), 60.0, lambda: log.read_text())
            yield process
        finally:
            end_process_group(process)


def eventually(true: Callable[[], Any], seconds: float, otherwise: Callable[[], object] = lambda: "") -> Any:
    """Waits until `true` gives something that is true, and gives that; fails with `otherwise` after so many seconds."""
    deadline = time.monotonic() + seconds
    while not (found := true()):
        if time.monotonic() > deadline:
            pytest.fail(f"not within {seconds:.0f} s: {otherwise()}", pytrace=False)
        time.sleep(0.2)
    return found


@contextlib.contextmanager
def running_server(home: Path, **settings: str) -> Iterator[dict[str, str]]:
    """A Prefect server of its own; the environment of its clients. Its log is HOME/server.log."""
    home.mkdir(parents=True, exist_ok=True)
    port = free_port()
    url = f"http://127.0.0.1:{port}/api"
    ui = {"PREFECT_SERVER_UI_ENABLED": "false", "PREFECT_UI_URL": f"http://127.0.0.1:{port}"}  # in messages to people
    env = clean_environment(PREFECT_HOME=str(home), **ui, **settings)
    log = home / "server.log"
    with log.open("wb") as stream:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            cwd=home,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        if not answers(f"{url}/health", server):
            pytest.fail(f"{url}/health did not answer:\n{log.read_text(errors='replace')[-3000:]}", pytrace=False)
        yield env | {"PREFECT_API_URL": url}
    finally:
        end_process_group(server)
