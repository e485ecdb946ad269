"""Many pictures: files and folders in, the same names twice the size out; on disks, or at S3.

One thread decodes, this one runs the network, others encode, so that the network never waits. A file is written whole
or not at all, and then noted in the journal, OUT/.loupe.jsonl: by the hash of its input, the model and the settings.
At S3 the copy itself carries that note (see places.py). Whoever runs the same again, after a kill too, gets only what
is missing. Files that fail are named in OUT/failures.jsonl and stop nothing.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import json
import os
import re
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from types import FrameType, TracebackType
from typing import Any, Literal, Protocol

from loupe.errors import InputError
from loupe.imaging.files import FORMATS, SUFFIXES, ImageError, find_images, read_bytes
from loupe.names import UnsafeNameError, safe_name
from loupe.threads import in_order
from loupe.upscaling.pictures import Picture, check_sides, read_picture, write_large, write_picture
from loupe.upscaling.places import Place, S3Error, S3Path
from loupe.upscaling.upscaler import Upscaler

JOURNAL, FAILURES = ".loupe.jsonl", "failures.jsonl"
KINDS = {"png": "PNG", "jpeg": "JPEG", "webp": "WEBP", "tiff": "TIFF", "bmp": "BMP", "gif": "GIF", "avif": "AVIF"}
SUFFIX = {"JPEG": ".jpg", "AVIF": ".avif"}  # where it is not the first in FORMATS
LOOKED_FOR = SUFFIXES | {".avif"}
WRITERS = 2  # encoders at work, each with a picture in memory
LEFT_BEHIND = re.compile(r"\.[0-9a-f]{16}\.part")  # by atomic_file, when it was killed
JSON_LINES = "application/jsonl"
NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

State = Literal["done", "skipped", "failed", "left"]


@dataclass(frozen=True)
class Job:
    """One file to be read, and the one to be written. refused: why it must not be, if that is known beforehand."""

    source: Place
    target: Place
    refused: str = ""

    @property
    def name(self) -> Path:
        """Of the file to be read, for messages about its content."""
        return self.source if isinstance(self.source, Path) else Path(self.source.key)


@dataclass(frozen=True)
class Outcome:
    """What became of a job.

    state: done; skipped, for it was done before; failed; or left, for the run was stopped. reason: why it failed.
    notes: what was changed. size: width and height of the input; (0, 0) where it was not read. frames: from 1. key:
    what the copy was made of and by; "" where the input was not read.
    """

    job: Job
    state: State
    reason: str = ""
    notes: tuple[str, ...] = ()
    size: tuple[int, int] = (0, 0)
    frames: int = 0
    key: str = ""

    @property
    def pixels(self) -> int:
        """Of all frames of the input."""
        return self.size[0] * self.size[1] * self.frames


@dataclass
class Stop:
    """Asks a run to finish what it has begun and to begin nothing more; `reason` says why."""

    event: threading.Event = field(default_factory=threading.Event)
    reason: str = ""
    interrupted: bool = False  # by the user

    def ask(self, reason: str) -> None:
        """The first reason stays."""
        self.reason = self.reason or reason
        self.event.set()


def plan(inputs: Sequence[Place], out: Place, kind: str = "") -> list[Job]:
    """Which file becomes which: those in folders keep their place below, and all their name.

    Args:
        inputs: files, and folders whose pictures are taken with all below, but not what lies in `out`. At S3 a name
            with an image's suffix is a file, every other one a folder.
        out: a folder; or, for a single file, a file with an image's suffix.
        kind: a key of KINDS to get another suffix; "" for the same.

    Raises:
        InputError: nothing to do, or an output would replace an input or another output.
    """
    if kind and kind not in KINDS:
        raise InputError(f"no format {kind!r}; there are {', '.join(KINDS)}")
    if is_file(inputs, out):
        jobs = [Job(_known(inputs[0]), out)]
    else:
        if isinstance(out, Path) and out.exists() and not out.is_dir():
            raise InputError(f"{out}: is a file; give a folder, or one picture only")
        suffix = suffix_of(KINDS[kind]) if kind else ""
        jobs = [job for source in inputs for job in _jobs(source, out, suffix)]
    if not jobs:
        raise InputError(f"{', '.join(map(str, inputs))}: no images here; give pictures, or folders of them")
    taken: dict[Place, Place] = {}
    sources = {_absolute(job.source) for job in jobs}
    for job in jobs:
        if job.refused:
            continue
        if job.target in taken:
            raise InputError(f"{job.source} and {taken[job.target]} would both become {job.target}; rename one")
        if _same(job.source, job.target):
            raise InputError(f"{job.source}: would replace itself; choose another folder for --out")
        if _absolute(job.target) in sources:
            raise InputError(f"{job.source}: would replace {job.target}, an input; choose another folder for --out")
        taken[job.target] = job.source
    return jobs


def _jobs(source: Place, out: Place, suffix: str) -> Iterator[Job]:
    """What is to be done with a file, or with the pictures of a folder."""
    inside = _is_below(out, source)
    if not _is_folder(source):
        name = source.name if isinstance(source, Path) else PurePosixPath(source.key).name
        yield Job(_known(source), _target(out, Path(name), suffix))
    elif _same(source, out):
        raise InputError(f"{out}: is the folder of the pictures themselves; choose another for --out")
    elif isinstance(source, Path):
        for path in find_images(source, LOOKED_FOR):
            if not (inside and _is_below(path, out)):
                yield Job(path, _target(out, path.relative_to(source), suffix))
    else:
        for found in source.objects():
            name = found.name_in(source)
            hidden = any(part.startswith(".") and part.strip(".") for part in name.split("/"))
            if hidden or name.endswith("/") or found.suffix.lower() not in LOOKED_FOR:
                continue
            if inside and _is_below(found, out):
                continue
            if refused := _refused(name):
                yield Job(found, out, refused)
            else:
                yield Job(found, _target(out, Path(name), suffix))


def _refused(name: str) -> str:
    """Why no file may have the name that a stranger gave to an object; "" if one may."""
    try:
        same = safe_name(name, "S3") == name
    except UnsafeNameError:
        same = False
    return "" if same else f"refused: {name!r} could not be the name of a file; rename it"


def _target(out: Place, name: Path, suffix: str) -> Place:
    name = name.with_suffix(suffix) if suffix else name
    return out / name if isinstance(out, Path) else out / name.as_posix()


def _known(source: Place) -> Place:
    return source if isinstance(source, Path) else source.known()


def _is_folder(place: Place) -> bool:
    return place.is_dir() if isinstance(place, Path) else place.suffix.lower() not in LOOKED_FOR


def _absolute(place: Place) -> Place:
    """The same place, however it was named."""
    return Path(os.path.abspath(place)) if isinstance(place, Path) else place  # noqa: PTH100  # links stay links


def _is_below(place: Place, folder: Place) -> bool:
    """Whether a place lies in a folder, and is not that folder."""
    place, folder = _absolute(place), _absolute(folder)
    if isinstance(place, Path) and isinstance(folder, Path):
        return folder in place.parents
    return isinstance(place, S3Path) and isinstance(folder, S3Path) and place.is_relative_to(folder)


def _same(one: Place, other: Place) -> bool:
    if isinstance(one, Path) and isinstance(other, Path):
        return one.exists() and other.exists() and one.samefile(other)
    return one == other


def is_file(inputs: Sequence[Place], out: Place) -> bool:
    """Whether `out` names the file that one picture is to become."""
    looks_like_one = out.suffix.lower() in LOOKED_FOR and not _is_folder(out)
    return len(inputs) == 1 and not _is_folder(inputs[0]) and looks_like_one


def suffix_of(kind: str) -> str:
    """The suffix for a format of Pillow's name."""
    return SUFFIX.get(kind) or FORMATS[kind][0]


def kind_of(place: Place) -> str:
    """The key of KINDS that a file's suffix stands for; "" for none."""
    suffix = place.suffix.lower()
    return next((key for key, kind in KINDS.items() if suffix in FORMATS[kind] or suffix == SUFFIX.get(kind)), "")


class Records(Protocol):
    """What is known of the files of a folder; see Journal. At S3 the objects themselves know it."""

    def holds(self, target: Path, key: str) -> bool:
        """Whether the file is there, made of what `key` stands for."""
        ...

    def add(self, target: Path, key: str) -> None:
        """Note that the file was written."""
        ...


class Journal:
    """What a folder holds already; one run at a time may write into it.

    Raises:
        InputError: another run does.
    """

    def __init__(self, out: Path) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self._out = out
        self._stream = (out / JOURNAL).open("ab+", buffering=0)  # on a full disk nothing must wait to be written
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)  # freed by the system, however the run ends
        except BlockingIOError:
            self._stream.close()
            raise InputError(f"{out}: another run is writing here; wait for it, or choose another folder") from None
        for path in out.rglob(".*.part"):
            if LEFT_BEHIND.fullmatch(path.name):
                path.unlink(missing_ok=True)
        self._stream.seek(0)
        lines = self._stream.read().splitlines(keepends=True)
        if lines and not lines[-1].endswith(b"\n"):
            self._stream.write(b"\n")  # a line that was cut by a kill must not spoil the next
        self._done: dict[str, dict[str, Any]] = {}
        for line in lines:
            try:
                entry = json.loads(line)
                self._done[entry["target"]] = entry
            except (ValueError, KeyError, TypeError):
                continue  # its picture is made again
        self._lock = threading.Lock()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()

    def entry(self, target: Path) -> dict[str, Any]:
        """What was noted of a file; nothing where it is not known."""
        return self._done.get(self._name(target), {})

    def holds(self, target: Path, key: str) -> bool:
        """See Records."""
        return stands(self.entry(target), target, key)

    def add(self, target: Path, key: str) -> None:
        """See Records."""
        entry = {"target": self._name(target), "key": key, "bytes": target.stat().st_size}
        with self._lock:
            line = json.dumps(entry).encode() + b"\n"
            if self._stream.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def _name(self, target: Path) -> str:
        return target.relative_to(self._out).as_posix()


def stands(entry: dict[str, Any], target: Path, key: str) -> bool:
    """Whether a file is still the one that a journal's entry tells of, made of what `key` stands for."""
    try:
        return bool(entry["key"] == key and target.stat().st_size == entry["bytes"])
    except (OSError, KeyError):
        return False


Engine = Callable[[Sequence[Job], Upscaler, Journal | None, str], Iterator[Outcome]]


def run(
    jobs: Sequence[Job],
    upscaler: Upscaler,
    out: Place | None,
    kind: str,
    stop: Stop,
    watch: Callable[[Outcome], None],
    dry: bool = False,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Do all jobs with a journal and a list of failures; what `loupe upscale --json` prints.

    Args:
        jobs: see `plan`.
        upscaler: the network.
        out: the folder written into; None for a single file, which needs neither.
        kind: see `upscale_all`.
        stop: see `upscale_all`.
        watch: called with each outcome; here in the order of the jobs.
        dry: do nothing, see `examine`.
        engine: does the jobs elsewhere, where they are not to be done here.

    Raises:
        InputError: another run writes into `out`.
    """
    start = time.monotonic()
    counts: dict[str, int] = {"done": 0, "skipped": 0, "failed": 0, "left": 0}
    pixels, failures = 0, []
    journaled = isinstance(out, Path) and (out.is_dir() or not dry)
    with (
        Journal(out) if isinstance(out, Path) and journaled else nullcontext() as journal,
        _list_of_failures(out, stop) if out and not dry else nullcontext(_ignore) as note,
    ):
        all_of_them = examine if dry else engine or partial(upscale_all, stop=stop)
        for outcome in all_of_them(jobs, upscaler, journal, kind):
            counts[outcome.state] += 1
            pixels += outcome.pixels if outcome.state == "done" else 0
            if outcome.state == "failed":
                failures.append({"source": str(outcome.job.source), "reason": outcome.reason})
                note(failures[-1])
            watch(outcome)
    seconds = time.monotonic() - start
    return {
        **counts,
        "seconds": round(seconds, 3),
        "megapixels_per_second": round(pixels / 1e6 / seconds, 3),
        "pictures_per_second": round(counts["done"] / seconds, 3),
        "hours_per_million": round(1e6 / (counts["done"] / seconds) / 3600, 1) if counts["done"] else None,
        "model": {"sha256": upscaler.identity, "scale": upscaler.scale},
        "stopped": stop.reason,
        "failures": failures,
    }


def _ignore(failure: dict[str, str]) -> None:
    """Where no list is kept."""


@contextmanager
def _list_of_failures(out: Place, stop: Stop) -> Iterator[Callable[[dict[str, str]], None]]:
    """Gives what notes a failure in OUT/failures.jsonl; those of a former run are forgotten.

    Raises:
        InputError: nothing can be written at S3, which is better known before the work than after it.
    """
    lines: list[str] = []

    def write(failure: dict[str, str]) -> None:
        lines.append(json.dumps(failure) + "\n")
        if isinstance(out, Path):
            with _told(out, stop), (out / FAILURES).open("a") as stream:
                stream.write(lines[-1])

    if isinstance(out, Path):
        (out / FAILURES).unlink(missing_ok=True)
    else:
        (out / FAILURES).put(b"", JSON_LINES)
    try:
        yield write
    finally:
        if lines and isinstance(out, S3Path):  # nothing can be added to an object: all at the end
            with _told(out, stop):
                (out / FAILURES).put("".join(lines).encode(), JSON_LINES)


@contextmanager
def _told(out: Place, stop: Stop) -> Iterator[None]:
    """A list of failures that cannot be written stops the run; the caller has it all the same."""
    try:
        yield
    except (OSError, S3Error) as error:
        stop.ask(f"{out / FAILURES}: cannot be written ({getattr(error, 'strerror', error)})")


def upscale_all(
    jobs: Iterable[Job], upscaler: Upscaler, records: Records | None = None, kind: str = "", stop: Stop | None = None
) -> Iterator[Outcome]:
    """Do all jobs; an outcome for each, in their order.

    Args:
        jobs: see `plan`.
        upscaler: the network.
        records: of the folder written into; without them every file is written anew. Objects at S3 need none.
        kind: a key of KINDS for another format; "" for each file's own.
        stop: asked, the jobs not yet begun are left. A full disk asks by itself.
    """
    stop = stop or Stop()
    steps = _Steps(upscaler, records, kind, stop)
    read = in_order(steps.read, jobs, workers=1, ahead=1)
    for work in in_order(steps.write, map(steps.enlarge, read), workers=WRITERS, ahead=1):
        if work.outcome:
            yield work.outcome


def examine(
    jobs: Iterable[Job], upscaler: Upscaler, records: Records | None = None, kind: str = ""
) -> Iterator[Outcome]:
    """What `upscale_all` would do, without the network and without writing: `left` stands for what would be made."""
    steps = _Steps(upscaler, records, kind, Stop())
    for work in map(steps.read, jobs):
        outcome = work.outcome or work.ended("left").outcome
        if outcome:
            yield outcome


def exit_code(found: dict[str, Any], stop: Stop) -> int:
    """0 all well; 1 some failed or are left; 130 interrupted, as shells have it."""
    if stop.interrupted:
        return 128 + signal.SIGINT
    return 1 if found["failed"] or stop.reason else 0


@contextmanager
def finishing_on_interrupt(stop: Stop, say: Callable[[str], None]) -> Iterator[None]:
    """Ctrl-C once finishes the pictures at work; twice ends the process at once, which leaves no torn file either."""

    def handle(number: int, frame: FrameType | None) -> None:
        if stop.event.is_set():
            os._exit(128 + number)
        stop.interrupted = True
        stop.ask("interrupted; run again, it goes on where it stopped")
        say("finishing the pictures at work; Ctrl-C again to stop at once")

    before = signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


@dataclass(frozen=True)
class _Work:
    """A job on its way: its picture, until there is an outcome."""

    job: Job
    key: str = ""
    picture: Picture | None = None
    size: tuple[int, int] | None = None
    outcome: Outcome | None = None

    def ended(self, state: State, reason: str = "", notes: tuple[str, ...] = ()) -> _Work:
        height, width = self.picture.shape[:2] if self.picture else (0, 0)
        frames, known = (max(1, len(self.picture.frames)), self.picture.notes) if self.picture else (0, ())
        outcome = Outcome(self.job, state, reason, (*known, *notes), self.size or (width, height), frames, self.key)
        return replace(self, picture=None, outcome=outcome)

    def failed(self, error: Exception) -> _Work:
        return self.ended("failed", _reason(error, self.job))


class _Steps:
    """The three steps of a job, each for a thread of its own. One bad file never stops the others: all is caught."""

    def __init__(self, upscaler: Upscaler, records: Records | None, kind: str, stop: Stop) -> None:
        self._upscaler = upscaler
        self._records = records
        self._kind = kind
        self._stop = stop
        self._settings = f"{upscaler.identity} x{upscaler.scale} {kind}".strip()

    def read(self, job: Job) -> _Work:
        work = _Work(job)
        if self._stop.event.is_set():
            return work.ended("left")
        if job.refused:
            return work.ended("failed", job.refused)
        try:
            if isinstance(job.source, S3Path):  # its content is known without having it
                data, content = b"", job.source.etag
            else:
                data = read_bytes(job.source)
                content = hashlib.sha256(data).hexdigest()
            work = replace(work, key=f"{content} {self._settings}")
            if self._holds(work):
                return work.ended("skipped")
            if isinstance(job.source, S3Path):
                data = job.source.read()
            scale = self._upscaler.scale
            picture = read_picture(job.name, data, scale)
            if self._kind:
                picture = replace(picture, format=KINDS[self._kind])
            height, width = picture.shape[:2]
            check_sides(job.name, picture.format, height * scale, width * scale)
            return replace(work, picture=picture, size=(width, height))
        except Exception as error:
            return work.failed(error)

    def enlarge(self, work: _Work) -> _Work:
        picture = work.picture
        if not picture:
            return work
        if self._stop.event.is_set():
            return work.ended("left")
        try:
            if picture.large:  # encoded while the network works: it would be too large to wait for its turn
                strips = self._upscaler.strips(picture.large)
                with self._placing(work) as path:
                    notes = write_large(path, picture, strips, self._upscaler.scale)
                return work.ended("done", notes=notes)
            frames = tuple(map(self._upscaler.upscale, picture.frames))
            return replace(work, picture=replace(picture, frames=frames))
        except Exception as error:
            return self._failed(work, error)

    def write(self, work: _Work) -> _Work:
        if not work.picture:
            return work
        try:
            with self._placing(work) as path:
                notes = write_picture(path, work.picture)
            return work.ended("done", notes=notes)
        except Exception as error:
            return self._failed(work, error)

    def _holds(self, work: _Work) -> bool:
        target = work.job.target
        if isinstance(target, S3Path):
            return target.note() == work.key
        return self._records is not None and self._records.holds(target, work.key)

    @contextmanager
    def _placing(self, work: _Work) -> Iterator[Path]:
        """The file to write; when the block ends well, the copy is in its place and noted."""
        target = work.job.target
        if isinstance(target, S3Path):
            kind = kind_of(target)
            with target.placing(f"image/{kind}" if kind else "application/octet-stream", work.key) as path:
                yield path
        else:
            yield target
            if self._records:
                self._records.add(target, work.key)

    def _failed(self, work: _Work, error: Exception) -> _Work:
        if isinstance(error, OSError) and error.errno in NO_ROOM:
            where = work.job.target if isinstance(work.job.target, Path) else tempfile.gettempdir()
            self._stop.ask(f"{where}: no room left on the disk; make room and run again, it goes on")
        return work.failed(error)


def _reason(error: Exception, job: Job) -> str:
    """Why a job failed, without the file's name."""
    if isinstance(error, ImageError):
        return str(error).removeprefix(f"{job.source}: ").removeprefix(f"{job.name}: ")
    if isinstance(error, MemoryError):
        return "not enough memory"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be written ({error.strerror})"
    return str(error) if isinstance(error, (InputError, OSError)) else f"{type(error).__name__}: {error}"
