"""The small parts of training: guard, moving average, losses, memory."""

import math
import re
import subprocess
import sys

import pytest
import torch

from loupe.models.rdn import RDN
from loupe.training.ema import AveragedNetwork
from loupe.training.guard import ENOUGH, HISTORY, MAX_IN_A_ROW, DivergedError, Guard
from loupe.training.losses import CHARBONNIER_EPS, LOSSES


def test_the_guard_refuses_what_is_out_of_proportion() -> None:
    guard = Guard("l1")
    assert all(guard.admits(1000.0 if step == 0 else 1.0, 1.0) for step in range(ENOUGH))
    assert guard.admits(19.0, 1.0)
    assert not guard.admits(21.0, 1.0)
    assert not guard.admits(math.nan, 1.0)
    assert not guard.admits(1.0, math.inf)
    assert (guard.skipped, guard.in_a_row) == (3, 3)
    assert guard.admits(1.0, 1.0)
    assert (guard.skipped, guard.in_a_row) == (3, 0)
    for _ in range(2 * HISTORY):
        guard.admits(0.1, 1.0)
    assert len(guard.losses) == HISTORY
    assert not guard.admits(2.1, 1.0)  # the median follows


def test_the_guard_gives_up() -> None:
    guard = Guard("mse")
    for _ in range(ENOUGH):
        guard.admits(1.0, 1.0)
    assert guard.admits(399.0, 1.0)
    for _ in range(MAX_IN_A_ROW - 1):
        assert not guard.admits(1e5, 1.0)
    with pytest.raises(DivergedError, match=r"the loss is 1e\+05, far above its median of 1, for 20 steps in a row"):
        guard.admits(1e5, 1.0)


def test_charbonnier_is_smooth_near_zero_and_l1_far_from_it() -> None:
    far = LOSSES["charbonnier"](torch.full((2, 3), 0.5), torch.zeros(2, 3)).item()
    assert far == pytest.approx(0.5, abs=1e-5)
    assert LOSSES["charbonnier"](torch.zeros(4), torch.zeros(4)).item() == pytest.approx(CHARBONNIER_EPS)
    x = torch.zeros(4, requires_grad=True)
    LOSSES["charbonnier"](x, torch.zeros(4)).backward()  # type: ignore[no-untyped-call]
    assert x.grad is not None
    assert torch.isfinite(x.grad).all()


def test_the_average_follows_and_lags() -> None:
    network = RDN(D=1, C=1, G=4, G0=4)
    averaged = AveragedNetwork(network, decay=0.5)
    with torch.no_grad():
        network.output.bias.fill_(1.0)  # type: ignore[union-attr]
        averaged.network.output.bias.fill_(0.0)  # type: ignore[union-attr]
    averaged.update(step=1000)
    assert averaged.network.output.bias.tolist() == pytest.approx([0.5] * 3)  # type: ignore[union-attr]
    averaged.update(step=0)  # early: a tenth of the past is kept
    assert averaged.network.output.bias.tolist() == pytest.approx([0.95] * 3)  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in averaged.network.parameters())


FAULTS = """
import resource, torch
from loupe.training.memory import keep_freed_memory

def page_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(16 * 2**20)  # 64 MB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

page_faults()
untuned = page_faults()
assert keep_freed_memory()
print(untuned, [page_faults() for _ in range(40)][30:])  # the allocator first has to find its places
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="glibc only")
def test_freed_memory_stays_in_the_process() -> None:
    # in a process of its own: here other tests have left the allocator in a state that nobody knows
    run = subprocess.run([sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True)
    untuned, *tuned = map(int, re.findall(r"\d+", run.stdout))
    assert len(tuned) == 10 and max(tuned) < untuned / 10  # without it one for each page, in each turn
