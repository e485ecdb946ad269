"""Pixels in, pixels out: one network applied to one whole picture."""

from __future__ import annotations

import os

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from loupe.errors import InputError
from loupe.imaging.resize import Pixels
from loupe.models.rdn import RDN


def choose_device() -> torch.device:
    """Where to compute: LOUPE_DEVICE (such as `cuda:1` or `cpu`), else a GPU if there is one, else the CPU.

    A fact of the machine, hence an environment variable and no parameter.

    Raises:
        InputError: LOUPE_DEVICE names no device that this PyTorch can use.
    """
    name = os.environ.get("LOUPE_DEVICE") or ("cuda" if torch.cuda.is_available() else "cpu")
    try:
        torch.empty(0, device=name)
    except (RuntimeError, AssertionError) as error:  # what builds without CUDA raise
        reason = str(error).splitlines()[0]
        raise InputError(f"LOUPE_DEVICE={name}: {reason}; set it to cpu or cuda, or leave it out") from None
    return torch.device(name)


def to_tensor(batch: Pixels | Tensor, device: torch.device | str = "cpu") -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [0, 1], in channels-last memory (twice as fast on CPUs)."""
    # permuting NHWC gives channels-last strides as they are
    if isinstance(batch, Tensor):
        return batch.to(device).permute(0, 3, 1, 2).float().div_(255)
    if torch.device(device).type == "cpu":  # by NumPy: PyTorch would wake all threads for it, slow on busy cores
        return torch.from_numpy(np.divide(batch, np.float32(255), dtype=np.float32)).permute(0, 3, 1, 2)
    return to_tensor(torch.tensor(batch), device)


def to_pixels(batch: Tensor) -> Pixels:
    """float [N, 3, H, W], about [0, 1] -> uint8 [N, H, W, 3], rounded and clipped."""
    rounded = batch.float().mul(255).round().clamp(0, 255).to(torch.uint8)
    return rounded.permute(0, 2, 3, 1).contiguous().cpu().numpy()


def to_picture(output: Tensor, gray: bool) -> Pixels:
    """A network's output for one picture, float [1, 3, H, W], as uint8 [H, W, 3], or its luma [H, W] if `gray`."""
    pixels = to_pixels(output)[0]
    return np.asarray(Image.fromarray(pixels).convert("L")) if gray else pixels


@torch.inference_mode()
def super_resolve(network: RDN, image: Pixels, ensemble: bool = False) -> Pixels:
    """Enlarge one picture.

    Args:
        network: in evaluation mode, on any device.
        image: uint8 [H, W, 3] sRGB, or [H, W] gray; any size from 1 x 1.
        ensemble: average the outputs for all eight mirrorings and quarter turns of the picture: a little better, eight
            times as slow (Lim et al., "Enhanced Deep Residual Networks for Single Image Super-Resolution", 2017).

    Returns:
        uint8 of the same kind, [H * scale, W * scale(, 3)]. Gray goes through the network as three equal channels and
        comes back as their luma (the weights 299, 587, 114 of BT.601).

    Raises:
        ValueError: the network gave NaN or infinity.
    """
    gray = image.ndim == 2
    rgb = np.repeat(image[..., None], 3, axis=2) if gray else image
    device = next(network.parameters()).device
    picture = to_tensor(np.ascontiguousarray(rgb)[None], device)
    output = _mean_of_turns(network, picture) if ensemble else network(picture)
    if not torch.isfinite(output).all():
        raise ValueError("the network gave values that are no numbers; its weights are damaged")
    return to_picture(output, gray)


def _mean_of_turns(network: RDN, picture: Tensor) -> Tensor:
    def one(quarters: int, mirrored: bool) -> Tensor:
        turned = torch.rot90(picture.flip(3) if mirrored else picture, quarters, (2, 3))
        back = torch.rot90(network(turned), -quarters, (2, 3))
        return back.flip(3) if mirrored else back

    outputs = (one(quarters, mirrored) for quarters in range(4) for mirrored in (False, True))
    return sum(outputs, torch.zeros((), device=picture.device)) / 8
