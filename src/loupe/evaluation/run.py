"""Score pictures, beside plain bicubic enlargement on the same pictures, and write what people and tools read.

evaluate.json holds the means of each data set, per_image.csv the figures of each picture, and the pictures folder the
comparison of input, output and bicubic. Pictures pass one at a time, so memory does not grow with their number.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
from tabulate import tabulate

from loupe.evaluation.pairs import Pair
from loupe.evaluation.pictures import comparison
from loupe.imaging.files import atomic_file, atomic_folder
from loupe.imaging.metrics import Scores, score
from loupe.imaging.resize import Pixels, upscale

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
    if outputs is None:
        _score_all(pairs, enlarge, scale, report, None)
    else:
        with atomic_folder(outputs.pictures) as folder:
            _score_all(pairs, enlarge, scale, report, folder)
    protocol = {"scale": scale, "shave": scale, "luma": "BT.601, 16-235", "rounding": "uint8 before scoring"}
    report.summary = {"model": model, "protocol": protocol, "sets": _means(report.rows)}
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
        rows.append(
            (
                name,
                scores["n"],
                f"{scores['psnr_y']:.2f}",
                f"{scores['ssim_y']:.4f}",
                f"{bicubic['psnr_y']:.2f}",
                f"{bicubic['ssim_y']:.4f}",
                f"{scores['gain_db']:+.2f}",
            )
        )
    label = summary["model"]["label"]
    headers = ("set", "images", f"PSNR-Y dB\n{label}", "SSIM-Y\n", "PSNR-Y dB\nbicubic", "SSIM-Y\n", "gain dB\n")
    return str(tabulate(rows, headers=headers, disable_numparse=True, colalign=("left", *["right"] * 6)))


def _score_all(
    pairs: Iterable[Pair], enlarge: Callable[[Pixels], Pixels], scale: int, report: Report, folder: Path | None
) -> None:
    for pair in pairs:
        try:
            sr = enlarge(pair.lr) if pair.sr is None else pair.sr
            bicubic = upscale(pair.lr, scale)
            ours, plain = score(pair.hr, sr, scale), score(pair.hr, bicubic, scale)
        except ValueError as error:
            report.failures.append(f"{pair.set}/{pair.name}: {error}")
            continue
        row: dict[str, Any] = {"set": pair.set, "image": pair.name, **asdict(ours)}
        row |= {f"bicubic_{key}": value for key, value in asdict(plain).items()}
        row["gain_db"] = ours.psnr_y - plain.psnr_y if ours != plain else 0.0
        report.rows.append(row)
        if folder is not None:
            _write_picture(folder / pair.set / pair.name, pair, sr, bicubic, scale, ours, plain)


def _write_picture(
    path: Path, pair: Pair, sr: Pixels, bicubic: Pixels, scale: int, ours: Scores, plain: Scores
) -> None:
    height, width = pair.lr.shape[:2]

    def caption(title: str, scores: Scores) -> str:
        return f"{title}\n{scores.psnr_y:.2f} dB PSNR-Y\n{scores.ssim_y:.4f} SSIM-Y"

    captions = (f"Input\n{width} x {height} pixels", caption("Network", ours), caption("Bicubic", plain))
    with atomic_file(path if path.suffix == ".png" else path.with_name(path.name + ".png")) as stream:
        comparison(pair.lr, sr, bicubic, scale, captions).save(stream, format="PNG")


def _means(rows: list[dict[str, Any]]) -> dict[str, Any]:
    sets: dict[str, Any] = {}
    for name in dict.fromkeys(row["set"] for row in rows):
        table = pd.DataFrame([row for row in rows if row["set"] == name])
        mean = {key: float(value) for key, value in table.drop(columns=["set", "image"]).mean().items()}
        sets[name] = {
            "n": len(table),
            **{key: mean[key] for key in METRICS},
            "bicubic": {key: mean[f"bicubic_{key}"] for key in METRICS},
            "gain_db": mean["gain_db"],
        }
    return sets
