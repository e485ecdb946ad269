"""Copies in MLflow, on a real server on loopback: MLflow's own, with a database and a folder of artifacts."""

import io
import json
import os
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from tests.release.conftest import SOURCE, Repository, make_bundle

from loupe.errors import InputError
from loupe.release.manifest import MANIFEST, identity, verify_folder, write_manifest
from loupe.release.mirror import SETTINGS, Mirrored, MirrorError, mirror
from loupe.release.registry import rollback
from loupe.release.store import Store, open_store
from loupe.release.versions import Event

pytestmark = pytest.mark.timeout(120)

Publish = Callable[..., Event]
Copy = Callable[..., Mirrored]
MISSING = "mlflow-skinny of the extra `mlflow` is not installed"
LINEAGE = {
    "data": {"data/products": "951b.dir"},
    "stages": {"train": {"params": {"model": {"D": 4, "residual": "bicubic"}, "größe (px)": [1, 2]}}},
    "packages": {f"package-{number}": "1.0" for number in range(120)},  # MLflow takes 100 tags in one later request
    "run": None,
}


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store in a folder: what kind it is makes no difference here."""
    return open_store(tmp_path / "releases")


@pytest.fixture(scope="module", autouse=True)
def settings() -> Iterator[None]:
    """MLflow's settings, before anything imports it, and with little patience."""
    with pytest.MonkeyPatch.context() as patch:
        for key, value in (SETTINGS | {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1"}).items():
            patch.setenv(key, value)
        patch.setenv("NO_PROXY", "127.0.0.1")  # a proxy of the environment must not see loopback
        yield


@pytest.fixture(scope="module")
def artifacts(settings: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the server keeps files."""
    pytest.importorskip("mlflow", reason=MISSING)
    return tmp_path_factory.mktemp("mlflow") / "artifacts"


@pytest.fixture(scope="module")
def server(artifacts: Path) -> Iterator[str]:
    """The address of an MLflow server, started once for this file.

    mlflow-skinny holds it; Flask, SQLAlchemy and Alembic, which it needs besides, come with moto and Prefect.
    """
    folder = artifacts.parent
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "mlflow", "server", "--host", "127.0.0.1", "--port", str(port), "--workers", "1"]
    command += ["--backend-store-uri", f"sqlite:///{folder}/mlflow.db", "--artifacts-destination", str(artifacts)]
    environment = os.environ | {"MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with (folder / "log").open("wb") as log:
        running = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 90
        while True:
            try:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
                break
            except OSError:
                assert running.poll() is None and time.monotonic() < until, (folder / "log").read_text()
                time.sleep(0.1)
        yield f"http://127.0.0.1:{port}"
    finally:
        running.terminate()
        running.wait(20)


@pytest.fixture
def client(server: str) -> Any:
    """MLflow's client, to see what others see."""
    from mlflow import MlflowClient

    return MlflowClient(server, server)


@pytest.fixture
def copy(server: str, store: Store, client: Any) -> Copy:
    """`mirror` into a registered model of the test's own."""
    model = f"model-{uuid.uuid4().hex}"

    def copy(name: str = "production", **options: Any) -> Mirrored:
        given: dict[str, Any] = {"model": model, "say": lambda line: None} | options
        return mirror(store, server, name, **given)

    return copy


def versions_of(client: Any, copied: Mirrored) -> list[str]:
    return [one.tags["loupe.version"] for one in client.search_model_versions(f"name = '{copied.model}'")]


def test_a_copy_is_the_bundle_with_its_scores_and_lineage(
    copy: Copy, client: Any, publish: Publish, repository: Repository, tmp_path: Path
) -> None:
    bundle = make_bundle(tmp_path / "bundle-one", "one")
    (bundle / "lineage.json").write_text(json.dumps(LINEAGE))
    write_manifest(bundle)
    commit = repository.commit("one")
    event = publish("one")

    copied = copy()

    assert copied == Mirrored("1.0.0", event.identity, copied.model, "1", True, "production")
    found = client.get_model_version_by_alias(copied.model, "production")
    assert (found.version, found.tags) == ("1", {"loupe.version": "1.0.0", "loupe.identity": event.identity})
    run = client.get_run(found.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics == {"photos/psnr_y": 34.09, "photos/ssim_y": 0.9333, "photos/gain_db": 2.23}
    tags = run.data.tags
    assert tags["loupe.commit"] == commit
    assert tags["lineage.data.data/products"] == "951b.dir"
    assert tags["lineage.stages.train.params.model.D"] == "4"
    assert tags["lineage.stages.train.params.größe _px_"] == "[1, 2]"
    assert "lineage.run" not in tags
    assert tags["lineage.packages.package-119"] == "1.0"
    # what MLflow hands out for this version is the bundle, byte for byte
    folder = Path(client.download_artifacts(found.run_id, "bundle", str(tmp_path)))
    verify_folder(folder)
    assert identity((folder / MANIFEST).read_bytes()) == event.identity
    assert client.get_model_version_download_uri(copied.model, "1") == found.source == f"{run.info.artifact_uri}/bundle"


def test_a_copy_is_made_once_and_the_alias_follows_a_rollback(
    copy: Copy, client: Any, store: Store, publish: Publish
) -> None:
    publish("one")
    first = copy()
    publish("two")
    assert client.get_model_version_by_alias(first.model, "production").version == "1"  # until it is mirrored
    second = copy()
    assert (second.number, second.version, second.copied) == ("2", "1.1.0", True)
    assert client.get_model_version_by_alias(first.model, "production").version == "2"
    assert copy() == replace(second, copied=False)

    rollback(store, by="tester", say=lambda line: None)

    assert copy() == replace(first, copied=False)
    assert client.get_model_version_by_alias(first.model, "production").version == "1"
    assert sorted(versions_of(client, first)) == ["1.0.0", "1.1.0"]


def test_mlflows_alias_never_names_what_ours_does_not(copy: Copy, client: Any, publish: Publish) -> None:
    said: list[str] = []
    publish("one")
    publish("two")
    older = copy("1.0.0", say=said.append)
    assert (older.version, older.alias) == ("1.0.0", None)
    assert any("names 1.1.0, not 1.0.0" in line for line in said)
    assert not client.get_registered_model(older.model).aliases

    assert copy("1.1.0").alias == "production"
    publish("three", alias="staging", champion=None)
    assert copy("staging").alias == "staging"
    assert copy("staging", alias="production").alias is None
    named = client.get_registered_model(older.model).aliases
    assert {alias: str(number) for alias, number in named.items()} == {"production": "2", "staging": "3"}


def test_an_alias_that_moves_while_files_travel_is_left(
    copy: Copy, client: Any, store: Store, publish: Publish
) -> None:
    publish("one")
    publish("two")

    def move(line: str) -> None:
        if "is copied" in line:
            rollback(store, by="somebody else", say=lambda line: None)

    copied = copy(say=move)

    assert (copied.version, copied.alias) == ("1.1.0", None)
    assert not client.get_registered_model(copied.model).aliases


def test_of_two_mirrors_at_once_one_registers(copy: Copy, client: Any, publish: Publish) -> None:
    publish("one")
    quicker: list[Mirrored] = []

    def overtake(line: str) -> None:
        if "is copied" in line:  # we have looked, and found no copy
            quicker.append(copy())

    copied = copy(say=overtake)

    assert quicker[0].copied
    assert copied == replace(quicker[0], copied=False)
    assert versions_of(client, copied) == ["1.0.0"]
    assert client.get_model_version_by_alias(copied.model, "production").version == "1"


def test_nothing_is_registered_before_all_files_are_there(
    copy: Copy, client: Any, server: str, artifacts: Path, publish: Publish
) -> None:
    publish("one")
    aside = artifacts.rename(artifacts.with_name("aside")) if artifacts.exists() else None
    artifacts.write_text("in the way of a folder")
    with pytest.raises(MirrorError, match=f"{server}: .*mlflow-artifacts.*run again"):
        copy()
    artifacts.unlink()
    if aside:
        aside.rename(artifacts)

    copied = copy()

    assert (copied.number, copied.copied) == ("1", True)
    experiment = client.get_experiment_by_name(copied.model).experiment_id
    assert sorted(run.info.status for run in client.search_runs([experiment])) == ["FAILED", "FINISHED"]


def test_a_damaged_version_is_not_copied(copy: Copy, client: Any, store: Store, publish: Publish) -> None:
    event = publish("to be damaged")
    store.put(f"{event.path}/model.onnx", io.BytesIO(b"TO BE damaged"))
    with pytest.raises(InputError, match="damaged or exchanged"):
        copy()
    assert not client.search_model_versions(f"tags.`loupe.identity` = '{event.identity}'")


def test_the_command_prints_json_and_nothing_else(server: str, store: Store, publish: Publish) -> None:
    publish("one")
    done = subprocess.run(
        [sys.executable, "-m", "loupe.cli", "registry", "mirror", "--name", "of-the-command", "--json"],
        env=os.environ | {"PYTHONPATH": str(SOURCE), "LOUPE_STORE": store.address, "MLFLOW_TRACKING_URI": server},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    printed = json.loads(done.stdout)
    assert (printed["model"], printed["number"], printed["alias"]) == ("of-the-command", "1", "production")
    assert f"{server}: version 1.0.0 is copied" in done.stderr
    assert "%" not in done.stderr  # no progress bar


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"uri": "localhost:5000"}, "'localhost:5000': no address of an MLflow server; it looks like http://HOST:5000"),
        ({"uri": "http://[half"}, "no address of an MLflow server"),
        ({"uri": "http://[1]/"}, "no address of an MLflow server"),
        ({"uri": "sqlite:///mlflow.db"}, "no address of an MLflow server"),
        ({"uri": "http://me:secret@127.0.0.1:9"}, "MLFLOW_TRACKING_PASSWORD"),
        ({"uri": "http://127.0.0.1:9"}, "http://127.0.0.1:9: .*check the address"),
        ({"model": "x' or name = 'y"}, "no name for a model"),
        ({"name": "9.9.9"}, "has no 9.9.9"),
        ({"alias": "prodution"}, "has no prodution"),
    ],
)
def test_what_cannot_be_is_told(
    store: Store,
    publish: Publish,
    options: dict[str, str],
    message: str,
) -> None:
    pytest.importorskip("mlflow", reason=MISSING)
    publish("one")
    given = {"uri": "http://127.0.0.1:9"} | options
    with pytest.raises(InputError, match=message) as caught:
        mirror(store, say=lambda line: None, **given)  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_without_mlflow_the_extra_is_named(store: Store, publish: Publish, monkeypatch: pytest.MonkeyPatch) -> None:
    publish("one")
    monkeypatch.setitem(sys.modules, "mlflow", None)
    with pytest.raises(MirrorError, match=r"pip install 'loupe\[mlflow\]'"):
        mirror(store, "http://127.0.0.1:9")
