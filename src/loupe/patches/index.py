"""Build and read the patch index: decoded pixels, and a table of the patches they hold.

    index/
      hr.bin lr.bin     all pictures, decoded: uint8 [H, W, 3] after uint8 [H, W, 3]; read by memory map
      images.parquet    one row a picture: its set and split, its size and where it begins in both files
      patches.parquet   one row a patch on a grid: picture, split, y, x (low-resolution pixels), statistics
      index.json        scale, patch size, counts; written last

Decoding once is what makes training cheap to feed: a patch is a slice of a file that the system keeps in memory. The
low-resolution pictures are MATLAB-exact reductions of the whole high-resolution ones, so a patch at (y, x) belongs to
the high-resolution patch at (scale * y, scale * x) to the last bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loupe.errors import InputError
from loupe.imaging.files import ImageError, LoadedImage, read_image
from loupe.imaging.metrics import luma
from loupe.imaging.resize import Pixels, crop_to_multiple, imresize

FLAT_GRADIENT = 2.0  # grey levels a pixel; below it, a pixel belongs to a flat area


@dataclass(frozen=True)
class Source:
    """A picture to index.

    name: how it is called in tables, its path below the folder of its set. split: `train`, `valid`, or None to let the
    content decide with `valid_share`.
    """

    path: Path
    name: str
    set: str
    split: str | None


@dataclass(frozen=True)
class ImageRow:
    """One picture of the index.

    name: its path below the folder of its set. set: data set, such as `photos`. split: `train` or `valid`. height,
    width: of the high-resolution picture, multiples of the scale. channels: 1 if the file held one gray channel, else
    3 (the pool repeats gray three times). hr_start, lr_start: its first byte in hr.bin and lr.bin. sha256: of the
    pixels. note: what reading it changed.
    """

    name: str
    set: str
    split: str
    height: int
    width: int
    channels: int
    hr_start: int
    lr_start: int
    sha256: str
    note: str


def build_index(
    sources: Iterable[Source],
    folder: Path,
    *,
    scale: int,
    patch: int,
    valid_share: float,
    say: Callable[[str], None] = print,
) -> dict[str, int]:
    """Decode `sources` into the files above; one picture is in memory at a time.

    Args:
        sources: pictures, in the order in which they are stored.
        folder: existing folder that receives the files.
        scale: size factor between both resolutions.
        patch: side of a patch in low-resolution pixels.
        valid_share: share in [0, 1) of the pictures without a given split that go to `valid`, by their content.
        say: receives one line for each picture that was changed, skipped or refused.

    Returns:
        Counts: images, train_images, valid_images, patches, skipped.

    Raises:
        ImageError: the same picture is in both splits, or nothing is left to train on or to validate with.
    """
    images: list[ImageRow] = []
    patches: list[pd.DataFrame] = []
    seen: dict[str, ImageRow] = {}
    skipped = hr_bytes = lr_bytes = 0
    with (folder / "hr.bin").open("wb") as hr_file, (folder / "lr.bin").open("wb") as lr_file:
        for source in sources:
            try:
                loaded = read_image(source.path)
            except ImageError as error:
                say(str(error))
                skipped += 1
                continue
            if loaded.notes:
                say(f"{source.path}: converted: {'; '.join(loaded.notes)}")
            hr = loaded.rgb
            if min(hr.shape[:2]) < patch * scale:
                size = f"{hr.shape[1]} x {hr.shape[0]}"
                say(f"{source.path}: skipped: {size} pixels, smaller than a patch of {patch * scale} x {patch * scale}")
                skipped += 1
                continue
            sha256 = content_hash(hr)
            split = source.split or split_of(sha256, valid_share)
            if (twin := seen.get(sha256)) is not None:
                if twin.split != split:
                    raise ImageError(
                        f"{source.path} ({split}) and {twin.set}/{twin.name} ({twin.split}) are the same picture; "
                        "remove one: a network must not be scored on what it was trained on"
                    )
                say(f"{source.path}: skipped: the same picture as {twin.set}/{twin.name}")
                skipped += 1
                continue
            hr = crop_to_multiple(hr, scale)
            lr = imresize(hr, 1 / scale)
            row = _image_row(source, split, loaded, hr, hr_bytes, lr_bytes, sha256)
            hr_file.write(np.ascontiguousarray(hr).data)
            lr_file.write(lr.data)
            hr_bytes, lr_bytes = hr_bytes + hr.size, lr_bytes + lr.size
            patches.append(_patch_rows(len(images), split, hr, scale, patch))
            images.append(row)
            seen[sha256] = row
    for split in ("train", "valid"):
        if not any(row.split == split for row in images):
            raise ImageError(f"no usable picture is left for the split {split!r}: see the lines above for the reasons")
    table = pd.concat(patches, ignore_index=True)
    table.to_parquet(folder / "patches.parquet", index=False)
    pd.DataFrame([asdict(row) for row in images]).to_parquet(folder / "images.parquet", index=False)
    counts = {
        "images": len(images),
        "train_images": sum(row.split == "train" for row in images),
        "valid_images": sum(row.split == "valid" for row in images),
        "patches": len(table),
        "skipped": skipped,
    }
    (folder / "index.json").write_text(json.dumps({"scale": scale, "patch": patch, **counts}, indent=2) + "\n")
    return counts


def content_hash(pixels: Pixels) -> str:
    """sha256 of a picture's size and pixels: the same for every lossless file of the same picture."""
    digest = hashlib.sha256(str(pixels.shape).encode())
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def split_of(sha256: str, valid_share: float) -> str:
    """`valid` for about `valid_share` of all hashes, else `train`; a picture never changes side when others arrive."""
    return "valid" if int(sha256[:8], 16) < valid_share * 2**32 else "train"


class PatchIndex:
    """An index on disk, opened for reading; pictures are views of memory-mapped files.

    Attributes:
        scale, patch: as built. images: list of ImageRow. patches: DataFrame of patches.parquet.
    """

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`; an InputError names it and what to run when it is missing or not whole."""
        try:
            facts: dict[str, Any] = json.loads((folder / "index.json").read_text())
            images = pd.read_parquet(folder / "images.parquet")
            self.images = [ImageRow(*row) for row in images.itertuples(index=False)]
            self.patches = pd.read_parquet(folder / "patches.parquet")
            self._hr = np.memmap(folder / "hr.bin", np.uint8, mode="r")
            self._lr = np.memmap(folder / "lr.bin", np.uint8, mode="r")
        except (OSError, ValueError, TypeError) as error:
            raise InputError(f"{folder}: no whole patch index ({error}); run `dvc repro patch-index`") from None
        self.scale: int = facts["scale"]
        self.patch: int = facts["patch"]

    def hr(self, number: int) -> Pixels:
        """High-resolution picture `number`: uint8 [H, W, 3], a read-only view."""
        row = self.images[number]
        return self._view(self._hr, row.hr_start, row.height, row.width)

    def lr(self, number: int) -> Pixels:
        """Its low-resolution picture: uint8 [H / scale, W / scale, 3], a read-only view."""
        row = self.images[number]
        return self._view(self._lr, row.lr_start, row.height // self.scale, row.width // self.scale)

    @staticmethod
    def _view(pool: npt.NDArray[np.uint8], start: int, height: int, width: int) -> Pixels:
        return pool[start : start + height * width * 3].reshape(height, width, 3)


def _image_row(
    source: Source, split: str, loaded: LoadedImage, hr: Pixels, hr_start: int, lr_start: int, sha256: str
) -> ImageRow:
    return ImageRow(
        name=source.name,
        set=source.set,
        split=split,
        height=hr.shape[0],
        width=hr.shape[1],
        channels=1 if loaded.pixels.ndim == 2 else 3,
        hr_start=hr_start,
        lr_start=lr_start,
        sha256=sha256,
        note="; ".join(loaded.notes),
    )


def _grid(length: int, patch: int) -> npt.NDArray[np.int64]:
    """Starts of patches that cover `length` without gaps; the last one ends at the border."""
    return np.unique(np.append(np.arange(0, length - patch + 1, patch), length - patch))


def _patch_rows(number: int, split: str, hr: Pixels, scale: int, patch: int) -> pd.DataFrame:
    """Grid patches of one picture, with statistics of the high-resolution luma of each.

    variance: in squared grey levels. gradient: mean length of the gradient, grey levels a pixel. flat: share in [0, 1]
    of pixels whose gradient is below FLAT_GRADIENT.
    """
    plane = luma(hr)
    slope = np.hypot(*np.gradient(plane))
    rows = []
    side = patch * scale
    for y in _grid(hr.shape[0] // scale, patch):
        for x in _grid(hr.shape[1] // scale, patch):
            window = np.s_[y * scale : y * scale + side, x * scale : x * scale + side]
            rows.append((y, x, plane[window].var(), slope[window].mean(), (slope[window] < FLAT_GRADIENT).mean()))
    table = pd.DataFrame(rows, columns=["y", "x", "variance", "gradient", "flat"])
    table = table.astype({"y": "int32", "x": "int32", "variance": "float32", "gradient": "float32", "flat": "float32"})
    table.insert(0, "image", np.int32(number))
    table.insert(1, "split", split)
    return table
