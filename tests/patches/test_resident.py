"""Batches gathered on a device: the same bytes as those copied together by the processor."""

from collections.abc import Callable
from typing import get_args

import numpy as np
import pytest
import torch

from loupe.imaging.degradations import Degradation
from loupe.patches.batches import PatchBatches, Strategy
from loupe.patches.index import LowResolution, PatchIndex
from loupe.patches.resident import ResidentPool, pool_bytes

MakeIndex = Callable[..., PatchIndex]
DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("low_resolution", get_args(LowResolution))
@pytest.mark.parametrize("scale", [2, 3])
def test_it_gives_the_same_bytes(make_index: MakeIndex, scale: int, low_resolution: LowResolution, device: str) -> None:
    index = make_index(scale=scale, patch=8, low_resolution=low_resolution, products=2, reductions=(2,))
    degradation = Degradation(blur_probability=0.5, noise_probability=0.5, jpeg_probability=0.5)
    batches = PatchBatches(index, 32, 3, 0.5, Strategy(images=3, per_image=9, channel_shuffle=0.5), degradation)
    pool = ResidentPool(batches, torch.device(device))
    degraded = shuffled = 0
    for step in range(6):
        degraded += sum(spot.degradation is not None for spot in batches.spots(step))
        shuffled += sum(spot.channels > 0 for spot in batches.spots(step))
        for ours, theirs in zip(pool.batch_at(step), batches.batch_at(step), strict=True):
            np.testing.assert_array_equal(ours.cpu().numpy(), theirs)
    assert degraded
    assert shuffled


def test_its_size_is_known_before(make_index: MakeIndex) -> None:
    index = make_index(products=1)
    pool = ResidentPool(PatchBatches(index, 4, 0, 0.5), torch.device("cpu"))
    assert pool_bytes(index) == pool._hr._pixels.numel() + pool._lr._pixels.numel()
