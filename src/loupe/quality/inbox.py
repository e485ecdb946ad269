"""What lies in an inbox: a folder, or everything below an S3 prefix, filled by people who follow no rules.

An inbox is only read here. Hidden files are left alone, and so is what does not look like a picture by its name.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from loupe.errors import InputError
from loupe.imaging.files import MOST_BYTES, SUFFIXES, ImageError, atomic_file, read_bytes
from loupe.names import leads_out
from loupe.quality.table import shown
from loupe.s3 import connect, split

# Names of pictures that `find_images` does not look for; a shop means them to be pictures all the same, and should be
# told what became of them.
ALSO_PICTURES = {
    *(".avif", ".jfif", ".jpe", ".jxl", ".jp2", ".heic", ".heif", ".psd", ".svg", ".eps", ".ai", ".pdf", ".ico"),
    *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".tga", ".ppm"),
}


class InboxError(InputError):
    """An inbox that cannot be read; the message names it and what to do."""


@dataclass(frozen=True)
class Item:
    """One file of an inbox.

    name: its path below the inbox, as `shown`. path: where its content lies. etag: at S3, which content it is; else "".
    """

    name: str
    path: Path
    etag: str = ""


@dataclass(frozen=True)
class Listed:
    """An object at S3 as it is listed.

    name: its key below the inbox, whatever a stranger chose. etag: which content it is. changed: seconds since 1970.
    """

    name: str
    key: str
    etag: str
    bytes: int
    changed: float


@dataclass(frozen=True)
class Inbox:
    """What an inbox holds.

    folder: all paths of items are below it. items: sorted by name. others: names of what is taken for no picture.
    """

    folder: Path
    items: tuple[Item, ...]
    others: tuple[str, ...]


def read_folder(folder: Path) -> Inbox:
    """The inbox in a local folder. Links to folders, and folders named like a picture, are items: they get a reason.

    Raises:
        InboxError: there is no such folder, or a folder in it cannot be listed.
    """
    if not folder.is_dir():
        raise InboxError(f"{folder}: no such folder")
    items, others = [], []
    for path in _walk(folder):
        name = shown(path.relative_to(folder))
        if looks_like_picture(name) or (path.is_symlink() and path.is_dir()):
            items.append(Item(name, path))
        elif not path.is_dir():
            others.append(name)
    return Inbox(folder, tuple(sorted(items, key=lambda item: item.name)), tuple(sorted(others)))


def looks_like_picture(name: str) -> bool:
    """Whether a name's suffix is one that pictures have, those that cannot be decoded here included."""
    return PurePosixPath(name).suffix.lower() in SUFFIXES | ALSO_PICTURES


def _walk(folder: Path) -> Iterator[Path]:
    """All files and folders below `folder` that are not hidden; links are not followed."""

    def stop(error: OSError) -> None:
        raise InboxError(f"{error.filename}: {error.strerror}; make the folder readable")

    for top, folders, names in os.walk(folder, onerror=stop):
        folders[:] = [name for name in folders if not name.startswith(".")]
        yield from (Path(top, name) for name in [*folders, *names] if not name.startswith("."))


def digest_of(path: Path, folder: Path | None) -> str:
    """sha256 of a file; "" if it cannot be read as a picture can, or if a link leads out of `folder`."""
    if folder and leads_out(path, folder):
        return ""
    try:
        return hashlib.sha256(read_bytes(path)).hexdigest()
    except ImageError:
        return ""


def fetch_s3(url: str, folder: Path, progress: Callable[[], object] = lambda: None) -> Inbox:
    """The inbox below `s3://BUCKET/PREFIX`, its pictures brought into `folder`.

    What is there from a run that was killed is not fetched again: a file's name tells key and content (ETag). Keys are
    never used as paths. What is no longer at S3 is removed from `folder`. Credentials, region and endpoint are those of
    the AWS CLI.

    Raises:
        InputError: no such bucket, no access, nobody answers, or the extra `s3` is not installed.
    """
    bucket, _ = _place(url)
    client, errors = _client(url)
    folder.mkdir(parents=True, exist_ok=True)
    items, others = [], []
    for found in list_s3(url):
        if not looks_like_picture(found.name):
            others.append(found.name)
            continue
        digest = hashlib.sha256(f"{found.key}\n{found.etag}".encode()).hexdigest()
        path = folder / (digest[:32] + PurePosixPath(found.name).suffix.lower())
        items.append(Item(found.name, path, found.etag))
        if not path.exists():
            try:
                with atomic_file(path) as stream:
                    if found.bytes > MOST_BYTES:
                        stream.truncate(found.bytes)  # a hole: refused for its size, unread
                    else:
                        client.download_fileobj(bucket, found.key, stream, ExtraArgs=None)
            except errors as error:
                raise _told(url, error) from None
        progress()
    wanted = {item.path for item in items}
    for path in folder.iterdir():
        if path not in wanted:
            path.unlink()
    return Inbox(folder, tuple(sorted(items, key=lambda item: item.name)), tuple(sorted(others)))


def list_s3(url: str) -> Iterator[Listed]:
    """All that lies below `s3://BUCKET/PREFIX` and is not hidden, as S3 sorts it; nothing of it is read.

    Raises:
        InputError: see `fetch_s3`.
    """
    bucket, prefix = _place(url)
    client, errors = _client(url)
    try:
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix=prefix)
        for entry in (entry for page in pages for entry in page.get("Contents", ())):
            key, name = entry["Key"], entry["Key"].removeprefix(prefix)
            hidden = any(part.startswith(".") and part.strip(".") for part in name.split("/"))
            if name and not key.endswith("/") and not hidden:
                yield Listed(name, key, entry["ETag"], entry["Size"], entry["LastModified"].timestamp())
    except errors as error:
        raise _told(url, error) from None


def remove_s3(url: str, item: Item) -> bool:
    """Remove an item from S3, unless its content there is another by now; whether it was removed.

    Raises:
        InboxError: nobody answers, or it must not be removed.
    """
    bucket, prefix = _place(url)
    client, errors = _client(url)
    try:
        head = client.head_object(Bucket=bucket, Key=prefix + item.name)
        if head["ETag"] != item.etag:
            return False
        client.delete_object(Bucket=bucket, Key=prefix + item.name)
    except errors as error:
        raise InboxError(f"{url}: {item.name}: {error}; it stays in the inbox") from None
    return True


def _place(url: str) -> tuple[str, str]:
    """Bucket and prefix, which ends with `/` unless it is empty."""
    bucket, key = split(url)
    return bucket, f"{key}/" if key else ""


def _told(url: str, error: Exception) -> InboxError:
    return InboxError(f"{url}: {error}; check the address, the credentials and AWS_ENDPOINT_URL")


def _client(url: str) -> tuple[Any, tuple[type[Exception], ...]]:
    """An S3 client, and what it raises."""
    client, lost, answer = connect(url, "s3")
    return client, (lost, answer, OSError)
