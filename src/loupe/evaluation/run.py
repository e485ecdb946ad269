"""Score pictures, beside other ways to enlarge them, and write what people and tools read.

    evaluate.json     means of each data set with 95 % intervals, and PSNR by kind of pixel
    per_image.csv     the figures of each picture
    the report        a folder with a page to look at (report.py), its pictures, and patches.parquet

Networks take one picture after the other while threads score the ones before it, and write its pictures; memory does
not grow with their number.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from threadpoolctl import threadpool_limits

from loupe.errors import InputError
from loupe.evaluation.heatmap import difference_bar, error_bar, squared_error
from loupe.evaluation.methods import Method, usual
from loupe.evaluation.pairs import Pair
from loupe.evaluation.pictures import write_views
from loupe.evaluation.ranking import complexity_curve, patch_scores, select, worst_patch
from loupe.evaluation.slices import KINDS, errors_by_kind, kinds_of
from loupe.evaluation.summary import decibels, gain, means
from loupe.imaging.files import atomic_file, atomic_folder
from loupe.imaging.likeness import content_hash
from loupe.imaging.metrics import SSIM_WINDOW, luma32, psnr, score, shave
from loupe.imaging.resize import Pixels, downscale
from loupe.threads import in_order

PATCHES_SHOWN = 12  # of the best, and of the worst


@dataclass(frozen=True)
class Outputs:
    """Where to write; the folder `report` is replaced as a whole. own_range: see `write_views`."""

    summary: Path
    per_image: Path
    report: Path
    own_range: bool = False


@dataclass
class Report:
    """What an evaluation found: `summary` as in evaluate.json, `rows` as in per_image.csv, and why pictures failed."""

    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Scored:
    """One picture: its row of per_image.csv, `errors_by_kind` of the model and of the others, its `patch_scores`."""

    row: dict[str, Any]
    by_kind: npt.NDArray[np.float64]
    patches: pd.DataFrame


def evaluate(
    pairs: Iterable[Pair], model: Method, others: Sequence[Method] = (), outputs: Outputs | None = None
) -> Report:
    """Score the finished picture of each pair, or what `model` makes of its input where there is none.

    Args:
        pairs: pictures with ground truth.
        model: what is scored; its scale is also the border that scoring cuts.
        others: what it is compared with, beside bicubic and Lanczos enlargement; `champion` is shown in the report.
        outputs: where to write, or None to write nothing.

    Returns:
        The report; data sets and pictures in the order in which they came.

    Raises:
        InputError: nothing could be scored; or a report is wanted, but what draws it is not installed.
    """
    report = Report()
    if outputs is not None:
        _check_installed()
    labels = {method.key: method.label for method in (*usual(model.scale), *others)}
    with nullcontext() if outputs is None else atomic_folder(outputs.report) as folder:
        scored = []
        for found in _score_all(pairs, model, others, folder, outputs is not None and outputs.own_range):
            if isinstance(found, Scored):
                scored.append(found)
            else:
                report.failures.append(found)
        report.rows = [one.row for one in scored]
        scale = model.scale
        protocol = {"scale": scale, "shave": scale, "luma": "BT.601, 16-235", "rounding": "uint8 before scoring"}
        report.summary = {
            "model": {"label": model.label, **model.facts},
            "protocol": protocol,
            "methods": labels,
            "compared": {method.key: method.facts for method in others},
        }
        if not scored:  # what an earlier run wrote stays
            raise InputError("\n".join([*report.failures, "nothing could be scored"]))
        by_kind = np.stack([one.by_kind for one in scored])
        report.summary["sets"] = means(pd.DataFrame(report.rows), by_kind, list(labels))
        if folder is not None:
            patches = pd.concat([one.patches for one in scored], ignore_index=True)
            _write_report(folder, report, patches, "champion" in labels)
    if outputs is not None:
        with atomic_file(outputs.per_image) as stream:
            pd.DataFrame(report.rows).to_csv(stream, index=False, float_format="%.6f")
        write_summary(outputs.summary, report.summary)
    return report


def write_summary(path: Path, summary: dict[str, Any]) -> None:
    """Write evaluate.json."""
    with atomic_file(path) as stream:
        stream.write(to_json(summary).encode())


def to_json(value: Any) -> str:
    """`value` as JSON text; NaN and infinity, which JSON does not know, become null."""

    def finite(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: finite(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [finite(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(finite(value), indent=2) + "\n"


def score_picture(pair: Pair, enlarged: dict[str, Pixels], scale: int) -> Scored:
    """Score one picture.

    Args:
        pair: its ground truth and input.
        enlarged: what each method made of it, by key: the model's first, `bicubic` among the others.
        scale: size factor.

    Returns:
        Its figures; in the row the model's bare, those of the others after their key. `sha256` is of the ground truth
        and the input: figures of two runs may be compared where it is the same.

    Raises:
        ValueError: a picture does not fit the ground truth, or nothing is left after cutting the border.
    """
    first, *_ = enlarged
    if min(pair.hr.shape[:2]) - 2 * scale < SSIM_WINDOW:
        height, width = pair.hr.shape[:2]
        raise ValueError(
            f"an image of {width} x {height} pixels is too small to score: {scale} are cut at each side, and "
            f"SSIM takes {SSIM_WINDOW} x {SSIM_WINDOW}"
        )
    row: dict[str, Any] = {"set": pair.set, "image": pair.name, "height": len(pair.hr), "width": pair.hr.shape[1]}
    row["sha256"] = content_hash(pair.hr, pair.lr)
    for key, image in enlarged.items():
        prefix = "" if key == first else f"{key}_"
        row |= {f"{prefix}{metric}": value for metric, value in asdict(score(pair.hr, image, scale)).items()}
        if prefix:
            row[f"{prefix}gain_db"] = gain(row["psnr_y"], row[f"{prefix}psnr_y"])
    row["gain_db"] = row["bicubic_gain_db"]
    row["consistency_db"] = psnr(downscale(enlarged[first], scale), pair.lr)
    hr_y, kinds = luma32(pair.hr), kinds_of(pair.hr)
    lumas = {key: luma32(image) for key, image in enlarged.items()}
    target, kinds_scored = shave(hr_y, scale), shave(kinds, scale)
    errors = [squared_error(target, shave(plane, scale)) for plane in lumas.values()]  # type: ignore[arg-type]
    by_kind = errors_by_kind(kinds_scored, *errors)  # type: ignore[arg-type]
    pixels, *sums = by_kind
    for name, count in zip(KINDS, pixels, strict=True):
        row[f"{name}_share"] = count / kinds_scored.size
    for key, plane, errors_of_kinds in zip(enlarged, errors, sums, strict=True):
        prefix = "" if key == first else f"{key}_"
        row[f"{prefix}worst_patch_psnr_y"] = worst_patch(plane, scale)
        found = zip(KINDS, pixels, errors_of_kinds, strict=True)
        row |= {f"{prefix}{name}_psnr_y": decibels(count, error) for name, count, error in found}
    return Scored(row, by_kind, patch_scores(pair.hr, hr_y, lumas[first], lumas["bicubic"], kinds, scale))


def _score_all(
    pairs: Iterable[Pair], model: Method, others: Sequence[Method], folder: Path | None, own_range: bool
) -> Iterator[Scored | str]:
    def networks() -> Iterator[tuple[int, Pair, dict[str, Pixels] | str]]:
        for number, pair in enumerate(pairs, start=1):
            made: dict[str, Pixels] = {}
            for method in (model, *others):
                try:
                    ready = pair.sr if method is model else None
                    made[method.key] = method.enlarge(pair.lr) if ready is None else ready
                except ValueError as error:
                    yield number, pair, f"{pair.set}/{pair.name}: {method.label}: {error}"
                    break
            else:
                yield number, pair, made

    def outcome(job: tuple[int, Pair, dict[str, Pixels] | str]) -> Scored | str:
        number, pair, made = job
        if isinstance(made, str):
            return made
        try:
            quick = {method.key: method.enlarge(pair.lr) for method in usual(model.scale)}
            enlarged = {model.key: made[model.key]} | quick | made  # the model's first
            scored = score_picture(pair, enlarged, model.scale)
            if folder is not None:
                captions = _captions(scored.row)
                row_folder = write_views(folder, number, pair, enlarged, model.scale, captions, own_range)
                scored.row["folder"] = row_folder
            for place, column in enumerate(column for column in ("set", "image", "folder") if column in scored.row):
                scored.patches.insert(place, column, scored.row[column])
            return scored
        except ValueError as error:
            return f"{pair.set}/{pair.name}: {error}"

    workers = len(os.sched_getaffinity(0))
    with threadpool_limits(1, user_api="blas"):  # a thread a picture is enough
        yield from in_order(outcome, networks(), workers, ahead=workers)


def _check_installed() -> None:
    """The light install scores, but draws no report."""
    missing = [name for name in ("jinja2", "matplotlib", "pyarrow") if find_spec(name) is None]
    if missing:
        raise InputError(f"a report needs {', '.join(missing)}: pip install 'loupe[pipeline]', or leave --out away")


def _captions(row: dict[str, Any]) -> tuple[str, str]:
    """What stands below the pictures of network and bicubic enlargement."""
    figures = ((row[f"{prefix}psnr_y"], row[f"{prefix}ssim_y"]) for prefix in ("", "bicubic_"))
    ours, bicubic = (f"{psnr_y:.2f} dB PSNR-Y\n{ssim_y:.4f} SSIM-Y" for psnr_y, ssim_y in figures)
    return ours, bicubic


def _write_report(folder: Path, report: Report, patches: pd.DataFrame, champion: bool) -> None:
    """The table of patches, and the page."""
    from loupe.evaluation.report import write_report  # its plots need much that a mere score does not

    with atomic_file(folder / "patches.parquet") as stream:
        patches.to_parquet(stream, index=False)
    best, worst = select(patches, PATCHES_SHOWN)
    rows = pd.DataFrame(report.rows)
    bars = error_bar(), difference_bar() if champion else None
    write_report(folder, report.summary, rows, best, worst, complexity_curve(patches), *bars)
