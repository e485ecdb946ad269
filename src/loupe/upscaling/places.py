"""Where pictures lie: files, and objects at S3 that are named and used as files are.

A copy at S3 carries a note of what it was made of in its own metadata. So no list is shared: whoever asks finds out
from the copy alone whether it is there and right, and many machines may work below one prefix. An object appears whole
or not at all; S3 sees to that.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path, PurePosixPath
from typing import BinaryIO

from loupe.errors import InputError
from loupe.imaging.files import MOST_BYTES, ImageError
from loupe.s3 import SCHEME, TRIES, Connection, connect, error_code, split

NOTE = "loupe"  # the name in the metadata
PAUSE = 0.5  # seconds before the second try of a body that broke off, doubled before each further one
UNKNOWN = ("404", "403", "NoSuchKey")  # 403 also hides what is not there from those who may not list
CHANGED = ("412", "PreconditionFailed")


class S3Error(InputError):
    """S3 refuses, or nobody answers; the message names the object and what to do."""


@dataclass(frozen=True, slots=True)
class S3Path:
    """An object at S3 or, with all below it, a folder: `s3://bucket/key`.

    etag: which content it is, where that is known. key: "" for the whole bucket.
    """

    bucket: str
    key: str
    etag: str = field(default="", compare=False)

    def __str__(self) -> str:
        return f"{SCHEME}{self.bucket}/{self.key}".rstrip("/")

    def __truediv__(self, name: object) -> S3Path:
        return S3Path(self.bucket, f"{self._below}{name}")

    @property
    def suffix(self) -> str:
        """As that of a path."""
        return PurePosixPath(self.key).suffix

    def is_relative_to(self, folder: S3Path) -> bool:
        """Whether it lies below `folder`."""
        return self.bucket == folder.bucket and self.key.startswith(folder._below)

    def name_in(self, folder: S3Path) -> str:
        """Its name below `folder`: a stranger's, with anything in it that keys may have."""
        return self.key.removeprefix(folder._below)

    def objects(self) -> Iterator[S3Path]:
        """All objects below it, as S3 sorts them.

        Raises:
            S3Error: no such bucket, no access, or nobody answers.
        """
        with _told(self):
            pages = _s3().client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=self._below)
            for found in (found for page in pages for found in page.get("Contents", ())):
                yield S3Path(self.bucket, found["Key"], found["ETag"].strip('"'))

    def known(self) -> S3Path:
        """The same with its etag, where there is such an object; else as it is.

        Raises:
            S3Error: nobody answers.
        """
        etag, _ = self._head()
        return S3Path(self.bucket, self.key, etag)

    def note(self) -> str:
        """The note that the object there carries; "" where there is none, or no object.

        Raises:
            S3Error: nobody answers.
        """
        return self._head()[1]

    def read(self) -> bytes:
        """The content of a picture, the one that `etag` names.

        Raises:
            ImageError: it is not there, has changed, is empty or over MOST_BYTES, or cannot be had.
        """
        s3 = _s3()
        which = {"IfMatch": f'"{self.etag}"'} if self.etag else {}
        for number in range(TRIES):
            try:
                answer = s3.client.get_object(Bucket=self.bucket, Key=self.key, **which)
            except (s3.answer, s3.lost) as error:
                if error_code(error) in CHANGED:
                    raise ImageError(f"{self}: refused: it was replaced after the run began; run again") from None
                raise ImageError(f"{self}: refused: cannot be read ({error}); check key and permissions") from None
            with closing(answer["Body"]) as body:
                if answer["ContentLength"] == 0:
                    raise ImageError(f"{self}: refused: the file is empty; deliver it again")
                if answer["ContentLength"] > MOST_BYTES:
                    raise ImageError(f"{self}: refused: over {MOST_BYTES >> 20} MiB; deliver it compressed")
                try:
                    data: bytes = body.read()
                    return data
                except s3.lost as error:
                    reason = str(error)
            time.sleep(PAUSE * 2**number)
        raise ImageError(f"{self}: refused: cannot be read ({reason}); run again")

    def put(self, content: BinaryIO | bytes, kind: str, note: str = "") -> None:
        """Write the object whole, whatever was there.

        Args:
            content: what is to be there.
            kind: its media type.
            note: to be carried, in ASCII.

        Raises:
            S3Error: it cannot be written.
        """
        metadata = {"Metadata": {NOTE: note}} if note else {}
        with _told(self):
            _s3().client.put_object(Bucket=self.bucket, Key=self.key, Body=content, ContentType=kind, **metadata)

    @contextmanager
    def placing(self, kind: str, note: str) -> Iterator[Path]:
        """A file to be written, in TMPDIR, which becomes the object when the block ends well.

        Raises:
            S3Error: it cannot be written.
        """
        with tempfile.TemporaryDirectory(prefix="loupe-") as folder:
            path = Path(folder) / "copy"
            yield path
            with path.open("rb") as stream:
                self.put(stream, kind, note)

    @property
    def _below(self) -> str:
        """What the keys of all objects below it begin with."""
        return f"{self.key}/" if self.key else ""

    def _head(self) -> tuple[str, str]:
        """The etag of the object there, and its note."""
        with _told(self):
            try:
                answer = _s3().client.head_object(Bucket=self.bucket, Key=self.key)
            except _s3().answer as error:
                if error_code(error) in UNKNOWN:
                    return "", ""
                raise
        return answer["ETag"].strip('"'), answer["Metadata"].get(NOTE, "")


Place = Path | S3Path


def place(name: str) -> Place:
    """The file or folder of a name, or what lies at `s3://BUCKET/KEY`.

    Raises:
        InputError: no bucket is named, or another kind of address.
    """
    if name.startswith(SCHEME):
        return S3Path(*split(name))
    if "://" in name:
        raise InputError(f"{name!r}: neither a file nor a folder; give s3://BUCKET/PREFIX for what lies elsewhere")
    return Path(name)


@cache
def _s3() -> Connection:
    """One client for all: it keeps its connections open."""
    return connect(SCHEME, "serve")


@contextmanager
def _told(where: S3Path) -> Iterator[None]:
    s3 = _s3()
    try:
        yield
    except (s3.answer, s3.lost, ValueError) as error:
        if isinstance(error, InputError):
            raise
        raise S3Error(f"{where}: {error}; check the address, the credentials and AWS_ENDPOINT_URL") from None
