"""What a report shows of each picture: every version of it as a file, and the article's comparison side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from loupe.evaluation.heatmap import difference, error_bar, heat_map, png, squared_error, with_bar
from loupe.evaluation.pairs import Pair
from loupe.imaging.metrics import luma32
from loupe.imaging.resize import Pixels

# Twice as fast as the fastest PNG, and a quarter smaller; every pixel as it is.
LOSSLESS: dict[str, Any] = {"lossless": True, "quality": 0, "method": 0, "exact": True}
MAPS = ("heat", "difference")
WEBP_LIMIT = 16383  # pixels
THUMBNAIL = 320  # pixels: longer side
LARGEST = 640  # pixels: of a larger picture the most detailed window of this size is shown
MARGIN = 12
HEADING, SMALL = 17, 14  # text heights in pixels


def write_views(
    report: Path,
    number: int,
    pair: Pair,
    enlarged: dict[str, Pixels],
    scale: int,
    captions: tuple[str, str],
    own_range: bool = False,
) -> str:
    """Write every version of one picture, and the comparison.

    Args:
        report: folder of the report; gets pictures/NUMBER/ with lr, hr, sr, bicubic and thumb as .webp and heat.png,
            with a champion champion.webp and difference.png as well; and comparisons/SET/NAME.png.
        number: of the picture; a file's name, which may be anything, never becomes part of an address in the page.
        pair, enlarged, scale: see `score_picture`.
        captions: what is said of the model's picture and of bicubic enlargement, see `comparison`.
        own_range: also write heat-own.png, the error map from none to this picture's own largest error, with its bar.

    Returns:
        The folder of its pictures, relative to `report`.

    Raises:
        ValueError: it has more pixels on a side than the files can hold.
    """
    if max(pair.hr.shape[:2]) > WEBP_LIMIT:
        raise ValueError(f"over {WEBP_LIMIT} pixels on a side, too large for the report; score it without one")
    ours, bicubic = next(iter(enlarged.values())), enlarged["bicubic"]
    folder = f"pictures/{number:04}"
    place = report / folder
    place.mkdir(parents=True)
    views = {"lr": pair.lr, "hr": pair.hr, "sr": ours, "bicubic": bicubic}
    error = squared_error(luma32(pair.hr), luma32(ours))
    maps = {"heat": heat_map(error)}
    if "champion" in enlarged:
        views["champion"] = enlarged["champion"]
        maps["difference"] = difference(error, squared_error(luma32(pair.hr), luma32(enlarged["champion"])))
    if own_range:
        top = max(float(error.max()), 1.0)
        (place / "heat-own.png").write_bytes(png(with_bar(heat_map(error, top), error_bar(top))))
    for name, pixels in views.items():
        Image.fromarray(pixels).save(place / file_of(name), **LOSSLESS)
    for name, picture in maps.items():
        (place / file_of(name)).write_bytes(png(picture))
    thumbnail = Image.fromarray(ours)
    thumbnail.thumbnail((THUMBNAIL, THUMBNAIL), reducing_gap=2)
    thumbnail.save(place / "thumb.webp", quality=82)
    size = f"Input\n{pair.lr.shape[1]} x {len(pair.lr)} pixels"
    panels = comparison(pair.lr, ours, bicubic, scale, (size, f"Network\n{captions[0]}", f"Bicubic\n{captions[1]}"))
    path = report / "comparisons" / pair.set / pair.name
    path.parent.mkdir(parents=True, exist_ok=True)
    path = path if path.suffix == ".png" else path.with_name(f"{path.name}.png")
    panels.save(path, compress_level=1)  # four times as fast as 6
    return folder


def file_of(view: str) -> str:
    """The name of the file that holds a view: maps have a palette, which PNG keeps small."""
    return f"{view}.png" if view in MAPS else f"{view}.webp"


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
    """The window of at most `largest` pixels a side in which luma changes most, of uint8 [H, W(, 3)]."""
    plane = luma32(image)
    slope = np.zeros(plane.shape, np.float64)
    slope[1:] += np.abs(np.diff(plane, axis=0))
    slope[:, 1:] += np.abs(np.diff(plane, axis=1))
    height, width = (min(side, largest) for side in plane.shape)
    sums = np.pad(slope, ((1, 0), (1, 0))).cumsum(axis=0).cumsum(axis=1)
    windows = sums[height:, width:] - sums[:-height, width:] - sums[height:, :-width] + sums[:-height, :-width]
    y, x = (int(place) for place in np.unravel_index(windows.argmax(), windows.shape))
    return slice(y, y + height), slice(x, x + width)
