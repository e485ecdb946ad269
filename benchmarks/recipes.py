"""Which recipe: variants of the profile `sample`, each trained for the same number of steps, in one run.

    loupe bench recipes [--steps 1000] [--json]

Reports the gain over bicubic on the held-out photographs and product images. `ratios`: above 1, a variant is faster
than the profile. Needs index/ (`dvc repro patch-index`).
"""

from __future__ import annotations

import dataclasses
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

from tabulate import tabulate

from benchmarks._report import parser, publish, say
from loupe.evaluation.methods import Method
from loupe.evaluation.pairs import held_out
from loupe.evaluation.run import evaluate
from loupe.models.inference import super_resolve
from loupe.params import load_params
from loupe.patches.batches import Strategy
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage
from loupe.training.run import Recipe, prepare, train

VARIANTS: dict[str, dict[str, Any]] = {
    "sample": {},
    "loss mse": {"loss": "mse"},
    "lr 0.001": {"lr": 0.001},
    "lr 0.004": {"lr": 0.004},
    "ema 0 (last step)": {"ema": 0.0},
    "product_share 0": {"product_share": 0.0},
    "product_share 0.7": {"product_share": 0.7},
    "residual none (the paper)": {"residual": "none"},
    "residual nearest": {"residual": "nearest"},
    "G0 64": {"G0": 64},
    "D 6": {"D": 6},
    "strategy grid": {"strategy": "grid"},
    "per_image 64": {"per_image": 64},
    "difficulty 0": {"difficulty": 0.0},
    "difficulty 0.5": {"difficulty": 0.5},
}


@stage
def main() -> None:
    """Train and score every variant."""
    options = parser(__doc__, "recipes")
    options.add_argument("--steps", type=int, default=1000, help="training steps of each variant (default 1000)")
    options.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS), help="variants (default all)")
    chosen = options.parse_args()
    steps = chosen.steps
    params = load_params(Path("profiles/sample.yaml"))
    index = PatchIndex(Path("index"))
    fabric = prepare()
    rows = []
    for name in chosen.only:
        changes = VARIANTS[name]
        config = {**dataclasses.asdict(params.model), "scale": params.scale}
        recipe = {**dataclasses.asdict(params.train), "steps": steps, "validate_every": steps}
        patches = dataclasses.asdict(params.patches)
        for key, value in changes.items():
            next(section for section in (config, recipe, patches) if key in section)[key] = value
        strategy = Strategy(patches["strategy"], patches["images"], patches["per_image"], patches["difficulty"])
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as name_of_folder:
            folder = Path(name_of_folder)
            network = train(
                fabric, config, index, Recipe(**recipe), curves=folder / "c.csv", runs=folder, strategy=strategy
            )
        seconds = time.perf_counter() - start
        report = evaluate(held_out(index), Method("model", name, index.scale, partial(super_resolve, network)))
        gains = {data_set: scores["gain_db"] for data_set, scores in report.summary["sets"].items()}
        rows.append({"name": name, "seconds": seconds, **gains})
        say(f"{name}: {', '.join(f'{key} {value:+.2f} dB' for key, value in gains.items())}")
    report_json = {
        "steps": steps,
        "rows": rows,
        "ratios": {row["name"]: rows[0]["seconds"] / row["seconds"] for row in rows},
    }
    table = [[row["name"], f"{row['photos']:+.2f}", f"{row['products']:+.2f}", f"{row['seconds']:.0f}"] for row in rows]
    headers = [f"{steps} steps", "photos, dB", "products, dB", "seconds"]
    publish(chosen, report_json, tabulate(table, headers, disable_numparse=True))


if __name__ == "__main__":
    main()
