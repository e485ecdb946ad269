"""Muon: momentum whose direction is made orthogonal, for the kernels of convolutions between hidden layers.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. Adam scales each number of a kernel
by itself; Muon sees the kernel as the matrix [out, in * height * width] that it is, and gives all singular values of an
update about the same size, so that rare directions learn as fast as common ones. docs/recipes.md has what it gains.

`torch.optim.Muon` takes matrices only, and iterates in bfloat16, which most CPUs emulate: several times as slow.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from loupe.training.graphs import Recorded

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
        self._recorded: dict[tuple[int, ...], Recorded] = {}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on with another run's momentum."""
        super().load_state_dict(state_dict)
        self._recorded.clear()  # it moves the tensors that were there before

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure is for line searches
        """Move every kernel that has a gradient."""
        for group in self.param_groups:
            kernels = [kernel for kernel in group["params"] if kernel.grad is not None]
            if not kernels:
                continue
            for kernel in kernels:
                if not self.state[kernel]:
                    self.state[kernel]["mean"] = torch.zeros_like(kernel)
            means = [self.state[kernel]["mean"] for kernel in kernels]
            move = partial(_move, kernels, means, group["momentum"])
            arguments = [torch.full((), group["lr"], device=means[0].device), *(kernel.grad for kernel in kernels)]
            if not means[0].is_cuda:
                move(*arguments)
                continue
            key = tuple(map(id, kernels))
            if key not in self._recorded:
                self._recorded[key] = Recorded(move, arguments, partial(_try, kernels))
            self._recorded[key](*arguments)


def _move(kernels: list[Tensor], means: list[Tensor], momentum: float, lr: Tensor, *gradients: Tensor) -> None:
    """One step. Kernels of one shape are one stack."""
    torch._foreach_lerp_(means, gradients, 1 - momentum)
    ahead = torch._foreach_lerp(gradients, means, momentum)
    alike: dict[torch.Size, list[int]] = {}
    for number, kernel in enumerate(kernels):
        alike.setdefault(kernel.shape, []).append(number)
    for shape, numbers in alike.items():
        updates = orthogonal(torch.stack([ahead[number] for number in numbers]).flatten(2))
        updates = updates * (lr * (RMS * max(updates.shape[1:]) ** 0.5))
        torch._foreach_sub_([kernels[number] for number in numbers], updates.view(-1, *shape).unbind())


def _try(kernels: list[Tensor]) -> None:
    """The same work on copies."""
    copies = [kernel.clone() for kernel in kernels]
    _move(copies, [copy.clone() for copy in copies], 0.5, torch.zeros((), device=copies[0].device), *copies)


def orthogonal(matrices: Tensor) -> Tensor:
    """Matrices with their singular values brought to about one (0.7 to 1.2), by Newton-Schulz iterations.

    Args:
        matrices: float [..., rows, columns]; singular values below some hundredth of a matrix's norm come out smaller,
            zero stays.
    """
    if matrices.shape[-2] > matrices.shape[-1]:
        return orthogonal(matrices.mT).mT
    a, b, c = COEFFICIENTS
    x: Tensor = matrices / (matrices.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(ITERATIONS):
        square = x @ x.mT
        x = a * x + (b * square + c * square @ square) @ x
    return x
