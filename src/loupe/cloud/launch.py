"""A stage computed on a rented machine, from the launcher's side: launched, watched, launched anew, and ended.

    ladder --> launch --> watch --> result --> receive
                 ^          |
                 +-- lost --+   spot was taken away, or a machine went silent: the next one goes on from the checkpoint

One `Launcher` works for one run. It may die at any moment: whoever runs the same again takes over the machine that it
finds by the run's tag, or what that has left in S3. Nothing is launched before it is written down, and the request
carries a token made of what was written, so that EC2 answers a repeated one with the same machine.
"""

from __future__ import annotations

import math
import os
import platform
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

from tabulate import tabulate

from loupe.cloud.aws import CredentialsError, UnreachableError
from loupe.cloud.fleet import ALIVE, CapacityError, Fleet
from loupe.cloud.mailbox import Mailbox
from loupe.cloud.parcel import content_key, receive, ship
from loupe.cloud.prices import ladder, spent
from loupe.cloud.records import ENDS, Attempt, Instance, Rung, Status, moment, now, stamp
from loupe.cloud.settings import Policy, Stack, find_image, read_stack
from loupe.cloud.userdata import LEAVE, render, upload_bootstrap
from loupe.errors import InputError

SETUP_HOURS = 0.25  # until a machine has booted, installed packages and fetched what it reads
LEAST_SHARE = 0.1  # of the work: no more is taken to be done before the result is there
LOSSES = 2  # of machines on demand, which nobody takes away: more are no chance
GONE = 120.0  # seconds until a machine that is told to end counts as one that does not
POLL = "LOUPE_EC2_POLL_SECONDS"  # between two looks at a machine
STALE = "LOUPE_EC2_STALE_SECONDS"  # without a heartbeat, until a machine counts as lost; from its launch on thrice that
RECENT = timedelta(minutes=5)  # EC2 may not show a machine yet, and knows the token of its request
BY_SOMEBODY = "Client.UserInitiatedShutdown"  # EC2's word for TerminateInstances

# outcomes of attempts; any other is that of a loss
DONE, FAILED, ENDED, DEADLINE, NONE = "done", "failed", "ended by the launcher", "deadline", "no capacity"
UNWATCHED, STOPPED = "ended while no launcher lived", "ended on demand"
NO_LOSS = ("", DONE, FAILED, ENDED, DEADLINE, NONE, UNWATCHED, STOPPED)

Say = Callable[[str], object]
Hours = Callable[[str], float]  # of computing, by instance type


class BudgetError(InputError):
    """The budget is too small for what it is to pay for."""


class MachineError(InputError):
    """The work failed on the machine; another one would fail as well."""


@dataclass(frozen=True)
class Offer:
    """A rung, and what the work would take there: hours, set-up included, and USD."""

    rung: Rung
    hours: float
    usd: float


@dataclass(frozen=True)
class Estimate:
    """What a run may cost. offers: what fits the budget, in the order of use. usd: of the first, without losses.

    bound: the budget. Each machine gets a deadline before it is used up, at the price of its launch; the price of spot
    may rise meanwhile, to that of on demand at most.
    """

    offers: tuple[Offer, ...]
    usd: float
    bound: float

    def __str__(self) -> str:
        rows = [
            (
                one.rung.type,
                one.rung.market,
                one.rung.zone,
                f"{one.rung.price:.3f}",
                f"{one.hours:.2f}",
                f"{one.usd:.2f}",
            )
            for one in self.offers
        ]
        table = tabulate(rows, ["type", "market", "zone", "USD/hour", "hours", "USD"], disable_numparse=True)
        return f"{table}\nestimate: {self.usd:.2f} USD on the first; the budget is {self.bound:.2f} USD"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: its attempts, what they cost together in USD, and the estimate, unless it was under way."""

    run: str
    attempts: tuple[Attempt, ...]
    usd: float
    estimate: Estimate | None


def estimate(policy: Policy, stack: Stack, hours: Hours) -> Estimate:
    """What some work would cost, by the prices of now.

    Args:
        policy: what may be used, and the budget.
        stack: the account's set-up.
        hours: see `Hours`; the time that a machine needs before is added.

    Raises:
        BudgetError: no machine could do it within the budget.
        InputError: AWS refused, or no machine of the policy's types is offered.
    """
    offers = affordable(ladder(policy, stack), hours, policy.budget_usd)
    return Estimate(tuple(offers), offers[0].usd, policy.budget_usd)


def affordable(rungs: Sequence[Rung], hours: Hours, usd: float, share: float = 1.0) -> list[Offer]:
    """The rungs on which work costs no more than that: spot first, the cheapest for this work first.

    Args:
        rungs: any.
        hours: see `Hours`.
        usd: what there is to spend.
        share: of the work that is left to do.

    Raises:
        BudgetError: there are none.
    """
    times = [SETUP_HOURS + share * hours(rung.type) for rung in rungs]
    offers = [Offer(rung, time, time * rung.price) for rung, time in zip(rungs, times, strict=True)]
    found = [offer for offer in offers if offer.usd <= usd]
    if not found:
        best = min(offers, key=lambda offer: offer.usd)
        raise BudgetError(
            f"{usd:.2f} USD are too little: {best.hours:.1f} hours on {best.rung.type} ({best.rung.market}, "
            f"{best.rung.price:.3f} USD an hour) cost {best.usd:.2f} USD; allow more by --budget or in ec2.yaml, or "
            "train less"
        )
    return sorted(found, key=lambda offer: (offer.rung.market != "spot", offer.usd))


class Launcher:
    """Has a stage of the project computed on EC2.

    say: receives lines for people, those that the machine prints among them.
    """

    def __init__(self, project: Path, run: str, policy: Policy, say: Say) -> None:
        self.policy, self.run, self._project, self._say = policy, run, project, say
        self.stack = read_stack(policy.parameter)
        self.fleet = Fleet(self.stack)
        self.mailbox = Mailbox(self.stack.bucket, self.stack.prefix, run)
        self._poll, self._stale = _seconds(POLL, 5.0), _seconds(STALE, 300.0)
        self._name = f"{platform.node()}-{os.getpid()}-{secrets.token_hex(4)}"
        self._mine: dict[int, Attempt] = {}  # attempts that this launcher made or took over, as they were saved last

    def compute(
        self, hours: Hours, *, stage: str = "train", dirty: bool = False, environment: Mapping[str, str] | None = None
    ) -> Outcome:
        """Have a stage computed, and its result here as if DVC had computed it here. No machine is left.

        Args:
            hours: that it is estimated to take; see `Hours`.
            stage: of dvc.yaml; what it reads is here.
            dirty: also ship changes beside those that the recipe itself makes.
            environment: for the process that computes; no secrets.

        Raises:
            BudgetError: it would cost, or has cost, more than the budget.
            CapacityError: no rung had a machine.
            MachineError: it failed there, or somebody ended it.
            InputError: the checkout, the account or a setting is wrong, another launcher works for the run, or AWS
                does not answer.
        """
        self._check_template()
        self._wait_for_another()
        estimated = None if self._is_under_way() else self._estimate(hours)
        with self._beating():
            self._order(stage, dirty, environment or {}, under_way=estimated is None)
            try:
                self._settle()
                while self.mailbox.read_result() is None:
                    if adopted := self._adopt():
                        self._watch(adopted, self.mailbox.log_end())
                    else:
                        self._watch(self._launch(hours), "")
            finally:
                self._end_all()
        attempts = self.mailbox.attempts()
        outcome = Outcome(self.run, tuple(attempts), spent(attempts, datetime.now(UTC)), estimated)
        receive(self._project, self.mailbox, self._say)
        return outcome

    def stop(self) -> list[str]:
        """End the run's machines, whoever has launched them; the launcher launches none in their place.

        Returns:
            Their ids.
        """
        machines = [one.id for one in self._alive()]
        for attempt in self.mailbox.attempts():
            if attempt.instance and not attempt.ended:
                self.mailbox.save(replace(attempt, ended=now(), outcome=STOPPED))
        self.fleet.terminate(machines)
        self.fleet.wait_gone(machines, GONE)
        return machines

    def _is_under_way(self) -> bool:
        """Whether the run has a result that is paid for already, or a machine that works for it.

        Or was asked for one just now: EC2 may not show it yet, and it may be fetching what was shipped.
        """
        asked = any(not one.ended and _age(one) < RECENT for one in self.mailbox.attempts())
        under_way = asked or self.mailbox.read_result() is not None or bool(self._alive())
        if under_way:
            self._say("a launcher before this one has left a result, a machine or a request for one")
        return under_way

    def _estimate(self, hours: Hours) -> Estimate:
        """Say what it would cost; refuses before anything is sent."""
        estimated = estimate(self.policy, self.stack, hours)
        self._say(str(estimated))
        first = estimated.offers[0]
        if first.hours > self.policy.deadline_hours:
            self._say(
                f"the work is estimated to take {first.hours:.1f} hours, and the deadline comes after "
                f"{self.policy.deadline_hours:g}; what is reached by then is kept"
            )
        return estimated

    def _wait_for_another(self) -> None:
        """Until a launcher that was killed counts as such.

        Raises:
            InputError: it is alive.
        """
        found = self.mailbox.watcher()
        if found is None or not found[0]:
            return
        _, last = found
        patience = 3 * self._beat
        if (datetime.now(UTC) - last).total_seconds() >= patience:
            return
        self._say(f"the run had a launcher at {last:%H:%M:%S} UTC; looking whether it is alive ({patience:.0f} s)")
        until = time.monotonic() + patience
        while time.monotonic() < until:
            time.sleep(self._poll)
            newer = self.mailbox.watcher()
            if newer and not newer[0]:
                return  # it has ended in order meanwhile
            if newer and newer != found:
                raise InputError(f"another launcher works for run {self.run}; follow it: loupe ec2 logs -f {self.run}")

    def _order(self, stage: str, dirty: bool, environment: Mapping[str, str], under_way: bool) -> None:
        """Ship the work, unless a machine is at it already."""
        known = self.mailbox.find_order()
        if known and (known.stage, known.key) != (stage, content_key(self._project, stage, dirty=dirty)):
            raise InputError(f"{self.run}: this run was ordered for other code, parameters or data; name another one")
        if known and under_way:
            return
        ship(
            self._project,
            self.mailbox,
            stage=stage,
            dirty=dirty,
            environment=environment,
            again=known is not None,
            say=self._say,
        )

    @property
    def _beat(self) -> float:
        """Seconds between two signs of life."""
        return 4 * self._poll

    def _check_template(self) -> None:
        if wrong := self.fleet.check_template():
            raise InputError(
                f"launch template {self.stack.launch_template}: {'; '.join(wrong)}; deploy the stack anew "
                "(docs/operations-ec2.md)"
            )

    # ------------------------------------------------------------------------------------------ launching

    def _settle(self) -> None:
        """Close the records of machines that have ended while no launcher lived: what is over costs nothing more."""
        machines = {one.id: one for one in self.fleet.find(self.run)}
        status, result = self.mailbox.read_status(), self.mailbox.read_result()
        for attempt in self.mailbox.attempts():
            if attempt.ended or not attempt.instance:
                continue
            machine = machines.get(attempt.instance) or self._late(attempt)
            if machine and machine.state in ALIVE:
                continue
            ends = [now(), attempt.deadline, machine.ended if machine else ""]
            ends += [status.time] if status and status.attempt == attempt.number else []
            outcome = DONE if result is not None and result.attempt == attempt.number else UNWATCHED
            self._save(replace(attempt, ended=min(filter(None, ends)), outcome=outcome), mine=False)

    def _adopt(self) -> Attempt | None:
        """The run's machine that is there already, with its attempt's record; all but the newest are ended."""
        known = {attempt.number: attempt for attempt in self.mailbox.attempts()}
        there = sorted(self._alive(), key=lambda one: one.attempt)
        newest = known[max(known)] if known else None
        if newest and not newest.ended and not there:
            machine = self._late(newest)
            there = [machine] if machine and machine.state in ALIVE else []
        if not there:
            return None
        *others, machine = there
        self.fleet.terminate([one.id for one in others])
        attempt = known.get(machine.attempt)
        if attempt is None:
            self.fleet.terminate([machine.id])
            raise InputError(f"{machine.id}: has the tag of run {self.run}, which knows nothing of it; it was ended")
        self._say(f"taking over {machine.id} ({machine.type}, {machine.market}), launched at {attempt.began}")
        return self._save(replace(attempt, instance=machine.id, ended="", outcome=""))

    def _late(self, attempt: Attempt) -> Instance | None:
        """The machine of an attempt so recent that EC2 may not show it yet."""
        return self.fleet.launched(self.run, attempt.number) if _age(attempt) < RECENT else None

    def _launch(self, hours: Hours) -> Attempt:
        """A new machine, on the first rung that has one."""
        attempts = self.mailbox.attempts()
        left = self.policy.budget_usd - spent(attempts, datetime.now(UTC))
        share = 1 - sum(_hours(one) / (SETUP_HOURS + hours(one.type)) for one in attempts if one.instance)
        offers = affordable(self._rungs(attempts), hours, left, max(share, LEAST_SHARE))
        taken = {(one.type, one.zone) for one in attempts if one.market == "spot" and _is_lost(one)}
        rungs = [offer.rung for offer in offers]
        rungs.sort(key=lambda rung: (rung.market != "spot", (rung.type, rung.zone) in taken))  # elsewhere first
        image = find_image(self.policy.image)
        upload_bootstrap(self.mailbox)
        attempt = self._begun(attempts, rungs)
        if attempt is None:
            attempt = self._attempt(len(attempts) + 1, rungs[0], left)
            if not self.mailbox.claim(attempt):
                raise InputError(f"another launcher works for run {self.run}; follow it: loupe ec2 logs -f {self.run}")
        else:  # by a launcher that died before it knew whether EC2 had heard it: the same request first
            first = Rung(attempt.market, attempt.type, attempt.zone, attempt.subnet, attempt.price)
            rungs = [first, *(rung for rung in rungs if (rung.market, rung.type, rung.subnet) != _place(first))]
        self._mine[attempt.number] = attempt
        reasons: list[str] = []
        for rung in rungs:
            if rung is not rungs[0]:
                attempt = self._save(self._attempt(attempt.number, rung, left))
            try:
                return self._ask(attempt, rung, image)
            except CapacityError as error:
                reasons.append(str(error))
                self._say(f"no machine: {error}")
            except (UnreachableError, CredentialsError):
                raise  # it may have been launched
            except InputError:
                self._close(attempt, NONE)
                raise
        self._close(attempt, NONE)
        raise CapacityError(f"no machine is to be had: {'; '.join(reasons)}; try later, or with more types in ec2.yaml")

    def _begun(self, attempts: Sequence[Attempt], rungs: Sequence[Rung]) -> Attempt | None:
        """A recent attempt of which it is not known whether EC2 heard of it, where it would be made again today."""
        last = attempts[-1] if attempts else None
        if last is None or last.instance or last.ended:
            return None
        if _age(last) < RECENT and _place(last) in map(_place, rungs):
            return last
        self._save(replace(last, ended=now(), outcome=NONE), mine=False)
        return None

    def _rungs(self, attempts: Sequence[Attempt]) -> list[Rung]:
        """The ladder; without spot where that has lost too many machines."""
        lost = [one for one in attempts if _is_lost(one)]
        taken = [one for one in lost if one.market == "spot"]
        if len(lost) - len(taken) >= LOSSES:
            raise MachineError(f"{len(lost)} machines were lost, the last one because {lost[-1].outcome}")
        rungs = ladder(self.policy, self.stack)
        if len(taken) < self.policy.spot_losses:
            return rungs
        self._say(f"{len(taken)} spot machines were lost: on demand from now on")
        if not (rungs := [rung for rung in rungs if rung.market == "on-demand"]):
            raise CapacityError(
                f"{len(taken)} spot machines were lost, and ec2.yaml allows none on demand; the checkpoint is kept, so "
                f"that with --market on-demand --run {self.run} it goes on"
            )
        return rungs

    def _attempt(self, number: int, rung: Rung, usd: float) -> Attempt:
        """The record of a machine that is about to be asked for: its deadline comes before the budget is used up."""
        hours = min(self.policy.deadline_hours, usd / rung.price)
        begun = datetime.now(UTC)
        deadline = begun + timedelta(minutes=math.floor(hours * 60))
        return Attempt(
            run=self.run,
            number=number,
            market=rung.market,
            type=rung.type,
            zone=rung.zone,
            subnet=rung.subnet,
            price=rung.price,
            deadline=stamp(deadline),
            began=stamp(begun),
        )

    def _ask(self, attempt: Attempt, rung: Rung, image: str) -> Attempt:
        """RunInstances; the attempt with the machine's id."""
        minutes = int((moment(attempt.deadline) - moment(attempt.began)).total_seconds() // 60)
        script = render(
            bucket=self.stack.bucket,
            prefix=self.stack.prefix,
            run=self.run,
            attempt=attempt.number,
            region=self.stack.region,
            minutes=minutes,
        )
        machine = self.fleet.launch(
            rung, run=self.run, attempt=attempt.number, image=image, user_data=script, deadline=attempt.deadline
        )
        self._say(
            f"launched {machine.id}: {rung.type} in {rung.zone}, {rung.market}, {rung.price:.3f} USD an hour; "
            f"it ends itself by {attempt.deadline}"
        )
        return self._save(replace(attempt, instance=machine.id))

    # ------------------------------------------------------------------------------------------ watching

    def _watch(self, attempt: Attempt, cursor: str) -> None:
        """Follow a machine until there is a result, or it is lost.

        Args:
            attempt: whose machine.
            cursor: from where on its log is said; if empty, all of it.

        Raises:
            MachineError: the work failed there, or the deadline came first.
            CredentialsError: AWS does not accept who is asking any more.
        """
        cursor = cursor or f"log/{attempt.number:04}-"
        seen, heard, patience = "", time.monotonic(), 3 * self._stale  # until it has booted
        silent = False
        while True:
            try:
                lines, cursor = self.mailbox.log_after(cursor)
                for line in lines:
                    self._say(line)
                status = self.mailbox.read_status()
                done = self.mailbox.read_result() is not None
                machine = self._described(attempt)
                if silent:
                    silent, heard = False, time.monotonic()  # what could not be read may be old
                    self._say("AWS answers again")
            except CredentialsError:
                self._say(f"{attempt.instance} goes on until {attempt.deadline}; the same command takes it over")
                raise
            except InputError as error:
                if datetime.now(UTC) >= moment(attempt.deadline):
                    raise
                if not silent:
                    self._say(f"{error}; trying again")
                silent = True
                time.sleep(self._poll)
                continue
            status = status if status and status.attempt == attempt.number else None
            if status and status.time != seen:
                seen, heard, patience = status.time, time.monotonic(), self._stale
            if done:
                self._close(attempt, DONE)
                return
            if status and status.phase == "failed":
                self._close(attempt, FAILED)
                raise MachineError("\n  ".join([f"{attempt.instance}: {status.message}", *status.tail]))
            if datetime.now(UTC) >= moment(attempt.deadline) - self._leave(attempt, status):
                self._close(attempt, DEADLINE)
                raise MachineError(
                    f"{attempt.instance}: its deadline {attempt.deadline} came before the work was done. What it had "
                    f"reached is kept: allow more by --budget or deadline_hours, and --run {self.run} goes on"
                )
            if reason := self._loss(attempt, machine, status, time.monotonic() - heard, patience):
                self._check_wanted(attempt, machine)
                self._say(f"{attempt.instance} is lost: {reason}")
                self.fleet.terminate([attempt.instance])
                self._close(attempt, reason)
                return
            time.sleep(self._poll)

    def _check_wanted(self, attempt: Attempt, machine: Instance | None) -> None:
        """Launch nothing in the place of a machine that somebody has ended on purpose."""
        known = next((one for one in self.mailbox.attempts() if one.number == attempt.number), attempt)
        if known.ended or (machine and machine.reason.startswith(BY_SOMEBODY)):
            if not known.ended:
                self._close(attempt, STOPPED)
            self._mine.pop(attempt.number)
            why = known.outcome or STOPPED
            raise MachineError(
                f"{attempt.instance}: somebody has ended it ({why}); the same command goes on at its checkpoint"
            )

    def _leave(self, attempt: Attempt, status: Status | None) -> timedelta:
        """How long before its deadline a machine that has stopped by itself has stopped because of that."""
        if status is None or status.phase != "interrupted":
            return timedelta()
        life = moment(attempt.deadline) - moment(attempt.began)
        return min(timedelta(seconds=LEAVE), life / 10) + timedelta(seconds=self._stale)

    def _loss(
        self, attempt: Attempt, machine: Instance | None, status: Status | None, silence: float, patience: float
    ) -> str:
        """Why a machine will bring no result; empty while it may."""
        if status and status.phase == "interrupted":
            return status.message
        if machine is not None and machine.state not in ALIVE:
            words = [f"it is {machine.state}", machine.reason]
            if status is None:  # it never said anything: EC2's own record of its screen may tell why
                words += self.fleet.console(attempt.instance)[-10:]
            return "; ".join(filter(None, words))
        if silence > patience and not (status and status.phase in ENDS):
            return f"no sign of life for {silence:.0f} seconds"
        return ""

    def _described(self, attempt: Attempt) -> Instance | None:
        """What EC2 says of the attempt's machine; None where it does not know it yet."""
        return next((one for one in self.fleet.find(self.run) if one.id == attempt.instance), None)

    def _alive(self) -> list[Instance]:
        return [one for one in self.fleet.find(self.run) if one.state in ALIVE]

    # ------------------------------------------------------------------------------------------ ending

    def _end_all(self) -> None:
        """Terminate what this launcher has, however it ended. What cannot be done is said, and hides no other error."""
        try:
            machines = {one.id for one in self._alive() if one.attempt in self._mine}
            for attempt in self._mine.values():
                if attempt.ended:
                    continue
                machine = None if attempt.instance else self.fleet.launched(self.run, attempt.number)
                machines |= {attempt.instance or (machine.id if machine else "")} - {""}
            self.fleet.terminate(sorted(machines))
            for attempt in self._mine.values():
                if not attempt.ended:
                    self._close(attempt, ENDED)
            if machines:
                self.fleet.wait_gone(sorted(machines), GONE)
        except InputError as error:
            self._say(f"could not see to it that no machine is left: {error}; `loupe ec2 reap` will, or its deadline")

    def _close(self, attempt: Attempt, outcome: str) -> None:
        self._save(replace(attempt, ended=now(), outcome=outcome.splitlines()[0][:200]))

    def _save(self, attempt: Attempt, *, mine: bool = True) -> Attempt:
        if mine:
            self._mine[attempt.number] = attempt  # first: S3 may be away when machines are to be ended
        self.mailbox.save(attempt)
        return attempt

    @contextmanager
    def _beating(self) -> Iterator[None]:
        """Within the block the mailbox gets signs of life; after it, a word that this launcher has ended in order."""
        over = threading.Event()

        def beat() -> None:
            while True:
                with suppress(InputError):  # the loop that watches says it
                    self.mailbox.beat(self._name)
                if over.wait(self._beat):
                    return

        thread = threading.Thread(target=beat, daemon=True)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join(self._beat)
            with suppress(InputError):
                self.mailbox.beat()


def _is_lost(attempt: Attempt) -> bool:
    """Whether the attempt's machine ended though nobody had told it to, and its work was not done."""
    return bool(attempt.instance) and attempt.outcome not in NO_LOSS


def _age(attempt: Attempt) -> timedelta:
    return datetime.now(UTC) - moment(attempt.began)


def _place(one: Attempt | Rung) -> tuple[str, str, str]:
    return one.market, one.type, one.subnet


def _hours(attempt: Attempt) -> float:
    """From its request to its end, or to now."""
    end = moment(attempt.ended) if attempt.ended else datetime.now(UTC)
    return (end - moment(attempt.began)).total_seconds() / 3600


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, "")
    with suppress(ValueError):
        seconds = float(text) if text else default
        if 0 < seconds < math.inf:
            return seconds
    raise InputError(f"{name}={text}: set it to a number of seconds above 0, or leave it out")
