"""A run's folder in S3: what launcher and machine leave there for each other, and the folders that runs share.

    s3://BUCKET/PREFIX/runs/RUN/
        order.json  code.bundle  changes.patch     what is to be computed (parcel.py); written once
        attempts/0001.json                         a machine; whoever writes a number first has it
        launcher.json                              when the launcher was last alive
        status.json                                how the machine is; its heartbeat
        log/0001-000001.txt                        its lines: attempt and number of the chunk
        result.json  result/PATH                   what came of it, result.json last
    s3://BUCKET/PREFIX/inputs/MD5/, checkpoints/KEY/    by content: for all runs

Names sort as they were written, so that a listing from the last name on gives what is new.
"""

from __future__ import annotations

import hashlib
import json
import math
import secrets
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from loupe.cloud import aws
from loupe.cloud.records import RUN_NAME, Attempt, Order, Result, Status, moment, now
from loupe.errors import InputError
from loupe.s3 import error_code

ABSENT = ("404", "NoSuchKey")
LOST = ("412", "409", "PreconditionFailed", "ConditionalRequestConflict")  # another one was quicker
TRIES = 3  # of reading an answer


class Mailbox:
    """The folder of one run. Threads may share it.

    All methods raise InputError when S3 does not answer or refuses, and CredentialsError when it does not know us.

    Args:
        stack_bucket: the bucket.
        prefix: of all keys in it.
        run: the run's name.

    Raises:
        InputError: the name cannot be a run's; boto3 is missing, or no region is set.
    """

    def __init__(self, stack_bucket: str, prefix: str, run: str) -> None:
        if not RUN_NAME.fullmatch(run):
            raise InputError(
                f"{run!r} cannot name a run: use letters, digits, `.`, `_`, `-`; begin with none of the last"
            )
        self.bucket, self.prefix, self.run = stack_bucket, prefix.strip("/"), run
        self.client = aws.client("s3")
        self._chunks: dict[int, int] = {}  # the last chunk of each attempt's log

    def write_order(self, order: Order, *, again: bool = False) -> None:
        """Publish what is to be computed.

        Args:
            order: it.
            again: in the place of an earlier order of the same, by which no machine works.

        Raises:
            InputError: the run has another order already.
        """
        if again:
            self._write("order.json", order.to_json())
        elif not self._create("order.json", order.to_json()):
            raise InputError(
                f"{self.address('order.json')}: the run {self.run} has been ordered; name this one otherwise"
            )

    def read_order(self) -> Order:
        """What is to be computed.

        Raises:
            InputError: there is no such run.
        """
        order = self.find_order()
        if order is None:
            place = self.address("order.json")
            raise InputError(f"{place}: there is no run {self.run} here; `loupe ec2 status` names those with machines")
        return order

    def find_order(self) -> Order | None:
        """What is to be computed; None if there is no such run yet."""
        data = self._read("order.json")
        if data is None:
            return None
        order = Order.from_json(data, self.address("order.json"))
        return replace(order, tracked=tuple(order.tracked))

    def write_status(self, status: Status) -> None:
        """Say how the machine is."""
        self._write("status.json", status.to_json())

    def read_status(self) -> Status | None:
        """How the machine was when it last said so; None before it first did. It may be that of an earlier attempt."""
        data = self._read("status.json")
        if data is None:
            return None
        status = Status.from_json(data, self.address("status.json"))
        return replace(status, tail=tuple(status.tail))

    def claim(self, attempt: Attempt) -> bool:
        """Take a number for a machine before it is launched; False if another launcher has it."""
        return self._create(_attempt(attempt.number), attempt.to_json())

    def save(self, attempt: Attempt) -> None:
        """Record what has become of a claimed attempt."""
        self._write(_attempt(attempt.number), attempt.to_json())

    def attempts(self) -> list[Attempt]:
        """All of them, by number."""
        names = [name for name in self._names("attempts/") if name.endswith(".json")]
        found = ((name, self._read(name)) for name in names)
        return [Attempt.from_json(data, self.address(name)) for name, data in found if data is not None]

    def append_log(self, attempt: int, lines: Sequence[str]) -> None:
        """Add lines to the log; only one process may do so for an attempt at a time.

        If this fails, the same lines may be given again: they are then not there twice.
        """
        if not lines:
            return
        if attempt not in self._chunks:
            names = list(self._names(f"log/{attempt:04}-"))
            self._chunks[attempt] = int(names[-1].removesuffix(".txt").rpartition("-")[2]) if names else 0
        number = self._chunks[attempt] + 1
        self._write(f"log/{attempt:04}-{number:06}.txt", "".join(f"{line}\n" for line in lines).encode())
        self._chunks[attempt] = number

    def log_after(self, cursor: str) -> tuple[list[str], str]:
        """What was logged after a place.

        Args:
            cursor: the place, from an earlier call; "" is the start.

        Returns:
            The lines without their ends, and the place up to which they go.
        """
        lines: list[str] = []
        for name in self._names("log/", cursor):
            lines += (self._read(name) or b"").decode(errors="replace").split("\n")[:-1]
            cursor = name
        return lines, cursor

    def log_end(self) -> str:
        """The place after all that has been logged so far."""
        return max(self._names("log/"), default="")

    def write_result(self, result: Result) -> None:
        """Say that all is done, after its files."""
        self._write("result.json", result.to_json())

    def read_result(self) -> Result | None:
        """What has been computed; None before all is there."""
        data = self._read("result.json")
        return None if data is None else Result.from_json(data, self.address("result.json"))

    def beat(self, owner: str = "") -> None:
        """Say that the launcher `owner` is alive; without a name, that the last one has ended in order."""
        self._write("launcher.json", json.dumps({"time": now(), "owner": owner}).encode() + b"\n")

    def last_beat(self) -> datetime | None:
        """When the launcher last was alive; None before it first said so."""
        found = self.watcher()
        return found[1] if found else None

    def watcher(self) -> tuple[str, datetime] | None:
        """Who launched last, "" if that has ended in order, and when it last was alive; None before anybody did."""
        data = self._read("launcher.json")
        if data is None:
            return None
        try:
            found = json.loads(data)
            return str(found.get("owner", "")), moment(str(found["time"]))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{self.address('launcher.json')}: damaged ({error}); the launcher writes it anew"
            ) from None

    def put_file(self, name: str, path: Path) -> str:
        """Store a file in the run's folder; its sha256."""
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
            stream.seek(0)
            self.upload(self._key(name), stream)
        return digest

    def get_file(self, name: str, path: Path, sha256: str) -> None:
        """Fetch a file of the run's folder; it appears when it is whole.

        Raises:
            InputError: it is not there, or has another content.
        """
        part = path.with_name(f".{secrets.token_hex(8)}.part")
        try:
            self.download(self._key(name), part)
            with part.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            if digest != sha256:
                raise InputError(
                    f"{self.address(name)}: refused: it is not what was announced (sha256 {digest[:12]}...)"
                )
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)

    def shared(self, name: str) -> str:
        """The key of something that runs share, such as inputs/MD5/hr.bin."""
        return f"{self.prefix}/{name}".lstrip("/")

    def sizes(self, prefix: str, days: float = math.inf) -> dict[str, int]:
        """The bytes of each object whose key begins with `prefix` (see `shared`), by the rest of its key; sorted.

        Args:
            prefix: of keys.
            days: objects that were written earlier than so long ago are left out.
        """
        oldest = time.time() - days * 86400
        with aws.told(f"s3://{self.bucket}/{prefix}"):
            pages = self.client.get_paginator("list_objects_v2").paginate(Bucket=self.bucket, Prefix=prefix)
            return {
                found["Key"].removeprefix(prefix): found["Size"]
                for page in pages
                for found in page.get("Contents", [])
                if found["LastModified"].timestamp() >= oldest
            }

    def upload(self, key: str, stream: BinaryIO, metadata: Mapping[str, str] | None = None) -> None:
        """Store an open file under a key of the bucket, large ones in parts.

        Args:
            key: whole, see `shared`.
            stream: at its start; it may vanish from its folder meanwhile, for it is open.
            metadata: kept with the object.
        """
        with aws.told(f"s3://{self.bucket}/{key}"):
            extra = {"Metadata": dict(metadata)} if metadata else None
            self.client.upload_fileobj(stream, self.bucket, key, ExtraArgs=extra)

    def download(self, key: str, path: Path) -> None:
        """Fetch an object of the bucket into a file, whose folder is made. For `key` see `upload`."""
        path.parent.mkdir(parents=True, exist_ok=True)
        with aws.told(f"s3://{self.bucket}/{key}"):
            self.client.download_file(self.bucket, key, str(path))

    def metadata(self, key: str) -> dict[str, str]:
        """What `upload` kept with an object."""
        with aws.told(f"s3://{self.bucket}/{key}"):
            return dict(self.client.head_object(Bucket=self.bucket, Key=key)["Metadata"])

    def address(self, name: str) -> str:
        """Where something of the run lies, for people."""
        return f"s3://{self.bucket}/{self._key(name)}"

    def _key(self, name: str) -> str:
        return self.shared(f"runs/{self.run}/{name}")

    def _read(self, name: str) -> bytes | None:
        from botocore.exceptions import BotoCoreError, ClientError

        for left in reversed(range(TRIES)):
            with aws.told(self.address(name)):
                try:
                    body = self.client.get_object(Bucket=self.bucket, Key=self._key(name))["Body"]
                except ClientError as error:
                    if error_code(error) in ABSENT:
                        return None
                    raise
                try:
                    return bytes(body.read())
                except BotoCoreError:  # the connection was lost in the middle, which boto3 does not try again
                    if not left:
                        raise
        raise AssertionError("returned or raised above")

    def _write(self, name: str, data: bytes) -> None:
        with aws.told(self.address(name)):
            self.client.put_object(Bucket=self.bucket, Key=self._key(name), Body=data, ContentType=_kind(name))

    def _create(self, name: str, data: bytes) -> bool:
        """Write an object if there is none of this name; whether `data` is there now."""
        from botocore.exceptions import ClientError

        key = {"Bucket": self.bucket, "Key": self._key(name)}
        with aws.told(self.address(name)):
            try:
                self.client.put_object(**key, Body=data, ContentType=_kind(name), IfNoneMatch="*")
            except ClientError as error:
                if error_code(error) not in LOST:
                    raise
                # it may have been our own write whose answer was lost, tried again by boto3
                return self._read(name) == data
        return True

    def _names(self, prefix: str, after: str = "") -> Iterator[str]:
        """Names in the run's folder that begin with `prefix` and come after a name, sorted."""
        start = {"StartAfter": self._key(after)} if after else {}
        with aws.told(self.address(prefix)):
            pages = self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self.bucket, Prefix=self._key(prefix), **start
            )
            found = [entry["Key"] for page in pages for entry in page.get("Contents", [])]
        yield from (key.removeprefix(self._key("")) for key in found)


def _attempt(number: int) -> str:
    return f"attempts/{number:04}.json"


def _kind(name: str) -> str:
    return "application/json" if name.endswith(".json") else "text/plain; charset=utf-8"
