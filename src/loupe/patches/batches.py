"""Batches of patches, seeded, and the same for step n however one got there.

Three ways to choose the patches of an epoch, the article's; all give the same kind of batch:

- `grid`: a static set. Every grid patch of every picture once, in random order.
- `random`: one random patch of each picture, decoded from its file each time. What most public code does, and slow.
- `pool`: of `images` random pictures `per_image` random patches each are mixed; then come the next pictures. The pixels
  come from the decoded pool, as those of `grid`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any, Literal, NamedTuple

import numpy as np
import numpy.typing as npt

from loupe.errors import InputError
from loupe.imaging.degradations import Degradation, Settings, apply, draw
from loupe.imaging.files import read_image
from loupe.imaging.resize import Pixels, mirrored, reduce_windows, window_margin
from loupe.patches.index import PatchIndex, high_resolution

PIXEL = np.dtype("V3")  # three samples as one item
CHANNELS = np.array(list(permutations(range(3))))  # the six orders of three channels; the first changes nothing
FROM_DRAWS, FROM_DEGRADATION, FROM_CHANNELS = range(3)  # keys that keep the random numbers of a position or step apart


@dataclass(frozen=True)
class Strategy:
    """How the patches of an epoch are chosen, and shown.

    name: as above. images, per_image: of `pool`. difficulty: in [0, 1); of `random` and `pool`. The easiest patches
    (by the PSNR of bicubic enlargement) are drawn 1 - difficulty times as often as the hardest: less, but never not at
    all, for a network that has seen no flat white spoils it. channel_shuffle: share in [0, 1] of the patches whose
    colour channels come in a random order, one of six; the reduction treats channels alike, so that both resolutions
    still belong together exactly. Degraded patches are left out: JPEG does not treat them alike.
    """

    name: Literal["pool", "grid", "random"] = "pool"
    images: int = 64
    per_image: int = 16
    difficulty: float = 0.0
    channel_shuffle: float = 0.0


class Spot(NamedTuple):
    """One patch of a batch: its picture's number, its place in low-resolution pixels, its mirroring (see `turned`), the
    order of its channels (of CHANNELS), and how its input is degraded beside being reduced, with the source of that
    noise.
    """

    image: int
    y: int
    x: int
    turn: int
    channels: int
    degradation: tuple[Settings, np.random.Generator] | None


class PatchBatches:
    """Random training batches of an index.

    Photographs and product images are two streams, mixed in a fixed ratio whatever their numbers. Except with `grid`,
    each patch is moved by up to half its size, so that no position is missed for ever; all are turned or mirrored one
    of eight ways. `batch_at` is a pure function of seed and step: resuming at any step is exact. The batches of all
    ranks of a step together are the batch that one process with their joint size would get.

    Args:
        index: the index to draw from.
        size: patches in a batch of this rank.
        seed: whole number from 0.
        product_share: share in [0, 1] of patches that come from the set `products`; where the index has only one
            kind of picture, all patches come from it.
        strategy: which patches make an epoch.
        degradation: what is done to product images beside the reduction; nothing without it.
        rank, world: this process and the number of processes in data-parallel training.

    Raises:
        InputError: the index has no training patches.
    """

    def __init__(
        self,
        index: PatchIndex,
        size: int,
        seed: int,
        product_share: float,
        strategy: Strategy = Strategy(),  # frozen
        degradation: Degradation | None = None,
        rank: int = 0,
        world: int = 1,
    ) -> None:
        self.index = index
        self.size = size
        self._seed = seed
        self._from_files = strategy.name == "random"
        self._stored = index.low_resolution == "stored" and not self._from_files
        self._jitter = 0 if strategy.name == "grid" else index.patch // 2
        self._degradation = degradation
        self._shuffled = strategy.channel_shuffle
        self._rank, self._world = rank, world
        rows = index.patches[index.patches["split"] == "train"]
        if rows.empty:
            raise InputError("the index holds no training patches; see what `dvc repro patch-index` left out")
        is_product = rows["image"].map([row.set == "products" for row in index.images].__getitem__).to_numpy(bool)
        places = rows[["image", "y", "x"]].to_numpy(np.int64)
        ease = rows["bicubic_psnr"].rank(pct=True, method="average").to_numpy(np.float64)
        self._photos, self._products = (
            _Stream(places[which], 1 - strategy.difficulty * ease[which], strategy, [seed, number])
            for number, which in enumerate((~is_product, is_product))
        )
        self._share = float(is_product.all()) if is_product.all() or not is_product.any() else product_share

    def batch_at(self, step: int) -> tuple[Pixels, Pixels]:
        """The batch of step `step` (from 0): low-resolution uint8 [N, p, p, 3] and high uint8 [N, p*s, p*s, 3]."""
        scale, patch = self.index.scale, self.index.patch
        side, margin = patch * scale, window_margin(scale)
        lr = np.empty((self.size, patch, patch, 3), np.uint8)
        hr = np.empty((self.size, side, side, 3), np.uint8)
        windows, computed = [], []  # where low resolution is still to be computed
        spots = self.spots(step)
        for i, spot in enumerate(spots):
            picture = self._picture(spot.image)
            top, left = spot.y * scale, spot.x * scale
            _copy(hr[i], picture[top : top + side, left : left + side], spot.turn)
            if spot.degradation:
                lr[i] = self.degraded(spot, picture)
            elif self._stored:
                _copy(lr[i], self.index.lr(spot.image)[self._part(spot)], spot.turn)
            else:
                windows.append(_window(picture, top - margin, left - margin, side + 2 * margin))
                computed.append(i)
        if windows:
            for i, reduced in zip(computed, reduce_windows(np.stack(windows), scale), strict=True):
                _copy(lr[i], reduced, spots[i].turn)
        for i, spot in enumerate(spots):
            if spot.channels:
                order = CHANNELS[spot.channels]
                lr[i], hr[i] = lr[i][..., order], hr[i][..., order]
        return lr, hr

    def spots(self, step: int) -> list[Spot]:
        """Where the patches of step `step` lie, without their pixels."""
        first = (step * self._world + self._rank) * self.size
        draws = np.random.default_rng([self._seed, FROM_DRAWS, step])
        joint = draws.random((self.size * self._world, 3))[self._rank * self.size :][: self.size]
        moves = np.rint((2 * joint[:, :2] - 1) * self._jitter).astype(int).tolist()
        turns = (8 * joint[:, 2]).astype(int).tolist()
        scale, patch = self.index.scale, self.index.patch
        spots = []
        for position, ((down, across), turn, order) in enumerate(
            zip(moves, turns, self._channels(step), strict=True), start=first
        ):
            (image, y, x), is_product = self._place(position)
            row = self.index.images[image]
            y = min(max(y + down, 0), row.height // scale - patch)
            x = min(max(x + across, 0), row.width // scale - patch)
            degradation = self._degradation_at(position) if is_product else None
            spots.append(Spot(image, y, x, turn, 0 if degradation else order, degradation))
        return spots

    def degraded(self, spot: Spot, picture: Pixels) -> Pixels:
        """The low-resolution patch at a spot with a degradation, from its high-resolution picture: uint8 [p, p, 3]."""
        settings, noise = spot.degradation or (Settings(), np.random.default_rng(0))
        return turned(apply(picture, self.index.scale, settings, noise, self._part(spot)), spot.turn)

    def _part(self, spot: Spot) -> tuple[slice, slice]:
        return np.s_[spot.y : spot.y + self.index.patch, spot.x : spot.x + self.index.patch]

    def _picture(self, image: int) -> Pixels:
        if not self._from_files:
            return self.index.hr(image)
        row = self.index.images[image]
        return high_resolution(read_image(Path(row.path)).rgb, row.reduction, self.index.scale)

    def _channels(self, step: int) -> list[int]:
        """The order of the channels of each patch of this rank."""
        draws = np.random.default_rng([self._seed, FROM_CHANNELS, step])
        which, order = draws.random((self.size * self._world, 2))[self._rank * self.size :][: self.size].T
        chosen: list[int] = np.where(which < self._shuffled, len(CHANNELS) * order, 0).astype(int).tolist()
        return chosen

    def _degradation_at(self, position: int) -> tuple[Settings, np.random.Generator] | None:
        """How the product patch at `position` of the run is degraded, and where its noise comes from."""
        if self._degradation is None:
            return None
        noise = np.random.default_rng([self._seed, FROM_DEGRADATION, position])
        settings = draw(self._degradation, noise)
        return None if settings == Settings() else (settings, noise)

    def _place(self, position: int) -> tuple[Sequence[int], bool]:
        """[image, y, x] of the patch that comes `position`-th over the whole run, and whether it is a product's."""
        products_before = math.floor(position * self._share)  # spreads them evenly: 0.3 takes 3 of any 10 in a row
        if math.floor((position + 1) * self._share) > products_before:
            return self._products.place(products_before), True
        return self._photos.place(position - products_before), False


class _Stream:
    """Places [image, y, x] in the order in which a strategy visits them, epoch after epoch."""

    def __init__(
        self, places: npt.NDArray[np.int64], weights: npt.NDArray[np.float64], strategy: Strategy, key: list[int]
    ) -> None:
        self._places = places
        self._weights = weights
        self._key = key
        self._epoch = -1
        self._in_order: list[list[int]] = []
        _, self._picture, counts = np.unique(places[:, 0], return_inverse=True, return_counts=True)
        most = {"grid": counts.max(initial=0), "random": 1, "pool": strategy.per_image}[strategy.name]
        self._of_each = int(most)
        self._group = {"pool": strategy.images}.get(strategy.name, len(counts))
        self._pictures = len(counts)
        self.epoch_length = int(np.minimum(counts, self._of_each).sum())

    def place(self, position: int) -> Sequence[int]:
        epoch, offset = divmod(position, self.epoch_length)
        if epoch != self._epoch:
            order = self._shuffle(np.random.default_rng([*self._key, 2, epoch]))
            self._in_order = self._places[order].tolist()
            self._epoch = epoch
        return self._in_order[offset]

    def _shuffle(self, draws: np.random.Generator) -> npt.NDArray[np.int64]:
        """Rows of one epoch: pictures in random order, patches of each without repetition, mixed within a group.

        Exponential variates divided by the weights, smallest first, draw without replacement in proportion to the
        weights (Efraimidis and Spirakis, "Weighted random sampling with a reservoir", 2006).
        """
        turn = draws.permutation(self._pictures)[self._picture]
        keys = draws.exponential(size=len(self._places)) / self._weights
        order = np.lexsort((keys, turn))
        of_picture = turn[order]
        first = np.searchsorted(of_picture, of_picture)  # where each picture's rows begin
        order = order[np.arange(len(order)) - first < self._of_each]
        mixed = np.lexsort((draws.random(len(order)), turn[order] // self._group))
        return order[mixed]


def turned(image: npt.NDArray[Any], turn: int) -> npt.NDArray[Any]:
    """One of the eight mirrorings and quarter turns (`turn` in 0..7) of a square [H, W] or [H, W, C], as a view."""
    if turn & 1:
        image = image[::-1]
    if turn & 2:
        image = image[:, ::-1]
    if turn & 4:
        image = image.swapaxes(0, 1)
    return image


def _copy(target: Pixels, source: Pixels, turn: int) -> None:
    """Copy a square [H, W, 3] `turned`; three times as fast as assigning the view.

    First row by row, as memory is read best, then turned within the processor's cache, by items of a whole pixel.
    """
    if turn & 6:
        target.view(PIXEL)[..., 0] = turned(source.copy().view(PIXEL)[..., 0], turn)
    else:  # rows stay whole
        target[...] = turned(source, turn)


def _window(image: Pixels, top: int, left: int, side: int) -> Pixels:
    """The square at (top, left), which may reach over the border: there the picture is mirrored."""
    height, width = image.shape[:2]
    if top >= 0 and left >= 0 and top + side <= height and left + side <= width:
        return image[top : top + side, left : left + side]
    rows, columns = mirrored(top, top + side, height), mirrored(left, left + side, width)
    return image[rows[:, None], columns]
