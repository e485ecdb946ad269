"""The loop as a flow: new product images in; where they are reason enough, a network trained on them, judged, promoted.

    prepare -> ingest -> decide -> validate -> train -> evaluate -> package -> judge -> promote, or wait for a person

Everything happens in the run's own worktree (workspace.py), by the project's own commands; DVC alone decides what has
to be computed. What is worth keeping is committed and pushed at once: the images when they are reason to train, the
network when it is trained. So a run that ends early loses nothing, and the next one goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from prefect import flow, task
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed

from flows import show
from flows.publish import publish
from flows.release import judge, promotion, verdict
from flows.retries import RETRIES
from flows.workspace import Workspace, is_open, open_workspace, reopen
from loupe.errors import InputError
from loupe.named import shipped
from loupe.params import load_params
from loupe.quality.decision import Decision, RetrainLimits, should_retrain
from loupe.quality.table import read_table, write_table
from loupe.release.lineage import COST
from loupe.release.store import open_store
from loupe.release.versions import TIME, Event, read_alias, read_version

AS_COMMITTED = "as committed"
Profile = Literal[
    "as committed",
    "sample",
    "fine-tune",
    "champion",
    "champion-2",
    "champion-3",
    "champion-jpeg",
    "small",
    "loupe",
    "large",
    "paper",
    "div2k",
    "smoke",
]
Promote = Literal["auto", "ask", "never"]
Compute = Literal["local", "ec2"]
TABLES = Path(".cache/facts")  # of the worktree
CHAMPION = Path("champion")  # champion/VERSION, tracked by champion.dvc: what training starts from is data, too
NETWORK = ("model.safetensors", "config.json")
JUDGED = "Judged-inputs"  # trailer of the commit that ends a run


@dataclass(frozen=True)
class Case:
    """What speaks for training anew.

    decision: see `loupe.quality.decision`. new_images: pictures that the champion has not seen. champion: what
    production names; None if there is nothing yet.
    """

    decision: Decision
    new_images: int
    champion: Event | None

    @property
    def words(self) -> str:
        """The reasons without their limits, for the name of the run."""
        return ", ".join(re.sub(r" \([^)]*\)", "", reason) for reason in self.decision.reasons)


@flow(name="retrain", flow_run_name="retrain: looking at the inbox")
def retrain(
    inbox: str = "inbox",
    compute: Compute = "local",
    profile: Profile = "as committed",
    promote: Promote = "ask",
    force: bool = False,
    branch: str = "main",
) -> State[Any]:
    """Take in new product images, and train, judge and promote a new model where they are reason enough.

    Ends as Completed with a name that says how: Promoted, AwaitingApproval, Judged, Refused by the gate, or NotNeeded.
    It works in a git worktree of its own, on the branch retrain/RUN, and never in yours. docs/retraining.md says more.

    Args:
        inbox: Where new product images are: a folder, or s3://BUCKET/PREFIX. It is only read.
        compute: Where the network is trained. "local" is the machine of the worker, "ec2" one with a GPU that is rented
            at AWS for as long as that takes; ec2.yaml says which it may be, and what it may cost.
        profile: The recipe, a file of profiles/. "as committed" takes params.yaml as it is, "fine-tune" goes on from
            the model in production.
        promote: What follows if the gate finds the new model better. "auto" puts it into production, "ask" waits for
            somebody who runs "approve", "never" only makes the record.
        force: Train even if neither drift, nor new images, nor the age of the model in production ask for it.
        branch: Where the run starts, and what a promotion moves.
    """
    run = f"{flow_run.get_scheduled_start_time():%Y%m%d-%H%M%S}-{str(flow_run.get_id())[:8]}"
    with workspace(run, branch) as space:
        ingest(space, inbox)
        case = decide(space)
        digest = inputs(space, profile, case.champion)
        reason = reason_not_to_train(space, case, digest)
        if reason and not force:
            show.rename(f"not needed: {reason}")
            space.discard()  # the inbox still has what was new; the next run looks at it again
            return Completed(name="NotNeeded", message=reason)
        show.rename(f"retrain: {'forced, ' if reason else ''}{case.words}")
        keep(space, "Add what the remote needs", computed=False)
        set_recipe(space, profile, case.champion)
        validate(space)
        space = train(space, case.words, compute)
        evaluate(space)
        package(space)
        if promote == "auto":
            outcome = promotion(space, branch, by=f"retrain {run}", reason=case.words)
        else:
            outcome = waiting(run, judge(space), promote)
        if outcome.name != "Promoted":
            remember(space, f"{outcome.name}: {outcome.message}\n\n{JUDGED}: {digest}")
        return outcome


@contextmanager
def workspace(run: str, branch: str) -> Iterator[Workspace]:
    """The worktree of a run. It goes when the run ends, however it does: branch and DVC's cache hold the results."""
    space = prepare(run, branch)
    try:
        yield space
    finally:
        space.remove()


@task(**RETRIES)
def prepare(run: str, branch: str) -> Workspace:
    """A worktree with the product images and the champion's weights in it."""
    project, say, owner = Path.cwd(), show.log, str(flow_run.get_id())
    if is_open(project, run):  # a second attempt, or Prefect starts a run again that has crashed
        space = reopen(project, run, say, owner=owner)
    else:
        space = open_workspace(project, run, say, branch, owner=owner)
    space.fetch_or_remove()
    return space


@task(**RETRIES)
def ingest(space: Workspace, inbox: str) -> None:
    """The inbox's images in data/products, committed."""
    place = inbox if "://" in inbox else str((space.project / inbox).resolve())
    if "://" not in place and not Path(place).is_dir():
        get_run_logger().warning("%s: no such folder, so there is nothing to take in", place)
        return
    found = space.json("ingest", place, "--out", "reports/ingest", ok=(0, 1))
    show.ingest(found)
    link(space, "Contact sheet of the inbox", "reports/ingest")
    if found["data_dvc"]["before"] != found["data_dvc"]["after"]:
        space.commit(f"Take in {found['counts']['accepted']} product images")


@task
def decide(space: Workspace) -> Case:
    """Drift, new images and the champion's age, and what follows from them."""
    store = open_store(space.store)
    champion = read_alias(store, "production")
    (space.folder / TABLES).mkdir(parents=True, exist_ok=True)
    space.loupe("facts", "data/products", "--out", f"{TABLES}/all.parquet", ok=(0, 1))
    table = read_table(space.folder / TABLES / "all.parquet")
    days, known, drift, share, drifted = None, frozenset[str](), None, 0.0, ()
    if champion:
        version = read_version(store, champion.version)
        if version is None:
            raise InputError(f"{store.address}: names version {champion.version}, of which it has no record; verify it")
        days = (datetime.now(UTC) - datetime.strptime(version.registered_at, TIME).replace(tzinfo=UTC)).days
        if version.identity not in shipped():  # that network was trained elsewhere, on none of the pictures here
            known = space.products_at(version.commit)
    seen = table["path"].isin(known)
    if seen.any() and not seen.all():
        for name, rows in (("reference", table[seen]), ("new", table[~seen])):
            write_table(rows, space.folder / TABLES / f"{name}.parquet")
        tables = [f"{TABLES}/{name}.parquet" for name in ("reference", "new")]
        drift = space.json("drift", *tables, "--out", "reports/drift", ok=(0, 1))
        share, drifted = drift["share"], tuple(drift["drifted"])
    new = int((~seen).sum())
    limits = asdict(load_params(space.folder / "params.yaml").retrain)
    min_batch = limits.pop("min_batch")
    decision = should_retrain(
        drift_share=share, drifted=drifted, new_images=new, champion_days=days, limits=RetrainLimits(**limits)
    )
    if drift:
        show.drift(drift, min_batch, decision.reasons)
        if drift["enough"]:
            link(space, "Drift, fact by fact", "reports/drift")
    return Case(decision, new, champion)


def inputs(space: Workspace, profile: str, champion: Event | None) -> str:
    """A hash of all that the outcome depends on: data, code, recipe, and the champion."""
    trees = [space.git("rev-parse", f"HEAD:{name}") for name in ("src", "profiles", "dvc.yaml", "params.yaml")]
    data = (space.folder / "data.dvc").read_text()
    facts = [*trees, data, profile, champion.identity if champion else ""]
    return hashlib.sha256("\0".join(facts).encode()).hexdigest()


def reason_not_to_train(space: Workspace, case: Case, digest: str) -> str:
    """Why training would be a waste; empty if it would not."""
    if not case.decision.retrain:
        return case.words
    where = ("--branches=retrain/*", "--remotes=origin/retrain/*")
    earlier = space.git("log", *where, "--format=%s", "--max-count=1", f"--grep={JUDGED}: {digest}")
    return f"the same images, recipe and champion were judged before ({earlier.strip()})" if earlier.strip() else ""


def set_recipe(space: Workspace, profile: str, champion: Event | None) -> None:
    """params.yaml for this run; with a champion its weights, for the comparison and for recipes that start from it."""
    if profile != AS_COMMITTED:
        space.loupe("profile", profile)
    changes = {"evaluation.champion": "null"}
    shutil.rmtree(space.folder / CHAMPION, ignore_errors=True)
    if champion:
        folder = CHAMPION / champion.version
        space.loupe("registry", "pull", "--alias", champion.version, "--out", ".cache/champion")
        (space.folder / folder).mkdir(parents=True)
        for name in NETWORK:
            shutil.copyfile(space.folder / ".cache/champion" / name, space.folder / folder / name)
        space.dvc("add", "--quiet", CHAMPION.as_posix())
        changes["evaluation.champion"] = folder.as_posix()
    params = load_params(space.folder / "params.yaml")
    if params.train.init:
        if not champion:
            raise InputError(
                f"profile {profile}: starts from the champion, and there is none yet; begin with the network that "
                "ships (loupe registry seed), or take another profile"
            )
        changes["train.init"] = changes["evaluation.champion"]
        # the recipe may be for a network of another size; it may only have more blocks than what it starts from
        network = json.loads((space.folder / folder / NETWORK[1]).read_text())
        network["D"] = max(network["D"], params.model.D)
        changes |= {f"model.{key}": str(network[key]) for key in ("D", "C", "G", "G0", "residual")}
    space.loupe("profile", *(f"--set={key}={value}" for key, value in changes.items()))


@task
def validate(space: Workspace) -> None:
    """The gate for images; what it found is shown even where it stops the run."""
    try:
        space.dvc("repro", "validate")
    finally:
        found, page = space.folder / "metrics/validation.json", space.folder / "reports/validation"
        if found.exists() and page.exists():
            show.validation(json.loads(found.read_text()))
            link(space, "Validation of all images", "reports/validation")


@task
def train(space: Workspace, why: str, compute: Compute) -> Workspace:
    """The network, kept as soon as it is there: committed, and pushed where the remote takes models.

    Returns:
        The workspace, whose commands know what a rented machine has cost.
    """
    recipe = load_params(space.folder / "params.yaml").train
    with show.Progress("training", "training", recipe.validate_every) as progress:
        listening = space.told(progress.feed)
        if compute == "ec2":
            found = listening.json("ec2", "launch", "--no-rest")
            show.machines(found)
            space = replace(space, facts={COST: f"{found['usd']:.4f}"})
        else:
            listening.dvc("repro", "train")
    keep(space, f"Train: {why}")
    return space


@task(**RETRIES)
def keep(space: Workspace, message: str, computed: bool = True) -> None:
    """Commit, and data, where other machines find them."""
    space.push_data(computed=computed)  # first: the files of a remote inside the repository belong to the commit
    space.commit(message)
    space.push_branch()


@task(**RETRIES)
def remember(space: Workspace, message: str) -> None:
    """The end of the run in git, so that the same is not judged twice."""
    space.commit(message, empty=True)
    space.push_branch()


@task
def evaluate(space: Workspace) -> None:
    """Scores and the report."""
    space.dvc("repro", "evaluate")
    link(space, "Report", "reports/evaluation", show.evaluation_links)


def link(space: Workspace, what: str, folder: str, links: Callable[[str], dict[str, str]] | None = None) -> None:
    """Publish a report and show where it is. One that cannot be published stops nothing: it can be made again."""
    try:
        address = publish(space.folder / folder, space.run, Path(folder).name)
    except (InputError, OSError) as error:
        get_run_logger().warning("%s could not be published: %s", folder, error)
    else:
        show.links(links(address) if links else {what: address})


@task
def package(space: Workspace) -> None:
    """What the serving team would receive."""
    space.dvc("repro", "package")
    keep(space, "Evaluate and package")
    show.record(space.git("rev-parse", "HEAD").strip(), space.folder)


def waiting(run: str, decision: dict[str, Any], promote: Promote) -> State[Any]:
    """How a run ends that promotes nothing by itself."""
    if not decision["promoted"]:
        return Completed(name="Refused", message=verdict(decision))
    if promote == "never":
        return Completed(name="Judged", message=verdict(decision))
    return Completed(name="AwaitingApproval", message=f"{verdict(decision)}. To put it into production: approve {run}")


if __name__ == "__main__":
    retrain()
