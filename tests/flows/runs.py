"""A process that runs flows as a worker does, and what the server knows of their runs. A pytest plugin."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener

import pytest
from tests.servers import end_process_group

ROOT = Path(__file__).parents[2]

# Reads a flow's parameters from each line, runs it, and tells how it ended; what flows print goes to stderr.
RUN = """
import importlib, json, os, sys

told, sys.stdout = sys.stdout, sys.stderr
flow = getattr(importlib.import_module(sys.argv[1]), sys.argv[2])
print("ready", file=told, flush=True)
for line in sys.stdin:
    state = flow(**json.loads(line), return_state=True)
    found = {"name": state.name, "type": state.type.value, "message": state.message}
    print(json.dumps(found | {"run": str(state.state_details.flow_run_id)}), file=told, flush=True)
"""


@dataclass(frozen=True)
class Ended:
    """How a flow run ended: its state, and its id."""

    name: str
    type: str
    message: str
    run: str


class Flow:
    """A flow in a process of its own, whose working directory is a project."""

    def __init__(self, name: str, project: Path, env: dict[str, str]) -> None:
        module, _, function = name.partition(":")
        self._log = (project / "flow.log").open("w+")
        self.process = subprocess.Popen(
            [sys.executable, "-c", RUN, module, function],
            cwd=project,
            env=env,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            start_new_session=True,
        )
        assert self._answer() == "ready\n", self.log()

    def __call__(self, **parameters: Any) -> Ended:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(parameters) + "\n")
        self.process.stdin.flush()
        answer = self._answer()
        assert answer, self.log()
        return Ended(**json.loads(answer))

    def log(self) -> str:
        """What the flow and its children said."""
        self._log.seek(0)
        return self._log.read()

    def end(self) -> None:
        end_process_group(self.process)
        assert self.process.stdin and self.process.stdout
        self.process.stdin.close()
        self.process.stdout.close()
        self._log.close()

    def _answer(self) -> str:
        assert self.process.stdout
        return self.process.stdout.readline()


@pytest.fixture
def start_flow(prefect_server: str, prefect_env: dict[str, str]) -> Iterator[Callable[[str, Path], Flow]]:
    """Starts processes that run flows, such as `flows.inbox:watch_inbox`; they end with the test."""
    started: list[Flow] = []

    def start(name: str, project: Path) -> Flow:
        paths = os.pathsep.join([str(ROOT), str(ROOT / "src")])
        aws = {key: value for key, value in os.environ.items() if key.startswith(("AWS_", "LOUPE_"))}  # of the test
        env = prefect_env | aws | {"PREFECT_API_URL": prefect_server, "PYTHONPATH": paths}
        started.append(Flow(name, project, env))
        return started[-1]

    yield start
    for flow in started:
        flow.end()


@pytest.fixture
def ask(prefect_server: str) -> Callable[..., Any]:
    """Asks the server: method, path below its API, and a body."""

    def ask(method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(
            f"{prefect_server}{path}", data=data, method=method, headers={"Content-Type": "application/json"}
        )
        with build_opener(ProxyHandler({})).open(request, timeout=20) as response:
            content = response.read()
        return json.loads(content) if content else None

    return ask


@pytest.fixture
def artifacts(ask: Callable[..., Any]) -> Callable[[str], dict[str, dict[str, Any]]]:
    """The artifacts of a flow run, by key."""

    def artifacts(run: str) -> dict[str, dict[str, Any]]:
        found = ask("POST", "/artifacts/filter", {"artifacts": {"flow_run_id": {"any_": [run]}}})
        return {one["key"]: one for one in found}

    return artifacts
