"""Scoring finished pictures beside scikit-image and torchmetrics, and where the time of an evaluation goes, in one run.

    loupe bench evaluate [--images 12] [--rounds 3] [--size 2040 1356] [--json]

Every side gives PSNR-Y, PSNR-RGB and SSIM-Y of the same made pictures, on all cores: ours by threads, scikit-image by
processes, torchmetrics by the threads of PyTorch; in turn, round by round. The figures must agree, or it fails.
`scoring_vs_skimage`: how many times as many pictures we score in the same time.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from skimage.color import rgb2ycbcr
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from tabulate import tabulate
from threadpoolctl import threadpool_limits
from torchmetrics.functional.image import peak_signal_noise_ratio as torch_psnr
from torchmetrics.functional.image import structural_similarity_index_measure as torch_ssim

from benchmarks._build import SCALE
from benchmarks._report import milliseconds, parser, publish, say
from benchmarks.data import photograph
from loupe.errors import InputError
from loupe.evaluation.heatmap import heat_map, png, squared_error
from loupe.evaluation.methods import finished
from loupe.evaluation.pairs import Pair
from loupe.evaluation.ranking import patch_scores
from loupe.evaluation.run import Outputs, evaluate
from loupe.evaluation.slices import errors_by_kind, kinds_of
from loupe.imaging.metrics import SSIM_WINDOW, luma32, score, shave
from loupe.imaging.resize import Pixels, downscale, upscale
from loupe.stages.running import stage
from loupe.threads import in_order

Triple = tuple[float, float, float]  # PSNR-Y and PSNR-RGB in decibels, SSIM-Y
# What the figures of a side may differ from ours by. torchmetrics takes logarithms in float32, and mirrors the picture
# before it filters, where all others take whole windows only.
APART = {"scikit-image": (1e-6, 1e-6, 1e-5), "torchmetrics": (1e-5, 1e-5, 1e-4)}
FEW = 2  # pictures for torchmetrics, which is slow
CORES = len(os.sched_getaffinity(0))
PAIRS: list[Pair] = []  # made before processes are forked, which then have them


def ours(pair: Pair) -> Triple:
    """What `loupe evaluate` computes."""
    assert pair.sr is not None  # noqa: S101  # made so
    found = score(pair.hr, pair.sr, SCALE)
    return found.psnr_y, found.psnr_rgb, found.ssim_y


def by_skimage(number: int) -> Triple:
    """The same by scikit-image; its mean of SSIM is over whole windows too."""
    hr, sr = (shave(image, SCALE) for image in (PAIRS[number].hr, PAIRS[number].sr))  # type: ignore[arg-type]
    hr_y, sr_y = (rgb2ycbcr(image)[..., 0] for image in (hr, sr))
    ssim = structural_similarity(
        hr_y, sr_y, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
    )
    return (
        peak_signal_noise_ratio(hr_y, sr_y, data_range=255),
        peak_signal_noise_ratio(hr, sr, data_range=255),
        float(ssim),
    )


def by_torchmetrics(pair: Pair) -> Triple:
    """The same by torchmetrics, which has no luma of its own: it gets ours."""
    hr, sr = (shave(image, SCALE) for image in (pair.hr, pair.sr))  # type: ignore[arg-type]
    hr_y, sr_y = (torch.from_numpy(luma32(image))[None, None] for image in (hr, sr))  # type: ignore[arg-type]
    rgb = [torch.from_numpy(np.ascontiguousarray(image)).float().permute(2, 0, 1)[None] for image in (hr, sr)]
    ssim = torch_ssim(sr_y, hr_y, sigma=1.5, kernel_size=SSIM_WINDOW, data_range=255.0)
    psnr_y, psnr_rgb = torch_psnr(sr_y, hr_y, data_range=255.0), torch_psnr(rgb[1], rgb[0], data_range=255.0)
    return psnr_y.item(), psnr_rgb.item(), float(ssim)  # type: ignore[arg-type]


def sides() -> dict[str, Callable[[], list[Triple]]]:
    """Every side, by name: scores all pictures."""

    def processes() -> list[Triple]:
        with multiprocessing.get_context("fork").Pool(CORES) as pool:
            return pool.map(by_skimage, range(len(PAIRS)), chunksize=1)

    def threads() -> list[Triple]:
        with threadpool_limits(1, user_api="blas"):
            return list(in_order(ours, PAIRS, CORES, ahead=CORES))

    return {
        "ours": threads,
        "scikit-image": processes,
        "torchmetrics": lambda: [by_torchmetrics(pair) for pair in PAIRS[:FEW]],
    }


def parts(pair: Pair) -> dict[str, float]:
    """Milliseconds of one core that each part of an evaluation takes for a picture, without the network."""
    assert pair.sr is not None  # noqa: S101
    sr, hr_y, sr_y = pair.sr, luma32(pair.hr), luma32(pair.sr)
    kinds, error = kinds_of(pair.hr), squared_error(hr_y, sr_y)
    works: dict[str, Callable[[], Any]] = {
        "bicubic enlargement": lambda: upscale(pair.lr, SCALE),
        "scores of one method": lambda: score(pair.hr, sr, SCALE),
        "reduction, for consistency": lambda: downscale(sr, SCALE),
        "kinds of pixels": lambda: kinds_of(pair.hr),
        "errors by kind of one method": lambda: errors_by_kind(kinds, squared_error(hr_y, luma32(sr))),
        "patches": lambda: patch_scores(pair.hr, hr_y, sr_y, sr_y, kinds, SCALE),
        "heat map, encoded": lambda: png(heat_map(error)),
    }
    with threadpool_limits(1, user_api="blas"):
        return {name: milliseconds(work, 5) for name, work in works.items()}


def make_pairs(images: int, width: int, height: int) -> list[Pair]:
    """Made photographs, with the bicubic enlargement of their reduction as the picture to score."""

    def make(number: int) -> Pair:
        hr: Pixels = photograph(number, width, height)
        lr = downscale(hr, SCALE)
        return Pair("made", f"{number}.png", hr, lr, upscale(lr, SCALE))

    return list(in_order(make, range(images), CORES, ahead=CORES))


def check(found: dict[str, list[Triple]]) -> None:
    """Refuse sides whose figures differ by more than APART."""
    for name, triples in found.items():
        for mine, theirs in zip(found["ours"], triples, strict=False):
            if any(abs(a - b) > most for a, b, most in zip(mine, theirs, APART.get(name, (0, 0, 0)), strict=True)):
                raise InputError(f"{name} finds {theirs} where we find {mine}: they do not measure the same")


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__, "evaluate")
    arguments.add_argument("--images", type=int, default=12, help="pictures (default 12)")
    arguments.add_argument("--rounds", type=int, default=3, help="rounds (default 3)")
    arguments.add_argument("--size", type=int, nargs=2, default=(2040, 1356), metavar=("WIDTH", "HEIGHT"))
    return arguments.parse_args()


@stage
def main() -> None:
    """Score by every side, then evaluate with a report; print the rates."""
    chosen = options()
    PAIRS.extend(make_pairs(chosen.images, *chosen.size))
    seconds: dict[str, list[float]] = {}  # for one picture
    for number in range(chosen.rounds):
        found = {}
        for name, work in sides().items():
            start = time.perf_counter()
            found[name] = work()
            seconds.setdefault(name, []).append((time.perf_counter() - start) / len(found[name]))
        if number == 0:
            check(found)
        say(f"round {number + 1} of {chosen.rounds}: " + ", ".join(f"{n} {s[-1]:.3g} s" for n, s in seconds.items()))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        start = time.perf_counter()
        evaluate(
            PAIRS, finished(folder, SCALE), outputs=Outputs(folder / "e.json", folder / "i.csv", folder / "report")
        )
        whole = time.perf_counter() - start
        size = sum(path.stat().st_size for path in (folder / "report").rglob("*") if path.is_file())
    rates = {name: 1 / statistics.median(found) for name, found in seconds.items()}
    rows = [{"name": name, "images_per_s": rate} for name, rate in rates.items()]
    evaluation = {
        "name": "whole evaluation",
        "images_per_s": chosen.images / whole,
        "mb_per_image": size / 1e6 / chosen.images,
    }
    ratios = {
        "scoring_vs_skimage": rates["ours"] / rates["scikit-image"],
        "scoring_vs_torchmetrics": rates["ours"] / rates["torchmetrics"],
    }
    spent = parts(PAIRS[0])
    report = {"size": chosen.size, "rows": [*rows, evaluation], "parts_ms": spent, "ratios": ratios}
    cells = [[row["name"], row["images_per_s"]] for row in rows]
    cells.append(["all scores, patches and the report", evaluation["images_per_s"]])
    publish(
        chosen,
        report,
        tabulate(cells, ["all cores", "images/s"], floatfmt=".2f"),
        tabulate(spent.items(), ["one core, one picture", "ms"], floatfmt=".1f"),
        tabulate(ratios.items(), ["ours is faster by", "times"], floatfmt=".1f"),
    )


if __name__ == "__main__":
    main()
