"""The release store: where versions lie for those who use them. A folder, or a prefix in an S3 bucket.

    versions/1.4.0.json                what was registered under this number; written once, never changed
    versions/1.4.0-0f3a5b7c9d1e/       the bundle itself, its MANIFEST.json last
    aliases/production.json            which version is in production; moved by compare-and-swap
    log/20260131T120000Z-production-000007.json    every move, once and for ever
    decisions/1.4.0-5d1c....json       why, as the gate wrote it; beside it a picture
    index.html                         all versions for people

This file knows names and bytes only; versions.py knows what they mean. Both stores keep the same contract, and the
same tests run over both. Reading a folder needs the base install, S3 boto3 (the extra `serve`).
"""

from __future__ import annotations

import hashlib
import io
import mimetypes
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from loupe.errors import InputError
from loupe.imaging.files import atomic_file
from loupe.names import safe_name
from loupe.release.manifest import CHUNK, Entry, file_entry
from loupe.s3 import connect, error_code

SMALL = 1 << 20  # bytes of a record, an alias or a manifest: they come from elsewhere and are read into memory
TRIES = 5  # in a row that brought nothing new
PAUSE = 0.5  # seconds before the second try, doubled before each further one
SECONDS = 30.0  # without a byte, until a connection counts as lost
LOST = ("412", "409", "PreconditionFailed", "ConditionalRequestConflict")  # another one was quicker
ABSENT = ("404", "NoSuchKey")


class StoreError(InputError):
    """The store cannot be used, or gives what it should not; the message names it and what to do."""


class Interrupted(Exception):  # noqa: N818  # no error until it has been tried often enough
    """A connection was lost in the middle of a file; what came is good."""


@dataclass(frozen=True)
class Stored:
    """A small object: its bytes, and a tag that is another one once it has been replaced."""

    data: bytes
    tag: str


class Store(Protocol):
    """Names and bytes. Names are relative, with `/`; no other can be read or written.

    All methods raise StoreError when the store cannot be reached or refuses, UnsafeNameError for a hostile name.
    """

    address: str

    def read(self, name: str) -> Stored | None:
        """A small object; None where there is none. Raises StoreError over SMALL bytes."""
        ...

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """The bytes of an object from `start`. Raises Interrupted when the connection is lost meanwhile."""
        ...

    def names(self, prefix: str) -> list[str]:
        """The names below a folder such as `log/`, sorted."""
        ...

    def put(self, name: str, content: BinaryIO) -> None:
        """Write an object whole, whatever was there."""
        ...

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:
        """Write an object if it still is the one with this tag (None: if there is none); whether `data` is there now.

        Of several who try at once with different data exactly one succeeds.
        """
        ...

    def remove(self, name: str) -> None:
        """Remove an object, if it is there."""
        ...


def open_store(address: str | Path) -> Store:
    """The store at `s3://BUCKET/PREFIX`, or in a folder; nothing is read or made yet.

    Raises:
        StoreError: the address is none, or boto3 is missing.
    """
    text = str(address)
    if text.startswith("s3://"):
        return S3Store(text)
    if "://" in text or not text:
        raise StoreError(f"{text!r}: no release store; give a folder, or s3://BUCKET/PREFIX")
    return FolderStore(Path(address))


class FolderStore:
    """A store in a folder of a local disk; a lock file keeps those apart who move an alias."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.address = str(root)

    def read(self, name: str) -> Stored | None:
        """See Store."""
        with self._told(name):
            try:
                with self._path(name).open("rb") as stream:
                    data = stream.read(SMALL + 1)
                    _small(len(data), f"{self.address}/{name}")
            except (FileNotFoundError, NotADirectoryError):
                return None
        return Stored(data, hashlib.sha256(data).hexdigest())

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """See Store."""
        with self._told(name), self._path(name).open("rb") as stream:
            stream.seek(start)
            while chunk := stream.read(CHUNK):
                yield chunk

    def names(self, prefix: str) -> list[str]:
        """See Store."""
        with self._told(prefix):
            below = (path.relative_to(self.root) for path in self._path(prefix).rglob("*") if path.is_file())
            return sorted(path.as_posix() for path in below)

    def put(self, name: str, content: BinaryIO) -> None:
        """See Store."""
        with self._told(name), atomic_file(self._path(name)) as stream:
            while chunk := content.read(CHUNK):
                stream.write(chunk)

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:
        """See Store."""
        from filelock import FileLock

        with self._told(name):
            self.root.mkdir(parents=True, exist_ok=True)
            with FileLock(self.root / ".lock"):  # the system frees it when its holder dies
                found = self.read(name)
                if (found.tag if found else None) != tag:
                    return found is not None and found.data == data
                self.put(name, io.BytesIO(data))
                return True

    def remove(self, name: str) -> None:
        """See Store."""
        with self._told(name):
            path = self._path(name)
            path.unlink(missing_ok=True)
            for parent in path.parents:
                if parent == self.root or not parent.is_dir() or any(parent.iterdir()):
                    break
                parent.rmdir()

    def _path(self, name: str) -> Path:
        return self.root / safe_name(name, self.address)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            reason = error.strerror or str(error)
            raise StoreError(f"{self.address}/{name}: {reason}; check the address and the permissions") from None


class S3Store:
    """A store below a prefix of an S3 bucket. Credentials and endpoint (AWS_ENDPOINT_URL) are those of the AWS CLI.

    boto3 tries a request again that fails as a whole, such as with 503; `download` goes on where a body broke off.
    """

    def __init__(self, address: str) -> None:
        self.address = address.rstrip("/")
        self.bucket, _, prefix = self.address.removeprefix("s3://").partition("/")
        if not re.fullmatch(r"[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]", self.bucket):
            raise StoreError(f"{address}: no bucket has such a name; give s3://BUCKET/PREFIX")
        self.prefix = f"{safe_name(prefix, address)}/" if prefix else ""
        try:
            self._client, self._lost_connection, self._answer = connect(address, "serve", SECONDS)
        except InputError as error:
            raise StoreError(str(error)) from None

    def read(self, name: str) -> Stored | None:
        """See Store."""
        for left in reversed(range(TRIES)):
            try:
                answer = self._get(name, ABSENT)
                if answer is None:
                    return None
                _small(answer["ContentLength"], f"{self.address}/{name}")
                return Stored(answer["Body"].read(), answer["ETag"])
            except self._lost_connection as error:
                if not left:
                    raise StoreError(f"{self.address}/{name}: {error}; try again") from None
                time.sleep(PAUSE)
        raise AssertionError("returned or raised above")

    def stream(self, name: str, start: int = 0) -> Iterator[bytes]:
        """See Store."""
        answer = self._get(name, ("416", "InvalidRange"), **({"Range": f"bytes={start}-"} if start else {}))
        if answer is None:
            return  # nothing is behind `start`
        try:
            yield from answer["Body"].iter_chunks(CHUNK // 4)
        except self._lost_connection as error:
            raise Interrupted(str(error)) from None
        finally:
            answer["Body"].close()

    def names(self, prefix: str) -> list[str]:
        """See Store."""
        below = self._key(prefix).rstrip("/") + "/"
        with self._told(prefix):
            pages = self._client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=below)
            keys = [found["Key"] for page in pages for found in page.get("Contents", [])]
        return sorted(key.removeprefix(self.prefix) for key in keys if not key.endswith("/"))

    def put(self, name: str, content: BinaryIO) -> None:
        """See Store."""
        with self._told(name):
            self._client.put_object(Bucket=self.bucket, Key=self._key(name), Body=content, ContentType=_kind(name))

    def swap(self, name: str, data: bytes, tag: str | None) -> bool:
        """See Store."""
        condition = {"IfNoneMatch": "*"} if tag is None else {"IfMatch": tag}
        key = {"Bucket": self.bucket, "Key": self._key(name)}
        with self._told(name):
            try:
                self._client.put_object(**key, Body=data, ContentType=_kind(name), **condition)
            except self._answer as error:
                if error_code(error) not in LOST + ABSENT:
                    raise
                # It may have been our own write whose answer was lost, tried again by boto3.
                found = self.read(name)
                return found is not None and found.data == data
        return True

    def remove(self, name: str) -> None:
        """See Store."""
        with self._told(name):
            self._client.delete_object(Bucket=self.bucket, Key=self._key(name))

    def _get(self, name: str, gone: tuple[str, ...], **range_: str) -> Any:
        """The answer to a request for an object; None where it is refused with a code of `gone`."""
        with self._told(name):
            try:
                return self._client.get_object(Bucket=self.bucket, Key=self._key(name), **range_)
            except self._answer as error:
                if error_code(error) in gone:
                    return None
                raise

    def _key(self, name: str) -> str:
        return self.prefix + safe_name(name, self.address)

    @contextmanager
    def _told(self, name: str) -> Iterator[None]:
        try:
            yield
        except (self._lost_connection, self._answer, ValueError) as error:
            if isinstance(error, InputError):
                raise
            place = f"{self.address}/{name}".rstrip("/")
            raise StoreError(
                f"{place}: {error}; check the address, the credentials and AWS_ENDPOINT_URL, then try again"
            ) from None


def download(store: Store, name: str, entry: Entry, target: Path) -> int:
    """Bring an object to `target`, which appears when it is whole and has the sha256 of `entry`; the bytes that came.

    What has come is kept beside it under a name made of the sha256, and the next call goes on from there.

    Raises:
        StoreError: it cannot be had, is longer or shorter than `entry` says, or has another content.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part, came = part_of(target, entry), 0
    begun = part.exists()
    while True:
        came += _complete(store, name, entry.bytes, part)
        if file_entry(part) == entry:
            part.replace(target)
            return came
        part.unlink()
        if not begun:  # else the fault may be that of bytes from an earlier call: once more, all from here
            raise StoreError(
                f"{store.address}/{name}: refused: it is not what the manifest says; it was damaged or exchanged. "
                "`loupe registry verify` looks at the whole store"
            )
        begun = False


def part_of(target: Path, entry: Entry) -> Path:
    """Where `download` keeps what has come of a file; the name is that of the content, not of the version."""
    return target.with_name(f".{entry.sha256}.part")


def _complete(store: Store, name: str, size: int, part: Path) -> int:
    """Let `part` grow to `size` bytes, going on after each interruption; the bytes that came."""
    failures = 0
    with part.open("ab") as stream:
        at_first = stream.tell()
        while (have := stream.tell()) < size:
            try:
                for chunk in store.stream(name, have):
                    if stream.tell() + len(chunk) > size:
                        raise StoreError(f"{store.address}/{name}: refused: over {size} bytes, which its manifest says")
                    stream.write(chunk)
                if stream.tell() == size:
                    break
                reason = f"it has {stream.tell()} bytes instead of {size}"
            except Interrupted as error:
                reason = str(error)
            failures = 1 if stream.tell() > have else failures + 1
            if failures >= TRIES:
                raise StoreError(f"{store.address}/{name}: {reason}; what came is kept, run again to go on")
            time.sleep(PAUSE * 2 ** (failures - 1))
        stream.flush()
        os.fsync(stream.fileno())
        return stream.tell() - at_first


def _small(size: int, place: str) -> None:
    if size > SMALL:
        raise StoreError(f"{place}: refused: over {SMALL >> 20} MiB, which nothing of its kind is")


def _kind(name: str) -> str:
    return mimetypes.guess_type(name)[0] or "application/octet-stream"
