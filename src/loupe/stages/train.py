"""DVC stage `train`: a network trained on index/ into models/, its curves into metrics/train/ and runs/."""

from __future__ import annotations

import dataclasses
import os
import shutil
import subprocess
from pathlib import Path

from loupe.imaging.degradations import Degradation
from loupe.imaging.files import atomic_folder
from loupe.models.rdn import RDN
from loupe.models.weights import save_network
from loupe.params import load_params
from loupe.patches.batches import Strategy
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage
from loupe.training.run import Recipe, prepare, train

INDEX = Path("index")
OUT = Path("models")
CURVES = Path("metrics/train/curves.csv")
RUNS = Path("runs")  # TensorBoard and checkpoints; no DVC output: its files carry the time, and outlive a killed run


@stage
def main() -> None:
    """Train by the parameters `scale`, `patches`, `degradations`, `model` and `train`, or go on where a run ended.

    models/ appears only when the run is complete. With LOUPE_PLAIN=1 it computes as public implementations do.
    """
    params = load_params()
    plain = os.environ.get("LOUPE_PLAIN") == "1"
    fabric = prepare(plain)
    config = {**dataclasses.asdict(params.model), "scale": params.scale}
    patches = params.patches

    def keep(trained: RDN, trained_on: str) -> None:
        with atomic_folder(OUT) as folder:
            save_network(folder, trained, config, trained_on)

    train(
        fabric,
        config,
        PatchIndex(INDEX),
        Recipe(**dataclasses.asdict(params.train)),
        curves=CURVES,
        runs=RUNS,
        strategy=Strategy(
            patches.strategy, patches.images, patches.per_image, patches.difficulty, patches.channel_shuffle
        ),
        degradation=Degradation(**dataclasses.asdict(params.degradations)),
        facts={"git": git_id()},
        keep=keep,
        plain=plain,
    )
    if fabric.is_global_zero:
        print(f"{OUT}: trained; curves in {CURVES.parent}, and in {RUNS} for `tensorboard --logdir {RUNS}`")


def git_id() -> str:
    """The commit that is checked out, with `-dirty` where files differ from it; empty without git or a repository."""
    if shutil.which("git") is None:
        return ""
    command = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip()


if __name__ == "__main__":
    main()
