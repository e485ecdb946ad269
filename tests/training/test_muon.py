"""Muon, beside PyTorch's own, which takes matrices only."""

import copy

import pytest
import torch

from loupe.training.muon import Muon, orthogonal

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("shape", [(8, 8), (16, 72), (72, 16), (1, 9)])
def test_singular_values_come_out_alike(shape: tuple[int, int]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    left, values, right = torch.linalg.svd(matrix, full_matrices=False)
    values = torch.linspace(1.0, 0.05, len(values))  # of any size, if not too small
    found = torch.linalg.svdvals(orthogonal(left @ values.diag() @ right))
    assert found.min() > 0.6 and found.max() < 1.3
    turned = left.T @ orthogonal(left @ values.diag() @ right) @ right.T
    torch.testing.assert_close(turned, turned.diagonal().diag(), atol=1e-5, rtol=0)  # the same directions


def test_no_gradient_moves_nothing() -> None:
    assert not orthogonal(torch.zeros(3, 4)).any()
    kernel = torch.nn.Parameter(torch.ones(2, 3, 3, 3))
    Muon([kernel], 0.1).step()
    kernel.grad = torch.zeros_like(kernel)
    Muon([kernel], 0.1).step()
    assert (kernel == 1).all()


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("memory", [torch.contiguous_format, torch.channels_last])
def test_it_steps_as_pytorchs_does_on_the_same_matrices(memory: torch.memory_format, device: str) -> None:
    draws = torch.Generator().manual_seed(1)
    shapes = [(8, 4, 3, 3), (8, 6, 1, 1), (8, 4, 3, 3), (64, 2, 3, 3)]  # two alike, and a tall one
    starts = [torch.randn(shape, generator=draws).to(device) for shape in shapes]
    kernels = [torch.nn.Parameter(start.clone(memory_format=memory)) for start in starts]
    matrices = [torch.nn.Parameter(start.flatten(1).clone()) for start in starts]
    ours = Muon(kernels, 0.01)
    theirs = torch.optim.Muon(matrices, 0.01, weight_decay=0.0, adjust_lr_fn="match_rms_adamw")
    for _ in range(5):
        for kernel, matrix in zip(kernels, matrices, strict=True):
            gradient = torch.randn(kernel.shape, generator=draws).to(device)
            kernel.grad, matrix.grad = gradient.clone(memory_format=memory), gradient.flatten(1)
        ours.step()
        theirs.step()
    for start, kernel, matrix in zip(starts, kernels, matrices, strict=True):
        moved, expected = (kernel - start).flatten(1), matrix - start.flatten(1)
        assert expected.abs().max() > 0.01
        torch.testing.assert_close(moved, expected, atol=1e-3, rtol=0)  # theirs counts in bfloat16


@pytest.mark.parametrize("device", DEVICES)
def test_a_run_that_goes_on_has_its_momentum(device: str) -> None:
    draws = torch.Generator().manual_seed(2)
    gradients = [torch.randn(4, 2, 3, 3, generator=draws).to(device) for _ in range(4)]

    def walk(stop: int | None) -> torch.Tensor:
        kernel = torch.nn.Parameter(torch.zeros(4, 2, 3, 3, device=device))
        optimizer = Muon([kernel], 0.01)
        for step, gradient in enumerate(gradients):
            if step == stop:
                state = copy.deepcopy(optimizer.state_dict())
                kernel.grad = torch.ones_like(kernel)
                at = kernel.detach().clone()
                optimizer = Muon([kernel], 0.5)
                optimizer.step()  # it has a momentum of its own, which it is to forget
                with torch.no_grad():
                    kernel.copy_(at)
                optimizer.load_state_dict(state)
            kernel.grad = gradient
            optimizer.step()
        return kernel.detach()

    assert torch.equal(walk(None), walk(2))
