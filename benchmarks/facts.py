"""Measuring facts of image files beside decoding the same files alone, and what each fact costs, in one run.

    loupe bench facts [--images 16] [--rounds 5] [--folder DIR] [--json]

Both sides read the files with the same number of threads, in turn, round by round: one decodes with Pillow and does
nothing else, the other is `loupe facts`. `facts_vs_decode`: 1 would mean that facts cost nothing beside decoding. The
files are made: photographs as large as DIV2K's (PNG), packshots with transparency (PNG), and a shop's small JPEGs; or
those of a folder.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw
from tabulate import tabulate

from benchmarks._report import milliseconds, parser, publish, say
from benchmarks.data import photograph
from loupe.errors import InputError
from loupe.imaging import facts
from loupe.imaging.files import decoded, eight_bits, find_images, read_bytes
from loupe.imaging.likeness import perceptual_hash
from loupe.quality.table import measure_all
from loupe.stages.running import stage
from loupe.threads import in_order

CORES = len(os.sched_getaffinity(0))
SMALL = 8  # times as many of the small files, which are done at once


def packshot(number: int, side: int = 2160) -> Image.Image:
    """A product in the middle of nothing: a photograph's pixels below a soft round mask, RGBA."""
    image = Image.fromarray(photograph(number, side, side))
    mask = Image.new("L", (side, side))
    ImageDraw.Draw(mask).ellipse([side // 4, side // 8, side * 3 // 4, side * 7 // 8], fill=255)
    image.putalpha(mask.resize((side // 2, side // 2)).resize((side, side)))
    return Image.composite(image, Image.new("RGBA", image.size), mask)  # nothing below what cannot be seen


def make_files(folder: Path, images: int) -> dict[str, list[Path]]:
    """Files of each kind, written below `folder`."""

    def save(number: int) -> None:
        Image.fromarray(photograph(number, 2040, 1356)).save(folder / f"photographs/{number}.png")
        packshot(number).save(folder / f"packshots/{number}.png")

    kinds = ("photographs", "packshots", "small JPEGs")  # the first gives the ratio that counts
    for kind in kinds:
        (folder / kind).mkdir()
    list(in_order(save, range(images), CORES, ahead=CORES))
    for number in range(SMALL * images):
        Image.fromarray(photograph(number, 400, 533)).save(folder / f"small JPEGs/{number}.jpg", quality=85)
    return {kind: find_images(folder / kind) for kind in kinds}


def decode_alone(path: Path) -> None:
    """What everyone has to do."""
    with Image.open(path) as image:
        image.load()


def rates(folder: Path, paths: list[Path]) -> dict[str, float]:
    """Files a second of each side, once."""
    start = time.perf_counter()
    for _ in in_order(decode_alone, paths, CORES, ahead=2 * CORES):
        pass
    between = time.perf_counter()
    frame = measure_all(folder, paths)
    end = time.perf_counter()
    if not frame["decodable"].all():
        raise InputError("\n".join(frame["error"][~frame["decodable"]].unique()))
    return {"decode": len(paths) / (between - start), "facts": len(paths) / (end - between)}


def parts(path: Path) -> dict[str, float]:
    """Milliseconds of one core that each fact of a file takes, beside those that decoding takes."""
    data = read_bytes(path)
    with decoded(path, data) as picture:
        plain = eight_bits(picture.image, path)
        samples = facts.sampled(plain, 1)
        activity = np.abs(samples.below) + np.abs(samples.right)
        works: dict[str, Callable[[], Any]] = {
            "decoding": lambda: decode_alone(path),
            "sha256": lambda: hashlib.sha256(data).hexdigest(),
            "header": lambda: facts.header_facts(picture, path),
            "taking steps": lambda: facts.steps(plain),
            "taking tiles": lambda: facts.tiles(plain, activity),
            "taking all samples": lambda: facts.sampled(plain, 1),
            "perceptual_hash": lambda: perceptual_hash(samples.luma),
            "brightness, contrast, entropy": lambda: facts.tones(samples.luma[::2, ::2]),
            "white_share": lambda: facts.white_share(samples.rgb),
            "colourfulness": lambda: facts.colourfulness(samples.rgb),
            "flat_share": lambda: facts.flat_share(samples.below, samples.right),
            "edge_density": lambda: facts.edge_density(samples.below, samples.right),
            "sharpness": lambda: facts.sharpness(samples.textured),
            "detail": lambda: facts.detail(samples.textured),
            "doubling": lambda: facts.doubling(samples.textured),
            "blockiness": lambda: facts.blockiness(samples.spread),
            "noise": lambda: facts.noise(samples.spread),
            "all of a file": lambda: facts.measure(path),
        }
        return {name: milliseconds(work, 11) for name, work in works.items()}


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__, "facts")
    arguments.add_argument("--images", type=int, default=16, help="large pictures of a kind (default 16)")
    arguments.add_argument("--rounds", type=int, default=5, help="rounds (default 5)")
    arguments.add_argument("--folder", type=Path, metavar="DIR", help="measure these files instead")
    return arguments.parse_args()


@stage
def main() -> None:
    """Measure both sides on every kind of file, and the parts; print the rates."""
    chosen = options()
    with tempfile.TemporaryDirectory() as name:
        if chosen.folder:
            files = {chosen.folder.name: find_images(chosen.folder)}
        else:
            files = make_files(Path(name), chosen.images)
        found: dict[str, list[dict[str, float]]] = {kind: [] for kind in files}
        for number in range(chosen.rounds):
            for kind, paths in files.items():
                found[kind].append(rates(chosen.folder or Path(name), paths))
            said = ", ".join(f"{kind} {rounds[-1]['facts']:.1f}/s" for kind, rounds in found.items())
            say(f"round {number + 1} of {chosen.rounds}: {said}")
        spent = {kind: parts(paths[len(paths) // 2]) for kind, paths in files.items()}
    rows = []
    for kind, rounds in found.items():
        decode, with_facts = (statistics.median(one[side] for one in rounds) for side in ("decode", "facts"))
        # the ratio of each round, then their median: other work on the machine slows both sides of a round
        ratio = statistics.median(one["facts"] / one["decode"] for one in rounds)
        rows.append({"name": kind, "decoded_per_s": decode, "measured_per_s": with_facts, "ratio": ratio})
    first, *others = rows
    ratios = {"facts_vs_decode": first["ratio"]}
    ratios |= {f"facts_vs_decode_{str(row['name']).replace(' ', '_').lower()}": row["ratio"] for row in others}
    cells = [list(row.values()) for row in rows]
    lines = [[part, *(of_kind[part] for of_kind in spent.values())] for part in next(iter(spent.values()))]
    publish(
        chosen,
        {"rows": rows, "parts_ms": spent, "ratios": ratios},
        tabulate(cells, ["all cores", "decoded/s", "measured/s", "ratio"], floatfmt=("", ".1f", ".1f", ".3f")),
        tabulate(lines, ["ms of one core", *spent], floatfmt=".2f"),
    )


if __name__ == "__main__":
    main()
