"""What the benchmarks share: their options, facts of the machine, and a report as JSON or as tables.

`loupe bench` runs the files of this folder whose name has no leading underscore.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import PIL
import torch

RESULTS = Path(__file__).parent / "results"
# Before anything is measured: above 0.5 or so, others are at work, and the figures are theirs too.
LOAD = os.getloadavg()[0]


def parser(description: str | None, name: str) -> argparse.ArgumentParser:
    """A parser with the options of every benchmark; the first line of `description` is its help."""
    options = argparse.ArgumentParser(prog=f"loupe bench {name}", description=(description or "").split("\n\n")[0])
    options.add_argument("--json", action="store_true", help="print JSON only")
    where = f"benchmarks/results/{name}.json"
    options.add_argument("--out", type=Path, default=RESULTS / f"{name}.json", help=f"file to write (default {where})")
    return options


def say(line: str) -> None:
    """One line of progress, on stderr: stdout belongs to the result."""
    print(line, file=sys.stderr, flush=True)


def milliseconds(work: Callable[[], object], times: int) -> float:
    """Median time of so many calls, after one to warm up."""
    work()
    found = []
    for _ in range(times):
        start = time.perf_counter()
        work()
        found.append(1000 * (time.perf_counter() - start))
    return statistics.median(found)


def publish(arguments: argparse.Namespace, report: Mapping[str, object], *tables: str) -> None:
    """Write `report`, with facts of the machine, to `arguments.out`; print it, or the tables that say the same."""
    machine = {
        "processor": platform.machine(),
        "cores": len(os.sched_getaffinity(0)),
        "load_before": LOAD,
        "torch": torch.__version__,
        "pillow": PIL.__version__,
    }
    text = json.dumps({"machine": machine, **report}, indent=2)
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    arguments.out.write_text(text + "\n")
    print(text if arguments.json else "\n\n".join(tables))
