"""Which recipe: variants of a profile, each trained for as many steps or as much arithmetic, in one run.

    loupe bench recipes [--steps 1000] [--json]
    loupe bench recipes --profile champion --tflop 25
    loupe bench recipes --profile champion --tflop 60 --pictures 2 --only muon "muon, channel_shuffle 1"

Reports the gain over bicubic on the held-out photographs and product images, on whole pictures and on the text and the
flat areas of products. `ratios`: above 1, a variant is faster than the profile. Needs index/ (`dvc repro patch-index`).
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
from loupe.imaging.degradations import Degradation
from loupe.models.cost import training_tflop
from loupe.models.inference import super_resolve
from loupe.params import apply_profile
from loupe.patches.batches import Strategy
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage
from loupe.training.run import Recipe, prepare, train

VARIANTS: dict[str, dict[str, dict[str, Any]]] = {
    "sample": {
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
    },
    "champion": {
        "champion": {},
        "D4 C3 G24": {"D": 4, "G": 24, "G0": 24},
        "D6 C3 G24": {"D": 6, "G": 24, "G0": 24},
        "D6 C3 G32": {"D": 6},
        "D3 C4 G40": {"D": 3, "C": 4, "G": 40, "G0": 40},
        "residual none (the paper)": {"residual": "none"},
        "batch 4, lr 0.0014": {"batch": 4, "lr": 0.0014},
        "batch 16": {"batch": 16},
        "lr 0.003, clip 0.1": {"lr": 0.003, "clip": 0.1},
        "charbonnier": {"loss": "charbonnier"},
        "loss mse": {"loss": "mse"},
        "ema 0.9995": {"ema": 0.9995},
        "difficulty 0.5": {"difficulty": 0.5},
        "product_share 0.5": {"product_share": 0.5},
        "JPEG in 0.3 of products": {"jpeg_probability": 0.3},
        "channel_shuffle 0.5": {"channel_shuffle": 0.5},
        "channel_shuffle 1": {"channel_shuffle": 1.0},
        "muon": {"optimizer": "muon"},
        "muon, lr 0.004": {"optimizer": "muon", "lr": 0.004},
        "muon, D4 C3 G24": {"optimizer": "muon", "D": 4, "G": 24, "G0": 24},
        "muon, D6 C3 G32": {"optimizer": "muon", "D": 6},
        "muon, batch 16": {"optimizer": "muon", "batch": 16},
        "muon, channel_shuffle 0.5": {"optimizer": "muon", "channel_shuffle": 0.5},
        "muon, channel_shuffle 1": {"optimizer": "muon", "channel_shuffle": 1.0},
    },
}


@stage
def main() -> None:
    """Train and score every variant."""
    options = parser(__doc__, "recipes")
    options.add_argument("--profile", choices=VARIANTS, default="sample", help="what is varied (default sample)")
    options.add_argument("--steps", type=int, default=1000, help="training steps of each variant (default 1000)")
    options.add_argument("--tflop", type=float, help="arithmetic of each variant, instead of steps")
    options.add_argument("--only", nargs="*", help="variants (default all)")
    options.add_argument("--pictures", type=int, help="of each set, to train on (default all)")
    options.add_argument("--index", type=Path, default=Path("index"), help="patch index (default index)")
    chosen = options.parse_args()
    variants = VARIANTS[chosen.profile]
    if unknown := sorted(set(chosen.only or ()) - variants.keys()):
        options.error(f"{', '.join(unknown)}: no such variant; there are {', '.join(variants)}")
    if chosen.pictures is not None and chosen.pictures < 1:
        options.error(f"--pictures {chosen.pictures}: at least 1")
    with tempfile.TemporaryDirectory() as scratch:
        params = apply_profile(chosen.profile, target=Path(scratch) / "params.yaml")
    index = PatchIndex(chosen.index)
    if chosen.pictures:
        of_set: dict[str, list[int]] = {}
        for number, image in enumerate(index.images):
            if image.split == "train":
                of_set.setdefault(image.set, []).append(number)
        kept = [number for numbers in of_set.values() for number in numbers[: chosen.pictures]]
        index.patches = index.patches[index.patches["image"].isin(kept)]
    fabric = prepare()
    rows = []
    for name in chosen.only or variants:
        config = {**dataclasses.asdict(params.model), "scale": params.scale}
        recipe = dataclasses.asdict(params.train)
        patches = dataclasses.asdict(params.patches)
        degradations = dataclasses.asdict(params.degradations)
        for key, value in variants[name].items():
            next(section for section in (config, recipe, patches, degradations) if key in section)[key] = value
        steps = chosen.steps
        if chosen.tflop:
            steps = round(chosen.tflop / training_tflop(config, index.patch, recipe["batch"]))
        recipe |= {"steps": steps, "validate_every": steps}
        start = time.perf_counter()
        with tempfile.TemporaryDirectory() as scratch:
            network = train(
                fabric,
                config,
                index,
                Recipe(**recipe),
                curves=Path(scratch) / "curves.csv",
                runs=Path(scratch),
                strategy=Strategy(
                    *(patches[key] for key in ("strategy", "images", "per_image", "difficulty", "channel_shuffle"))
                ),
                degradation=Degradation(**degradations),
            )
        seconds = time.perf_counter() - start
        report = evaluate(held_out(index), Method("model", name, index.scale, partial(super_resolve, network)))
        sets = report.summary["sets"]
        row = {"name": name, "steps": steps, "seconds": seconds}
        row |= {data_set: scores["gain_db"] for data_set, scores in sets.items()}
        row |= {kind: sets["products"]["slices"][kind]["gain_db"] for kind in ("text", "flat")}
        rows.append(row)
        say(", ".join(f"{key} {value:+.2f}" if isinstance(value, float) else str(value) for key, value in row.items()))
    report_json = {
        "profile": chosen.profile,
        "pictures": chosen.pictures,
        "tflop": chosen.tflop,
        "rows": rows,
        "ratios": {row["name"]: rows[0]["seconds"] / row["seconds"] for row in rows},
    }
    columns = ("photos", "products", "text", "flat")
    table = [
        [row["name"], *(f"{row[key]:+.2f}" for key in columns), row["steps"], f"{row['seconds']:.0f}"] for row in rows
    ]
    headers = [chosen.profile, "photos, dB", "products, dB", "text, dB", "flat, dB", "steps", "seconds"]
    publish(chosen, report_json, tabulate(table, headers, disable_numparse=True))


if __name__ == "__main__":
    main()
