"""Fetch large files over HTTP: what is here is not fetched twice, and only what is whole and right gets its name.

    fetch(RemoteFile("DIV2K_valid_HR.zip", ("https://one/x.zip", "http://two/x.zip"), size, sha256), cache)

What is fetched grows in `cache/NAME.part`, which survives SIGKILL; the next call asks for the missing bytes only, at
whichever address answers. With a known sha256 the outcome is checked by it; without one, a part is continued only
while the server says that its file is still the same (`NAME.validator` holds its ETag or date).

Own code on requests, since the libraries at hand stop short: pooch and torch.hub start again from zero,
huggingface_hub resumes from its own hub only, urllib3's retries repeat a request but do not continue a body.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import requests
from filelock import FileLock, Timeout
from tqdm import tqdm

from loupe.errors import InputError

CHUNK = 1 << 16  # bytes; at most so much is lost when the process is killed
PASSING = frozenset({408, 425, 429, 500, 502, 503, 504})  # HTTP states that may be over a moment later
MAY_PASS = (requests.ConnectionError, requests.Timeout, requests.exceptions.ChunkedEncodingError)
REPORT_SECONDS = 30.0  # between two lines of progress where there is no terminal
LONGEST_WAIT = 60.0  # seconds, whatever a server asks for


class FetchError(InputError):
    """A file could not be had; the message names each address with its reason, and what to do."""


class _PassingError(Exception):
    """It may go well a moment later, at the same address; `wait` is what the server asks for, in seconds."""

    def __init__(self, reason: str, wait: float = 0) -> None:
        super().__init__(reason)
        self.wait = wait


class _HopelessError(Exception):
    """This address will not give the file."""


@dataclass(frozen=True)
class RemoteFile:
    """A file to fetch.

    name: in the cache folder. addresses: where it can be had, in the order to try. size: in bytes, and sha256: in hex;
    None where nobody has published them.
    """

    name: str
    addresses: tuple[str, ...]
    size: int | None = None
    sha256: str | None = None


@dataclass(frozen=True)
class Patience:
    """When to give up an address: seconds to connect and without a byte, tries in a row that brought nothing new.

    pause: seconds before the second try, doubled before each further one.
    """

    connect: float = 10
    read: float = 60
    tries: int = 5
    pause: float = 1


PATIENCE = Patience()


def download_cache() -> Path:
    """Where downloads are kept: `$LOUPE_CACHE/downloads`, or `.cache/downloads` below the working directory."""
    return Path(os.environ.get("LOUPE_CACHE") or ".cache") / "downloads"


def fetch(file: RemoteFile, cache: Path, *, patience: Patience = PATIENCE, say: Callable[[str], None] = print) -> Path:
    """Bring `file` into `cache`, from the first of its addresses that gives it whole.

    Two processes may ask for the same file at once: the second waits for the first. A file that is there already is
    checked by its sha256, or, without one, by asking the server whether it has changed.

    Args:
        file: what to fetch.
        cache: folder for it, made if missing.
        patience: when to give up an address.
        say: receives a line for each retry, and the progress where there is no terminal.

    Returns:
        `cache / file.name`.

    Raises:
        FetchError: no address gave the file, or the disk is full. What came is kept for the next call, unless its
            checksum was wrong.
    """
    cache.mkdir(parents=True, exist_ok=True)
    target, part = cache / file.name, cache / f"{file.name}.part"
    with _alone(cache / f"{file.name}.lock", file.name, say):
        if target.exists():
            if file.sha256 is None:
                target.replace(part)  # nothing is missing, but the server may have another file by now
            elif _is_right(file, target):
                return target
            else:
                say(f"{target}: wrong checksum: thrown away")
                target.unlink()
        reasons = []
        for address in file.addresses:
            for _ in range(2):
                begun = _size(part) > 0
                try:
                    _fetch_from(address, file, part, patience, say)
                except _HopelessError as error:
                    reasons.append(f"{_shown(address)}: {error}")
                    break
                if _is_right(file, part):
                    part.replace(target)
                    return target
                part.unlink()
                say(f"{file.name}: wrong checksum: thrown away")
                if not begun:  # else the fault may be that of bytes from elsewhere: once more, all from here
                    reasons.append(f"{_shown(address)}: wrong checksum")
                    break
    kept = f"{tqdm.format_sizeof(_size(part), 'B')} are kept in {part}. " if part.exists() else ""
    raise FetchError("\n  ".join([f"{file.name} could not be fetched. {kept}Run again to go on. Tried:", *reasons]))


def missing_bytes(file: RemoteFile, cache: Path) -> int:
    """How much of `file`, whose size is known, is still to be fetched into `cache`."""
    return 0 if (cache / file.name).exists() else max((file.size or 0) - _size(cache / f"{file.name}.part"), 0)


def require_space(needs: Iterable[tuple[Path, int]]) -> None:
    """Check that the disks have room for so many bytes below each folder; what falls on one disk is added up.

    Raises:
        FetchError: there is too little; it names the folder, what is needed and what is free.
    """
    disks: dict[int, tuple[Path, int]] = {}
    for folder, size in needs:
        there = next(parent for parent in (folder.absolute(), *folder.absolute().parents) if parent.exists())
        device = there.stat().st_dev
        disks[device] = (there, disks.get(device, (there, 0))[1] + size)
    for there, size in disks.values():
        if (free := shutil.disk_usage(there).free) < size:
            needed, left = tqdm.format_sizeof(size, "B"), tqdm.format_sizeof(free, "B")
            raise FetchError(f"{there}: {needed} are needed on this disk and {left} are free; make room and run again")


@contextmanager
def _alone(lock: Path, name: str, say: Callable[[str], None]) -> Iterator[None]:
    held = FileLock(lock)  # the system frees it when its holder dies, however that happens
    try:
        held.acquire(timeout=0)
    except Timeout:
        say(f"{name}: another process is fetching it; waiting")
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _fetch_from(address: str, file: RemoteFile, part: Path, patience: Patience, say: Callable[[str], None]) -> None:
    """Complete `part` from one address, trying again after what can pass. Raises _HopelessError."""
    failures, most = 0, _size(part)
    while True:
        wait = 0.0
        try:
            return _request(address, file, part, patience, say)
        except _PassingError as error:
            reason, wait = str(error), error.wait
        except requests.RequestException as error:
            if isinstance(error, requests.exceptions.SSLError) or not isinstance(error, MAY_PASS):
                raise _HopelessError(str(error).replace(address, _shown(address))) from None
            reason = f"the connection failed ({_cause(error)})"
        except OSError as error:
            why = error.strerror or str(error)
            raise FetchError(f"{part}: {why}. What has come is kept; mend that and run again to go on") from None
        failures = 1 if _size(part) > most else failures + 1
        most = max(most, _size(part))
        if failures >= patience.tries:
            raise _HopelessError(reason)
        wait = min(max(wait, patience.pause * 2 ** (failures - 1)), LONGEST_WAIT)
        say(f"{file.name}: {reason}; trying again in {wait:.0f} s")
        time.sleep(wait)


def _request(address: str, file: RemoteFile, part: Path, patience: Patience, say: Callable[[str], None]) -> None:
    """One request, whose bytes are added to `part`; returns when it is whole, else raises.

    Without a sha256 only the server can tell whether `part` belongs to its file: by `If-Range`, and by the validator
    of its answer, since some servers send a range whatever was asked.
    """
    note, have, validator = part.with_suffix(".validator"), _size(part), ""
    headers = {"Accept-Encoding": "identity"}  # else ranges would count compressed bytes
    if file.size is not None and have >= file.size:
        return  # whole; if it is too long, its checksum says so
    if file.sha256 is None:
        validator = note.read_text() if note.exists() else ""
        have = have if validator else 0
    if have:
        headers |= {"Range": f"bytes={have}-"} | ({"If-Range": validator} if validator else {})
    with requests.get(address, headers=headers, stream=True, timeout=(patience.connect, patience.read)) as answer:
        start, total = _place(answer, have)
        if total is not None and file.size is not None and total != file.size:
            raise _HopelessError(f"it has {total} bytes there instead of {file.size}")
        now = _validator(answer)
        if start is None or (answer.status_code == 206 and validator and now and now != validator):
            part.unlink()
            raise _PassingError("the file there is another one than before: from the beginning")
        if start and start == total:
            return
        require_space([(part.parent, (total or 0) - _size(part))])
        if file.sha256 is None:
            note.write_text(now)  # before the first byte that it stands for
        size = f"{tqdm.format_sizeof(total, 'B')} " if total else ""
        here = f", {tqdm.format_sizeof(start, 'B')} are here" if start else ""
        say(f"{file.name}: {size}from {_shown(address)}{here}")
        with part.open("ab" if start else "wb") as stream, _progress(file.name, start, total, say) as count:
            for chunk in answer.iter_content(CHUNK):
                stream.write(chunk)
                count(len(chunk))
                if file.size is not None and stream.tell() > file.size:
                    raise _HopelessError(f"it has more than {file.size} bytes there")
            stream.flush()
            os.fsync(stream.fileno())
    if _size(part) < (total or file.size or 0):
        raise _PassingError("the connection ended early")


def _place(answer: requests.Response, have: int) -> tuple[int | None, int | None]:
    """Where an answer's bytes begin (None: what we have is not of this file), and the whole size if it is told.

    Raises _PassingError or _HopelessError if the answer brings no bytes that can be used.
    """
    code, given = answer.status_code, answer.headers.get("Content-Range", "")
    if code == 200 and answer.headers.get("Content-Encoding", "identity") == "identity":
        length = answer.headers.get("Content-Length", "")
        return 0, int(length) if length.isdecimal() else None
    if code == 206 and (found := re.fullmatch(rf"bytes {have}-\d+/(\d+|\*)", given)):
        return have, None if found[1] == "*" else int(found[1])
    if code == 416 and have:
        return (have, have) if given == f"bytes */{have}" else (None, None)  # the first: killed after the last byte
    wait = answer.headers.get("Retry-After", "")
    if code in PASSING:
        raise _PassingError(f"HTTP {code} {answer.reason}", float(wait) if wait.isdecimal() else 0)
    raise _HopelessError(f"HTTP {code} {answer.reason}{f', {given}' if given else ''}")


def _validator(answer: requests.Response) -> str:
    """What the server calls this version of its file: a strong ETag, else a date, else nothing."""
    tag = answer.headers.get("ETag", "")
    return tag if tag.startswith('"') else answer.headers.get("Last-Modified", "")


@contextmanager
def _progress(name: str, start: int, total: int | None, say: Callable[[str], None]) -> Iterator[Callable[[int], None]]:
    """A bar with rate and time left; without a terminal a line every half minute. Yields what counts bytes."""
    began = told = time.monotonic()
    done = start
    form: dict[str, Any] = {"unit": "B", "unit_scale": True, "initial": start}
    with tqdm(total=total, desc=name, disable=None, **form) as bar:

        def count(size: int) -> None:
            nonlocal done, told
            done += size
            bar.update(size)
            if bar.disable and (now := time.monotonic()) - told >= REPORT_SECONDS:
                told = now
                say(tqdm.format_meter(done, total or 0, now - began, ncols=0, prefix=name, **form))

        yield count


def _is_right(file: RemoteFile, path: Path) -> bool:
    """Whether a whole file is the one that is meant; without a sha256, the bytes that the server counted decide."""
    if file.sha256 is None:
        return True
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest() == file.sha256


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _cause(error: requests.RequestException) -> str:
    """The innermost reason in the nested message of a connection's failure."""
    if isinstance(error, requests.exceptions.ChunkedEncodingError):
        return "it broke off"
    found = re.search(r"\[Errno -?\d+\] ([\w ]+)", str(error))
    return found[1] if found else str(error).rsplit(": ", 1)[-1].rstrip(".)\"'")


def _shown(address: str) -> str:
    """An address without name and password, and without a query, which may hold a signature."""
    parts = urlsplit(address)
    return parts._replace(netloc=parts.netloc.rpartition("@")[2], query="").geturl()
