from dataclasses import replace
from datetime import datetime
from typing import Any

import pytest
from tests.cloud.deployment import Deployment
from tests.system.gate import Gate

from loupe.cloud.prices import ON_DEMAND, ladder, spent
from loupe.cloud.records import Attempt
from loupe.cloud.settings import Policy
from loupe.errors import InputError

NOON = "2026-01-31T12:00:00Z"
at = datetime.fromisoformat


def policy(**changed: Any) -> Policy:
    values: dict[str, Any] = {
        "parameter": "/loupe/ec2",
        "types": ("g5.xlarge", "g4dn.xlarge"),
        "markets": ("spot", "on-demand"),
        "budget_usd": 10.0,
        "deadline_hours": 2.0,
        "spot_losses": 1,
    }
    return Policy(**(values | changed))


def attempt(number: int = 1, **changed: Any) -> Attempt:
    values: dict[str, Any] = {
        "run": "r",
        "number": number,
        "market": "spot",
        "type": "g4dn.xlarge",
        "zone": "us-east-1a",
        "subnet": "subnet-1",
        "price": 0.2,
        "deadline": "2026-02-01T12:00:00Z",
        "began": NOON,
        "instance": f"i-{number}",
    }
    return Attempt(**(values | changed))


def test_spot_from_the_cheapest_then_on_demand(account: Deployment, gate: Gate) -> None:
    was, now = at("2025-12-01T00:00:00Z"), at("2025-12-31T00:00:00Z")
    gate.spot_prices(
        {
            ("g4dn.xlarge", "us-east-1a"): [(was, 0.10), (now, 0.31)],
            ("g4dn.xlarge", "us-east-1b"): 0.19,
            ("g4dn.xlarge", "us-east-1c"): 0.01,  # no subnet there
            ("g5.xlarge", "us-east-1a"): 0.25,
        }
    )
    gate.page = 2
    rungs = ladder(policy(), account.stack)
    assert [(rung.market, rung.type, rung.zone, rung.price) for rung in rungs] == [
        ("spot", "g4dn.xlarge", "us-east-1b", 0.19),
        ("spot", "g5.xlarge", "us-east-1a", 0.25),
        ("spot", "g4dn.xlarge", "us-east-1a", 0.31),
        ("on-demand", "g4dn.xlarge", "us-east-1a", 0.526),
        ("on-demand", "g4dn.xlarge", "us-east-1b", 0.526),
        ("on-demand", "g5.xlarge", "us-east-1a", 1.006),
        ("on-demand", "g5.xlarge", "us-east-1b", 1.006),
    ]
    assert [rung.subnet for rung in rungs if rung.zone == "us-east-1a"] == [account.stack.subnets[0]] * 4
    asked = gate.asked("DescribeSpotPriceHistory")
    assert len(asked) == 2, "all pages are read"
    assert asked[0].values("ProductDescription") == ["Linux/UNIX"]


def test_types_are_left_out_where_a_zone_has_none(account: Deployment) -> None:
    # moto's copy of EC2's offerings: us-east-1e has none of the newer GPUs
    subnets = account.ec2.describe_subnets(Filters=[{"Name": "availability-zone", "Values": ["us-east-1e"]}])["Subnets"]
    stack = replace(account.stack, subnets=(subnets[0]["SubnetId"], account.stack.subnets[0]))
    rungs = ladder(policy(markets=("on-demand",)), stack)
    assert {rung.zone for rung in rungs} == {"us-east-1a"}
    with pytest.raises(InputError, match=r"none of g5\.xlarge, g4dn\.xlarge as spot in .*\(us-east-1e\); choose other"):
        ladder(policy(markets=("spot",)), replace(stack, subnets=stack.subnets[:1]))


def test_spot_alone_asks_for_no_on_demand_price(account: Deployment) -> None:
    rungs = ladder(policy(types=("p4d.24xlarge",), markets=("spot",)), account.stack)
    assert {(rung.market, rung.type) for rung in rungs} == {("spot", "p4d.24xlarge")}


def test_on_demand_alone_asks_for_no_spot_price(account: Deployment, gate: Gate) -> None:
    rungs = ladder(policy(markets=("on-demand",)), account.stack)
    assert {rung.market for rung in rungs} == {"on-demand"}
    assert not gate.asked("DescribeSpotPriceHistory")


def test_an_unknown_price_names_the_file_and_the_key(account: Deployment) -> None:
    with pytest.raises(InputError, match=r"ec2\.yaml: .* no on-demand price of p4d\.24xlarge in us-east-1; .*`prices`"):
        ladder(policy(types=("p4d.24xlarge",)), account.stack)
    rungs = ladder(policy(types=("p4d.24xlarge",), prices={"p4d.24xlarge": 21.5}), account.stack)
    assert {rung.price for rung in rungs if rung.market == "on-demand"} == {21.5}


def test_prices_of_ones_own_go_first(account: Deployment) -> None:
    rungs = ladder(policy(markets=("on-demand",), prices={"g5.xlarge": 0.4}), account.stack)
    assert [(rung.type, rung.price) for rung in rungs][::2] == [("g5.xlarge", 0.4), ("g4dn.xlarge", 0.526)]


def test_a_subnet_that_is_not_there_is_named(account: Deployment) -> None:
    with pytest.raises(InputError, match=r"looking up what machines cost: InvalidSubnetID\.NotFound: .*subnet-0000"):
        ladder(policy(), replace(account.stack, subnets=("subnet-0000",)))


@pytest.mark.parametrize("region", ON_DEMAND)
def test_the_table_has_no_slip_of_the_pen(region: str) -> None:
    """Wrong digits would mostly show: a 48xlarge is two 24xlarge, and nothing is cheaper than the smallest."""
    table = ON_DEMAND[region]
    for name, price in table.items():
        family, size = name.split(".")
        assert 0.5 < price < 40
        if size == "48xlarge":
            assert price == pytest.approx(2 * table[f"{family}.24xlarge"], rel=1e-4)
        if f"{family}.xlarge" in table and size != "xlarge":
            assert price > table[f"{family}.xlarge"]


def test_an_on_demand_machine_costs_its_price_by_the_second(account: Deployment, gate: Gate) -> None:
    one = attempt(market="on-demand", price=0.526, ended="2026-01-31T13:30:00Z")
    assert spent([one], at("2026-02-05T00:00:00Z")) == pytest.approx(0.526 * 1.5)
    assert not gate.requests


def test_a_machine_that_still_runs_costs_until_now(account: Deployment) -> None:
    one = attempt(market="on-demand", price=1.0)
    assert spent([one], at("2026-01-31T12:45:00Z")) == pytest.approx(0.75)


def test_less_than_a_minute_costs_a_minute(account: Deployment) -> None:
    short = attempt(market="on-demand", price=3.6, ended="2026-01-31T12:00:07Z")
    assert spent([short], at(NOON)) == pytest.approx(0.06)


def test_attempts_without_a_machine_cost_nothing(account: Deployment) -> None:
    attempts = [attempt(1, instance="", ended=NOON), attempt(2, market="on-demand", price=1.0)]
    assert spent(attempts, at("2026-01-31T13:00:00Z")) == pytest.approx(1.0)


def test_a_spot_machine_costs_what_the_price_was_at_each_time(account: Deployment, gate: Gate) -> None:
    here = [
        (at("2026-01-30T00:00:00Z"), 9.0),
        (at("2026-01-31T11:00:00Z"), 0.2),  # in effect at the start
        (at("2026-01-31T12:30:00Z"), 0.3),
        (at("2026-01-31T13:30:00Z"), 0.4),
        (at("2026-01-31T15:00:00Z"), 9.0),  # after its end
    ]
    elsewhere = [(at(NOON), 9.0)]
    gate.spot_prices({("g4dn.xlarge", "us-east-1a"): here, ("g4dn.xlarge", "us-east-1b"): elsewhere})
    gate.page = 2
    one = attempt(price=0.7, ended="2026-01-31T14:00:00Z")
    assert spent([one], at("2026-02-05T00:00:00Z")) == pytest.approx(0.5 * 0.2 + 1.0 * 0.3 + 0.5 * 0.4)
    two = attempt(2, market="on-demand", price=1.0, ended="2026-01-31T13:00:00Z")
    assert spent([one, two], at("2026-02-05T00:00:00Z")) == pytest.approx(1.6)


def test_before_the_history_begins_the_recorded_price_counts(account: Deployment, gate: Gate) -> None:
    gate.spot_prices({("g4dn.xlarge", "us-east-1a"): [(at("2026-01-31T13:00:00Z"), 0.4)]})
    assert spent([attempt(ended="2026-01-31T14:00:00Z")], at(NOON)) == pytest.approx(0.2 + 0.4)


@pytest.mark.parametrize("refused", [False, True])
def test_without_a_history_the_recorded_price_counts(account: Deployment, gate: Gate, refused: bool) -> None:
    gate.spot_prices({})
    if refused:
        gate.fail("DescribeSpotPriceHistory", "UnauthorizedOperation")
    assert spent([attempt(ended="2026-01-31T14:00:00Z")], at(NOON)) == pytest.approx(0.4)
