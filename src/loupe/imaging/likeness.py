"""Do two files show the same picture? A hash of the pixels, and a perceptual one that survives recompression, resizing
and small retouches.

Zauner, "Implementation and benchmarking of perceptual image hash functions", 2010 (the DCT hash), with 256 bits instead
of 64: packshots on white look alike at the coarsest scale, and the finer frequencies tell them apart.
"""

from __future__ import annotations

import hashlib

import numpy as np
import numpy.typing as npt
from PIL import Image
from scipy.fft import dctn

from loupe.imaging.resize import Pixels

SIDE = 16  # frequencies a side: 256 bits
SAMPLES = 4 * SIDE  # the picture is reduced to this many pixels a side first
# Bits of 256 in which two files of one picture may differ. Recompressed at JPEG quality 50, halved or brightened a
# picture stays within 14; different photographs differ in 46 and more. Packshots of one product in two colours can be
# as near as 2, and are meant to count as near.
NEAR = 16

Hash = npt.NDArray[np.uint64]


def content_hash(*pictures: Pixels) -> str:
    """sha256 of the size and pixels of a picture, or of several together: the same for every lossless file of them."""
    digest = hashlib.sha256()
    for pixels in pictures:
        digest.update(str(pixels.shape).encode())
        digest.update(np.ascontiguousarray(pixels).data)
    return digest.hexdigest()


def perceptual_hash(gray: Pixels) -> Hash:
    """Which low frequencies of uint8 [H, W] are stronger than the median one, as uint64 [4]."""
    small = np.asarray(Image.fromarray(gray).resize((SAMPLES, SAMPLES), Image.Resampling.BOX), np.float64)
    low = dctn(small, norm="ortho")[:SIDE, :SIDE]
    return np.packbits(low > np.median(low)).view(np.uint64)


def distance(a: Hash, b: Hash) -> npt.NDArray[np.int64]:
    """Bits in which hashes [..., 4] differ, 0 to 256; broadcasts."""
    bits: npt.NDArray[np.int64] = np.bitwise_count(a ^ b).sum(axis=-1, dtype=np.int64)
    return bits
