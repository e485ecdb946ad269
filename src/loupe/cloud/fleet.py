"""The project's machines at EC2: launched, found, ended, and what they leave behind. What they do is no matter here.

One machine is one RunInstances, not a CreateFleet over many types and zones: a request for one rung has one clear
error, and a ClientToken by which it can be repeated safely. CreateFleet hides in a list which rung failed, and why.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from loupe.cloud import aws
from loupe.cloud.aws import told
from loupe.cloud.records import Instance, Rung
from loupe.cloud.settings import Stack
from loupe.errors import InputError
from loupe.s3 import error_code

PROJECT, RUN, ATTEMPT, DEADLINE = "loupe:project", "loupe:run", "loupe:attempt", "loupe:deadline"  # tags
ALIVE = ("pending", "running")
NOT_TERMINATED = (*ALIVE, "shutting-down", "stopping", "stopped")

# An update of the stack adds a version, and does not make it the default: $Default would stay what it was at first
VERSION = "$Latest"

# Here and now this rung has no machine for us, the next one may: no capacity, no address, no quota, not sold here
NO_CAPACITY = (
    "InsufficientInstanceCapacity",
    "InsufficientHostCapacity",
    "InsufficientCapacity",
    "InsufficientFreeAddressesInSubnet",
    "InstanceLimitExceeded",
    "VcpuLimitExceeded",
    "MaxSpotInstanceCountExceeded",
    "SpotMaxPriceTooLow",
    "UnfulfillableCapacity",
    "Unsupported",
)
# Seconds: EC2 tells of a new machine a little after it has launched it
PAUSES = (0.5, 1.0, 2.0, 4.0)
POLL_SECONDS = 2.0
CONSOLE_LINES = 100


class CapacityError(InputError):
    """No capacity, quota or offer on this rung; the next one may do."""


@dataclass(frozen=True)
class Leftover:
    """A disk, or a copy of one, that no machine uses and that costs money. run: from its tag, or empty."""

    kind: Literal["volume", "snapshot"]
    id: str
    run: str
    gib: int
    created: datetime


class Fleet:
    """All machines with the tag of the stack's project, in the region of the AWS settings."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack
        self._ec2 = aws.client("ec2")
        self._ec2.meta.events.register("needs-retry.ec2.RunInstances", _fail_fast)

    def launch(self, rung: Rung, *, run: str, attempt: int, image: str, user_data: str, deadline: str) -> Instance:
        """Launch one machine by the stack's launch template, or return the one that this very call launched before.

        `find` does not see a new machine at once. So whoever is not sure whether a launch succeeded repeats it with the
        same arguments: a token of run, attempt and rung makes EC2 answer with the first one's machine (for a day, ended
        or not: see its state). Where other arguments have changed meanwhile, that machine is looked up.

        Args:
            rung: where.
            run, attempt: whose; attempts count from 1.
            image: an AMI's id.
            user_data: what it runs first; at most 16 KB, without secrets: whoever may describe machines reads it.
            deadline: when it is to be ended at the latest, as `records.now`.

        Raises:
            CapacityError: this rung has none to give; nothing was launched.
            InputError: AWS does not answer, or refuses.
        """
        from botocore.exceptions import ClientError

        market: dict[str, Any] = {}
        if rung.market == "spot":
            spot = {"SpotInstanceType": "one-time", "InstanceInterruptionBehavior": "terminate"}
            market = {"InstanceMarketOptions": {"MarketType": "spot", "SpotOptions": spot}}
        tags = {
            PROJECT: self._stack.project,
            RUN: run,
            ATTEMPT: str(attempt),
            DEADLINE: deadline,
            "Name": f"loupe {run}",
        }
        kinds = ["instance", "volume"] + ["spot-instances-request"] * (rung.market == "spot")
        with told(f"launching {rung.type} as {rung.market} in {rung.zone}"):
            try:
                reply = self._ec2.run_instances(
                    LaunchTemplate={"LaunchTemplateId": self._stack.launch_template, "Version": VERSION},
                    ImageId=image,
                    InstanceType=rung.type,
                    SubnetId=rung.subnet,
                    MinCount=1,
                    MaxCount=1,
                    ClientToken=_token(self._stack.project, run, attempt, rung),
                    InstanceInitiatedShutdownBehavior="terminate",
                    UserData=user_data,  # boto3 encodes it
                    TagSpecifications=[{"ResourceType": kind, "Tags": _pairs(tags)} for kind in kinds],
                    **market,
                )
            except ClientError as error:
                code = error_code(error)
                if code in NO_CAPACITY:
                    words = error.response.get("Error", {}).get("Message", "")
                    raise CapacityError(f"{rung.type} as {rung.market} in {rung.zone}: {code}: {words}") from None
                if code == "IdempotentInstanceTerminated":
                    where = f"{rung.type} as {rung.market} in {rung.zone}"
                    raise CapacityError(f"{where}: one was launched by this request, and has ended") from None
                if code == "IdempotentParameterMismatch" and (instance := self.launched(run, attempt)):
                    return instance
                raise
        return _instance(reply["Instances"][0])

    def find(self, run: str) -> list[Instance]:
        """All machines of a run that EC2 still describes, the pending and running first, of those the newest first.

        EC2 describes a terminated machine for about an hour, and a new one after some seconds only: see `launch`.

        Raises:
            InputError: AWS does not answer, or refuses.
        """
        found = self._describe(f"looking for machines of {run}", {f"tag:{RUN}": [run]})
        return sorted(found, key=lambda instance: (instance.state not in ALIVE, -instance.launched.timestamp()))

    def all(self) -> list[Instance]:
        """All machines of the project that are not terminated, the oldest first.

        Raises:
            InputError: AWS does not answer, or refuses.
        """
        found = self._describe("looking for machines", {"instance-state-name": list(NOT_TERMINATED)})
        return sorted(found, key=lambda instance: instance.launched)

    def terminate(self, ids: Sequence[str]) -> None:
        """End machines, each by itself: EC2 ends none of a list in which it does not know one.

        One that EC2 does not know, not even some seconds later, ended long ago.

        Raises:
            InputError: some could not be ended; all others have been.
        """
        errors = []
        for name in ids:
            try:
                with told(f"ending {name}"):
                    self._terminate(name)
            except InputError as error:
                errors.append(error)
        if errors:
            raise errors[0] if len(errors) == 1 else InputError("\n".join(map(str, errors)))

    def wait_gone(self, ids: Sequence[str], seconds: float) -> list[str]:
        """Wait until machines are terminated.

        Args:
            ids: of machines that are being ended.
            seconds: at most. One with several GPUs takes minutes; it is not billed once it is shutting down.

        Returns:
            Those that are not terminated yet.

        Raises:
            InputError: AWS does not answer, or refuses.
        """
        until = time.monotonic() + seconds
        while True:
            states = {i.id: i.state for i in self._describe("waiting for machines to end", {"instance-id": list(ids)})}
            left = [name for name in ids if states.get(name, "terminated") != "terminated"]
            if not left or time.monotonic() + POLL_SECONDS > until:
                return left
            time.sleep(POLL_SECONDS)

    def console(self, name: str) -> list[str]:
        """The last lines that a machine wrote to its console; none where EC2 has none yet, or no longer.

        Raises:
            InputError: AWS does not answer, or refuses.
        """
        from botocore.exceptions import ClientError

        with told(f"reading the console of {name}"):
            try:
                output = self._ec2.get_console_output(InstanceId=name, Latest=True)
            except ClientError as error:
                if error_code(error) == "InvalidInstanceID.NotFound":
                    return []
                if error_code(error) != "UnsupportedOperation":  # older types keep no more than that of the start
                    raise
                output = self._ec2.get_console_output(InstanceId=name)
        return str(output.get("Output", "")).splitlines()[-CONSOLE_LINES:]

    def leftovers(self) -> list[Leftover]:
        """Volumes and snapshots of the project that no machine uses; `launch` makes none that stay.

        Raises:
            InputError: AWS does not answer, or refuses.
        """
        ours = _filters({f"tag:{PROJECT}": [self._stack.project]})
        with told("looking for disks that were left"):
            volumes = self._pages(
                "describe_volumes", "Volumes", Filters=[*ours, *_filters({"status": ["available", "error"]})]
            )
            left = [
                Leftover("volume", item["VolumeId"], _tags(item).get(RUN, ""), item["Size"], item["CreateTime"])
                for item in volumes
            ]
            snapshots = self._pages("describe_snapshots", "Snapshots", OwnerIds=["self"], Filters=ours)
            left += [
                Leftover(
                    "snapshot", item["SnapshotId"], _tags(item).get(RUN, ""), item["VolumeSize"], item["StartTime"]
                )
                for item in snapshots
            ]
        return left

    def check_template(self) -> list[str]:
        """What is unsafe about the version of the launch template that `launch` uses; empty if all is well.

        Raises:
            InputError: there is no such template, or AWS does not answer, or refuses.
        """
        with told(f"reading the launch template {self._stack.launch_template}"):
            reply = self._ec2.describe_launch_template_versions(
                LaunchTemplateId=self._stack.launch_template, Versions=[VERSION]
            )
            data = reply["LaunchTemplateVersions"][0]["LaunchTemplateData"]
            groups = data.get("SecurityGroupIds", [])
            open_groups = [
                group["GroupId"]
                for group in (
                    self._pages("describe_security_groups", "SecurityGroups", GroupIds=groups) if groups else []
                )
                if group.get("IpPermissions")
            ]
        disks = [mapping["Ebs"] for mapping in data.get("BlockDeviceMappings", []) if "Ebs" in mapping]
        wrong = {
            "does not require IMDSv2: whatever runs there could be made to hand out its rights": (
                data.get("MetadataOptions", {}).get("HttpTokens") != "required"
            ),
            "names no disk: the image's would be used, which is not encrypted": not disks,
            "has a disk that is not encrypted": any(disk.get("Encrypted") is not True for disk in disks),
            "has a disk that would be left when its machine ends": any(
                disk.get("DeleteOnTermination") is not True for disk in disks
            ),
            "has a disk that is not gp3": any(disk.get("VolumeType") != "gp3" for disk in disks),
            "does not terminate a machine that shuts itself down": (
                data.get("InstanceInitiatedShutdownBehavior") != "terminate"
            ),
            "has a key pair: machines are reached by Session Manager": bool(data.get("KeyName")),
            "names no instance profile: machines could not reach S3": not data.get("IamInstanceProfile"),
            "names no security group by its id: the default one would be used": not groups,
            "has network interfaces: with them no subnet can be chosen": bool(data.get("NetworkInterfaces")),
            "chooses the market, which ec2.yaml does": bool(data.get("InstanceMarketOptions")),
        }
        found = [what for what, is_so in wrong.items() if is_so]
        return found + [f"has the security group {group}, which lets others in" for group in open_groups]

    def _describe(self, what: str, wanted: Mapping[str, Sequence[str]]) -> list[Instance]:
        filters = _filters({f"tag:{PROJECT}": [self._stack.project], **wanted})
        with told(what):
            reservations = self._pages("describe_instances", "Reservations", Filters=filters)
            return [_instance(item) for reservation in reservations for item in reservation["Instances"]]

    def _pages(self, operation: str, key: str, **wanted: Any) -> Iterator[Any]:
        for page in self._ec2.get_paginator(operation).paginate(**wanted):
            yield from page[key]

    def launched(self, run: str, attempt: int) -> Instance | None:
        """The machine of an attempt that may have been launched a moment ago, which EC2 may not show at once.

        Raises:
            InputError: AWS does not answer, or refuses.
        """
        for pause in (0.0, *PAUSES):
            time.sleep(pause)
            if found := [instance for instance in self.find(run) if instance.attempt == attempt]:
                return found[0]
        return None

    def _terminate(self, name: str) -> None:
        from botocore.exceptions import ClientError

        for pause in (*PAUSES, None):
            try:
                self._ec2.terminate_instances(InstanceIds=[name])
                return
            except ClientError as error:
                if error_code(error) != "InvalidInstanceID.NotFound":
                    raise
                if pause is not None:
                    time.sleep(pause)


def _fail_fast(response: Any, operation: Any, **_: Any) -> None:
    """Raise an error of capacity at once: EC2 sends it with status 500, which botocore would try again for minutes."""
    from botocore.exceptions import ClientError

    if response is not None and response[1].get("Error", {}).get("Code") in NO_CAPACITY:
        raise ClientError(response[1], operation.name)


def _token(project: str, run: str, attempt: int, rung: Rung) -> str:
    """What tells launches apart; 64 characters, as many as EC2 takes."""
    parts = (project, run, str(attempt), rung.market, rung.type, rung.subnet)
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _instance(item: Mapping[str, Any]) -> Instance:
    tags = _tags(item)
    attempt = tags.get(ATTEMPT, "")
    transition = item.get("StateTransitionReason", "")
    at = re.search(r"\((\d{4}-\d\d-\d\d) (\d\d:\d\d:\d\d) (?:GMT|UTC)\)", transition)
    return Instance(
        id=item["InstanceId"],
        run=tags.get(RUN, ""),
        attempt=int(attempt) if attempt.isascii() and attempt.isdigit() else 0,
        state=item["State"]["Name"],
        type=item["InstanceType"],
        zone=item["Placement"]["AvailabilityZone"],
        market="spot" if item.get("InstanceLifecycle") == "spot" else "on-demand",
        launched=item["LaunchTime"].astimezone(UTC),
        deadline=tags.get(DEADLINE, ""),
        reason=item.get("StateReason", {}).get("Message", "") or transition,
        ended=f"{at[1]}T{at[2]}Z" if at else "",
    )


def _tags(item: Mapping[str, Any]) -> dict[str, str]:
    return {tag["Key"]: tag["Value"] for tag in item.get("Tags", [])}


def _pairs(tags: Mapping[str, str]) -> list[dict[str, str]]:
    return [{"Key": key, "Value": value} for key, value in tags.items()]


def _filters(wanted: Mapping[str, Sequence[str]]) -> list[dict[str, Any]]:
    return [{"Name": name, "Values": list(values)} for name, values in wanted.items()]
