"""What launcher and machine tell each other, as frozen dataclasses that are JSON objects in S3; and what EC2 offers.

runs/RUN/order.json              an Order: what is to be computed
runs/RUN/attempts/0001.json      an Attempt for each machine that was launched for it
runs/RUN/status.json             a Status: how the machine is; its heartbeat
runs/RUN/result.json             a Result, written last
"""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Literal, Self

from loupe.errors import InputError

TIME = "%Y-%m-%dT%H:%M:%SZ"
RUN_NAME = re.compile(r"(?![.-])(?!.*\.\.)[A-Za-z0-9._-]{1,100}(?<!\.)(?<!\.lock)")  # fit for folder, tag and branch
Market = Literal["spot", "on-demand"]
# preparing: code and packages; working: the stage runs; the other three are ends. interrupted: it can go on elsewhere
Phase = Literal["preparing", "working", "interrupted", "failed", "done"]
ENDS = ("interrupted", "failed", "done")


def stamp(time: datetime) -> str:
    """A time in UTC to the second, as all records carry it: 2026-01-31T12:00:00Z."""
    return f"{time:{TIME}}"


def now() -> str:
    """The `stamp` of this moment."""
    return stamp(datetime.now(UTC))


def moment(text: str) -> datetime:
    """What `stamp` wrote.

    Raises:
        InputError: it is something else.
    """
    try:
        return datetime.strptime(text, TIME).replace(tzinfo=UTC)
    except ValueError:
        raise InputError(f"{text!r} is no time such as 2026-01-31T12:00:00Z") from None


@dataclass(frozen=True)
class Record:
    """A JSON object."""

    def to_json(self) -> bytes:
        """The bytes that lie in S3."""
        return json.dumps(dataclasses.asdict(self), indent=2).encode() + b"\n"

    @classmethod
    def from_json(cls, data: bytes, name: str) -> Self:
        """What `to_json` wrote.

        Args:
            data: bytes from S3.
            name: of the object, for errors.

        Raises:
            InputError: they are something else, or of another version of loupe.
        """
        try:
            return cls(**json.loads(data))
        except (ValueError, TypeError) as error:
            raise InputError(f"{name}: no {cls.__name__.lower()} of this version of loupe ({error})") from None


@dataclass(frozen=True)
class Remote(Record):
    """DVC's remote at S3: `url` s3://BUCKET/PREFIX, and `endpoint`, empty for AWS. Whoever uses it has rights there."""

    url: str
    endpoint: str = ""


@dataclass(frozen=True)
class Order(Record):
    """What a machine is to compute. Written once; all machines of a run work by it.

    run: its name. stage: of dvc.yaml. commit: 40 hex digits. bundle, patch: sha256 of the objects code.bundle and
    changes.patch; patch is empty where the checkout had no changes. inputs: what the stage reads and git does not
    hold, folders or files, and their md5 as dvc.lock has it (ending with `.dir` for a folder). tracked: the .dvc
    files whose contents are to be pulled, such as champion.dvc. key: a hash of all that the outcome depends on;
    checkpoints are kept under it. environment: facts for the process that computes, such as LOUPE_THREADS; no secrets.
    """

    run: str
    stage: str
    commit: str
    bundle: str
    patch: str
    inputs: Mapping[str, str]
    tracked: tuple[str, ...]
    remote: Mapping[str, str]  # a Remote
    key: str
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Status(Record):
    """How a machine is, written every few seconds.

    attempt: the number of the machine. instance: its id. phase: see Phase. message: one sentence for people; of a
    failure the reason. time: when it was written. began: when the machine's work began. tail: the last lines of its log
    where it failed.
    """

    run: str
    attempt: int
    instance: str
    phase: Phase
    message: str
    time: str
    began: str
    tail: tuple[str, ...] = ()


@dataclass(frozen=True)
class Attempt(Record):
    """A machine that was asked for, or launched.

    number: from 1. instance: its id, empty until it is known. price: USD an hour when it was launched. deadline: when
    it shuts itself down. ended: empty while it is not known to have ended. outcome: how, in a few words.
    """

    run: str
    number: int
    market: Market
    type: str
    zone: str
    subnet: str
    price: float
    deadline: str
    began: str
    instance: str = ""
    ended: str = ""
    outcome: str = ""


@dataclass(frozen=True)
class Result(Record):
    """What has been computed: objects below result/, by their path in the project, and the sha256 of each.

    dvc.lock is among them; what it names is in DVC's remote, and so is DVC's memory of the run.
    """

    run: str
    attempt: int
    commit: str
    files: Mapping[str, str]
    time: str


@dataclass(frozen=True)
class Rung:
    """A place where a machine may be launched. price: USD an hour."""

    market: Market
    type: str
    zone: str
    subnet: str
    price: float


@dataclass(frozen=True)
class Instance:
    """A machine as EC2 describes it. run, attempt, deadline: from its tags; empty or 0 where it has none.

    state: pending, running, shutting-down, terminated, stopping or stopped. reason: why it is in that state, where EC2
    says so. ended: since when it is being ended or stopped, as `now`; EC2 does not always say that.
    """

    id: str
    run: str
    attempt: int
    state: str
    type: str
    zone: str
    market: Market
    launched: datetime
    deadline: str
    reason: str = ""
    ended: str = ""
