"""The command `loupe`: each command reads its arguments, calls the library and prints.

Heavy libraries are imported inside the commands, so that `loupe --help` answers at once. Exit codes: 0 all well, 1 some
inputs failed and the others are done, 2 nothing could be done.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from loupe.cli_ec2 import app as ec2
from loupe.cli_registry import app as registry
from loupe.errors import InputError
from loupe.named import model_at
from loupe.names import printable

if TYPE_CHECKING:
    import pandas as pd

NO_IMAGES = "no images here; give a folder of PNG or JPEG files"

app = typer.Typer(
    help="A magnifying glass for product photos: twice the size, and sharp.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(registry, name="registry")
app.add_typer(ec2, name="ec2")

Scale = Annotated[int, typer.Option(min=2, max=4, help="Size factor.")]
Model = Annotated[
    str,
    typer.Option(metavar="M", help="A bundle, a model's folder, an ONNX file, or an alias or a version."),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")]


@app.callback()
def _commands() -> None:
    """Keeps every command behind its name, even while there are few."""


@app.command()
def downscale(
    inputs: Annotated[list[Path], typer.Argument(metavar="HR...", help="Image files or folders.")],
    out: Annotated[Path, typer.Option("--out", "-o", metavar="LR", help="Folder for the PNG files.")],
    scale: Scale = 2,
) -> None:
    """Make low-resolution images exactly as MATLAB's bicubic imresize does.

    Files keep their name and folder (as PNG). Sides are first cropped to a multiple of the scale.
    """
    from tqdm import tqdm

    from loupe.imaging.files import ImageError, find_images, read_image, write_png
    from loupe.imaging.resize import downscale as reduce

    jobs: dict[Path, Path] = {}
    for source in inputs:
        files = find_images(source) if source.is_dir() else [source]
        for path in files:
            below = path.relative_to(source) if source.is_dir() else Path(path.name)
            target = out / below.with_suffix(".png")
            if target in jobs:
                raise InputError(f"{path} and {jobs[target]} would both become {target}; rename one")
            jobs[target] = path
    if not jobs:
        raise InputError(f"{', '.join(map(str, inputs))}: {NO_IMAGES}")
    failed = 0
    for target, path in tqdm(jobs.items(), unit="image", disable=not sys.stderr.isatty()):
        try:
            if target.resolve() == path.resolve():
                raise ImageError(f"{path}: would overwrite itself; choose another folder for --out")
            image = read_image(path)
            for note in image.notes:
                typer.echo(f"{path}: {note}", err=True)
            write_png(target, reduce(image.pixels, scale))
        except ImageError as error:
            typer.echo(str(error), err=True)
            failed += 1
        except ValueError as error:
            typer.echo(f"{path}: {error}", err=True)
            failed += 1
    typer.echo(f"{out}: {len(jobs) - failed} images written, {failed} failed")
    raise typer.Exit(1 if failed else 0)


@app.command()
def upscale(
    inputs: Annotated[
        list[str], typer.Argument(metavar="IN...", help="Image files or folders, or s3://BUCKET/PREFIX.")
    ],
    out: Annotated[
        str, typer.Option("--out", "-o", metavar="OUT", help="Folder; or, for one picture, the file's name.")
    ],
    model: Model = "production",
    scale: Annotated[
        int | None, typer.Option(help="Size factor: the model's own, or its square in two passes.")
    ] = None,
    fast: Annotated[
        bool, typer.Option("--fast", help="The bundle's 8-bit variant: faster, with slightly other pixels.")
    ] = False,
    memory: Annotated[str, typer.Option(metavar="SIZE", help="What the network may take at once: 500M, 2G.")] = "1G",
    kind: Annotated[
        str, typer.Option("--format", metavar="F", help="png, jpeg, webp, tiff, bmp, gif or avif; else as it was.")
    ] = "",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Read and say what would be done; write nothing.")] = False,
    engine: Annotated[
        Literal["local", "ray"], typer.Option(help="Who works: this process, or Ray's workers on one or many machines.")
    ] = "local",
    address: Annotated[
        str, typer.Option(metavar="HOST:PORT", help="The Ray cluster; else RAY_ADDRESS, else this machine alone.")
    ] = "",
    workers: Annotated[
        int, typer.Option(min=0, help="Ray's, in all; 0 for one on each machine, or one for each GPU.")
    ] = 0,
    price: Annotated[
        float | None,
        typer.Option(min=0, metavar="PER_HOUR", help="Of all machines, to estimate what a million pictures cost."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Enlarge pictures: the same names and formats, twice the size, with all that the files know.

    Folders are taken with all below. Run again, only what is missing is made. docs/upscaling.md says how colours,
    transparency, animations and metadata are kept.
    """
    from tqdm import tqdm

    from loupe.named import load
    from loupe.upscaling import batch
    from loupe.upscaling.places import place

    sources, target = [place(name) for name in inputs], place(out)
    if engine != "ray" and (address or workers):
        raise InputError("--address and --workers are for --engine ray")
    alone = batch.is_file(sources, target)
    kind = kind or (batch.kind_of(target) if alone else "")
    jobs = batch.plan(sources, target, kind)
    found_at = model_at(model)
    upscaler = load(found_at, scale, fast=fast, memory=_bytes(memory))
    stop = batch.Stop()
    cluster = None
    if engine == "ray":
        from loupe.upscaling.cluster import upscale_on_ray

        cluster = partial(
            upscale_on_ray,
            model=found_at,
            fast=fast,
            memory=_bytes(memory),
            stop=stop,
            address=address,
            workers=workers,
        )

    def say(line: str) -> None:
        tqdm.write(line, file=sys.stderr)

    step = _plain_lines(len(jobs), say)

    def watch(outcome: batch.Outcome) -> None:
        source = printable(str(outcome.job.source))
        for note in outcome.notes:
            say(f"{source}: {note}")
        if outcome.state == "failed":
            say(f"{source}: {outcome.reason}")
        elif dry_run and not as_json:
            size = " x ".join(str(side * upscaler.scale) for side in outcome.size)
            made = f"{printable(str(outcome.job.target))}, {size}"
            typer.echo(f"{source} -> {made if outcome.state == 'left' else 'there already'}")
        bar.update()
        step(outcome.state)

    with (
        batch.finishing_on_interrupt(stop, say),
        tqdm(total=len(jobs), unit="picture", disable=not sys.stderr.isatty()) as bar,
    ):
        found = batch.run(jobs, upscaler, None if alone else target, kind, stop, watch, dry_run, cluster)
    if price is not None and found["done"]:
        found["cost_per_million"] = round(price * found["hours_per_million"], 2)
    if as_json:
        typer.echo(json.dumps(found, indent=2))
    elif not dry_run:
        named = f", {found['failed']} failed, see {target / batch.FAILURES}" if found["failed"] and not alone else ""
        typer.echo(f"{target}: {found['done']} pictures written, {found['skipped']} there already{named}")
        if price is not None and found["done"]:
            rate, hours = f"{found['pictures_per_second']} pictures/s", f"{found['hours_per_million']} hours"
            typer.echo(f"{rate}: a million like these take {hours} and cost {found['cost_per_million']}")
    if stop.reason:
        typer.echo(f"{found['left']} pictures left: {stop.reason}", err=True)
    raise typer.Exit(batch.exit_code(found, stop))


@app.command()
def demo(
    picture: Annotated[Path, typer.Argument(metavar="PICTURE", help="An image file.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="The page; else NAME.html here.")
    ] = None,
    model: Model = "production",
) -> None:
    """Look at one picture, before and after, through a magnifying glass: a page that opens from the disk."""
    from loupe.named import load
    from loupe.upscaling.demo import write_demo

    page = out or Path(f"{picture.stem}.html")
    for note in write_demo(page, picture, load(model)):
        typer.echo(f"{printable(str(picture))}: {note}", err=True)
    typer.echo(f"look at {printable(str(page))}")


@app.command()
def evaluate(
    hr: Annotated[
        Path, typer.Option(metavar="DIR", help="Ground truth: a folder, or a patch index, of what it holds out.")
    ],
    lr: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Inputs; made from the ground truth if absent.")
    ] = None,
    sr: Annotated[Path | None, typer.Option(metavar="DIR", help="Finished pictures to score.")] = None,
    model: Annotated[
        Path | None,
        typer.Option(metavar="M", help="Model to run and score: a folder, an ONNX file, or an alias."),
    ] = None,
    champion: Annotated[
        Path | None,
        typer.Option(metavar="M", help="Model to compare with, pixel by pixel in the report."),
    ] = None,
    against: Annotated[
        list[Path] | None,
        typer.Option(metavar="M", help="Further models to compare with; may be repeated."),
    ] = None,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Score the model's x8 self-ensemble as well: eight times as slow.")
    ] = False,
    jpeg: Annotated[
        int | None,
        typer.Option(
            metavar="QUALITY", min=1, max=100, help="Compress the inputs first, as shops do, as JPEG of this quality."
        ),
    ] = None,
    unseen_by: Annotated[
        Path | None,
        typer.Option(metavar="INDEX", help="Stop if a picture nearly equals one that this patch index trains on."),
    ] = None,
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for figures and the report page.")] = None,
    own_range: Annotated[
        bool, typer.Option("--own-range", help="In the report, also an error map of each picture's own range.")
    ] = False,
    scale: Scale = 2,
    as_json: AsJson = False,
) -> None:
    """Score super-resolved pictures by the field's protocol, beside bicubic and Lanczos enlargement.

    Give finished pictures (--sr) or a model to run (--model); with neither, bicubic enlargement itself is scored.
    """
    from tqdm import tqdm

    from loupe.evaluation import methods
    from loupe.evaluation.pairs import compressed, held_out, read_pairs, unseen
    from loupe.evaluation.run import Outputs, to_json
    from loupe.evaluation.run import evaluate as run
    from loupe.evaluation.tables import slices_table, summary_table
    from loupe.patches.index import PatchIndex

    if sr and model:
        raise InputError("--sr and --model exclude each other: pictures are either there or to be made")
    if sr and jpeg:
        raise InputError("--sr and --jpeg exclude each other: finished pictures are not made from the inputs")
    model, champion = model and model_at(model), champion and model_at(champion)
    if ensemble and (not model or model.suffix == ".onnx"):
        raise InputError("--ensemble needs a network: give its folder as --model")
    given = methods.finished(sr, scale) if sr else methods.bicubic(scale, "model")
    scored = methods.stored(model) if model else given
    others = [model_at(one) for one in against or []]
    compared = methods.compared_with(scored, champion, others, model if ensemble else None)
    outputs = Outputs(out / "evaluate.json", out / "per_image.csv", out / "report", own_range) if out else None
    unread: list[str] = []

    def fail(line: str) -> None:
        unread.append(line)
        tqdm.write(line, file=sys.stderr)

    if (hr / "index.json").is_file():
        if lr or sr:
            raise InputError("--lr and --sr are for folders: an index holds its own inputs")
        index = PatchIndex(hr)
        if index.scale != scored.scale:
            raise InputError(
                f"{hr}: made for scale {index.scale}, but {scored.label} enlarges {scored.scale} times; give an index "
                "or a model of the other's scale"
            )
        pictures = held_out(index)
    else:
        pictures = read_pairs(hr, lr, sr, scored.scale, fail)
    if unseen_by:
        pictures = unseen(pictures, PatchIndex(unseen_by))
    if jpeg:
        pictures = compressed(pictures, jpeg)
    bar = tqdm(pictures, unit="picture", disable=not sys.stderr.isatty())
    report = run(bar, scored, compared, outputs)
    tables = f"{summary_table(report.summary)}\n\n{slices_table(report.summary)}"
    typer.echo(to_json(report.summary).rstrip() if as_json else tables)
    if outputs and not as_json:
        typer.echo(f"\nlook at {outputs.report / 'index.html'}")
    for failure in report.failures:
        typer.echo(failure, err=True)
    raise typer.Exit(1 if unread or report.failures else 0)


@app.command()
def validate(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Pictures; folders train and valid are splits.")],
    out: Annotated[Path | None, typer.Option(metavar="DIR", help="Folder for the page and the findings.")] = None,
    data_docs: Annotated[
        Path | None, typer.Option(metavar="DIR", help="Folder for Great Expectations' pages, which load from a CDN.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Check which pictures may be trained on, by the limits of params.yaml; exit code 1 if some must not."""
    from dataclasses import asdict

    from loupe.imaging.files import find_images
    from loupe.params import load_params
    from loupe.quality.gate import Limits, check
    from loupe.quality.report import lines, summary, verdict, write_page
    from loupe.quality.table import measure_all

    limits = Limits.of(asdict(load_params().quality))
    name, roots = folder.resolve().name, {folder.resolve().name: folder}
    if not (files := find_images(folder)):
        raise InputError(f"{folder}: {NO_IMAGES}")
    facts = {name: measure_all(folder, files, follow_links=True)}  # DVC may keep files as links
    findings = check(facts, limits, data_docs)
    found = summary(facts, findings, limits)
    for line in lines(findings, roots):
        typer.echo(line, err=True)
    typer.echo(json.dumps(found, indent=2) if as_json else verdict(found))
    if out:
        page = write_page(out, roots, found, findings, limits)
        typer.echo(f"look at {page}", err=True)
    raise typer.Exit(0 if found["success"] else 1)


@app.command()
def facts(
    folders: Annotated[list[Path], typer.Argument(metavar="DIR...", help="Folders of image files.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="FILE", help="Table to write: .parquet or .csv.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure image files: format, size, sharpness, noise, JPEG quality, whether they were enlarged, and more.

    With several folders, paths in the table begin with the folder. docs/quality.md says what each fact means.
    """
    import pandas as pd

    from loupe.imaging.files import find_images
    from loupe.quality.table import check_table_name, summarise, summary_table, write_table

    if out:
        check_table_name(out)
    files = {folder: find_images(folder) for folder in folders}
    if not any(files.values()):
        raise InputError(f"{', '.join(map(str, folders))}: {NO_IMAGES}")
    frames = _measured(files)
    if len(frames) > 1:
        for folder, frame in frames.items():
            frame["path"] = f"{folder.as_posix()}/" + frame["path"]
    table = pd.concat(frames.values(), ignore_index=True)
    if out:
        write_table(table, out)
    summary = summarise(table)
    typer.echo(json.dumps(summary, indent=2) if as_json else summary_table(summary))
    _name_undecodable(summary["undecodable"])
    raise typer.Exit(1 if summary["undecodable"] else 0)


@app.command()
def ingest(
    inbox: Annotated[str, typer.Argument(metavar="INBOX", help="Folder of pictures, or s3://BUCKET/PREFIX.")],
    out: Annotated[Path, typer.Option(metavar="DIR", help="Folder for the page that shows every decision.")] = Path(
        "reports/ingest"
    ),
    clear: Annotated[
        bool, typer.Option("--clear", help="Push the new version, then remove from the inbox what is in it.")
    ] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide and show, but take nothing in.")] = False,
    as_json: AsJson = False,
) -> None:
    """Take product images into data/products, or into quarantine/ with the reason; then `dvc add` updates data.dvc.

    Pictures whose pixels are repeated, or that JPEG has damaged, are made smaller first. Taking in the same inbox again
    adds nothing. Exit code 1 if some were not accepted.
    """
    from dataclasses import asdict

    from loupe.params import load_params
    from loupe.quality.gate import Limits
    from loupe.quality.ingest import ingesting
    from loupe.quality.sheet import write_sheet

    limits = Limits.of(asdict(load_params().quality))
    with ingesting(inbox, limits, dry_run=dry_run, clear=clear, bar=_bar) as ingested:
        page = write_sheet(out, ingested, dry_run)
    for one in ingested.decisions:
        if one.state in ("quarantined", "changed"):
            typer.echo(f"{printable(one.name)}: {one.reason or 'changed while it was read; run again'}", err=True)
    if as_json:
        typer.echo(json.dumps(ingested.to_json(), indent=2))
    else:
        typer.echo(ingested.verdict)
        if dry_run:
            typer.echo("a trial: nothing was taken in")
        elif ingested.before == ingested.after:
            typer.echo("data.dvc is as it was")
        else:
            typer.echo("data.dvc has changed: commit it, and `dvc repro` goes on from there")
        if clear:
            typer.echo(f"{ingested.cleared} files removed from the inbox")
    typer.echo(f"look at {page}", err=True)
    raise typer.Exit(1 if ingested.count("quarantined") or ingested.count("changed") else 0)


@app.command()
def drift(
    reference: Annotated[Path, typer.Argument(metavar="REFERENCE", help="Pictures trained on: a folder, or a table.")],
    current: Annotated[Path, typer.Argument(metavar="CURRENT", help="New pictures: a folder, or a table.")],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", metavar="DIR", help="Folder for drift.json and Evidently's page.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Tell whether new pictures are of another kind than those trained on; drift itself is no failure.

    Tables are those of `loupe facts --out`. docs/quality.md says what is compared, and how far apart is too far.
    """
    from loupe.imaging.files import find_images
    from loupe.params import load_params
    from loupe.quality.drift import compare, drift_table, to_json, verdict, write_drift
    from loupe.quality.table import SUFFIXES, read_table, summarise

    min_batch = load_params().retrain.min_batch
    tables, files = {}, {}
    for place in (reference, current):
        if place.suffix in SUFFIXES and not place.is_dir():
            tables[place] = read_table(place)
        elif not place.is_dir():
            raise InputError(f"{place}: neither a folder of images nor a table that `loupe facts --out` wrote")
        elif not (found := find_images(place)):
            raise InputError(f"{place}: {NO_IMAGES}")
        else:
            files[place] = found
    tables |= _measured(files)
    before, now = tables[reference], tables[current]
    outcome = compare(before, now, min_batch=min_batch)
    if out:
        write_drift(out, outcome, before, now)
    typer.echo(to_json(outcome).rstrip() if as_json else f"{drift_table(outcome)}\n\n{verdict(outcome, min_batch)}")
    undecodable = [summarise(table)["undecodable"] for table in tables.values()]
    for one in undecodable:
        _name_undecodable(one)
    raise typer.Exit(1 if any(undecodable) else 0)


@app.command()
def profile(
    name: Annotated[str, typer.Argument(help="A file of profiles/, without .yaml; none lists them.")] = "",
    changes: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="KEY=VALUE", help="Such as train.steps=500; may be repeated, and needs no NAME."),
    ] = None,
) -> None:
    """Write params.yaml from a profile: profiles/NAME.yaml laid over profiles/sample.yaml; or change single keys."""
    from loupe.params import apply_profile, change_params, profile_names

    if wrong := next((change for change in changes or () if "=" not in change), None):
        raise InputError(f"--set {wrong}: give KEY=VALUE, such as train.steps=500")
    given = dict(change.split("=", 1) for change in changes or ())
    if name:
        apply_profile(name, changes=given)
    elif given:
        change_params(given)
    else:
        typer.echo("\n".join(profile_names()) or "no profiles here; run in the project's root folder")
        return
    said = " with ".join(filter(None, (name and f"the profile {name!r}", ", ".join(changes or ()))))
    typer.echo(f"params.yaml now holds {said}; `dvc repro` runs what it changed")


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
def bench(
    name: Annotated[str, typer.Argument(help="A file of benchmarks/, without .py; none lists them.")] = "",
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[--json] [ARGS]...", help="Passed on; --help lists what it takes.")
    ] = None,
) -> None:
    """Measure loupe beside the usual ways, in one run: `loupe bench data --json`."""
    names = sorted(path.stem for path in Path("benchmarks").glob("[!_]*.py"))
    if not names:
        raise InputError("no benchmarks here; run in the project's root folder")
    if not name:
        typer.echo("\n".join(names))
        return
    if name not in names:
        raise InputError(f"no benchmark {name!r}; there are {', '.join(names)}")
    raise typer.Exit(subprocess.call([sys.executable, "-m", f"benchmarks.{name}", *(arguments or [])]))


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="",
)
def flows(
    name: Annotated[str, typer.Argument(help="up, deploy or doctor; none lists them.")] = "",
    arguments: Annotated[
        list[str] | None, typer.Argument(metavar="[ARGS]...", help="Passed on; --help lists what it takes.")
    ] = None,
) -> None:
    """Start, set up or examine what schedules and runs the flows: `loupe flows up`."""
    names = ("deploy", "doctor", "up")
    if not all(Path("flows", f"{one}.py").is_file() for one in names):
        raise InputError("no flows here; run in the project's root folder")
    if not name:
        typer.echo("\n".join(names))
        return
    if name not in names:
        raise InputError(f"no flows command {name!r}; there are {', '.join(names)}")
    sys.stdout.flush()
    # not a child: Ctrl-C and SIGTERM are for the command, which has services to end in their order
    os.execv(sys.executable, [sys.executable, "-m", f"flows.{name}", *(arguments or [])])  # noqa: S606


def _bytes(size: str) -> int:
    """A size in bytes, such as 500M or 2G; a K is 1024."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)(?:i?B)?", size.strip(), re.IGNORECASE)
    if not match:
        raise InputError(f"{size!r} is no size; give 500M or 2G")
    return int(float(match[1]) * 1024 ** " KMGT".index(match[2].upper() or " "))


def _bar(total: int | None, what: str) -> Callable[[], object]:
    """A progress bar on a terminal; gives what is to be called after each step."""
    from tqdm import tqdm

    return tqdm(total=total, desc=what, unit="image", disable=not sys.stderr.isatty()).update


def _plain_lines(total: int, say: Callable[[str], None]) -> Callable[[str], None]:
    """Lines about progress for logs, where there is no terminal: one each LOUPE_PROGRESS_SECONDS, 60 if absent.

    Args:
        total: pictures.
        say: prints a line.

    Returns:
        What is to be called with the state of each picture, see `loupe.upscaling.batch.Outcome`.
    """
    given = os.environ.get("LOUPE_PROGRESS_SECONDS") or "60"
    if not re.fullmatch(r"\d+(\.\d+)?", given):
        raise InputError(f"LOUPE_PROGRESS_SECONDS={given}: no number; give seconds such as 60")
    every, quiet = float(given), sys.stderr.isatty()
    started = last = time.monotonic()
    counts: Counter[str] = Counter()

    def step(state: str) -> None:
        nonlocal last
        counts[state] += 1
        now = time.monotonic()
        if quiet or now - last < every:
            return
        last, finished = now, counts.total()
        rate = counts["done"] / (now - started)  # what was there already takes no time, and says nothing of the rest
        seconds = (total - finished) / rate if rate else 0
        left = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else ""
        pace = f"  {rate:.3g} pictures/s, {left or f'{seconds / 3600:.1f} h'} left" if rate else ""
        say(f"picture {finished:>7}/{total}  {counts['failed']} failed{pace}")

    return step


def _measured(files: Mapping[Path, list[Path]]) -> dict[Path, pd.DataFrame]:
    """The facts of files by their folder, behind one progress bar."""
    from tqdm import tqdm

    from loupe.quality.table import measure_all

    with tqdm(total=sum(map(len, files.values())), unit="image", disable=not sys.stderr.isatty()) as bar:
        return {
            folder: measure_all(folder, paths, progress=bar.update, follow_links=True)  # DVC may keep files as links
            for folder, paths in files.items()
        }


def _name_undecodable(errors: Mapping[str, str]) -> None:
    """Say on stderr which files, by path, cannot be decoded, and why."""
    for path, error in errors.items():
        typer.echo(f"{printable(path)}: {error}", err=True)


def main() -> None:
    """Entry point of the console script."""
    exit_as_loupe(app)


def exit_as_loupe(command: Callable[[], Any]) -> None:
    """Run a command and end the process with its exit code; what people can mend is said in a sentence."""
    try:
        sys.exit(command())
    except InputError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(2)
    except OSError as error:
        typer.echo(f"error: {error}; see to it, then run the command again", err=True)
        sys.exit(2)
    except ModuleNotFoundError as error:
        if str(error.name).split(".")[0] in ("loupe", "flows", "benchmarks"):
            raise
        typer.echo(f"error: needs {error.name}, which is not installed: pip install 'loupe[pipeline]'", err=True)
        sys.exit(2)


if __name__ == "__main__":
    main()
