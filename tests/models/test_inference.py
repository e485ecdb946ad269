"""Whole pictures through a network."""

import numpy as np
import pytest
import torch

from loupe.models.inference import super_resolve, to_pixels, to_tensor
from loupe.models.rdn import RDN


def test_pixels_to_tensor_and_back() -> None:
    pixels = np.arange(2 * 4 * 5 * 3, dtype=np.uint8).reshape(2, 4, 5, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 4, 5)
    assert tensor.is_contiguous(memory_format=torch.channels_last)
    assert tensor.max() <= 1
    np.testing.assert_array_equal(to_pixels(tensor), pixels)


def test_out_of_range_values_are_rounded_and_clipped() -> None:
    values = torch.tensor([-0.2, 0.4 / 255, 0.6 / 255, 254.4 / 255, 1.7, 0.5]).reshape(1, 1, 1, 6).repeat(1, 3, 1, 1)
    np.testing.assert_array_equal(to_pixels(values)[0, 0, :, 0], [0, 0, 1, 254, 255, 128])


@pytest.mark.parametrize("shape", [(1, 1), (1, 5), (9, 4), (13, 13)])
def test_colour_and_gray_of_any_size(shape: tuple[int, int]) -> None:
    network = RDN(D=1, C=1, G=4, G0=4, residual="bicubic").eval()
    gray = np.random.default_rng(1).integers(0, 256, shape, np.uint8)
    enlarged = super_resolve(network, gray)
    assert enlarged.shape == (2 * shape[0], 2 * shape[1])
    colour = super_resolve(network, np.repeat(gray[..., None], 3, axis=2))
    assert colour.shape == (2 * shape[0], 2 * shape[1], 3)
    np.testing.assert_array_equal(enlarged, colour[..., 0])  # untrained: all three channels are equal


def test_damaged_weights_are_noticed() -> None:
    network = RDN(D=1, C=1, G=4, G0=4).eval()
    torch.nn.init.constant_(network.output.weight, float("nan"))
    with pytest.raises(ValueError, match="no numbers"):
        super_resolve(network, np.zeros((4, 4, 3), np.uint8))
