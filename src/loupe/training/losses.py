"""What training minimises, as functions of prediction and target: float [N, 3, H, W] -> a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

CHARBONNIER_EPS = 1e-3  # in units of the picture's range: below a quarter of a grey level it acts like the square


def charbonnier(prediction: Tensor, target: Tensor) -> Tensor:
    """Mean of sqrt(difference^2 + CHARBONNIER_EPS^2): L1 without its kink. Lai et al., "LapSRN", CVPR 2017."""
    return torch.hypot(prediction - target, prediction.new_tensor(CHARBONNIER_EPS)).mean()


LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,  # mean absolute difference: the paper's
    "mse": F.mse_loss,  # mean squared difference, what PSNR measures: the article's
    "charbonnier": charbonnier,
}
