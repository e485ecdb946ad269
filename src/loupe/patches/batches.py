"""Batches of patches: drawn from the decoded pool, seeded, and the same for step n however one got there."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from loupe.imaging.resize import Pixels
from loupe.patches.index import PatchIndex


class PatchBatches:
    """Random training batches of an index.

    An epoch visits every grid patch of the split once, in a new order, each moved by up to half a patch so that no
    position is missed for ever, and turned or mirrored one of eight ways. `batch_at` is a pure function of seed and
    step, which makes resuming at any step exact.

    Args:
        index: the index to draw from.
        size: patches in a batch.
        seed: whole number from 0.
        split: `train` or `valid`.
    """

    def __init__(self, index: PatchIndex, size: int, seed: int, split: str = "train") -> None:
        self.index = index
        self.size = size
        self.seed = seed
        rows = index.patches[index.patches["split"] == split]
        self._rows: npt.NDArray[np.int64] = rows[["image", "y", "x"]].to_numpy(np.int64)
        self._epoch = -1
        self._order = np.arange(0)

    def __len__(self) -> int:
        """Patches in an epoch."""
        return len(self._rows)

    def batch_at(self, step: int) -> tuple[Pixels, Pixels]:
        """The batch of step `step` (from 0): low-resolution uint8 [N, p, p, 3] and high uint8 [N, p*s, p*s, 3]."""
        scale, patch = self.index.scale, self.index.patch
        lr = np.empty((self.size, patch, patch, 3), np.uint8)
        hr = np.empty((self.size, patch * scale, patch * scale, 3), np.uint8)
        draw = np.random.default_rng([self.seed, step])
        shifts = draw.integers(-(patch // 2), patch // 2 + 1, size=(self.size, 2))
        turns = draw.integers(8, size=self.size)
        for i in range(self.size):
            image, *corner = self._rows[self._row_number(step * self.size + i)]
            lr_image, hr_image = self.index.lr(image), self.index.hr(image)
            y, x = (int(np.clip(corner[axis] + shifts[i, axis], 0, lr_image.shape[axis] - patch)) for axis in (0, 1))
            lr[i] = turned(lr_image[y : y + patch, x : x + patch], turns[i])
            y, x, side = y * scale, x * scale, patch * scale
            hr[i] = turned(hr_image[y : y + side, x : x + side], turns[i])
        return lr, hr

    def _row_number(self, position: int) -> int:
        """Row of the patch that comes `position`-th over all epochs."""
        epoch, place = divmod(position, len(self._rows))
        if epoch != self._epoch:
            self._order = np.random.default_rng([self.seed, epoch, 1]).permutation(len(self._rows))
            self._epoch = epoch
        return int(self._order[place])


def turned(image: Pixels, turn: int) -> Pixels:
    """One of the eight mirrorings and quarter turns (`turn` in 0..7) of a square [H, W, C], as a view."""
    if turn & 1:
        image = image[::-1]
    if turn & 2:
        image = image[:, ::-1]
    if turn & 4:
        image = image.transpose(1, 0, 2)
    return image
