"""Build the patch index: decode every picture once, on all cores, and write what training reads (index.py shows it).

Threads decode while one writes in order, a few pictures ahead: memory does not grow with the number of pictures.
`journal.jsonl` says what is written, so that a build that was killed goes on where it stopped.
"""

from __future__ import annotations

import itertools
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from PIL import Image

from loupe.imaging.files import ImageError, read_image
from loupe.imaging.likeness import NEAR, content_hash, distance, perceptual_hash
from loupe.imaging.resize import Pixels, downscale
from loupe.patches.index import ImageRow, LowResolution, high_resolution
from loupe.threads import in_order

FLAT_STEP = 3  # grey levels between neighbours of the reduced picture; below it, a pixel belongs to a flat area
STATISTICS = ("variance", "gradient", "flat", "bicubic_psnr")
JOURNAL = "journal.jsonl"
NOT_IN_JOURNAL = ("source", "hr", "lr")


@dataclass(frozen=True)
class Source:
    """A picture to index.

    name: how it is called in tables, its path below the folder of its set. split: `train`, `valid`, or None to let the
    content decide with `valid_share`. reduction: as in ImageRow.
    """

    path: Path
    name: str
    set: str
    split: str | None
    reduction: int = field(default=1, kw_only=True)


@dataclass(frozen=True)
class Built:
    """What an index holds: pictures by split, further sizes of those to train on, patches; how many files it lacks."""

    train: int
    valid: int
    aside: int
    reduced: int
    left_out: int
    patches: int


def build_index(
    sources: Sequence[Source],
    folder: Path,
    *,
    scale: int,
    patch: int,
    valid_share: float,
    low_resolution: LowResolution = "computed",
    reductions: Sequence[int] = (),
    workers: int | None = None,
    say: Callable[[str], None] = print,
    advance: Callable[[], object] = lambda: None,
) -> Built:
    """Decode `sources` into the files above.

    Args:
        sources: pictures, in the order in which they are stored.
        folder: existing folder that receives the files; what a killed build of the same sources left is used.
        scale: size factor between both resolutions.
        patch: side of a patch in low-resolution pixels.
        valid_share: share in [0, 1) of the pictures without a given split that go to `valid`, by their content.
        low_resolution: `stored` also writes lr.bin, which costs a quarter more disk and most of the building time.
        reductions: whole numbers from 2. Training pictures are there once more at one such part of their size, if two
            patches fit into their shorter side then: fine detail in another share of the patches, from the same files.
        workers: threads that decode; all cores without it.
        say: receives one line for each picture that was changed, skipped, set aside or refused.
        advance: called after each source, for a progress bar.

    Raises:
        ImageError: the same picture is in both splits, or nothing is left to train on or to validate with.
    """
    settings = {"scale": scale, "patch": patch, "low_resolution": low_resolution, "reductions": list(reductions)}
    sources = [replace(source, reduction=each) for source in sources for each in (1, *reductions)]

    def decode(source: Source) -> _Decoded:
        return _decode(source, scale, patch, low_resolution == "stored")

    rows: list[ImageRow] = []
    hashes: list[npt.NDArray[np.uint64]] = []
    tables: list[pd.DataFrame] = []
    seen: dict[str, ImageRow] = {}
    whole: ImageRow | None = None  # of the file that is looked at, in its own size
    left_out = 0
    with _Journal(folder, {**settings, "valid_share": valid_share}, sources) as journal:
        threads = workers or os.cpu_count() or 1
        missing = in_order(decode, sources[len(journal.done) :], threads, ahead=2 * threads)
        for decoded in itertools.chain(journal.done, missing):
            source = decoded.source
            if source.reduction > 1:
                split, kept = "train", decoded.sha256 != "" and whole is not None and whole.split == "train"
            else:
                advance()
                twin = seen.get(decoded.sha256)
                split = source.split or (decoded.sha256 and split_of(decoded.sha256, valid_share))
                if twin is not None and twin.split != split:
                    raise ImageError(
                        f"{source.path} ({split}) and {twin.path} ({twin.split}) are the same picture; "
                        "remove one: a network must not be scored on what it was trained on"
                    )
                line = decoded.line if twin is None else f"{source.path}: skipped: the same picture as {twin.path}"
                if line:
                    say(line)
                kept, whole = decoded.sha256 != "" and twin is None, None
                left_out += not kept
            start = journal.add(decoded, kept)
            if not kept:
                continue
            row = ImageRow(
                path=source.path.as_posix(),
                name=source.name,
                set=source.set,
                split=split,
                reduction=source.reduction,
                height=decoded.height,
                width=decoded.width,
                channels=decoded.channels,
                hr_start=start,
                lr_start=start // scale**2,
                sha256=decoded.sha256,
                note=decoded.note,
            )
            tables.append(_patch_table(len(rows), decoded))
            hashes.append(np.array(decoded.phash, np.uint64))
            rows.append(row)
            if source.reduction == 1:
                whole = seen[row.sha256] = row
    rows = _set_aside(rows, hashes, say)
    for split in ("train", "valid"):
        if not any(row.split == split for row in rows):
            raise ImageError(f"no usable picture is left for the split {split!r}: see the lines above for the reasons")
    patches = pd.concat(tables, ignore_index=True)
    patches.insert(1, "split", patches["image"].map([row.split for row in rows].__getitem__))
    patches.to_parquet(folder / "patches.parquet", index=False)
    pd.DataFrame([asdict(row) for row in rows]).to_parquet(folder / "images.parquet", index=False)
    counts = Counter(row.split if row.reduction == 1 else f"{row.split} reduced" for row in rows)
    built = Built(
        train=counts["train"],
        valid=counts["valid"],
        aside=counts["aside"],
        reduced=counts["train reduced"],
        left_out=left_out,
        patches=len(patches),
    )
    (folder / "index.json").write_text(json.dumps({**settings, **asdict(built)}, indent=2) + "\n")
    (folder / JOURNAL).unlink()
    return built


def split_of(sha256: str, valid_share: float) -> str:
    """`valid` for about `valid_share` of all hashes, else `train`; a picture never changes side when others arrive."""
    return "valid" if int(sha256[:8], 16) < valid_share * 2**32 else "train"


@dataclass(frozen=True)
class _Decoded:
    """What a thread makes of a source; sha256 is empty if it cannot be used, and `line` says why.

    start: place in hr.bin, once the pixels are there. hr, lr: pixels that are not there yet.
    """

    source: Source
    line: str = ""
    sha256: str = ""
    phash: Sequence[int] = ()
    height: int = 0
    width: int = 0
    channels: int = 0
    note: str = ""
    patches: Sequence[Sequence[float]] = ()
    start: int | None = None
    hr: Pixels | None = None
    lr: Pixels | None = None


def _decode(source: Source, scale: int, patch: int, store_lr: bool) -> _Decoded:
    try:
        loaded = read_image(source.path)
    except ImageError as error:
        return _Decoded(source, str(error))
    hr, side = loaded.rgb, patch * scale
    if source.reduction > 1 and min(hr.shape[:2]) < 2 * side * source.reduction:
        return _Decoded(source)
    if min(hr.shape[:2]) < side:
        size = f"{hr.shape[1]} x {hr.shape[0]}"
        return _Decoded(source, f"{source.path}: skipped: {size} pixels, smaller than a patch of {side} x {side}")
    note = "; ".join(loaded.notes)
    sha256 = content_hash(hr)
    hr = np.ascontiguousarray(high_resolution(hr, source.reduction, scale))
    gray = Image.fromarray(hr).convert("L")
    return _Decoded(
        source=source,
        line=f"{source.path}: converted: {note}" if note else "",
        sha256=sha256,
        phash=tuple(int(word) for word in perceptual_hash(np.asarray(gray))),
        height=hr.shape[0],
        width=hr.shape[1],
        channels=1 if loaded.pixels.ndim == 2 else 3,
        note=note,
        patches=tuple(patch_statistics(gray, scale, patch)),
        hr=hr,
        lr=downscale(hr, scale) if store_lr else None,
    )


def patch_statistics(gray: Image.Image, scale: int, patch: int) -> Iterator[tuple[float, ...]]:
    """Grid patches of one picture, each as (y, x, variance, gradient, flat, bicubic_psnr).

    Made to cost little beside decoding: the first three come from the picture reduced by the mean of scale x scale
    pixels, the last from the middle quarter of a patch's rows.

    Args:
        gray: mode L, sides multiples of `scale`.
        scale: size factor.
        patch: side in low-resolution pixels.

    Yields:
        y, x: corner in low-resolution pixels; the grid covers the picture, its last row and column end at the border.
        variance: of grey levels, squared. gradient: mean absolute step to the next pixel, in grey levels. flat: share
        in [0, 1] of pixels whose steps are below FLAT_STEP. bicubic_psnr: of bicubic enlargement, in decibels; at
        most 60.
    """
    small = np.asarray(gray.reduce(scale))  # everything below is whole numbers of few bits: fast, and exact
    steps = np.zeros((2, *small.shape), np.uint8)
    down, across = steps[0, :-1], steps[1, :, :-1]
    for step, one, other in ((down, small[:-1], small[1:]), (across, small[:, :-1], small[:, 1:])):
        np.subtract(np.maximum(one, other), np.minimum(one, other), out=step)
    squared = np.multiply(small, small, dtype=np.uint16)
    slope = np.add(steps[0], steps[1], dtype=np.uint16)
    flat = steps.max(axis=0) < FLAT_STEP
    ys, xs = (_grid(side // scale, patch) for side in (gray.height, gray.width))
    ends = np.concatenate([xs, xs + patch])
    for y in ys:
        band = slice(y, y + patch)
        planes = np.stack([plane[band].sum(axis=0, dtype=np.uint32) for plane in (small, squared, slope, flat)])
        sums = np.pad(planes.cumsum(axis=1, dtype=np.int64), ((0, 0), (1, 0)))[:, ends]
        mean, square, gradient, share = (sums[:, len(xs) :] - sums[:, : len(xs)]) / patch**2
        strip_height = max(scale, patch * scale // 4 // scale * scale)
        top = (y + (patch - strip_height // scale) // 2) * scale
        strip = gray.crop((0, top, gray.width, top + strip_height))
        reduced = strip.resize((gray.width // scale, strip_height // scale), Image.Resampling.BICUBIC)
        enlarged = reduced.resize(strip.size, Image.Resampling.BICUBIC)
        error = np.subtract(np.asarray(strip), np.asarray(enlarged), dtype=np.int16).astype(np.float32)
        errors = np.pad((error * error).sum(axis=0, dtype=np.float64).cumsum(), (1, 0))[ends * scale]
        mse = (errors[len(xs) :] - errors[: len(xs)]) / (strip_height * patch * scale)
        psnr = 10 * np.log10(255**2 / np.maximum(mse, 255**2 / 10**6))
        variance = np.maximum(square - mean**2, 0)
        yield from zip(
            [int(y)] * len(xs), xs.tolist(), *(v.tolist() for v in (variance, gradient / 2, share, psnr)), strict=True
        )


def _grid(length: int, patch: int) -> npt.NDArray[np.int64]:
    """Starts of patches that cover `length` without gaps; the last one ends at the border."""
    return np.unique(np.append(np.arange(0, length - patch + 1, patch), length - patch))


def _patch_table(number: int, decoded: _Decoded) -> pd.DataFrame:
    table = pd.DataFrame(decoded.patches, columns=["y", "x", *STATISTICS])
    table = table.astype({"y": "int32", "x": "int32", **dict.fromkeys(STATISTICS, "float32")})
    table.insert(0, "image", np.int32(number))
    return table


def _set_aside(
    rows: list[ImageRow], hashes: list[npt.NDArray[np.uint64]], say: Callable[[str], None]
) -> list[ImageRow]:
    """Training pictures that nearly equal a validation picture become `aside`: no side of any other picture changes."""
    valid = [number for number, row in enumerate(rows) if row.split == "valid"]
    kept: list[ImageRow] = []
    for number, row in enumerate(rows):
        if row.reduction > 1:
            row = replace(row, split=kept[-1].split)  # it follows its picture
        elif row.split == "train" and valid:
            bits = distance(hashes[number], np.stack([hashes[other] for other in valid]))
            if bits.min() <= NEAR:
                twin = rows[valid[int(bits.argmin())]]
                say(f"{row.path}: set aside: nearly the same picture as {twin.path}, which is kept for validation")
                row = replace(row, split="aside")
        kept.append(row)
    return kept


class _Journal:
    """The pixel files of a build in progress, and a line for each source that they hold or that was left out."""

    def __init__(self, folder: Path, settings: dict[str, Any], sources: Sequence[Source]) -> None:
        """Open the files in `folder`; what a killed build left there is kept as far as it is whole and fits."""
        path = folder / JOURNAL
        parts = {"hr": 1}  # of a picture's bytes that a file holds
        if settings["low_resolution"] == "stored":
            parts["lr"] = int(settings["scale"]) ** 2
        else:
            (folder / "lr.bin").unlink(missing_ok=True)
        self._pixels: dict[str, IO[bytes]] = {kind: (folder / f"{kind}.bin").open("ab") for kind in parts}
        room = min(part * self._pixels[kind].tell() for kind, part in parts.items())
        self._written = 0
        self.done: list[_Decoded] = []
        for entry in _read_journal(path, settings, sources):
            size = 0 if entry.start is None else 3 * entry.height * entry.width
            if self._written + size > room:
                break
            self._written += size
            self.done.append(entry)
        for kind, file in self._pixels.items():
            file.truncate(self._written // parts[kind])
        self._known = len(self.done)
        path.write_text(json.dumps(settings) + "\n" + "".join(_journal_line(entry) for entry in self.done))
        self._lines = path.open("a")

    def __enter__(self) -> _Journal:
        return self

    def __exit__(self, *_: object) -> None:
        for file in self._pixels.values():
            file.close()
        self._lines.close()

    def add(self, decoded: _Decoded, kept: bool) -> int:
        """Store a picture that is kept, then its line, unless it is one of `done`; its place in hr.bin."""
        if self._known:
            self._known -= 1
            return decoded.start or 0
        start = self._written
        if kept:
            for kind, file in self._pixels.items():
                file.write(getattr(decoded, kind).data)
                file.flush()
            self._written += 3 * decoded.height * decoded.width
        self._lines.write(_journal_line(replace(decoded, start=start if kept else None)))
        self._lines.flush()
        return start


def _journal_line(decoded: _Decoded) -> str:
    facts = {each.name: getattr(decoded, each.name) for each in fields(decoded) if each.name not in NOT_IN_JOURNAL}
    return json.dumps([_identity(decoded.source), facts]) + "\n"


def _read_journal(path: Path, settings: dict[str, Any], sources: Sequence[Source]) -> list[_Decoded]:
    """Lines of a killed build, as far as they are whole and tell of the same files under the same settings."""
    done: list[_Decoded] = []
    try:
        head, *lines = path.read_text().splitlines()
        if json.loads(head) != settings:
            return done
        for line, source in zip(lines, sources, strict=False):
            identity, facts = json.loads(line)
            if identity != _identity(source):
                break
            done.append(_Decoded(source, **facts))
    except (OSError, ValueError, TypeError):
        pass  # no journal, or the line that was being written when the build was killed: what came before counts
    return done


def _identity(source: Source) -> list[Any]:
    """What makes a source the same file as before."""
    try:
        status = source.path.stat()
    except OSError:
        return [source.path.as_posix(), None]
    told = [source.name, source.set, source.split, source.reduction, status.st_size, status.st_mtime_ns]
    return [source.path.as_posix(), *told]
