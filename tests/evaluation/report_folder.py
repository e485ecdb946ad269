"""A small report folder as an evaluation leaves it, with pictures of one colour each, so that pixels tell the view."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from loupe.evaluation.heatmap import ScaleBar
from loupe.evaluation.pictures import LOSSLESS, file_of
from loupe.evaluation.report import write_report

WIDTH, HEIGHT = 320, 240
COLORS = {
    "sr": (20, 160, 60),
    "bicubic": (200, 40, 30),
    "hr": (120, 120, 120),
    "lr": (230, 200, 40),
    "heat": (60, 20, 90),
    "champion": (90, 40, 200),
    "difference": (40, 190, 200),
}
MARK = (200, 100, 4)  # x, y and side of a blue square in sr.png
BLUE = (0, 0, 255)
HEAT = ScaleBar("Squared error", ("#000000", "#ffcc00"), ((0.0, "0"), (1.0, "64 and more")))
DIFFERENCE = ScaleBar("Better", ("#ff0000", "#00ff00"), ((0.0, "worse"), (1.0, "better")))


@dataclass
class Inputs:
    """What `write_report` takes; a test changes what it is about."""

    folder: Path
    summary: dict[str, Any]
    images: pd.DataFrame
    best: pd.DataFrame
    worst: pd.DataFrame
    curve: pd.DataFrame
    difference_bar: ScaleBar | None

    def write(self) -> Path:
        return write_report(
            self.folder, self.summary, self.images, self.best, self.worst, self.curve, HEAT, self.difference_bar
        )


def scores(n: int, gain: float, ends: Sequence[float] | None, champion: tuple[float, list[float]] | None) -> Any:
    """The figures of one data set: the gain over bicubic with its interval, and the lead over the champion."""
    found: dict[str, Any] = {
        "n": n,
        **{"psnr_y": 33.5, "ssim_y": 0.95, "psnr_rgb": 32.25},
        "bicubic": {"psnr_y": 33.5 - gain, "ssim_y": 0.9, "psnr_rgb": 30.5},
        "gain_db": gain,
        "consistency_db": 55.125,
        "interval_95": {"psnr_y": [32.0, 35.0], "ssim_y": [0.93, 0.97], "psnr_rgb": None, "gain_db": ends},
        "slices": {
            "flat": {"share": 0.75, "psnr_y": 50.5, "bicubic_psnr_y": 49.25, "gain_db": 1.25},
            "text": {"share": 0.0},
        },
    }
    if champion:
        lead, lead_ends = champion
        found["others"] = {
            "champion": {
                **{"psnr_y": 33.5 - lead, "ssim_y": 0.94, "psnr_rgb": 32.0, "gain_db": lead},
                **{"interval_95": {"gain_db": lead_ends}, "slices": {"flat": 50.0}},
            }
        }
    return found


def make_inputs(
    folder: Path,
    pictures: Sequence[tuple[str, str]] = (("photos", "cat.png"), ("products", "mug.png"), ("products", "hat.png")),
    champion: bool = False,
) -> Inputs:
    """Draw the pictures into `folder`, and make figures for them: picture n has a gain of n decibels.

    Args:
        folder: where to write.
        pictures: data set and name of each.
        champion: whether one was compared.
    """
    rows = []
    for number, (name, image) in enumerate(pictures, start=1):
        place = f"pictures/{number:04}"
        draw(folder / place, champion)
        rows.append(
            {
                **{"set": name, "image": image, "folder": place, "height": HEIGHT, "width": WIDTH},
                **{"psnr_y": 30.0 + number, "ssim_y": 0.95, "psnr_rgb": 29.0, "bicubic_psnr_y": 30.0},
                **{"bicubic_ssim_y": 0.9, "gain_db": float(number), "consistency_db": 55.0},
                **{"flat_share": 1.0, "flat_psnr_y": 40.0, "bicubic_flat_psnr_y": 39.0},
                **({"champion_psnr_y": 30.5, "champion_ssim_y": 0.94} if champion else {}),
            }
        )
    images = pd.DataFrame(rows)
    patch = {"y": 96, "x": 192, "height": 16, "width": 24, "psnr_y": 31.0, "bicubic_psnr_y": 29.5, "gain_db": 1.5}
    patches = images[["set", "image", "folder"]].assign(**patch, complexity=0.125)
    bins = {"low": [1.0, 2.0], "high": [2.0, 4.0], "count": [7, 5]}
    bins |= {f"{key}psnr_y_{percent}": [40.0, 30.0] for key in ("", "bicubic_") for percent in (10, 50, 90)}
    sets = dict.fromkeys(name for name, _ in pictures)
    return Inputs(
        folder,
        {
            "model": {"label": "RDN D4", "sha256": "ab" * 32},
            "protocol": {"scale": 2, "shave": 2, "luma": "BT.601", "rounding": "uint8"},
            "methods": {"bicubic": "bicubic"} | ({"champion": "RDN July"} if champion else {}),
            "sets": {
                name: scores(
                    sum(other == name for other, _ in pictures),
                    2.25,
                    [1.5, 3.0],
                    (0.2, [-0.1, 0.5]) if champion else None,
                )
                for name in sets
            },
        },
        images,
        patches.head(2),
        patches.tail(1),
        pd.DataFrame(bins),
        DIFFERENCE if champion else None,
    )


def draw(folder: Path, champion: bool) -> None:
    """One picture in all views."""
    folder.mkdir(parents=True)
    for view, color in COLORS.items():
        if view in ("champion", "difference") and not champion:
            continue
        image = Image.new("RGB", (WIDTH // 2, HEIGHT // 2) if view == "lr" else (WIDTH, HEIGHT), color)
        if view == "sr":
            x, y, side = MARK
            image.paste(BLUE, (x, y, x + side, y + side))
            image.save(folder / "thumb.webp")
        image.save(folder / file_of(view), **LOSSLESS if file_of(view).endswith(".webp") else {})
