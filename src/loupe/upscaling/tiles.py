"""A picture through a network in windows that fit into memory, with the same result as in one piece.

A network of convolutions sees only so far: an output pixel depends on input pixels at most `halo` away. So the picture
is cut into overlapping windows, and of each only those output pixels are taken that are at least `halo` from edges of
the window inside the picture. The picture's own edges stay edges, for what the network makes of them belongs to the
result. All windows of a picture have one shape: runtimes prepare for each shape that they meet.

Windows come in rows from top to bottom, and each row of windows gives a strip of the result, so nothing here grows with
the picture's height.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Protocol

import numpy as np

from loupe.errors import InputError
from loupe.imaging.resize import Pixels

LEAST = 8  # pixels a side of the part of a window that is used, at least: a window of halo alone never gets anywhere
ROW = 8  # windows; the result of so many takes little beside what the network needs for one
# What runtimes say where Python says MemoryError: PyTorch on CPU and GPU, ONNX Runtime, OpenVINO
NO_MEMORY = re.compile(r"out of memory|not enough memory|can't allocate|(cannot|fail\w* to) allocate|bad.?alloc", re.I)


class Enlarger(Protocol):
    """A network as something that enlarges pixels; may be called from several threads at once.

    scale: size factor of each side. halo: how far an output pixel sees, in input pixels. bytes_per_pixel: memory that
    it takes while it works, for each pixel of input.
    """

    @property
    def scale(self) -> int: ...  # noqa: D102

    @property
    def halo(self) -> int: ...  # noqa: D102

    @property
    def bytes_per_pixel(self) -> int: ...  # noqa: D102

    def __call__(self, batch: Pixels) -> Pixels:
        """uint8 [N, H, W, 3] -> uint8 [N, H * scale, W * scale, 3]."""
        ...


class Rows(Protocol):
    """A picture that gives rows when asked: an array, or a file on disk."""

    @property
    def shape(self) -> tuple[int, ...]: ...  # noqa: D102

    def __getitem__(self, rows: slice) -> Pixels: ...


class TooLittleMemoryError(InputError):
    """Not even the smallest window fits into the memory that may be used."""


class Tiler:
    """Cuts pictures for an enlarger, with at most so much memory for each window.

    Args:
        enlarge: uint8 [h, w(, C)] -> uint8 [h * scale, w * scale(, C)].
        scale: size factor.
        halo: how far an output pixel sees, in input pixels.
        most: pixels of input that a window may have. It shrinks when memory runs out, for all pictures that follow.
    """

    def __init__(self, enlarge: Callable[[Pixels], Pixels], scale: int, halo: int, most: int) -> None:
        self._enlarge = enlarge
        self._scale = scale
        self._halo = halo
        self.most = most

    def whole(self, picture: Pixels) -> Pixels:
        """Enlarge uint8 [H, W(, C)] to uint8 [H * scale, W * scale(, C)].

        Raises:
            TooLittleMemoryError: see there.
        """
        whole: Pixels | None = None
        top, rows = 0, len(picture) * self._scale
        for strip in self.strips(picture):
            if len(strip) == rows:
                return strip
            if whole is None:
                whole = np.empty((rows, *strip.shape[1:]), np.uint8)
            whole[top : top + len(strip)] = strip
            top += len(strip)
        assert whole is not None  # noqa: S101  # a picture has at least one row
        return whole

    def strips(self, picture: Rows) -> Iterator[Pixels]:
        """The enlarged picture in strips, uint8 [some rows, W * scale(, C)], from top to bottom.

        Raises:
            TooLittleMemoryError: see there.
        """
        height, width = picture.shape[:2]
        done = 0
        while done < height:
            shape = window_shape(height, width, self._halo, self.most)
            try:
                strip, done = self._strip(picture, done, shape)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                strip = None
            if strip is None:  # out of the except block, which holds what the failed attempt had allocated
                self.most = min(self.most, shape[0] * shape[1] // 2)
            else:
                yield strip

    def _strip(self, picture: Rows, done: int, shape: tuple[int, int]) -> tuple[Pixels, int]:
        """The rows of the result from input row `done` on that one row of windows gives, and how far it gets."""
        height, width = picture.shape[:2]
        top, cut = span(done, height, shape[0], self._halo)
        band = picture[top : top + shape[0]]
        scale, strip, x = self._scale, None, 0
        while x < width:
            left, end = span(x, width, shape[1], self._halo)
            made = self._enlarge(np.ascontiguousarray(band[:, left : left + shape[1]]))
            if strip is None and end == width:
                return made[(done - top) * scale : (cut - top) * scale], cut
            if strip is None:
                strip = np.empty(((cut - done) * scale, width * scale, *made.shape[2:]), np.uint8)
            used = made[(done - top) * scale : (cut - top) * scale, (x - left) * scale : (end - left) * scale]
            strip[:, x * scale : end * scale] = used
            x = end
        assert strip is not None  # noqa: S101  # a picture has at least one column
        return strip, cut


def span(done: int, side: int, window: int, halo: int) -> tuple[int, int]:
    """Where a window begins whose result goes on from `done`, and up to where its result can be used."""
    start = min(max(0, done - halo), side - window)
    return start, side if start + window == side else start + window - halo


def window_shape(height: int, width: int, halo: int, most: int) -> tuple[int, int]:
    """Height and width of the windows, of at most `most` pixels, with which a picture costs the least work.

    A row of windows has at most ROW times as many pixels, where that is possible: its result is held as a whole.

    Raises:
        TooLittleMemoryError: the smallest possible window has more pixels.
    """
    best: tuple[bool, int, int, int] | None = None
    rows = 1
    while (high := _part(height, halo, rows)) is not None:
        columns = 1 if width * high <= most else max(1, -(-(width - 2 * halo) // max(1, most // high - 2 * halo)))
        wide = _part(width, halo, columns)
        if wide is not None and high * wide <= most:
            found = high * width > ROW * most, rows * high * columns * wide, high, wide
            best = min(best or found, found)
            if not found[0] and found[1] > 2 * best[1]:
                break
        rows += 1
    if best is None:
        least = min(height, 2 * halo + LEAST) * min(width, 2 * halo + LEAST)
        raise TooLittleMemoryError(
            f"a window of {least} pixels is the least that this network can work on, and there is memory for {most}; "
            "allow more with --memory"
        )
    return best[2:]


def _part(side: int, halo: int, count: int) -> int | None:
    """The side of each of `count` overlapping windows that cover `side`; None where they would be too small."""
    if count == 1:
        return side
    part = -(-(side - 2 * halo) // count) + 2 * halo
    return part if part >= 2 * halo + LEAST else None


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, in the words of one of the runtimes."""
    return isinstance(error, MemoryError) or (isinstance(error, RuntimeError) and bool(NO_MEMORY.search(str(error))))
