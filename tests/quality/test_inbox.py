"""What is found in an inbox: in a folder that strangers fill, and at S3."""

import os
import time
from pathlib import Path

import pytest
from tests.conftest import S3

from loupe.errors import InputError
from loupe.quality.inbox import InboxError, fetch_s3, list_s3, read_folder, remove_s3


def test_a_folder_is_read_and_links_and_folders_called_like_pictures_are_named(tmp_path: Path) -> None:
    inbox, outside = tmp_path / "inbox", tmp_path / "outside"
    for path in (inbox / "b.png", inbox / "sub" / "a.JPG", inbox / "c.heic", inbox / "list.csv", inbox / ".d.png"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    outside.mkdir()
    (outside / "secret.png").touch()
    (inbox / ".hidden").mkdir()
    (inbox / ".hidden" / "e.png").touch()
    (inbox / "link").symlink_to(outside)
    (inbox / "round").symlink_to(inbox)
    (inbox / "folder.png").mkdir()
    (inbox / "folder.png" / "f.png").touch()
    Path(os.fsdecode(os.fsencode(inbox) + b"/\xff.png")).touch()
    found = read_folder(inbox)
    assert [item.name for item in found.items] == [
        *("\\xff.png", "b.png", "c.heic", "folder.png", "folder.png/f.png", "link", "round", "sub/a.JPG")
    ]
    assert found.others == ("list.csv",)
    assert all(item.path.is_relative_to(inbox) for item in found.items)


def test_no_folder(tmp_path: Path) -> None:
    with pytest.raises(InboxError, match="nowhere: no such folder"):
        read_folder(tmp_path / "nowhere")


def test_s3_is_fetched_once_whatever_the_keys_are(s3: S3, tmp_path: Path) -> None:
    keys = ["in/a.png", "in/../../b.png", "in/=1+1 '$(id)'.png", "in/x//y.png", "in/.hidden.png", "in/", "in/notes.txt"]
    for number, key in enumerate([*keys, "inner/c.png"]):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=bytes([number]) * 9)
    inbox = fetch_s3(f"s3://{s3.bucket}/in", tmp_path / "work")
    contents = {item.name: item.path.read_bytes() for item in inbox.items}
    assert contents == {name: bytes([number]) * 9 for number, name in enumerate(key[3:] for key in keys[:4])}
    assert inbox.others == ("notes.txt",)
    assert all(item.path.parent == tmp_path / "work" for item in inbox.items)

    kept = {item.name: item.path.stat().st_mtime_ns for item in inbox.items}
    s3.client.put_object(Bucket=s3.bucket, Key="in/a.png", Body=b"new")
    s3.client.delete_object(Bucket=s3.bucket, Key="in/x//y.png")
    again = fetch_s3(f"s3://{s3.bucket}/in", tmp_path / "work")
    times = {item.name: item.path.stat().st_mtime_ns for item in again.items}
    assert set(times) == {"a.png", "../../b.png", "=1+1 '$(id)'.png"}
    assert [name for name in times if times[name] == kept[name]] == ["../../b.png", "=1+1 '$(id)'.png"]
    assert len(list((tmp_path / "work").iterdir())) == 3

    stale = next(item for item in inbox.items if item.name == "a.png")
    assert not remove_s3(f"s3://{s3.bucket}/in", stale), "another content by now: it stays"
    assert remove_s3(f"s3://{s3.bucket}/in", again.items[0])
    assert len(fetch_s3(f"s3://{s3.bucket}/in", tmp_path / "work").items) == 2


def test_an_s3_inbox_is_listed_without_being_read(s3: S3) -> None:
    for key in ("in/b.png", "in/../a.png", "in/.hidden.png", "in/", "in/notes.txt", "inner/c.png"):
        s3.client.put_object(Bucket=s3.bucket, Key=key, Body=key.encode())
    found = list(list_s3(f"s3://{s3.bucket}/in/"))
    assert [(one.name, one.key, one.bytes) for one in found] == [
        *(("../a.png", "in/../a.png", 11), ("b.png", "in/b.png", 8), ("notes.txt", "in/notes.txt", 12)),
    ]
    assert found[0].etag != found[1].etag
    assert all(abs(time.time() - one.changed) < 60 for one in found)


@pytest.mark.parametrize("url", ["s3://", "s3://no-such-bucket/in"])
def test_an_s3_inbox_that_is_not_there(s3: S3, tmp_path: Path, url: str) -> None:
    with pytest.raises(InputError, match=url):
        fetch_s3(url, tmp_path / "work")
