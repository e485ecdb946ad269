"""`loupe flows up` as people use it: everything answers, what dies comes back, and nothing is left when it ends."""

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import pytest
from playwright.sync_api import expect
from tests.browser import chromium
from tests.flows.yard import Yard, clean_environment, eventually, make_project
from tests.servers import free_port

pytestmark = pytest.mark.timeout(300)
MARK = "LOUPE_TEST_RUN"  # in the environment of all that a test starts


@dataclass
class Running(Yard):
    """A running `loupe flows up`, and a project whose environment names its server."""

    process: subprocess.Popen[bytes]
    log: Path
    ports: list[int]
    mark: str

    def said(self) -> str:
        """All that it has printed."""
        return self.log.read_text(errors="replace")

    def left(self) -> list[str]:
        """What still runs of all that came of it, as command lines."""
        return marked(self.mark, but=os.getpid())


def marked(mark: str, but: int = 0) -> list[str]:
    """The command lines of living processes that have the mark in their environment."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            environment = (folder / "environ").read_bytes()
            state = (folder / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
            if f"{MARK}={mark}".encode() in environment and state != "Z" and int(folder.name) != but:
                found.append((folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return found


def free_ports() -> tuple[list[str], list[int]]:
    """Options for three free ports, and these."""
    ports = [free_port() for _ in range(3)]
    names = ("--port", "--tensorboard-port", "--reports-port")
    return [text for name, port in zip(names, ports, strict=True) for text in (name, str(port))], ports


@contextlib.contextmanager
def started(base: Path, *arguments: str, ready: bool = True) -> Iterator[Running]:
    """`loupe flows up` on free ports in a fresh project; ended afterwards, whatever happens."""
    mark = str(uuid.uuid4())
    env = clean_environment(**{MARK: mark}, PREFECT_WORKER_QUERY_SECONDS="1")
    project = make_project(base / "project", env)
    options, ports = free_ports()
    log = base / "up.log"
    with log.open("wb") as stream:
        process = subprocess.Popen(
            [sys.executable, "-m", "flows.up", *options, *arguments],
            cwd=project,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    env = env | {"PREFECT_API_URL": f"http://127.0.0.1:{ports[0]}/api"}
    running = Running(project, env, process, log, ports, mark)
    try:
        if ready:
            eventually(lambda: "Ctrl-C" in running.said() or process.poll() is not None, 200.0, running.said)
            assert process.poll() is None, running.said()
        yield running
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(90)
        if process.poll() is None:
            process.kill()
            process.wait()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    """All of it, running."""
    with started(tmp_path_factory.mktemp("up")) as running:
        yield running


def page(url: str) -> str:
    """What a browser gets."""
    with build_opener(ProxyHandler({})).open(url, timeout=10) as response:
        return str(response.read().decode(errors="replace"))


def test_all_of_it_answers_where_it_says(running: Running) -> None:
    server, tensorboard, reports = (f"http://127.0.0.1:{port}" for port in running.ports)
    said = running.said()
    assert all(address in said for address in (server, tensorboard, reports))
    assert "deployed note, fail, refuse, linger" in said
    assert "<title>Prefect" in page(server)
    assert "TensorBoard" in page(tensorboard)
    report = running.project / ".cache/flows/reports/run/evaluation"
    report.mkdir(parents=True)
    (report / "index.html").write_text("the report")
    assert page(f"{reports}/run/evaluation/index.html") == "the report"
    assert running.ends(running.start("note")) == "Completed"
    seen = json.loads((running.project / ".cache/flows/up.json").read_text())
    assert seen == {"ui": server, "api": f"{server}/api", "reports": reports, "tensorboard": tensorboard}


def test_the_ui_shows_the_form_and_calls_nobody_else(running: Running) -> None:
    server = f"http://127.0.0.1:{running.ports[0]}"
    note = running.deployment("note")["id"]
    asked: set[str] = set()
    with chromium() as browser:
        page = browser.new_page()
        page.on("request", lambda request: asked.add(request.url.split("/")[2]))
        page.goto(f"{server}/")
        expect(page.get_by_text("Deployments").first).to_be_visible(timeout=30_000)
        page.goto(f"{server}/deployments/deployment/{note}/run")
        expect(page.get_by_text("Is written down, too.")).to_be_visible(timeout=30_000)
        expect(page.get_by_text("neatly")).to_be_visible()
    assert asked == {server.removeprefix("http://")}


def test_it_listens_on_loopback_alone(running: Running) -> None:
    listening = {
        address
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for line in Path(table).read_text().splitlines()[1:]
        for address, state in [(line.split()[1], line.split()[3])]
        if state == "0A" and int(address.split(":")[1], 16) in running.ports
    }
    assert {address.split(":")[0] for address in listening} == {"0100007F"}  # 127.0.0.1, last byte first
    assert len(listening) == 3


def test_all_is_kept_in_one_folder(running: Running) -> None:
    kept = running.project / ".cache/flows"
    assert (kept / "prefect/prefect.db").is_file()
    assert {path.name for path in (kept / "logs").iterdir()} == {
        "server.log",
        "worker.log",
        "tensorboard.log",
        "reports.log",
    }
    done = subprocess.run(
        ["git", "status", "--porcelain", "--ignored"], cwd=running.project, capture_output=True, text=True, check=True
    )
    new = {line[3:] for line in done.stdout.splitlines()}
    assert new <= {".cache/", ".dvc/tmp/", "remote/", "noted.txt", "__pycache__/"}, new


def test_the_doctor_finds_nothing_wrong(running: Running) -> None:
    env = {name: value for name, value in running.env.items() if name != "PREFECT_API_URL"}
    command = [sys.executable, "-m", "flows.doctor"]
    done = subprocess.run(command, cwd=running.project, env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"


def test_a_second_one_says_where_the_first_is(running: Running) -> None:
    env = {name: value for name, value in running.env.items() if name != "PREFECT_API_URL"}
    show = "import os, sys; print(os.environ['PREFECT_API_URL']); sys.exit(7)"
    for more, code in (([], 0), (["--once-ready", sys.executable, "-c", show], 7)):
        command = [sys.executable, "-m", "flows.up", *more]
        done = subprocess.run(command, cwd=running.project, env=env, capture_output=True, text=True, timeout=60)
        assert done.returncode == code, done.stderr
        assert "it runs already" in done.stdout
        assert running.env["PREFECT_API_URL"] in done.stdout
    assert running.process.poll() is None


def test_a_service_that_is_killed_comes_back(running: Running) -> None:
    worker = next(
        int(folder.name)
        for folder in Path("/proc").glob("[0-9]*")
        if (folder / "cmdline").exists()
        and running.mark.encode() in environ(folder)
        and b"prefect\0worker" in (folder / "cmdline").read_bytes()
        and b"_supervise" not in (folder / "cmdline").read_bytes()
    )
    before = running.said().count("\n")
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: "worker has ended with code 137" in running.said(), 20.0, running.said)
    assert "started again in 1 s" in "\n".join(running.said().splitlines()[before:])
    assert running.ends(running.start("note"), 90.0) == "Completed"


def environ(folder: Path) -> bytes:
    """The environment of a process; nothing once it has gone."""
    try:
        return (folder / "environ").read_bytes()
    except OSError:
        return b""


def lingering(running: Running) -> str:
    """A run that is under way; its id."""
    run = running.start("linger")
    eventually(lambda: (running.project / "lingers.txt").exists(), 60.0, running.said)
    return run


def test_ctrl_c_ends_all_of_it_and_the_run_says_so(tmp_path: Path) -> None:
    with started(tmp_path) as running:
        run = lingering(running)
        os.killpg(running.process.pid, signal.SIGINT)
        assert running.process.wait(90) == 0, running.said()
        assert running.left() == []
        assert not (running.project / ".cache/flows/up.json").exists()
    # the server knows how it ended: it was the last to go
    import sqlite3

    with contextlib.closing(sqlite3.connect(running.project / ".cache/flows/prefect/prefect.db")) as database:
        (state,) = database.execute("select state_name from flow_run where id = ?", [run]).fetchone()
    assert state == "Crashed"


def test_kill_9_leaves_nothing_either(tmp_path: Path) -> None:
    with started(tmp_path) as running:
        lingering(running)
        running.process.kill()
        running.process.wait()
        eventually(lambda: running.left() == [], 90.0, running.left)


def test_a_command_runs_once_all_is_ready_and_all_ends_with_it(tmp_path: Path) -> None:
    look = "import json, sys; print('ran', json.load(open('.cache/flows/up.json'))['api']); sys.exit(3)"
    with started(tmp_path, "--once-ready", sys.executable, "-c", look, ready=False) as running:
        assert running.process.wait(200) == 3, running.said()
        assert f"ran http://127.0.0.1:{running.ports[0]}/api" in running.said()
        assert running.left() == []


@pytest.mark.parametrize("option", ["--port", "--tensorboard-port", "--reports-port"])
def test_a_port_that_is_taken_is_named_with_its_option(tmp_path: Path, option: str) -> None:
    env = clean_environment()
    project = make_project(tmp_path / "project", env)
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = other.getsockname()[1]
        command = [sys.executable, "-m", "flows.up", *free_ports()[0], option, str(port)]
        done = subprocess.run(command, cwd=project, env=env, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert f"port {port}: Address already in use" in done.stderr
    assert option in done.stderr


def test_another_server_in_the_environment_is_no_accident(tmp_path: Path) -> None:
    env = clean_environment()
    project = make_project(tmp_path / "project", env)

    def up(*arguments: str, **more: str) -> str:
        command = [sys.executable, "-m", "flows.up", *arguments]
        done = subprocess.run(command, cwd=project, env=env | more, capture_output=True, text=True, timeout=60)
        assert done.returncode == 2
        return done.stderr

    assert "add --no-server" in up(PREFECT_API_URL="http://127.0.0.1:9/api")
    assert "set PREFECT_API_URL" in up("--no-server")
    assert "no Prefect server at" in up(
        *("--no-server", *free_ports()[0]),
        PREFECT_API_URL="http://127.0.0.1:9/api",
        PREFECT_CLIENT_MAX_RETRIES="0",
    )
