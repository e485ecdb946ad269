"""The last line of defence: ends machines that nobody else will end. Needs no launcher, and no S3 for what counts most.

A machine is bounded three times: it shuts itself down at its deadline, its launcher ends it, and this ends it. So this
may be patient where patience saves paid work:

- past its deadline: ended, whatever else is so. Its own clock should have done it; tags alone tell.
- stopped, or without the tags of a run and a deadline: ended. We make no such machines, and nobody else would end them.
- its run has gone on to another machine: ended. It would only spoil the other's records.
- its launcher gives signs of life: kept. To watch it is the launcher's business.
- an orphan, whose launcher does not: kept while it works and says so itself. It needs nobody: it ends by itself, its
  result waits in S3 for whoever launches the run next, and its deadline bounds what it costs. To end it would throw
  away what has been paid for. One that gives no sign of life, or has finished and not shut down, is ended.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Literal, Protocol

from loupe.cloud.fleet import Fleet
from loupe.cloud.records import ENDS, Attempt, Instance, Status, moment, stamp
from loupe.errors import InputError

GRACE = timedelta(minutes=5)  # for a machine that is just ending by itself


class Mail(Protocol):
    """What is used of a run's mailbox at S3. All raise InputError where S3 does not answer."""

    def last_beat(self) -> datetime | None:
        """When the run's launcher last said that it lives; None if never."""

    def read_status(self) -> Status | None:
        """What the run's machine last said; None if nothing."""

    def attempts(self) -> list[Attempt]:
        """All machines of the run."""

    def save(self, attempt: Attempt) -> None:
        """Write an attempt anew."""


@dataclass(frozen=True)
class Verdict:
    """What was done with a machine, and why, in a few words. failed: it should have ended, and could not be."""

    instance: Instance
    outcome: Literal["ended", "kept", "failed"]
    reason: str


def reap(fleet: Fleet, mailbox_of: Callable[[str], Mail], now: datetime, orphan_minutes: float = 30) -> list[Verdict]:
    """End what is past its deadline, forgotten or broken; the module says what that is.

    Where S3 does not answer, deadline and tags alone decide, and the reason says so. Of what is ended the attempt's
    record is closed, if S3 lets it be; where it does not, the next launcher closes it.

    Args:
        fleet: of the project.
        mailbox_of: the mailbox of a run, by its name.
        now: the time.
        orphan_minutes: without a sign of life, until a launcher or a machine counts as dead.

    Returns:
        One verdict for each machine that was not yet ending, the oldest first.

    Raises:
        InputError: EC2 does not answer, or refuses to list machines.
    """
    patience = timedelta(minutes=orphan_minutes)
    machines = [instance for instance in fleet.all() if instance.state != "shutting-down"]
    # First all that needs no S3: where it is slow to fail, nothing past its deadline waits for that
    verdicts = {
        instance.id: _end(fleet, instance, reason) for instance in machines if (reason := _by_tags(instance, now))
    }
    for instance in machines:
        try:
            mail = mailbox_of(instance.run) if instance.run else None
            if instance.id not in verdicts:
                guilty, reason = (
                    _by_mail(mail, instance, now, patience) if mail else (False, "it has just been launched")
                )
                verdicts[instance.id] = _end(fleet, instance, reason) if guilty else Verdict(instance, "kept", reason)
            if mail and verdicts[instance.id].outcome == "ended":
                _close(mail, instance, now, verdicts[instance.id].reason)
        except InputError as error:
            known = verdicts.get(instance.id)
            verdicts[instance.id] = (
                dataclasses.replace(known, reason=f"{known.reason}; its record stays open: {error}")
                if known
                else Verdict(instance, "kept", f"S3 tells nothing of it, so its deadline alone counts: {error}")
            )
    return [verdicts[instance.id] for instance in machines]


def _end(fleet: Fleet, instance: Instance, reason: str) -> Verdict:
    try:
        fleet.terminate([instance.id])
    except InputError as error:
        return Verdict(instance, "failed", f"{reason}; {error}")
    return Verdict(instance, "ended", reason)


def _by_tags(instance: Instance, now: datetime) -> str:
    """Why a machine is to be ended, by what EC2 alone says; empty if it is not."""
    young = now - instance.launched <= GRACE  # tags come with the machine; someone may be adding them by hand
    try:
        deadline = moment(instance.deadline)
    except InputError:
        return "" if young else f"it has no readable deadline: {instance.deadline!r}"
    if now > deadline + GRACE:
        return f"it is past its deadline {instance.deadline}"
    if not instance.run:
        return "" if young else "no tag names its run"
    if instance.state in ("stopping", "stopped"):
        return f"it is {instance.state}: nothing starts it again, and its disk costs money"
    return ""


def _by_mail(mail: Mail, instance: Instance, now: datetime, patience: timedelta) -> tuple[bool, str]:
    """Whether a machine is to be ended, and why, by what launcher and machine say at S3."""
    newest = max(mail.attempts(), key=lambda attempt: attempt.number, default=None)
    if newest and newest.instance != instance.id and (newest.instance or newest.number > instance.attempt):
        return True, f"its run has gone on with attempt {newest.number} ({newest.instance or 'not launched yet'})"
    beat = mail.last_beat() or instance.launched
    if now - beat <= patience:
        return False, "its launcher watches it"
    orphan = f"its launcher is silent since {beat:%Y-%m-%d %H:%M} UTC"
    status = mail.read_status()
    if status is None or status.instance != instance.id:
        return now - instance.launched > patience, f"{orphan}, and it has never given a sign of life"
    silent = now - moment(status.time)
    if status.phase in ENDS:
        return silent > GRACE, f"{orphan}; it is {status.phase}, and should shut itself down"
    if silent > patience:
        return True, f"{orphan}, and so is the machine since {status.time}"
    return False, f"{orphan}, but it is {status.phase}; it ends by itself, at {instance.deadline} at the latest"


def _close(mail: Mail, instance: Instance, now: datetime, reason: str) -> None:
    for attempt in mail.attempts():
        if attempt.number == instance.attempt and attempt.instance in ("", instance.id) and not attempt.ended:
            known = dataclasses.replace(attempt, instance=instance.id, ended=stamp(now), outcome=f"reaped: {reason}")
            mail.save(known)
