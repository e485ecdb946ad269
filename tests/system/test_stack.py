"""The stack itself: does what the lock file pins import, schedule and reproduce together?

    python -m pytest tests/system/test_stack.py

Change a pin, run this: a wrong one shows here in a minute, in production as a training that never starts.
Nothing of loupe is tested here, and nothing outside loopback is asked.
"""

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import ProxyHandler, Request, build_opener

import pytest

pytestmark = pytest.mark.timeout(180)  # a last resort: each wait below has its own, shorter deadline


def run_bounded(
    command: Sequence[str], *, cwd: Path, env: dict[str, str], seconds: float
) -> subprocess.CompletedProcess[str]:
    """Runs a command and returns its code and its output, stderr included; too slow is a failure of the test.

    subprocess.run(timeout=...) ends the command alone; this ends its children as well.
    """
    process = subprocess.Popen(
        command,
        cwd=cwd,
        env=env,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        output, _ = process.communicate(timeout=seconds)
    except BaseException as error:  # KeyboardInterrupt and pytest-timeout too must leave no process behind
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        output, _ = process.communicate()
        if isinstance(error, subprocess.TimeoutExpired):
            pytest.fail(f"{shlex.join(command)} took more than {seconds:.0f} s:\n{output}", pytrace=False)
        raise
    return subprocess.CompletedProcess(command, process.returncode, output)


# ---------------------------------------------------------------------------------------------- 1. imports

PACKAGES = (
    "torch",
    "numpy",
    "PIL",
    "dvc.api",
    "dvc_s3",
    "gto",
    "prefect",
    "great_expectations",
    "evidently",
    "lightning.fabric",
    "pandas",
    "pyarrow",
    "tensorboard",
    "skimage",
    "sklearn",
    "matplotlib",
    "safetensors",
    "pydantic",
    "typer",
)

# Some packages above load almost nothing until they are used. This is what they load then.
BEHIND_LAZY_IMPORTS = (
    "s3fs",  # dvc_s3 loads it when a remote is opened
    "aiobotocore.session",
    "torch.utils.tensorboard",
    "skimage.metrics",
    "matplotlib.pyplot",
)

# Runs in one fresh interpreter. One line per name, written at once: a crash loses only what comes after it.
IMPORT_EACH = """
import importlib, json, sys
with open(sys.argv[1], "w") as results:
    for name in sys.argv[2:]:
        version = error = None
        try:
            version = getattr(importlib.import_module(name), "__version__", None)
        except BaseException as exception:  # some packages end the interpreter instead of raising
            error = f"{type(exception).__name__}: {exception}"
        print(json.dumps([name, error, version and str(version)]), file=results, flush=True)
"""


@pytest.fixture(scope="module")
def imported(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str | None, str | None]]:
    """(error, version) of each name, from one interpreter: faster, and it shows that they live together."""
    folder = tmp_path_factory.mktemp("imports")
    results = folder / "results.jsonl"
    quiet = {"DO_NOT_TRACK": "1", "GX_ANALYTICS_ENABLED": "false", "MPLBACKEND": "Agg"}
    names = (*PACKAGES, *BEHIND_LAZY_IMPORTS)
    command = [sys.executable, "-c", IMPORT_EACH, str(results), *names]
    done = run_bounded(command, cwd=folder, env=os.environ | quiet, seconds=120)
    rows = map(json.loads, results.read_text().splitlines())
    found = {name: (error, version) for name, error, version in rows}
    ended = f"not reached: the interpreter ended early with code {done.returncode}:\n{done.stdout[-2000:]}"
    return {name: found.get(name, (ended, None)) for name in names}


@pytest.mark.parametrize("name", (*PACKAGES, *BEHIND_LAZY_IMPORTS))
def test_imports(name: str, imported: dict[str, tuple[str | None, str | None]]) -> None:
    error, _ = imported[name]
    assert error is None, f"import {name} failed: {error}"


def test_torch_is_the_pinned_one(imported: dict[str, tuple[str | None, str | None]]) -> None:
    _, version = imported["torch"]
    assert (version or "").startswith("2.13.0"), f"torch is {version}, the lock file pins 2.13.0"


def test_no_package_contradicts_another(tmp_path: Path) -> None:
    # a botocore that aiobotocore does not allow still imports, and fails later, in the first transfer to S3
    done = run_bounded([sys.executable, "-m", "pip", "check"], cwd=tmp_path, env=dict(os.environ), seconds=120)
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------------------- 2. Prefect schedules a cron

SCHEDULE_SECONDS = 20.0  # the scheduler looks once a second here (tests/servers.py)

# A flow and, when run as a script, its deployment. `prefect work-pool create` would make the pool too, but it
# has the server fetch a list of worker types from raw.githubusercontent.com.
FLOW_FILE = """
import sys
from pathlib import Path

from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import WorkPoolCreate
from prefect.workers.process import ProcessWorker


@flow
def stack_tick() -> None:
    pass


if __name__ == "__main__":
    template = ProcessWorker.get_default_base_job_template()
    with get_client(sync_client=True) as client:
        client.create_work_pool(WorkPoolCreate(name="stack", type="process", base_job_template=template))
    flow.from_source(source=str(Path(__file__).parent), entrypoint="stack_flow.py:stack_tick").deploy(
        name="cron", work_pool_name="stack", cron="*/5 * * * *", ignore_warnings=True, print_next_steps=False
    )
"""


def ask(method: str, url: str, body: dict[str, Any] | None = None) -> Any:
    """One JSON request to the server; plain HTTP, so that Prefect's own client cannot colour the answer."""
    data = None if body is None else json.dumps(body).encode()
    headers = {"Content-Type": "application/json"}
    request = Request(url, data=data, method=method, headers=headers)
    with build_opener(ProxyHandler({})).open(request, timeout=10) as response:
        text = response.read()
    return json.loads(text) if text else None


@pytest.fixture
def cron_deployment(
    prefect_server: str, prefect_env: dict[str, str], describe_prefect_log: Callable[[], str], tmp_path: Path
) -> Iterator[str]:
    """Id of a deployment on `*/5 * * * *`; it and its pool go afterwards: later tests share the server."""
    (tmp_path / "stack_flow.py").write_text(FLOW_FILE)
    env = prefect_env | {"PREFECT_API_URL": prefect_server}
    done = run_bounded([sys.executable, "stack_flow.py"], cwd=tmp_path, env=env, seconds=60)
    assert done.returncode == 0, f"the deployment failed:\n{done.stdout}\n{describe_prefect_log()}"
    deployment = ask("GET", f"{prefect_server}/deployments/name/stack-tick/cron")
    yield deployment["id"]
    ask("DELETE", f"{prefect_server}/deployments/{deployment['id']}")
    ask("DELETE", f"{prefect_server}/work_pools/stack")


def test_prefect_schedules_a_cron(
    prefect_server: str, cron_deployment: str, describe_prefect_log: Callable[[], str]
) -> None:
    """With sqlalchemy>=2.1 the server starts, is healthy, takes the deployment, and creates no run."""
    body = {"deployments": {"id": {"any_": [cron_deployment]}}}
    deadline = time.monotonic() + SCHEDULE_SECONDS
    runs: list[dict[str, Any]] = []
    trouble = ""
    while not runs and time.monotonic() < deadline:
        try:
            runs = ask("POST", f"{prefect_server}/flow_runs/filter", body)
        except URLError as error:  # a busy sqlite gives a 503 now and then
            trouble = f" (last error: {error})"
        time.sleep(0.2)
    message = f"the scheduler created no run in {SCHEDULE_SECONDS:.0f} s{trouble}; is sqlalchemy below 2.1?"
    assert runs, f"{message} {describe_prefect_log()}"
    by_scheduler = [run for run in runs if run["auto_scheduled"] and run["created_by"]["type"] == "SCHEDULE"]
    states = [run["state_name"] for run in by_scheduler]
    assert "Scheduled" in states, f"no run waits for its time: {states}. {describe_prefect_log()}"


# --------------------------------------------------------------------------------------- 3. dvc repro

# Each stage notes its name in a file unknown to DVC: what ran is then a fact, not a line of output.
STEP_FILE = """
import sys
from pathlib import Path

stage, *inputs, output = sys.argv[1:]
Path(output).write_text(stage + "".join(Path(name).read_text() for name in inputs))
with open("ran.log", "a") as log:
    print(stage, file=log)
"""

DVC_FILE = """
stages:
  degrade:
    cmd: {python} step.py degrade hr.txt lr.txt
    deps: [step.py, hr.txt]
    outs: [lr.txt]
  train:
    cmd: {python} step.py train lr.txt params.yaml model.txt
    deps: [step.py, lr.txt]
    params: [train.steps]
    outs: [model.txt]
"""


@pytest.fixture
def dvc_env(tmp_path: Path) -> dict[str, str]:
    """Environment for git and dvc that neither reads nor writes the developer's own settings and caches."""
    env = {key: value for key, value in os.environ.items() if not key.startswith(("DVC_", "GIT_"))}
    env["DVC_NO_ANALYTICS"] = "1"
    env["DVC_DAEMON"] = "1"  # "this is the daemon already": dvc detaches no process that outlives the test
    for name in ("DVC_GLOBAL_CONFIG_DIR", "DVC_SYSTEM_CONFIG_DIR", "DVC_SITE_CACHE_DIR"):
        env[name] = str(tmp_path / name.lower())
    env |= {"GIT_CONFIG_GLOBAL": os.devnull, "GIT_CONFIG_NOSYSTEM": "1"}
    for role in ("AUTHOR", "COMMITTER"):
        env |= {f"GIT_{role}_NAME": "loupe test", f"GIT_{role}_EMAIL": "test@loupe.invalid"}
    return env


def test_dvc_repro_runs_what_changed(dvc_env: dict[str, str], tmp_path: Path) -> None:
    project = tmp_path / "project"
    project.mkdir()

    def call(*command: str) -> str:
        done = run_bounded(command, cwd=project, env=dvc_env, seconds=60)
        ended = f"{shlex.join(command)} ended with code {done.returncode}:\n{done.stdout}"
        assert done.returncode == 0, ended
        return done.stdout

    def repro() -> tuple[list[str], str]:
        """The stages that `dvc repro` ran, and what it said."""
        log = project / "ran.log"
        log.write_text("")
        output = call(sys.executable, "-m", "dvc", "repro")
        return log.read_text().split(), output

    (project / "step.py").write_text(STEP_FILE)
    (project / "dvc.yaml").write_text(DVC_FILE.format(python=shlex.quote(sys.executable)))
    (project / "params.yaml").write_text("train: {steps: 1}\n")
    (project / "hr.txt").write_text("pixels\n")
    call("git", "init", "--quiet")
    call(sys.executable, "-m", "dvc", "init", "--quiet")
    call("git", "add", "--all")
    call("git", "commit", "--quiet", "--message", "Start")

    ran, output = repro()
    assert ran == ["degrade", "train"], output

    ran, output = repro()
    assert ran == [], output
    assert "up to date" in output, output

    (project / "params.yaml").write_text("train: {steps: 2}\n")
    ran, output = repro()
    assert ran == ["train"], output
    assert "steps: 2" in (project / "model.txt").read_text()
