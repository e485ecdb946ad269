"""Which pictures belong together: ground truth, its low-resolution input, and a finished super-resolved picture."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from loupe.errors import InputError
from loupe.imaging.degradations import jpeg
from loupe.imaging.files import ImageError, find_images, read_image
from loupe.imaging.likeness import NEAR, Hash, distance, perceptual_hash
from loupe.imaging.resize import Pixels, crop_to_multiple, downscale
from loupe.patches.index import PatchIndex


@dataclass(frozen=True)
class Pair:
    """A picture to score.

    set: name of its data set. name: its file name below the set's folder. hr: ground truth, uint8 [H, W, 3] or [H, W],
    sides multiples of the scale. lr: the input, of the same kind, [H / scale, W / scale(, 3)]. sr: a finished picture
    like hr, where one was given.
    """

    set: str
    name: str
    hr: Pixels
    lr: Pixels
    sr: Pixels | None = None


def match_files(hr: list[Path], hr_folder: Path, others: list[Path], folder: Path) -> dict[Path, Path]:
    """Which file of `others` belongs to which of `hr`, by name: `baby.png` goes with `baby.png`, `babyx2.png` or
    `baby_RDN_x2.png`; where two ground truths fit, the longer name wins.

    Those in the same folder below `folder` and `hr_folder` go first; what is left over is matched wherever it lies,
    unless two ground truths have the same name.

    Raises:
        ImageError: two files fit one ground truth equally well; `folder` is named.
    """
    matches: dict[Path, Path] = {}
    near = _by_folder(others, folder)
    for place, ours in _by_folder(hr, hr_folder).items():
        matches |= _by_name(ours, near[place], folder)
    names = Counter(path.stem for path in hr)
    ours = [path for path in hr if path not in matches and names[path.stem] == 1]
    return matches | _by_name(ours, sorted({*others} - {*matches.values()}), folder)


def _by_folder(paths: list[Path], folder: Path) -> defaultdict[Path, list[Path]]:
    """The files by the folder below `folder` that they lie in."""
    found = defaultdict(list)
    for path in paths:
        found[path.parent.relative_to(folder)].append(path)
    return found


def _by_name(hr: list[Path], others: list[Path], folder: Path) -> dict[Path, Path]:
    """See `match_files`."""
    found: dict[Path, list[Path]] = {}
    for other in others:
        owners = [path for path in hr if _belongs(other.stem, path.stem)]
        if owners:
            found.setdefault(max(owners, key=lambda path: len(path.stem)), []).append(other)
    matches = {}
    for path, candidates in found.items():
        exact = [other for other in candidates if other.stem == path.stem]
        if len(exact or candidates) > 1:
            names = ", ".join(sorted(other.relative_to(folder).as_posix() for other in candidates))
            raise ImageError(f"{folder}: {names} all belong to {path.name}; keep one of them")
        matches[path] = (exact or candidates)[0]
    return matches


def set_name(folder: Path) -> str:
    """What to call the data set in `folder`: its name, or its parent's where it is just called HR, GT or the like."""
    folder = folder.resolve()
    return folder.parent.name if folder.name.lower() in ("hr", "gt", "original") else folder.name


def read_pairs(
    hr_folder: Path, lr_folder: Path | None, sr_folder: Path | None, scale: int, fail: Callable[[str], None]
) -> Iterator[Pair]:
    """Read pictures from folders, one at a time.

    Args:
        hr_folder: ground truth; cropped to multiples of `scale`.
        lr_folder: inputs, or None to make them from the ground truth (exactly as MATLAB would).
        sr_folder: finished pictures, or None.
        scale: size factor.
        fail: receives one line for each picture that cannot be scored; the others go on.

    Raises:
        ImageError: a folder is missing or holds no pictures.
    """
    files = find_images(hr_folder)
    if not files:
        raise ImageError(f"{hr_folder}: no images here; give a folder of PNG or JPEG files")
    lr_files, sr_files = (
        match_files(files, hr_folder, find_images(folder), folder) if folder else {}
        for folder in (lr_folder, sr_folder)
    )
    for folder, matched in ((lr_folder, lr_files), (sr_folder, sr_files)):
        for other in sorted({*find_images(folder)} - {*matched.values()} if folder else ()):
            fail(f"{other}: no ground truth of this name in {hr_folder}")
    for path in files:
        try:
            hr = read_image(path).pixels
            lr = _counterpart(path, lr_files, lr_folder, hr) if lr_folder else downscale(hr, scale)
            name = path.relative_to(hr_folder).as_posix()
            name = name.encode(errors="surrogateescape").decode(errors="replace")  # bytes that are no text
            pair = Pair(set_name(hr_folder), name, *_fit(path, hr, lr, scale))
            if sr_folder:
                sr = _counterpart(path, sr_files, sr_folder, hr)
                pair = replace(pair, sr=_crop_like(path, sr, pair.hr))
        except ImageError as error:
            fail(str(error))
        except ValueError as error:
            fail(f"{path}: {error}")
        else:
            yield pair


def held_out(index: PatchIndex) -> Iterator[Pair]:
    """The validation pictures of the index; one that was a single gray channel is scored as such."""
    for number, row in enumerate(index.images):
        if row.split == "valid":
            gray = row.channels == 1
            hr, lr = (view[..., 0] if gray else view for view in (index.hr(number), index.lr(number)))
            yield Pair(row.set, row.name, hr, lr)


def compressed(pairs: Iterable[Pair], quality: int) -> Iterator[Pair]:
    """The pairs with inputs that were JPEG files of this quality (1 to 100, 4:2:0); their sets' names say so."""
    for pair in pairs:
        yield replace(pair, set=f"{pair.set}-jpeg{quality}", lr=jpeg(pair.lr, quality, "4:2:0"))


def unseen(pairs: Iterable[Pair], index: PatchIndex) -> Iterator[Pair]:
    """The pairs, none of which nearly equals a picture that a network of this index was trained on.

    Raises:
        InputError: one does; both are named.
    """
    trained = [number for number, row in enumerate(index.images) if row.split == "train"]
    hashes = np.stack([_hash(index.hr(number)) for number in trained])
    for pair in pairs:
        bits = distance(_hash(pair.hr), hashes)
        if bits.min() <= NEAR:
            twin = index.images[trained[int(bits.argmin())]]
            raise InputError(
                f"{pair.set}/{pair.name}: nearly the same picture as {twin.path}, which was trained on; a score on it "
                "would say nothing: leave it out"
            )
        yield pair


def _hash(pixels: Pixels) -> Hash:
    return perceptual_hash(np.asarray(Image.fromarray(pixels).convert("L")))


def _belongs(stem: str, hr_stem: str) -> bool:
    return re.fullmatch(re.escape(hr_stem) + r"(x\d+|[ _-].*)?", stem) is not None


def _counterpart(path: Path, files: dict[Path, Path], folder: Path, hr: Pixels) -> Pixels:
    if path not in files:
        raise ImageError(f"{path}: no counterpart in {folder}; call it {path.stem}, {path.stem}x2 or the like")
    other = read_image(files[path])
    if hr.ndim == 2 and other.pixels.ndim == 3 and np.ptp(other.pixels, axis=2).max() == 0:
        return other.pixels[..., 0]  # gray stored as colour
    if other.pixels.ndim != hr.ndim:
        kinds = {2: "gray", 3: "colour"}
        raise ImageError(f"{files[path]}: {kinds[other.pixels.ndim]}, but {path} is {kinds[hr.ndim]}")
    return other.pixels


def _fit(path: Path, hr: Pixels, lr: Pixels, scale: int) -> tuple[Pixels, Pixels]:
    """Crop `hr` to `scale` times `lr`, or refuse sizes that do not belong together."""
    cropped = crop_to_multiple(hr, scale)
    expected = tuple(side // scale for side in cropped.shape[:2])
    if lr.shape[:2] != expected:
        raise ImageError(
            f"{path}: its low-resolution picture is {lr.shape[1]} x {lr.shape[0]} pixels; for scale {scale} it must be "
            f"{expected[1]} x {expected[0]}"
        )
    return cropped, lr


def _crop_like(path: Path, sr: Pixels, hr: Pixels) -> Pixels:
    """`sr` without the odd row or column that `hr` lost; refuses any other difference in size."""
    if any(not 0 <= ours - wanted <= 1 for ours, wanted in zip(sr.shape[:2], hr.shape[:2], strict=True)):
        raise ImageError(
            f"{path}: its super-resolved picture is {sr.shape[1]} x {sr.shape[0]} pixels, not {hr.shape[1]} x "
            f"{hr.shape[0]}"
        )
    return sr[: hr.shape[0], : hr.shape[1]]
