"""Draw docs/images/degradations.png: one crop of a product shot under each degradation.

    dvc pull data.dvc
    python docs/degradations.py

Another picture or crop: `python docs/degradations.py --image SHOT.png --at X Y --out OUT.png`; X Y is the crop's top
left corner in low-resolution pixels.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from loupe.imaging.degradations import Settings, apply
from loupe.imaging.files import read_image, write_png
from loupe.imaging.metrics import luma, psnr
from loupe.imaging.resize import Pixels

SCALE = 2
WIDTH, HEIGHT = 88, 64  # of the crop, low-resolution pixels
ZOOM = 4  # each low-resolution pixel becomes a square of this side; a multiple of SCALE
GAP, CAPTION = 20, 52  # around and above each panel, pixels of the drawing
COLUMNS = 3
PAPER, INK, FAINT = "#ffffff", "#1c2430", "#667080"

PANELS = (
    ("Bicubic", "the reduction alone; dB compare with it", Settings()),
    ("Blur", "sigma 1.5 HR pixels", Settings(blur_sigma=1.5)),
    ("Shot noise", "1000 photons at white", Settings(shot_peak=1000)),
    ("Gaussian noise", "sigma 6 grey levels", Settings(noise_sigma=6)),
    ("JPEG 75", "4:2:0: colour at half the resolution", Settings(jpeg_quality=75)),
    ("JPEG 40", "4:2:0, the worst by default", Settings(jpeg_quality=40)),
    ("JPEG 20", "4:2:0, worse than any default", Settings(jpeg_quality=20)),
    ("All together", "blur 0.8, shot 4000, noise 2, JPEG 60", Settings(0.8, 4000, 2, 60)),
)


def main() -> None:
    """Degrade the whole picture by each of PANELS, and lay out the same crop of all."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--image", type=Path, default=Path("data/products/bottle-orange-juice.png"))
    parser.add_argument("--at", type=int, nargs=2, default=(117, 183), metavar=("X", "Y"))
    parser.add_argument("--out", type=Path, default=Path("docs/images/degradations.png"))
    options = parser.parse_args()
    hr = read_image(options.image).rgb
    x, y = options.at
    part = np.s_[y : y + HEIGHT, x : x + WIDTH]
    clean = apply(hr, SCALE, Settings(), np.random.default_rng(0), part)
    sharp = hr[y * SCALE : (y + HEIGHT) * SCALE, x * SCALE : (x + WIDTH) * SCALE]
    panels = [("High resolution", "the target", "", enlarged(sharp, ZOOM // SCALE))]
    for title, note, settings in PANELS:
        lr = apply(hr, SCALE, settings, np.random.default_rng(0), part)
        distance = "" if settings == Settings() else f"{psnr(luma(lr), luma(clean)):.1f} dB"
        panels.append((title, note, distance, enlarged(lr, ZOOM)))
    write_png(options.out, laid_out(panels))


def enlarged(image: Pixels, times: int) -> Pixels:
    """Each pixel of uint8 [H, W, 3] as a square of `times` x `times`."""
    return image.repeat(times, axis=0).repeat(times, axis=1)


def laid_out(panels: list[tuple[str, str, str, Pixels]]) -> Pixels:
    """A grid of pictures of one size, each below its title, a note and a figure at the right."""
    width, height = WIDTH * ZOOM, HEIGHT * ZOOM
    rows = -(-len(panels) // COLUMNS)
    size = (GAP + COLUMNS * (width + GAP), GAP + rows * (height + CAPTION + GAP))
    sheet = Image.new("RGB", size, PAPER)
    pen = ImageDraw.Draw(sheet)
    large, small = ImageFont.load_default(21), ImageFont.load_default(15)
    for i, (title, note, figure, pixels) in enumerate(panels):
        left, top = GAP + i % COLUMNS * (width + GAP), GAP + i // COLUMNS * (height + CAPTION + GAP)
        pen.text((left, top + 22), title, INK, large, anchor="ls")
        pen.text((left, top + 43), note, FAINT, small, anchor="ls")
        pen.text((left + width, top + 43), figure, FAINT, small, anchor="rs")
        sheet.paste(Image.fromarray(pixels), (left, top + CAPTION))
        pen.rectangle((left - 1, top + CAPTION - 1, left + width, top + CAPTION + height), outline="#d4d8de")
    return np.asarray(sheet)


if __name__ == "__main__":
    main()
