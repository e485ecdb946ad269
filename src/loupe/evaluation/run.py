"""Score pictures, beside plain bicubic enlargement on the same pictures, and write what people and tools read.

evaluate.json holds the means of each data set with their 95 % intervals, and PSNR by kind of pixel; per_image.csv the
figures of each picture; the pictures folder the comparison of input, output and bicubic. The network takes one picture
after the other while threads score the ones before it; memory does not grow with their number.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Iterable, Iterator
from contextlib import nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from tabulate import tabulate
from threadpoolctl import threadpool_limits

from loupe.evaluation.intervals import interval
from loupe.evaluation.pairs import Pair
from loupe.evaluation.pictures import comparison
from loupe.evaluation.slices import KINDS, errors_by_kind, kinds_of
from loupe.imaging.files import atomic_file, atomic_folder
from loupe.imaging.metrics import Scores, luma, psnr, score, shave
from loupe.imaging.resize import Pixels, downscale, upscale
from loupe.threads import in_order

METRICS = ("psnr_y", "ssim_y", "psnr_rgb")


@dataclass(frozen=True)
class Outputs:
    """Where to write; the folder `pictures` is replaced as a whole."""

    summary: Path
    per_image: Path
    pictures: Path


@dataclass
class Report:
    """What an evaluation found: `summary` as in evaluate.json, `rows` as in per_image.csv, and why pictures failed."""

    summary: dict[str, Any] = field(default_factory=dict)
    rows: list[dict[str, Any]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)


def evaluate(
    pairs: Iterable[Pair],
    enlarge: Callable[[Pixels], Pixels],
    model: dict[str, Any],
    scale: int,
    outputs: Outputs | None = None,
) -> Report:
    """Score the finished picture of each pair, or what `enlarge` makes of its input where there is none.

    Args:
        pairs: pictures with ground truth.
        enlarge: uint8 [h, w(, 3)] -> uint8 [h * scale, w * scale(, 3)]; a ValueError fails that picture only.
        model: facts about what is scored, copied into the summary.
        scale: size factor, also the border that scoring cuts.
        outputs: where to write, or None to write nothing.

    Returns:
        The report; data sets and pictures in the order in which they came.
    """
    report = Report()
    with nullcontext() if outputs is None else atomic_folder(outputs.pictures) as folder:
        scored = _score_all(pairs, enlarge, scale, report, folder)
    protocol = {"scale": scale, "shave": scale, "luma": "BT.601, 16-235", "rounding": "uint8 before scoring"}
    report.summary = {"model": model, "protocol": protocol, "sets": _means(scored)}
    if outputs is not None:
        with atomic_file(outputs.per_image) as stream:
            pd.DataFrame(report.rows).to_csv(stream, index=False, float_format="%.6f")
        with atomic_file(outputs.summary) as stream:
            stream.write(to_json(report.summary).encode())
    return report


def to_json(value: Any) -> str:
    """`value` as JSON text; NaN and infinity, which JSON does not know, become null."""

    def finite(item: Any) -> Any:
        if isinstance(item, dict):
            return {key: finite(inner) for key, inner in item.items()}
        if isinstance(item, list):
            return [finite(inner) for inner in item]
        return None if isinstance(item, float) and not math.isfinite(item) else item

    return json.dumps(finite(value), indent=2) + "\n"


def summary_table(summary: dict[str, Any]) -> str:
    """The scores of every set as text: the candidate, bicubic enlargement, and the gain."""
    rows = []
    for name, scores in summary["sets"].items():
        bicubic = scores["bicubic"]
        ends = scores["interval_95"]["gain_db"]
        rows.append(
            (
                name,
                scores["n"],
                f"{scores['psnr_y']:.2f}",
                f"{scores['ssim_y']:.4f}",
                f"{bicubic['psnr_y']:.2f}",
                f"{bicubic['ssim_y']:.4f}",
                f"{scores['gain_db']:+.2f}",
                f"{ends[0]:+.2f} to {ends[1]:+.2f}" if ends else "-",
            )
        )
    label = summary["model"]["label"]
    scores_of = [f"PSNR-Y dB\n{label}", "SSIM-Y\n", "PSNR-Y dB\nbicubic", "SSIM-Y\n"]
    headers = ["set", "images", *scores_of, "gain dB\n", "95 % of the gain\n"]
    return str(tabulate(rows, headers=headers, disable_numparse=True, colalign=("left", *["right"] * 7)))


def slices_table(summary: dict[str, Any]) -> str:
    """PSNR-Y by kind of pixel of every set, beside bicubic enlargement, as text."""
    rows = [
        (name, kind, f"{found['share']:.0%}", *(f"{found[key]:.2f}" for key in ("psnr_y", "bicubic_psnr_y", "gain_db")))
        for name, scores in summary["sets"].items()
        for kind, found in scores["slices"].items()
        if found["share"]
    ]
    headers = ("set", "pixels", "share", "PSNR-Y dB", "bicubic", "gain dB")
    return str(tabulate(rows, headers=headers, disable_numparse=True, colalign=("left", "left", *["right"] * 4)))


@dataclass(frozen=True)
class _Scored:
    """A row of per_image.csv, and its pixels and squared errors by kind (see `errors_by_kind`)."""

    row: dict[str, Any]
    by_kind: npt.NDArray[np.float64]


def _score_all(
    pairs: Iterable[Pair], enlarge: Callable[[Pixels], Pixels], scale: int, report: Report, folder: Path | None
) -> list[_Scored]:
    def enlarged() -> Iterator[tuple[Pair, Pixels | ValueError]]:
        for pair in pairs:
            try:
                yield pair, enlarge(pair.lr) if pair.sr is None else pair.sr
            except ValueError as error:
                yield pair, error

    def outcome(job: tuple[Pair, Pixels | ValueError]) -> _Scored | str:
        pair, sr = job
        try:
            if isinstance(sr, ValueError):
                raise sr
            return _score_one(pair, sr, scale, folder)
        except ValueError as error:
            return f"{pair.set}/{pair.name}: {error}"

    workers = len(os.sched_getaffinity(0))
    with threadpool_limits(1, user_api="blas"):  # a thread a picture is enough
        outcomes = list(in_order(outcome, enlarged(), workers, ahead=workers))
    report.failures += [found for found in outcomes if isinstance(found, str)]
    scored = [found for found in outcomes if isinstance(found, _Scored)]
    report.rows = [one.row for one in scored]
    return scored


def _score_one(pair: Pair, sr: Pixels, scale: int, folder: Path | None) -> _Scored:
    bicubic = upscale(pair.lr, scale)
    ours, plain = score(pair.hr, sr, scale), score(pair.hr, bicubic, scale)
    row: dict[str, Any] = {"set": pair.set, "image": pair.name, **asdict(ours)}
    row |= {f"bicubic_{key}": value for key, value in asdict(plain).items()}
    row["gain_db"] = ours.psnr_y - plain.psnr_y if ours != plain else 0.0
    row["consistency_db"] = psnr(downscale(sr, scale), pair.lr)
    target, found, enlarged = (shave(luma(image), scale) for image in (pair.hr, sr, bicubic))
    kinds = shave(kinds_of(pair.hr), scale)
    by_kind = errors_by_kind(kinds, *((target - other) ** 2 for other in (found, enlarged)))  # type: ignore[arg-type,operator]
    for name, (pixels, *errors) in zip(KINDS, by_kind.T, strict=True):
        row[f"{name}_share"] = pixels / kinds.size
        row[f"{name}_psnr_y"], row[f"bicubic_{name}_psnr_y"] = (_psnr_of(pixels, error) for error in errors)
    if folder is not None:
        _write_picture(folder / pair.set / pair.name, pair, sr, bicubic, scale, ours, plain)
    return _Scored(row, by_kind)


def _psnr_of(pixels: float, error: float) -> float:
    """PSNR in decibels of so many pixels with this sum of squared errors; NaN for none."""
    if pixels == 0:
        return math.nan
    return math.inf if error == 0 else 10 * math.log10(255**2 * pixels / error)


def _write_picture(
    path: Path, pair: Pair, sr: Pixels, bicubic: Pixels, scale: int, ours: Scores, plain: Scores
) -> None:
    height, width = pair.lr.shape[:2]

    def caption(title: str, scores: Scores) -> str:
        return f"{title}\n{scores.psnr_y:.2f} dB PSNR-Y\n{scores.ssim_y:.4f} SSIM-Y"

    captions = (f"Input\n{width} x {height} pixels", caption("Network", ours), caption("Bicubic", plain))
    with atomic_file(path if path.suffix == ".png" else path.with_name(path.name + ".png")) as stream:
        comparison(pair.lr, sr, bicubic, scale, captions).save(stream, format="PNG")


def _means(scored: list[_Scored]) -> dict[str, Any]:
    sets: dict[str, Any] = {}
    for name in dict.fromkeys(one.row["set"] for one in scored):
        members = [one for one in scored if one.row["set"] == name]
        table = pd.DataFrame([one.row for one in members])
        mean = {key: float(value) for key, value in table.drop(columns=["set", "image"]).mean().items()}
        sets[name] = {
            "n": len(table),
            **{key: mean[key] for key in METRICS},
            "bicubic": {key: mean[f"bicubic_{key}"] for key in METRICS},
            "gain_db": mean["gain_db"],
            "consistency_db": mean["consistency_db"],
            "interval_95": {key: _listed(interval(table[key].tolist())) for key in (*METRICS, "gain_db")},
            "slices": _slices(sum(one.by_kind for one in members)),  # type: ignore[arg-type]
        }
    return sets


def _slices(by_kind: npt.NDArray[np.float64]) -> dict[str, Any]:
    """PSNR by kind over all pixels of that kind in a set, so that a picture with few of them does not count much."""
    slices: dict[str, Any] = {}
    for name, (pixels, *errors) in zip(KINDS, by_kind.T.tolist(), strict=True):
        slices[name] = {"share": pixels / by_kind[0].sum()}
        if pixels:
            ours, bicubic = (_psnr_of(pixels, error) for error in errors)
            gain = 0.0 if ours == bicubic else ours - bicubic
            slices[name] |= {"psnr_y": ours, "bicubic_psnr_y": bicubic, "gain_db": gain}
    return slices


def _listed(ends: tuple[float, float] | None) -> list[float] | None:
    """As JSON has it."""
    return None if ends is None else list(ends)
