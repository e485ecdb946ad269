"""Intervals whose truth is known: of figures drawn again and again from the same distribution."""

import numpy as np
import pytest

from loupe.evaluation.intervals import interval, interval_of_groups


def test_groups_count_alike_and_order_makes_no_difference() -> None:
    few, many = [1.0, 2.0, 3.0, 2.0], [10.0, 11.0] * 50
    found = interval_of_groups([few, many])
    assert found is not None
    assert found[0] < (2.0 + 10.5) / 2 < found[1]
    assert interval_of_groups([few[::-1], many[::-1]]) == found
    assert interval_of_groups([[0.25] * 4, [0.75] * 4]) == (0.5, 0.5)


@pytest.mark.parametrize("groups", [[], [[1.0]], [[1.0, 2.0], [3.0]], [[1.0, np.inf]], [[1.0, np.nan], [1.0, 2.0]]])
def test_nothing_is_said_of_one_picture_or_of_what_is_no_number(groups: list[list[float]]) -> None:
    assert interval_of_groups(groups) is None


def test_of_few_pictures_it_is_wider_than_the_plain_bootstrap() -> None:
    """As wide as Student's t where figures are normal: 2.45 instead of 1.96 standard errors for two groups of four."""
    values = [-1.2, -0.4, 0.4, 1.2]
    plain, honest = interval(values), interval_of_groups([values])
    assert plain is not None and honest is not None
    assert honest[0] < plain[0] and plain[1] < honest[1]
    many = np.random.default_rng(0).normal(0, 1, 400).tolist()
    plain, honest = interval(many), interval_of_groups([many])
    assert honest == pytest.approx(plain, abs=0.01)


def test_it_misses_about_as_often_as_it_says() -> None:
    """Of 95 %, each end should miss 2.5 % of the time; the plain bootstrap of the same figures misses 7 %."""
    draws = np.random.default_rng(0)
    rounds = 200
    found = [interval_of_groups(draws.normal(0, 1, (2, 4)).tolist()) for _ in range(rounds)]
    above = sum(ends is not None and ends[0] > 0 for ends in found)
    below = sum(ends is not None and ends[1] < 0 for ends in found)
    assert 0 < above + below <= 0.09 * rounds
