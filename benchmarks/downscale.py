"""Halving a photograph: exact MATLAB bicubic in NumPy and in PyTorch, beside Pillow's bicubic, in one run.

    loupe bench downscale [--rounds 7] [--json]

`ratios`: above 1, the first named is faster.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from tabulate import tabulate

from benchmarks._report import parser, publish
from loupe.imaging.resize import Pixels, imresize, imresize_tensor

HEIGHT, WIDTH = 1356, 2040  # a DIV2K photograph


def photograph() -> Pixels:
    """A picture of DIV2K's size with photographic contrast: smoothed noise, the same in every run."""
    rng = np.random.default_rng(0)
    small = rng.integers(0, 256, (HEIGHT // 4, WIDTH // 4, 3), np.uint8)
    return np.asarray(Image.fromarray(small).resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS))


def main() -> None:
    """Time all three in turn, so that a busy moment of the machine hits all alike."""
    options = parser(__doc__, "downscale")
    options.add_argument("--rounds", type=int, default=7, help="rounds; the median is reported (default 7)")
    chosen = options.parse_args()
    image = photograph()
    batch = torch.tensor(image).permute(2, 0, 1)[None].contiguous()
    picture = Image.fromarray(image)
    contenders: dict[str, Callable[[], Pixels]] = {
        "loupe, NumPy": lambda: imresize(image, 1 / 2),
        "loupe, PyTorch": lambda: imresize_tensor(batch, 1 / 2)[0].permute(1, 2, 0).numpy(),
        "Pillow bicubic": lambda: np.asarray(picture.resize((WIDTH // 2, HEIGHT // 2), Image.Resampling.BICUBIC)),
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(chosen.rounds):
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
        "image": [HEIGHT, WIDTH, 3],
        "rounds": chosen.rounds,
        "rows": rows,
        "ratios": {"numpy_vs_pillow": pillow_ms / numpy_ms, "torch_vs_pillow": pillow_ms / torch_ms},
    }
    table = [list(row.values()) for row in rows]
    publish(chosen, report, tabulate(table, ["halving 2040 x 1356", "ms", "samples that differ"]))


if __name__ == "__main__":
    main()
