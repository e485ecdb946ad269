"""Where a network is good and bad: every picture in patches, the best and the worst of them, PSNR against complexity.

The worst patches are those of the lowest PSNR-Y. The best are those of the highest among patches that show something:
flat ones are reproduced perfectly by anything, and a catalogue on white would fill the list with white.
"""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt
import pandas as pd

from loupe.evaluation.slices import KINDS, Kinds
from loupe.imaging.metrics import shave
from loupe.imaging.resize import Pixels

SIDE = 96  # pixels: small enough to be of one kind, large enough for a person to see what is on it
WHITE = 250  # grey levels in every channel: a packshot's background, with compression noise

# A patch may stand among the best if it shows this much. Chosen by looking at the best patches of photographs and
# product shots: at 2 they are blurred backgrounds, at 4 knitwear, ribs, leaves.
MIN_COMPLEXITY = 4.0  # grey levels per pixel
MAX_FLAT = 0.5  # share: above it lie mostly a line or a rim in an empty patch
# Bits of 64 in which two patches that look alike differ. Of 100 recompressed at JPEG quality 75, 99 differ in 3 or
# fewer; patches of two pictures in 30, and one pair in 800 in 6 or fewer: edges at the same place, which look alike.
NEAR = 6
PER_PICTURE = 2  # patches of one picture in a list, else one hard picture fills it

FREQUENCIES = 8  # a side, the lowest: 64 bits
STILL = 0.5  # grey levels: frequencies of a smaller amplitude are noise, and no sign of another patch

# Ends of the curve's bins, grey levels per pixel. Of the project's photographs and product shots no patch lies above
# (63 is the highest); nearly half lie below: empty background.
LOWEST, HIGHEST = 0.25, 64.0
BINS = 16  # two an octave
PERCENT = (10, 50, 90)  # quantiles of the curve

_Plane = npt.NDArray[np.float32]


def patch_scores(hr: Pixels, hr_y: _Plane, sr_y: _Plane, bicubic_y: _Plane, kinds: Kinds, scale: int) -> pd.DataFrame:
    """Score a picture patch by patch.

    The scored part of the picture, without `scale` pixels at each side, is divided evenly into patches of about SIDE
    pixels a side: no pixel is left out or counted twice, sides differ by a few pixels, and a picture of less than one
    and a half SIDE is not divided. Patches begin at multiples of `scale`, so that the input's can be cut to match.

    Args:
        hr: ground truth, uint8 [H, W, 3] or [H, W]; sides are multiples of `scale`.
        hr_y, sr_y, bicubic_y: luma of ground truth, network output and bicubic enlargement, float32 [H, W].
        kinds: of each pixel of `hr`, as `kinds_of` gives, uint8 [H, W].
        scale: size factor, also the border that scoring cuts.

    Returns:
        A row a patch, top to bottom and left to right, with the columns:

        y, x, height, width: its place in `hr`, pixels.
        psnr_y, bicubic_psnr_y: decibels, as in `metrics`; infinite where nothing differs.
        gain_db: the first less the second; 0 where both are infinite.
        error: mean squared error of luma, grey levels squared.
        complexity: mean magnitude of the gradient of `hr_y` (forward differences), grey levels per pixel.
        flat, white: shares in [0, 1] of pixels of kind flat, and of those with WHITE or more in every channel.
        fingerprint: uint64, a perceptual hash: patches that look alike differ in few of its bits.

    Raises:
        ValueError: nothing is left after cutting the border.
    """
    target, found, enlarged = (_float32(shave(plane, scale)) for plane in (hr_y, sr_y, bicubic_y))
    flats = shave(kinds, scale) == KINDS.index("flat")
    whites = _white(shave(hr, scale))
    rows, columns = (_edges(side, scale) for side in target.shape)
    heights, widths = np.diff(rows), np.diff(columns)
    waves = _waves(tuple(widths.tolist()))
    sums = np.empty((5, len(heights), len(widths)))
    fingerprints = np.empty(sums.shape[1:], np.uint64)
    for number, (top, bottom) in enumerate(pairwise(rows.tolist())):  # a row of patches stays in the cache
        strip = slice(top, bottom)
        y = target[strip]
        planes = (
            np.square(y - found[strip]),
            np.square(y - enlarged[strip]),
            _slope(target[top : bottom + 1], bottom - top),
            flats[strip],
            whites[strip],
        )
        for place, plane in enumerate(planes):
            sums[place, number] = np.add.reduceat(plane.sum(axis=0).astype(np.float64), columns[:-1])
        fingerprints[number] = _fingerprints(y, waves, widths)
    error, bicubic_error, complexity, flat, white = (sums / np.outer(heights, widths)).reshape(5, -1)
    psnr_y, bicubic_psnr_y = _decibels(error), _decibels(bicubic_error)
    with np.errstate(invalid="ignore"):  # infinite less infinite
        gain = np.where(error == bicubic_error, 0.0, psnr_y - bicubic_psnr_y)
    y0, x0 = np.meshgrid(rows[:-1] + scale, columns[:-1] + scale, indexing="ij")
    height, width = np.meshgrid(heights, widths, indexing="ij")
    return pd.DataFrame(
        {
            "y": y0.ravel(),
            "x": x0.ravel(),
            "height": height.ravel(),
            "width": width.ravel(),
            "psnr_y": psnr_y,
            "bicubic_psnr_y": bicubic_psnr_y,
            "gain_db": gain,
            "error": error,
            "complexity": complexity,
            "flat": flat,
            "white": white,
            "fingerprint": fingerprints.ravel(),
        }
    )


def worst_patch(error: _Plane, scale: int) -> float:
    """PSNR-Y of the worst of the patches that `patch_scores` makes; infinite where nothing differs.

    Args:
        error: squared errors of luma, float32 [H, W], without the border that scoring cuts.
        scale: size factor.
    """
    rows, columns = (_edges(side, scale) for side in error.shape)
    strips = np.add.reduceat(error, rows[:-1], axis=0, dtype=np.float64)
    sums = np.add.reduceat(strips, columns[:-1], axis=1)
    return float(_decibels(sums / np.outer(np.diff(rows), np.diff(columns))).min())


def select(
    table: pd.DataFrame, count: int, per_picture: int = PER_PICTURE, best: str = "psnr_y"
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """The best and the worst patches to show people.

    Best: the highest `best`, where complexity is at least MIN_COMPLEXITY and at most MAX_FLAT of the patch is flat.
    Worst: the lowest, of all patches with any error, flat ones too: noise on paper is a fault. In either list a patch
    is left out if one before it looks alike (fingerprints within NEAR bits; all empty patches look alike, of whatever
    brightness), or if `per_picture` of its picture stand there. Ties go by set, image, y, x. Of very few patches, the
    same can stand in both.

    Args:
        table: rows of `patch_scores` of many pictures, with the columns `set` and `image` (str) before them.
        count: rows wanted in each list.
        per_picture: at most so many of one picture in each list.
        best: the column that says how good a patch is.

    Returns:
        Best and worst, the most extreme first, at most `count` rows each, with the table's columns and index.
    """
    shown = table[(table["complexity"] >= MIN_COMPLEXITY) & (table["flat"] <= MAX_FLAT)]
    faulty = table[table["error"] > 0]
    return _first(shown, best, count, per_picture, False), _first(faulty, "psnr_y", count, per_picture, True)


def complexity_curve(table: pd.DataFrame, bins: int = BINS) -> pd.DataFrame:
    """How PSNR falls with local complexity, to plot.

    Bins are even on a logarithmic axis from LOWEST to HIGHEST, the same for every run. Patches below, empty ones, are
    left out, as are rows with NaN; patches above are counted in the last bin. A quantile is the PSNR of one of the
    patches, never a mean of two (NumPy's "inverted_cdf"): infinite PSNR counts as the highest there is, and a quantile
    that falls on it is infinite.

    Args:
        table: rows of `patch_scores`.
        bins: how many.

    Returns:
        A row for each bin that holds patches: low, high (grey levels per pixel), count; psnr_y_10, psnr_y_50, psnr_y_90
        and bicubic_psnr_y_10, _50, _90 (decibels; 10 % quantile, median, 90 % quantile).
    """
    table = table[table["complexity"] >= LOWEST].dropna(subset=["psnr_y", "bicubic_psnr_y"])
    edges = np.geomspace(LOWEST, HIGHEST, bins + 1)
    places = np.clip(np.searchsorted(edges, table["complexity"], side="right") - 1, 0, bins - 1)
    columns = [f"{column}_{percent}" for column in ("psnr_y", "bicubic_psnr_y") for percent in PERCENT]
    rows = []
    for place in np.unique(places):
        values = table.loc[places == place, ["psnr_y", "bicubic_psnr_y"]].to_numpy(np.float64)
        found = np.quantile(values, np.divide(PERCENT, 100), axis=0, method="inverted_cdf")  # [percent, column]
        rows.append([edges[place], edges[place + 1], len(values), *found.T.ravel()])
    return pd.DataFrame(rows, columns=["low", "high", "count", *columns])


def _first(table: pd.DataFrame, column: str, count: int, per_picture: int, ascending: bool) -> pd.DataFrame:
    order = table.sort_values([column, "set", "image", "y", "x"], ascending=[ascending, True, True, True, True])
    kept: list[int] = []
    seen: list[int] = []
    shown: dict[tuple[str, str], int] = {}
    pictures = zip(order["set"], order["image"], strict=True)
    for place, (picture, fingerprint) in enumerate(zip(pictures, order["fingerprint"].tolist(), strict=True)):
        if len(kept) == count:
            break
        if shown.get(picture, 0) == per_picture or any((fingerprint ^ other).bit_count() <= NEAR for other in seen):
            continue
        kept.append(place)
        seen.append(fingerprint)
        shown[picture] = shown.get(picture, 0) + 1
    return order.iloc[kept]


def _edges(length: int, scale: int) -> npt.NDArray[np.int64]:
    """Where parts of about SIDE pixels begin and end in `length` pixels: 0, multiples of `scale`, `length`."""
    parts = max(1, round(length / SIDE))
    edges = np.rint(np.linspace(0, length / scale, parts + 1)).astype(np.int64) * scale
    edges[-1] = length
    return edges


def _slope(y: _Plane, rows: int) -> _Plane:
    """Gradient magnitude of float32 [rows (+ 1), W]; at the right and lower border of a picture, along it only."""
    squares = np.zeros((rows, y.shape[1]), np.float32)
    np.square(y[:rows, 1:] - y[:rows, :-1], out=squares[:, :-1])
    squares[: len(y) - 1] += np.square(y[1:] - y[:-1])
    return np.sqrt(squares, out=squares)


def _white(hr: npt.NDArray[np.generic]) -> npt.NDArray[np.bool_]:
    white: npt.NDArray[np.bool_] = np.greater_equal(hr, WHITE)
    return white if hr.ndim == 2 else white[..., 0] & white[..., 1] & white[..., 2]


def _float32(plane: npt.NDArray[np.generic]) -> _Plane:
    return plane.astype(np.float32, copy=False)


def _decibels(error: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    with np.errstate(divide="ignore"):
        return np.asarray(10 * np.log10(255**2 / error))


def _fingerprints(y: _Plane, waves: _Plane, widths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint64]:
    """The perceptual hash of each patch of the row float32 [h, W]: uint64 [patches].

    That of `likeness`, of fewer frequencies and for many patches at once: two products with cosines instead of a
    reduction and a transform for each.
    """
    down = _cosines(len(y)) @ y
    low = (down @ waves).reshape(FREQUENCIES, len(widths), FREQUENCIES).swapaxes(0, 1).reshape(len(widths), -1)
    low = low / (len(y) * widths[:, None])  # grey levels: a wave's amplitude is up to four times that
    low[np.abs(low) < STILL / 4] = 0
    bits = low > np.median(low, axis=1, keepdims=True)
    return np.packbits(bits, axis=1).view(np.uint64)[:, 0]


@lru_cache(maxsize=32)
def _waves(widths: tuple[int, ...]) -> _Plane:
    """Cosines over each of the patches side by side, float32 [sum of widths, patches * FREQUENCIES]."""
    waves = np.zeros((sum(widths), len(widths) * FREQUENCIES), np.float32)
    left = 0
    for number, width in enumerate(widths):
        waves[left : left + width, number * FREQUENCIES : (number + 1) * FREQUENCIES] = _cosines(width).T
        left += width
    return waves


@lru_cache(maxsize=256)
def _cosines(length: int) -> _Plane:
    """The lowest frequencies of the DCT of so many samples: float32 [FREQUENCIES, length]."""
    places = (np.arange(length) + 0.5) / length
    return np.cos(np.pi * np.arange(FREQUENCIES)[:, None] * places).astype(np.float32)
