"""How much there is to compute: an estimate of time and money needs no more."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from loupe.models.weights import build_network

SIDE = 16  # pixels; the network is convolutions, so that what an input takes is proportional to its area


def training_tflop(config: dict[str, Any], patch: int, patches: int) -> float:
    """What forward and backward passes take, in 10^12 operations (a multiplication with its addition are two).

    Args:
        config: of the network; see `build_network`.
        patch: side of a training patch, low-resolution pixels.
        patches: steps times batch.

    Raises:
        ModelError: no such network.
    """
    network = build_network(config)
    with FlopCounterMode(display=False) as counter:
        network(torch.zeros(1, 3, SIDE, SIDE)).sum().backward()
    operations: int = counter.get_total_flops()
    return operations * (patch / SIDE) ** 2 * patches / 1e12
