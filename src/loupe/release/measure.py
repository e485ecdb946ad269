"""How long a model takes on this machine, and how much memory: figures that no other machine need repeat.

    python -m loupe.release.measure model.onnx

Each model runs in a process of its own, from small to large inputs: the most memory that the process ever held is then
that of the input that it has just enlarged.
"""

from __future__ import annotations

import json
import os
import platform
import re
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from loupe.errors import InputError

SIDES = (128, 256, 512)  # of a square input, pixels
TIMES, SECONDS = 7, 5.0  # runs of one size, fewer if they take longer
INSTRUCTIONS = ("avx2", "avx512f", "avx_vnni", "avx512_vnni", "amx_int8")  # what speed on x86 hangs on


def measure(models: list[Path]) -> dict[str, Any]:
    """Facts of the machine (no names), and of each model figures by size of its input.

    Raises:
        InputError: a model cannot be run, for want of memory, say.
    """
    found = {}
    for path in models:
        command = [sys.executable, "-m", "loupe.release.measure", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            reason = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
            raise InputError(f"{path.name}: cannot be measured ({reason}); try again with more memory free")
        found[path.name] = json.loads(done.stdout)
    return {"machine": machine(), "models": found}


def machine() -> dict[str, Any]:
    """The machine in words: kind of processor, cores to be used, instructions that matter, ONNX Runtime's version."""
    from onnxruntime import __version__

    cpuinfo = Path("/proc/cpuinfo")
    flags = set(cpuinfo.read_text().split()) if cpuinfo.exists() else set()
    return {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "instructions": [name for name in INSTRUCTIONS if name in flags],
        "onnxruntime": __version__,
    }


def _peak_mib() -> int | None:
    """The most memory that this process ever held; None where the system does not say.

    `getrusage` would give the parent's figure where that is larger: it survives the start of another program.
    """
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return round(int(found[1]) / 1024) if found else None


def main() -> None:
    """Run the model that the command line names; print its figures as JSON."""
    import numpy as np
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = len(os.sched_getaffinity(0))
    session = onnxruntime.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"])
    rows = []
    for side in SIDES:
        pixels = np.random.default_rng(0).integers(0, 256, (1, side, side, 3), np.uint8)
        session.run(None, {"pixels": pixels})  # the first run of a size plans its memory
        times: list[float] = []
        while len(times) < TIMES and sum(times) < SECONDS:
            start = time.perf_counter()
            session.run(None, {"pixels": pixels})
            times.append(time.perf_counter() - start)
        rows.append({"input": [side, side], "seconds": round(statistics.median(times), 4), "peak_mib": _peak_mib()})
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
