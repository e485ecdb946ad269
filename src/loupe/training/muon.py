"""Muon: momentum whose direction is made orthogonal, for the kernels of convolutions between hidden layers.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. Adam scales each number of a kernel
by itself; Muon sees the kernel as the matrix [out, in * height * width] that it is, and gives all singular values of an
update about the same size, so that rare directions learn as fast as common ones. docs/recipes.md has what it gains.

`torch.optim.Muon` takes matrices only, and iterates in bfloat16, which most CPUs emulate: several times as slow.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

COEFFICIENTS = (3.4445, -4.7750, 2.0315)  # Jordan's: they rise steeply from zero, where most singular values are
ITERATIONS = 5
# RMS of an update beside one of Adam at the same rate, so that rates carry over: Liu et al., "Muon is scalable for LLM
# training", 2025
RMS = 0.2


class Muon(torch.optim.Optimizer):
    """Nesterov momentum, made orthogonal, without weight decay.

    Args:
        kernels: float32 parameters [out, in, height, width], in any memory format.
        lr: learning rate, as one would give it to Adam.
        momentum: decay of the running mean of gradients, in [0, 1).
    """

    def __init__(self, kernels: Iterable[Tensor], lr: float, momentum: float = 0.95) -> None:
        super().__init__(kernels, {"lr": lr, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure is for line searches
        """Move every kernel that has a gradient."""
        for group in self.param_groups:
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["mean"] = torch.zeros_like(kernel)
                state["mean"].lerp_(kernel.grad, 1 - group["momentum"])
                matrix = kernel.grad.lerp(state["mean"], group["momentum"]).flatten(1)
                update = orthogonal(matrix) * (RMS * max(matrix.shape) ** 0.5)
                kernel.sub_(update.view(kernel.shape), alpha=group["lr"])


def orthogonal(matrix: Tensor) -> Tensor:
    """The matrix with its singular values brought to about one (0.7 to 1.2), by Newton-Schulz iterations.

    Args:
        matrix: float [rows, columns]; singular values below some hundredth of its norm come out smaller, zero stays.
    """
    if matrix.shape[0] > matrix.shape[1]:
        return orthogonal(matrix.T).T
    a, b, c = COEFFICIENTS
    x: Tensor = matrix / (matrix.norm() + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.T
        x = a * x + (b * square + c * square @ square) @ x
    return x
