"""PSNR and SSIM by the field's protocol, as the published tables use it.

Compared are 8-bit images (a network's output is rounded and clipped first). Luma Y is the 16-235 form of BT.601 of
those 8-bit values; `shave` pixels, the scale factor, are cut from every border; PSNR is over 255. SSIM is the original
11 x 11 Gaussian (sigma 1.5) form over whole windows only. Wang et al., "Image quality assessment: from error visibility
to structural similarity", 2004.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.ndimage import correlate1d

from loupe.imaging.resize import Pixels

SSIM_WINDOW = 11
SSIM_SIGMA = 1.5
SSIM_C1 = (0.01 * 255) ** 2
SSIM_C2 = (0.03 * 255) ** 2

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
    red, green, blue = (image[..., c].astype(np.float64) for c in range(3))
    return 16 + (65.481 * red + 128.553 * green + 24.966 * blue) / 255


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
    error = float(np.mean((a.astype(np.float64) - b.astype(np.float64)) ** 2))
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


def ssim(a: Plane, b: Plane) -> float:
    """Mean structural similarity of two float64 planes [H, W] in [0, 255]; NaN where a side is under 11 pixels."""
    if min(a.shape) < SSIM_WINDOW:
        return float("nan")
    mean_a, mean_b = _blur(a), _blur(b)
    var_a = _blur(a * a) - mean_a**2
    var_b = _blur(b * b) - mean_b**2
    covariance = _blur(a * b) - mean_a * mean_b
    similarity = ((2 * mean_a * mean_b + SSIM_C1) * (2 * covariance + SSIM_C2)) / (
        (mean_a**2 + mean_b**2 + SSIM_C1) * (var_a + var_b + SSIM_C2)
    )
    return float(similarity.mean())


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
    hr_y, sr_y = shave(luma(hr), border), shave(luma(sr), border)
    return Scores(
        psnr_y=psnr(hr_y, sr_y),
        ssim_y=ssim(hr_y, sr_y),  # type: ignore[arg-type]  # shave keeps the element type
        psnr_rgb=psnr(shave(hr, border), shave(sr, border)),
    )


def _blur(plane: Plane) -> Plane:
    """Weighted means of all whole 11 x 11 windows: float64 [H, W] -> [H - 10, W - 10]."""
    radius = SSIM_WINDOW // 2
    kernel = np.exp(-0.5 * (np.arange(-radius, radius + 1) / SSIM_SIGMA) ** 2)
    kernel /= kernel.sum()
    rows = correlate1d(plane, kernel, axis=0)[radius:-radius]
    blurred: Plane = correlate1d(rows, kernel, axis=1)[:, radius:-radius]
    return blurred
