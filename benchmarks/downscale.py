"""Halving a photograph: exact MATLAB bicubic in NumPy and in PyTorch, beside Pillow's bicubic, in one run.

    python benchmarks/downscale.py [--rounds 7]

Prints a table, and writes benchmarks/results/downscale.json. `ratios`: above 1, the first named is faster.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from loupe.imaging.resize import Pixels, imresize, imresize_tensor

RESULTS = Path(__file__).parent / "results"
HEIGHT, WIDTH = 1356, 2040  # a DIV2K photograph


def photograph() -> Pixels:
    """A picture of DIV2K's size with photographic contrast: smoothed noise, the same in every run."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def main() -> None:
    """Time all three in turn, so that a busy moment of the machine hits all alike."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7, help="rounds; the median is reported (default 7)")
    rounds = parser.parse_args().rounds
    image = photograph()
    batch = torch.tensor(image).permute(2, 0, 1)[None].contiguous()
    picture = Image.fromarray(image)
    contenders: dict[str, Callable[[], Pixels]] = {
        "loupe, NumPy": lambda: imresize(image, 1 / 2),
        "loupe, PyTorch": lambda: imresize_tensor(batch, 1 / 2)[0].permute(1, 2, 0).numpy(),
        "Pillow bicubic": lambda: np.asarray(picture.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BICUBIC)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds):
        for name, halve in contenders.items():
            start = time.perf_counter()
            halve()
            seconds[name].append(time.perf_counter() - start)
    exact = imresize(image, 1 / 2)
    rows = [
        {
            "name": name,
            "ms": 1000 * statistics.median(seconds[name]),
            "differing_samples": float((halve() != exact).mean()),
        }
        for name, halve in contenders.items()
    ]
    numpy_ms, torch_ms, pillow_ms = (float(str(row["ms"])) for row in rows)
    report = {
        "machine": {"processor": platform.machine(), "cores": len(os.sched_getaffinity(0)), "torch": torch.__version__},
        "image": [HEIGHT, WIDTH, 3],
        "rounds": rounds,
        "rows": rows,
        "ratios": {"numpy_vs_pillow": pillow_ms / numpy_ms, "torch_vs_pillow": pillow_ms / torch_ms},
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / "downscale.json").write_text(json.dumps(report, indent=2) + "\n")
    print(tabulate([list(row.values()) for row in rows], ["halving 2040 x 1356", "ms", "samples that differ"]))


if __name__ == "__main__":
    main()
