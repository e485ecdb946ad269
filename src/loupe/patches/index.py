"""The patch index on disk, opened for reading: decoded pixels, and a table of the patches they hold.

    index/
      hr.bin            all pictures, decoded: uint8 [H, W, 3] after uint8 [H, W, 3]; read by memory map
      lr.bin            their reductions, if they are to be stored
      images.parquet    one row a picture: file, set, split, size, and where it begins in the files above
      patches.parquet   one row a patch on a grid: picture, split, y, x (low-resolution pixels), statistics
      index.json        scale, patch size, how low resolution is had, counts; written last

Decoding once is what makes training cheap to feed: a patch is a slice of a file that the system keeps in memory. Low
resolution is MATLAB-exact either way: computed for each patch from the window around it, or stored. A patch at (y, x)
belongs to the high-resolution patch at (scale * y, scale * x). build.py writes an index and defines its columns.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd

from loupe.errors import InputError
from loupe.imaging.resize import Pixels, crop_to_multiple, downscale

LowResolution = Literal["computed", "stored"]


@dataclass(frozen=True)
class ImageRow:
    """One picture of the index.

    path: its file. name: its path below the folder of its set. set: data set, such as `photos`. split: `train`,
    `valid`, or `aside` for what is too like a validation picture to be trained on. reduction: the whole number by
    which the file's picture was made smaller before all else; 1, except for the second and further rows of a training
    picture. height, width: of the high-resolution picture, multiples of the scale. channels: 1 if the file held one
    gray channel, else 3 (the pool repeats gray three times). hr_start, lr_start: its first byte in hr.bin and lr.bin.
    sha256: of the pixels. note: what reading it changed.
    """

    path: str
    name: str
    set: str
    split: str
    reduction: int
    height: int
    width: int
    channels: int
    hr_start: int
    lr_start: int
    sha256: str
    note: str


class PatchIndex:
    """An index on disk, opened for reading; pictures are views of memory-mapped files.

    Attributes:
        scale, patch, low_resolution: as built. images: list of ImageRow. patches: DataFrame of patches.parquet.
    """

    def __init__(self, folder: Path) -> None:
        """Open the index in `folder`; an InputError names it and what to run when it is missing or not whole."""
        try:
            facts: dict[str, Any] = json.loads((folder / "index.json").read_text())
            images = pd.read_parquet(folder / "images.parquet")
            self.images = [ImageRow(*row) for row in images.itertuples(index=False)]
            self.patches = pd.read_parquet(folder / "patches.parquet")
            self._hr = _map(folder / "hr.bin")
            self.low_resolution: LowResolution = facts["low_resolution"]
            self._lr = _map(folder / "lr.bin") if self.low_resolution == "stored" else None
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise InputError(f"{folder}: no whole patch index ({error}); run `dvc repro patch-index`") from None
        self.scale: int = facts["scale"]
        self.patch: int = facts["patch"]

    def hr(self, number: int) -> Pixels:
        """High-resolution picture `number`: uint8 [H, W, 3], a read-only view."""
        row = self.images[number]
        return self._view(self._hr, row.hr_start, row.height, row.width)

    def lr(self, number: int) -> Pixels:
        """Its low-resolution picture: uint8 [H / scale, W / scale, 3]; a read-only view where it is stored."""
        if self._lr is None:
            return downscale(self.hr(number), self.scale)
        row = self.images[number]
        return self._view(self._lr, row.lr_start, row.height // self.scale, row.width // self.scale)

    @staticmethod
    def _view(pool: npt.NDArray[np.uint8], start: int, height: int, width: int) -> Pixels:
        return pool[start : start + height * width * 3].reshape(height, width, 3)


def high_resolution(rgb: Pixels, reduction: int, scale: int) -> Pixels:
    """What a patch index holds of a file's picture: uint8 [H, W, 3], made smaller, and sides multiples of `scale`."""
    if reduction > 1:
        rgb = downscale(crop_to_multiple(rgb, reduction), reduction)
    return crop_to_multiple(rgb, scale)


def _map(path: Path) -> npt.NDArray[np.uint8]:
    """The bytes of a file, memory-mapped; a plain array, for slices of NumPy's `memmap` class cost far more."""
    return np.asarray(np.memmap(path, np.uint8, mode="r"))
