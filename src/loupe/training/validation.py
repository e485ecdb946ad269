"""Validation during training: whole pictures by the scoring protocol, and a few crops to look at."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from loupe.imaging.metrics import luma, psnr, shave
from loupe.imaging.resize import Pixels
from loupe.models.inference import to_picture, to_pixels, to_tensor
from loupe.patches.index import PatchIndex

CROPS = 4  # pictures that are shown
GAP = 4  # pixels between the versions of a crop
CROP = 64  # low-resolution pixels a side of a crop


@torch.inference_mode()
def validate(
    network: nn.Module, index: PatchIndex, numbers: list[int], loss: Callable[[Tensor, Tensor], Tensor]
) -> list[tuple[float, float]]:
    """(loss, PSNR-Y in decibels) of the whole validation pictures `numbers` of `index`, `scale` pixels shaved.

    A picture of one gray channel is its own luma.
    """
    device = next(network.parameters()).device
    rows = []
    for number in numbers:
        lr, hr = index.lr(number), index.hr(number)
        prediction = network(to_tensor(lr[None], device))
        gray = index.images[number].channels == 1
        sr = to_picture(prediction, gray)
        target = hr[..., 0] if gray else hr
        score = psnr(*(shave(luma(pixels), index.scale) for pixels in (target, sr)))
        rows.append((loss(prediction.float(), to_tensor(hr[None], device)).item(), score))
    return rows


@torch.inference_mode()
def crops(network: nn.Module, index: PatchIndex) -> dict[str, Pixels]:
    """Centres of a few validation pictures, evenly chosen, by name: bicubic, network, original side by side.

    Each is uint8 [H, 3 W + 2 GAP, 3], of the high resolution, with white between them.
    """
    device = next(network.parameters()).device
    valid = [number for number, row in enumerate(index.images) if row.split == "valid"]
    chosen = [valid[i * len(valid) // min(CROPS, len(valid))] for i in range(min(CROPS, len(valid)))]
    pictures = {}
    for number in chosen:
        lr = index.lr(number)
        (y, height), (x, width) = ((max(0, (side - CROP) // 2), min(side, CROP)) for side in lr.shape[:2])
        scale = index.scale
        low = np.ascontiguousarray(lr[y : y + height, x : x + width])
        high = index.hr(number)[y * scale : (y + height) * scale, x * scale : (x + width) * scale]
        enlarged = Image.fromarray(low).resize((width * scale, height * scale), Image.Resampling.BICUBIC)
        sr = to_pixels(network(to_tensor(low[None], device)))[0]
        row = index.images[number]
        white = np.full((height * scale, GAP, 3), 255, np.uint8)
        pictures[f"{row.set}/{row.name}"] = np.concatenate([np.asarray(enlarged), white, sr, white, high], axis=1)
    return pictures
