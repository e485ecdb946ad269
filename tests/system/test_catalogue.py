"""A catalogue on Ray: every picture there once and right, whatever happens to a worker.

Real processes: the command, Ray's own, and an S3 server. Skipped without the extra `ray`.
"""

import contextlib
import io
import json
import os
import secrets
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import S3, picture
from tests.servers import end_process_group, free_port
from tests.upscaling.networks import CONFIG, network

import loupe
from loupe.imaging.files import write_png
from loupe.imaging.resize import Pixels
from loupe.models.export import to_onnx

pytestmark = [
    pytest.mark.skipif(find_spec("ray") is None, reason="the extra `ray` is not installed"),
    pytest.mark.timeout(300),
]
COUNT = 40
SECONDS = 90.0  # the most to wait for anything


@pytest.fixture(autouse=True)
def ray_folder(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Where Ray puts what it needs; and a token, which it would else write into the home folder."""
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    monkeypatch.setenv("RAY_AUTH_TOKEN", secrets.token_hex(32))
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    with tempfile.TemporaryDirectory(
        prefix="ray-", ignore_cleanup_errors=True
    ) as folder:  # short, as its sockets' paths
        monkeypatch.setenv("RAY_TMPDIR", folder)
        yield folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    (folder / "model.onnx").write_bytes(to_onnx(network()).SerializeToString())
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "contract.json").write_text(json.dumps({"scale": 2, "tiles": {"halo": 9}}))
    return folder


def command(*arguments: object) -> list[str]:
    return [sys.executable, "-m", "loupe.cli", "upscale", *map(str, arguments), "--engine", "ray", "--json"]


def pixels_of(number: int) -> Pixels:
    return picture(number, 40, 50)


def workers_below(parent: int) -> list[int]:
    """The processes of actors that a process has started, through others."""
    parents, names = {}, {}
    for path in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):  # it ended meanwhile
            parents[int(path.name)] = int((path / "stat").read_text().rpartition(")")[2].split()[1])
            names[int(path.name)] = (path / "cmdline").read_bytes()

    def is_below(process: int) -> bool:
        while process in parents:
            process = parents[process]
            if process == parent:
                return True
        return False

    return [process for process, name in names.items() if name.startswith(b"ray::MapWorker") and is_below(process)]


def test_a_worker_is_killed_and_every_picture_is_there_once(s3: S3, model: Path, tmp_path: Path) -> None:
    s3.client.put_bucket_versioning(Bucket=s3.bucket, VersioningConfiguration={"Status": "Enabled"})
    for number in range(COUNT):
        data = io.BytesIO()
        Image.fromarray(pixels_of(number)).save(data, "PNG")
        s3.client.put_object(Bucket=s3.bucket, Key=f"in/{number % 3}/{number}.png", Body=data.getvalue())
    s3.client.put_object(Bucket=s3.bucket, Key="in/bad.png", Body=b"nothing")

    def written() -> list[str]:
        found = s3.client.list_object_versions(Bucket=s3.bucket, Prefix="out/").get("Versions", [])
        return [one["Key"] for one in found if one["Key"] != "out/failures.jsonl"]

    arguments = (f"s3://{s3.bucket}/in", "-o", f"s3://{s3.bucket}/out", "--model", model)
    with (tmp_path / "stderr").open("w+") as log:
        run = subprocess.Popen(
            command(*arguments, "--workers", 2), stdout=subprocess.PIPE, stderr=log, text=True, start_new_session=True
        )
        try:
            deadline = time.monotonic() + SECONDS
            while len(written()) < 3 or len(workers_below(run.pid)) < 2:
                assert run.poll() is None, (tmp_path / "stderr").read_text()
                assert time.monotonic() < deadline, "no worker has begun"
                time.sleep(0.01)
            workers = workers_below(run.pid)
            for worker in workers:  # they stand still, so that it is the middle
                os.kill(worker, signal.SIGSTOP)
            assert len(workers) == 2
            assert len(written()) < COUNT - 4
            os.kill(workers[0], signal.SIGKILL)
            os.kill(workers[1], signal.SIGCONT)
            said, _ = run.communicate(timeout=SECONDS)
        finally:
            end_process_group(run)
    assert run.returncode == 1, (tmp_path / "stderr").read_text()
    found = json.loads(said)
    assert (found["done"] + found["skipped"], found["failed"], found["left"]) == (COUNT, 1, 0)
    assert found["failures"][0]["source"].endswith("/in/bad.png")
    assert sorted(written()) == sorted(f"out/{number % 3}/{number}.png" for number in range(COUNT)), "each once"
    upscaler = loupe.load(model)
    for number in range(COUNT):
        answer = s3.client.get_object(Bucket=s3.bucket, Key=f"out/{number % 3}/{number}.png")
        with Image.open(io.BytesIO(answer["Body"].read())) as image:
            np.testing.assert_array_equal(np.asarray(image), upscaler.upscale(pixels_of(number)))

    local = [sys.executable, "-m", "loupe.cli", "upscale", *map(str, arguments), "--json"]
    again = subprocess.run(local, capture_output=True, text=True, timeout=SECONDS, check=False)
    assert json.loads(again.stdout)["skipped"] == COUNT, "one machine knows what many have done"


@pytest.fixture
def cluster(ray_folder: str, tmp_path: Path) -> Iterator[str]:
    """The address of a Ray cluster of one machine, started as an operator starts it."""
    port, log = free_port(), tmp_path / "head.log"
    with log.open("wb") as stream:
        head = subprocess.Popen(
            [
                *(sys.executable, "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2"),
                *("--node-ip-address=127.0.0.1", f"--port={port}", f"--temp-dir={ray_folder}"),
                *("--include-dashboard=false", "--disable-usage-stats"),
            ],
            stdout=stream,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        deadline = time.monotonic() + SECONDS
        while b"Ray runtime started" not in log.read_bytes():
            assert head.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.1)
        yield f"127.0.0.1:{port}"
    finally:
        os.killpg(head.pid, signal.SIGKILL)  # it has nothing to put in order
        head.wait()


def test_folders_on_a_cluster_by_its_address(cluster: str, model: Path, tmp_path: Path) -> None:
    for number in range(COUNT):
        write_png(tmp_path / "in" / f"{number}.png", pixels_of(number))
    out = tmp_path / "out"

    def upscale() -> dict[str, int]:
        done = subprocess.run(
            command("in", "-o", "out", "--model", model, "--address", cluster),  # paths of the driver's
            cwd=tmp_path,
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        found: dict[str, int] = json.loads(done.stdout)
        return found

    found = upscale()
    assert (found["done"], found["skipped"]) == (COUNT, 0)
    with Image.open(out / "7.png") as image:
        np.testing.assert_array_equal(np.asarray(image), loupe.load(model).upscale(pixels_of(7)))
    write_png(tmp_path / "in" / "3.png", pixels_of(99))
    (out / "5.png").unlink()
    found = upscale()
    assert (found["done"], found["skipped"]) == (2, COUNT - 2)
    assert len((out / ".loupe.jsonl").read_text().splitlines()) == COUNT + 2
