"""What a run may cost, and where it is tried; the launcher's loop is in tests/system/test_ec2.py."""

from __future__ import annotations

import pytest

from loupe.cloud.launch import SETUP_HOURS, BudgetError, affordable
from loupe.cloud.records import Rung
from loupe.cloud.speed import sustained
from loupe.errors import InputError

SPOT = Rung("spot", "g5.xlarge", "a", "subnet-a", 0.40)
OTHER = Rung("spot", "g4dn.xlarge", "a", "subnet-a", 0.20)
SURE = Rung("on-demand", "g5.xlarge", "a", "subnet-a", 1.00)
HOURS = {"g5.xlarge": 2.0, "g4dn.xlarge": 10.0}


def test_what_is_cheap_for_the_work_comes_first_not_what_is_cheap_an_hour() -> None:
    offers = affordable([OTHER, SPOT, SURE], HOURS.__getitem__, usd=100)
    assert [offer.rung for offer in offers] == [SPOT, OTHER, SURE]
    assert offers[0].usd == pytest.approx(0.40 * (2 + SETUP_HOURS))


def test_rungs_beyond_the_budget_are_left_out() -> None:
    assert [offer.rung for offer in affordable([OTHER, SPOT, SURE], HOURS.__getitem__, usd=1.0)] == [SPOT]


def test_work_that_is_half_done_costs_half() -> None:
    (offer,) = affordable([SPOT], HOURS.__getitem__, usd=100, share=0.5)
    assert offer.hours == pytest.approx(1 + SETUP_HOURS)


def test_a_budget_that_is_too_small_names_the_cheapest() -> None:
    with pytest.raises(BudgetError, match=r"0\.10 USD are too little: 2\.2 hours on g5\.xlarge \(spot, 0\.400.* 0\.90"):
        affordable([OTHER, SPOT, SURE], HOURS.__getitem__, usd=0.1)


def test_speeds_are_those_of_all_gpus() -> None:
    assert sustained("g5.12xlarge") == 4 * sustained("g5.xlarge") == 4 * sustained("g5.16xlarge")
    assert sustained("g6.48xlarge") == 8 * sustained("g6.xlarge")
    with pytest.raises(InputError, match=r"c7i\.xlarge: .* --hours"):
        sustained("c7i.xlarge")
