"""Which pixels of a picture are flat, edge, texture or text-like: PSNR of each tells noise in flat areas from bad text.

Every pixel of the ground truth gets one kind, by rules on its luma (BT.601, 16 to 235), the first that holds:

- `flat`: within 5 x 5 pixels grey levels differ by less than FLAT_RANGE.
- `text`: within 15 x 15 pixels they differ by at least TEXT_RANGE, most of them lie near the darkest or the brightest
  (two tones, little between), and rows or columns change from one tone to the other at least twice: strokes. Fine
  line art and lattices count as well.
- `edge`: within 5 x 5 they differ by at least EDGE_RANGE, and the gradients there agree on a direction (coherence of
  the structure tensor; Bigun and Granlund, "Optimal orientation detection of linear symmetry", 1987).
- `texture`: all else.
"""

from __future__ import annotations

from typing import cast

import numpy as np
import numpy.typing as npt
from scipy import ndimage

from loupe.imaging.metrics import luma32
from loupe.imaging.resize import Pixels

KINDS = ("flat", "text", "edge", "texture")  # a pixel's kind is its place in here

FLAT_RANGE = 6.0  # grey levels: compression noise on white stays below
EDGE_RANGE = 24.0
EDGE_COHERENCE = 0.6  # 0: gradients in all directions, 1: in one
TEXT_RANGE = 80.0  # weak grey text on white is about this strong
TEXT_TWO_TONES = 0.6  # share of pixels within a quarter of the range from the darkest or the brightest
TEXT_CHANGES = 2.0  # of tone along a row, or a column, of the window, on average
SMALL, LARGE = 5, 15  # sides of the windows

Kinds = npt.NDArray[np.uint8]
_Plane = npt.NDArray[np.float32]


def kinds_of(hr: Pixels) -> Kinds:
    """The kind of each pixel of uint8 [H, W, 3] or [H, W], as places in KINDS: uint8 [H, W]. Borders are mirrored."""
    y = luma32(hr)
    low, high = _extremes(y, SMALL)
    spread = high - low
    kinds = np.full(y.shape, KINDS.index("texture"), np.uint8)
    kinds[(spread >= EDGE_RANGE) & (_coherence(y) >= EDGE_COHERENCE)] = KINDS.index("edge")
    kinds[_text_like(y)] = KINDS.index("text")
    kinds[spread < FLAT_RANGE] = KINDS.index("flat")
    return kinds


def errors_by_kind(kinds: Kinds, *errors: npt.NDArray[np.floating]) -> npt.NDArray[np.float64]:
    """Pixels of each kind, then for each of `errors` [H, W] the sum over them: float64 [1 + errors, KINDS]."""
    flat = kinds.ravel().astype(np.intp)  # else each bincount makes its own
    sums = [np.bincount(flat, weights=error.ravel(), minlength=len(KINDS)) for error in errors]
    return np.array([np.bincount(flat, minlength=len(KINDS)), *sums], np.float64)


def _text_like(y: _Plane) -> npt.NDArray[np.bool_]:
    low, high = _extremes(y, LARGE)
    spread = high - low
    strong = spread >= TEXT_RANGE
    if not strong.any():
        return strong
    margin = spread / 4
    two_tones = _mean(((y <= low + margin) | (y >= high - margin)).astype(np.float32), LARGE) >= TEXT_TWO_TONES
    bright = y > (low + high) / 2
    changes = np.zeros((2, *y.shape), np.float32)
    # a tone means something only where the window holds two
    changes[0, 1:] = (bright[1:] != bright[:-1]) & strong[1:] & strong[:-1]
    changes[1, :, 1:] = (bright[:, 1:] != bright[:, :-1]) & strong[:, 1:] & strong[:, :-1]
    strokes = np.maximum(_mean(changes[0], LARGE), _mean(changes[1], LARGE)) * LARGE >= TEXT_CHANGES
    return strong & two_tones & strokes


def _coherence(y: _Plane) -> _Plane:
    dy, dx = (np.gradient(y, axis=axis) if y.shape[axis] > 1 else np.zeros_like(y) for axis in (0, 1))
    yy, xx, yx = (_mean(plane, SMALL) for plane in (dy * dy, dx * dx, dy * dx))
    return np.asarray(np.hypot(yy - xx, 2 * yx) / np.maximum(yy + xx, 1e-6), np.float32)


def _extremes(y: _Plane, side: int) -> tuple[_Plane, _Plane]:
    """The lowest and the highest level of the window around each pixel; six times as fast as SciPy's filters."""
    return _over_windows(np.minimum, y, side), _over_windows(np.maximum, y, side)


def _over_windows(operation: np.ufunc, y: _Plane, side: int) -> _Plane:
    """Rows, then columns: of windows that overlap a window twice as wide is made, until it is `side` wide."""
    for axis in (0, 1):
        margins = [(0, 0), (0, 0)]
        margins[axis] = (side // 2, side // 2)
        window = np.pad(y, margins, mode="symmetric").swapaxes(0, axis)
        reach = 1
        while reach < side:
            step = min(reach, side - reach)
            window = operation(window[:-step], window[step:])
            reach += step
        y = window.swapaxes(0, axis)
    return y


def _mean(plane: _Plane, side: int) -> _Plane:
    return cast(_Plane, ndimage.uniform_filter(plane, side, mode="reflect"))
