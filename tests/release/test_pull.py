"""What a consumer does: pull with the base install alone, or with nothing of ours by plain HTTP."""

import hashlib
import http.server
import io
import json
import shutil
import threading
import urllib.request
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from tests.conftest import S3
from tests.release.conftest import make_bundle, new_bucket, python
from tests.release.flaky import flaky

from loupe.errors import InputError
from loupe.release import store as stores
from loupe.release.manifest import identity, verify_folder, write_manifest
from loupe.release.pull import pull
from loupe.release.registry import rollback
from loupe.release.store import Store, Stored, StoreError, open_store
from loupe.release.versions import Event, RegistryError, encode, read_alias

pytestmark = pytest.mark.timeout(60)
Publish = Callable[..., Event]
on_disk = pytest.mark.parametrize("store", ["folder"], indirect=True)
at_s3 = pytest.mark.parametrize("store", ["s3"], indirect=True)


def silent(line: str) -> None:
    pass


def test_what_is_there_is_not_fetched_again(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("one")
    out = tmp_path / "deep" / "model"
    first = pull(store, out, say=silent)
    assert (first.version, (out / "model.onnx").read_text()) == ("1.0.0", "one")
    assert first.fetched == sum(path.stat().st_size for path in out.rglob("*") if path.is_file())
    asked: list[str] = []
    real = store.read

    def read(name: str) -> Stored | None:
        asked.append(name)
        return real(name)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "read", read)
        assert pull(store, out, say=silent).fetched == 0
    assert asked == ["aliases/production.json"]
    publish("two")
    assert pull(store, out, say=silent).version == "1.1.0"
    assert (out / "model.onnx").read_text() == "two"
    assert pull(store, out, "1.0.0", silent).version == "1.0.0"
    (out / "model.onnx").write_text("mine")
    lines: list[str] = []
    assert pull(store, out, "1.0.0", lines.append).fetched > 0
    assert "model.onnx is damaged; get it again: fetched again" in lines[0]
    verify_folder(out)
    assert {path.name for path in out.parent.iterdir()} <= {"model", ".model.lock"}


@at_s3
def test_a_pull_that_was_cut_off_goes_on(
    s3: S3, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, publish: Publish, store: Store
) -> None:
    monkeypatch.setattr(stores, "PAUSE", 0)
    make_bundle(tmp_path / "bundle-big", "big", size=1 << 20)
    publish("big")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    with flaky(s3.endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        behind = open_store(store.address)
        proxy.script = {("GET", "model.onnx"): [("cut", 600_000), *[("cut", 0)] * stores.TRIES]}
        with pytest.raises(StoreError, match="run again to go on"):
            pull(behind, tmp_path / "out", say=silent)
        assert not (tmp_path / "out").exists(), "nothing is visible half"
        proxy.script = {}
        assert pull(behind, tmp_path / "out", say=silent).fetched < 600_000
    verify_folder(tmp_path / "out")


@on_disk
def test_leftovers_of_another_version_do_no_harm(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("one")
    part = tmp_path / "out.part"
    shutil.copytree(tmp_path / "bundle-one", part)
    (part / "extra").mkdir()
    (part / "extra" / "x").touch()
    (part / "link").symlink_to("/etc/passwd")
    (part / "golden" / f".{'0' * 64}.part").touch()
    (part / "metrics.json").write_text("old")
    publish("two")
    pull(store, tmp_path / "out", say=silent)
    assert verify_folder(tmp_path / "out") == verify_folder(tmp_path / "bundle-two")


@on_disk
def test_what_is_not_replaced(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("one")
    home = tmp_path / "home"
    home.mkdir()
    (home / "thesis.tex").touch()
    with pytest.raises(RegistryError, match="holds no bundle; choose a new folder"):
        pull(store, home, say=silent)
    with pytest.raises(RegistryError, match="holds no bundle"):
        pull(store, home / "thesis.tex", say=silent)
    with pytest.raises(RegistryError, match="what came is kept, mend that"):
        pull(store, home / "thesis.tex" / "x", say=silent)
    with pytest.raises(RegistryError, match=r"has no 3\.0\.0"):
        pull(store, tmp_path / "out", "3.0.0", silent)
    with pytest.raises(RegistryError, match=r"has no staging; `loupe registry list`"):
        pull(store, tmp_path / "out", "staging", silent)
    with pytest.raises(RegistryError, match="no alias has such a name"):
        pull(store, tmp_path / "out", "../production", silent)
    assert sorted(path.name for path in home.iterdir()) == ["thesis.tex"]
    assert not (tmp_path / "out").exists()


@on_disk
def test_links_and_the_present_folder(
    store: Store, publish: Publish, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish("one")
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    assert pull(store, tmp_path / "link", say=silent).folder == tmp_path / "real"
    assert (tmp_path / "link").is_symlink()
    verify_folder(tmp_path / "real")
    monkeypatch.chdir(tmp_path / "real")
    assert pull(store, Path(), say=silent).fetched == 0
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RegistryError, match="holds no bundle"):
        pull(store, Path(), say=silent)


def forge(store: Store, **changes: Any) -> None:
    """Another production alias than the real one."""
    event = read_alias(store, "production")
    assert event is not None
    store.put("aliases/production.json", io.BytesIO(encode(event.to_json() | changes)))


@on_disk
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"identity": "0" * 64}, "damaged, or not written by loupe"),
        ({"identity": "0" * 64, "path": f"versions/1.0.0-{'0' * 12}"}, "is not there: 1.0.0 was not finished"),
        ({"version": "9.0.0"}, "damaged, or not written by loupe"),
        ({"version": "../..", "path": "versions/../..-0"}, "damaged, or not written by loupe"),
        ({"path": "../../etc"}, "damaged, or not written by loupe"),
        ({"alias": "staging"}, "damaged, or not written by loupe"),
        ({"alias": "../x"}, "damaged, or not written by loupe"),
        ({"generation": 0}, "damaged, or not written by loupe"),
        ({"generation": True}, "damaged, or not written by loupe"),
        ({"event": "steal"}, "damaged, or not written by loupe"),
        ({"event": "remove"}, "damaged, or not written by loupe"),
        ({"by": "two\nlines"}, "damaged, or not written by loupe"),
        ({"reason": None}, "damaged, or not written by loupe"),
        ({"moved_at": "2026-1-1T00:00:00Z"}, "damaged, or not written by loupe"),
        ({"decision": {"path": "../x", "sha256": "0" * 64}}, "damaged, or not written by loupe"),
        ({"decision": []}, "damaged, or not written by loupe"),
        ({"from": 1}, "damaged, or not written by loupe"),
        ({"format": 2}, "its format is 2; this version of loupe reads 1"),
    ],
)
def test_forged_aliases(store: Store, publish: Publish, tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    publish("one")
    forge(store, **changes)
    with pytest.raises(RegistryError, match=message):
        pull(store, tmp_path / "out", say=silent)
    assert not (tmp_path / "out").exists()


@on_disk
@pytest.mark.parametrize("content", [b"", b"[]", b"[" * 100_000, b"null", b'{"format": 1}', b"\xff"])
def test_no_alias_at_all(store: Store, tmp_path: Path, content: bytes) -> None:
    store.put("aliases/production.json", io.BytesIO(content))
    with pytest.raises(RegistryError, match=r"production\.json: damaged"):
        pull(store, tmp_path / "out", say=silent)


def test_what_was_tampered_with(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("good")
    event = publish("bad")
    for name, data, message in (
        ("model.onnx", b"BAD", r"model\.onnx: refused: it is not what the manifest says"),
        ("model.onnx", b"bad, and more", r"model\.onnx: refused: over 3 bytes"),
        ("model.onnx", b"ba", r"model\.onnx: it has 2 bytes instead of 3"),
        ("MANIFEST.json", (tmp_path / "bundle-good" / "MANIFEST.json").read_bytes(), "not the manifest that was"),
        ("MANIFEST.json", b"{}", "not the manifest that was registered"),
    ):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(stores, "PAUSE", 0)
            store.put(f"{event.path}/{name}", io.BytesIO(data))
            with pytest.raises(InputError, match=message):
                pull(store, tmp_path / "out", say=silent)
        assert not (tmp_path / "out").exists()
        store.put(f"{event.path}/{name}", io.BytesIO((tmp_path / "bundle-bad" / name).read_bytes()))
    assert pull(store, tmp_path / "out", say=silent).version == "1.1.0"


@on_disk
@pytest.mark.parametrize("names", [["../evil"], ["/evil"], ["a", "a/b"], ["MANIFEST.json"]])
def test_a_hostile_manifest(store: Store, publish: Publish, tmp_path: Path, names: list[str]) -> None:
    """Whoever can write to the store can name any manifest, but no file outside of the folder."""
    publish("one")
    files = {name: {"bytes": 4, "sha256": hashlib.sha256(b"evil").hexdigest()} for name in names}
    data = json.dumps({"format": 1, "files": files}).encode()
    path = f"versions/1.0.0-{identity(data)[:12]}"
    store.put(f"{path}/MANIFEST.json", io.BytesIO(data))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "stream", lambda name, start=0: iter([b"evil"]))
        forge(store, identity=identity(data), path=path)
        with pytest.raises(InputError):
            pull(store, tmp_path / "out", say=silent)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "evil").exists()


BARE = """
import sys
from pathlib import Path

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {absent}:
            raise ModuleNotFoundError(name)

sys.meta_path.insert(0, Absent())
sys.argv = ["loupe", "registry", *sys.argv[1:]]
from loupe.cli import main
main()
"""
HEAVY = ("torch", "dvc", "gto", "git", "requests", "jinja2", "lightning", "onnxruntime", "s3fs", "prefect")


def bare(*arguments: object, absent: tuple[str, ...] = HEAVY) -> str:
    """`loupe registry ...` where these packages and git are not installed; its output."""
    run = python(BARE.replace("{absent}", repr(set(absent))), *arguments, PATH="/nowhere")
    output = run.communicate(timeout=60)[0]
    assert run.returncode == 0, output
    return output


@on_disk
def test_pull_needs_the_base_install_only(store: Store, publish: Publish, tmp_path: Path) -> None:
    publish("one")
    publish("two")
    absent = (*HEAVY, "boto3", "botocore")
    assert "version 1.1.0" in bare("pull", "--store", store.address, "-o", tmp_path / "out", absent=absent)
    verify_folder(tmp_path / "out")
    for command in ("list", "show", "history"):
        assert "1.1.0" in bare(command, "--store", store.address, absent=absent)
    said = bare("rollback", "--store", store.address, "--by", "night shift", "--reason", "halos", absent=absent)
    assert "git is not installed" in said
    assert "production: 1.1.0 -> 1.0.0" in said
    assert json.loads(bare("pull", "--store", store.address, "-o", tmp_path / "out", "--json"))["version"] == "1.0.0"


@at_s3
def test_pull_from_s3_needs_boto3_besides(s3: S3, publish: Publish, store: Store, tmp_path: Path) -> None:
    publish("one")
    assert "version 1.0.0" in bare("pull", "--store", store.address, "-o", tmp_path / "out")
    verify_folder(tmp_path / "out")
    with pytest.raises(AssertionError, match=r"S3 needs the extra `serve`: pip install 'loupe\[serve\]'"):
        bare("pull", "--store", store.address, "-o", tmp_path / "out", absent=(*HEAVY, "boto3"))
    assert new_bucket(s3.endpoint).names("aliases/") == []


@pytest.fixture
def web(tmp_path: Path) -> Iterator[str]:
    """A plain web server on loopback that shows the folder `releases`."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            pass

    handler = partial(Quiet, directory=str(tmp_path / "releases"))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    server.server_close()
    thread.join()


@on_disk
def test_plain_http_does(store: Store, publish: Publish, web: str, tmp_path: Path) -> None:
    """The steps of docs/registry.md, with nothing of ours."""
    publish("one")
    publish("two")
    rollback(store, by="tester")
    get = urllib.request.build_opener(urllib.request.ProxyHandler({})).open
    alias = json.load(get(f"{web}/aliases/production.json"))
    manifest = get(f"{web}/{alias['path']}/MANIFEST.json").read()
    assert hashlib.sha256(manifest).hexdigest() == alias["identity"]
    for name, entry in json.loads(manifest)["files"].items():
        data = get(f"{web}/{alias['path']}/{quote(name)}").read()
        assert len(data) == entry["bytes"]
        assert hashlib.sha256(data).hexdigest() == entry["sha256"]
        (tmp_path / "out" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / name).write_bytes(data)
    assert write_manifest(tmp_path / "out") == manifest
    assert (tmp_path / "out" / "model.onnx").read_text() == "one"
