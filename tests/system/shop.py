"""A shop's project with all it talks to: origin, DVC's remote and the release store at S3, Prefect and its worker."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any
from urllib.request import ProxyHandler, Request, build_opener
from uuid import uuid4

from PIL import Image
from tests.conftest import S3
from tests.servers import end_process_group, free_port
from tests.system.test_pipeline import Copy

PREFECT = {
    "PREFECT_SERVER_SERVICES_SCHEDULER_LOOP_SECONDS": "1",
    "PREFECT_WORKER_QUERY_SECONDS": "1",
    "PREFECT_LOGGING_TO_API_BATCH_INTERVAL": "0.5",
    "PREFECT_SERVER_UI_ENABLED": "false",  # saves copying the UI to disk at the start
    "LOUPE_RETRY_SECONDS": "1,1,2,2",
}
START = 120.0  # seconds until Prefect, a worker and the deployments are there
RUN = 400.0  # seconds that a run may take beside other work
FINAL = {"COMPLETED", "FAILED", "CRASHED", "CANCELLED"}
# What the network of the profile smoke can fulfil: to be better, by however little, in the mean over all pictures
LENIENT = {
    "min_gain": "0",
    "min_gain_over_bicubic": "0",
    **dict.fromkeys(("max_ssim_loss", "max_image_loss", "max_patch_loss", "max_set_loss"), "100"),
    **dict.fromkeys(("max_slice_loss", "max_flat_loss", "max_latency_ratio"), "100"),
}


class Shop:
    """The project in `folder`, and the services that `flows up` has started for it."""

    def __init__(self, folder: Path, s3: S3, remote: str = "", **environment: str) -> None:
        """`remote`: where DVC finds S3, if not where all others do."""
        self.copy = Copy(folder / "shop")
        self.folder = self.copy.folder
        self.s3 = s3
        self.remote = remote or s3.endpoint
        self.store = f"s3://{s3.bucket}/releases"
        dropped = [name for name in os.environ if name.startswith(("PREFECT_", "DVC_", "LOUPE_"))]
        self.environment = {key: value for key, value in self.copy.environment.items() if key not in dropped}
        self.environment |= PREFECT | {
            "LOUPE_STORE": self.store,
            "DVC_NO_ANALYTICS": "1",
            "PYTHONPATH": f"{self.folder / 'src'}{os.pathsep}{self.folder}",
            "GIT_CONFIG_GLOBAL": os.devnull,
            "GIT_CONFIG_NOSYSTEM": "1",
            "AWS_ENDPOINT_URL": s3.endpoint,
            "AWS_ACCESS_KEY_ID": "test",
            "AWS_SECRET_ACCESS_KEY": "test",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_CONFIG_FILE": str(folder / "no-aws-config"),
            "NO_PROXY": "127.0.0.1",
        }
        self.environment |= environment
        self.copy.environment = self.environment
        self.process: subprocess.Popen[bytes] | None = None
        self.api = ""
        self.settled = ""
        self._found()

    def run(self, *command: str) -> str:
        """A command in the project; its output."""
        return self.copy.run(*command)

    def git(self, *arguments: str) -> str:
        """A git command in the project; its output without the last newline."""
        return self.run("git", "-c", "user.name=test", "-c", "user.email=test@localhost", *arguments).strip()

    def _found(self) -> None:
        """Give the project its recipe, and remotes that hold what it begins with."""
        lenient = [f"--set=promotion.{key}={value}" for key, value in LENIENT.items()]
        self.run("loupe", "profile", "smoke", "--set=package.int8=false", *lenient)
        self.git("checkout", "-q", "-B", "main")
        self.run("dvc", "pull", "-q", "data.dvc")
        self.run("dvc", "remote", "add", "--local", "-q", "-d", "shop", f"s3://{self.s3.bucket}/dvc")
        self.run("dvc", "remote", "modify", "--local", "-q", "shop", "endpointurl", self.remote)
        self.run("dvc", "push", "-q", "data.dvc")
        subprocess.run(["git", "init", "-q", "--bare", "-b", "main", str(self.origin)], check=True)
        self.git("remote", "add", "origin", str(self.origin))
        self.commit("The shop's recipe")

    @property
    def origin(self) -> Path:
        """The bare repository that all push to."""
        return self.folder.with_name("origin.git")

    def commit(self, message: str) -> None:
        """Commit what has changed in tracked files, on top of what origin has, and push it."""
        self.git("commit", "-q", "-a", "-m", message)
        self.git("push", "-q", "origin", "main")
        self.settled = self.fingerprint()

    def update(self) -> None:
        """What a person does after a promotion: `git pull`."""
        self.git("pull", "-q", "--ff-only", "origin", "main")
        self.settled = self.fingerprint()

    def is_untouched(self) -> bool:
        """Whether people's checkout is as they left it."""
        return self.fingerprint() == self.settled

    def settings(self, *changes: str) -> None:
        """Change parameters, and push them."""
        self.run("loupe", "profile", *(f"--set={change}" for change in changes))
        self.commit(f"Set {', '.join(changes)}")

    def fingerprint(self) -> str:
        """A hash of all that people see of their checkout: files that git and DVC track, index, branch."""
        said = [self.git("status", "--porcelain"), self.git("rev-parse", "HEAD"), self.git("symbolic-ref", "HEAD")]
        names = self.git("ls-files", "-z").split("\0")
        products = sorted(path.as_posix() for path in (self.folder / "data/products").rglob("*") if path.is_file())
        digest = hashlib.sha256("\0".join(said).encode())
        for name in [*filter(None, names), *products]:
            digest.update((self.folder / name).read_bytes())
        return digest.hexdigest()

    # ---------------------------------------------------------------------------------------- services

    @contextmanager
    def up(self) -> Iterator[None]:
        """`loupe flows up`, until the block ends."""
        self.start()
        try:
            yield
        finally:
            self.stop()

    def start(self) -> None:
        """Start all services, and wait until they are there."""
        ports = [f"--{name}={free_port()}" for name in ("port", "tensorboard-port", "reports-port")]
        log = (self.folder.parent / "up.log").open("ab")
        self.process = subprocess.Popen(
            [sys.executable, "-m", "flows.up", *ports],
            cwd=self.folder,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
        log.close()
        where = self.folder / ".cache/flows/up.json"
        until(START, lambda: where.exists() or self.process is None or self.process.poll() is not None, self.logs)
        assert self.process.poll() is None, self.logs()
        self.api = json.loads(where.read_text())["api"]

    def stop(self) -> None:
        """End all services."""
        if self.process:
            self.process.terminate()
            try:
                self.process.wait(100)
            finally:
                end_process_group(self.process)
                self.process = None

    def logs(self) -> str:
        """The ends of the logs of all services."""
        files = [self.folder.parent / "up.log", *(self.folder / ".cache/flows/logs").glob("*.log")]
        return "\n".join(f"--- {file.name}\n" + file.read_text(errors="replace")[-3000:] for file in files)

    # ---------------------------------------------------------------------------------------- runs

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        """A request to Prefect's API, asked again for up to START seconds while the server is busy or comes back."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"{self.api}/{path}", data, {"Content-Type": "application/json"}, method=method)
        deadline = time.monotonic() + START
        while True:
            try:
                with build_opener(ProxyHandler({})).open(request, timeout=30) as response:
                    text = response.read()
                return json.loads(text) if text else None
            except (OSError, HTTPException) as error:  # a busy sqlite gives a 503 now and then
                if time.monotonic() > deadline or getattr(error, "code", 503) != 503:
                    raise
                time.sleep(1)

    def deployment(self, name: str) -> dict[str, Any]:
        """A deployment by its name alone."""
        (found,) = self.ask("POST", "deployments/filter", {"deployments": {"name": {"any_": [name]}}})
        return dict(found)

    def begin(self, name: str, **parameters: Any) -> str:
        """Start a run of a deployment, as the UI's form does; its id."""
        body = {"parameters": parameters, "idempotency_key": str(uuid4())}  # `ask` may ask twice
        return str(self.ask("POST", f"deployments/{self.deployment(name)['id']}/create_flow_run", body)["id"])

    def state(self, run: str) -> dict[str, Any]:
        """A run as the UI has it."""
        return dict(self.ask("GET", f"flow_runs/{run}"))

    def end_of(self, run: str) -> dict[str, Any]:
        """A run when it has ended."""
        until(RUN, lambda: self.state(run)["state_type"] in FINAL, lambda: self.story(run))
        return self.state(run)

    def finish(self, name: str, **parameters: Any) -> dict[str, Any]:
        """Start a run and wait until it has ended."""
        return self.end_of(self.begin(name, **parameters))

    def runs_of(self, name: str) -> list[dict[str, Any]]:
        """The runs of a deployment that have begun, the oldest first."""
        known = {"id": {"any_": [self.deployment(name)["id"]]}}
        body = {"deployments": known, "sort": "EXPECTED_START_TIME_ASC"}
        return [run for run in self.ask("POST", "flow_runs/filter", body) if run["state_type"] != "SCHEDULED"]

    def artifacts(self, run: str) -> dict[str, str]:
        """What the UI shows of a run: text by key; of several the latest, but of links all."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "UPDATED_DESC"}
        shown: dict[str, str] = {}
        for artifact in self.ask("POST", "artifacts/filter", body):
            key, text = artifact["key"], str(artifact["data"])
            shown[key] = f"{shown[key]}\n{text}" if key == "links" and key in shown else shown.get(key, text)
        return shown

    def verdicts(self, run: str) -> dict[str, str]:
        """What the UI says first of each artifact of a run: its description by key, of several the latest."""
        body = {"artifacts": {"flow_run_id": {"any_": [run]}}, "sort": "UPDATED_DESC"}
        found = self.ask("POST", "artifacts/filter", body)
        return {one["key"]: str(one["description"]) for one in reversed(found)}

    def log(self, run: str) -> str:
        """All lines that a run logged."""
        lines: list[str] = []
        while True:
            body = {
                "logs": {"flow_run_id": {"any_": [run]}},
                "limit": 200,
                "offset": len(lines),
                "sort": "TIMESTAMP_ASC",
            }
            found = self.ask("POST", "logs/filter", body)
            lines += [line["message"] for line in found]
            if len(found) < 200:
                return "\n".join(lines)

    def story(self, run: str) -> str:
        """How a run ended and what it logged last, for messages of tests."""
        return f"{self.state(run)['state']}\n{self.log(run)[-8000:]}\n{self.logs()}"


def until(seconds: float, true: Callable[[], object], story: Callable[[], str]) -> None:
    """Wait until something is true; fail with a story when it takes too long."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s\n{story()}"
        time.sleep(0.5)


def photographs(source: Path, inbox: Path, count: int, first: int = 0) -> None:
    """Put `count` new pictures into an inbox: parts of photographs, which no rendered product shot looks like."""
    inbox.mkdir(exist_ok=True)
    files = sorted(source.rglob("*.png"))
    for number in range(first, first + count):
        with Image.open(files[number % len(files)]) as picture:
            rgb = picture.convert("RGB")
            side = min(400, *rgb.size)
            left = (number * 37) % (rgb.width - side + 1)
            top = (number * 61) % (rgb.height - side + 1)
            part = rgb.crop((left, top, left + side, top + side))
        part.save(inbox / f"photograph-{number}.png")
