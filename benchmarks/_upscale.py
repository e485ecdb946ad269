"""One side of `loupe bench upscale` in a process of its own, whose peak memory is then that side's.

    python -m benchmarks._upscale SIDE BUNDLE PICTURE TIMES OUT  # prints {"first_ms": ..., "ms": [...], "peak_mb": ..}

SIDE: `eager`, PyTorch as public implementations call it, on the whole picture; `eager tuned`, with an allocator
that keeps freed memory; or a runtime of loupe's, such as `openvino` and `openvino int8`. OUT receives the result.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from benchmarks._build import peak_mb
from loupe.imaging.files import read_image
from loupe.imaging.resize import Pixels
from loupe.upscaling.runtimes import RUNTIMES, load_enlarger

WARM = 2  # runs before times count


def enlarger(side: str, bundle: Path) -> Callable[[Pixels], Pixels]:
    """uint8 [1, H, W, 3] -> uint8 [1, H * scale, W * scale, 3]."""
    if not side.startswith("eager"):
        (runtime,) = (name for name in RUNTIMES if name == side.split()[0])
        return load_enlarger(bundle, runtime, fast=side.endswith("int8"))
    import torch

    from loupe.models.weights import load_network
    from loupe.training.memory import keep_freed_memory

    if side == "eager tuned":
        keep_freed_memory()
    network = load_network(bundle)

    def enlarge(batch: Pixels) -> Pixels:
        with torch.inference_mode():
            x = torch.from_numpy(batch).permute(0, 3, 1, 2).contiguous().float() / 255
            output = (network(x) * 255).round().clamp(0, 255).byte()
            return np.ascontiguousarray(output.permute(0, 2, 3, 1).numpy())

    return enlarge


def main() -> None:
    """Do what the command line says."""
    side, bundle, picture, times, out = sys.argv[1:]
    batch = read_image(Path(picture)).rgb[None].copy()  # PyTorch warns of arrays that it may not write to
    enlarge = enlarger(side, Path(bundle))
    found = []
    for _ in range(WARM + int(times)):
        start = time.perf_counter()
        made = enlarge(batch)
        found.append(1000 * (time.perf_counter() - start))
    np.save(out, made)
    print(json.dumps({"first_ms": found[0], "ms": found[WARM:], "peak_mb": peak_mb()}))


if __name__ == "__main__":
    main()
