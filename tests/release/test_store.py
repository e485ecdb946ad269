"""The contract of a release store, over a folder and over S3; and S3 that fails in all the ways it does."""

import hashlib
import io
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.conftest import S3
from tests.release.conftest import new_bucket
from tests.release.flaky import Flaky, flaky

from loupe.errors import InputError
from loupe.release import store as stores
from loupe.release.manifest import Entry
from loupe.release.store import S3Store, Store, StoreError, download, open_store

pytestmark = pytest.mark.timeout(60)


def entry(data: bytes) -> Entry:
    return Entry(len(data), hashlib.sha256(data).hexdigest())


def put(store: Store, name: str, data: bytes) -> None:
    store.put(name, io.BytesIO(data))


def test_names_and_bytes(store: Store) -> None:
    assert store.read("a/b.json") is None
    assert store.names("a/") == []
    put(store, "a/b.json", b"one")
    put(store, "a/c/größe 1.png", b"")
    put(store, "ab/d", b"x")
    assert store.names("a/") == ["a/b.json", "a/c/größe 1.png"]
    first = store.read("a/b.json")
    assert first is not None
    assert first.data == b"one"
    put(store, "a/b.json", b"two")
    second = store.read("a/b.json")
    assert second is not None
    assert (second.data, second.tag == first.tag) == (b"two", False)
    assert b"".join(store.stream("a/b.json")) == b"two"
    assert b"".join(store.stream("a/b.json", 1)) == b"wo"
    assert store.read("a/c/größe 1.png") is not None
    store.remove("a/b.json")
    store.remove("a/b.json")
    assert store.read("a/b.json") is None
    with pytest.raises(StoreError, match=r"a/b\.json"):
        list(store.stream("a/b.json"))


def test_compare_and_swap(store: Store) -> None:
    assert store.swap("x", b"one", None)
    assert not store.swap("x", b"two", None)
    assert store.swap("x", b"one", None), "ours is there: as when the answer to a first try was lost"
    one = store.read("x")
    assert one is not None
    assert store.swap("x", b"two", one.tag)
    assert not store.swap("x", b"three", one.tag)
    assert not store.swap("nothing", b"x", one.tag)
    two = store.read("x")
    assert two is not None
    assert two.data == b"two"


@pytest.mark.parametrize("kind", ["folder", "s3"])
def test_one_of_many_wins(kind: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    def race(address: str) -> None:
        tag = None
        for round_ in range(3):
            start = threading.Barrier(6)
            won: list[bytes] = []

            def run(name: bytes, tag: str | None, start: threading.Barrier, won: list[bytes]) -> None:
                mine = open_store(address)
                start.wait(30)
                if mine.swap("alias", name, tag):
                    won.append(name)

            names = [f"{round_}-{number}".encode() for number in range(6)]
            threads = [threading.Thread(target=run, args=(name, tag, start, won)) for name in names]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            found = open_store(address).read("alias")
            assert found is not None
            assert won == [found.data]
            tag = found.tag

    if kind == "folder":
        race(str(tmp_path / "store"))
    else:
        proxy = request.getfixturevalue("proxy")
        race(request.getfixturevalue("behind").address)
        assert proxy.requests


@pytest.mark.parametrize("name", ["../x", "/etc/passwd", "a/../../x", "a\\..\\x", "c:/x", "a\0b", ""])
def test_hostile_names(store: Store, name: str) -> None:
    for action in (store.read, store.remove, lambda name: list(store.stream(name)), lambda name: put(store, name, b"")):
        with pytest.raises(InputError, match="leads out of the folder"):
            action(name)
    with pytest.raises(InputError, match="leads out of the folder"):
        store.swap(name, b"", None)


def test_a_record_is_small(store: Store) -> None:
    put(store, "big.json", bytes(stores.SMALL + 1))
    with pytest.raises(StoreError, match=r"big\.json: refused: over 1 MiB"):
        store.read("big.json")


def test_downloads(store: Store, tmp_path: Path) -> None:
    data = bytes(range(256)) * 4096
    put(store, "a/model.onnx", data)
    target = tmp_path / "x" / "model.onnx"
    assert download(store, "a/model.onnx", entry(data), target) == len(data)
    assert target.read_bytes() == data
    part = target.with_name(f".{entry(data).sha256}.part")
    target.unlink()
    part.write_bytes(data[:1_000_000])
    assert download(store, "a/model.onnx", entry(data), target) == len(data) - 1_000_000, "only what is missing"
    part.write_bytes(b"x" * 1000)
    assert download(store, "a/model.onnx", entry(data), target) == 2 * len(data) - 1000, "once more, from the start"
    for wrong in (entry(data + b"x"), entry(data[:-1]), Entry(len(data), "0" * 64)):
        with (
            pytest.raises(StoreError, match=r"model\.onnx: .*(refused|instead of)"),
            pytest.MonkeyPatch.context() as patch,
        ):
            patch.setattr(stores, "PAUSE", 0)
            download(store, "a/model.onnx", wrong, tmp_path / "wrong")
        assert not (tmp_path / "wrong").exists()
    put(store, "a/empty", b"")
    assert download(store, "a/empty", entry(b""), tmp_path / "empty") == 0
    assert (tmp_path / "empty").read_bytes() == b""


def test_addresses() -> None:
    for address in ("", "https://bucket/x", "s3://", "s3://Bucket_/x", "s3://bucket/../x"):
        with pytest.raises(InputError):
            open_store(address)


def test_a_folder_that_may_not_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match=r"file/x: .*; check the address and the permissions"):
        put(open_store(tmp_path / "file"), "x", b"")
    assert open_store(tmp_path / "file").read("x") is None


def test_nobody_answers_for_s3(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    store = open_store("s3://shop/models")
    for action in (store.read, store.names, store.remove):
        with pytest.raises(StoreError, match=r"s3://shop/models/x: .*127\.0\.0\.1:9.*AWS_ENDPOINT_URL"):
            action("x")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "nonsense")
    with pytest.raises(StoreError, match="nonsense"):
        open_store("s3://shop/models")


def test_no_such_bucket(s3: S3) -> None:
    for action in (open_store("s3://nobody/x").read, open_store("s3://nobody/x").names):
        with pytest.raises(StoreError, match=r"s3://nobody/x/y: .*NoSuchBucket"):
            action("y")


@pytest.fixture
def proxy(s3: S3, monkeypatch: pytest.MonkeyPatch) -> Iterator[Flaky]:
    """Stands before the S3 server; no waiting between tries."""
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setattr(stores, "PAUSE", 0.01)
    monkeypatch.setattr(stores, "SECONDS", 0.5)
    with flaky(s3.endpoint) as proxy:
        yield proxy


@pytest.fixture
def behind(proxy: Flaky, s3: S3, monkeypatch: pytest.MonkeyPatch) -> S3Store:
    """A store that is reached through the proxy."""
    address = new_bucket(s3.endpoint).address
    monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
    store = open_store(address)
    assert isinstance(store, S3Store)
    return store


DATA = bytes(range(256)) * 8192  # 2 MiB


def test_a_busy_server_is_asked_again(proxy: Flaky, behind: S3Store, tmp_path: Path) -> None:
    proxy.script = {("PUT", "m"): [503], ("GET", "m"): [503], ("GET", "models/rdn-x2/x"): [500]}
    put(behind, "m", DATA)
    assert download(behind, "m", entry(DATA), tmp_path / "m") == len(DATA)
    assert behind.read("x") is None
    assert len(proxy.gets("/m")) == 2


def test_a_lost_connection_is_resumed_by_range(proxy: Flaky, behind: S3Store, tmp_path: Path) -> None:
    put(behind, "m", DATA)
    proxy.script = {("GET", "m"): [("cut", 1_000_000), ("stall", 500_000), ("cut", 0), 503]}
    assert download(behind, "m", entry(DATA), tmp_path / "m") == len(DATA)
    assert (tmp_path / "m").read_bytes() == DATA
    ranges = proxy.gets("/m")
    assert ranges[0] is None
    assert all(range_ and range_.startswith("bytes=") for range_ in ranges[1:])
    starts = [int(range_[6:-1]) for range_ in ranges[1:] if range_]
    assert starts == sorted(starts)
    assert 0 < starts[0] <= 1_000_000 < starts[-1] <= 1_500_000


def test_a_connection_that_stays_lost(proxy: Flaky, behind: S3Store, tmp_path: Path) -> None:
    put(behind, "m", DATA)
    proxy.script = {("GET", "m"): [("cut", 1_000_000), *[("cut", 0)] * stores.TRIES]}
    with pytest.raises(StoreError, match="what came is kept, run again to go on"):
        download(behind, "m", entry(DATA), tmp_path / "m")
    assert [path.suffix for path in tmp_path.iterdir()] == [".part"], "nothing under its name"
    proxy.script, proxy.requests = {}, []
    assert 0 < download(behind, "m", entry(DATA), tmp_path / "m") < len(DATA)
    assert len(proxy.gets("/m")) == 1


def test_a_record_whose_body_breaks_off(proxy: Flaky, behind: S3Store) -> None:
    put(behind, "alias", b"0123456789")
    proxy.script = {("GET", "alias"): [("cut", 4), ("stall", 4)]}
    found = behind.read("alias")
    assert found is not None
    assert found.data == b"0123456789"
    proxy.script = {("GET", "alias"): [*[("cut", 4)] * stores.TRIES]}
    with pytest.raises(StoreError, match=r"alias: .*try again"):
        behind.read("alias")


def test_a_swap_whose_answer_was_lost(proxy: Flaky, behind: S3Store) -> None:
    proxy.script = {("PUT", "alias"): [("deaf", 0)]}
    assert behind.swap("alias", b"ours", None), "written, not answered, tried again: still ours"
    found = behind.read("alias")
    assert found is not None
    proxy.script = {("PUT", "alias"): [("deaf", 0), 503]}
    assert behind.swap("alias", b"ours again", found.tag)
    assert not behind.swap("alias", b"theirs", found.tag)
