"""Enlarging a product picture by each runtime beside plain PyTorch, a folder of them, and a cold start, in one run.

    loupe bench upscale [--model bundle] [--side 500] [--rounds 5] [--pictures 200] [--json]

Every side runs the same weights in a process of its own, in turn, round by round. `ratios`: above 1, ours is faster.
`folder_vs_runtime`: the rate of `loupe upscale` on a folder of JPEG files, its start included, over that of the runtime
alone on the same pixels. `cold_start_s`: what `loupe upscale` takes for one picture beyond the network's own time.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tabulate import tabulate

from benchmarks._report import parser, publish, say
from benchmarks.data import photograph
from loupe.errors import InputError
from loupe.stages.running import stage
from loupe.upscaling.runtimes import FAST

FLOAT = ("openvino", "onnxruntime", "torch")
EIGHT = ("openvino int8", "onnxruntime int8")
EAGER = ("eager", "eager tuned")
DEFAULT = "openvino"  # what `loupe upscale` takes on a CPU
APART = 1  # grey levels by which float32 sides may differ
TIMES = 3  # runs in a round


def ask(side: str, model: Path, picture: Path, out: Path) -> dict[str, Any]:
    """The answer of benchmarks/_upscale.py, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks._upscale", side, str(model), str(picture), str(TIMES), str(out)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def seconds(inputs: Path, out: Path, model: Path) -> float:
    """How long `loupe upscale` takes, from its start to its end."""
    command = [sys.executable, "-m", "loupe.cli", "upscale", str(inputs), "-o", str(out), "--model", str(model)]
    start = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - start


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__, "upscale")
    arguments.add_argument("--model", type=Path, default=Path("bundle"), help="bundle (default bundle/)")
    arguments.add_argument("--side", type=int, default=500, help="of the square picture, pixels (default 500)")
    arguments.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    arguments.add_argument("--pictures", type=int, default=200, help="in the folder (default 200)")
    return arguments.parse_args()


@stage
def main() -> None:
    """Measure all sides, a folder and a cold start; print the tables."""
    chosen = options()
    if not (chosen.model / "model.onnx").exists():
        raise InputError(f"{chosen.model}: no bundle; `dvc repro` makes one")
    names = (*EAGER, *FLOAT, *(EIGHT if (chosen.model / FAST).exists() else ()))
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        picture = folder / "picture.png"
        Image.fromarray(photograph(0, chosen.side, chosen.side)).save(picture)
        for number in range(chosen.rounds):
            for name in names:
                answers[name].append(ask(name, chosen.model, picture, folder / f"{name}.npy"))
            shown = ", ".join(f"{name} {median(found[-1:]):.0f} ms" for name, found in answers.items())
            say(f"round {number + 1} of {chosen.rounds}: {shown}")
        made = {name: np.load(folder / f"{name}.npy").astype(np.int16) for name in names}
        for name in FLOAT:
            if np.abs(made[name] - made["eager"]).max() > APART:
                raise InputError(f"{name}: not the picture that eager PyTorch makes")
        cold = [seconds(picture, folder / f"cold-{n}.png", chosen.model) for n in range(chosen.rounds)]
        (folder / "in").mkdir()
        for number in range(chosen.pictures):
            name = folder / "in" / f"{number}.jpg"
            Image.fromarray(photograph(number % 8, chosen.side, chosen.side)).save(name, quality=90)
        say(f"a folder of {chosen.pictures}")
        whole = seconds(folder / "in", folder / "out", chosen.model)
    ms = {name: median(found) for name, found in answers.items()}
    rows = [
        {
            "name": name,
            "ms": ms[name],
            "megapixels_per_s": chosen.side**2 / 1000 / ms[name],
            "peak_mb": statistics.median(answer["peak_mb"] for answer in answers[name]),
        }
        for name in names
    ]
    best = {"fp32": min(ms[name] for name in FLOAT), "int8": min((ms[name] for name in EIGHT if name in ms), default=0)}
    ratios = {
        f"{kind}_vs_{eager.replace(' ', '_')}": ms[eager] / mine
        for kind, mine in best.items()
        if mine
        for eager in EAGER
    }
    ratios["folder_vs_runtime"] = chosen.pictures * ms[DEFAULT] / 1000 / whole
    start = {"cold_start_s": statistics.median(cold) - ms[DEFAULT] / 1000}
    cells = [[row[key] for key in ("name", "ms", "megapixels_per_s", "peak_mb")] for row in rows]
    publish(
        chosen,
        {"side": chosen.side, "pictures": chosen.pictures, "rows": rows, "ratios": ratios, **start},
        tabulate(cells, [f"{chosen.side} x {chosen.side}", "ms", "megapixels/s", "peak MB"], floatfmt=".1f"),
        tabulate([*ratios.items(), *start.items()], ["ours is faster by", ""], floatfmt=".2f"),
    )


def median(answers: list[dict[str, Any]]) -> float:
    """Of the times of all runs, milliseconds."""
    return float(statistics.median(ms for answer in answers for ms in answer["ms"]))


if __name__ == "__main__":
    main()
