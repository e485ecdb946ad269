"""Measure how well `loupe drift` tells a shift from chance, on a folder with pictures of one source.

    python docs/drift.py PICTURES

Prints false alarms between random parts of the set, with limits from all pictures dealt out anew, as `loupe drift` has
them, and with limits from draws of the reference alone; how often one shifted fact is found, by the batch's size; and
which facts drift if one half of the pictures is changed.
"""

from __future__ import annotations

import argparse
import io
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter
from tabulate import tabulate

from loupe.imaging.files import find_images, read_image
from loupe.quality.drift import ALARMS, SMALL, Values, as_compared, compare, finite_facts, joint_limits
from loupe.quality.table import measure_all

SIZES = ((20, 20), (25, 26), (50, 20), (20, 50), (50, 50))  # reference, batch
BATCHES = (10, 20, 40)
SHIFTS = (0.5, 1.0, 2.0)  # standard deviations
DRAWS = 1000


def saved(picture: Image.Image, quality: int) -> Image.Image:
    """What is left of it after JPEG of this quality."""
    stream = io.BytesIO()
    picture.save(stream, "JPEG", quality=quality)
    return Image.open(stream)


def noisy(picture: Image.Image, sigma: float) -> Image.Image:
    """With Gaussian noise, levels."""
    pixels = np.asarray(picture)
    noise = np.random.default_rng(0).normal(0, sigma, pixels.shape)
    return Image.fromarray(np.clip(pixels + noise, 0, 255).astype(np.uint8))


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda picture: picture,
    "JPEG of quality 50": lambda picture: saved(picture, 50),
    "JPEG of quality 30": lambda picture: saved(picture, 30),
    "blur, sigma 0.7": lambda picture: picture.filter(ImageFilter.GaussianBlur(0.7)),
    "blur, sigma 1.5": lambda picture: picture.filter(ImageFilter.GaussianBlur(1.5)),
    "noise, sigma 6": lambda picture: noisy(picture, 6),
    "enlarged x2": lambda picture: picture.resize((2 * picture.width, 2 * picture.height), Image.Resampling.BICUBIC),
    "darkened to 0.6": lambda picture: picture.point(lambda level: 0.6 * level),
    "without colour": lambda picture: picture.convert("L"),
}


def main() -> None:
    """The three tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, metavar="PICTURES", help="at least 60 pictures of one source")
    parser.add_argument("--pairs", type=int, default=200, help="random pairs for each figure")
    options = parser.parse_args()
    facts = measure_all(options.folder)
    facts = facts[facts["decodable"]]
    rng = np.random.default_rng(0)
    rows = []
    for reference, batch in SIZES:
        if reference + batch <= len(facts):
            pairs = [parted(facts, reference, batch, rng) for _ in range(options.pairs)]
            found = [compare(*pair, min_batch=1, draws=DRAWS) for pair in pairs]
            fixed = [any((fact.statistic or 0) >= SMALL for fact in one.compared) for one in found]
            alone = [alarms_alone(*pair, rng) for pair in pairs]
            shares = (np.mean(alarms) for alarms in ([one.drift for one in found], alone, fixed))
            rows.append((reference, batch, *(f"{share:.1%}" for share in shares)))
    print(f"\nFalse alarms in {options.pairs} unshifted pairs, promised are {ALARMS:.0%}\n")
    print(tabulate(rows, ("reference", "batch", "dealt out anew", "from the reference alone", f"fixed at {SMALL}")))
    print(f"\nBrightness shifted in {options.pairs} pairs, with a reference of {len(facts) - max(BATCHES)}: found in\n")
    rows = []
    for batch in BATCHES:
        pairs = [parted(facts, len(facts) - max(BATCHES), batch, rng) for _ in range(options.pairs)]
        shares = (np.mean([shift_found(*pair, shift) for pair in pairs]) for shift in SHIFTS)
        rows.append((batch, *(f"{share:.0%}" for share in shares)))
    print(tabulate(rows, ("batch", *(f"{shift} deviations" for shift in SHIFTS))))
    paths = [find_images(options.folder)[row] for row in np.random.default_rng(0).permutation(facts.index)]
    reference = measure_all(options.folder, paths[: len(paths) // 2])
    print(f"\n{len(paths) - len(reference)} pictures, changed, beside {len(reference)} others\n")
    rows = [(name, *drifted(reference, paths[len(reference) :], change)) for name, change in CHANGES.items()]
    print(tabulate(rows, ("change", "share", "drift")))


def drifted(
    reference: pd.DataFrame, paths: list[Path], change: Callable[[Image.Image], Image.Image]
) -> tuple[str, str]:
    """The share of the facts that drift, and which, in changed copies of `paths`."""
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(paths):
            change(Image.fromarray(read_image(path).rgb)).save(f"{folder}/{number:05}.png")
        found = compare(reference, measure_all(Path(folder)), min_batch=1)
    return f"{found.share:.0%}", ", ".join(found.drifted)


def parted(
    facts: pd.DataFrame, reference: int, batch: int, rng: np.random.Generator
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Two random parts, of so many pictures, that share none."""
    order = rng.permutation(len(facts))
    return facts.iloc[order[:reference]], facts.iloc[order[reference : reference + batch]]


def shift_found(reference: pd.DataFrame, current: pd.DataFrame, deviations: float) -> bool:
    """Whether a batch is found out whose brightness is moved by so many standard deviations of the reference."""
    moved = current["brightness"] + deviations * reference["brightness"].std()
    return "brightness" in compare(reference, current.assign(brightness=moved), min_batch=1, draws=DRAWS).drifted


def alarms_alone(reference: pd.DataFrame, current: pd.DataFrame, rng: np.random.Generator) -> bool:
    """Whether some fact is farther off than draws with replacement from the reference alone have it."""
    before, now = (as_compared(finite_facts(facts)) for facts in (reference, current))
    before, now = (one.fillna(before.median()).to_numpy() for one in (before, now))
    rows = [rng.integers(len(before), size=(DRAWS, len(one))) for one in (before, now)]
    columns = range(before.shape[1])
    chance = np.stack([apart(before[rows[0], i], before[rows[1], i]) for i in columns], axis=1)
    found = np.concatenate([apart(before[None, :, i], now[None, :, i]) for i in columns])
    return bool((found >= np.maximum(joint_limits(chance, ALARMS), SMALL)).any())


def apart(before: Values, now: Values) -> Values:
    """Normed Wasserstein distances of float64 [draws, n] and [draws, m]: float64 [draws]."""
    both = np.concatenate([before, now], axis=1)
    order = np.argsort(both, axis=1)
    steps = np.cumsum(np.where(order < before.shape[1], -1 / before.shape[1], 1 / now.shape[1]), axis=1)[:, :-1]
    area = (np.abs(steps) * np.diff(np.take_along_axis(both, order, axis=1), axis=1)).sum(axis=1)
    spread: Values = area / np.maximum(before.std(axis=1), 0.001)
    return spread


if __name__ == "__main__":
    main()
