"""Reports where people can open them: in a folder that is served over HTTP, or at S3.

    publish(Path("reports/evaluation"), run, "evaluation")      # http://127.0.0.1:4210/RUN/evaluation/index.html

    LOUPE_REPORTS       where to: a folder (.cache/flows/reports if absent), or s3://BUCKET/PREFIX
    LOUPE_REPORTS_URL   the address under which that place is served (http://127.0.0.1:4210 if absent)

At S3 without LOUPE_REPORTS_URL nothing serves the place. A page whose hundreds of pictures lie beside it cannot be
presigned: each file would need an address of its own, and the page knows them by their names. So all of it becomes one
zip, to be unpacked and opened from the disk, for which the page is made; its presigned address is good for 7 days, or
for as long as the credentials are that signed it.
"""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import BinaryIO

from flows.serve import TYPES, UNKNOWN
from flows.settings import FOLDER, LOOPBACK, REPORTS_PORT
from loupe.errors import InputError
from loupe.imaging.files import atomic_folder
from loupe.names import leads_out, printable, safe_name
from loupe.s3 import SCHEME, connect, split
from loupe.threads import in_order

PLACE = FOLDER / "reports"
PAGE = "index.html"
PART = r"[A-Za-z0-9][A-Za-z0-9._-]{0,199}"  # of an address: a run, or a report
KINDS = TYPES | {".zip": "application/zip"}
SECONDS = 7 * 24 * 3600  # the longest for which S3 signs
UPLOADS = 8  # at once: small files, each of which waits for an answer


class PublishError(InputError):
    """A report that cannot be published; the message says which file or place, and what to do."""


def publish(folder: Path, run: str, name: str) -> str:
    """Copy a report to the place of reports; it is there whole, or not at all.

    Args:
        folder: holds index.html and what it shows. Hidden files are left out.
        run, name: what it is called there, in letters, digits, `.`, `_` and `-`; one that is there is replaced.

    Returns:
        The address that a browser opens: of index.html, or of a zip (see above), which ends with `.zip` but for its
        query.

    Raises:
        PublishError: no report, a file that is none or lies elsewhere, or the place cannot be written.
        UnsafeNameError: a file whose name cannot be part of an address.
    """
    for part in (run, name):
        if not re.fullmatch(PART, part):
            raise PublishError(f"{printable(part)!r}: no name for a report; use letters, digits, '.', '_' and '-'")
    files = _files(folder)
    place = os.environ.get("LOUPE_REPORTS") or str(PLACE)
    served = os.environ.get("LOUPE_REPORTS_URL", "").rstrip("/")
    if "://" in place and not place.startswith(SCHEME):
        raise PublishError(f"LOUPE_REPORTS={place}: no place for reports; give a folder, or s3://BUCKET/PREFIX")
    try:
        if place.startswith(SCHEME):
            return _publish_to_s3(files, place, run, name, served)
        with atomic_folder(Path(place) / run / name) as target:
            for below, path in files.items():
                (target / below).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(path, target / below)
    except OSError as error:
        hint = f"{error.strerror or error}; make room there, or set LOUPE_REPORTS"
        raise PublishError(f"{place}: the report {name} cannot be written: {hint}") from None
    return f"{served or f'http://{LOOPBACK}:{REPORTS_PORT}'}/{run}/{name}/{PAGE}"


def _files(folder: Path) -> dict[str, Path]:
    """All that is published, by name below `folder`; the page is the last, for it is what makes a report be there."""
    if not (folder / PAGE).is_file():
        raise PublishError(f"{folder}: holds no {PAGE}, so there is no report to publish")
    found = {}
    for path in sorted(folder.rglob("*")):
        below = path.relative_to(folder)
        if any(part.startswith(".") for part in below.parts) or (path.is_dir() and not path.is_symlink()):
            continue
        name = below.as_posix()
        if leads_out(path, folder):
            raise PublishError(f"{folder}: {printable(name)} is a link out of the report; put the file itself there")
        if not path.is_file():
            raise PublishError(f"{folder}: {printable(name)} is no file; a report holds files and folders alone")
        if safe_name(name, folder) != name:
            raise PublishError(f"{folder}: {printable(name)} cannot be part of an address; rename it")
        found[name] = path
    return found | {PAGE: found.pop(PAGE)}


def _publish_to_s3(files: Mapping[str, Path], place: str, run: str, name: str, served: str) -> str:
    bucket, prefix = split(place)
    parts = ([prefix] if prefix else []) + [run, name]
    s3 = connect(place, "s3")

    def put(key: str, content: BinaryIO) -> None:
        kind = KINDS.get(Path(key).suffix.lower(), UNKNOWN)
        try:
            s3.client.put_object(Bucket=bucket, Key=key, Body=content, ContentType=kind)
        except (s3.lost, s3.answer) as error:
            hint = "check LOUPE_REPORTS, the credentials and AWS_ENDPOINT_URL"
            raise PublishError(f"{SCHEME}{bucket}/{key}: cannot be written ({error}); {hint}") from None

    if served:
        _put_all(files, "/".join(parts), put)
        return f"{served}/{run}/{name}/{PAGE}"
    key = "/".join(parts) + ".zip"
    with tempfile.TemporaryFile() as stream:
        _zip(files, name, stream)
        put(key, stream)
    address: str = s3.client.generate_presigned_url(
        "get_object", Params={"Bucket": bucket, "Key": key}, ExpiresIn=SECONDS
    )
    return address


def _put_all(files: Mapping[str, Path], folder: str, put: Callable[[str, BinaryIO], None]) -> None:
    """The page goes when all that it shows is there."""

    def one(below: str) -> None:
        with files[below].open("rb") as stream:
            put(f"{folder}/{below}", stream)

    for _ in in_order(one, (below for below in files if below != PAGE), UPLOADS, ahead=2 * UPLOADS):
        pass
    one(PAGE)


def _zip(files: Mapping[str, Path], name: str, stream: BinaryIO) -> None:
    """Unpacked it gives one folder. Nothing is compressed: nearly all of a report is pictures, which are already."""
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED, strict_timestamps=False) as archive:
        for below, path in files.items():
            archive.write(path, f"{name}/{below}")
    stream.seek(0)


def is_zip(address: str) -> bool:
    """Whether an address of `publish` is that of a zip, which people must be told."""
    return address.partition("?")[0].endswith(".zip")
