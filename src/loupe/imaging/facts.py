"""What can be known of one image file without another to compare it with: `measure(path)` gives its `Facts`.

Made to cost little beside decoding, which happens once, from bytes that are read once. Facts of pixels are measured on
samples of the decoded picture, which is never copied as a whole:

- the lattice: up to 512 x 512 single pixels, evenly spread; smaller pictures whole. For shares, moments and the hash.
- steps: the differences of up to 192 x 192 evenly spread pixels to their neighbours below and to the right.
- tiles: 72 x 72 pixels in full resolution, in columns and rows that are multiples of 72. 10 `textured` ones, where
  steps are strongest, for what only texture shows; 10 `spread` ones, from the strongest to the weakest, for the others.
  On packshots most tiles are white, and an average over all of them would say little about the product.

Pixels are 8-bit, as stored: composited on white, with no ICC profile applied. Luma is Pillow's, BT.601 in full range:
Y = 0.299 R + 0.587 G + 0.114 B, 0 to 255.
"""

from __future__ import annotations

import hashlib
import io
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms, JpegImagePlugin
from scipy.fft import rfft

from loupe.imaging.files import (
    DECODER_ERRORS,
    FORMATS,
    Decoded,
    ImageError,
    decoded,
    eight_bits,
    expanded,
    on_white,
    read_bytes,
    upright,
)
from loupe.imaging.likeness import perceptual_hash
from loupe.imaging.resize import Pixels

LATTICE, STEPS = 512, 192  # pixels a side, at most
TILE, TILES = 72, 10  # TILE: a multiple of 2, 3 and 8, so that in all tiles a grid of these begins at the same place
LEAST = 16  # pixels a side of a tile: below, two borders of JPEG's blocks and a spectrum do not fit
WHITE = 250  # the least level of all three channels that counts as white
FLAT = 3  # levels: steps below it are flat, as in the patch index
EDGE = 24  # levels: steps of at least so much are edges, as in the evaluation
FAINT = 1.0  # levels, root mean square: with less texture than this nothing can be said about its detail
CLIPPED = (2, 253)  # levels: blocks that reach one of them may be clipped, which hides noise
SIDEWAYS = 5  # from this EXIF orientation on width and height change places
# Annex K.1 of the JPEG standard, as libjpeg scales it: luma, natural order
STANDARD_LUMA = (
    *(16, 11, 10, 16, 24, 40, 51, 61),
    *(12, 12, 14, 19, 26, 58, 60, 55),
    *(14, 13, 16, 24, 40, 57, 69, 56),
    *(14, 17, 22, 29, 51, 87, 80, 62),
    *(18, 22, 37, 56, 68, 109, 103, 77),
    *(24, 35, 55, 64, 81, 104, 113, 92),
    *(49, 64, 78, 87, 103, 121, 120, 101),
    *(72, 92, 95, 98, 112, 100, 103, 99),
)
SUBSAMPLING = {0: "4:4:4", 1: "4:2:2", 2: "4:2:0"}  # by Pillow's numbers

Tiles: TypeAlias = Pixels  # uint8 [N, h, w] of luma, h and w at most TILE
Steps: TypeAlias = npt.NDArray[np.int16]  # levels, -255 to 255

NAN = float("nan")


@dataclass(frozen=True)
class Facts:
    """What is known of one image file. Where it cannot be decoded all is "", 0, False or NaN, but the first four.

    decodable: whether `read_image` takes it.
    error: why not, and what to do; else "".
    bytes: size of the file; 0 if it cannot be read.
    sha256: of the file, 64 hexadecimal digits; "" if it cannot be read.

    format: Pillow's name, by content: PNG, JPEG, MPO, WEBP, TIFF, BMP, GIF or AVIF.
    suffix_matches: whether the name's suffix is one of that format.
    mode: Pillow's name of what a pixel is: RGB, RGBA, L, P, CMYK, I;16 and so on.
    width, height: pixels, after the EXIF orientation; from 1.
    frames: from 1; all facts are of the first.
    orientation: EXIF, 1 (upright) to 8; 1 where there is none.
    icc: description of the embedded colour profile; "" without one, "damaged" if it cannot be read.
    perceptual_hash: 256 bits as 64 hexadecimal digits, from the upright picture; files of one picture differ in few
        bits (`loupe.imaging.likeness`). The sampling costs 3 bits on average, 16 at most.
    jpeg_quality: 1 to 100, by libjpeg's scale, from the luma quantisation table; NaN for other formats.
    jpeg_subsampling: of colour, 4:4:4, 4:2:2, 4:2:0 or "other"; "" for other formats and gray.

    alpha_share: share of pixels that are not opaque, 0 to 1.
    white_share: share of pixels with all channels at 250 or more, 0 to 1.
    brightness: mean luma, levels, 0 (black) to 255.
    contrast: standard deviation of luma, levels, 0 to 127.5.
    colourfulness: see `colourfulness`; 0 is gray, from about 80 strong; can reach 200.
    entropy: of the luma histogram, bits, 0 (one level) to 8.
    flat_share: share of pixels whose steps to the right and below are under 3 levels, 0 to 1; NaN if a side is 1.
    edge_density: share of pixels whose gradient is at least 24 levels, 0 to 1; NaN if a side is 1.

    NaN if a side is under 16 pixels:
    sharpness: variance of the Laplacian of luma on textured tiles, squared levels, from 0.
    detail: strength of the finest structures on textured tiles, relative to that of coarser ones; see `detail`. Tells
        pictures that were enlarged. NaN also where nothing has texture.
    doubling: how far pixels repeat their neighbours in twos or threes, 0 to 1; see `doubling`. Tells pictures that were
        enlarged by repeating pixels. NaN also without any step.
    blockiness: strength of an 8 x 8 grid, 1 without one; see `blockiness`.
    noise: standard deviation of noise in quiet parts, levels, from 0; see `noise`. NaN also where all is clipped.
    """

    decodable: bool
    error: str
    bytes: int
    sha256: str
    format: str = ""
    suffix_matches: bool = False
    mode: str = ""
    width: int = 0
    height: int = 0
    frames: int = 0
    orientation: int = 0
    icc: str = ""
    perceptual_hash: str = ""
    jpeg_quality: float = NAN
    jpeg_subsampling: str = ""
    alpha_share: float = NAN
    white_share: float = NAN
    brightness: float = NAN
    contrast: float = NAN
    colourfulness: float = NAN
    entropy: float = NAN
    flat_share: float = NAN
    edge_density: float = NAN
    sharpness: float = NAN
    detail: float = NAN
    doubling: float = NAN
    blockiness: float = NAN
    noise: float = NAN


@dataclass(frozen=True)
class Samples:
    """What is taken of a decoded picture to measure it.

    alpha_share: as in `Facts`. rgb: uint8 [h, w, 3], the lattice at up to STEPS pixels a side. luma: uint8 [h, w], the
    lattice, upright. below, right: see `steps`. textured, spread: see `tiles`.
    """

    alpha_share: float
    rgb: Pixels
    luma: Pixels
    below: Steps
    right: Steps
    textured: Tiles
    spread: Tiles


def measure(path: Path) -> Facts:
    """The facts of `path`, whatever it is: what is no picture that can be decoded is said so, and raises nothing."""
    size, digest = 0, ""
    try:
        data = read_bytes(path)
        size, digest = len(data), hashlib.sha256(data).hexdigest()
        with decoded(path, data) as picture:
            header = header_facts(picture, path)
            samples = sampled(eight_bits(picture.image, path), picture.orientation)
    except ImageError as error:
        return refused(str(error).removeprefix(f"{path}: "), size, digest)
    return Facts(decodable=True, error="", bytes=size, sha256=digest, **header, **pixel_facts(samples))


def refused(error: str, size: int = 0, sha256: str = "") -> Facts:
    """The facts of a file that is not decoded, for the reason `error`; size in bytes and sha256 if they are known."""
    return Facts(decodable=False, error=error, bytes=size, sha256=sha256)


def header_facts(picture: Decoded, path: Path) -> dict[str, Any]:
    """The facts, by name, that a decoded file's header tells."""
    image = picture.image
    kind = image.format or ""
    width, height = image.size if picture.orientation < SIDEWAYS else reversed(image.size)
    profile = image.info.get("icc_profile")
    header = {
        "format": kind,
        "suffix_matches": path.suffix.lower() in FORMATS.get(kind, ()),
        "mode": image.mode,
        "width": width,
        "height": height,
        "frames": picture.frames,
        "orientation": picture.orientation,
        "icc": icc_description(profile) if profile else "",
    }
    if isinstance(image, JpegImagePlugin.JpegImageFile):  # MPO is one too
        if table := image.quantization.get(0):
            header["jpeg_quality"] = jpeg_quality(table)
        if len(image.getbands()) == 3:
            header["jpeg_subsampling"] = SUBSAMPLING.get(JpegImagePlugin.get_sampling(image), "other")
    return header


def sampled(image: Image.Image, orientation: int) -> Samples:
    """Take the samples of a decoded picture of 8 bits, whose EXIF orientation is 1 to 8."""
    lattice = _plain(image.resize([min(side, LATTICE) for side in image.size], Image.Resampling.NEAREST))
    colours = lattice.resize([min(side, STEPS) for side in image.size], Image.Resampling.NEAREST)
    luma = _luma(lattice)
    below, right = steps(image)
    textured, spread = tiles(image, np.abs(below) + np.abs(right))
    return Samples(
        alpha_share=float(np.mean(np.asarray(colours.getchannel("A")) < 255)) if "A" in colours.getbands() else 0.0,
        rgb=np.asarray(on_white(colours).convert("RGB")),
        luma=np.asarray(upright(luma, orientation)),
        below=below,
        right=right,
        textured=textured,
        spread=spread,
    )


def pixel_facts(samples: Samples) -> dict[str, Any]:
    """The facts, by name, that pixels tell."""
    levels = samples.luma[:: 1 + (len(samples.luma) > STEPS), :: 1 + (samples.luma.shape[1] > STEPS)]
    brightness, contrast, entropy = tones(levels)
    return {
        "perceptual_hash": perceptual_hash(samples.luma).tobytes().hex(),
        "alpha_share": samples.alpha_share,
        "white_share": white_share(samples.rgb),
        "brightness": brightness,
        "contrast": contrast,
        "colourfulness": colourfulness(samples.rgb),
        "entropy": entropy,
        "flat_share": flat_share(samples.below, samples.right),
        "edge_density": edge_density(samples.below, samples.right),
        "sharpness": sharpness(samples.textured),
        "detail": detail(samples.textured),
        "doubling": doubling(samples.textured),
        "blockiness": blockiness(samples.spread),
        "noise": noise(samples.spread),
    }


def steps(image: Image.Image) -> tuple[Steps, Steps]:
    """Differences of luma to the pixel below and the one to the right, at STEPS x STEPS evenly spread pixels.

    Args:
        image: decoded, of any mode that converts to RGB, H x W.

    Returns:
        Two int16 [min(H - 1, STEPS), min(W - 1, STEPS)] of levels; without elements if a side is 1.
    """
    width, height = image.size
    inner = (min(width - 1, STEPS), min(height - 1, STEPS))
    if not all(inner):
        return np.empty((0, 0), np.int16), np.empty((0, 0), np.int16)

    def moved(x: int, y: int) -> Steps:  # the same pixels, moved by (x, y)
        box = (x, y, x + width - 1, y + height - 1)
        return np.asarray(_luma(_plain(image.resize(inner, Image.Resampling.NEAREST, box)))).astype(np.int16)

    here = moved(0, 0)
    return moved(0, 1) - here, moved(1, 0) - here


def tiles(image: Image.Image, activity: Steps) -> tuple[Tiles, Tiles]:
    """Textured and spread tiles of a picture, as the head of this file says.

    Args:
        image: decoded, of any mode that converts to RGB, H x W.
        activity: size of the steps at evenly spread pixels, int16 [m, n], as `steps` takes them.

    Returns:
        Two uint8 [up to TILES, min(H, TILE), min(W, TILE)] of luma; without tiles if a side is under LEAST. The spread
        ones leave out tiles that hold one level only, as white background does, unless there are no others.
    """
    shape = tuple(min(side, TILE) for side in reversed(image.size))
    if min(shape) < LEAST:
        return (np.empty((0, *shape), np.uint8),) * 2
    strength, corners = activity.astype(np.float32), []
    for axis, side in enumerate(reversed(image.size)):
        samples = activity.shape[axis]
        tile = ((np.arange(samples) + 0.5) * (side - 1) / samples).astype(np.int64) // TILE
        number, first = np.unique(tile[tile <= side // TILE - 1] if side > TILE else tile, return_index=True)
        last = np.append(first[1:], np.count_nonzero(tile <= number[-1]))
        strength = np.add.reduceat(strength.take(np.arange(last[-1]), axis), first, axis)
        strength /= np.expand_dims(last - first, 1 - axis)
        corners.append(number * TILE)
    order = np.argsort(-strength, axis=None, kind="stable")
    lively = order[: max(1, np.count_nonzero(strength))]
    spread = lively[np.unique(np.linspace(0, len(lively) - 1, TILES).round().astype(np.int64))]
    chosen = [np.unravel_index(places, strength.shape) for places in (order[:TILES], spread)]

    mode = _plain(image.crop((0, 0, 1, 1))).mode

    def cut(places: tuple[npt.NDArray[np.intp], ...]) -> Tiles:
        height, width = shape
        strip = Image.new(
            mode, (width, height * len(places[0]))
        )  # one conversion for all: each costs more than its work
        for number, (y, x) in enumerate(zip(corners[0][places[0]], corners[1][places[1]], strict=True)):
            strip.paste(_plain(image.crop((x, y, x + width, y + height))), (0, number * height))
        return np.asarray(_luma(strip)).reshape(-1, height, width)

    return cut(chosen[0]), cut(chosen[1])


def white_share(rgb: Pixels) -> float:
    """Share of uint8 [..., 3] whose three channels are all at WHITE or above, 0 to 1."""
    least = np.minimum(np.minimum(rgb[..., 0], rgb[..., 1]), rgb[..., 2])  # min(axis=-1) takes 20 times as long
    return float(np.mean(least >= WHITE))


def colourfulness(rgb: Pixels) -> float:
    """Colourfulness of uint8 [..., 3], from 0 for gray.

    Hasler and Suesstrunk, "Measuring colorfulness in natural images", 2003: with rg = R - G and yb = (R + G) / 2 - B,
    sqrt(var(rg) + var(yb)) + 0.3 sqrt(mean(rg)^2 + mean(yb)^2). Their viewers called 15 slightly, 45 averagely and 82
    highly colourful.
    """
    red, green, blue = (rgb[..., channel].astype(np.float32) for channel in range(3))
    rg, yb = red - green, (red + green) / 2 - blue
    return float(np.sqrt(rg.var() + yb.var()) + 0.3 * np.hypot(rg.mean(), yb.mean()))


def tones(luma: Pixels) -> tuple[float, float, float]:
    """Mean and standard deviation of the levels of uint8 [...], and the Shannon entropy of their histogram in bits."""
    share = np.bincount(luma.ravel(), minlength=256) / luma.size
    levels = np.arange(256)
    mean = float(share @ levels)
    deviation = float(np.sqrt(share @ (levels - mean) ** 2))
    some = share[share > 0]
    return mean, deviation, float(-(some * np.log2(some)).sum()) + 0.0  # + 0.0: no negative zero


def flat_share(below: Steps, right: Steps) -> float:
    """Share of pixels both of whose steps (int16 [...], levels) are under FLAT, 0 to 1; NaN without pixels."""
    return float(np.mean(np.maximum(np.abs(below), np.abs(right)) < FLAT)) if below.size else NAN


def edge_density(below: Steps, right: Steps) -> float:
    """Share of pixels whose gradient, of two steps (int16 [...], levels), is at least EDGE, 0 to 1; NaN without."""
    if not below.size:
        return NAN
    square = below.astype(np.int32) ** 2 + right.astype(np.int32) ** 2
    return float(np.mean(square >= EDGE**2))


def sharpness(tiles: Tiles) -> float:
    """Variance of the Laplacian (4-neighbour) of uint8 [N, h, w] luma, squared levels; NaN without tiles.

    Pech-Pacheco et al., "Diatom autofocusing in brightfield microscopy", 2000.
    """
    if not len(tiles):
        return NAN
    y = tiles.astype(np.int16)
    inner = y[:, 1:-1, 1:-1]
    laplacian = y[:, :-2, 1:-1] + y[:, 2:, 1:-1] + y[:, 1:-1, :-2] + y[:, 1:-1, 2:] - 4 * inner
    return float(laplacian.astype(np.float32).var())


def detail(tiles: Tiles) -> float:
    """Amplitude at 0.3 to 0.5 cycles a pixel over that at 0.1 to 0.25, of textured uint8 [N, h, w] luma.

    A picture that was enlarged twofold holds nothing beyond 0.25 cycles a pixel but what the interpolation lets
    through, noise, and marks of compression. Spectra are taken along rows and columns under a Hann window and their
    power summed over all tiles, so the strongest edges count most. NaN without tiles, or where the coarser structures
    are under FAINT.
    """
    if not len(tiles):
        return NAN
    y = tiles.astype(np.float32)
    fine = coarse = 0.0
    for plane in (y, y.swapaxes(1, 2)):
        side = plane.shape[2]
        window = np.hanning(side + 2)[1:-1].astype(np.float32)
        spectrum = rfft((plane - plane.mean(axis=2, keepdims=True)) * window, axis=2)
        power = (spectrum.real**2 + spectrum.imag**2).mean(axis=(0, 1), dtype=np.float64)
        power *= 2 / (side * float((window**2).sum()))  # sums to the variance
        frequency = np.arange(len(power)) / side
        fine += float(power[frequency >= 0.3].sum())
        coarse += float(power[(frequency >= 0.1) & (frequency <= 0.25)].sum())
    return float(np.sqrt(fine / coarse)) if coarse >= 2 * FAINT**2 else NAN


def doubling(tiles: Tiles) -> float:
    """How far textured uint8 [N, h, w] luma steps at every second or third pixel only, 0 to 1.

    All tiles must begin at multiples of 2 and 3.

    1 where each pixel is repeated, as nearest-neighbour enlargement does, which leaves enough fine structure to pass
    as `detail`. Sizes of steps are summed by the place of the step, modulo 2 and modulo 3; 1 minus the least sum over
    the greatest; of rows and columns the lesser, of 2 and 3 the greater. NaN without tiles or steps.
    """
    if not len(tiles):
        return NAN
    y = tiles.astype(np.int16)
    lines = [np.abs(np.diff(y, axis=axis)).sum(axis=0, dtype=np.int64).sum(axis=2 - axis) for axis in (1, 2)]
    if not all(line.any() for line in lines):
        return NAN

    def uneven(line: npt.NDArray[np.int64], period: int) -> float:
        sums = line[: len(line) // period * period].reshape(-1, period).sum(axis=0)
        return float(1 - sums.min() / max(1, sums.max()))

    return max(min(uneven(line, period) for line in lines) for period in (2, 3))


def blockiness(tiles: Tiles) -> float:
    """Strength of an 8 x 8 grid in uint8 [N, h, w] luma whose tiles begin at multiples of 8; 1 without one.

    Of each 2 x 2 pixels the mixed difference |a - b - c + d| is taken, at most 16 levels of it: straight edges and
    slopes give 0, and blocks that were rounded each for itself give most where four pixels lie in two blocks. Its mean
    on the strongest of each eight columns, over the mean of the three next, which rules out finer grids; the same for
    rows; geometric mean of both. The grid may begin anywhere, as in a cropped picture. NaN without tiles.

    After Li et al., "Passive detection of doctored JPEG image via block artifact grid extraction", 2009, which takes
    second differences and the median where this takes mixed ones and a limit.
    """
    if not len(tiles):
        return NAN
    y = tiles.astype(np.int16)
    down = y[:, 1:] - y[:, :-1]
    mixed = np.minimum(np.abs(down[:, :, 1:] - down[:, :, :-1]), 16).sum(axis=0, dtype=np.int32) / len(y)
    ratio = 1.0
    for line in (mixed.mean(axis=0), mixed.mean(axis=1)):
        phase = np.sort([line[start::8].mean() for start in range(8)])
        ratio *= (phase[-1] + 0.01) / (phase[-4:-1].mean() + 0.01)  # 0.01: where there is nothing at all, no grid
    return float(np.sqrt(ratio))


def noise(tiles: Tiles) -> float:
    """Standard deviation of noise in uint8 [N, h, w] luma, levels, from its quiet parts.

    Immerkaer, "Fast noise variance estimation", 1996: sqrt(pi / 2) / 6 times the mean of |luma * M|, where the mask M,
    the outer product of [1, -2, 1] with itself, does not see slopes and straight edges along the axes. Here of each
    20 x 20 pixels, and of those the lower quartile, for texture looks like noise. Blocks with levels at CLIPPED or
    beyond are left out, for there noise is cut off; NaN without others. Pure noise is underrated by about 4 %.
    """
    if not len(tiles):
        return NAN
    y = tiles.astype(np.int16)
    down = y[:, 2:] - 2 * y[:, 1:-1] + y[:, :-2]
    response = np.abs(down[:, :, 2:] - 2 * down[:, :, 1:-1] + down[:, :, :-2])
    height, width = (min(20, side) for side in response.shape[1:])

    def blocks(plane: npt.NDArray[np.int16]) -> npt.NDArray[np.int16]:
        rows, columns = plane.shape[1] // height, plane.shape[2] // width
        plane = plane[:, : rows * height, : columns * width]
        return plane.reshape(-1, rows, height, columns, width)

    inner = blocks(y[:, 1:-1, 1:-1])
    # one axis after the other: both at once take several times as long
    whole = (inner.min(axis=2).min(axis=3) > CLIPPED[0]) & (inner.max(axis=2).max(axis=3) < CLIPPED[1])
    mean = blocks(response).sum(axis=2, dtype=np.int32).sum(axis=3) / (height * width)
    sigma = np.sqrt(np.pi / 2) / 6 * mean[whole]
    return float(np.quantile(sigma, 0.25)) if sigma.size else NAN


def jpeg_quality(table: list[int]) -> float:
    """The quality, 1 to 100, at which libjpeg's luma table is nearest to this one of 64 steps in natural order.

    Other encoders have tables of their own: for these it says which of libjpeg's is about as coarse.
    """
    return float(1 + np.abs(_luma_tables() - np.array(table)).sum(axis=1).argmin())


def icc_description(profile: bytes) -> str:
    """The name that an ICC profile gives itself, as far as it can be printed; "damaged" if it cannot be read."""
    try:
        name = ImageCms.getProfileDescription(ImageCms.ImageCmsProfile(io.BytesIO(profile)))
        return "".join(filter(str.isprintable, name)).strip()
    except DECODER_ERRORS:
        return "damaged"


@cache
def _luma_tables() -> npt.NDArray[np.int64]:
    """libjpeg's luma tables of the qualities 1 to 100: int64 [100, 64]."""
    quality = np.arange(1, 101)[:, None]
    percent = np.where(quality < 50, 5000 // quality, 200 - 2 * quality)
    tables: npt.NDArray[np.int64] = np.clip((np.array(STANDARD_LUMA) * percent + 50) // 100, 1, 255)
    return tables


def _plain(part: Image.Image) -> Image.Image:
    """A part of a decoded picture, without palette, its transparency as a band A if it has any."""
    part = expanded(part)
    if part.mode == "LAB":
        return part.convert("RGB")  # the one mode that Pillow makes no luma of
    return part.convert("RGBA") if part.mode in ("PA", "RGBa", "La") else part


def _luma(part: Image.Image) -> Image.Image:
    """Luma of a plain part of a picture, on white, as a picture of mode L."""
    luma = part.convert("L")
    if "A" not in part.getbands():
        return luma
    canvas = Image.new("L", part.size, 255)
    canvas.paste(luma, mask=part.getchannel("A"))
    return canvas
