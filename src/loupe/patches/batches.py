"""Batches of patches: drawn from the decoded pool, seeded, and the same for step n however one got there."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from loupe.errors import InputError
from loupe.imaging.resize import Pixels
from loupe.patches.index import PatchIndex


class PatchBatches:
    """Random training batches of an index.

    Photographs and product images are two streams, mixed in a fixed ratio whatever their numbers. An epoch of a stream
    visits every grid patch once, in a new order, each moved by up to half a patch so that no position is missed for
    ever, and turned or mirrored one of eight ways. `batch_at` is a pure function of seed and step, which makes resuming
    at any step exact.

    Args:
        index: the index to draw from.
        size: patches in a batch.
        seed: whole number from 0.
        product_share: share in [0, 1] of patches that come from the set `products`; where the index has only one
            kind of picture, all patches come from it.

    Raises:
        InputError: the index has no training patches.
    """

    def __init__(self, index: PatchIndex, size: int, seed: int, product_share: float) -> None:
        self.index = index
        self.size = size
        self._seed = seed
        rows = index.patches[index.patches["split"] == "train"]
        is_product = rows["image"].map([row.set == "products" for row in index.images].__getitem__).to_numpy(bool)
        places = rows[["image", "y", "x"]].to_numpy(np.int64)
        self._photos = _Stream(places[~is_product], seed, 0)
        self._products = _Stream(places[is_product], seed, 1)
        if not len(places):
            raise InputError("the index holds no training patches; see what `dvc repro patch-index` left out")
        self._share = product_share if is_product.any() else 0.0
        self._share = self._share if not is_product.all() else 1.0

    def batch_at(self, step: int) -> tuple[Pixels, Pixels]:
        """The batch of step `step` (from 0): low-resolution uint8 [N, p, p, 3] and high uint8 [N, p*s, p*s, 3]."""
        scale, patch = self.index.scale, self.index.patch
        lr = np.empty((self.size, patch, patch, 3), np.uint8)
        hr = np.empty((self.size, patch * scale, patch * scale, 3), np.uint8)
        draw = np.random.default_rng([self._seed, step])
        shifts = draw.integers(-(patch // 2), patch // 2 + 1, size=(self.size, 2))
        turns = draw.integers(8, size=self.size)
        for i in range(self.size):
            image, *corner = self._place(step * self.size + i)
            lr_image, hr_image = self.index.lr(image), self.index.hr(image)
            y, x = (int(np.clip(corner[axis] + shifts[i, axis], 0, lr_image.shape[axis] - patch)) for axis in (0, 1))
            lr[i] = turned(lr_image[y : y + patch, x : x + patch], turns[i])
            y, x, side = y * scale, x * scale, patch * scale
            hr[i] = turned(hr_image[y : y + side, x : x + side], turns[i])
        return lr, hr

    def _place(self, position: int) -> npt.NDArray[np.int64]:
        """[image, y, x] of the patch that comes `position`-th over the whole run."""
        products_before = math.floor(position * self._share)  # spreads them evenly: 0.3 takes 3 of any 10 in a row
        if math.floor((position + 1) * self._share) > products_before:
            return self._products.place(products_before)
        return self._photos.place(position - products_before)


class _Stream:
    """Places [image, y, x] in a new random order each epoch; `number` tells streams of one seed apart."""

    def __init__(self, places: npt.NDArray[np.int64], seed: int, number: int) -> None:
        self._places = places
        self._key = [seed, number]
        self._epoch = -1
        self._order = np.arange(0)

    def place(self, position: int) -> npt.NDArray[np.int64]:
        epoch, offset = divmod(position, len(self._places))
        if epoch != self._epoch:
            self._order = np.random.default_rng([*self._key, epoch]).permutation(len(self._places))
            self._epoch = epoch
        place: npt.NDArray[np.int64] = self._places[self._order[offset]]
        return place


def turned(image: Pixels, turn: int) -> Pixels:
    """One of the eight mirrorings and quarter turns (`turn` in 0..7) of a square [H, W, C], as a view."""
    if turn & 1:
        image = image[::-1]
    if turn & 2:
        image = image[:, ::-1]
    if turn & 4:
        image = image.transpose(1, 0, 2)
    return image
