"""The field's benchmarks, on which networks are compared across papers: Set5, Set14 and the like.

benchmarks/Set5/HR/             ground truth
                LR_bicubic/X2/  official inputs; made from the ground truth where there are none
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from loupe.errors import InputError
from loupe.evaluation.methods import Method
from loupe.evaluation.pairs import read_pairs, unseen
from loupe.evaluation.run import evaluate
from loupe.patches.index import PatchIndex


def score_benchmarks(folder: Path, model: Method, index: PatchIndex) -> dict[str, Any]:
    """Score a network on each benchmark in a folder.

    Args:
        folder: has a folder for each benchmark, with HR/ in it.
        model: what is scored.
        index: what the network was trained on.

    Returns:
        By the benchmark's name what `sets` of evaluate.json has.

    Raises:
        InputError: there are none, a picture cannot be scored, or is nearly one that was trained on.
    """
    found = sorted((path.parent for path in folder.glob("*/HR") if path.is_dir()), key=_by_number)
    if not found:
        raise InputError(f"{folder}: no benchmarks here; evaluation.benchmarks needs a folder with Set5/HR or others")
    sets: dict[str, Any] = {}
    for benchmark in found:
        inputs = benchmark / "LR_bicubic" / f"X{model.scale}"
        failures: list[str] = []
        lr = inputs if inputs.is_dir() else None
        pairs = read_pairs(benchmark / "HR", lr, None, model.scale, failures.append)
        report = evaluate(unseen(pairs, index), model)
        if failures or report.failures:
            raise InputError("; ".join([*failures, *report.failures]))
        sets |= report.summary["sets"]
    return sets


def _by_number(folder: Path) -> list[str | int]:
    """To sort by: Set5 comes before Set14."""
    return [int(part) if part.isdecimal() else part for part in re.split(r"([0-9]+)", folder.name)]
