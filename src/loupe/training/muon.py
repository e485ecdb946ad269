"""Muon: momentum whose direction is made orthogonal, for the kernels of convolutions between hidden layers.

K. Jordan et al., "Muon: an optimizer for hidden layers in neural networks", 2024. Adam scales each number of a kernel
by itself; Muon sees the kernel as the matrix [out, in * height * width] that it is, and gives all singular values of an
update about the same size, so that rare directions learn as fast as common ones. docs/recipes.md has what it gains.

`torch.optim.Muon` takes matrices only, and iterates in bfloat16, which most CPUs emulate: several times as slow.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

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
        self._recorded: dict[torch.Size, Recorded] = {}

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]  # a closure is for line searches
        """Move every kernel that has a gradient; those of one shape as one stack."""
        for group in self.param_groups:
            alike: dict[torch.Size, list[tuple[Tensor, Tensor, Tensor]]] = {}
            for kernel in group["params"]:
                if kernel.grad is None:
                    continue
                state = self.state[kernel]
                if not state:
                    state["mean"] = torch.zeros_like(kernel)
                alike.setdefault(kernel.shape, []).append((kernel, kernel.grad, state["mean"]))
            for shape, found in alike.items():
                kernels, gradients, means = (list(tensors) for tensors in zip(*found, strict=True))
                torch._foreach_lerp_(means, gradients, 1 - group["momentum"])
                ahead = torch._foreach_lerp(gradients, means, group["momentum"])
                updates = self._orthogonal(torch.stack(ahead).flatten(2))
                rate = group["lr"] * RMS * max(updates.shape[1:]) ** 0.5
                torch._foreach_sub_(kernels, updates.view(-1, *shape).unbind(), alpha=rate)

    def _orthogonal(self, matrices: Tensor) -> Tensor:
        if not matrices.is_cuda:
            return orthogonal(matrices)
        recorded = self._recorded.get(matrices.shape)
        if recorded is None:
            recorded = self._recorded[matrices.shape] = Recorded(orthogonal, matrices)
        return recorded(matrices)


class Recorded:
    """A function of one tensor on a GPU, as a CUDA graph: it is started as one, for its many small steps take longer to
    start than to compute. The next call overwrites the result.

    Args:
        function: computes on the device only.
        example: of the shape that each call will have.
    """

    def __init__(self, function: Callable[[Tensor], Tensor], example: Tensor) -> None:
        self._argument = torch.zeros_like(example)
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.device(example.device):
            now = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(now)
            with torch.cuda.stream(aside):
                function(self._argument)  # the libraries take their memory before they are recorded
            now.wait_stream(aside)
            with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):  # another thread makes batches
                self._result = function(self._argument)

    def __call__(self, argument: Tensor) -> Tensor:
        """The function of `argument`."""
        self._argument.copy_(argument)
        self._graph.replay()
        return self._result


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
