"""Product shots for x2 super-resolution: bottles, cartons, books, cloth, drawn from nothing but code.

    python -m loupe.datasets.products OUT       # writes OUT/NAME.png, one line a file

What for: `data/products`, whose small print a x2 reduction destroys. One function a kind of product, built from the
blocks of studio.py (units here are its delivered pixels too), then CATALOGUE with the variants of each kind. Brands
and texts are invented. A product's random numbers derive from its name and are drawn in a fixed order: a picture
depends on nothing but these two files, NumPy, Pillow and the fonts.

What may change: add a line to CATALOGUE, or a function for a new kind. A line or kind already there is a versioned
picture; if you mean to change it, write all again into data/products, then `dvc add data/products`.

Which test tells: tests/datasets/test_products.py, `test_two_products_match_the_versioned_files` for changed pixels,
the others for size, white ground, fine print and noise.
"""

import argparse
import zlib
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw

from loupe.datasets.studio import (
    Array,
    Art,
    Band,
    Picture,
    Points,
    Rng,
    S,
    Scene,
    carton,
    curve,
    draw_motif,
    ellipse,
    fold_relief,
    project,
    resize,
    rgb,
    rounded,
    sample,
    sheet,
    slab,
    smoothstep,
    studio_light,
    tint,
    turned,
    weave,
)
from loupe.imaging.files import atomic_file

Render = Callable[[Rng], Picture]

SEED = 20240611


# --- kinds of product: one function each ----------------------------------------------------------

FACTS = (
    ("Energy", "368 kJ / 88 kcal"),
    ("Fat", "2.1 g"),
    (" of which saturates", "0.4 g"),
    ("Carbohydrate", "14.6 g"),
    (" of which sugars", "9.8 g"),
    ("Fibre", "3.2 g"),
    ("Protein", "1.7 g"),
    ("Salt", "0.62 g"),
)


class Copy(NamedTuple):
    """What a pack or a tag says."""

    brand: str
    title: str
    claim: str
    small: str  # ingredients, directions: the fine print
    net: str


def _label(
    art: Art, y: float, h: float, w: float, style: str, copy: Copy, inks: Sequence[str], motif: str, rng: Rng
) -> None:
    """A label around the middle column of unrolled artwork: front of width w, small print on both sides.

    inks: paper, ink, accent, extra (here and below).
    """
    paper, ink, accent, extra = inks
    x, cx, x1 = art.width / 2 - w / 2, art.width / 2, art.width / 2 + w / 2
    art.rect(0, y, art.width, y + h, paper)
    side, high = min(110.0, x - 8), y + (h * 0.46 if style == "block" else 12)
    art.para(x - side - 4, high, side - 6, copy.small, 7.5, "sans", ink, bottom=y + h - 6)
    if side > 84 and h > 250:
        art.table(x1 + 10, high, side - 6, FACTS, 7, ink)
    art.barcode(x1 + 12, y + h - 54, 78, 46, rng)
    if style == "classic":
        art.rect(x, y + 6, x1, y + h - 6, ink, line=1.3)
        art.rect(x + 4, y + 10, x1 - 4, y + h - 10, accent, line=0.7)
        draw_motif(art, motif, cx, y + h * 0.2, h * 0.12, (accent, extra, ink))
        art.text(cx, y + h * 0.47, copy.brand, h * 0.19, "stixbold", ink, "ms", fit=w - 24)
        art.line([(x + 20, y + h * 0.515), (x1 - 20, y + h * 0.515)], accent, 1)
        art.text(cx, y + h * 0.62, copy.title, h * 0.085, "stixital", ink, "ms", fit=w - 28)
        art.text(cx, y + h * 0.7, copy.claim.upper(), 8.5, "sans", accent, "ms", tracking=1, fit=w - 26)
        art.para(x + 16, y + h * 0.745, w - 32, copy.small, 8.5, "stix", ink, "m", 1.15, y + h - 24)
        art.text(cx, y + h - 15, copy.net, 10, "stixbold", ink, "ms")
    elif style == "block":
        art.rect(0, y, art.width, y + h * 0.4, accent)
        art.rect(0, y + h * 0.4, art.width, y + h * 0.425, extra)
        art.text(x + 8, y + h * 0.3, copy.brand, h * 0.26, "bold", paper, "ls", fit=w - 16)
        art.text(x + 9, y + h * 0.085, copy.claim.upper(), 8.5, "bold", paper, "ls", tracking=1.2, fit=w - 20)
        draw_motif(art, motif, x1 - w * 0.18, y + h * 0.68, w * 0.17, (extra, accent, ink))
        bottom = art.para(x + 9, y + h * 0.47, w * 0.55, copy.title, h * 0.083, "bold", ink, leading=1.1)
        art.para(x + 9, bottom + 4, w * 0.55, copy.small, 8, "sans", ink, leading=1.2, bottom=y + h - 24)
        art.text(x + 9, y + h - 9, copy.net, 12, "bold", accent, "ls")
    else:  # "upright": the name runs up the front, the rest stands beside it
        name = Art(h - 16, w * 0.42, paper)
        name.text((h - 16) / 2, w * 0.21, copy.brand, w * 0.4, "bold", accent, "mm", fit=h - 24)
        art.upright(name, x, y + 8)
        left = x + w * 0.46
        art.rect(left, y + 12, left + 2, y + h - 12, extra)
        bottom = art.para(left + 9, y + 12, w * 0.5, copy.title, 17, "bold", ink, leading=1.12)
        art.para(left + 9, bottom + 3, w * 0.5, copy.claim, 10, "oblique", accent)
        draw_motif(art, motif, left + w * 0.27, y + h * 0.6, w * 0.17, (extra, accent, ink))
        art.para(left + 9, y + h * 0.75, w * 0.5, copy.small, 7.5, "sans", ink, leading=1.15, bottom=y + h - 22)
        art.text(left + 9, y + h - 9, copy.net, 11, "bold", ink, "ls")


def _bottle(
    rng: Rng,
    size: tuple[int, int],
    profile: Points,
    cap: tuple[float, str],
    body: tuple[str, str],
    label: tuple[float, float, float],
    style: str,
    copy: Copy,
    inks: Sequence[str],
    motif: str,
    fill: float,
    metal: float = 0,
) -> Picture:
    """A glass or plastic bottle, filled from the height `fill` down.

    cap: height, colour; body: colours above and below the fill level; label: top, height, width of its front.
    """
    scene = Scene(*size)
    tall, wide = profile[-1][0], max(r for _, r in profile)
    art = Art(np.pi * wide, tall, body[0])
    art.rect(0, fill, art.width, tall - 7, body[1])
    art.gradient(fill, fill + 3, tint(body[1], 0.6, body[0]), body[1])
    art.rect(0, fill, art.width, fill + 1, tint(body[1], 0.75))
    art.gradient(tall - 14, tall, body[1], body[0])
    art.rect(0, 0, art.width, cap[0], cap[1])
    for k in range(0, int(art.width), 5):
        art.rect(k, 8, k + 1.6, cap[0] - 6, tint(cap[1], 0.72))
    _label(art, label[0], label[1], label[2], style, copy, inks, motif, rng)
    cx, top = size[0] / 2, (size[1] - tall) / 2 - 8
    scene.ground(cx, top + tall, profile[-1][1], profile[-1][1] * 0.16)
    ellipse(scene, cx, top, profile[0][1], profile[0][1] * 0.08, lambda u, v: rgb(cap[1]) * (1.1 - 0.1 * u)[..., None])
    bands = (
        Band(cap[0], 0.3, 0, metal),
        Band(label[0], 0.8, 0.9),
        Band(label[0] + label[1], 0.22),
        Band(tall, 0.8, 0.9),
    )
    turned(scene, cx, top, profile, art.pixels(), bands, shoulder=cap[0] + 14)
    return scene.photo(rng)


def _can(
    rng: Rng,
    size: tuple[int, int],
    radius: float,
    tall: float,
    style: str,
    copy: Copy,
    inks: Sequence[str],
    motif: str,
    drink: bool,
) -> Picture:
    """A tin with paper label and rolled rims, or (drink) a printed aluminium can with a necked top."""
    scene = Scene(*size)
    neck = 34 if drink else 12
    art = Art(np.pi * radius, tall, "#c9cbce")
    _label(art, neck, tall - neck - (26 if drink else 12), min(radius * 1.75, 250), style, copy, inks, motif, rng)
    cx, top, tilt = size[0] / 2, (size[1] - tall) / 2 - 4, 0.17
    r0 = radius * (0.8 if drink else 1.0)
    scene.ground(cx, top + tall, radius * 0.9, radius * tilt)

    def lid(u: Array, v: Array) -> Array:
        rho, room = np.hypot(u, v), 0.78 + 0.2 * np.cos(np.arctan2(v, u) * 2 + 0.7)
        ring = sum(0.14 * np.sin((rho - c) * 60) * np.exp(-(((rho - c) / 0.06) ** 2)) for c in (0.55, 0.72, 0.86))
        tone = np.where(rho > 0.93, 0.95, room * 0.85 + ring) - 0.3 * np.exp(-(((rho - 0.92) / 0.025) ** 2))
        return np.clip(tone, 0.1, 1)[..., None] * np.array([0.97, 0.98, 1], np.float32)

    ellipse(scene, cx, top + 1, r0, r0 * tilt, lid)
    if drink:
        profile: Points = [(0, r0), (5, r0), (7, r0 - 3), (neck, radius), (tall - 26, radius), (tall, radius * 0.78)]
        bands = (Band(neck, 0.5, 0, 0.9), Band(tall - 26, 0.42, 0, 0.3), Band(tall, 0.5, 0, 0.9))
        ellipse(scene, cx + 4, top + r0 * 0.03, 20, 6, lambda u, v: np.full((*u.shape, 3), 0.62, np.float32))
    else:
        profile = [(0, r0 + 2), (5, r0 + 2), (7, r0), (tall - 7, r0), (tall - 5, r0 + 2), (tall, r0 + 2)]
        bands = (Band(neck - 1, 0.6, 0, 1), Band(tall - 11, 0.14), Band(tall, 0.6, 0, 1))
    ribs = None if drink else (tall * 0.38, tall * 0.62, 13, 0.25)
    turned(scene, cx, top, profile, art.pixels(), bands, tilt, ribs=ribs)
    return scene.photo(rng)


def _jar(
    rng: Rng,
    size: tuple[int, int],
    radius: float,
    tall: float,
    lid: tuple[float, str, float],
    body: str,
    glass: float,
    label: tuple[float, float],
    style: str,
    copy: Copy,
    inks: Sequence[str],
    motif: str,
) -> Picture:
    """A wide jar with a screw lid (height, colour, metal 0..1); label: top, height."""
    scene = Scene(*size)
    art = Art(np.pi * radius, tall, body)
    art.rect(0, 0, art.width, lid[0], lid[1])
    art.rect(0, lid[0] - 3, art.width, lid[0] - 2, "#777777")
    _label(art, label[0], label[1], radius * 1.5, style, copy, inks, motif, rng)
    cx, top, tilt = size[0] / 2, (size[1] - tall) / 2, 0.16
    scene.ground(cx, top + tall, radius * 0.95, radius * tilt)

    def top_paint(u: Array, v: Array) -> Array:
        rho = np.hypot(u, v)
        tone = 1.03 + 0.1 * np.cos(np.arctan2(v, u) - 3.6) * rho - 0.16 * smoothstep(0.93, 1.0, rho) - 0.05 * v
        return np.asarray(rgb(lid[1]) * tone[..., None])

    r = radius
    ellipse(scene, cx, top + 1, r * 0.955, r * 0.955 * tilt, top_paint)
    profile = [(0, r * 0.94), (4, r * 0.97), (lid[0] - 1, r * 0.97), (lid[0] + 1, r * 0.95), (lid[0] + 4, r * 0.955)]
    profile += [(lid[0] + 22, r), (tall - 14, r), (tall, r * 0.9)]
    bands = (
        Band(lid[0], 0.35, 0, lid[2]),
        Band(label[0], 0.75, glass),
        Band(label[0] + label[1], 0.2),
        Band(tall, 0.75, glass),
    )
    turned(scene, cx, top, profile, art.pixels(), bands, tilt, shoulder=lid[0] + 2)
    return scene.photo(rng)


def _tube(rng: Rng, size: tuple[int, int], copy: Copy, inks: Sequence[str], cap: str) -> Picture:
    """A cosmetic tube standing on its cap: round below, flat at the crimped end."""
    paper, ink, accent, extra = inks
    scene = Scene(*size)
    tall, wide, foot = size[1] - 120.0, 104.0, 92.0
    art = Art(np.pi * wide, tall, paper)
    mid = art.width / 2
    art.gradient(tall * 0.45, tall * 0.9, paper, extra)
    for k in range(0, int(art.width), 3):
        art.rect(k, 3, k + 1, 24, accent)
    art.text(mid, 60, copy.brand, 46, "cmss", ink, "mt", tracking=6, fit=170)
    art.line([(mid - 30, 118), (mid + 30, 118)], accent, 1.2)
    art.text(mid, 128, copy.title, 20, "cmti", ink, "mt", fit=170)
    art.text(mid, 160, copy.claim.upper(), 9.5, "sans", accent, "mt", tracking=2, fit=165)
    draw_motif(art, "leaf", mid, 232, 44, (accent, extra, ink))
    art.para(mid - 75, 300, 150, copy.small, 9, "sans", ink, "m")
    art.text(mid, tall - foot - 26, copy.net, 11, "bold", ink, "mt")
    art.rect(0, tall - foot, art.width, tall, cap)
    cx, top = size[0] / 2, 54.0
    scene.ground(cx, top + tall, 66, 8)
    profile = [(0, wide), (28, wide), (tall - foot - 14, 76), (tall - foot - 1, 68), (tall - foot + 2, 66)]
    profile += [(tall - 5, 64), (tall, 62)]
    bands = (Band(26, 0.1), Band(tall - foot, 0.4), Band(tall, 0.55))
    flat = [(0, 0.12), (30, 0.35), (tall * 0.55, 0.92), (tall - foot, 1)]
    turned(scene, cx, top, profile, art.pixels(), bands, 0.05, flatten=flat)
    return scene.photo(rng)


def _box(
    rng: Rng,
    size: tuple[int, int],
    dims: tuple[float, float, float],
    yaw: float,
    pitch: float,
    copy: Copy,
    inks: Sequence[str],
    motif: str,
    style: str,
) -> Picture:
    """A printed carton in perspective: poster-like front, nutrition or dosage print on its side."""
    paper, ink, accent, extra = inks
    w, h, d = dims
    front, side, top = Art(w, h, paper), Art(d, h, accent), Art(w, d, accent)
    if style == "stripe":  # medicine: white with bold colour bars
        front.rect(0, h * 0.58, w, h * 0.66, accent)
        front.rect(0, h * 0.68, w, h * 0.71, extra)
        front.text(16, h * 0.1, copy.brand, h * 0.22, "bold", accent, "lt", fit=w * 0.66)
        front.text(17, h * 0.36, copy.title, h * 0.095, "sans", ink, "lt", fit=w * 0.6)
        front.text(17, h * 0.48, copy.claim, 10.5, "sans", ink, "lt")
        draw_motif(front, motif, w - h * 0.28, h * 0.3, h * 0.2, (accent, extra, ink))
        front.para(17, h * 0.75, w * 0.6, copy.small, 8.5, "sans", ink, leading=1.25)
        front.text(w - 16, h - 14, copy.net, 15, "bold", ink, "rs")
    else:
        front.rect(0, 0, w, h * 0.3, accent)
        title, body = ("serifbold", "stix") if style == "poster" else ("cmb", "sans")
        front.text(w / 2, h * 0.165, copy.brand, h * 0.16, title, paper, "mm", fit=w - 30)
        front.text(w / 2, h * 0.265, copy.claim.upper(), 9.5, "sans", paper, "mm", tracking=2, fit=w - 36)
        draw_motif(front, motif, w / 2, h * 0.5, min(w * 0.3, h * 0.165), (accent, extra, ink))
        front.text(w / 2, h * 0.745, copy.title, h * 0.065, "stixbold", ink, "mm", fit=w - 34)
        front.line([(w * 0.2, h * 0.79), (w * 0.8, h * 0.79)], extra, 1.5)
        front.para(24, h * 0.815, w - 48, copy.small, 9, body, ink, "m", 1.25)
        front.text(w / 2, h - 16, copy.net, 13, "bold", accent, "ms")
        x, y = w * 0.83, h * 0.36  # a seal
        front.disc(x, y, 33, accent)
        front.disc(x, y, 29, paper, 0.8)
        front.text(x, y - 13, "packed", 9, "sans", paper, "mm", fit=50)
        front.text(x, y, "BY HAND", 11, "bold", paper, "mm", fit=50)
        front.text(x, y + 13, "since 1921", 9, "sans", paper, "mm", fit=50)
        front.rect(7, 7, w - 7, h - 7, extra, line=1)
    pad = 9
    side.text(d / 2, 18, copy.brand, 22, "bold", paper, "mm", fit=d - 18)
    side.rect(pad - 3, 34, d - pad + 3, h - 8, "#fdfdfa")
    y = 40.0
    if h > 260:
        side.text(pad + 2, y, "Typical values per 100 g", 8.5, "bold", "#111111", fit=d - 24)
        y = side.table(pad + 2, y + 14, d - 2 * pad - 4, FACTS, 7.5, "#111111") + 8
    y = side.para(pad + 2, y, d - 2 * pad - 4, copy.small, 7.5, "sans", "#111111", leading=1.25)
    if h - y > 260:
        more = (
            "Store in a cool, dry place. Close the inner bag after use. Best before: see the lid. Questions? "
            "Write to us and tell us the lot number. Card: 87 % recycled fibre."
        )
        side.para(pad + 2, y + 8, d - 2 * pad - 4, more, 7.5, "oblique", "#333333", leading=1.25, bottom=h - 140)
    if h - y > 130:
        side.matrix(d / 2 - 33, h - 136, 66, rng)
    side.barcode(d / 2 - 42, h - 62, 84, 48, rng)
    top.text(w / 2, d / 2, f"{copy.brand}  {copy.title}", 24, "bold", paper, "mm", fit=w - 40)
    top.line([(0, d * 0.12), (w, d * 0.12)], "#000000", 0.7)
    scene = Scene(*size, backdrop="#fdfdfd")
    carton(scene, size[0] / 2, size[1] / 2 - 4, dims, yaw, pitch, front, side, top)
    return scene.photo(rng)


def _book(
    rng: Rng,
    size: tuple[int, int],
    dims: tuple[float, float, float],
    yaw: float,
    title: Sequence[str],
    author: str,
    blurb: str,
    house: str,
    inks: Sequence[str],
    style: str,
) -> Picture:
    """A book: cover, and its page block (yaw > 0) or its printed spine (yaw < 0)."""
    paper, ink, accent, extra = inks
    w, h, d = dims
    cover = Art(w, h, paper)
    if style == "novel":
        cover.gradient(0, h * 0.6, paper, extra)  # a night sky, then printed waves
        for x, y, r in zip(rng.uniform(0, w, 90), rng.uniform(0, h * 0.45, 90), rng.uniform(0.3, 1.1, 90), strict=True):
            cover.disc(x, y, r, "#e9eefc")
        cover.disc(w * 0.76, h * 0.5, w * 0.12, accent)
        xs = np.linspace(0, w, 90)
        for k in range(16):
            ys = h * (0.6 + 0.4 * (k / 16) ** 1.3) + np.sin(xs / (14 + 3 * k) + k * 1.9) * (2 + 0.7 * k)
            crest = list(zip(xs, ys, strict=True))
            cover.poly([*crest, (w, h), (0, h)], tint(extra, 1 - k / 22))
            cover.line(crest, paper, 0.8)
        for k, line in enumerate(title):
            cover.text(w / 2, 50 + k * h * 0.11, line, h * 0.115, "stixbold", ink, "mt", fit=w - 50)
        cover.text(w / 2, 26, "A NOVEL", 10, "sans", accent, "mt", tracking=5)
        cover.para(36, h * 0.76, w - 72, blurb, 11, "stixital", ink, "m")
        cover.text(w / 2, h - 46, author, 25, "stix", ink, "mm", tracking=2, fit=w - 50)
        cover.text(w / 2, h - 20, house, 8.5, "sans", ink, "mm", tracking=2)
    else:  # a manual: grid paper, plots and formulas
        for k in range(0, int(h), 12):
            cover.line([(0, k), (w, k)], "#e3e0d4", 0.5)
        for k in range(0, int(w), 12):
            cover.line([(k, 0), (k, h)], "#e3e0d4", 0.5)
        cover.rect(0, h * 0.07, w, h * 0.36, accent)
        for k, line in enumerate(title):
            cover.text(24, h * 0.115 + k * h * 0.105, line, h * 0.1, "cmb", paper, "lt", fit=w - 48)
        cover.para(24, h * 0.385, w - 60, blurb, 12.5, "cmr", ink)
        xs = np.linspace(30, w - 30, 140)
        cover.line([(30, h * 0.55), (30, h * 0.83), (w - 30, h * 0.83)], ink, 1.3)
        for k in range(5):
            t = (xs - 30) / (w - 60)
            ys = h * 0.69 - h * 0.12 * np.exp(-1.1 * k * t) * np.cos(9 * t + k)
            cover.line(list(zip(xs, ys, strict=True)), (accent, extra, ink)[k % 3], 2 - 0.25 * k)
            cover.text(36 + k * (w - 72) / 4, h * 0.845, f"{k * 0.25:.2f}", 9, "cmr", ink, "mt")
        cover.text(24, h - 54, author, 17, "cmss", ink, "lm", fit=w - 100)
        cover.text(24, h - 28, house, 9.5, "cmtt", ink, "lm")
        cover.text(w - 20, h - 28, "3rd edition", 11, "cmti", accent, "rm")
    cover.line([(7, 0), (7, h)], tint(paper, 0.85), 1)
    leaves = np.arange(0, d, 0.9)  # edges of the paper, seen from the side and from above
    side_tones, top_tones = rng.uniform(0.8, 1, (2, int(d / 0.9) + 1))
    board = accent if style == "manual" else paper
    if yaw < 0:
        side, spine = Art(d, h, accent), Art(h, d, accent)
        spine.text(h - 30, d / 2, " ".join(title), d * 0.5, "cmb", paper, "rm", fit=h * 0.6)
        spine.text(22, d / 2, author.split()[-1], d * 0.32, "cmss", paper, "lm")
        side.upright(spine, 0, 0)
    else:
        side = Art(d, h, "#efe8d8")
        for x, tone in zip(leaves, side_tones, strict=False):
            side.rect(x, 0, x + 0.55, h, tint("#f0e8d6", tone))
    side.rect(0, 0, 2.2, h, board)
    side.rect(d - 2.2, 0, d, h, board)
    top = Art(w, d, "#efe8d8")
    for y, tone in zip(leaves, top_tones, strict=False):
        top.rect(3, y, w, y + 0.55, tint("#f0e8d6", tone))
    top.rect(0, 0, w, 2.2, board)
    top.rect(0, d - 2.2, w, d, board)
    scene = Scene(*size)
    carton(scene, size[0] / 2, size[1] / 2 - 2, dims, yaw, 0.13, cover, side, top)
    return scene.photo(rng)


def _tee(
    rng: Rng, size: tuple[int, int], cloth: str, ink: str, accent: str, style: str, words: Sequence[str]
) -> Picture:
    """A T-shirt laid flat: striped, or with a chest print."""
    w, h = size
    scene, art = Scene(w, h), Art(w, h, cloth)
    x, y, gw, gh = w * 0.05, h * 0.07, w * 0.9, h * 0.86

    def place(shape: str) -> list[tuple[float, float]]:  # "x,y x,y": percent of the garment's box
        pairs = (pair.split(",") for pair in shape.split())
        return [(x + gw * float(u) / 100, y + gh * float(v) / 100) for u, v in pairs]

    def flip(points: Points) -> list[tuple[float, float]]:
        return [(2 * x + gw - u, v) for u, v in points]

    if style == "stripe":
        for k in range(40):
            at = y + 66 + k * 17
            bow = [(0.0, at + 44), (w * 0.22, at + 14), (w / 2, at), (w * 0.78, at + 14), (w, at + 44)]
            art.line(curve(bow, False), ink, 5.5)
        art.rect(w * 0.6, h * 0.845, w * 0.6 + 70, h * 0.845 + 26, accent)
        art.text(w * 0.6 + 35, h * 0.845 + 13, words[0], 15, "stixbi", cloth, "mm", fit=60)
    else:
        draw_motif(art, "halftone", w / 2, h * 0.37, w * 0.09, (accent, ink, ink))
        draw_motif(art, "peaks", w / 2, h * 0.43, w * 0.13, (ink, accent, ink))
        art.text(w / 2, h * 0.545, words[0], 44, "bold", ink, "mm", tracking=3, fit=w * 0.36)
        art.text(w / 2, h * 0.6, words[1], 17, "stixital", accent, "mm")
        art.text(w / 2, h * 0.63, words[2], 9, "mono", ink, "mm", tracking=1)
    seams = [
        place("20.5,33 21.5,22 24,10 29,3"),
        place("1.5,33.5 7,36.6 13,39.4"),
        place("0.8,35 6.5,38 12.6,40.8"),
        place("19.5,95.5 50,96.6"),
        place("19.4,96.8 50,97.9"),
        place("35,1.5 38,8.5 44,13.2 50,14.6"),
        place("35.4,1.2 38.4,8 44.2,12.6 50,14"),
    ]
    for seam in seams + [flip(seam) for seam in seams]:
        art.line(curve(seam, False), tint(cloth, 0.66), 0.8)
    half = place(
        "50,2.6 42,1.6 37,0 35,0 28,2.4 20,6 14,11 8,21 0.6,34 0,35.5 1,37 7,40.5 12,43 13.2,42.6 "
        "14,41 19,33.4 20.2,33 20.4,50 20,75 19.2,97 19.2,98.4 20.5,99 35,99.6 50,100"
    )
    outline = curve(half + flip(half[-2:0:-1]), steps=6)
    folds = [
        (x + gw * a / 100, y + gh * b / 100, x + gw * c / 100, y + gh * d / 100, half_width, lift)
        for a, b, c, d, half_width, lift in (
            (22, 34, 42, 50, 9, 5),
            (78, 34, 60, 52, 10, 5),
            (25, 95, 34, 60, 12, 6),
            (60, 97, 55, 62, 14, 5),
            (75, 95, 68, 55, 10, 6),
            (42, 98, 45, 74, 9, 4),
            (12, 30, 20, 12, 7, 4),
            (88, 32, 80, 12, 7, 4),
            (30, 12, 42, 30, 12, 4),
            (70, 12, 60, 28, 11, 4),
            (24, 60, 50, 70, 13, 3),
            (80, 66, 58, 76, 12, 3),
        )
    ]
    relief = fold_relief(h, w, rng, folds, 3.2)
    for dy, blur, strength in ((3, 3, 0.35), (11, 14, 0.25)):
        scene.shadow([(u + dy * 0.4, v + dy) for u, v in outline], blur, strength)
    tone = weave("jersey", h, w, rng)
    sheet(scene, art, outline, relief, tone, 2.2, round_px=5)
    rim = place("37.3,1.2 39.5,7.4 44.8,11.4 50,12.4")
    back_rim = flip(place("37.3,1.2 44,5.2 50,6")) + place("44,5.2 37.3,1.2")
    opening = curve(rim + flip(rim[-2::-1]), False) + curve(back_rim, False)
    back = Art(w, h, tint(cloth, 0.74))
    back.gradient(y, y + gh * 0.13, tint(cloth, 0.6), tint(cloth, 0.86))
    tag = y + gh * 0.062
    back.rect(w / 2 - 18, tag, w / 2 + 18, tag + 29, "#f7f5ef", 1)
    back.text(w / 2, tag + 9, words[-1], 9, "bold", "#333333", "mm", fit=32)
    back.text(w / 2, tag + 20, "M", 10, "bold", "#333333", "mm")
    scene.shadow(opening, 2, 0.3)
    sheet(scene, back, opening, relief * 0.2, tone, 0.2, round_px=3)
    return scene.photo(rng)


def _pillow(scene: Scene, power: float) -> Points:
    """Outline of a rounded rectangle over 70 x 76 % of the scene, rounder for a higher power; lays its shadow."""
    w, h = scene.width, scene.height
    x0, y0, x1, y1 = w * 0.15, h * 0.12, w * 0.85, h * 0.88
    t = np.linspace(0, 2 * np.pi, 240)
    wave = [np.sign(f(t)) * np.abs(f(t)) ** power / 2 for f in (np.cos, np.sin)]
    outline = [((x0 + x1) / 2 + u * (x1 - x0), (y0 + y1) / 2 + v * (y1 - y0)) for u, v in zip(*wave, strict=True)]
    for dy, blur, strength in ((5, 4, 0.42), (14, 18, 0.32)):
        scene.shadow([(u + dy * 0.5, v + dy) for u, v in outline], blur, strength)
    return outline


def _cushion(rng: Rng, size: tuple[int, int], cloth: str, inks: Sequence[str], words: Sequence[str]) -> Picture:
    """A knitted cushion with three patterned bands and a sewn-on tag."""
    w, h = size
    scene, art = Scene(w, h), Art(w, h, cloth)
    for k, ink in enumerate((inks[0], inks[1], inks[0])):
        at = round((h * 0.5 + k * 35) / 7) * 7
        for j in range(int(w / 9) + 1):
            for i in range(4):
                if (j + i * (1 if k % 2 else -1)) % 4 < 2:
                    art.rect(j * 9, at + i * 7, j * 9 + 9, at + i * 7 + 7, ink)
    outline = _pillow(scene, 0.22)
    rng.random(10)  # not used, but the versioned picture was made after these ten draws
    y, x = np.mgrid[-1 : 1 : h * S * 1j, -1 : 1 : w * S * 1j]
    belly = (60 * np.cos(x * 1.5) * np.cos(y * 1.5)).astype(np.float32)
    relief = fold_relief(h, w, rng, [], 2.2) + belly
    sheet(scene, art, outline, relief, weave("knit", h, w, rng), 26, round_px=30)
    tag = Art(96, 44, "#f6f2e8")
    tag.text(48, 15, words[0], 17, "stixbold", "#2a2420", "mm", fit=84)
    tag.text(48, 32, words[1], 8.5, "sans", "#2a2420", "mm", fit=84)
    tag.rect(2, 2, 94, 42, "#b9ac94", line=0.6)
    slab(scene, w / 2, h * 0.12 + 46, tag.pixels(), rounded(96, 44, 1), 1, "#d8d0bf", (0, 0, -0.01))
    return scene.photo(rng)


def _shirt(rng: Rng, size: tuple[int, int], cloth: str, inks: Sequence[str], words: Sequence[str]) -> Picture:
    """A folded checked shirt with button placket and collar."""
    w, h = size
    scene, art = Scene(w, h), Art(w, h, cloth)
    cx, x0, y0, x1, y1 = w / 2, w * 0.15, h * 0.12, w * 0.85, h * 0.88
    for first, width, ink in ((0, 15, inks[0]), (27, 3, inks[1])):
        for upright in (True, False):
            stripes = Image.new("L", art.image.size)
            pen = ImageDraw.Draw(stripes)
            for k in range(-1, 20):
                a = (k * 46 + first) * S
                b = a + width * S
                pen.rectangle((a, 0, b, stripes.height) if upright else (0, a, stripes.width, b), 110)
            art.image.paste(ink, (0, 0), stripes)
    outline = _pillow(scene, 0.1)
    folds = [(x0 + rng.random() * (x1 - x0), y1, x0 + rng.random() * (x1 - x0), h * 0.5, 16, 3) for _ in range(5)]
    folds += [(x0, h * 0.3, x1, h * 0.36, 22, 3), (x0, h * 0.72, x1, h * 0.66, 20, 3)]
    relief = fold_relief(h, w, rng, folds, 2.2)
    tone = weave("twill", h, w, rng)
    sheet(scene, art, [(u, v + 13) for u, v in outline], relief, tone - 0.25, 4, round_px=7)  # the lower half
    sheet(scene, art, outline, relief, tone, 4, round_px=7)
    dark = tint(cloth, 0.6)
    for x in (cx - 15, cx + 15):
        art.line([(x, 0), (x, h)], dark, 0.8)
    placket = [(cx - 17, y0 + 60), (cx + 17, y0 + 60), (cx + 17, y1 + 2), (cx - 17, y1 + 2)]
    scene.shadow([(u + 2, v) for u, v in placket], 2.5, 0.3)
    sheet(scene, art, placket, relief, tone, 2.5, round_px=4)
    for k in range(5):
        y = y0 + 120 + k * (y1 - y0 - 130) / 4.3
        scene.shadow([(cx + 1 + 7 * np.cos(a), y + 1.5 + 7 * np.sin(a)) for a in np.linspace(0, 6.3, 24)], 1.5, 0.5)
        ellipse(scene, cx, y, 6.5, 6.5, _button)
    for s in (-1, 1):
        collar = [(cx + s * 4, y0 + 64), (cx + s * 50, y0 + 112), (cx + s * 112, y0 + 40)]
        collar += [(cx + s * 78, y0 - 12), (cx + s * 40, y0 - 4)]
        scene.shadow([(u + 3, v + 5) for u, v in collar], 4, 0.45)
        sheet(scene, art, collar, relief * 0.4, tone, 4, round_px=6)
    inside = [(cx - 76, y0 - 14), (cx + 76, y0 - 14), (cx + 42, y0 + 16), (cx, y0 + 60), (cx - 42, y0 + 16)]
    plain = Art(w, h, dark)
    plain.rect(cx - 34, y0 - 4, cx + 34, y0 + 22, "#f3efe4", 1)
    plain.text(cx, y0 + 5, words[0], 12, "stixbold", "#222222", "mm", fit=60)
    plain.text(cx, y0 + 16, words[1], 7.5, "sans", "#444444", "mm", fit=60)
    sheet(scene, plain, inside, relief * 0.2, tone, 1, round_px=5)
    return scene.photo(rng)


def _button(u: Array, v: Array) -> Array:
    rho = np.hypot(u, v)
    tone = 0.93 - 0.2 * np.exp(-(((rho - 0.72) / 0.08) ** 2)) - 0.12 * (u + v) * (rho > 0.72)
    for a, b in ((-0.22, -0.22), (0.22, -0.22), (-0.22, 0.22), (0.22, 0.22)):
        tone = tone - 0.7 * np.exp(-(((u - a) ** 2 + (v - b) ** 2) / 0.011))
    return np.clip(tone, 0, 1)[..., None] * np.array([1, 0.98, 0.94], np.float32)


def _pouch(
    rng: Rng, size: tuple[int, int], film: str, copy: Copy, inks: Sequence[str], motif: str, gloss: float
) -> Picture:
    """A coffee pouch: crimped top, pillow front with valve and print, gusset foot."""
    paper, ink, accent, extra = inks
    w, h = size
    scene, art = Scene(w, h), Art(w, h, film)
    x0, x1, y0, y1 = w * 0.17, w * 0.83, h * 0.08, h * 0.92
    cx, pw = w / 2, x1 - x0
    art.rect(x0 + pw * 0.1, h * 0.29, x1 - pw * 0.1, h * 0.79, paper)
    art.rect(x0 + pw * 0.1, h * 0.29, x1 - pw * 0.1, h * 0.305, accent)
    art.rect(x0 + pw * 0.1, h * 0.775, x1 - pw * 0.1, h * 0.79, accent)
    art.text(cx, h * 0.385, copy.brand, 60, "cmb" if gloss < 0.3 else "bold", ink, "ms", tracking=1, fit=pw * 0.7)
    art.text(cx, h * 0.415, copy.title, 19, "stixital", accent, "ms", fit=pw * 0.7)
    draw_motif(art, motif, cx, h * 0.5, pw * 0.15, (accent, extra, ink))
    art.text(cx, h * 0.605, copy.claim.upper(), 10, "sans", ink, "mm", tracking=2, fit=pw * 0.7)
    for k, (name, value) in enumerate((("ACIDITY", 4), ("BODY", 3), ("ROAST", 2))):
        y = h * 0.635 + k * 15
        art.text(x0 + pw * 0.18, y, name, 8.5, "mono", ink, "lm")
        for j in range(5):
            art.disc(x0 + pw * 0.5 + j * 14, y, 4, ink, 0 if j < value else 1)
    art.para(x0 + pw * 0.16, h * 0.695, pw * 0.68, copy.small, 8, "sans", ink, "m", 1.25)
    art.text(cx, h * 0.85, copy.net, 13, "bold", paper, "mm")
    art.text(cx, h * 0.875, "BEST BEFORE 14 MAR 2027   LOT R0417-22", 7.5, "mono", paper, "mm")
    art.disc(cx, h * 0.235, 13, "#8b8b88", 1.5)
    for a in np.linspace(0, 6.28, 5, endpoint=False):
        art.disc(cx + 5 * np.cos(a), h * 0.235 + 5 * np.sin(a), 1.1, "#222222")
    side = [(x1, y0 + 40), (x1 - 5, y0 + 75), (x1 + 5, h * 0.36), (x1 + 8, h * 0.7), (x1 + 4, y1 - 10)]
    foot = [(x1 - 3, y1), (cx + pw * 0.3, y1 + 4), (cx, y1 + 5)]
    half = [(x1, y0), *curve(side, False), *curve(foot, False)]
    outline = half + [(2 * cx - u, v) for u, v in half[::-1]]
    folds = [
        (x0 + 10, h * 0.2, x0 + 60, h * 0.42, 12, 5),
        (x1 - 10, h * 0.2, x1 - 55, h * 0.4, 12, 5),
        (cx - 60, y0 + 45, cx - 30, h * 0.3, 9, -3),
        (cx + 70, y0 + 45, cx + 40, h * 0.3, 9, -3),
        (x0 + 8, y1 - 10, x0 + 50, h * 0.72, 11, 5),
        (x1 - 8, y1 - 10, x1 - 60, h * 0.74, 11, 5),
        (x0, h * 0.83, x1, h * 0.835, 7, -4),
    ]
    relief = fold_relief(h, w, rng, folds, 2.4)
    y, x = np.mgrid[0 : h * S, 0 : w * S].astype(np.float32) / S
    belly = 30 * np.exp(-(((x - cx) / (pw * 0.52)) ** 4) - ((y - h * 0.58) / (h * 0.36)) ** 4)
    relief = relief + belly
    tone = weave("film", h, w, rng)
    crimp = (y > y0 + 4) & (y < y0 + 34)
    tone += crimp * 0.16 * np.sin(y * 2 * np.pi / 4.4).astype(np.float32)
    scene.ground(cx, y1 + 2, pw * 0.5, 12)
    sheet(scene, art, outline, relief, tone, 9, gloss, 16)
    return scene.photo(rng)


def _dial(
    rng: Rng,
    size: tuple[int, int],
    radius: float,
    face: str,
    ink: str,
    accent: str,
    metal: str,
    brand: str,
    lines: Sequence[str],
    numerals: Sequence[str],
    font: str,
    strap: str,
    subdials: bool,
) -> Picture:
    """A wrist watch on a leather strap or a steel bracelet, or (strap "") a wall clock; radius: of the case."""
    w, h = size
    cx, cy, r = w / 2, h / 2, radius * 0.82  # r: of the dial
    art = Art(2 * radius, 2 * radius, face)
    _print_dial(art, r, ink, accent, brand, lines, numerals, font, bool(strap), subdials)
    if subdials:
        for angle, top, parts in ((np.pi / 2, 30, 6), (np.pi, 12, 4), (3 * np.pi / 2, 60, 6)):
            x, y = _polar(radius, 0.47 * r, angle)
            _print_subdial(art, x, y, r, (face, ink, accent), top, parts, rng.uniform(0, 6))
    elif strap:
        art.rect(radius + r * 0.5, radius - r * 0.065, radius + r * 0.64, radius + r * 0.065, "#f8f8f4")
        art.text(radius + r * 0.57, radius, "24", r * 0.1, "bold", "#151515", "mm")
    dial = art.pixels()
    yy, xx = np.mgrid[-1 : 1 : dial.shape[0] * 1j, -1 : 1 : dial.shape[1] * 1j].astype(np.float32)
    sunray = 0.05 * np.cos(2 * np.arctan2(yy, xx) + 1.1) if subdials else np.zeros_like(xx)
    rim = 0.45 * smoothstep(0.74, 0.83, np.hypot(xx - 0.02, yy - 0.03))  # the shadow of the case on the dial
    dial *= (1 + sunray - rim)[..., None]

    scene = Scene(w, h, "#fefefe")
    turn = np.linspace(0, 2 * np.pi, 80)
    for dy, blur, strength in ((6, 6, 0.4), (18, 22, 0.3)):
        scene.shadow([(cx + radius * np.cos(a) + dy * 0.4, cy + dy + radius * np.sin(a)) for a in turn], blur, strength)
    if strap:
        _strap(scene, cx, cy, radius, strap, rng)
        crown = Art(24, 34, metal)
        for k in range(0, 34, 3):
            crown.rect(0, k, 24, k + 1.2, "#55585c")
        x, x1 = cx + radius - 6, cx + radius + 15
        corners = np.array([(x, cy - 17), (x1, cy - 15), (x1, cy + 15), (x, cy + 17)], np.float32)
        scene.quad(crown.pixels(), corners, light=(1.1, 1.0, 0.5, 0.6))

    def case(u: Array, v: Array) -> Array:
        rho, ang = np.hypot(u, v), np.arctan2(v, u)
        t = np.clip((rho - 0.91) / 0.095, -1, 1)
        nz = np.sqrt(np.maximum(1 - t * t * 0.8, 0))
        diffuse, mirror, room = studio_light(t * 0.894 * np.cos(ang), t * 0.894 * np.sin(ang), nz)
        tone = 0.45 * diffuse + 0.5 * room + 0.4 * mirror - 0.4 * np.exp(-(((rho - 0.9) / 0.012) ** 2))
        return np.asarray(np.clip(rgb(metal) * tone[..., None], 0, 1))

    def dial_paint(u: Array, v: Array) -> Array:
        return sample(dial, (u * r + radius) * S - 0.5, (v * r + radius) * S - 0.5)

    def axle(u: Array, v: Array) -> Array:
        return np.asarray(np.clip(rgb(metal) * (0.9 - 0.25 * (u + v))[..., None], 0, 1))

    ellipse(scene, cx, cy, radius, radius, case)
    ellipse(scene, cx, cy, r, r, dial_paint)
    _hands(scene, cx, cy, r, ink, accent)
    ellipse(scene, cx, cy, r * 0.045, r * 0.045, axle)
    arc = np.linspace(np.pi * 0.93, np.pi * 1.42, 40)
    glare = [(cx + r * 0.97 * np.cos(a), cy + r * 0.97 * np.sin(a)) for a in arc]
    scene.fill(glare, np.ones(3, np.float32), 0.13)
    return scene.photo(rng)


def _polar(centre: float, r: float, angle: float) -> tuple[float, float]:
    """The point at distance r from (centre, centre), clockwise from twelve o'clock; angle in radians."""
    return centre + r * np.sin(angle), centre - r * np.cos(angle)


def _print_dial(
    art: Art,
    r: float,
    ink: str,
    accent: str,
    brand: str,
    lines: Sequence[str],
    numerals: Sequence[str],
    font: str,
    worn: bool,
    subdials: bool,
) -> None:
    """Scale, numerals and lettering in the middle of a square artwork, dial of radius r; `worn`: a wrist watch."""
    c = art.width / 2
    for k in range(300):
        inner, width = (0.9, r * 0.018) if k % 25 == 0 else (0.925, 0.8) if k % 5 == 0 else (0.95, 0.5)
        art.line([_polar(c, inner * r, k * np.pi / 150), _polar(c, 0.975 * r, k * np.pi / 150)], ink, width)
    for k, word in enumerate(numerals):
        x, y = _polar(c, (0.7 if worn else 0.75) * r, (k + 1) * np.pi / 6)
        if not (worn and k == 2):  # the place of the date or of a subdial
            art.text(x, y, word, r * (0.165 if worn else 0.19), font, ink, "mm")
    for k in range(12 if worn else 0):
        x, y = _polar(c, 0.86 * r, (k + 1) * np.pi / 6)
        art.text(x, y, f"{(k + 1) * 5:02d}", max(9.0, r * 0.06), "sans", accent, "mm")
    art.text(c, c - r * 0.42, brand, r * 0.115, "stixbold", ink, "mm", tracking=r * 0.02)
    for k, line in enumerate(lines):
        y = c - r * (0.32 - 0.07 * k) if subdials else c + r * (0.36 + 0.075 * k)
        art.text(c, y, line, max(7.5, r * 0.056), "sans", accent if k == 0 else ink, "mm", tracking=0.6)


def _print_subdial(
    art: Art, x: float, y: float, r: float, inks: Sequence[str], top: int, parts: int, hand: float
) -> None:
    """A small dial around (x, y) on a dial of radius r: `parts` numbers up to `top`, `hand` at an angle in radians."""
    face, ink, accent = inks
    art.disc(x, y, r * 0.225, tint(face, 0.82))
    art.disc(x, y, r * 0.225, ink, 0.7)
    for k in range(60):
        t, inner = k * np.pi / 30, 0.19 if k % 5 else 0.17
        art.line([(x + r * u * np.sin(t), y - r * u * np.cos(t)) for u in (inner, 0.21)], ink, 0.5)
    for k in range(1, parts + 1):
        t, number = k * 2 * np.pi / parts, str(top * k // parts)
        art.text(x + r * 0.13 * np.sin(t), y - r * 0.13 * np.cos(t), number, r * 0.06, "sans", ink, "mm")
    art.line([(x + r * u * np.sin(hand), y - r * u * np.cos(hand)) for u in (-0.04, 0.16)], accent, 1.6)
    art.disc(x, y, r * 0.02, ink)


def _hands(scene: Scene, cx: float, cy: float, r: float, ink: str, accent: str) -> None:
    """Hour, minute and second hand at 10:12:37 or so, on a dial of radius r, with their shadows."""
    for angle, reach, thick, colour in (
        (2.05 * np.pi / 12 * 10.17, 0.52, r * 0.05, ink),
        (2 * np.pi * 10.2 / 60, 0.8, r * 0.035, ink),
        (2 * np.pi * 37 / 60, 0.86, r * 0.012, accent),
    ):
        s, k = np.sin(angle), -np.cos(angle)
        shape = [(-0.16, -0.5), (-0.16, 0.5), (reach * 0.8, 0.42), (reach, 0.06), (reach, -0.06), (reach * 0.8, -0.42)]
        hand = [(cx + s * a * r - k * b * thick, cy + k * a * r + s * b * thick) for a, b in shape]
        scene.shadow([(x + 2.5, y + 4) for x, y in hand], 1.8, 0.4)
        scene.fill(hand, rgb(colour))
        if thick > 4:  # a light ridge along the middle
            ridge = [(cx + s * a * r, cy + k * a * r) for a in (-0.16, reach)]
            scene.stroke(ridge, np.full(3, 0.96, np.float32), thick * 0.25, 0.35)


def _strap(scene: Scene, cx: float, cy: float, radius: float, kind: str, rng: Rng) -> None:
    """Strap of a watch, above and below the case: stitched leather of the colour `kind`, or "steel" links."""
    w, h = scene.width, scene.height
    half = radius * 0.56
    art = Art(w, h, "#c3c6ca" if kind == "steel" else kind)
    y, x = np.mgrid[0 : h * S, 0 : w * S].astype(np.float32) / S
    tone = weave("film" if kind == "steel" else "canvas", h, w, rng) * 0.5
    relief = fold_relief(h, w, rng, [], 0.5)
    if kind == "steel":
        pitch = 24
        for k in range(int(h / pitch) + 1):
            for a, b, shift in ((-1, -0.36, 0), (-0.34, 0.34, 12), (0.36, 1, 0)):
                y0 = k * pitch + shift
                art.rect(cx + a * half, y0, cx + b * half, y0 + 1.6, "#4a4d52")
        for a in (-0.35, 0.35):
            art.rect(cx + a * half - 0.8, 0, cx + a * half + 0.8, h, "#4a4d52")
        tone += 0.2 * np.sin((x - cx) * 8 / half + 0.6) + 0.1 * np.sin(y * 2 * np.pi / pitch)
    else:
        for seam in (cx - half * 0.74, cx + half * 0.74):
            for k in range(0, h, 9):
                art.line([(seam, k), (seam, k + 5.5)], "#e8dcc4", 1.5)
        for k in range(4):
            art.disc(cx, h - 34 - k * 30, 4.5, "#1c1410", squash=1.3)
    tone -= (0.5 * np.abs((y - cy) / (h / 2)) ** 4).astype(np.float32)  # it bends away from the camera
    end = h - 16.0
    outline = [
        (cx - half * 0.86, 16.0),
        (cx + half * 0.86, 16.0),
        (cx + half, cy),
        (cx + half * 0.84, end - 20),
        (cx, end),
        (cx - half * 0.84, end - 20),
        (cx - half, cy),
    ]
    scene.shadow([(u + 7, v + 9) for u, v in outline], 9, 0.4)
    sheet(scene, art, outline, relief, tone, 7, 0.5 if kind == "steel" else 0.1, 8)


def _keyboard(rng: Rng, size: tuple[int, int], brand: str, deck: str, cap: str, legend: str, accent: str) -> Picture:
    """A compact keyboard seen from above at an angle, all keys with legends."""
    unit, pad = 44.0, 14.0
    rows = (  # keys with their legends (lower, upper), and how many units wide
        "Esc|1 !|2 @|3 #|4 $|5 %|6 ^|7 &|8 *|9 (|0 )|- _|= +|Back×2",
        "Tab×1.5|Q|W|E|R|T|Y|U|I|O|P|[ {|] }|\\×1.5",
        "Caps×1.75|A|S|D|F|G|H|J|K|L|; :|' \"|Enter×2.25",
        "Shift×2.25|Z|X|C|V|B|N|M|, <|. >|/ ?|Shift×2.75",
        "Ctrl×1.25|Sys×1.25|Alt×1.25|×6.25|Alt×1.25|Fn×1.25|Menu×1.25|Ctrl×1.25",
    )
    art = Art(15 * unit + 2 * pad, 5 * unit + 2 * pad + 34, deck)
    art.rect(1.5, 1.5, art.width - 1.5, art.height - 1.5, "#ffffff", 10, 0.7)
    art.text(pad + 4, 22, brand, 17, "cmss", legend, "lm", tracking=3)
    art.text(art.width - pad - 70, 22, "caps      num      link", 8.5, "sans", legend, "rm")
    for k in range(3):
        art.disc(art.width - pad - 12 - k * 18, 22, 2.6, ("#57d26b", "#3f4650", "#e9b949")[k])
    for r, row in enumerate(rows):
        x, y = pad, pad + 30 + r * unit
        for key in row.split("|"):
            name, _, units = key.partition("×")
            span = float(units or 1) * unit
            crown, skirt = (accent, accent) if name in ("Esc", "Enter") else (cap, tint(cap, 0.62))
            art.rect(x + 1, y + 1, x + span - 1, y + unit - 1, "#0c0d0f", 6)
            art.rect(x + 2, y + 2, x + span - 2, y + unit - 2, skirt, 6)
            for j, tone in enumerate((1.14, 1.09, 1.05, 1.02, 1.0)):
                art.rect(x + 6, y + 4 + j, x + span - 6, y + unit - 9, tint(crown, tone), 5)
            words = name.split()
            if len(words) == 2:
                art.text(x + 10, y + 8, words[1], 10.5, "sans", legend)
                art.text(x + 10, y + 20, words[0], 10.5, "sans", legend)
            elif len(name) == 1:
                art.text(x + 10, y + 8, name, 15, "sans", legend)
            elif name:
                art.text(x + 10, y + unit / 2 - 3, name, 10, "sans", legend, "lm")
            x += span
    for column in (4.75, 7.75):  # home bumps on F and J
        x, y = pad + column * unit + 17, pad + 30 + 2 * unit + 29
        art.rect(x, y, x + 10, y + 1.6, legend, 1)
    scene = Scene(*size)
    mask = rounded(art.width, art.height, 12)
    slab(scene, size[0] / 2, size[1] / 2, art.pixels(), mask, 16, deck, (0.1, -0.62, -0.05))
    return scene.photo(rng)


def _phone(rng: Rng, size: tuple[int, int], inks: Sequence[str], name: str) -> Picture:
    """A phone whose screen shows a home page: clock, weather, a message list, icons with labels; and its back.

    inks: wallpaper above and below, accent, case.
    """
    wall, glow, accent, rim = inks
    w, h = 300.0, 620.0
    art = Art(w, h, "#0a0a0c")
    ink, faint, card = "#f4f6fb", "#b9c2d4", "#1d2638"
    screen = Art(w - 18, h - 18, wall)
    screen.gradient(60, h - 100, wall, glow)
    corners = Image.fromarray((rounded(w - 18, h - 18, 34) * 255).astype(np.uint8))
    art.image.paste(screen.image, (9 * S, 9 * S), corners)
    art.rect(w / 2 - 42, 18, w / 2 + 42, 38, "#050506", 10)
    art.text(32, 28, "10:12", 12, "bold", ink, "lm")
    art.text(w - 62, 28, "5G", 10, "bold", ink, "rm")
    art.rect(w - 56, 23, w - 34, 33, ink, 3, 1)
    art.rect(w - 54, 25, w - 40, 31, ink, 1)
    art.text(w / 2, 98, "10:12", 62, "sans", ink, "mm")
    art.text(w / 2, 146, "Thursday 24 October", 13, "sans", ink, "mm")
    art.rect(24, 170, w - 24, 262, card, 16)
    art.text(40, 186, "Hallvik harbour", 12, "bold", ink)
    art.text(40, 204, "Light rain, wind 6 m/s SW", 9.5, "sans", faint)
    art.text(w - 40, 184, "11°", 28, "sans", accent, "ra")
    for k, t in enumerate((11, 12, 12, 10, 9, 8, 8)):
        x = 50 + k * 33.5
        art.text(x, 230, f"{10 + k}", 8, "sans", faint, "mm")
        art.text(x, 247, f"{t}°", 10, "bold", ink, "mm")
    notes = (
        ("Mila", "The ferry leaves at 18:40, not 18:10", "2 min"),
        ("Parcel", "Your order 7741-20 is on its way", "16 min"),
        ("Bank", "Card payment 23.90 at Nord Bakery", "1 h"),
    )
    for k, (who, what, when) in enumerate(notes):
        y = 276 + k * 52
        art.rect(24, y, w - 24, y + 45, card, 13)
        art.disc(47, y + 22, 12, ("#e2644b", "#3b82c4", "#3a9a68")[k])
        art.text(47, y + 22.5, who[0], 13, "bold", "#ffffff", "mm")
        art.text(68, y + 8, who, 10.5, "bold", ink)
        art.text(w - 36, y + 9, when, 8.5, "sans", faint, "ra")
        art.text(68, y + 24, what, 9.5, "sans", faint, fit=w - 108)
    icons = (
        ("Mail", "#3f7fe0", "✉"),
        ("Notes", "#f0b429", "✎"),
        ("Music", "#d9486e", "♫"),
        ("Clock", "#30343c", "◷"),
        ("Maps", "#38a169", "⚑"),
        ("Games", "#7c4dd0", "♞"),
        ("Store", "#e8703a", "★"),
        ("Tools", "#6b7787", "⚙"),
    )
    for k, (label, colour, glyph) in enumerate(icons):
        x, y = 55 + k % 4 * 63.5, 462 + k // 4 * 72
        art.rect(x - 22, y - 22, x + 22, y + 22, colour, 12)
        art.text(x, y, glyph, 27, "sans", "#ffffff", "mm")
        art.text(x, y + 32, label, 9, "sans", ink, "mm")
    art.rect(w / 2 - 48, h - 22, w / 2 + 48, h - 18, ink, 2)
    glass = art.pixels()
    y, x = np.mgrid[0 : 1 : glass.shape[0] * 1j, 0 : 1 : glass.shape[1] * 1j].astype(np.float32)
    sheen = 0.1 * smoothstep(0.0, 0.01, x * 0.5 + 0.05 - y * 0.35) * (1 - y)
    glass += (1 - glass) * sheen[..., None]
    scene = Scene(*size, backdrop="#fcfcfd")
    back = Art(w, h, rim)
    back.text(w * 0.68, h * 0.82, name, 26, "cmss", "#ffffff", "mm", tracking=6)
    back.rect(w - 112, 20, w - 20, 128, tint(rim, 0.86), 24)
    for bx, by in ((w - 88, 50), (w - 88, 98), (w - 44, 74)):
        for r, tone in ((19, "#23262b"), (15, "#0b0c0e"), (9, "#1c2c4a"), (4, "#080a10")):
            back.disc(bx, by, r, tone)
        back.disc(bx - 5, by - 5, 2.4, "#a9c0e6")
    mask, cx, cy = rounded(w, h, 42), size[0] / 2, size[1] / 2
    slab(scene, cx + 110, cy - 26, back.pixels(), mask, 9, rim, (-0.5, 0.06, 0.1))
    slab(scene, cx - 78, cy + 8, glass, mask, 9, rim, (0.42, 0.08, -0.05), 4)
    return scene.photo(rng)


def _mug(
    rng: Rng, size: tuple[int, int], clay: str, inside: str, inks: Sequence[str], words: Sequence[str], style: str
) -> Picture:
    """A glazed mug with a wrapped print and its handle on the right."""
    ink, accent = inks
    w, h = size
    r, tall, tilt = w * 0.235, h * 0.55, 0.17
    scene, art = Scene(w, h), Art(np.pi * r, tall, clay)
    mid = art.width / 2
    if style == "motto":
        for line, at, high, face, colour in (
            (words[0], 0.27, 34, "stixital", ink),
            (words[1], 0.47, 62, "stixbold", accent),
            (words[2], 0.67, 34, "stixital", ink),
        ):
            art.text(mid, tall * at, line, high, face, colour, "mm", fit=r * 1.35)
        art.line([(mid - 60, tall * 0.8), (mid + 60, tall * 0.8)], accent, 1.5)
        art.text(mid, tall * 0.85, words[3], 9, "sans", ink, "mm", tracking=2)
    else:
        art.rect(0, tall * 0.1, art.width, tall * 0.12, accent)
        art.rect(0, tall * 0.88, art.width, tall * 0.9, accent)
        draw_motif(art, "wave", mid, tall * 0.4, r * 0.42, (ink, accent, ink))
        art.text(mid, tall * 0.66, words[0], 44, "monobold", ink, "mm", fit=r * 1.3)
        art.text(mid, tall * 0.76, words[1], 12, "mono", accent, "mm", fit=r * 1.3)
        art.text(mid, tall * 0.82, words[2], 8.5, "mono", ink, "mm")
    art.rect(0, tall - 6, art.width, tall, "#cbb9a2" if style != "motto" else clay)
    cx, top = w * 0.44, h * 0.2
    scene.ground(cx, top + tall, r * 0.97, r * tilt)
    _handle(scene, cx + r * 0.98, top + tall * 0.5, r * 0.52, tall * 0.3, r * 0.125, clay)
    profile, bands = [(0, r), (tall - 16, r), (tall, r * 0.93)], (Band(tall - 6, 0.62), Band(tall, 0.05))
    turned(scene, cx, top, profile, art.pixels(), bands, tilt)

    def rim(u: Array, v: Array) -> Array:
        return np.asarray(np.clip(rgb(clay) * (1.12 - 0.1 * u - 0.06 * v)[..., None] + 0.03, 0, 1))

    def well(u: Array, v: Array) -> Array:
        depth = np.clip(0.5 + 0.5 * v, 0, 1)
        tone = 0.62 + 0.4 * depth + 0.12 * u - 0.18 * smoothstep(0.9, 1.0, np.hypot(u, v))
        return np.asarray(np.clip(rgb(inside) * tone[..., None], 0, 1))

    ellipse(scene, cx, top + 1, r, r * tilt, rim)
    ellipse(scene, cx, top + 1.5, r - 6, (r - 6) * tilt, well)
    return scene.photo(rng)


def _handle(scene: Scene, cx: float, cy: float, ra: float, rb: float, thick: float, clay: str) -> None:
    """The right half of a glazed ring of radii ra, rb around (cx, cy), `thick` on both sides of its middle."""
    x0, y0 = round(cx * S), round((cy - rb - thick - 2) * S)
    x = (x0 + np.arange(round((ra + thick + 2) * S), dtype=np.float32) + 0.5)[None] / S - cx
    y = (y0 + np.arange(round(2 * (rb + thick + 2) * S), dtype=np.float32) + 0.5)[:, None] / S - cy
    ang = np.arctan2(y / rb, x / ra)
    gx, gy = np.cos(ang) * ra, np.sin(ang) * rb  # the nearest point of the middle line, about
    nx, ny = np.cos(ang) / ra, np.sin(ang) / rb
    norm = np.hypot(nx, ny)
    t = ((x - gx) * nx + (y - gy) * ny) / norm / thick  # -1..1 across
    nz = np.sqrt(np.maximum(1 - t * t, 0))
    diffuse, mirror, _ = studio_light(t * nx / norm, t * ny / norm, nz)
    skin = rgb(clay) * diffuse[..., None]
    skin += (1 - skin) * (0.6 * mirror)[..., None]
    cover = np.clip((1 - np.abs(t)) * thick * S + 0.5, 0, 1)
    scene.paste(skin.astype(np.float32), cover.astype(np.float32), x0, y0)


def _tags(
    rng: Rng, size: tuple[int, int], stock: str, inks: Sequence[str], copy: Copy, price: str, sizes: str
) -> Picture:
    """Two hang tags on a string: the brand side; the side with size, price, fibre content and codes."""
    ink, accent = inks
    w, h = 232.0, 430.0
    front, back = Art(w, h, stock), Art(w, h, "#fbfaf6")
    front.text(w / 2, h * 0.33, copy.brand, 60, "stixbold", ink, "mm", fit=w - 40)
    front.text(w / 2, h * 0.42, copy.title, 17, "cmti", accent, "mm", fit=w - 40)
    front.rect(12, 12, w - 12, h - 12, ink, 6, 1)
    draw_motif(front, "sun", w / 2, h * 0.6, 52, (accent, ink, stock))
    front.para(30, h * 0.77, w - 60, copy.claim, 10.5, "cmr", ink, "m")
    back.text(w / 2, 70, copy.brand, 22, "stixbold", "#1c1c1c", "mm")
    rows = [(" Style", "TR-2207"), (" Colour", copy.net), (" Fit", "Regular"), (" Made in", "Portugal")]
    y = back.table(20, 96, w - 40, rows, 10.5, "#1c1c1c")
    y = back.para(20, y + 8, w - 40, copy.small, 8.5, "sans", "#333333")
    for k, word in enumerate(sizes.split()):
        x = 38 + k * 39
        back.disc(x, y + 20, 14, "#1c1c1c", 0 if k == 2 else 0.9)
        back.text(x, y + 20, word, 12, "bold", "#ffffff" if k == 2 else "#1c1c1c", "mm")
    back.matrix(18, y + 46, 74, rng)
    back.barcode(100, y + 46, 116, 74, rng)
    back.rect(18, h - 66, w - 18, h - 16, accent, 5)
    back.text(w / 2, h - 41, price, 34, "bold", "#ffffff", "mm")
    scene = Scene(*size)
    cx, cy = size[0] / 2, size[1] / 2
    for art, tx, ty, roll in ((front, cx - 128, cy + 18, 0.13), (back, cx + 122, cy + 40, -0.1)):
        mask = rounded(w, h, 12)
        yy, xx = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]] / S
        mask *= np.clip((np.hypot(xx - w / 2, yy - 30) - 8) * S, 0, 1)  # the punched hole
        art.disc(w / 2, 30, 13, "#b08d4f", 4.5)
        grain = rng.standard_normal((round(h), round(w))).astype(np.float32) * 0.008
        paper = art.pixels() * (1 + resize(grain, *mask.shape))[..., None]
        slab(scene, tx, ty, paper, mask, 2, "#d9d2c2", (0.02, 0.05, roll), 3)
        x, y = project([(0, 30 - h / 2, 0)], tx, ty, 0.02, 0.05, roll)[0].tolist()  # the hole in the picture
        rope = curve([(x, y), (x * 0.7 + cx * 0.3, cy - h * 0.5), (cx + 12, 46), (cx + 18, 14)], False, 24)
        twine = np.array([1, 0.95, 0.85], np.float32)
        for dx, dy, wide, tone, strength in (  # shadow, string, and two lighter cores
            (2, 4, 4.4, 0.0, 0.22),
            (0, 0, 4.2, 0.42, 1),
            (-0.4, -0.4, 2.6, 0.72, 1),
            (-0.7, -0.7, 1, 0.86, 1),
        ):
            scene.stroke([(u + dx, v + dy) for u, v in rope], twine * tone, wide, strength)
    return scene.photo(rng)


# --- the catalogue --------------------------------------------------------------------------------
# Filled by hand: a profile reads as one curve, a product as one paragraph of a few lines; the formatter puts one value
# a line, 400 lines in place of 120.
# fmt: off

OIL = [(0, 27), (54, 27), (56, 24), (66, 24), (70, 27), (76, 25), (150, 27), (205, 92), (232, 98), (640, 98), (650, 92)]
JUICE = [(0, 46), (46, 46), (48, 38), (60, 38), (110, 84), (150, 108), (250, 112), (262, 108), (480, 108), (492, 112),
    (560, 110), (580, 94)]
SAUCE = [(0, 26), (62, 28), (64, 21), (150, 22), (230, 64), (262, 72), (600, 72), (612, 66)]

CATALOGUE: dict[str, Render] = {
    "bottle-olive-oil": partial(_bottle, size=(560, 800), profile=OIL, cap=(54, "#20201e"), body=("#a9b87a", "#5d7426"),
        label=(270, 300, 172), style="classic", motif="olive", fill=170, metal=0.3,
        inks=("#f6f1df", "#2c331c", "#8a6d2b", "#4e5b22"),
        copy=Copy("Montaldi", "Extra Virgin Olive Oil", "First cold pressing",
            "Pressed within six hours of harvest from Corzella and Frantina olives. Acidity below 0.3 %. Store away "
            "from light and heat. Product of the Alvera hills.", "500 ml e")),
    "bottle-orange-juice": partial(_bottle, size=(512, 720), profile=JUICE, cap=(46, "#2f9e44"),
        body=("#f5e6bd", "#f79a16"), label=(264, 214, 186), style="upright", motif="citrus", fill=90,
        inks=("#ffffff", "#20303a", "#f0711a", "#ffb52e"),
        copy=Copy("SUNPOD", "Orange & Mango Juice", "not from concentrate",
            "Orange juice 82 %, mango puree 17 %, acerola cherry. Shake well. Keep cool, drink within 3 days of "
            "opening.", "750 ml")),
    "bottle-chilli-sauce": partial(_bottle, size=(483, 761), profile=SAUCE, cap=(62, "#161616"),
        body=("#e9b7a0", "#b3180f"), label=(288, 270, 128), style="block", motif="sun", fill=138,
        inks=("#fff3cf", "#1d1511", "#c4200f", "#f2b51d"),
        copy=Copy("Brazo", "Smoked Chilli Sauce", "Hot 7/10",
            "Red chillies 41 %, vinegar, smoked salt. May contain mustard. Shake well.", "148 ml")),
    "can-plum-tomatoes": partial(_can, size=(600, 720), radius=172, tall=470, style="classic", motif="tomato",
        drink=False, inks=("#fbf3dd", "#7d1410", "#b8912f", "#d92c1f"),
        copy=Copy("Bellorona", "Peeled Plum Tomatoes", "In thick tomato juice",
            "Plum tomatoes (65 %), tomato juice, sea salt, acidity regulator: citric acid. Drained weight 260 g. Once "
            "opened keep in a glass dish.", "400 g e")),
    "can-sparkling-water": partial(_can, size=(501, 780), radius=112, tall=600, style="upright", motif="wave",
        drink=True, inks=("#eef6f4", "#173b3f", "#0f8a86", "#b9d84a"),
        copy=Copy("FJELLA", "Sparkling water, yuzu & mint", "zero sugar",
            "Carbonated spring water, natural yuzu and mint flavour. No sweeteners. Serve chilled.", "330 ml")),
    "box-breakfast-tea": partial(_box, size=(720, 660), dims=(330, 420, 190), yaw=0.62, pitch=0.2, motif="leaf",
        style="poster", inks=("#f7f2e4", "#17352b", "#1f4d3d", "#b98b35"),
        copy=Copy("Harrow & Finch", "Highland Breakfast Tea", "Forty pyramid bags",
            "A brisk blend of black teas from three gardens. Infuse one bag for four minutes in freshly boiled water; "
            "good with milk. Ingredients: black tea. Packed in a protective atmosphere.", "40 bags  125 g")),
    "box-oat-clusters": partial(_box, size=(640, 800), dims=(390, 580, 120), yaw=-0.5, pitch=0.12, motif="sun",
        style="cereal", inks=("#fffaf0", "#3a2414", "#d9531e", "#f2a93b"),
        copy=Copy("Morgenmix", "Oat & Apple Clusters", "Baked twice, never fried",
            "Wholegrain oat flakes 58 %, apple pieces 12 %, honey, sunflower seeds, barley malt extract, cinnamon, "
            "salt. Contains oats and barley; may contain nuts.", "450 g")),
    "box-hay-fever-tablets": partial(_box, size=(800, 533), dims=(500, 260, 110), yaw=0.45, pitch=0.26,
        motif="halftone", style="stripe", inks=("#ffffff", "#26323e", "#0b6fb8", "#58b947"),
        copy=Copy("Nolvarine", "Cetravane 10 mg", "30 film-coated tablets",
            "For the relief of hay fever. Swallow one tablet daily with water. Read the leaflet before use. Keep out "
            "of the sight and reach of children. Do not store above 25 °C.", "30")),
    "book-novel-tides": partial(_book, size=(600, 760), dims=(400, 610, 52), yaw=0.42,
        title=("The Tides", "of Ostrava", "Bay"), author="MARGIT OLLENDORF",
        blurb="“A quiet, exact and luminous book about what the water returns.” — The Harbour Review",
        house="QUAYSIDE PRESS", style="novel", inks=("#101c3c", "#f6ecd2", "#f3c667", "#3f6aa0")),
    "book-signals-manual": partial(_book, size=(680, 720), dims=(450, 570, 78), yaw=-0.48,
        title=("Signals", "& Filters"), author="Anselm R. Tveit",
        blurb="A working course in sampling, interpolation and spectral estimation, with 240 problems, full "
            "solutions and code for every figure.", house="Northgate University Texts", style="manual",
        inks=("#f4f1e6", "#23262b", "#8c1d2f", "#2f6d8f")),
    "tee-breton-stripe": partial(_tee, size=(720, 720), cloth="#f1ede3", ink="#1f2f57", accent="#b03a2e",
        style="stripe", words=("Bec d'Or", "BEC D'OR")),
    "tee-summit-print": partial(_tee, size=(760, 740), cloth="#3d5a50", ink="#efe6cc", accent="#e0a03a", style="print",
        words=("RIDGEFELL", "trail running club", "EST. 1994 / 46.5N 7.9E / 2,340 M", "RIDGE")),
    "shirt-flannel-check": partial(_shirt, size=(640, 760), cloth="#c9bfae", words=("Aldermoor", "SLIM 40 / 15¾"),
        inks=("#8e2323", "#1e3148")),
    "cushion-nordic-knit": partial(_cushion, size=(733, 655), cloth="#8fa3b5", words=("Snøberg", "100 % lambswool"),
        inks=("#f3efe6", "#2b3f5c")),
    "watch-field-leather": partial(_dial, size=(533, 800), radius=178, face="#f3efe2", ink="#1d1d1f", accent="#a3321f",
        metal="#d7d9dc", brand="Kellweg", lines=("AUTOMATIC", "20 ATM", "SHOCK RESISTANT"),
        numerals=[str(k) for k in range(1, 13)], font="bold", strap="#6b3f22", subdials=False),
    "watch-chrono-steel": partial(_dial, size=(560, 760), radius=190, face="#16284a", ink="#f1f3f6", accent="#f2a03d",
        metal="#dfe1e4", brand="VANTREL", lines=("CHRONOGRAPH", "TACHYMETRE"), numerals=[""] * 12, font="sans",
        strap="steel", subdials=True),
    "clock-wall-roman": partial(_dial, size=(700, 700), radius=300, face="#fbf8ee", ink="#20242b", accent="#8a2f23",
        metal="#c79a55", brand="Osterholt", lines=("Regulator No. 14", "LEIPZIG"),
        numerals=("I", "II", "III", "IIII", "V", "VI", "VII", "VIII", "IX", "X", "XI", "XII"), font="stixbold",
        strap="", subdials=False),
    "jar-night-cream": partial(_jar, size=(640, 600), radius=180, tall=350, lid=(104, "#d9b98a", 0.9), body="#f4ece6",
        glass=0, label=(148, 176), style="classic", motif="leaf", inks=("#f7f1ec", "#3b2d2a", "#a8804c", "#d8b8a0"),
        copy=Copy("Aurelwyn", "Night Repair Cream", "Squalane + Ceramides",
            "Aqua, squalane, glycerin, cetearyl alcohol, ceramide NP, niacinamide, tocopherol, sodium hyaluronate, "
            "parfum. Apply at night to a clean face.", "50 ml  1.7 fl oz")),
    "jar-forest-honey": partial(_jar, size=(600, 680), radius=150, tall=430, lid=(74, "#caa64e", 1), body="#d98a14",
        glass=0.9, label=(170, 190), style="block", motif="sun", inks=("#fff8e6", "#3a2508", "#6b4a12", "#e5a72c"),
        copy=Copy("Lindenwabe", "Forest Honey", "raw and unfiltered",
            "Gathered by our bees in the lime and chestnut woods of the Oder valley. Crystals are natural: warm "
            "gently in a water bath. Not for infants under 12 months.", "500 g")),
    "tube-hand-cream": partial(_tube, size=(480, 800), cap="#e9e6da", inks=("#f4f3ec", "#33443a", "#6d8a70", "#c9d8c0"),
        copy=Copy("SALVIE", "hand & nail cream", "sage and oat milk",
            "Aqua, Avena sativa kernel extract, butyrospermum parkii butter, glycerin, salvia officinalis leaf oil, "
            "tocopherol, citric acid, linalool. Massage a little into dry hands. For external use only.",
            "75 ml e 2.5 fl oz")),
    "pouch-single-origin": partial(_pouch, size=(600, 800), film="#b98d5d", motif="peaks", gloss=0.1,
        inks=("#f8f3e6", "#2a2320", "#b5482a", "#e3b04b"),
        copy=Copy("Tarn Roasters", "Kirinya Washed, Single Origin", "blackcurrant / lime / cane sugar",
            "Grown at 1750 m by the Ruvela cooperative, washed and dried on raised beds for sixteen days. Whole "
            "beans. Rest ten days after roasting, then brew 60 g to a litre.", "WHOLE BEAN  250 g")),
    "pouch-espresso-black": partial(_pouch, size=(561, 747), film="#26262a", motif="bean", gloss=0.55,
        inks=("#ececea", "#18181a", "#c2912e", "#5b3a22"),
        copy=Copy("NOXARO", "Espresso Blend No. 5", "dark cocoa / hazelnut",
            "A heavy bodied blend of five coffees for machine and moka pot. Dose 18 g, yield 38 g in 28 seconds. "
            "Packed fresh under nitrogen. Keep the valve clear.", "GROUND  500 g")),
    "keyboard-compact": partial(_keyboard, size=(800, 500), brand="TYPA 61", deck="#3a3f47", cap="#555c66",
        legend="#f2f4f6", accent="#e2703a"),
    "phone-home-screen": partial(_phone, size=(720, 760), name="orbelo",
        inks=("#13203c", "#5a3f7a", "#ffcf6b", "#8d99ad")),
    "mug-motto-cream": partial(_mug, size=(680, 580), clay="#f3ecdd", inside="#f3ecdd",
        words=("Slow is", "SMOOTH", "and smooth is fast", "KILN & LOAF"), style="motto", inks=("#3c332c", "#b4512f")),
    "mug-harbour-blue": partial(_mug, size=(640, 600), clay="#23405f", inside="#e9e4d8",
        words=("PORT 57°N", "fog signal every 30 seconds", "STONEWARE 340 ML / DISHWASHER SAFE"), style="wave",
        inks=("#eef2f4", "#e0b04c")),
    "tags-canvas-rust": partial(_tags, size=(680, 620), stock="#c9a67a", price="€ 89.50", sizes="28 30 32 34 36",
        inks=("#2b1d12", "#a33b1c"),
        copy=Copy("Terrane", "work clothes since 1987",
            "Cut from 340 g organic canvas, bar-tacked where it matters, and mended free of charge for life.",
            "98 % cotton, 2 % elastane. Machine wash at 30 °C inside out with like colours. Do not tumble dry. Iron "
            "warm. Colour may rub off when new.", "Rust 041")),
    "tags-linen-fog": partial(_tags, size=(701, 640), stock="#e6e9e6", price="£ 64.00", sizes="XS S M L XL",
        inks=("#24333a", "#3f7680"),
        copy=Copy("Lumi & Ro", "slow linen",
            "Woven from flax grown and spun within ninety kilometres of our mill on the river Leve.",
            "100 % linen. Wash at 40 °C, 1200 rpm, line dry in shade. Iron damp. Shrinkage up to 3 % at the first "
            "wash is normal.", "Sea fog 12")),
}
# fmt: on


def product_names() -> list[str]:
    """Names of all products in catalogue order, safe as file names ("bottle-olive-oil")."""
    return list(CATALOGUE)


def render_product(name: str) -> Picture:
    """The product shot `name`: uint8 [H, W, 3] sRGB, 480 <= H, W <= 800, the same bytes at each call.

    Raises ValueError, with the known names, if there is no such product.
    """
    if name not in CATALOGUE:
        raise ValueError(f"unknown product {name!r}; choose one of: {', '.join(CATALOGUE)}")
    return CATALOGUE[name](np.random.default_rng([SEED, zlib.crc32(name.encode())]))


def _write(name: str, folder: Path) -> Path:
    path = folder / f"{name}.png"
    with atomic_file(path) as stream:
        Image.fromarray(render_product(name)).save(stream, "PNG", optimize=True)
    return path


def write_products(folder: Path) -> list[Path]:
    """Writes every product as folder/NAME.png and returns the paths; a file appears only when complete."""
    return [_write(name, folder) for name in product_names()]


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: `python -m loupe.datasets.products OUT`."""
    parser = argparse.ArgumentParser(prog="python -m loupe.datasets.products", description="Writes the product shots.")
    parser.add_argument("out", type=Path, help="folder for the PNG files, made if missing")
    for path in write_products(parser.parse_args(arguments).out):
        print(path)


if __name__ == "__main__":
    main()
