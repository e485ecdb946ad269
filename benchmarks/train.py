"""A training step beside the plain PyTorch one, of the same network and weights; and a race to a PSNR, in one run.

    loupe bench train [--steps 12] [--rounds 3] [--hr FOLDER --marks 36.5 37.0 --seeds 0 1 2] [--json]

Every side runs in a process of its own, in turn, round by round (benchmarks/_step.py says what each does). The race
trains both sides by the profile `sample` on index/ (`dvc repro patch-index`) until the averaged network passes each
mark on the pictures of FOLDER, such as Set5's; without --hr it is left out. `ratios`: above 1, ours is faster.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import torch
from tabulate import tabulate

from benchmarks._build import SCALE
from benchmarks._report import parser, publish, say
from benchmarks.data import small_index
from loupe.errors import InputError
from loupe.models.inference import choose_device
from loupe.params import load_params
from loupe.stages.running import stage
from loupe.training.run import part_size

Sides = dict[str, tuple[str, dict[str, str]]]  # name: the side of _step.py, and its environment
SIDES: Sides = {side: (side, {}) for side in ("plain", "plain tuned", "ours")}
ON_GPU: Sides = {
    **SIDES,
    "ours, not compiled": ("ours", {"LOUPE_COMPILE": "off"}),
    "ours, no CUDA graph of the gradients": ("ours", {"LOUPE_COMPILE": "default"}),
}
ON_AMX: Sides = {**SIDES, "ours, bfloat16": ("ours", {"LOUPE_PRECISION": "bf16-mixed"})}
NETWORKS = {"D4 C3 G32": (4, 3, 32, 32), "D10 C3 G64": (10, 3, 64, 64)}
WARM = 3  # steps before times count
COMPARED = 10  # losses that must agree
APART = {"cpu": 1e-4, "cuda": 1e-2}  # by so much at most; bfloat16 has eight bits


def ask(side: str, request: dict[str, Any], environment: dict[str, str] | None = None) -> dict[str, Any]:
    """The answer of benchmarks/_step.py, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks._step", side, json.dumps(request)]
    told = os.environ | (environment or {})
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE, env=told).stdout)
    return answer


def measure_steps(name: str, index: Path, chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each side: medians over the rounds."""
    D, C, G, G0 = NETWORKS[name]
    config = {"name": "rdn", "D": D, "C": C, "G": G, "G0": G0, "scale": SCALE, "residual": "bicubic"}
    recipe = constant_recipe(chosen.batch)
    request = {"config": config, "recipe": recipe, "index": str(index), "steps": WARM + chosen.steps}
    device = choose_device()
    amx = torch.cpu.get_capabilities().get("amx_bf16", False)
    sides = ON_GPU if device.type == "cuda" else ON_AMX if amx else SIDES
    answers: dict[str, list[dict[str, Any]]] = {side: [] for side in sides}
    for number in range(chosen.rounds):
        for name_of_side, (side, environment) in sides.items():
            answers[name_of_side].append(ask(side, request, environment))
        shown = ", ".join(f"{side} {step_ms(found[-1:]):.4g} ms" for side, found in answers.items())
        say(f"{name}, round {number + 1} of {chosen.rounds}: {shown}")
    part = part_size(chosen.batch, chosen.patch, device)
    top = ask("ceiling", {"config": config, "part": part, "patch": chosen.patch, "batch": chosen.batch})
    losses = {side: found[0]["losses"][:COMPARED] for side, found in answers.items()}
    apart = max(abs(a - b) for a, b in zip(losses["ours"], losses["plain"], strict=True))
    if apart > APART[device.type]:
        raise InputError(f"{name}: the losses of both sides are {apart:.1e} apart: they do not train alike")
    return [
        {
            "name": f"{name}, {side}",
            "step_ms": step_ms(found),
            "patches_per_s": 1000 * chosen.batch / step_ms(found),
            "share_of_ceiling": top["gflop"] / step_ms(found) * 1000 / top["gflop_per_s"],
            "peak_mb": statistics.median(answer["peak_mb"] for answer in found),
            "feed_ms": statistics.median(value for answer in found for value in answer["feed_ms"][WARM:]),
            "ceiling_gflop_per_s": top["gflop_per_s"],
            "gflop": top["gflop"],
            "losses_apart": apart,
        }
        for side, found in answers.items()
    ]


def constant_recipe(batch: int) -> dict[str, Any]:
    """The profile's recipe with a constant rate, as the plain loop has it."""
    recipe = dataclasses.asdict(load_params(Path("profiles/sample.yaml")).train)
    return {**recipe, "batch": batch, "lr": 1e-4, "warmup": 0.0, "schedule": "halving", "product_share": 0.0}


def step_ms(answers: list[dict[str, Any]]) -> float:
    """Median over all steps after the warm ones."""
    return float(statistics.median(value for answer in answers for value in answer["ms"][WARM:]))


def measure_race(chosen: argparse.Namespace) -> list[dict[str, Any]]:
    """A row for each seed and mark: seconds of both sides."""
    params = load_params(Path("profiles/sample.yaml"))
    patches = params.patches
    request = {
        "config": {**dataclasses.asdict(params.model), "scale": params.scale},
        "index": "index",
        "hr": str(chosen.hr),
        "marks": chosen.marks,
        "strategy": {
            "name": patches.strategy,
            "images": patches.images,
            "per_image": patches.per_image,
            "difficulty": patches.difficulty,
            "channel_shuffle": patches.channel_shuffle,
        },
    }
    rows = []
    for seed in chosen.seeds:
        recipe = {**dataclasses.asdict(params.train), "seed": seed, "steps": chosen.race_steps}
        found = {side: ask(side, {**request, "recipe": recipe}) for side in ("plain", "ours")}
        for mark in map(str, chosen.marks):
            seconds = {side: answer["seconds"][mark] for side, answer in found.items()}
            row = {"name": f"{mark} dB, seed {seed}", "mark": float(mark), **seconds}
            row["steps"] = found["ours"]["steps"].get(mark)
            rows.append(row)
            say(f"{row['name']}: {seconds} (last: {found['ours']['last']:.2f} dB)")
    return rows


def ratios(rows: list[dict[str, Any]], races: list[dict[str, Any]]) -> dict[str, float]:
    """Ours over each baseline: the network where we gain least; the median of the races that both finished."""

    def over(side: str) -> float:
        times: dict[str, float] = {row["name"]: row["step_ms"] for row in rows}
        return min(times[f"{name}, {side}"] / times[f"{name}, ours"] for name in NETWORKS if f"{name}, ours" in times)

    found = {"step_vs_plain": over("plain"), "step_vs_plain_tuned": over("plain tuned")}
    finished = [row["plain"] / row["ours"] for row in races if row["plain"] and row["ours"]]
    if finished:
        found["time_to_psnr_vs_plain"] = statistics.median(finished)
    return found


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__, "train")
    arguments.add_argument("--steps", type=int, default=12, help="timed steps of each side and round (default 12)")
    arguments.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    arguments.add_argument("--networks", nargs="+", choices=NETWORKS, default=list(NETWORKS), help="(default both)")
    arguments.add_argument("--batch", type=int, default=16, help="patches in a batch (default 16)")
    arguments.add_argument("--patch", type=int, default=48, help="low-resolution side of a patch (default 48)")
    arguments.add_argument("--hr", type=Path, help="pictures to race on; without it there is no race")
    arguments.add_argument("--marks", type=float, nargs="+", default=[36.5, 37.0], help="PSNR-Y in decibels")
    arguments.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of the races (default 0 1 2)")
    arguments.add_argument("--race-steps", type=int, default=6000, help="length of a race's recipe (default 6000)")
    chosen = arguments.parse_args()
    if chosen.steps < COMPARED - WARM:
        arguments.error(f"--steps: at least {COMPARED - WARM}, for {COMPARED} losses are compared")
    return chosen


@stage
def main() -> None:
    """Time every side, race, report."""
    chosen = options()
    with tempfile.TemporaryDirectory() as name:
        index = small_index(Path(name), 1020, 678, chosen.patch)
        rows = [row for network in chosen.networks for row in measure_steps(network, index, chosen)]
    races = measure_race(chosen) if chosen.hr else []
    report = {"batch": chosen.batch, "patch": chosen.patch, "rows": rows, "races": races, "ratios": ratios(rows, races)}
    columns = ("name", "step_ms", "patches_per_s", "share_of_ceiling", "peak_mb", "feed_ms")
    tables = [
        tabulate(
            [[row[column] for column in columns] for row in rows],
            ["a step", "ms", "patches/s", "of ceiling", "peak MB", "feeding ms"],
            floatfmt=("", ".4g", ".1f", ".2f", ".0f", ".2g"),
        ),
        tabulate(report["ratios"].items(), ["ours is faster by", "times"], floatfmt=".2f"),
    ]
    if races:
        cells = [[row["name"], row["plain"], row["ours"], row["steps"]] for row in races]
        tables.insert(1, tabulate(cells, ["seconds to", "plain", "ours", "steps"], floatfmt=".0f"))
    publish(chosen, report, *tables)


if __name__ == "__main__":
    main()
