"""An exponential moving average of a network's weights: steadier than the last step while the rate is still high."""

from __future__ import annotations

import copy

import torch
from torch import Tensor

from loupe.models.rdn import RDN


class AveragedNetwork:
    """Keeps `network`, a copy in evaluation mode whose weights follow the trained one.

    Args:
        trained: the network that the optimiser changes.
        decay: in [0, 1); early on less is used, so that the average does not remember the untrained start.
    """

    def __init__(self, trained: RDN, decay: float) -> None:
        self.network = copy.deepcopy(trained).eval().requires_grad_(False)
        self._decay = decay
        self._weights: list[Tensor] = list(self.network.parameters())
        self._trained: list[Tensor] = list(trained.parameters())

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Follow the trained weights after step `step` (from 0)."""
        decay = min(self._decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(self._weights, self._trained, 1 - decay)
