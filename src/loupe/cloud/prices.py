"""What machines cost: the rungs on which one may be launched, cheapest first, and what those launched have cost."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

from loupe.cloud import aws
from loupe.cloud.aws import told
from loupe.cloud.records import Attempt, Rung, moment
from loupe.cloud.settings import Policy, Stack
from loupe.errors import InputError

LINUX = "Linux/UNIX"  # the product whose spot prices count
LEAST = timedelta(seconds=60)  # what EC2 bills for a machine that lived shorter

# USD an hour on demand, Linux, by region and type, as of AS_OF. EC2 does not tell them, and AWS changes them once in
# years: whoever relies on them checks https://aws.amazon.com/ec2/pricing/on-demand/ first, and writes newer figures, or
# those of other types and regions, to `prices` in ec2.yaml.
AS_OF = "2025-03"
_UNITED_STATES = {
    "g4dn.xlarge": 0.526,
    "g4dn.2xlarge": 0.752,
    "g4dn.4xlarge": 1.204,
    "g4dn.8xlarge": 2.176,
    "g4dn.12xlarge": 3.912,
    "g4dn.16xlarge": 4.352,
    "g5.xlarge": 1.006,
    "g5.2xlarge": 1.212,
    "g5.4xlarge": 1.624,
    "g5.8xlarge": 2.448,
    "g5.12xlarge": 5.672,
    "g5.16xlarge": 4.096,
    "g5.24xlarge": 8.144,
    "g5.48xlarge": 16.288,
    "g6.xlarge": 0.8048,
    "g6.2xlarge": 0.9776,
    "g6.4xlarge": 1.3232,
    "g6.8xlarge": 2.0144,
    "g6.12xlarge": 4.6016,
    "g6.16xlarge": 3.3968,
    "g6.24xlarge": 6.6752,
    "g6.48xlarge": 13.3504,
    "g6e.xlarge": 1.861,
    "g6e.2xlarge": 2.24208,
    "g6e.4xlarge": 3.00424,
    "g6e.8xlarge": 4.52856,
    "g6e.12xlarge": 10.49264,
    "g6e.16xlarge": 7.57719,
    "g6e.24xlarge": 15.06559,
    "g6e.48xlarge": 30.13118,
}
ON_DEMAND: Mapping[str, Mapping[str, float]] = {
    "us-east-1": _UNITED_STATES,
    "us-east-2": _UNITED_STATES,
    "us-west-2": _UNITED_STATES,
    "eu-central-1": {
        "g4dn.xlarge": 0.658,
        "g4dn.2xlarge": 0.94,
        "g4dn.4xlarge": 1.505,
        "g4dn.12xlarge": 4.89,
        "g4dn.16xlarge": 5.44,
        "g5.xlarge": 1.258,
        "g5.2xlarge": 1.51562,
        "g5.4xlarge": 2.03081,
        "g5.8xlarge": 3.06122,
        "g5.12xlarge": 7.09282,
        "g5.16xlarge": 5.12204,
        "g5.24xlarge": 10.18405,
        "g5.48xlarge": 20.36811,
        "g6.xlarge": 1.0064,
        "g6.2xlarge": 1.22249,
        "g6.4xlarge": 1.65466,
        "g6.8xlarge": 2.519,
        "g6.12xlarge": 5.75429,
        "g6.16xlarge": 4.24769,
        "g6.24xlarge": 8.34732,
        "g6.48xlarge": 16.69464,
        "g6e.xlarge": 2.327,
        "g6e.2xlarge": 2.8035,
        "g6e.4xlarge": 3.75651,
        "g6e.12xlarge": 13.12002,
        "g6e.24xlarge": 18.83806,
        "g6e.48xlarge": 37.67612,
    },
    "eu-west-1": {
        "g4dn.xlarge": 0.587,
        "g4dn.2xlarge": 0.838,
        "g4dn.4xlarge": 1.342,
        "g4dn.8xlarge": 2.426,
        "g4dn.12xlarge": 4.362,
        "g5.xlarge": 1.123,
        "g5.4xlarge": 1.81287,
        "g5.8xlarge": 2.73271,
        "g5.24xlarge": 9.09117,
        "g5.48xlarge": 18.18233,
    },
}


def ladder(policy: Policy, stack: Stack) -> list[Rung]:
    """Where a machine may be launched, in the order in which that is to be tried.

    Spot comes first, on-demand last, each from the cheapest on; at the same price in the order of `policy.types`, then
    of the subnets. A type that a subnet's zone does not offer is left out; so is spot where EC2 names no price.

    Args:
        policy: which types and markets; its `prices` go before ON_DEMAND.
        stack: which subnets.

    Returns:
        One rung for each market, type and subnet; never none.

    Raises:
        InputError: AWS does not answer, no zone offers any of the types, or an on-demand price is not known.
    """
    types = list(dict.fromkeys(policy.types))
    ec2 = aws.client("ec2")
    with told("looking up what machines cost"):
        zones = _zones(ec2, stack.subnets)
        offered = _offered(ec2, types)
        spot_prices = _spot_now(ec2, types) if "spot" in policy.markets else {}
    places = [(type_, zone, subnet) for type_ in types for subnet, zone in zones.items() if (type_, zone) in offered]
    spot = [
        Rung("spot", type_, zone, subnet, spot_prices[type_, zone])
        for type_, zone, subnet in places
        if (type_, zone) in spot_prices
    ]
    on_demand = [
        Rung("on-demand", type_, zone, subnet, _on_demand(type_, policy, stack.region))
        for type_, zone, subnet in places
        if "on-demand" in policy.markets
    ]
    if not spot + on_demand:
        raise InputError(
            f"ec2.yaml: EC2 offers none of {', '.join(types)} as {' or '.join(policy.markets)} in the zones of the "
            f"stack's subnets ({', '.join(sorted(set(zones.values())))}); choose other `types`"
        )
    return sorted(spot, key=_price) + sorted(on_demand, key=_price)


def spent(attempts: Sequence[Attempt], until: datetime) -> float:
    """What the machines of a run have cost, USD.

    A machine costs from `began` until `ended`, to the second and 60 s at least: on demand the price that its attempt
    recorded, on spot what the history of prices says for its type and zone over that time. Where EC2 does not tell that
    history, the recorded price counts. Attempts without a machine cost nothing. Disks and traffic, about a cent an hour
    for 100 GB, are not in it.

    Args:
        attempts: of the run.
        until: the end of those which have not ended.
    """
    return sum(_cost(attempt, until) for attempt in attempts if attempt.instance)


def _cost(attempt: Attempt, until: datetime) -> float:
    began = moment(attempt.began)
    ended = max(moment(attempt.ended) if attempt.ended else until, began + LEAST)
    changes = _spot_changes(attempt, began) if attempt.market == "spot" else []
    # What was the price when it began: the last change before, else what was recorded at the launch
    price, since, cost = attempt.price, began, 0.0
    for time, new in changes:
        time = min(max(time, began), ended)
        cost += price * _hours(time - since)
        price, since = new, time
    return cost + price * _hours(ended - since)


def _hours(time: timedelta) -> float:
    return time / timedelta(hours=1)


def _price(rung: Rung) -> float:
    return rung.price


def _on_demand(type_: str, policy: Policy, region: str) -> float:
    price = policy.prices.get(type_) or ON_DEMAND.get(region, {}).get(type_)
    if price is None:
        raise InputError(
            f"ec2.yaml: loupe knows no on-demand price of {type_} in {region}; look it up, then add it to `prices` "
            f"(USD an hour), or take on-demand out of `markets`"
        )
    return price


def _zones(ec2: Any, subnets: Sequence[str]) -> dict[str, str]:
    """The zone of each subnet, in the given order."""
    pages = ec2.get_paginator("describe_subnets").paginate(SubnetIds=list(subnets))
    zones = {subnet["SubnetId"]: subnet["AvailabilityZone"] for page in pages for subnet in page["Subnets"]}
    return {subnet: zones[subnet] for subnet in subnets}


def _offered(ec2: Any, types: Sequence[str]) -> set[tuple[str, str]]:
    """Types by the zones that have such machines at all; whether one is free now, only a launch tells."""
    pages = ec2.get_paginator("describe_instance_type_offerings").paginate(
        LocationType="availability-zone", Filters=[{"Name": "instance-type", "Values": list(types)}]
    )
    return {(item["InstanceType"], item["Location"]) for page in pages for item in page["InstanceTypeOfferings"]}


def _spot_now(ec2: Any, types: Sequence[str]) -> dict[tuple[str, str], float]:
    """The spot price by type and zone. A history holds the last change before its start, too: none is missing."""
    since = datetime.now(UTC) - timedelta(hours=1)  # not now: this machine's clock may be ahead of EC2's
    latest: dict[tuple[str, str], float] = {}
    for item in _by_time(_history(ec2, types, StartTime=since)):
        latest[item["InstanceType"], item["AvailabilityZone"]] = float(item["SpotPrice"])
    return latest


def _spot_changes(attempt: Attempt, began: datetime) -> list[tuple[datetime, float]]:
    """When the spot price of a machine changed since about its start, and to what. Empty: not known."""
    zone = [{"Name": "availability-zone", "Values": [attempt.zone]}]
    try:
        with told("looking up what machines have cost"):
            items = list(_history(aws.client("ec2"), [attempt.type], Filters=zone, StartTime=began))
    except InputError:
        return []  # a sum by the recorded price is better than none, above all at the end of a run
    return [(item["Timestamp"], float(item["SpotPrice"])) for item in _by_time(items)]


def _history(ec2: Any, types: Sequence[str], **narrowed: Any) -> Iterable[Any]:
    pages = ec2.get_paginator("describe_spot_price_history").paginate(
        InstanceTypes=list(types), ProductDescriptions=[LINUX], **narrowed
    )
    for page in pages:
        yield from page["SpotPriceHistory"]


def _by_time(items: Iterable[Any]) -> list[Any]:
    return sorted(items, key=lambda item: item["Timestamp"])
