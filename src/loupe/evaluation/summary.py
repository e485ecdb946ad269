"""The means of each data set from the scores of its pictures: what evaluate.json holds under `sets`."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from loupe.evaluation.intervals import interval
from loupe.evaluation.slices import KINDS

METRICS = ("psnr_y", "ssim_y", "psnr_rgb")


def means(rows: pd.DataFrame, by_kind: npt.NDArray[np.float64], keys: Sequence[str]) -> dict[str, Any]:
    """Means and 95 % intervals of every set, and PSNR by kind of pixel, of a model and of the methods beside it.

    Args:
        rows: as in per_image.csv, see `score_picture`; at least one.
        by_kind: of each picture, `errors_by_kind` of the model and then of each method: float64
            [pictures, 2 + methods, KINDS].
        keys: of the methods, `bicubic` among them.

    Returns:
        Figures by set, in the order in which sets first come; gains are the model's over that method.
    """
    sets: dict[str, Any] = {}
    for name in dict.fromkeys(rows["set"]):
        members = (rows["set"] == name).to_numpy()
        table = rows[members]
        ours, *theirs = _slices(by_kind[members].sum(axis=0))
        others = {key: _figures(table, f"{key}_") | {"slices": found} for key, found in zip(keys, theirs, strict=True)}
        sets[name] = {
            "n": len(table),
            **{metric: _mean(table[metric]) for metric in METRICS},
            "bicubic": {metric: others["bicubic"][metric] for metric in METRICS},
            "gain_db": others["bicubic"]["gain_db"],
            "consistency_db": _mean(table["consistency_db"]),
            "interval_95": {column: _interval(table[column]) for column in METRICS}
            | {"gain_db": others["bicubic"]["interval_95"]["gain_db"]},
            "slices": {
                kind: {"share": share} | _with_gain(ours.get(kind), others["bicubic"]["slices"].get(kind))
                for kind, share in _shares(by_kind[members, 0].sum(axis=0)).items()
            },
            "others": others,
        }
    return sets


def decibels(pixels: float, error: float) -> float:
    """PSNR of so many pixels with this sum of squared errors; NaN for none."""
    if pixels == 0:
        return math.nan
    return math.inf if error == 0 else 10 * math.log10(255**2 * pixels / error)


def gain(ours: float, theirs: float) -> float:
    """By how many decibels ours is higher; 0 where both are infinite."""
    return 0.0 if ours == theirs else ours - theirs


def _figures(table: pd.DataFrame, prefix: str) -> dict[str, Any]:
    found: dict[str, Any] = {metric: _mean(table[f"{prefix}{metric}"]) for metric in (*METRICS, "gain_db")}
    return found | {"interval_95": {"gain_db": _interval(table[f"{prefix}gain_db"])}}


def _mean(column: pd.Series) -> float:
    return float(column.mean())


def _interval(column: pd.Series) -> list[float] | None:
    ends = interval(column.tolist())
    return None if ends is None else list(ends)  # as JSON has it


def _shares(pixels: npt.NDArray[np.float64]) -> dict[str, float]:
    return dict(zip(KINDS, (pixels / pixels.sum()).tolist(), strict=True))


def _slices(by_kind: npt.NDArray[np.float64]) -> list[dict[str, float]]:
    """PSNR by kind of each method over all pixels of that kind in a set: a picture with few of them counts little."""
    pixels, *errors = by_kind.tolist()
    return [
        {kind: decibels(count, error) for kind, count, error in zip(KINDS, pixels, sums, strict=True) if count}
        for sums in errors
    ]


def _with_gain(ours: float | None, bicubic: float | None) -> dict[str, float]:
    if ours is None or bicubic is None:
        return {}
    return {"psnr_y": ours, "bicubic_psnr_y": bicubic, "gain_db": gain(ours, bicubic)}
