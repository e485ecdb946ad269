"""Decoded training pictures in a GPU's memory, and batches gathered there: only coordinates cross the bus."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from loupe.patches.batches import CHANNELS, PatchBatches
from loupe.patches.index import PatchIndex

PICTURE_SHARE = 0.5  # of the free memory of a GPU that pictures may take; the rest is the network's


class ResidentPool:
    """The batches of `batches`, byte for byte, gathered on `device`.

    Holds every training picture in both resolutions: DIV2K's 800 take 8 GB. The strategy `random`, which reads files,
    has no use for it.

    Args:
        batches: says where the patches lie.
        device: where the pictures are kept.
    """

    def __init__(self, batches: PatchBatches, device: torch.device) -> None:
        self._batches = batches
        self._device = device
        index = batches.index
        numbers = _training(index)
        shapes = [(index.images[n].height, index.images[n].width) for n in numbers]
        self._hr = _Pool(shapes, device)
        self._lr = _Pool([(height // index.scale, width // index.scale) for height, width in shapes], device)
        self._position = {number: position for position, number in enumerate(numbers)}
        for position, number in enumerate(numbers):
            self._hr.put(position, index.hr(number))
            self._lr.put(position, index.lr(number))

    def batch_at(self, step: int) -> tuple[Tensor, Tensor]:
        """The batch of step `step`: low-resolution uint8 [N, p, p, 3] and high uint8 [N, p*s, p*s, 3]."""
        index = self._batches.index
        spots = self._batches.spots(step)
        where = np.array([[self._position[spot.image], spot.y, spot.x, spot.turn] for spot in spots], np.int64)
        lr = self._lr.gather(where, index.patch)
        where[:, 1:3] *= index.scale
        hr = self._hr.gather(where, index.patch * index.scale)
        if any(spot.channels for spot in spots):
            order = torch.from_numpy(CHANNELS[[spot.channels for spot in spots]]).to(self._device)[:, None, None]
            lr, hr = (pixels.gather(3, order.expand(*pixels.shape)) for pixels in (lr, hr))
        for i, spot in enumerate(spots):
            if spot.degradation:
                pixels = np.ascontiguousarray(self._batches.degraded(spot, index.hr(spot.image)))
                lr[i] = torch.from_numpy(pixels).to(self._device)
        return lr, hr


def pool_bytes(index: PatchIndex) -> int:
    """What a ResidentPool of this index takes."""
    pixels = sum(index.images[n].height * index.images[n].width for n in _training(index))
    return 3 * (pixels + pixels // index.scale**2)


def fits(index: PatchIndex, device: torch.device) -> bool:
    """Whether the pictures take at most PICTURE_SHARE of what is free on a CUDA device."""
    free, _ = torch.cuda.mem_get_info(device)
    return pool_bytes(index) <= PICTURE_SHARE * free


def _training(index: PatchIndex) -> list[int]:
    return [number for number, row in enumerate(index.images) if row.split == "train"]


class _Pool:
    """Pictures of these [(H, W)] one after the other, as uint8 [pixels, 3]."""

    def __init__(self, shapes: list[tuple[int, int]], device: torch.device) -> None:
        ends = np.cumsum([height * width for height, width in shapes])
        self._start = np.concatenate([[0], ends[:-1]])
        self._width = np.array([width for _, width in shapes])
        self._pixels = torch.empty((int(ends[-1]), 3), dtype=torch.uint8, device=device)

    def put(self, position: int, picture: np.ndarray) -> None:
        """Store uint8 [H, W, 3]."""
        start = int(self._start[position])
        flat = torch.tensor(picture.reshape(-1, 3))
        self._pixels[start : start + len(flat)] = flat

    def gather(self, where: np.ndarray, side: int) -> Tensor:
        """The squares at int64 [N, 4] (picture, y, x, turn), turned as `turned` does: uint8 [N, side, side, 3]."""
        picture, y, x, turn = where.T
        device = self._pixels.device
        width, corner, turn_ = (
            torch.from_numpy(values).to(device)[:, None, None]
            for values in (self._width[picture], self._start[picture] + y * self._width[picture] + x, turn)
        )
        line = torch.arange(side, device=device)
        row, column = line[None, :, None], line[None, None, :]
        swapped = (turn_ & 4) > 0
        row, column = torch.where(swapped, column, row), torch.where(swapped, row, column)
        row = torch.where((turn_ & 1) > 0, side - 1 - row, row)
        column = torch.where((turn_ & 2) > 0, side - 1 - column, column)
        return self._pixels[corner + row * width + column]
