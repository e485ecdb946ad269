"""Judging and promoting what a run made, by the run itself or by a person later; and going back.

A promotion is two moves: the alias in the release store, then the branch in git. They are one transaction: if git's
remote stays out of reach, the alias goes back to the version before.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.runtime import flow_run
from prefect.states import Completed
from prefect.transactions import Transaction, transaction

from flows import show
from flows.retries import RETRIES
from flows.workspace import Workspace, push_tags, reopen, store_address
from loupe.errors import InputError
from loupe.release import registry
from loupe.release.store import Interrupted, Store, open_store
from loupe.release.tags import Tags
from loupe.release.versions import read_alias, read_version

ALIAS = "production"


@flow(name="approve", flow_run_name="approve {run}")
def approve(run: str, by: str = "", reason: str = "", override: bool = False, branch: str = "main") -> State[Any]:
    """Put the model of a finished run into production, if the gate still finds it better than what is there now.

    Args:
        run: The run that waits for it, such as 20260112-030000-1f2e3d4c; the message of its last state ends with it.
        by: Your name, for the record: whoever asks later finds it in the log.
        reason: A line for the log.
        override: Promote even if the gate refuses; needs a reason.
        branch: What the promotion moves.
    """
    if override and not reason:
        raise InputError("override needs a reason: it is kept with the version")
    space = reopened(run)
    try:
        space.dvc("repro", "--pull", "package")
        return promotion(space, branch, by=by or f"approve {run}", reason=reason, override=override)
    finally:
        space.remove()


@flow(name="rollback", flow_run_name="rollback to {to}")
def rollback(to: str = "", by: str = "", reason: str = "") -> State[Any]:
    """Let production name an earlier version again; the branch and the images stay as they are.

    Args:
        to: The version, such as 1.3.0; empty for the one before the present one.
        by: Your name, for the record: whoever asks later finds it in the log.
        reason: A line for the log.
    """
    store, left = open_store(store_address(Path.cwd())), []
    try:
        event = registry.rollback(
            store, to or None, Tags(Path.cwd()), by=by or "rollback", reason=reason, alias=ALIAS, say=show.log
        )
    except registry.UnsettledError as error:  # it is done; to run it again would go back one more
        event = error.event
        left.append(str(error))
    show.rename(f"rollback to {event.version}")
    version = read_version(store, event.version)
    show.record(version.commit if version else "unknown", None, event.to_json())
    try:
        publish_tags(Path.cwd())
    except InputError as error:
        left.append(f"the tags are not at origin, which the next promotion mends: {error}")
    return Completed(name="RolledBack", message=". ".join([f"{ALIAS} is version {event.version} again", *left]))


@task(**RETRIES)
def reopened(run: str) -> Workspace:
    """The worktree of a run that has ended."""
    space = reopen(Path.cwd(), run, show.log, owner=str(flow_run.get_id()))
    space.fetch_or_remove()
    return space


@task
def judge(space: Workspace) -> dict[str, Any]:
    """The gate's decision on the run's bundle beside production; nothing is published."""
    decision = space.json("registry", "promote", "--dry-run", "--alias", ALIAS, ok=(0, 1))
    shown(space, decision)
    return decision


def promotion(space: Workspace, branch: str, *, by: str, reason: str, override: bool = False) -> State[Any]:
    """Promote the run's bundle if the gate lets it pass, then move the branch; all of it or nothing."""
    with transaction() as both:
        both.set("project", str(space.project))
        both.set("store", space.store)
        moved = move_alias(space, by, reason, override)
        both.set("moved", moved)
        if "guards" in moved:
            return Completed(name="Refused", message=verdict(moved))
        said = move_branch(space, branch)
    show.record(space.git("rev-parse", "HEAD").strip(), space.folder, moved)
    return Completed(name="Promoted", message=". ".join(filter(None, (f"{ALIAS} is version {moved['version']}", said))))


@task
def move_alias(space: Workspace, by: str, reason: str, override: bool) -> dict[str, Any]:
    """The alias on the run's bundle; the event, or the decision where the gate refuses.

    Once the alias is moved nothing here may fail, for Prefect rolls back what has succeeded. A run that was killed
    after the move finds it done.
    """
    store = open_store(space.store)
    if moved := _moved_before(space, store):
        return moved
    force = ("--force",) if override else ()
    told = (f"--by={by}", f"--reason={reason}")  # what people fill in is never an option
    answer = space.json("registry", "promote", "--alias", ALIAS, *told, *force, ok=(0, 1))
    try:
        attached = answer.get("decision")
        decision = b"".join(store.stream(attached["path"])) if isinstance(attached, dict) else None
        shown(space, json.loads(decision) if decision else answer)
    except (InputError, Interrupted, OSError, ValueError) as error:
        if "guards" in answer:
            raise
        show.log(f"the decision cannot be shown: {error}; it is in the release store")
    return answer


def _moved_before(space: Workspace, store: Store) -> dict[str, Any] | None:
    """The move of the alias to this run's version, if that was made before and nobody has moved it since."""
    event = read_alias(store, ALIAS)
    version = read_version(store, event.version) if event else None
    mine = version is not None and version.commit == space.git("rev-parse", "HEAD").strip()
    return event.to_json() if event and mine else None


@move_alias.on_rollback
def _move_back(made: Transaction) -> None:
    """The alias where it was, unless somebody has moved it since."""
    moved, store = made.get("moved", {}), open_store(made.get("store"))
    now = read_alias(store, ALIAS)
    if "guards" in moved or now is None or now.id != moved.get("id"):
        return
    if now.previous is None:
        made.logger.warning("%s %s stays: there is nothing to go back to", ALIAS, now.version)
        return
    reason, tags = "the branch could not be moved", Tags(Path(made.get("project")))
    try:
        registry.rollback(store, now.previous, tags, by="loupe", reason=reason, alias=ALIAS, after=now)
    except (registry.LostRaceError, registry.UnsettledError) as error:
        made.logger.warning("%s", error)


@task(**RETRIES)
def move_branch(space: Workspace, branch: str) -> str:
    """The branch on the run's commit, and the tags; says what is left to a person."""
    space.push_data()
    space.push_branch()
    return space.land(branch)


@task(**RETRIES)
def publish_tags(project: Path) -> None:
    """The record in git where others see it."""
    push_tags(project, show.log)


def shown(space: Workspace, decision: dict[str, Any]) -> None:
    """The figures and the decision, for people."""
    scores = json.loads((space.folder / "metrics/evaluate.json").read_text())
    show.scores(scores, decision)
    waits = f"To put it into production all the same: flow approve, run {space.run}, override, with a reason."
    show.decision(decision, [waits] if not decision["promoted"] else [])


def verdict(decision: dict[str, Any]) -> str:
    """The decision as one sentence."""
    failed = [guard["name"] for guard in decision["guards"] if not guard["passed"]]
    gain = f"{decision['gain_db']:+.2f} dB beside {decision['champion']['label']}"
    return f"{gain}; {'every guard passes' if not failed else 'refused by ' + ', '.join(failed)}"
