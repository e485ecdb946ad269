"""Bring a Prefect server in line with the project: the work pool, the deployments of prefect.yaml, the automations.

    loupe flows deploy

Run again, it changes what differs and nothing else. What people switch off in the UI stays off, and schedules that they
add there stay, too; all else about deployments is what prefect.yaml says. What prefect.yaml no longer names is removed.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any
from uuid import UUID

from flows.settings import enter, environment, project_here
from loupe.cli import exit_as_loupe
from loupe.errors import InputError

if TYPE_CHECKING:
    from prefect.automations import AutomationCore
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import DeploymentSchedule
    from prefect.client.schemas.responses import DeploymentResponse
    from prefect.events.schemas.automations import Automation

POOL = "loupe"
TAG = "loupe"  # of all deployments, and so of all their runs
BLOCK = "loupe-alerts"  # the notification block that people may make
HEARTBEAT = 30  # seconds between two signs of life of a run: the fewest that Prefect allows
SILENCE = 180  # seconds without one after which a run counts as crashed; the server may be away for less
FREQUENCY = "PREFECT_FLOWS_HEARTBEAT_FREQUENCY"
CRASHES = "loupe: mark runs that died"
NOTICES = "loupe: tell people"
# States of runs, as events name them. In these a process is at work, begins or ends, and may die without a word:
ALIVE = ("Pending", "Submitting", "Running", "Cancelling")
TOLD = ("Failed", "Crashed", "Refused", "AwaitingApproval")  # the last two are retrain's, and of the type Completed
DEADLINE = 300  # seconds for `prefect deploy`, which imports every flow


def deploy(project: Path, silence: int = SILENCE, say: Callable[[str], object] = print) -> None:
    """Make the pool, the deployments and the automations what the project says.

    Args:
        project: root folder, with prefect.yaml.
        silence: seconds without a sign of life after which a run counts as crashed; more than HEARTBEAT.
        say: is told what there is now, and what was changed.

    Raises:
        InputError: the server does not answer, prefect.yaml is wrong, or a flow cannot be loaded.
    """
    from prefect.client.orchestration import get_client

    if silence <= HEARTBEAT:
        raise InputError(f"--silence {silence}: runs give a sign of life every {HEARTBEAT} s; allow more")
    entries = deployments_of(project)
    with get_client(sync_client=True) as client:
        if error := client.api_healthcheck():
            raise InputError(f"no Prefect server at {client.api_url} ({error}); start one: loupe flows up")
        ensure_pool(client, say)
        before = {name: _switches(client, found) for name, found in deployed(client).items()}
        _apply(project)
        names = {entry["name"]: entry for entry in entries}
        for name, found in deployed(client).items():
            if name in names:
                _switch(client, names[name], found, before.get(name, Switches()), say)
            else:
                client.delete_resource_owned_automations(f"prefect.deployment.{found.id}")
                client.delete_deployment(found.id)
                say(f"removed {name}, which prefect.yaml no longer names; its past runs stay")
        after = deployed(client)
        for name, entry in names.items():
            if name not in after:
                raise InputError(f"prefect.yaml: {name} was not deployed; see `prefect deploy --name {name}`")
            if wrong := differences(entry, after[name]):
                raise InputError(f"prefect.yaml: {name} could not be deployed as it says: {'; '.join(wrong)}")
        say(f"deployed {', '.join(names)}")
        ensure_automations(client, silence, say)


def deployments_of(project: Path) -> list[dict[str, Any]]:
    """The deployments that prefect.yaml names.

    Raises:
        InputError: it cannot be read, or one of them lacks what all of ours have.
    """
    from ruamel.yaml import YAML
    from ruamel.yaml.error import YAMLError

    try:
        entries = YAML(typ="safe").load(project / "prefect.yaml")["deployments"]
        for entry in entries:
            if TAG not in entry["tags"] or entry["work_pool"]["name"] != POOL:
                raise InputError(f"prefect.yaml: {entry['name']} needs the tag {TAG} and the work pool {POOL}")
    except (OSError, YAMLError, KeyError, TypeError) as error:
        raise InputError(f"prefect.yaml: {error!r}; see docs/operations.md for what it needs") from None
    return list(entries)


def ensure_pool(client: SyncPrefectClient, say: Callable[[str], object]) -> None:
    """Make the work pool, or add to it what runs need: how often they give a sign of life.

    `prefect work-pool create` would have the server fetch a list of worker types from elsewhere.
    """
    from prefect.client.schemas.actions import WorkPoolCreate, WorkPoolUpdate
    from prefect.exceptions import ObjectNotFound
    from prefect.workers.process import ProcessWorker

    try:
        template = client.read_work_pool(POOL).base_job_template
    except ObjectNotFound:
        template = ProcessWorker.get_default_base_job_template()
        template["variables"]["properties"]["env"]["default"] = {FREQUENCY: str(HEARTBEAT)}
        client.create_work_pool(WorkPoolCreate(name=POOL, type=ProcessWorker.type, base_job_template=template))
        say(f"made the work pool {POOL}")
        return
    variables = template["variables"]["properties"]["env"]
    if FREQUENCY not in (variables.get("default") or {}):
        variables["default"] = {**(variables.get("default") or {}), FREQUENCY: str(HEARTBEAT)}
        client.update_work_pool(POOL, WorkPoolUpdate(base_job_template=template))
        say(f"runs of the work pool {POOL} give a sign of life every {HEARTBEAT} s now")


def deployed(client: SyncPrefectClient) -> dict[str, DeploymentResponse]:
    """All deployments of ours on the server, by their names."""
    from prefect.client.schemas.filters import DeploymentFilter, DeploymentFilterTags

    ours = DeploymentFilter(tags=DeploymentFilterTags(all_=[TAG]))
    found = client.read_deployments(deployment_filter=ours)
    return {one.name: one for one in found if one.work_pool_name == POOL}


def differences(entry: dict[str, Any], found: DeploymentResponse) -> list[str]:
    """In what a deployment on the server is not what prefect.yaml says; [] when it is. Switches are not compared."""
    limit = entry.get("concurrency_limit") or {}
    strategy = found.concurrency_options and found.concurrency_options.collision_strategy.value
    slugs = {schedule["slug"]: (schedule["cron"], schedule["timezone"]) for schedule in entry.get("schedules", [])}
    pairs = {
        "entrypoint": (entry["entrypoint"], found.entrypoint),
        "description": (entry["description"].strip(), (found.description or "").strip()),
        "tags": (sorted(entry["tags"]), sorted(found.tags)),
        "parameters": (entry.get("parameters", {}), found.parameters),
        "concurrency_limit": (
            (limit.get("limit"), limit.get("collision_strategy")),
            (found.global_concurrency_limit and found.global_concurrency_limit.limit, strategy),
        ),
        "schedules": (
            slugs,
            {
                one.slug: (getattr(one.schedule, "cron", ""), getattr(one.schedule, "timezone", ""))
                for one in found.schedules
                if one.slug
            },
        ),
    }
    return [f"{name} is {there!r} instead of {here!r}" for name, (here, there) in pairs.items() if here != there]


@dataclass
class Switches:
    """What people may have set about a deployment: what is on, and schedules of their own."""

    schedules: dict[str, DeploymentSchedule] = field(default_factory=dict)  # of prefect.yaml, by slug
    own: list[DeploymentSchedule] = field(default_factory=list)  # without a slug, as the UI makes them
    off: set[str] = field(default_factory=set)  # triggers, by name


def _switches(client: SyncPrefectClient, found: DeploymentResponse) -> Switches:
    """What is switched on and off about a deployment."""
    return Switches(
        {schedule.slug: schedule for schedule in found.schedules if schedule.slug},
        [schedule for schedule in found.schedules if not schedule.slug],
        {trigger.name for trigger in triggers_of(client, found.id) if not trigger.enabled},
    )


def triggers_of(client: SyncPrefectClient, deployment: UUID) -> list[Automation]:
    """The automations that start a deployment: those of prefect.yaml, and others that people made."""
    return client.read_resource_related_automations(f"prefect.deployment.{deployment}")


def _switch(
    client: SyncPrefectClient,
    entry: dict[str, Any],
    found: DeploymentResponse,
    kept: Switches,
    say: Callable[[str], object],
) -> None:
    """Set again what people had set, and drop schedules that prefect.yaml no longer names."""
    from prefect.client.schemas.actions import DeploymentScheduleCreate

    slugs = {schedule["slug"] for schedule in entry.get("schedules", [])}
    for schedule in found.schedules:
        if schedule.slug and schedule.slug not in slugs:
            client.delete_deployment_schedule(found.id, schedule.id)
            say(f"{found.name}: removed the schedule {schedule.slug}, which prefect.yaml no longer names")
        elif before := kept.schedules.get(schedule.slug or ""):
            if schedule.active and not before.active:
                client.update_deployment_schedule(found.id, schedule.id, active=False)
            if schedule.schedule != before.schedule:
                say(f"{found.name}: the schedule {schedule.slug} is what prefect.yaml says; it was {before.schedule!r}")
    for trigger in triggers_of(client, found.id):  # `prefect deploy` makes its own anew, switched on
        if trigger.enabled and trigger.name in kept.off:
            client.pause_automation(trigger.id)
    there = [schedule.schedule for schedule in found.schedules]
    lost = [schedule for schedule in kept.own if schedule.schedule not in there]
    if lost:
        again = [
            DeploymentScheduleCreate(**one.model_dump(include={"schedule", "active", "parameters"})) for one in lost
        ]
        client.create_deployment_schedules(found.id, again)


def _apply(project: Path) -> None:
    """`prefect deploy --all`: the file's own reader, in a process of its own, for it imports the flows."""
    unset = environment(project)
    unset.pop("LOUPE_PROJECT", None)  # else the path of this machine would be stored for all workers
    command = [sys.executable, "-m", "prefect", "--no-prompt", "deploy", "--all"]
    try:
        done = subprocess.run(
            command,
            cwd=project,
            env=unset,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=DEADLINE,
        )
    except subprocess.TimeoutExpired:
        raise InputError(
            f"prefect deploy took more than {DEADLINE} s; does importing a flow wait for something?"
        ) from None
    if done.returncode:
        raise InputError(f"prefect deploy failed; mend what it says and run this again:\n{done.stdout.strip()[-3000:]}")


def ensure_automations(client: SyncPrefectClient, silence: int, say: Callable[[str], object]) -> None:
    """Make each automation what it should be, once; one that people switched off stays off."""
    for name, wanted in automations(client, silence).items():
        found = client.read_automations_by_name(name)
        for one in found[1 if wanted else 0 :]:
            client.delete_automation(one.id)
            say(f"removed the automation {name!r}: {'it was there twice' if wanted else f'no block {BLOCK}'}")
        if wanted and not found:
            client.create_automation(wanted)
            say(f"made the automation {name!r}")
        elif wanted and not same(wanted, found[0]):
            wanted.enabled = found[0].enabled
            client.update_automation(found[0].id, wanted)
            say(f"updated the automation {name!r}")


def same(wanted: AutomationCore, found: AutomationCore) -> bool:
    """Whether an automation on the server is what it should be, on or off."""
    ignored = {"id", "enabled", "owner_resource"}
    return wanted.model_dump(exclude=ignored) == found.model_dump(exclude=ignored)


def automations(client: SyncPrefectClient, silence: int = SILENCE) -> dict[str, AutomationCore | None]:
    """The automations that there should be, by name; None for one that there should not be.

    Raises:
        InputError: the block `loupe-alerts` is none that can notify.
    """
    from prefect.automations import AutomationCore, ChangeFlowRunState, EventTrigger, Posture, SendNotification
    from prefect.client.schemas.objects import StateType

    runs: Any = {
        "match": {"prefect.resource.id": "prefect.flow-run.*"},
        "match_related": {"prefect.resource.id": f"prefect.tag.{TAG}", "prefect.resource.role": "tag"},
        "for_each": {"prefect.resource.id"},
    }
    event = "prefect.flow-run.{}".format
    crashes = AutomationCore(
        name=CRASHES,
        description=f"A run without a sign of life for {silence} s has lost its process, its worker or its machine.",
        trigger=EventTrigger(
            after={*map(event, ("heartbeat", *ALIVE))},
            # Of these, those of `after` begin the wait anew, and all others end it. A sign of life that comes in after
            # the end of a short run begins a wait for nothing: the server marks no run that has ended.
            expect={event("*")},
            posture=Posture.Proactive,
            threshold=1,
            within=timedelta(seconds=silence),
            **runs,
        ),
        actions=[
            ChangeFlowRunState(
                name=None,
                state=StateType.CRASHED,
                force=False,
                message=f"no sign of life for {silence} s: its process, its worker or its machine has died. "
                "Start it again: training goes on at its last checkpoint",
            )
        ],
    )
    block = _alerts(client)
    notices = AutomationCore(
        name=NOTICES,
        description=f"Runs that people should know of are told through the block {BLOCK}.",
        trigger=EventTrigger(expect={*map(event, TOLD)}, posture=Posture.Reactive, threshold=1, **runs),
        actions=[
            SendNotification(
                block_document_id=block or UUID(int=0),
                subject="{{ flow.name }}: {{ flow_run.state.name }}",
                body="{{ flow_run.name }}\n{{ flow_run.state.message }}\n{{ flow_run|ui_url or flow_run.id }}",
            )
        ],
    )
    return {CRASHES: crashes, NOTICES: notices if block else None}


def _alerts(client: SyncPrefectClient) -> UUID | None:
    """The notification block that people have made, if they have."""
    found: list[Any] = []
    while page := client.read_block_documents(None, offset=len(found), limit=200):
        found += page
    named = [block for block in found if block.name == BLOCK]
    able = [block for block in named if block.block_schema and "notify" in block.block_schema.capabilities]
    if named and not able:
        raise InputError(f"the block {BLOCK} cannot notify; make it a notification block (docs/operations.md)")
    return able[0].id if able else None


def main() -> None:
    """Read the command line and deploy."""
    parser = argparse.ArgumentParser(
        prog="loupe flows deploy",
        description="Bring the Prefect server in line with prefect.yaml; run it as often as you like.",
    )
    parser.add_argument(
        "--silence",
        type=int,
        default=SILENCE,
        metavar="SECONDS",
        help="without a sign of life after which a run counts as crashed (%(default)s)",
    )
    arguments = parser.parse_args()
    project = project_here()
    enter(project)
    deploy(project, arguments.silence)


if __name__ == "__main__":
    exit_as_loupe(main)
