"""The learning rate rises, then falls."""

import pytest

from loupe.training.schedule import learning_rate


@pytest.mark.parametrize("warmup", [0.0, 0.1, 0.5, 0.99])
@pytest.mark.parametrize("steps", [1, 2, 10, 333])
def test_one_rise_and_one_fall_within_bounds(steps: int, warmup: float) -> None:
    rates = [learning_rate(step, steps, 0.01, warmup) for step in range(steps)]
    assert all(0 < rate <= 0.01 for rate in rates)
    top = rates.index(max(rates))
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)


def test_known_points() -> None:
    rates = [learning_rate(step, 1000, 0.002, 0.1) for step in range(1000)]
    assert rates[49] == pytest.approx(0.001)
    assert rates[99] == pytest.approx(0.002)
    assert rates[549] == pytest.approx(0.001, rel=0.002)
    assert rates[999] < 1e-8


def test_halvings() -> None:
    rates = [learning_rate(step, 1000, 0.002, 0.1, "halving", 400) for step in range(1000)]
    assert rates[49] == pytest.approx(0.001)
    assert rates[100] == rates[399] == 0.002
    assert rates[400] == rates[799] == 0.001
    assert rates[800] == rates[999] == 0.0005
