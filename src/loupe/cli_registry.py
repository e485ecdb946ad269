"""`loupe registry ...`: each command reads its arguments, calls the library and prints."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from loupe.errors import InputError
from loupe.named import SEED, STORE, shipped

if TYPE_CHECKING:
    from loupe.release.registry import UnsettledError
    from loupe.release.tags import Tags
    from loupe.release.versions import Event

app = typer.Typer(help="Versions of the model: publish, go back, deliver.", no_args_is_help=True)

Address = Annotated[
    str, typer.Option("--store", envvar="LOUPE_STORE", metavar="DIR|s3://...", help="The release store.")
]
Alias = Annotated[str, typer.Option(metavar="NAME", help="The alias that is moved.")]
By = Annotated[str, typer.Option(metavar="NAME", help="Who or which run does it; the user's name if absent.")]
Reason = Annotated[str, typer.Option(metavar="TEXT", help="A line for the log.")]
Repo = Annotated[Path, typer.Option(metavar="DIR", help="The git repository that the versions come from.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.command("list")
def list_versions(store: Address = STORE, as_json: AsJson = False) -> None:
    """Show all versions with their scores, and which of them an alias names."""
    from tabulate import tabulate

    from loupe.release import registry
    from loupe.release.store import open_store

    opened = open_store(store)
    rows = registry.overview(opened, registry.history(opened))
    if as_json:
        typer.echo(json.dumps(rows, indent=2))
        return
    sets = list(dict.fromkeys(name for row in rows for name in row["sets"] or {}))
    table = [
        [
            row["version"],
            ", ".join(row["aliases"]) or row["state"],
            *(_gain((row["sets"] or {}).get(name)) for name in sets),
            row["registered_at"],
            row["by"],
            row["identity"][:12],
        ]
        for row in rows
    ]
    headers = ["version", "state", *(f"{name} PSNR-Y (gain)" for name in sets), "registered", "by", "bundle"]
    typer.echo(tabulate(table, headers, disable_numparse=True) if rows else f"{store}: no versions yet")


@app.command()
def show(
    name: Annotated[str, typer.Argument(metavar="VERSION|ALIAS")] = "production",
    store: Address = STORE,
    as_json: AsJson = False,
) -> None:
    """Show one version: what it is, its files, and the decisions that moved aliases to it."""
    from tabulate import tabulate

    from loupe.release.registry import describe
    from loupe.release.store import open_store

    found = describe(open_store(store), name)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    plain = {key: value for key, value in found.items() if isinstance(value, str)}
    typer.echo(tabulate(plain.items(), tablefmt="plain"))
    files = [[name, entry["bytes"], entry["sha256"][:12]] for name, entry in found["files"].items()]
    typer.echo("\n" + tabulate(files, ["file", "bytes", "sha256"]) if files else "\nits files are not there")
    _print_events(found["events"])


@app.command()
def promote(
    bundle: Annotated[Path, typer.Option(metavar="DIR", help="What is promoted.")] = Path("bundle"),
    store: Address = STORE,
    alias: Alias = "production",
    pictures: Annotated[
        list[Path] | None,
        typer.Option(
            metavar="DIR", help="Judge on these: a patch index, or a folder of ground truth. May be repeated."
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Judge, but publish nothing.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Whatever the gate says; needs --reason.")] = False,
    major: Annotated[bool, typer.Option("--major", help="2.0.0 after 1.4.0: users must change something.")] = False,
    patch: Annotated[bool, typer.Option("--patch", help="1.4.1 after 1.4.0, not 1.5.0.")] = False,
    reason: Reason = "",
    by: By = "",
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Judge a bundle beside the version in production; if it is better, publish it and let the alias name it.

    docs/promotion.md says what is asked for. Exit code 1: it was refused, and the table says why.
    """
    from tempfile import TemporaryDirectory

    from loupe.params import load_params
    from loupe.release import registry
    from loupe.release.drawing import decision_picture
    from loupe.release.gate import Limits, Override, decision_table
    from loupe.release.judging import judge
    from loupe.release.measure import measure
    from loupe.release.store import open_store
    from loupe.release.tags import Tags
    from loupe.release.versions import read_versions

    if major and patch:
        raise InputError("--major and --patch exclude each other")
    if force and not reason:
        raise InputError("--force needs --reason: it is kept with the version")
    opened, who = open_store(store), by or _user()
    limits = Limits(**asdict(load_params(repo / "params.yaml").promotion))
    scores = repo / "metrics"
    decision, champion = judge(
        opened,
        bundle,
        alias,
        pictures or [repo / "index"],
        limits,
        scored=[scores] if (scores / "evaluate.json").exists() else [],
        override=Override(reason, who) if force else None,
        cache=repo / ".cache" / "champion",
    )
    typer.echo(decision_table(decision), err=as_json)
    if dry_run or not decision.promoted:
        if alias == registry.PRODUCTION and not read_versions(opened):
            _say("the store is empty: `loupe registry seed` would begin it with the networks that come with loupe")
        if as_json:
            typer.echo(json.dumps(decision.as_dict(), indent=2))
        raise typer.Exit(0 if decision.promoted else 1)
    with TemporaryDirectory() as folder:
        picture = Path(folder) / "decision.svg"
        picture.write_text(decision_picture(decision), encoding="utf-8")
        try:
            event = registry.promote(
                opened,
                bundle,
                Tags(repo),
                decision.as_dict() | {"measured": measure(sorted(bundle.glob("*.onnx")))},
                champion=champion,
                by=who,
                reason=reason,
                alias=alias,
                bump="major" if major else "patch" if patch else "minor",
                picture=picture,
                say=_say,
            )
        except registry.UnsettledError as error:
            raise _unsettled(error, as_json) from None
    _print_event(event, as_json)


@app.command()
def seed(store: Address = STORE, as_json: AsJson = False) -> None:
    """Begin an empty store with the networks that come with loupe: what is promoted next must be better than theirs."""
    from loupe.release import registry
    from loupe.release.store import open_store

    for event in registry.seed(open_store(store), SEED, _say):
        _print_event(event, as_json)


@app.command()
def rollback(
    to: Annotated[str, typer.Argument(metavar="[VERSION]", help="Where to; the version before if absent.")] = "",
    store: Address = STORE,
    alias: Alias = "production",
    reason: Reason = "",
    by: By = "",
    repo: Repo = Path(),
    as_json: AsJson = False,
) -> None:
    """Let an alias name an earlier version again. Needs no git: tags that could not be made, `verify` makes later."""
    from loupe.release import registry
    from loupe.release.store import open_store

    try:
        event = registry.rollback(
            open_store(store), to or None, _tags(repo), by=by or _user(), reason=reason, alias=alias, say=_say
        )
    except registry.UnsettledError as error:
        raise _unsettled(error, as_json) from None
    _print_event(event, as_json)


@app.command()
def pull(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="For the bundle; all of it is replaced.")],
    alias: Annotated[str, typer.Option(metavar="NAME", help="What to pull: an alias, or a version.")] = "production",
    store: Address = STORE,
    as_json: AsJson = False,
) -> None:
    """Bring the version that an alias names into a folder, checked by hash; nothing is fetched that is there."""
    from loupe.release.pull import pull as bring
    from loupe.release.store import open_store

    pulled = bring(open_store(store), out, alias, _say)
    came = f"{pulled.fetched} bytes came" if pulled.fetched else "was there already"
    fields = asdict(pulled) | {"folder": str(out)}
    typer.echo(json.dumps(fields, indent=2) if as_json else f"{out}: version {pulled.version}, {came}")


@app.command()
def triton(
    out: Annotated[Path, typer.Option("--out", "-o", metavar="DIR", help="Triton's model repository.")],
    bundle: Annotated[Path, typer.Option(metavar="DIR", help="What was pulled.")] = Path("model"),
    name: Annotated[str, typer.Option(metavar="NAME", help="What clients ask for.")] = "rdn-x2",
    int8: Annotated[bool, typer.Option("--int8", help="The 8-bit variant, if the bundle holds one.")] = False,
) -> None:
    """Lay out a pulled bundle for NVIDIA's Triton Inference Server."""
    from loupe.release.triton import export

    typer.echo(f"{export(bundle, out, name, 'model-int8.onnx' if int8 else 'model.onnx')}: written")


@app.command()
def mirror(
    tracking_uri: Annotated[
        str, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", metavar="URL", help="The MLflow server.")
    ],
    name: Annotated[str, typer.Argument(metavar="[VERSION|ALIAS]", help="What is copied.")] = "production",
    model: Annotated[str, typer.Option("--name", metavar="NAME", help="The registered model in MLflow.")] = "rdn-x2",
    alias: Annotated[
        str, typer.Option(metavar="NAME", help="What is set in MLflow; ALIAS if absent, production for a VERSION.")
    ] = "",
    store: Address = STORE,
    as_json: AsJson = False,
) -> None:
    """Copy a version into an MLflow registry, once, and let MLflow's alias name what ours names."""
    from loupe.release.mirror import mirror as copy
    from loupe.release.store import open_store

    mirrored = copy(open_store(store), tracking_uri, name, model=model, alias=alias or None, say=_say)
    done = "registered" if mirrored.copied else "was there already"
    named = f", {mirrored.alias}" if mirrored.alias else ""
    line = f"{mirrored.model} {mirrored.number}{named}: version {mirrored.version}, {done}"
    typer.echo(json.dumps(asdict(mirrored), indent=2) if as_json else line)


@app.command()
def verify(store: Address = STORE, repo: Repo = Path(), as_json: AsJson = False) -> None:
    """Check every file, alias, log entry and tag, and mend what a dead promotion left; exit code 1 if something stays.

    Uploads that were not finished are removed after a day.
    """
    from loupe.release import registry
    from loupe.release.store import open_store

    findings = registry.verify(open_store(store), _tags(repo), seeds=shipped(), say=_say)
    if as_json:
        typer.echo(json.dumps([asdict(finding) for finding in findings], indent=2))
    else:
        for finding in findings:
            typer.echo(f"{'mended' if finding.mended else 'NOT WELL'}: {finding.what}")
        typer.echo(f"{store}: {'all is well' if all(finding.mended for finding in findings) else 'something stays'}")
    raise typer.Exit(0 if all(finding.mended for finding in findings) else 1)


@app.command()
def history(
    store: Address = STORE,
    alias: Annotated[str, typer.Option(metavar="NAME", help="Only the moves of this alias.")] = "",
    as_json: AsJson = False,
) -> None:
    """Tell what happened: promotions, rollbacks and removals, oldest first."""
    from loupe.release import registry
    from loupe.release.store import open_store

    events = [event.to_json() for event in registry.history(open_store(store), alias or None)]
    if as_json:
        typer.echo(json.dumps(events, indent=2))
    else:
        _print_events(events)


@app.command()
def prune(
    keep: Annotated[int, typer.Option(min=1, help="So many versions are kept besides those that are needed.")] = 5,
    store: Address = STORE,
    reason: Reason = "",
    by: By = "",
    as_json: AsJson = False,
) -> None:
    """Remove the files of old versions; never what an alias names, nor what a rollback would go to."""
    from loupe.release import registry
    from loupe.release.store import open_store

    gone = [version.version for version in registry.prune(open_store(store), keep, by=by or _user(), reason=reason)]
    typer.echo(json.dumps(gone) if as_json else f"removed: {', '.join(gone) or 'nothing'}")


def _tags(repo: Path) -> Tags | None:
    """The repository's tags; None with a word where there is no git or no repository."""
    from loupe.release.tags import Tags

    try:
        tags = Tags(repo)
        tags.commit()
    except InputError as error:
        _say(f"{error}: git tags are left alone")
        return None
    return tags


def _gain(figures: Any) -> str:
    try:
        return f"{figures['psnr_y']:.2f} ({figures['gain_db']:+.2f})"
    except (TypeError, KeyError, ValueError):
        return "-"


def _unsettled(error: UnsettledError, as_json: bool) -> typer.Exit:
    """Print a move that is made, and what is left to do; how the command ends."""
    _print_event(error.event, as_json)
    _say(str(error))
    return typer.Exit(1)


def _print_event(event: Event, as_json: bool) -> None:
    typer.echo(json.dumps(event.to_json(), indent=2) if as_json else f"{event.alias}: version {event.version}")


def _print_events(events: Sequence[Mapping[str, Any]]) -> None:
    from tabulate import tabulate

    keys = ("moved_at", "alias", "event", "from", "version", "by", "reason")
    rows = [[event[key] or "-" for key in keys] for event in events]
    headers = ["when", "alias", "what", "from", "to", "who", "why"]
    typer.echo("\n" + tabulate(rows, headers, disable_numparse=True) if rows else "\nnothing happened yet")


def _user() -> str:
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):  # no name for this user, as in many containers
        return f"user {os.getuid()}"


def _say(line: str) -> None:
    typer.echo(line, err=True)
