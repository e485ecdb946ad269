"""`loupe ec2 ...`: each command reads its arguments, calls the library and prints."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from loupe.errors import InputError

if TYPE_CHECKING:
    from loupe.cloud.mailbox import Mailbox
    from loupe.cloud.settings import Policy, Stack

app = typer.Typer(help="Train on a GPU that is rented at AWS.", no_args_is_help=True)

POLICY = Path("ec2.yaml")
THERE = "LOUPE_MACHINE_"  # LOUPE_MACHINE_THREADS here is LOUPE_THREADS there
SILENT = 120.0  # seconds without a sign of life, until a launcher counts as dead
FOLLOW = 2.0  # seconds between two looks at the log

Budget = Annotated[float | None, typer.Option(min=0, metavar="USD", help="The most a run may cost; else ec2.yaml's.")]
Hours = Annotated[float | None, typer.Option(min=0, metavar="H", help="Of computing; else estimated from params.yaml.")]
Types = Annotated[list[str] | None, typer.Option("--type", metavar="T", help="An instance type; may be repeated.")]
MarketOnly = Annotated[Literal["spot", "on-demand"] | None, typer.Option(help="Only this one; else ec2.yaml's.")]
Profile = Annotated[str, typer.Option(metavar="NAME", help="Write params.yaml from it first, as `loupe profile` does.")]
Estimated = Annotated[str, typer.Option(metavar="NAME", help="The profile that is estimated; else params.yaml.")]
Run = Annotated[str, typer.Argument(metavar="RUN", help="The run's name, as `loupe ec2 status` has it.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command()
def estimate(
    profile: Estimated = "",
    budget: Budget = None,
    hours: Hours = None,
    types: Types = None,
    market: MarketOnly = None,
    as_json: AsJson = False,
) -> None:
    """Say what training by a profile would cost, by the prices of now; launches nothing.

    The time is arithmetic, not measured: operations of the recipe by what a type is assumed to sustain.
    """
    from loupe.cloud.launch import estimate as of
    from loupe.cloud.settings import read_stack

    policy = _policy(budget, types, market)
    found = of(policy, read_stack(policy.parameter), _hours(profile, hours))
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(found), indent=2))
    else:
        typer.echo(str(found))


@app.command()
def launch(
    profile: Profile = "",
    run: Annotated[
        str, typer.Option(metavar="NAME", help="Of the run; else made of what is trained, so that it is found again.")
    ] = "",
    stage: Annotated[str, typer.Option(metavar="STAGE", help="Of dvc.yaml, that the machine computes.")] = "train",
    budget: Budget = None,
    hours: Hours = None,
    types: Types = None,
    market: MarketOnly = None,
    dirty: Annotated[bool, typer.Option("--dirty", help="Ship changes that are not committed as well.")] = False,
    rest: Annotated[bool, typer.Option("--rest/--no-rest", help="Run the stages that follow here.")] = True,
    as_json: AsJson = False,
) -> None:
    """Train on a rented machine, and bring the result back as if it had been trained here. No machine is left.

    The stages before run here. Ctrl-C ends the machine; what it had reached is kept, and the same command goes on from
    there. docs/operations-ec2.md says what has to be set up.
    """
    from loupe.cloud.launch import Launcher, Outcome
    from loupe.cloud.parcel import content_key, is_up_to_date, stages_before

    project = Path.cwd()
    policy = _policy(budget, types, market)
    if profile:
        from loupe.params import apply_profile

        apply_profile(profile)
    needed = _hours("", hours)
    with _ending_orderly():
        _say("the stages before run here")
        if before := stages_before(project, stage):
            _dvc("repro", *before)
        if is_up_to_date(project, stage):
            _say(f"the stage {stage} is up to date: there is nothing to launch")
            outcome = Outcome(run, (), 0.0, None)
        else:
            name = run or f"{stage}-{content_key(project, stage, dirty=dirty)[:16]}"
            _say(f"run {name}; from elsewhere: loupe ec2 logs -f {name}")
            launcher = Launcher(project, name, policy, _say)
            rented = rented_here(project)
            rented.mkdir(parents=True, exist_ok=True)
            (rented / name).touch()
            outcome = launcher.compute(needed, stage=stage, dirty=dirty, environment=_facts(policy))
            machines = [one for one in outcome.attempts if one.instance]
            many = f"{len(machines)} machine{'s' * (len(machines) != 1)}"
            estimated = f", estimated {outcome.estimate.usd:.2f}" if outcome.estimate else ""
            _say(f"{name}: done by {many}; cost {outcome.usd:.2f} USD{estimated}")
        if rest:
            _dvc("repro", "--pull", LOUPE_RUN_ID=outcome.run, LOUPE_COST_USD=f"{outcome.usd:.4f}")
    if as_json:
        typer.echo(json.dumps(dataclasses.asdict(outcome), indent=2))


@app.command()
def status(as_json: AsJson = False) -> None:
    """Show all machines of the project: run, type, state, deadline, and what each said last."""
    from tabulate import tabulate

    from loupe.cloud.fleet import Fleet
    from loupe.cloud.records import stamp

    stack = _stack()
    rows = []
    for one in Fleet(stack).all():
        said = _mailbox(stack, one.run).read_status() if one.run else None
        said = said if said and said.attempt == one.attempt else None
        row = {
            "run": one.run,
            "instance": one.id,
            "type": one.type,
            "market": one.market,
            "zone": one.zone,
            "state": one.state,
            "launched": stamp(one.launched),
            "deadline": one.deadline,
            "phase": said.phase if said else "",
            "message": said.message if said else "",
        }
        rows.append(row)
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
    else:
        typer.echo(tabulate(rows, headers="keys", disable_numparse=True) if rows else "no machines")


@app.command()
def logs(
    run: Run,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
) -> None:
    """Print what the machines of a run have printed."""
    mailbox = _mailbox(_stack(), run)
    mailbox.read_order()  # refuses a run that there is none of
    cursor = ""
    while True:
        over = mailbox.read_result() is not None or not _is_watched(mailbox)  # asked before the log is read
        lines, cursor = mailbox.log_after(cursor)
        for line in lines:
            typer.echo(line)
        if not follow or (over and not lines):
            return
        time.sleep(FOLLOW)


def _is_watched(mailbox: Mailbox) -> bool:
    """Whether a launcher works for the run, or has until a moment ago."""
    found = mailbox.watcher()
    return found is not None and found[0] != "" and (datetime.now(UTC) - found[1]).total_seconds() < SILENT


@app.command()
def terminate(run: Run, as_json: AsJson = False) -> None:
    """End the machines of a run at once. Checkpoints and logs stay."""
    from loupe.cloud.launch import Launcher
    from loupe.cloud.settings import load_policy

    machines = Launcher(Path.cwd(), run, load_policy(POLICY), _say).stop()
    if as_json:
        typer.echo(json.dumps(machines))
    else:
        typer.echo(f"{run}: ended {', '.join(machines)}" if machines else f"{run}: has no machine")


@app.command()
def reap(
    orphan_minutes: Annotated[
        float, typer.Option(min=1, metavar="MIN", help="Without a sign of life of whoever launched a machine.")
    ] = 30,
    if_set_up: Annotated[
        bool, typer.Option("--if-set-up", help="Where no account is set up, or none is known here, it is all well.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """End machines that are past their deadline or that nobody watches any more; list disks that were left."""
    from loupe.cloud.fleet import Fleet
    from loupe.cloud.reap import reap as clean

    try:
        stack = _stack()
    except InputError as error:
        if not if_set_up:
            raise
        _say(f"no machines are looked for: {error}")
        typer.echo(json.dumps({"machines": [], "left": []}) if as_json else "not set up")
        return
    fleet = Fleet(stack)
    verdicts = clean(fleet, partial(_mailbox, stack), datetime.now(UTC), orphan_minutes)
    left = fleet.leftovers()
    machines = [
        {"id": one.instance.id, "run": one.instance.run, "outcome": one.outcome, "why": one.reason} for one in verdicts
    ]
    disks = [{"kind": one.kind, "id": one.id, "run": one.run, "gib": one.gib} for one in left]
    if as_json:
        typer.echo(json.dumps({"machines": machines, "left": disks}, indent=2))
    else:
        for machine in machines:
            typer.echo(f"{machine['outcome']}: {machine['id']} of run {machine['run'] or '?'}: {machine['why']}")
        for disk in disks:
            typer.echo(f"left: {disk['kind']} {disk['id']} of run {disk['run'] or '?'}, {disk['gib']} GiB; delete it")
        if not machines and not disks:
            typer.echo("no machines, and nothing left")
    raise typer.Exit(1 if any(one.outcome == "failed" for one in verdicts) else 0)


@app.command()
def doctor(as_json: AsJson = False) -> None:
    """Say whether all is there that a launch needs: credentials, the account's set-up, prices, DVC's remote."""
    from loupe.cloud.doctor import examine

    found = list(examine(Path.cwd(), POLICY))
    if as_json:
        typer.echo(json.dumps([dataclasses.asdict(one) for one in found], indent=2))
    else:
        for one in found:
            typer.echo(f"{'ok  ' if one.ok else 'MEND'}  {one.name:<16}{one.message}")
    raise typer.Exit(0 if all(one.ok for one in found) else 1)


@app.command()
def template() -> None:
    """Print the CloudFormation template that sets up an account: `loupe ec2 template > stack.json`."""
    from loupe.cloud.stack import template as whole

    typer.echo(whole())


def rented_here(project: Path) -> Path:
    """The folder with a file for each run that was launched from here, by which housekeeping knows to look at EC2."""
    return project / (os.environ.get("LOUPE_CACHE") or ".cache") / "ec2"


def _policy(budget: float | None, types: list[str] | None, market: str | None) -> Policy:
    """ec2.yaml, with what was said on the command line instead."""
    from loupe.cloud.settings import load_policy

    said = {"budget_usd": budget, "types": types, "markets": [market] if market else None}
    return load_policy(POLICY, **{key: value for key, value in said.items() if value is not None})


def _stack() -> Stack:
    """What the account holds for this project."""
    from loupe.cloud.settings import load_policy, read_stack

    return read_stack(load_policy(POLICY).parameter)


def _hours(profile: str, hours: float | None) -> Callable[[str], float]:
    """Hours of computing by instance type: what was said, or by arithmetic from a profile, or from params.yaml."""
    if hours is not None:
        return lambda _: hours
    import tempfile

    from loupe.cloud.speed import sustained
    from loupe.models.cost import training_tflop
    from loupe.params import apply_profile, load_params

    with tempfile.TemporaryDirectory() as folder:
        if profile:
            target = Path(folder) / "params.yaml"
            apply_profile(profile, target=target)
            params = load_params(target)
        else:
            params = load_params()
    config = {**dataclasses.asdict(params.model), "scale": params.scale}
    tflop = training_tflop(config, params.patches.size, params.train.steps * params.train.batch)
    return lambda kind: tflop / sustained(kind) / 3600


def _dvc(*arguments: str, **environment: str) -> None:
    """DVC in this folder, its lines on stderr; it ends with this process's group."""
    command = [sys.executable, "-m", "dvc", *arguments]
    done = subprocess.run(command, env=os.environ | environment, stdout=sys.stderr, check=False)
    if done.returncode:
        raise InputError(f"`dvc {' '.join(arguments)}` failed with code {done.returncode}; it says above why")


def _facts(policy: Policy) -> Mapping[str, str]:
    """The environment of the process that trains there: facts of that machine, which are not those of this one.

    Where all types have a GPU, one whose driver does not work is to fail at once, not to go on for days without.
    """
    from loupe.cloud.speed import has_gpu

    said = {f"LOUPE_{name.removeprefix(THERE)}": value for name, value in os.environ.items() if name.startswith(THERE)}
    return {"LOUPE_DEVICE": "cuda"} | said if all(map(has_gpu, policy.types)) else said


def _mailbox(stack: Stack, run: str) -> Mailbox:
    from loupe.cloud.mailbox import Mailbox

    return Mailbox(stack.bucket, stack.prefix, run)


def _say(line: str) -> None:
    typer.echo(line, err=True)


@contextmanager
def _ending_orderly() -> Iterator[None]:
    """Within the block SIGTERM is an exception, as Ctrl-C is: machines are ended before the process."""

    def end(number: int, frame: object) -> None:
        raise SystemExit(128 + number)

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
