"""Where a network errs, as pictures: squared error of luma pixel by pixel, and what changed between two networks.

Colours mean the same in every picture of every run, unless another top is asked for. Pictures hold one byte a pixel and
a palette (Pillow's mode "P"): quick to write and small. A bar tells what the colours mean, as data for a page
(`error_bar`, `difference_bar`) or drawn below a picture (`with_bar`).
"""

from __future__ import annotations

import io
import math
import zlib
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont

# Chosen by looking at published RDN and bicubic pictures of Set5, and at product shots, plain and with JPEG's noise.
# Bicubic errs by 40 and more grey levels at the hardest edges only; noise of 1 or 2 in flat areas must show beside it,
# which a square root leaves black and a fourth root makes violet.
TOP = 1600.0  # grey levels squared
ROOT = 4
DIFFERENCE_TOP = 10.0  # grey levels: RDN and bicubic differ by more at edges only; JPEG noise of 2 is still pink

# Stops of matplotlib's magma (perceptually even, by van der Walt and Smith) and of RdBu, turned (ColorBrewer 2, by
# Brewer and others, safe for the colour-blind): written down, so that drawing needs no matplotlib. Between two stops
# colours are interpolated, here as in a page's gradient.
MAGMA = (
    "000004 0a0822 1d1146 36106a 50127c 691c81 822681 9c2e7f b63779 cf4170 e65163 f5695c fb8761 fea571 fec387 fde0a2 "
    "fcfdbf"
)
BLUE_RED = "053061 2166ac 4393c3 92c5de d1e5f0 f7f7f7 fddbc7 f4a582 d6604d b2182b 67001f"
LAST = 240  # palette index of the last colour: 16 and 10 steps from stop to stop divide it
GRAYS = 15  # from white to black: the palette's other entries, for the bar's text

BAR_HEIGHT = 12
MARGIN = 12
TEXT = 13
NARROWEST, WIDEST = 420, 720  # pixels: room for the text below narrow pictures; no longer bar below wide ones

Plane = npt.NDArray[np.float32]


@dataclass(frozen=True)
class ScaleBar:
    """What colours mean.

    title: what is shown, in which unit and on which scale. stops: colours as "#rrggbb", evenly spaced, with straight
    lines between them. ticks: places in [0, 1] from the first colour to the last, and their labels.
    """

    title: str
    stops: tuple[str, ...]
    ticks: tuple[tuple[float, str], ...]

    @property
    def css(self) -> str:
        """A background for a page's element that is as wide as the bar."""
        return f"linear-gradient(to right, {', '.join(self.stops)})"


def squared_error(a: npt.NDArray[np.floating], b: npt.NDArray[np.floating]) -> Plane:
    """Squared difference of two luma planes [H, W] in grey levels: float32 [H, W] in [0, 65025]."""
    error: Plane = np.square(np.subtract(a, b, dtype=np.float32))
    return error


def heat_map(error: Plane, top: float = TOP) -> Image.Image:
    """Colour a squared error: black for none, through purple and orange to pale yellow for `top` and more.

    Colours go by the fourth root: with TOP, an error of 1 grey level has 16 % of the scale and one of 10 half of it.

    Args:
        error: as `squared_error` gives, float32 [H, W].
        top: grey levels squared. Leave it, and pictures can be compared; the largest error of one spreads its colours.

    Returns:
        A picture of W x H pixels, mode "P".

    Raises:
        ValueError: `top` is not above 0.
    """
    scaled = error / np.float32(_positive(top))
    for _ in range(2):  # much faster than a power of 1 / ROOT
        np.sqrt(scaled, out=scaled)
    return _picture(scaled, MAGMA)


def difference(challenger: Plane, champion: Plane, top: float = DIFFERENCE_TOP) -> Image.Image:
    """Where a challenger is better (blue) or worse (red) than the champion; nearly white where both are equal.

    Args:
        challenger, champion: squared errors of the two, float32 [H, W].
        top: grey levels by which the absolute error of the challenger is larger (darkest red) or smaller (darkest
            blue).

    Returns:
        A picture of W x H pixels, mode "P".

    Raises:
        ValueError: `top` is not above 0.
    """
    scaled = np.sqrt(challenger) - np.sqrt(champion)
    scaled *= np.float32(0.5 / _positive(top))
    scaled += np.float32(0.5)
    return _picture(scaled, BLUE_RED)


def error_bar(top: float = TOP) -> ScaleBar:
    """The bar of `heat_map` with the same `top`; ticks at powers of ten."""
    largest = 10.0 ** math.floor(math.log10(_positive(top) * 0.8**ROOT))  # its label stays clear of the last one's
    ticks = [((value / top) ** (1 / ROOT), f"{value:g}") for value in (0, largest / 100, largest / 10, largest)]
    title = "squared error of luma, grey levels squared, fourth-root scale"
    return ScaleBar(title, _stops(MAGMA), (*ticks, (1.0, f">= {top:.4g}")))


def difference_bar(top: float = DIFFERENCE_TOP) -> ScaleBar:
    """The bar of `difference` with the same `top`."""
    half, full = f"{_positive(top) / 2:.4g}", f"{top:.4g}"
    ticks = ((0.0, f">= {full} better"), (0.25, half), (0.5, "0"), (0.75, half), (1.0, f">= {full} worse"))
    return ScaleBar("error of luma against the champion's, grey levels", _stops(BLUE_RED), ticks)


def with_bar(picture: Image.Image, bar: ScaleBar) -> Image.Image:
    """A heat map or difference with its labelled bar below, to stand alone; mode "P" as before, on white."""
    width = max(picture.width, NARROWEST)
    length = min(width, WIDEST) - 2 * MARGIN
    legend = Image.new("L", (width, 2 * MARGIN + BAR_HEIGHT + 2 * (TEXT + 7)), 255)
    draw = ImageDraw.Draw(legend)
    font = ImageFont.load_default(TEXT)
    draw.text((MARGIN, MARGIN // 2), bar.title, fill=0, font=font)
    top = MARGIN // 2 + TEXT + 7
    bottom = top + BAR_HEIGHT
    for place, label in bar.ticks:
        x = MARGIN + round(place * (length - 1))
        draw.line((x, bottom, x, bottom + 4), fill=0)
        anchor = "la" if place == 0 else "ra" if place == 1 else "ma"  # the outer labels stay below the bar
        draw.text((x, bottom + 6), label, fill=0, font=font, anchor=anchor)
    white = LAST + 1
    canvas = np.full((picture.height + legend.height, width), white, np.uint8)
    canvas[: picture.height, : picture.width] = np.asarray(picture)
    below = canvas[picture.height :]
    below += np.rint((255 - np.asarray(legend, np.float32)) * ((GRAYS - 1) / 255)).astype(np.uint8)
    below[top:bottom, MARGIN : MARGIN + length] = np.rint(np.linspace(0, LAST, length))
    image = Image.fromarray(canvas)
    image.putpalette(picture.getpalette() or [])
    return image


def png(picture: Image.Image) -> bytes:
    """The PNG file of a picture of this module, quickly: of noise only the frequencies of bytes and runs compress."""
    stream = io.BytesIO()
    picture.save(stream, format="PNG", compress_level=1, compress_type=zlib.Z_RLE)
    return stream.getvalue()


def _picture(scaled: Plane, stops: str) -> Image.Image:
    """Colour float32 [H, W], 0 the first colour and 1 the last, what lies beyond as they; changes its argument."""
    scaled *= LAST
    scaled += np.float32(0.5)  # rounds to the nearest colour below
    np.clip(scaled, 0, LAST, out=scaled)
    image = Image.fromarray(scaled.astype(np.uint8))
    image.putpalette(_palette(stops))
    return image


def _palette(stops: str) -> bytes:
    """256 RGB colours: the map's up to LAST, then grays from white to black."""
    known = np.array([list(bytes.fromhex(stop)) for stop in stops.split()])
    at = np.linspace(0, LAST, len(known))
    colours = np.stack([np.interp(np.arange(LAST + 1), at, channel) for channel in known.T], axis=1)
    grays = np.linspace(255, 0, GRAYS)[:, None].repeat(3, axis=1)
    return bytes(np.rint(np.concatenate([colours, grays])).astype(np.uint8))


def _stops(stops: str) -> tuple[str, ...]:
    return tuple(f"#{stop}" for stop in stops.split())


def _positive(top: float) -> float:
    if not top > 0:
        raise ValueError(f"the top of a colour scale must be above 0, not {top}")
    return top
