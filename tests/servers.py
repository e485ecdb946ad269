"""Servers that tests talk to: on loopback only, started once a session, ended whatever happens. A pytest plugin."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.error import URLError
from urllib.request import ProxyHandler, build_opener

import pytest

START_SECONDS = 60.0  # 6 s on two cores; a fresh environment also compiles its bytecode
GRACE_SECONDS = 10.0  # Prefect stops its services within 2 s of SIGTERM


@pytest.fixture(scope="session")
def prefect_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """PREFECT_HOME of the server: its profile, its sqlite database (prefect.db) and its log (server.log)."""
    return tmp_path_factory.mktemp("prefect")


@pytest.fixture(scope="session")
def prefect_env(prefect_home: Path) -> dict[str, str]:
    """Environment of the server and its clients; a client adds PREFECT_API_URL.

    The developer's own PREFECT_* go: one of them would point the test at a real server or database.
    """
    env = {key: value for key, value in os.environ.items() if not key.startswith("PREFECT_")}
    return env | {
        "PREFECT_HOME": str(prefect_home),
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",  # the server's heartbeat to prefect.io
        "DO_NOT_TRACK": "1",  # the client's
        "PREFECT_SERVER_UI_ENABLED": "false",  # saves copying the UI to disk at the start
        # Prefect has two schedulers: one tops up all deployments each minute, the other looks every 5 s at
        # those just changed. The first keeps a cron going for months: let it do the work here, and quickly.
        "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
        "PREFECT_SERVER_SERVICES_SCHEDULER_RECENT_DEPLOYMENTS_LOOP_SECONDS": "3600",
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "PYTHONUNBUFFERED": "1",  # the log is read while the server runs
    }


@pytest.fixture(scope="session")
def describe_prefect_log(prefect_home: Path) -> Callable[[], str]:
    """Says where the server's log is and shows its end: belongs in each failure message about the server."""
    log = prefect_home / "server.log"

    def describe() -> str:
        lines = log.read_text(errors="replace").splitlines() if log.exists() else []
        return f"Prefect server log: {log}, last lines:\n" + "\n".join(lines[-40:])

    return describe


@pytest.fixture(scope="session")
def prefect_server(
    prefect_home: Path, prefect_env: dict[str, str], describe_prefect_log: Callable[[], str]
) -> Iterator[str]:
    """A real Prefect server on a free loopback port; yields its API URL, as PREFECT_API_URL wants it."""
    port = free_port()
    with (prefect_home / "server.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "prefect", "server", "start", "--host", "127.0.0.1", "--port", str(port)],
            cwd=prefect_home,  # Prefect reads .env, prefect.toml and pyproject.toml of its working directory
            env=prefect_env,
            stdin=subprocess.DEVNULL,  # without a terminal it asks nothing
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # its own process group, so that all of it can be ended
        )
    url = f"http://127.0.0.1:{port}/api"
    try:
        if not answers(f"{url}/health", server):
            state = "still running" if server.poll() is None else f"ended with code {server.returncode}"
            pytest.fail(f"{url}/health did not answer ({state}). {describe_prefect_log()}", pytrace=False)
        yield url
    finally:
        end_process_group(server)


def free_port() -> int:
    """A loopback port that nobody listens on. Another process may take it first: the server then says so."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def answers(url: str, server: subprocess.Popen[bytes]) -> bool:
    """Waits until url gives 200; False once the server has ended or START_SECONDS are over."""
    opener = build_opener(ProxyHandler({}))  # a proxy of the environment must not see loopback
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and server.poll() is None:
        with contextlib.suppress(URLError, OSError), opener.open(url, timeout=2):
            return True
        time.sleep(0.1)
    return False


def end_process_group(leader: subprocess.Popen[bytes] | subprocess.Popen[str]) -> None:
    """SIGTERM to the whole group, then SIGKILL to what is left after GRACE_SECONDS, children included."""
    for sent, seconds in ((signal.SIGTERM, GRACE_SECONDS), (signal.SIGKILL, 5.0)):
        with contextlib.suppress(ProcessLookupError):  # the group is empty: nothing left to end
            os.killpg(leader.pid, sent)
        with contextlib.suppress(subprocess.TimeoutExpired):
            leader.wait(seconds)
