"""Reports are where people can open them: whole or not at all, in a folder and at S3, and nothing else of the disk."""

import io
import os
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO
from urllib.parse import parse_qs, urlsplit
from urllib.request import ProxyHandler, build_opener

import pytest
from tests.conftest import S3, picture

from flows import publish as module
from flows.publish import PLACE, PublishError, is_zip, publish
from flows.serve import server
from loupe.errors import InputError
from loupe.imaging.files import write_png

PICTURES = "pictures/0001/sr.png", "pictures/größe 1.png"


@pytest.fixture(autouse=True)
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for name in ("LOUPE_REPORTS", "LOUPE_REPORTS_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture
def report(project: Path) -> Path:
    folder = project / "reports" / "evaluation"
    for seed, name in enumerate(PICTURES):
        write_png(folder / name, picture(seed, 20, 20))
    (folder / "index.html").write_text("<!doctype html><title>größe</title>")
    (folder / ".gitignore").write_text("/pictures")
    return folder


@pytest.fixture
def base() -> Iterator[Callable[[], str]]:
    """Serves the place of reports, as `loupe flows up` does."""
    with server(PLACE, 0) as pages:
        thread = threading.Thread(target=pages.serve_forever)
        thread.start()
        yield lambda: f"http://127.0.0.1:{pages.server_port}"
        pages.shutdown()
        thread.join()


def fetch(address: str) -> tuple[bytes, str]:
    """Content and media type."""
    with build_opener(ProxyHandler({})).open(address, timeout=10) as response:
        return response.read(), response.headers["Content-Type"]


def files_below(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def shown(report: Path) -> dict[str, bytes]:
    return {name: content for name, content in files_below(report).items() if not name.startswith(".")}


def test_a_folder_that_is_served(report: Path, base: Callable[[], str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert publish(report, "run-1", "evaluation") == "http://127.0.0.1:4210/run-1/evaluation/index.html"
    assert files_below(PLACE / "run-1" / "evaluation") == shown(report)
    monkeypatch.setenv("LOUPE_REPORTS_URL", base() + "/")
    address = publish(report, "run-2", "evaluation")
    assert fetch(address) == ((report / "index.html").read_bytes(), "text/html; charset=utf-8")
    content, kind = fetch(address.replace("index.html", PICTURES[0]))
    assert (content, kind) == ((report / PICTURES[0]).read_bytes(), "image/png")
    assert not is_zip(address)


def test_a_report_is_replaced_as_a_whole_or_stays(report: Path, project: Path) -> None:
    publish(report, "run", "evaluation")
    (report / PICTURES[0]).unlink()
    (report / "new.csv").write_text("1")
    publish(report, "run", "evaluation")
    there = files_below(PLACE)
    assert there == {f"run/evaluation/{name}": content for name, content in shown(report).items()}

    (project / "secret.png").write_text("secret")
    (report / "a-link.png").symlink_to(project / "secret.png")
    with pytest.raises(PublishError, match=r"a-link\.png is a link out of the report"):
        publish(report, "run", "evaluation")
    assert files_below(PLACE) == there


def test_a_place_that_cannot_be_written(report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_REPORTS", "/dev/full/reports")
    with pytest.raises(PublishError, match=r"/dev/full/reports: the report evaluation cannot be written: Not a dir"):
        publish(report, "run", "evaluation")


def test_links_inside_are_files_and_all_that_is_none_is_refused(report: Path, project: Path) -> None:
    (report / "same.png").symlink_to(PICTURES[0])
    publish(report, "run", "evaluation")
    copy = PLACE / "run" / "evaluation" / "same.png"
    assert copy.read_bytes() == (report / PICTURES[0]).read_bytes()
    assert not copy.is_symlink()
    outside = project / "outside"
    outside.mkdir()
    (outside / "secret.png").touch()
    for name, make in (
        ("folder", lambda path: path.symlink_to(outside)),
        ("gone", lambda path: path.symlink_to("nowhere")),
        ("round", lambda path: path.symlink_to("round")),
        ("pipe", os.mkfifo),
        ("line\nbreak.png", Path.touch),
        (os.fsdecode(b"\xff.png"), Path.touch),
        ("back\\slash.png", Path.touch),
    ):
        make(report / name)
        with pytest.raises(InputError):
            publish(report, "run-2", "evaluation")
        (report / name).unlink()
    assert not (PLACE / "run-2" / "evaluation").exists()


@pytest.mark.parametrize("name", ["", "..", ".hidden", "a/b", "a b", "ü", "a\n", "x" * 300])
def test_names_that_are_none(report: Path, name: str) -> None:
    for run, what in ((name, "evaluation"), ("run", name)):
        with pytest.raises(PublishError, match="no name for a report"):
            publish(report, run, what)


def test_no_report_and_no_place(project: Path, report: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PublishError, match=r"holds no index\.html"):
        publish(project / "nowhere", "run", "evaluation")
    monkeypatch.setenv("LOUPE_REPORTS", "https://shop/reports")
    with pytest.raises(PublishError, match="LOUPE_REPORTS=https://shop/reports: no place for reports"):
        publish(report, "run", "evaluation")


def test_at_s3_behind_an_address(report: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_REPORTS", f"s3://{s3.bucket}/loupe/reports/")
    monkeypatch.setenv("LOUPE_REPORTS_URL", f"{s3.endpoint}/{s3.bucket}/loupe/reports")
    address = publish(report, "run", "evaluation")
    assert address == f"{s3.endpoint}/{s3.bucket}/loupe/reports/run/evaluation/index.html"
    keys = [one["Key"] for one in s3.client.list_objects_v2(Bucket=s3.bucket)["Contents"]]
    assert sorted(keys) == sorted(f"loupe/reports/run/evaluation/{name}" for name in shown(report))
    for name, kind in (("index.html", "text/html; charset=utf-8"), (PICTURES[0], "image/png")):
        found = s3.client.get_object(Bucket=s3.bucket, Key=f"loupe/reports/run/evaluation/{name}")
        assert found["ContentType"] == kind
        assert found["Body"].read() == (report / name).read_bytes()


def test_the_page_goes_when_all_that_it_shows_is_there(report: Path) -> None:
    files = module._files(report)
    there: dict[str, bytes] = {}

    def put(key: str, content: BinaryIO) -> None:
        there[key] = content.read()

    module._put_all(files, "run/evaluation", put)
    assert there == {f"run/evaluation/{name}": content for name, content in shown(report).items()}
    assert list(there)[-1] == "run/evaluation/index.html"
    there.clear()

    def put_no_pictures(key: str, content: BinaryIO) -> None:
        if key.endswith(".png"):
            raise PublishError("the bucket is full")
        put(key, content)

    with pytest.raises(PublishError, match="full"):
        module._put_all(files, "run/evaluation", put_no_pictures)
    assert not there


def test_at_s3_without_an_address_it_is_a_zip(report: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_REPORTS", f"s3://{s3.bucket}/reports")
    os.utime(report / "index.html", (0, 0))  # before the calendar of zip files begins
    address = publish(report, "run", "evaluation")
    assert is_zip(address)
    query = parse_qs(urlsplit(address).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"], "buckets made since 2020 take no older signature"
    assert query["X-Amz-Expires"] == [str(module.SECONDS)]
    content, kind = fetch(address)
    assert kind == "application/zip"
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {f"evaluation/{name}": content for name, content in shown(report).items()}


def test_at_s3_without_a_bucket(report: Path, s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOUPE_REPORTS", "s3://no-such-bucket/reports")
    with pytest.raises(PublishError, match=r"s3://no-such-bucket/reports/run/evaluation\.zip: cannot be written"):
        publish(report, "run", "evaluation")
