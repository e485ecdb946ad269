"""New pictures are announced once, when they are all there; a real server takes the word."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.conftest import S3, picture
from tests.flows.runs import ROOT, Flow

from flows import inbox as module
from flows.inbox import EVENT, Memory
from loupe.imaging.files import write_png
from loupe.quality.inbox import digest_of

Start = Callable[[str, Path], Flow]
WATCH = "flows.inbox:watch_inbox"
EVENTS_SECONDS = 30.0  # the server writes events every five


def announced(ask: Callable[..., Any], inbox: str, count: int) -> list[dict[str, Any]]:
    """The payloads said of an inbox so far, oldest first; waits until the server has written so many."""
    body = {"filter": {"event": {"name": [EVENT]}, "order": "ASC"}, "limit": 50}
    deadline = time.monotonic() + EVENTS_SECONDS
    while True:
        events = [one for one in ask("POST", "/events/filter", body)["events"] if one["payload"]["inbox"] == inbox]
        if len(events) >= count or time.monotonic() > deadline:
            return events
        time.sleep(0.2)


def test_pictures_are_announced_once_whatever_is_done_with_them(
    start_flow: Start, ask: Callable[..., Any], tmp_path: Path
) -> None:
    watch, inbox = start_flow(WATCH, tmp_path), tmp_path / "new shoes"
    given = {"inbox": str(inbox), "settle": 0.2}

    def look() -> str:
        time.sleep(0.3)
        return watch(**given).name

    empty = watch(**given)
    assert (empty.name, empty.type) == ("Empty", "COMPLETED")
    assert "there is no such folder yet" in empty.message
    inbox.mkdir()
    assert look() == "Nothing new"

    for number in range(3):
        write_png(inbox / f"{number}.png", picture(number, 20, 20))
    (inbox / "list.csv").write_text("no picture")
    (inbox / ".hidden.png").write_bytes(b"hidden")
    (inbox / "empty.png").touch()
    (inbox / "outside.png").symlink_to("/etc/hostname")
    waiting = watch(inbox=str(inbox), settle=60)
    assert (waiting.name, waiting.type) == ("Waiting", "COMPLETED")
    assert "3 new pictures, but something there changed" in waiting.message
    time.sleep(0.3)
    first = watch(**given)
    assert (first.name, first.type) == ("Announced", "COMPLETED")
    assert "3 new of 3 pictures" in first.message

    assert look() == "Nothing new"
    shutil.copy(inbox / "0.png", inbox / "copy of 0.png")
    (inbox / "1.png").rename(inbox / "renamed.jpg")
    os.utime(inbox / "2.png")
    assert look() == "Nothing new"
    kept = (inbox / "0.png").read_bytes()
    for path in (inbox / "0.png", inbox / "copy of 0.png"):
        path.unlink()
    assert look() == "Nothing new"
    (inbox / "deep").mkdir()
    (inbox / "deep" / "again.png").write_bytes(kept)
    assert look() == "Nothing new"

    write_png(inbox / "deep" / "fourth.png", picture(4, 20, 20))
    assert look() == "Announced"
    write_png(inbox / "renamed.jpg", picture(5, 20, 20))  # another picture under a known name
    assert look() == "Announced"

    events = announced(ask, str(inbox), 3)
    assert [one["payload"] for one in events] == [
        {"inbox": str(inbox), "images": images, "new": new} for images, new in ((3, 3), (4, 1), (4, 1))
    ]
    resource = events[0]["resource"]
    assert resource["prefect.resource.id"].startswith("loupe.inbox.")
    assert resource["prefect.resource.name"] == str(inbox)
    related = {one["prefect.resource.role"]: one["prefect.resource.id"] for one in events[0]["related"]}
    assert related["flow-run"] == f"prefect.flow-run.{first.run}"


def test_an_automation_hears_it(start_flow: Start, ask: Callable[..., Any], tmp_path: Path) -> None:
    trigger = {"type": "event", "posture": "Reactive", "threshold": 1, "expect": [EVENT], "within": 0}
    trigger["match"] = {"prefect.resource.id": "loupe.inbox.*"}
    rule = {"name": "landed", "trigger": trigger, "actions": [{"type": "do-nothing"}]}
    automation = ask("POST", "/automations/", rule)["id"]
    try:
        write_png(tmp_path / "drop" / "a.png", picture(1, 20, 20))
        assert start_flow(WATCH, tmp_path)(inbox="drop", settle=0).name == "Announced"
        resource = {"resource": {"id": [f"prefect.automation.{automation}"]}}
        body = {"filter": {"event": {"name": ["prefect.automation.triggered"]}} | resource}
        deadline = time.monotonic() + EVENTS_SECONDS
        while not (heard := ask("POST", "/events/filter", body)["events"]) and time.monotonic() < deadline:
            time.sleep(0.2)
        assert heard, "no automation was woken"
    finally:
        ask("DELETE", f"/automations/{automation}")


def test_an_inbox_at_s3_is_listed_and_not_read(
    start_flow: Start, ask: Callable[..., Any], s3: S3, tmp_path: Path
) -> None:
    url = f"s3://{s3.bucket}/in"
    watch = start_flow(WATCH, tmp_path)

    def put(key: str, content: bytes) -> None:
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=content)

    assert watch(inbox=url, settle=0).name == "Nothing new"
    for key in ("in/a.png", "in/../b.JPG", "in/.hidden.png", "in/list.csv", "elsewhere/c.png"):
        put(key, key.encode())
    assert watch(inbox=url, settle=600).name == "Waiting"
    assert watch(inbox=url, settle=0).name == "Announced"
    put("in/the same.png", b"in/a.png")
    put("in/a.png", b"in/a.png")
    assert watch(inbox=url, settle=0).name == "Nothing new"
    put("in/a.png", b"another")
    assert watch(inbox=url, settle=0).name == "Announced"
    assert [one["payload"]["new"] for one in announced(ask, url, 2)] == [2, 1]
    failed = watch(inbox="s3://no-such-bucket/in", settle=0)
    assert failed.type == "FAILED"
    assert "check the address" in failed.message


NOBODY = """
from prefect.logging import disable_run_logger
from flows.inbox import watch_inbox
with disable_run_logger():
    watch_inbox.fn("inbox", 0)
"""


def test_only_what_the_server_took_is_remembered(
    start_flow: Start, ask: Callable[..., Any], prefect_env: dict[str, str], tmp_path: Path
) -> None:
    write_png(tmp_path / "inbox" / "a.png", picture(1, 20, 20))
    env = {"PREFECT_API_URL": "http://127.0.0.1:9/api", "PREFECT_CLIENT_MAX_RETRIES": "0"}  # nobody listens there
    command = [sys.executable, "-c", NOBODY]
    paths = {"PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "src")])}
    done = subprocess.run(
        command, cwd=tmp_path, env=prefect_env | paths | env, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 1
    assert "ConnectError" in done.stderr
    (path,) = (tmp_path / module.MEMORY).iterdir()
    assert json.loads(path.read_bytes())["announced"] == []

    watch = start_flow(WATCH, tmp_path)
    assert watch(settle=0).name == "Announced"
    path.write_bytes(path.read_bytes()[:-20])
    assert watch(settle=0).name == "Announced", "a damaged memory: a word too many is no harm, one too few is"
    assert "damaged" in watch.log()
    assert watch(settle=0).name == "Nothing new"
    assert len(announced(ask, "inbox", 2)) == 2


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"{}", b'{"announced": 1, "files": {}}', b'{"announced": [], "files": {"a": 1}}']
)
def test_a_damaged_memory_is_said(content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    path = module._memory_of("inbox")
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    said: list[str] = []
    assert Memory.read("inbox", said.append) == Memory("inbox")
    assert "damaged" in said[0]


def test_unchanged_files_are_not_read_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    for number in range(3):
        write_png(tmp_path / "inbox" / f"{number}.png", picture(number, 20, 20))
    memory = Memory("inbox")
    found = module._in_folder(Path("inbox"), memory)
    assert len(found.contents) == 3
    memory.write()
    (tmp_path / "inbox" / "1.png").chmod(0o600)
    write_png(tmp_path / "inbox" / "2.png", picture(7, 20, 20))
    again = Memory.read("inbox", pytest.fail)
    assert again == memory
    read: list[str] = []

    def reading(path: Path, folder: Path | None) -> str:
        read.append(path.name)
        return digest_of(path, folder)

    monkeypatch.setattr(module, "digest_of", reading)
    found = module._in_folder(Path("inbox"), again)
    assert sorted(read) == ["1.png", "2.png"], "the first is known by its stamp"
    assert len(found.contents) == 3
    assert json.loads(json.dumps(again.files))
