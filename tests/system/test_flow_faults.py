"""What goes wrong while a run is under way: nothing is lost, and the UI says what happened."""

from __future__ import annotations

import itertools
import resource
import socket
import threading
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from uuid import uuid4

import boto3
import numpy as np
import psutil
import pytest
from tests.conftest import S3
from tests.system.shop import RUN, Shop, until

from loupe.imaging.files import write_png

pytestmark = pytest.mark.timeout(900)

LONG = "100000"  # steps; such a training is under way until something ends it
SHORT = "300"
MINUTE = "1500"  # steps that take long enough to do something meanwhile
SEEDS = itertools.count(1)
UNDER_WAY = ("SCHEDULED", "PENDING", "RUNNING")


class Door:
    """A way to a server on loopback that can be shut: then nobody answers at its address."""

    def __init__(self, target: str) -> None:
        host, port = target.removeprefix("http://").split(":")
        self._target = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._address = self._listener.getsockname()
        self.url = f"http://127.0.0.1:{self._address[1]}"
        self.open()

    def open(self) -> None:
        """Let everybody through."""
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(self._address)
        threading.Thread(target=self._serve, args=(self._listener,), daemon=True).start()

    def shut(self) -> None:
        """Refuse connections."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)  # wakes the thread that waits for a connection
        self._listener.close()

    def _serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                near, _ = listener.accept()
                threading.Thread(target=self._join, args=(near,), daemon=True).start()

    def _join(self, near: socket.socket) -> None:
        with suppress(OSError), near, socket.create_connection(self._target) as far:
            back = threading.Thread(target=carry, args=(far, near), daemon=True)
            back.start()
            carry(near, far)
            back.join()


def carry(one: socket.socket, other: socket.socket) -> None:
    """Hand on all bytes; then neither side says anything more."""
    with suppress(OSError):
        while data := one.recv(65536):
            other.sendall(data)
    for side in (one, other):
        with suppress(OSError):
            side.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def door(s3_endpoint: str) -> Iterator[Door]:
    """What stands between DVC and its remote."""
    door = Door(s3_endpoint)
    yield door
    door.shut()


@pytest.fixture(scope="module")
def services(s3_endpoint: str, door: Door, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Shop]:
    """A shop with its services, for all tests of this file."""
    client = boto3.client(
        "s3",
        endpoint_url=s3_endpoint,
        aws_access_key_id="test",
        aws_secret_access_key="test",  # noqa: S106
        region_name="us-east-1",
    )
    s3 = S3(s3_endpoint, f"bucket-{uuid4()}", client)
    client.create_bucket(Bucket=s3.bucket)
    shop = Shop(tmp_path_factory.mktemp("faults"), s3, door.url, LOUPE_CHECKPOINT_SECONDS="0.5")
    with shop.up():
        yield shop
    assert not children(shop), "a process has outlived its run"


@pytest.fixture
def shop(services: Shop) -> Iterator[Shop]:
    """The shop; after each test people's files are as they were, and no run is under way, nor its worktree there."""
    seed = next(SEEDS)  # no test finds in DVC's cache what another has trained
    services.settings(f"train.seed={seed}", "train.steps=40", "train.validate_every=20")
    yield services
    assert services.is_untouched()
    assert not children(services), "a process has outlived its run"
    assert not list((services.folder / ".cache/flows/worktrees").glob("*"))


def children(shop: Shop) -> list[psutil.Process]:
    """The processes that work in a worktree of the shop's runs."""
    return [one for one in psutil.process_iter() if works_in(one, shop.folder / ".cache/flows/worktrees")]


def works_in(process: psutil.Process, folder: Path) -> bool:
    """Whether the working directory of a process is in a folder."""
    with suppress(psutil.Error, OSError):
        return str(process.cwd()).startswith(f"{folder}")
    return False


def command(process: psutil.Process) -> str:
    """The command line of a process."""
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def trainer(shop: Shop) -> psutil.Process | None:
    """The process that trains, which is not the shell that DVC starts it with; some shells stay."""
    found = [one for one in children(shop) if command(one).endswith("python -m loupe.stages.train")]
    return next((one for one in found if "sh -c" not in command(one)), None)


def service(shop: Shop, words: str) -> psutil.Process | None:
    """The process of a service, without its supervisor."""
    found = [one for one in psutil.process_iter() if words in command(one) and works_in(one, shop.folder)]
    return next((one for one in found if "_supervise.py" not in command(one)), None)


def kill(shop: Shop, words: str) -> None:
    """`kill -9` of a service; returns when another has taken its place."""
    dead = service(shop, words)
    assert dead is not None
    dead.kill()
    dead.wait(10)
    until(90, lambda: (new := service(shop, words)) is not None and new.pid != dead.pid, shop.logs)


def train(shop: Shop, steps: str) -> str:
    """Start a run with so many steps, and wait until it trains and has a checkpoint."""
    shop.settings(f"train.steps={steps}", f"train.validate_every={steps}")
    old = set((shop.folder / "runs").glob("*/checkpoint-*.pt"))
    run = shop.begin("retrain", promote="never")

    def begun() -> bool:
        assert shop.state(run)["state_type"] in UNDER_WAY, shop.story(run)
        return trainer(shop) is not None and bool(set((shop.folder / "runs").glob("*/checkpoint-*.pt")) - old)

    until(RUN, begun, lambda: shop.story(run))
    return run


def cancel(shop: Shop, run: str) -> None:
    """What the button in the UI does, and its end."""
    state = {"state": {"type": "CANCELLING", "name": "Cancelling"}}
    shop.ask("POST", f"flow_runs/{run}/set_state", state)
    ended = shop.end_of(run)
    assert ended["state_type"] == "CANCELLED", shop.story(run)


def goes_on(shop: Shop) -> None:
    """Assert that the next run trains from the last one's checkpoint on; end it then."""
    run = shop.begin("retrain", promote="never")
    until(RUN, lambda: "going on from step" in shop.log(run), lambda: shop.story(run))
    cancel(shop, run)
    until(60, lambda: not children(shop), lambda: shop.story(run))


def test_a_cancelled_training_leaves_a_checkpoint_and_the_next_run_goes_on(shop: Shop) -> None:
    run = train(shop, LONG)
    cancel(shop, run)
    until(60, lambda: not children(shop), lambda: shop.story(run))
    assert list((shop.folder / "runs").glob("*/checkpoint-*.pt"))
    goes_on(shop)


def test_a_killed_worker_ends_its_run_and_with_the_next_one_training_goes_on(shop: Shop) -> None:
    run = train(shop, MINUTE)
    process = trainer(shop)
    assert process is not None
    process.suspend()  # on a fast machine it would end before the worker does
    kill(shop, "prefect worker start")
    process.resume()
    ended = shop.end_of(run)
    assert ended["state_type"] == "CRASHED", shop.story(run)
    until(60, lambda: not children(shop), lambda: shop.story(run))
    again = shop.finish("retrain", promote="never")
    assert again["state_name"] == "Judged", shop.story(again["id"])
    assert "going on from step" in shop.log(again["id"])


def test_a_server_that_comes_back_hears_the_end(shop: Shop) -> None:
    run = train(shop, MINUTE)
    kill(shop, "prefect server start")
    ended = shop.end_of(run)
    assert ended["state_name"] == "Judged", shop.story(run)


def test_a_run_keeps_its_place_in_the_queue_when_the_server_comes_back(shop: Shop) -> None:
    run = train(shop, LONG)
    lease = shop.state(run)["state"]["state_details"]["deployment_concurrency_lease_id"]
    kill(shop, "prefect server start")
    # What a run asks for every few minutes: Prefect ends it when the server knows nothing of its lease.
    shop.ask("POST", f"v2/concurrency_limits/leases/{lease}/renew", {"lease_duration": 300})
    cancel(shop, run)
    until(60, lambda: not children(shop), lambda: shop.story(run))


def test_a_remote_that_is_away_for_a_while_is_waited_for(shop: Shop, door: Door) -> None:
    run = train(shop, SHORT)
    door.shut()
    try:
        until(RUN, lambda: "will start" in shop.log(run), lambda: shop.story(run))
    finally:
        door.open()
    ended = shop.end_of(run)
    assert ended["state_name"] == "Judged", shop.story(run)


def test_two_at_once_wait_for_each_other_and_the_second_finds_nothing_new(shop: Shop) -> None:
    first, second = (shop.begin("retrain", promote="never") for _ in range(2))
    ended = sorted((shop.end_of(run) for run in (first, second)), key=lambda run: run["start_time"])
    assert [run["state_name"] for run in ended] == ["Judged", "NotNeeded"], shop.story(second)
    assert ended[0]["end_time"] <= ended[1]["start_time"]
    assert "judged before" in ended[1]["name"]


def test_an_image_that_must_not_be_trained_on_stops_the_run_and_is_named(shop: Shop) -> None:
    blank = shop.folder / "data/products/blank.png"
    write_png(blank, np.full((300, 300, 3), 250, np.uint8))
    try:
        shop.run("dvc", "add", "-q", "data/products")
        shop.run("dvc", "push", "-q", "data.dvc")
        shop.commit("Add a picture without looking at it")
        ended = shop.finish("retrain", promote="auto")
        assert ended["state_type"] == "FAILED"
        shown = shop.artifacts(ended["id"])
        assert "blank.png" in shown["validation"]
        assert "validation" in shown["links"]
    finally:
        blank.unlink(missing_ok=True)
        shop.run("dvc", "add", "-q", "data/products")
        shop.commit("Remove it again")


def test_a_full_disk_is_named_and_the_next_run_goes_on(shop: Shop) -> None:
    run = train(shop, LONG)
    process = trainer(shop)
    assert process is not None
    process.rlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # what a full disk is to it: its next checkpoint fails
    ended = shop.end_of(run)
    assert ended["state_type"] == "FAILED", shop.story(run)
    assert "cannot write a checkpoint" in shop.log(run)
    goes_on(shop)
