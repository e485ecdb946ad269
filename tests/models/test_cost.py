"""What training takes, by counting."""

import pytest

from loupe.models.cost import training_tflop

CONFIG = {"name": "rdn", "D": 2, "C": 2, "G": 8, "G0": 8, "scale": 2, "residual": "none"}


def test_operations_are_those_of_the_convolutions() -> None:
    macs = 3 * 8 * 9 + 8 * 8 * 9  # shallow features, for each pixel
    macs += 2 * (8 * 8 * 9 + 16 * 8 * 9 + 24 * 8)  # dense blocks
    macs += 16 * 8 + 8 * 8 * 9 + 8 * 32 * 9 + 4 * 8 * 3 * 9  # fusion, and the enlargement at four times the pixels
    forward = 2 * macs * 32**2 / 1e12
    found = training_tflop(CONFIG, patch=32, patches=10)
    first = 2 * 3 * 8 * 9 * 32**2 / 1e12  # the input needs no gradient
    assert found == pytest.approx(10 * (3 * forward - first), rel=1e-6)


def test_it_grows_with_area_and_number() -> None:
    assert training_tflop(CONFIG, 64, 1) == pytest.approx(4 * training_tflop(CONFIG, 32, 1))
    assert training_tflop(CONFIG, 32, 7) == pytest.approx(7 * training_tflop(CONFIG, 32, 1))
