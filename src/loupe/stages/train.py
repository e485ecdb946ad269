"""DVC stage `train`: a network trained on index/ into models/, its curves into metrics/train/ and runs/."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from loupe.imaging.degradations import Degradation
from loupe.imaging.files import atomic_folder
from loupe.models.weights import build_network, save_network
from loupe.params import load_params
from loupe.patches.batches import Strategy
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage
from loupe.training.run import Recipe, prepare, train

INDEX = Path("index")
OUT = Path("models")
CURVES = Path("metrics/train/curves.csv")
BOARD = Path("runs")  # TensorBoard; not a DVC output, since its files carry the time


@stage
def main() -> None:
    """Train by the parameters `scale`, `model` and `train`; models/ appears only when the run is complete."""
    params = load_params()
    recipe = Recipe(**dataclasses.asdict(params.train))
    device = prepare(recipe.seed)
    config = {**dataclasses.asdict(params.model), "scale": params.scale}
    network = build_network(config)
    count = sum(parameter.numel() for parameter in network.parameters())
    print(f"train: {config['name']} with {count:,} parameters on {device}", flush=True)
    board = BOARD / f"{datetime.now(UTC):%Y%m%d-%H%M%S}"
    patches = params.patches
    strategy = Strategy(patches.strategy, patches.images, patches.per_image, patches.difficulty)
    degradation = Degradation(**dataclasses.asdict(params.degradations))
    trained = train(network, PatchIndex(INDEX), recipe, CURVES, board, device, strategy, degradation)
    with atomic_folder(OUT) as folder:
        save_network(folder, trained, config)
    print(f"{OUT}: trained; curves in {CURVES.parent} and, for `tensorboard --logdir {BOARD}`, in {board}")


if __name__ == "__main__":
    main()
