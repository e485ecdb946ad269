"""Does a run that is killed again and again end in the same bytes? Not a measurement of speed, but a tally.

    loupe bench kills [--kills 20] [--steps 600] [--json]

Trains a small network once in peace, and once in a process that SIGKILL ends at random moments, each time started
again; compares weights and curves byte for byte. Exits with 1 if they differ.
"""

from __future__ import annotations

import dataclasses
import os
import random
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks._report import parser, publish, say
from benchmarks.data import small_index
from loupe.models.weights import save_network
from loupe.params import load_params
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage
from loupe.training.run import Recipe, prepare, train

CONFIG = {"name": "rdn", "D": 2, "C": 2, "G": 16, "G0": 16, "scale": 2, "residual": "bicubic"}


def child(folder: Path, index: Path, steps: int) -> None:
    """The process that is killed: train to the end, or go on."""
    recipe = dataclasses.asdict(load_params(Path("profiles/sample.yaml")).train)
    recipe = {**recipe, "steps": steps, "validate_every": max(1, steps // 4)}
    curves, runs = folder / "curves.csv", folder / "runs"
    network = train(prepare(), CONFIG, PatchIndex(index), Recipe(**recipe), curves=curves, runs=runs)
    save_network(folder / "model", network, CONFIG)


def start(folder: Path, index: Path, steps: int) -> subprocess.Popen[str]:
    """Start `child` in a process of its own, with checkpoints in quick succession."""
    command = [sys.executable, "-m", "benchmarks.kills", "--child", str(folder), str(index), "--steps", str(steps)]
    environment = os.environ | {"LOUPE_CHECKPOINT_SECONDS": "0.2"}
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def outcome(folder: Path) -> tuple[bytes, bytes]:
    """Weights and curves."""
    return (folder / "model" / "model.safetensors").read_bytes(), (folder / "curves.csv").read_bytes()


def finish(process: subprocess.Popen[str]) -> str:
    """Wait for the end; the output."""
    output = process.communicate()[0]
    if process.returncode:
        sys.exit(f"error: training failed\n{output}")
    return output


def went_on_from(output: str) -> int:
    """The step at which a process took over, 0 for a new start."""
    found = re.search(r"going on from step (\d+)", output)
    return int(found[1]) if found else 0


@stage
def main() -> None:
    """Train in peace, train under fire, compare."""
    arguments = parser(__doc__, "kills")
    arguments.add_argument("--kills", type=int, default=20, help="times that the run is killed (default 20)")
    arguments.add_argument("--steps", type=int, default=600, help="training steps (default 600)")
    arguments.add_argument("--child", type=Path, nargs=2, help="FOLDER INDEX: be the process that is killed")
    chosen = arguments.parse_args()
    if chosen.child:
        folder, index = chosen.child
        child(folder, index, chosen.steps)
        return
    draws = random.Random(0)  # noqa: S311  # moments, no secrets
    with tempfile.TemporaryDirectory() as name:
        root = Path(name)
        index = small_index(root, 320, 240, 24)
        for folder in ("peace", "fire"):
            (root / folder).mkdir()
        began = time.monotonic()
        finish(start(root / "peace", index, chosen.steps))
        whole = time.monotonic() - began
        rows: list[dict[str, Any]] = []
        while len(rows) < chosen.kills:
            process = start(root / "fire", index, chosen.steps)
            seconds = draws.uniform(0.3, 0.6) * whole + 1  # into the training, past the imports
            time.sleep(seconds)
            ended = process.poll() is not None
            process.kill()
            output = process.communicate()[0]
            if ended:  # it was done first: start over, and go on killing
                say(f"finished before kill {len(rows) + 1}: {outcome(root / 'fire') == outcome(root / 'peace')}")
                if outcome(root / "fire") != outcome(root / "peace"):
                    break
                continue
            rows.append({"name": f"kill {len(rows) + 1}", "after_s": seconds, "went_on_from": went_on_from(output)})
            say(f"kill {len(rows)} of {chosen.kills} after {seconds:.1f} s; it had gone on from {went_on_from(output)}")
        last = went_on_from(finish(start(root / "fire", index, chosen.steps)))
        same = outcome(root / "fire") == outcome(root / "peace")
    report = {"rows": rows, "finished_from": last, "same_bytes": same, "ratios": {}}
    verdict = "byte-identical" if same else "DIFFERENT"
    table = tabulate([row.values() for row in rows], ["", "after, s", "it had gone on from step"], floatfmt=".1f")
    publish(chosen, report, table, f"{len(rows)} kills, the last part from step {last}: weights and curves {verdict}")
    if not same:
        sys.exit(1)


if __name__ == "__main__":
    main()
