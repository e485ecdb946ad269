"""Bicubic resizing exactly as MATLAB's `imresize` does it, in NumPy and in PyTorch.

The field's low-resolution images were made with MATLAB: an antialiased bicubic filter whose 8-bit result is rounded
after the rows and again after the columns. Pillow, OpenCV and PyTorch differ in about a fifth of all samples, and a
network trained on one kind is measurably worse on the other. Both versions below give identical uint8 results.

    >>> downscale(np.zeros((101, 64, 3), np.uint8)).shape        # cropped to 100 x 64, then halved
    (50, 32, 3)
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
from threadpoolctl import ThreadpoolController

if TYPE_CHECKING:  # the light install has no PyTorch, and `import torch` costs over a second
    import torch

Pixels: TypeAlias = npt.NDArray[np.uint8]

KERNEL_RADIUS = 2.0  # of the cubic kernel, in samples of the coarser grid
STRIP = 16  # rows resized at a time


def cubic(x: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Keys' cubic convolution kernel with a = -0.5 (MATLAB's choice), for any real `x`; zero where |x| >= 2."""
    a = np.abs(x)
    inner = 1.5 * a**3 - 2.5 * a**2 + 1
    outer = -0.5 * a**3 + 2.5 * a**2 - 4 * a + 2
    return np.where(a <= 1, inner, np.where(a < KERNEL_RADIUS, outer, 0.0))


@lru_cache(maxsize=256)
def resize_table(n_in: int, n_out: int, scale: float) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]:
    """Which input samples make each output sample along one axis, and with what weight.

    Args:
        n_in: samples along the axis before resizing.
        n_out: samples along the axis afterwards.
        scale: size factor; below 1 the kernel is stretched by 1 / scale (antialiasing).

    Returns:
        indices: int64 [taps, n_out], mirrored at the borders with the edge sample repeated (symmetric padding).
        weights: float64 [taps, n_out]; each column sums to 1. For factors 1/2 and 2 they are multiples of 1/256 and
            1/128, so every sum of 8-bit samples is exact.
    """
    squeeze = min(scale, 1.0)
    centre = (np.arange(n_out) + 0.5) / scale - 0.5
    radius = KERNEL_RADIUS / squeeze
    first = np.floor(centre - radius).astype(np.int64) + 1
    taps = first + np.arange(int(np.ceil(2 * radius)) + 1)[:, None]
    weights = cubic((centre - taps) * squeeze)
    weights /= weights.sum(axis=0)
    used = np.abs(weights).max(axis=1) > 0
    mirrored = taps[used] % (2 * n_in)
    indices = np.where(mirrored < n_in, mirrored, 2 * n_in - 1 - mirrored)
    weights = weights[used]
    indices.setflags(write=False)  # shared by every caller through the cache
    weights.setflags(write=False)
    return indices, weights


def output_size(n: int, scale: float) -> int:
    """Samples along an axis of `n` samples after resizing by `scale`: rounded up, as `imresize` does."""
    return int(np.ceil(n * scale - 1e-9))  # n * (1 / 3) may land a hair above the whole number that is meant


def imresize(image: Pixels, scale: float) -> Pixels:
    """Resize by `scale` with MATLAB's antialiased bicubic filter.

    Args:
        image: uint8 [H, W] or [H, W, C], any size from 1 x 1.
        scale: size factor > 0, the same for both axes.

    Returns:
        uint8 [ceil(H * scale), ceil(W * scale)(, C)]; rounded half up and clipped after the rows, then again after
        the columns, which is what MATLAB does for 8-bit images.

    Raises:
        ValueError: `image` is not uint8 or not an image, or `scale` is not positive.
    """
    _check(image.dtype == np.uint8, image.ndim, (2, 3), scale)
    return _along(_along(image, scale, 0), scale, 1)


def imresize_tensor(images: torch.Tensor, scale: float) -> torch.Tensor:
    """Resize a batch by `scale`: `imresize` for tensors on any device, with identical results.

    Args:
        images: uint8 [N, C, H, W].
        scale: size factor > 0.

    Returns:
        uint8 [N, C, ceil(H * scale), ceil(W * scale)] on the same device.

    Raises:
        ValueError: as `imresize`.
    """
    import torch

    _check(images.dtype == torch.uint8, images.ndim, (4,), scale)
    for axis in (2, 3):
        n_in = images.shape[axis]
        indices, weights = resize_table(n_in, output_size(n_in, scale), scale)
        total = torch.zeros((), dtype=torch.float64, device=images.device)
        for index, weight in zip(indices, weights, strict=True):
            column = torch.tensor(weight, device=images.device)
            column = column[:, None] if axis == 2 else column
            samples = images.index_select(axis, torch.tensor(index, device=images.device))
            total = total + samples * column  # not addcmul: a fused multiply-add rounds differently from NumPy
        images = (total + 0.5).floor().clamp(0, 255).to(torch.uint8)
    return images


def crop_to_multiple(image: Pixels, scale: int) -> Pixels:
    """The top left part of uint8 `image` [H, W(, C)] whose sides are multiples of `scale`, as a view.

    Raises:
        ValueError: a side is shorter than `scale`, so that nothing would be left.
    """
    height, width = (side - side % scale for side in image.shape[:2])
    if not height or not width:
        raise ValueError(f"an image of {image.shape[1]} x {image.shape[0]} pixels is too small to divide by {scale}")
    return image[:height, :width]


def downscale(image: Pixels, scale: int = 2) -> Pixels:
    """The official low-resolution image: cropped to a multiple of `scale`, then reduced by it.

    Args:
        image: uint8 [H, W] or [H, W, C].
        scale: whole factor, at least 1.

    Returns:
        uint8 [H // scale, W // scale(, C)].

    Raises:
        ValueError: a side is shorter than `scale`, or the array is no 8-bit image.
    """
    return imresize(crop_to_multiple(image, scale), 1 / scale)


def upscale(image: Pixels, scale: int = 2) -> Pixels:
    """Plain bicubic enlargement, the field's baseline.

    Args:
        image: uint8 [H, W] or [H, W, C].
        scale: whole factor, at least 1.

    Returns:
        uint8 [H * scale, W * scale(, C)].

    Raises:
        ValueError: the array is no 8-bit image.
    """
    return imresize(image, float(scale))


def window_margin(scale: int) -> int:
    """High-resolution pixels around a patch that its exact reduction by `scale` depends on, at each side."""
    return _interior(scale)[0]


def reduce_windows(windows: Pixels, scale: int) -> Pixels:
    """The low-resolution patches of high-resolution windows, as if cut from the reduction of the whole picture.

    Made for training batches: two small matrix products for the whole batch, exact at any offset.

    Args:
        windows: uint8 [N, p * scale + 2 * margin, q * scale + 2 * margin, C], margin = `window_margin(scale)`; beyond
            a picture's border its pixels are mirrored, the edge repeated (`mirrored` gives the indices).
        scale: whole factor from 2.

    Returns:
        uint8 [N, p, q, C].
    """
    margin = window_margin(scale)
    count, height, width, channels = windows.shape
    rows, columns = ((side - 2 * margin) // scale for side in (height, width))
    # float32 holds every sum exactly where the weights are multiples of a power of two, in whatever order BLAS adds
    kind = np.float32 if scale & (scale - 1) == 0 else np.float64
    with _blas().limit(limits=1, user_api="blas"):  # threads for such small products cost a hundred times their work
        down = _band(rows, scale, kind) @ windows.reshape(count, height, width * channels).astype(kind)
        down = _to_levels(down).reshape(count, rows, width, channels).transpose(0, 2, 1, 3)
        across = _band(columns, scale, kind) @ down.reshape(count, width, rows * channels)
    levels = _to_levels(across).reshape(count, columns, rows, channels)
    return levels.transpose(0, 2, 1, 3).astype(np.uint8)


def mirrored(start: int, stop: int, length: int) -> npt.NDArray[np.int64]:
    """Indices start..stop-1 (start may be negative, stop beyond `length`), mirrored into 0..length-1."""
    index = np.arange(start, stop) % (2 * length)
    return np.where(index < length, index, 2 * length - 1 - index)


@lru_cache(maxsize=8)
def _interior(scale: int) -> tuple[int, npt.NDArray[np.float64]]:
    """Margin, and the weights of all samples from `margin` before to `margin` behind an output's own `scale` ones."""
    middle = 16
    indices, weights = resize_table(2 * middle * scale, 2 * middle, 1 / scale)
    used = np.flatnonzero(weights[:, middle])
    offsets = indices[used, middle] - middle * scale
    margin = int(max(-offsets[0], offsets[-1] - (scale - 1)))
    taps = np.zeros(2 * margin + scale)
    taps[offsets + margin] = weights[used, middle]
    return margin, taps


@lru_cache(maxsize=32)
def _band(outputs: int, scale: int, kind: type) -> npt.NDArray[np.floating]:
    taps = _interior(scale)[1]
    matrix: npt.NDArray[np.floating] = np.zeros((outputs, (outputs - 1) * scale + len(taps)), kind)
    for row in range(outputs):
        matrix[row, row * scale : row * scale + len(taps)] = taps
    return matrix


@lru_cache(maxsize=1)
def _blas() -> ThreadpoolController:
    return ThreadpoolController()


def _to_levels(values: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    """Rounded half up and clipped to 0..255, in place."""
    values += 0.5
    np.floor(values, out=values)
    return np.clip(values, 0, 255, out=values)


def _along(image: Pixels, scale: float, axis: int) -> Pixels:
    """Resize uint8 [H, W(, C)] along one axis, some rows at a time: what is computed of them stays in the cache."""
    n_in = image.shape[axis]
    n_out = output_size(n_in, scale)
    indices, weights = resize_table(n_in, n_out, scale)
    # float32 holds every sum exactly if weights are multiples of 1 / 2^15: pixels have 8 bits, and 24 it has
    weights = weights.astype(np.float64 if (weights * 2**15 % 1).any() else np.float32)
    weights = weights.reshape(*weights.shape, *(1,) * (image.ndim - 1 - axis))
    resized = np.empty((*image.shape[:axis], n_out, *image.shape[axis + 1 :]), np.uint8)
    for top in range(0, len(resized), STRIP):
        rows = slice(top, top + STRIP)
        total: npt.NDArray[np.floating] = np.zeros((), weights.dtype)
        for index, weight in zip(indices, weights, strict=True):
            if axis == 0:
                total = total + image[index[rows]] * weight[rows]
            else:
                total = total + np.take(image[rows], index, axis=1) * weight
        resized[rows] = _to_levels(total)
    return resized


def _check(is_uint8: bool, ndim: int, allowed: tuple[int, ...], scale: float) -> None:
    if not is_uint8 or ndim not in allowed:
        raise ValueError(f"expected uint8 with {' or '.join(map(str, allowed))} axes, not {ndim} axes of another kind")
    if not scale > 0:
        raise ValueError(f"scale must be above 0, not {scale}")
