"""Enlarging a product picture by each runtime beside plain PyTorch, a folder of them, and a cold start, in one run.

    loupe bench upscale [--model bundle] [--side 500] [--rounds 5] [--pictures 200] [--large 100] [--json]

Every side runs the same weights in a process of its own, in turn, round by round. `ratios`: above 1, ours is faster.
`folder_vs_runtime`: the rate of `loupe upscale` on a folder of JPEG files, its start included, over that of the runtime
alone on the same pixels. `cold_start_s`: what `loupe upscale` takes for one JPEG beyond the network's own time, which
in a fresh process is that of its first run. `large_memory`: peak memory for a picture of `--large` megapixels over that
for one of SMALL, at most 1.2 wanted.
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

from benchmarks._build import peak_mb
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
SMALL = 4  # megapixels that a large picture's memory is compared with


def ask(side: str, model: Path, picture: Path, out: Path) -> dict[str, Any]:
    """The answer of benchmarks/_upscale.py, in a fresh process."""
    command = [sys.executable, "-m", "benchmarks._upscale", side, str(model), str(picture), str(TIMES), str(out)]
    answer: dict[str, Any] = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    return answer


def upscaled(inputs: Path, out: Path, model: Path) -> tuple[float, float]:
    """How long `loupe upscale` takes, from its start to its end, seconds, and its peak memory, MB."""
    command = [sys.executable, "-m", "loupe.cli", "upscale", str(inputs), "-o", str(out), "--model", str(model)]
    start = time.perf_counter()
    peak = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peak = max(peak, peak_mb(process.pid))  # never falls: the last one before the end is all but the highest
            time.sleep(0.02)
        spent = time.perf_counter() - start
    if process.returncode:
        raise InputError(f"{' '.join(command)}: ended with {process.returncode}")
    return spent, peak


def memory(megapixels: int, folder: Path, model: Path) -> float:
    """Peak memory of `loupe upscale` for one JPEG of so many megapixels, MB."""
    side = int((1e6 * megapixels) ** 0.5)
    picture = folder / f"large-{megapixels}.jpg"
    Image.fromarray(photograph(0, side, side)).save(picture, quality=90)
    say(f"a picture of {megapixels} megapixels")
    return upscaled(picture, folder / f"large-{megapixels}-x2.jpg", model)[1]


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__, "upscale")
    arguments.add_argument("--model", type=Path, default=Path("bundle"), help="bundle (default bundle/)")
    arguments.add_argument("--side", type=int, default=500, help="of the square picture, pixels (default 500)")
    arguments.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    arguments.add_argument("--pictures", type=int, default=200, help="in the folder (default 200)")
    arguments.add_argument(
        "--large", type=int, default=100, help=f"megapixels of a picture whose memory is compared with that of {SMALL}"
    )
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
        (folder / "in").mkdir()
        for number in range(chosen.pictures):
            name = folder / "in" / f"{number}.jpg"
            Image.fromarray(photograph(number % 8, chosen.side, chosen.side)).save(name, quality=90)
        one = folder / "in" / "0.jpg"
        cold = [upscaled(one, folder / f"cold-{n}.jpg", chosen.model)[0] for n in range(chosen.rounds)]
        say(f"a folder of {chosen.pictures}")
        whole = upscaled(folder / "in", folder / "out", chosen.model)[0]
        used = [memory(megapixels, folder, chosen.model) for megapixels in (SMALL, chosen.large)]
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
    first = statistics.median(answer["first_ms"] for answer in answers[DEFAULT]) / 1000
    limits = {"cold_start_s": statistics.median(cold) - first, "large_memory": used[1] / used[0]}
    cells = [[row[key] for key in ("name", "ms", "megapixels_per_s", "peak_mb")] for row in rows]
    publish(
        chosen,
        {"side": chosen.side, "pictures": chosen.pictures, "rows": rows, "ratios": ratios, **limits},
        tabulate(cells, [f"{chosen.side} x {chosen.side}", "ms", "megapixels/s", "peak MB"], floatfmt=".1f"),
        tabulate(ratios.items(), ["ours is faster by", ""], floatfmt=".2f"),
        tabulate(limits.items(), ["at most 0.8 and 1.2", ""], floatfmt=".2f"),
    )


def median(answers: list[dict[str, Any]]) -> float:
    """Of the times of all runs, milliseconds."""
    return float(statistics.median(ms for answer in answers for ms in answer["ms"]))


if __name__ == "__main__":
    main()
