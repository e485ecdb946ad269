"""Enlargers that tests can reason about: local operators in whole numbers, exact wherever they are cut."""

import threading

import numpy as np

from loupe.imaging.resize import Pixels
from loupe.imaging.resize import upscale as bicubic


class Repeating:
    """Repeats pixels: what it makes of a file is known without it."""

    scale, halo, bytes_per_pixel = 2, 0, 100

    def __call__(self, batch: Pixels) -> Pixels:
        return batch.repeat(2, axis=1).repeat(2, axis=2)


class Bicubic(Repeating):
    """Linear but for rounding, as a network is not: what holds for composites can be said exactly."""

    halo = 3

    def __call__(self, batch: Pixels) -> Pixels:
        return np.stack([bicubic(picture, 2) for picture in batch])


class Blurring(Repeating):
    """Hashes of all neighbours up to `halo` away, zeros beyond the edge: one wrong neighbour changes everything."""

    def __init__(self, halo: int) -> None:
        self.halo = halo
        self.calls = 0
        self.largest = 0
        self._lock = threading.Lock()

    def __call__(self, batch: Pixels) -> Pixels:
        with self._lock:
            self.calls += 1
            self.largest = max(self.largest, batch.shape[1] * batch.shape[2])
        total = batch.astype(np.uint32)
        for axis in (1, 2):
            margins = [(0, 0)] * 4
            margins[axis] = (self.halo, self.halo)
            padded = np.pad(total, margins)
            length = total.shape[axis]
            total = np.zeros_like(total)
            for shift in range(2 * self.halo + 1):
                total += np.uint32(2 * shift + 3) * padded.take(range(shift, shift + length), axis)
        mixed = (total * np.uint32(2654435761)) >> np.uint32(24)
        finer = mixed.astype(np.uint8).repeat(2, axis=1).repeat(2, axis=2)
        finer[:, 1::2] ^= 85
        finer[:, :, 1::2] ^= 51
        return finer
