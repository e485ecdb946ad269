"""What training minimises, as functions of prediction and target: float [N, 3, H, W] -> a scalar."""

from __future__ import annotations

from collections.abc import Callable

import torch.nn.functional as F
from torch import Tensor

LOSSES: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "l1": F.l1_loss,  # mean absolute difference: the paper's
    "mse": F.mse_loss,  # mean squared difference, what PSNR measures: the article's
}
