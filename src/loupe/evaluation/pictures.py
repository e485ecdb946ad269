"""The article's picture: input at the left, network output in the middle, bicubic enlargement at the right."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from loupe.imaging.metrics import luma
from loupe.imaging.resize import Pixels

LARGEST = 640  # pixels: of a larger picture the most detailed window of this size is shown
MARGIN = 12
HEADING, SMALL = 17, 14  # text heights in pixels


def comparison(lr: Pixels, sr: Pixels, bicubic: Pixels, scale: int, captions: tuple[str, str, str]) -> Image.Image:
    """Three panels of the same size side by side, each with its caption.

    Args:
        lr: input, uint8 [h, w(, 3)]; shown enlarged by repeating pixels.
        sr: network output, uint8 [h * scale, w * scale(, 3)].
        bicubic: plain enlargement, like `sr`.
        scale: size factor.
        captions: text below each panel; the first line is set larger.

    Returns:
        An RGB picture. Of sides above LARGEST the window with the most detail is shown, at full size.
    """
    nearest = lr.repeat(scale, axis=0).repeat(scale, axis=1)
    window = detailed_window(sr, LARGEST)
    panels = [Image.fromarray(np.ascontiguousarray(image[window])).convert("RGB") for image in (nearest, sr, bicubic)]
    width, height = panels[0].size
    heading, small = (ImageFont.load_default(size) for size in (HEADING, SMALL))
    lines = max(caption.count("\n") for caption in captions)
    text_height = HEADING + lines * (SMALL + 6) + 2 * MARGIN
    cell = max(width, 230)  # room for the caption below narrow pictures
    canvas = Image.new("RGB", (3 * cell + 4 * MARGIN, height + MARGIN + text_height), "white")
    draw = ImageDraw.Draw(canvas)
    for column, (panel, caption) in enumerate(zip(panels, captions, strict=True)):
        x = MARGIN + column * (cell + MARGIN)
        canvas.paste(panel, (x + (cell - width) // 2, MARGIN))
        title, *rest = caption.split("\n")
        y = 2 * MARGIN + height
        draw.text((x + (cell - width) // 2, y), title, fill="#111", font=heading)
        for number, line in enumerate(rest):
            offset = HEADING + 7 + number * (SMALL + 6)
            draw.text((x + (cell - width) // 2, y + offset), line, fill="#555", font=small)
    return canvas


def detailed_window(image: Pixels, largest: int) -> tuple[slice, slice]:
    """The window of at most `largest` pixels a side with the highest mean gradient of luma in uint8 [H, W(, 3)]."""
    slope = np.hypot(*np.gradient(luma(image))) if min(image.shape[:2]) > 1 else np.zeros(image.shape[:2])
    height, width = (min(side, largest) for side in slope.shape)
    sums = np.pad(slope, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = (int(place) for place in np.unravel_index(windows.argmax(), windows.shape))
    return slice(y, y + height), slice(x, x + width)
