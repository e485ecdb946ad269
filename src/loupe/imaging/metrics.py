"""PSNR and SSIM by the field's protocol, as the published tables use it.

Compared are 8-bit images (a network's output is rounded and clipped first). Luma Y is the 16-235 form of BT.601 of
those 8-bit values; `shave` pixels, the scale factor, are cut from every border; PSNR is over 255. SSIM is the original
11 x 11 Gaussian (sigma 1.5) form over whole windows only. Wang et al., "Image quality assessment: from error visibility
to structural similarity", 2004.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from loupe.imaging.resize import Pixels

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
STRIP = 32  # rows or columns at a time: what is computed of them stays in the cache
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2

LUMA = (65.481, 128.553, 24.966)  # of red, green and blue in [0, 1]; black is 16

Plane = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Scores:
    """How close a picture is to its ground truth.

    psnr_y, psnr_rgb: decibels, infinite for equal pictures. ssim_y: at most 1, NaN where no 11 x 11 window fits.
    """

    psnr_y: float
    ssim_y: float
    psnr_rgb: float


def luma(image: Pixels) -> Plane:
    """BT.601 luma of uint8 [H, W, 3] sRGB as float64 [H, W] in [16, 235]; a uint8 [H, W] image is its own luma."""
    if image.ndim == 2:
        return image.astype(np.float64)
    red, green, blue = (weight * image[..., c].astype(np.float64) for c, weight in enumerate(LUMA))
    return 16 + (red + green + blue) / 255


def luma32(image: Pixels) -> npt.NDArray[np.float32]:
    """`luma` in float32: right to 0.00002 grey levels, which is a billionth of a decibel, in a tenth of the time."""
    if image.ndim == 2:
        return image.astype(np.float32)
    weights = np.rint(1000 * np.array(LUMA)).astype(np.float32)  # whole numbers: exact
    y = np.empty(image.shape[:2], np.float32)
    for top in range(0, len(y), STRIP):
        np.matmul(image[top : top + STRIP].astype(np.float32), weights, out=y[top : top + STRIP])
    y /= np.float32(1000 * 255)
    y += np.float32(16)
    return y


def shave(image: npt.NDArray[np.generic], border: int) -> npt.NDArray[np.generic]:
    """`image` [H, W, ...] without `border` pixels at each side, as a view.

    Raises:
        ValueError: nothing would be left.
    """
    height, width = image.shape[:2]
    if min(height, width) <= 2 * border:
        raise ValueError(f"an image of {width} x {height} pixels is too small to score: {border} are cut at each side")
    return image[border : height - border, border : width - border]


def psnr(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Peak signal-to-noise ratio in decibels over a peak of 255; infinite for equal arrays of any one shape."""
    return _decibels(float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2)))


def ssim(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> float:
    """Mean structural similarity of two planes [H, W] in [0, 255]; NaN where a side is under 11 pixels.

    Computed in float32, in strips that stay in the processor's cache; within 1e-5 of the sum in float64, and exactly 1
    for equal planes. A weighted mean over a window is a product with a band matrix, and so as fast as BLAS.

    Sum s = a + b and difference d = a - b need two planes less than a, b and their products: with means over a window,
    4 mean(a) mean(b) = mean(s)^2 - mean(d)^2, 2 (mean(a)^2 + mean(b)^2) = mean(s)^2 + mean(d)^2, and the same holds
    for covariance and variances.
    """
    if min(a.shape) < SSIM_WINDOW:
        return float("nan")
    middle = np.float32(256)  # of s; levels around zero lose fewer bits when squared
    c1, c2 = np.float32(2 * SSIM_C1), np.float32(2 * SSIM_C2)
    a, b = (plane.astype(np.float32, copy=False) for plane in (a, b))
    height, width = (side - SSIM_WINDOW + 1 for side in a.shape)
    total = 0.0
    for top in range(0, height, STRIP):
        rows = min(STRIP, height - top)
        x, y = (plane[top : top + rows + SSIM_WINDOW - 1] for plane in (a, b))
        planes = np.empty((len(x), 4, a.shape[1]), np.float32)
        np.add(x, y, out=planes[:, 0])
        planes[:, 0] -= middle
        np.subtract(x, y, out=planes[:, 1])
        np.square(planes[:, :2], out=planes[:, 2:])
        means = _window_means(planes)  # of s, d, s^2, d^2
        squares = np.square(means[:2])
        variances = means[2:]
        variances -= squares
        means[0] += middle
        np.square(means[0], out=squares[0])
        similarity = squares[0] - squares[1] + c1
        similarity *= variances[0] - variances[1] + c2
        similarity /= (squares[0] + squares[1] + c1) * (variances[0] + variances[1] + c2)
        total += float(similarity.sum(dtype=np.float64))
    return float(total / (height * width))


def score(hr: Pixels, sr: Pixels, border: int) -> Scores:
    """Score `sr` against `hr` by the protocol above.

    Args:
        hr: ground truth, uint8 [H, W, 3] sRGB, or [H, W] for a single-channel image.
        sr: the picture to score, of the same shape and type.
        border: pixels to cut from each side, the scale factor.

    Raises:
        ValueError: shapes or types differ, or nothing is left after cutting the border.
    """
    if hr.shape != sr.shape or hr.dtype != np.uint8 or sr.dtype != np.uint8:
        raise ValueError(
            f"cannot compare {sr.dtype} {list(sr.shape)} with a ground truth of {hr.dtype} {list(hr.shape)}"
        )
    hr, sr = shave(hr, border), shave(sr, border)  # type: ignore[assignment]  # shave keeps the element type
    hr_y, sr_y = luma32(hr), luma32(sr)
    return Scores(
        psnr_y=_decibels(_mean_square(hr_y, sr_y)),
        ssim_y=ssim(hr_y, sr_y),
        psnr_rgb=_decibels(_mean_square(hr, sr)),
    )


def _mean_square(a: npt.NDArray[np.generic], b: npt.NDArray[np.generic]) -> float:
    """Mean squared difference of two [H, W(, 3)]; a float32 holds the sums of no more than STRIP squares."""
    total = 0.0
    for top in range(0, len(a), STRIP):
        rows = np.subtract(a[top : top + STRIP], b[top : top + STRIP], dtype=np.float32)
        total += float(np.einsum("i...,i...->...", rows, rows).sum(dtype=np.float64))
    return total / a.size


def _decibels(error: float) -> float:
    """A mean squared error as PSNR."""
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def _window_means(planes: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """Gaussian means over all whole 11 x 11 windows of float32 [H, P, W], plane by plane: [P, H - 10, W - 10]."""
    height, count, width = planes.shape
    rows, columns = height - SSIM_WINDOW + 1, width - SSIM_WINDOW + 1
    down = (_band(rows) @ planes.reshape(height, count * width)).reshape(rows * count, width)
    means = np.empty((rows * count, columns), np.float32)
    blocks, rest = divmod(columns, STRIP)
    if blocks:  # one call for all: threads that score other pictures wait for the interpreter between calls
        windows = sliding_window_view(down, STRIP + SSIM_WINDOW - 1, axis=1)[:, : blocks * STRIP : STRIP]
        out = means[:, : blocks * STRIP].reshape(len(means), blocks, STRIP)
        np.matmul(windows.swapaxes(0, 1), _band(STRIP).T, out=out.swapaxes(0, 1))
    if rest:
        np.matmul(down[:, blocks * STRIP :], _band(rest).T, out=means[:, blocks * STRIP :])
    return means.reshape(rows, count, columns).swapaxes(0, 1)


@cache
def _band(length: int) -> npt.NDArray[np.float32]:
    """The matrix [length, length + 10] whose rows are the Gaussian window, each one pixel further."""
    radius = SSIM_WINDOW // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SSIM_SIGMA) ** 2)
    band = np.zeros((length, length + SSIM_WINDOW - 1), np.float32)
    for row in range(length):
        band[row, row : row + SSIM_WINDOW] = kernel / kernel.sum()
    return band
