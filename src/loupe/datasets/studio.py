"""The studio of the product shots: flat print, light and shadow, solids, cloth and foil.

What for: `loupe.datasets.products` builds every picture from these blocks; this file knows no product and imports
nothing of loupe. All sizes are delivered pixels. What is drawn is S times larger (a shape then says `* S`), shaded,
and reduced with a Lanczos filter at the end, so edges and small print are as clean as in a well-focused photograph.

What may change: all of it, but several pictures share each block, and `data/products` is versioned. Pillow draws,
NumPy shades, and randomness comes in as `rng`: the same calls in the same order give the same bytes.

Which test tells: tests/datasets/test_products.py, `test_two_products_match_the_versioned_files` (if you meant to
change the pictures: write them again, then `dvc add data/products`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageColor, ImageDraw, ImageFilter, ImageFont

Array = npt.NDArray[np.floating[Any]]  # planes are float32; small fields may be float64 on their way
Picture = npt.NDArray[np.uint8]  # [H, W, 3] sRGB in [0, 255]
Points = Sequence[tuple[float, float]]  # (x right, y down) in delivered pixels
Rng = np.random.Generator

S = 3  # supersampling: 3 x 3 samples a delivered pixel leave no visible stairs and keep a picture under 2 s
FACES = {
    "sans": "DejaVuSans",
    "bold": "DejaVuSans-Bold",
    "oblique": "DejaVuSans-Oblique",
    "mono": "DejaVuSansMono",
    "monobold": "DejaVuSansMono-Bold",
    "serif": "DejaVuSerif",
    "serifbold": "DejaVuSerif-Bold",
    "stix": "STIXGeneral",
    "stixbold": "STIXGeneralBol",
    "stixital": "STIXGeneralItalic",
    "stixbi": "STIXGeneralBolIta",
    "cmr": "cmr10",
    "cmb": "cmb10",
    "cmss": "cmss10",
    "cmti": "cmti10",
    "cmtt": "cmtt10",
}


# --- flat artwork ---------------------------------------------------------------------------------


def _font(face: str, size: float) -> ImageFont.FreeTypeFont:
    import matplotlib  # only to find the fonts it bundles; imported here to keep `import loupe` light

    path = Path(matplotlib.get_data_path(), "fonts", "ttf", f"{FACES[face]}.ttf")
    return ImageFont.truetype(path, size * S, layout_engine=ImageFont.Layout.BASIC)


def rgb(colour: str) -> Array:
    """The colour ("#rrggbb") as float32 [3] in [0, 1]."""
    return np.divide(ImageColor.getrgb(colour)[:3], 255, dtype=np.float32)


def tint(colour: str, factor: float, other: str = "#000000") -> str:
    """The colour ("#rrggbb") times `factor`, for a factor below 1 the rest of the way to `other`; clipped."""
    mixed = np.clip((rgb(colour) * factor + rgb(other) * max(0.0, 1 - factor)) * 255, 0, 255)
    return "#{:02x}{:02x}{:02x}".format(*mixed.astype(int).tolist())


class Art:
    """Flat print (label, cover, box face): RGB, `width` x `height` delivered pixels, kept S times larger."""

    def __init__(self, width: float, height: float, paper: str = "#ffffff") -> None:
        """An empty sheet of the colour `paper`."""
        self.width, self.height = width, height
        self.image = Image.new("RGB", (round(width * S), round(height * S)), paper)
        self.draw = ImageDraw.Draw(self.image)

    def text(
        self,
        x: float,
        y: float,
        words: str,
        size: float,
        face: str = "sans",
        ink: str = "#222222",
        anchor: str = "la",
        tracking: float = 0,
        fit: float = 0,
    ) -> None:
        """One line of text in a face of FACES, `anchor` as in Pillow, `tracking` pixels between the letters.

        `fit` > 0 chooses the size so that the line is that wide, but at most `size`.
        """
        font = _font(face, size)
        span = font.getlength(words) / S + tracking * (len(words) - 1)
        if fit and span > fit:
            size, tracking, span = size * fit / span, tracking * fit / span, fit
            font = _font(face, size)
        if not tracking:
            self.draw.text((x * S, y * S), words, ink, font, anchor)
            return
        x -= {"l": 0.0, "m": span / 2, "r": span}[anchor[0]]
        for letter in words:
            self.draw.text((x * S, y * S), letter, ink, font, "l" + anchor[1])
            x += font.getlength(letter) / S + tracking

    def para(
        self,
        x: float,
        y: float,
        width: float,
        words: str,
        size: float,
        face: str = "sans",
        ink: str = "#222222",
        align: str = "l",
        leading: float = 1.32,
        bottom: float = 1e9,
    ) -> float:
        """Text broken into lines of at most `width`, whole sentences down to `bottom`; returns y below."""
        font = _font(face, size)
        sentences = words.split(". ")
        for n in range(len(sentences), 0, -1):
            lines = [""]
            for word in ". ".join(sentences[:n]).split():
                longer = f"{lines[-1]} {word}".strip()
                if font.getlength(longer) > width * S and lines[-1]:
                    lines.append(word)
                else:
                    lines[-1] = longer
            if y + len(lines) * size * leading <= bottom:
                break
        else:
            return y
        if n < len(sentences):
            lines[-1] += "."
        at = {"l": x, "m": x + width / 2, "r": x + width}[align]
        for line in lines:
            self.draw.text((at * S, y * S), line, ink, font, align + "a")
            y += size * leading
        return y

    def gradient(self, y0: float, y1: float, above: str, below: str) -> None:
        """Fills the rows from y0 to y1 with a vertical blend and all rows under y1 with `below`."""
        t = np.clip(np.arange(round(self.height * S) - round(y0 * S)) / ((y1 - y0) * S), 0, 1)[:, None, None]
        rows = np.round((rgb(above) * (1 - t) + rgb(below) * t) * 255).astype(np.uint8)  # [rows, 1, 3]
        self.image.paste(Image.fromarray(np.repeat(rows, self.image.width, axis=1)), (0, round(y0 * S)))

    def rect(self, x0: float, y0: float, x1: float, y1: float, ink: str, radius: float = 0, line: float = 0) -> None:
        """A filled rectangle, or with `line` > 0 its outline, with rounded corners if asked."""
        box = (round(x0 * S), round(y0 * S), round(x1 * S) - 1, round(y1 * S) - 1)
        fill, outline = (None, ink) if line else (ink, None)
        self.draw.rounded_rectangle(box, radius * S, fill, outline, max(1, round(line * S)))

    def disc(self, x: float, y: float, r: float, ink: str, line: float = 0, squash: float = 1) -> None:
        """A filled disc (or ring), `squash` is height over width."""
        box = ((x - r) * S, (y - r * squash) * S, (x + r) * S, (y + r * squash) * S)
        self.draw.ellipse(box, None if line else ink, ink if line else None, max(1, round(line * S)))

    def line(self, points: Points, ink: str, width: float = 1) -> None:
        """A polyline."""
        self.draw.line(_scaled(points), ink, max(1, round(width * S)), "curve")

    def poly(self, points: Points, ink: str) -> None:
        """A filled polygon."""
        self.draw.polygon(_scaled(points), ink)

    def barcode(self, x: float, y: float, width: float, height: float, rng: Rng) -> None:
        """A retail-like bar code on a white field with its digits."""
        ink = "#111111"
        self.rect(x, y, x + width, y + height, "#ffffff")
        digits = "".join(str(d) for d in rng.integers(0, 10, 12))
        modules, unit = rng.integers(1, 4, 58), (width - 10) / 118
        edges = np.cumsum(modules) * 118 / modules.sum() * unit + x + 5
        for i in range(0, 57, 2):
            tail = 6 if i in (0, 2, 28, 30, 54, 56) else 11.5
            self.rect(edges[i], y + 4, edges[i + 1], y + height - tail, ink)
        for part, at in ((digits[:6], 0.28), (digits[6:], 0.73)):
            self.text(x + width * at, y + height - 2, part, 9.5, "mono", ink, "ms", fit=width * 0.4)

    def matrix(self, x: float, y: float, size: float, rng: Rng) -> None:
        """A QR-like matrix with three finders on a white field (it encodes nothing)."""
        cells = 25
        self.rect(x, y, x + size, y + size, "#ffffff")
        grid = rng.random((cells, cells)) < 0.5
        finder = np.pad(np.pad(np.ones((3, 3), bool), 1), 1, constant_values=True)
        for r, c in ((0, 0), (0, cells - 7), (cells - 7, 0)):
            grid[max(r - 1, 0) : r + 8, max(c - 1, 0) : c + 8] = False
            grid[r : r + 7, c : c + 7] = finder
        side = round(size * 0.9 * S)
        bits = Image.fromarray(np.where(grid, 255, 0).astype(np.uint8)).resize((side, side), Image.Resampling.NEAREST)
        self.image.paste("#111111", (round((x + size * 0.05) * S), round((y + size * 0.05) * S)), bits)

    def table(self, x: float, y: float, width: float, rows: Sequence[tuple[str, str]], size: float, ink: str) -> float:
        """Rows of name and value with hairlines between, a name that starts with a space indented; returns y below."""
        for name, value in rows:
            face, indent = ("sans", 6) if name.startswith(" ") else ("bold", 0)
            self.text(x + indent, y, name.strip(), size, face, ink)
            self.text(x + width, y, value, size, "sans", ink, "ra")
            y += size * 1.42
            self.rect(x, y - 1.4, x + width, y - 0.7, ink)
        return y

    def upright(self, other: "Art", x: float, y: float) -> None:
        """Pastes another artwork turned by 90 degrees, reading upwards."""
        self.image.paste(other.image.transpose(Image.Transpose.ROTATE_90), (round(x * S), round(y * S)))

    def pixels(self) -> Array:
        """float32 [height * S, width * S, 3] in [0, 1]."""
        return np.asarray(self.image, np.float32) / 255


def _scaled(points: Points) -> list[tuple[float, float]]:
    return [(x * S, y * S) for x, y in points]


def curve(points: Points, closed: bool = True, steps: int = 12) -> list[tuple[float, float]]:
    """A smooth (Catmull-Rom) polyline through the points, `steps` vertices a span."""
    p = np.asarray(points, float)
    p = np.concatenate([p[-1:], p, p[:2]]) if closed else np.concatenate([p[:1], p, p[-1:]])
    t = np.linspace(0, 1, steps, endpoint=False)[:, None]
    parts = []
    for a, b, c, d in zip(p, p[1:], p[2:], p[3:], strict=False):
        parts.append(b + 0.5 * t * (c - a + t * (2 * a - 5 * b + 4 * c - d + t * (3 * (b - c) + d - a))))
    return _points(np.concatenate(parts))


def _points(rows: Array) -> list[tuple[float, float]]:
    """[n, 2] as Pillow wants it."""
    return [(float(x), float(y)) for x, y in rows]


def _leaf(art: Art, x: float, y: float, length: float, angle: float, ink: str, fat: float = 0.34) -> None:
    t = np.linspace(0, np.pi, 20)
    along, across = (1 - np.cos(t)) / 2 * length, np.sin(t) ** 1.3 * length * fat / 2
    c, s = np.cos(angle), np.sin(angle)
    rim = [(x + a * c - b * s, y + a * s + b * c) for a, b in zip(along, across, strict=True)]
    rim += [(x + a * c + b * s, y + a * s - b * c) for a, b in zip(along[::-1], across[::-1], strict=True)]
    art.poly(rim, ink)


def draw_motif(art: Art, kind: str, x: float, y: float, r: float, inks: Sequence[str]) -> None:
    """A small illustration of radius r around (x, y), in three inks: what is inside the pack, or the maker's sign.

    Kinds: olive, citrus, tomato, sun, wave, peaks, halftone, leaf, bean; any other raises ValueError.
    """
    a, b, c = inks
    if kind == "olive":
        art.line(curve([(x - r, y + r * 0.35), (x, y), (x + r, y - r * 0.5)], False), c, r * 0.05)
        for t in np.linspace(-0.9, 0.9, 7):
            for side in (-1, 1):
                _leaf(art, x + r * t, y - r * 0.4 * t, r * 0.55, side * 0.9 - 0.35, a if side > 0 else c, 0.3)
        for dx, dy in ((-0.35, 0.42), (0.2, 0.3), (0.02, 0.62)):
            art.disc(x + r * dx, y + r * dy, r * 0.2, b, squash=1.25)
            art.disc(x + r * (dx - 0.06), y + r * (dy - 0.08), r * 0.05, "#f4f6df")
    elif kind == "citrus":
        for radius, ink in ((1, a), (0.9, "#fff6dd"), (0.82, a)):
            art.disc(x, y, r * radius, ink)
        for k in range(10):
            t0, t1 = k * np.pi / 5 + 0.06, (k + 1) * np.pi / 5 - 0.06
            wedge = [(x + r * 0.76 * np.cos(t), y + r * 0.76 * np.sin(t)) for t in np.linspace(t0, t1, 6)]
            art.poly([(x + r * 0.08 * np.cos(t0 + 0.25), y + r * 0.08 * np.sin(t0 + 0.25)), *wedge], b)
        _leaf(art, x + r * 0.6, y - r * 0.8, r * 0.8, -0.5, c, 0.5)
    elif kind == "tomato":
        for dx, dy, fat in ((-0.5, 0.15, 0.62), (0.52, 0.2, 0.58), (0, -0.05, 0.74)):
            art.disc(x + r * dx, y + r * dy, r * fat * 1.04, tint(c, 0.8), squash=0.9)
            for j in range(30):
                ink = tint(b, j / 29, c) if j < 25 else tint(b, 1 - (j - 24) / 16, "#ffffff")
                at = (x + r * (dx - 0.007 * j), y + r * (dy - 0.008 * j))
                art.disc(*at, r * fat * (1 - j / 31), ink, squash=0.9)
            for t in np.linspace(0, 2 * np.pi, 5, endpoint=False):
                _leaf(art, x + r * dx, y + r * (dy - fat * 0.74), r * 0.34, t * 0.55 - 2.9, "#2f6b2c", 0.42)
    elif kind == "sun":
        for t in np.linspace(0, 2 * np.pi, 32, endpoint=False):
            base = [(x + r * 0.55 * np.cos(t + s), y + r * 0.55 * np.sin(t + s)) for s in (-0.07, 0.07)]
            art.poly([(x + r * np.cos(t), y + r * np.sin(t)), *base], a)
        art.disc(x, y, r * 0.5, b)
        art.disc(x, y, r * 0.42, c, r * 0.03)
    elif kind == "wave":
        for k in range(7):
            xs = np.linspace(-r, r, 60)
            ys = y + (k - 3) * r * 0.2 + np.sin(xs / r * 7 + k * 0.7) * r * 0.1
            art.line([(x + u, v) for u, v in zip(xs, ys, strict=True)], (a, b, c)[k % 3], r * 0.07)
    elif kind == "peaks":
        art.disc(x + r * 0.3, y - r * 0.35, r * 0.32, b)
        for dx, high, ink in ((-0.45, 0.75, c), (0.4, 0.9, a), (-0.1, 1.1, c)):
            top, foot, half = y + r * (0.6 - high), y + r * 0.6, high * 0.62
            art.poly([(x + r * (dx - half), foot), (x + r * dx, top), (x + r * (dx + half), foot)], ink)
            cap = [(-0.17, 0.27), (0, 0), (0.17, 0.27), (0.07, 0.21), (0, 0.31), (-0.08, 0.2)]
            art.poly([(x + r * (dx + u * high), top + r * v * high) for u, v in cap], "#fbfaf4")
    elif kind == "halftone":
        for i in range(-14, 15):
            for j in range(-14, 15):
                u, v = (i + 0.5 * (j % 2)) / 14, j / 14
                if u * u + v * v < 1:
                    art.disc(x + u * r, y + v * r, r / 14 * (0.16 + 0.42 * (0.5 + 0.5 * np.sin(3 * u + 2 * v))), a)
    elif kind == "leaf":
        for k, t in enumerate(np.linspace(-2.7, -0.45, 7)):
            _leaf(art, x, y + r * 0.7, r * (1.25 if k % 2 else 1.5), t, (a, b)[k % 2], 0.3)
        art.line([(x, y + r * 0.9), (x, y - r * 0.2)], c, r * 0.04)
    elif kind == "bean":
        for dx, dy, t in ((-0.42, 0.1, 0.9), (0.4, 0.2, 2.1), (0, -0.35, 1.5)):
            cx, cy = x + r * (dx - 0.42 * np.cos(t)), y + r * (dy - 0.42 * np.sin(t))
            _leaf(art, cx, cy, r * 0.84, t, a, 0.74)
            s = [(0.06, 0), (0.3, 0.05), (0.54, -0.05), (0.8, 0)]
            rim = [(cx + r * (u * np.cos(t) - v * np.sin(t)), cy + r * (u * np.sin(t) + v * np.cos(t))) for u, v in s]
            art.line(curve(rim, False), b, r * 0.05)
    else:
        raise ValueError(f"unknown motif {kind!r}")


# --- planes, light, and the picture under construction --------------------------------------------


def smoothstep(low: float, high: float, x: Array) -> Array:
    """0 where x is at `low` or beyond, 1 at `high` or beyond (low > high falls), a cubic ramp between; like x."""
    t: Array = np.clip((x - low) / (high - low), 0, 1)
    return t * t * (3 - 2 * t)


def resize(a: Array, height: int, width: int, how: Image.Resampling = Image.Resampling.BICUBIC) -> Array:
    """A float32 plane [h, w] of any range at [height, width] samples, float32."""
    return np.asarray(Image.fromarray(a).resize((width, height), how), np.float32)


def _mean(a: Array, n: int) -> Array:
    """Running mean over n x n samples, edges repeated."""
    for axis in (0, 1):
        pad = [(n // 2 + 1, n - n // 2 - 1) if k == axis else (0, 0) for k in (0, 1)]
        total = np.cumsum(np.pad(a, pad, "edge"), axis, dtype=np.float64)
        a = ((total[n:] - total[:-n]) if axis == 0 else (total[:, n:] - total[:, :-n])).astype(np.float32) / n
    return a


def _soften(a: Array, radius: float) -> Array:
    """A wide blur of a [H, W] plane; `radius` in delivered pixels."""
    n = max(3, round(radius * S * 0.8)) | 1
    return _mean(_mean(_mean(a, n), n), n)


def sample(texture: Array, x: Array, y: Array) -> Array:
    """Bilinear look-up of float32 [H, W, 3] at texture coordinates x, y (any one shape), edges repeated.

    Returns [*x.shape, 3] in the range of the texture.
    """
    h, w = texture.shape[:2]
    x, y = np.clip(x, 0, w - 1.001), np.clip(y, 0, h - 1.001)
    i, j = y.astype(np.int32), x.astype(np.int32)
    fy, fx = (y - i)[..., None], (x - j)[..., None]
    flat, at = texture.reshape(-1, 3), i * w + j
    upper = flat[at] * (1 - fx) + flat[at + 1] * fx
    result: Array = upper * (1 - fy) + (flat[at + w] * (1 - fx) + flat[at + w + 1] * fx) * fy
    return result


def studio_light(nx: Array, ny: Array, nz: Array) -> tuple[Array, Array, Array]:
    """What a surface of unit normal (nx right, ny down, nz to the camera) gets from the lights; all shaped like nx.

    Returns diffuse light (0.4 to 1.1), the mirrored softboxes (0 to 1), the room on polished metal (0.1 to 1.4).
    """
    diffuse = 0.62 + 0.46 * np.clip(-0.42 * nx - 0.34 * ny + 0.84 * nz, 0, 1) - 0.2 * (1 - nz) ** 2
    side, lift = np.arctan2(2 * nz * nx, 2 * nz * nz - 1), 2 * nz * ny  # where the mirrored ray goes
    reach = smoothstep(0.95, 0.55, lift) * smoothstep(-1.2, -0.8, lift)
    # A large softbox on the left, a narrow one on the right.
    left = smoothstep(-1.66, -1.5, side) * (0.35 * smoothstep(-0.84, -0.92, side) + 0.65 * smoothstep(-0.7, -1.5, side))
    right = smoothstep(1.3, 1.62, side) * smoothstep(1.95, 1.86, side)
    mirror = (left + 0.55 * right) * reach
    room = 0.6 + 0.52 * np.exp(-(((side + 1.1) / 0.42) ** 2)) + 0.34 * np.exp(-(((side - 1.55) / 0.22) ** 2))
    room += 0.2 * np.exp(-((side / 0.35) ** 2)) - 0.28 * np.exp(-(((np.abs(side) - 2.5) / 0.35) ** 2)) - 0.22 * lift
    return diffuse, mirror, room


class Scene:
    """The picture under construction: float32 [height * S, width * S, 3], about [0, 1]."""

    def __init__(self, width: int, height: int, backdrop: str = "#ffffff") -> None:
        """An empty studio, `width` x `height` delivered pixels."""
        self.width, self.height = width, height
        self.pixels: Array = np.broadcast_to(rgb(backdrop), (height * S, width * S, 3)).copy()

    def shadow(self, shape: Points, blur: float, strength: float) -> None:
        """Darkens the ground under a polygon, blurred by `blur` delivered pixels; strength 0..1."""
        mask = Image.new("L", (self.width, self.height))
        ImageDraw.Draw(mask).polygon(list(shape), 255)
        mask = mask.filter(ImageFilter.GaussianBlur(blur))
        mask = mask.resize((self.width * S, self.height * S), Image.Resampling.BICUBIC)
        dark = np.asarray(mask, np.float32)[..., None] * (strength / 255)
        self.pixels *= 1 - dark * np.array([1, 0.985, 0.96], np.float32)  # skylight: shadows lean to blue

    def ground(self, x: float, y: float, rx: float, ry: float) -> None:
        """Shadows of a thing standing on an ellipse: the contact, a soft pool, a cast to the right."""
        t = np.linspace(0, 2 * np.pi, 48)
        for gx, gy, dx, dy, blur, strength in (
            (1.02, 1.0, 0.0, 0.02 * rx, 2.5, 0.42),
            (1.08, 1.35, 0.05, 0.05 * rx, 9, 0.26),
            (1.3, 1.8, 0.16, 0.05 * rx, 26, 0.17),
        ):
            rim = [(x + rx * (dx + gx * np.cos(a)), y + dy + ry * gy * np.sin(a)) for a in t]
            self.shadow(rim, blur, strength)

    def paste(self, patch: Array, mask: Array, x: int, y: int) -> None:
        """Lays a patch [h, w, 3] over the picture with coverage mask [h, w], top left at S-pixel (x, y)."""
        y0, x0 = max(0, -y), max(0, -x)
        y1, x1 = min(len(mask), self.height * S - y), min(mask.shape[1], self.width * S - x)
        if y1 <= y0 or x1 <= x0:
            return
        target = self.pixels[y + y0 : y + y1, x + x0 : x + x1]
        target += (patch[y0:y1, x0:x1] - target) * mask[y0:y1, x0:x1, None]

    def coverage(self, shape: Points) -> Array:
        """Coverage float32 [height * S, width * S] in [0, 1] of a polygon."""
        mask = Image.new("L", (self.width * S, self.height * S))
        ImageDraw.Draw(mask).polygon(_scaled(shape), 255)
        return np.asarray(mask, np.float32) / 255

    def fill(self, shape: Points, colour: Array, strength: float = 1) -> None:
        """Lays a colour (float32 [3] in [0, 1]) over a polygon; strength 1 hides what is under it."""
        self.paste(np.broadcast_to(colour, self.pixels.shape), self.coverage(shape) * strength, 0, 0)

    def stroke(self, points: Points, colour: Array, width: float, strength: float = 1) -> None:
        """Lays a colour (float32 [3] in [0, 1]) along a polyline; strength 1 hides what is under it."""
        mask = Image.new("L", (self.width * S, self.height * S))
        ImageDraw.Draw(mask).line(_scaled(points), 255, max(1, round(width * S)), "curve")
        cover = np.asarray(mask, np.float32) / 255 * strength
        self.paste(np.broadcast_to(colour, self.pixels.shape), cover, 0, 0)

    def quad(
        self, art: Array, corners: Array, mask: Array | None = None, light: Sequence[float] = (1, 1, 1, 1)
    ) -> None:
        """Lays art [h, w, 3] on four corners [4, 2] (TL, TR, BR, BL); `light` multiplies at each corner."""
        h, w = art.shape[:2]
        low = np.floor(corners.min(0) * S).astype(int) - 2
        size = np.ceil(corners.max(0) * S).astype(int) + 3 - low
        quad = corners * S - low
        rows, right = [], []
        pad = 8  # repeat the rim, or the filter would blend the outside's black into the edges
        for (x, y), (u, v) in zip(quad, ((0, 0), (w, 0), (w, h), (0, h)), strict=True):
            rows += [
                [x, y, 1, 0, 0, 0, -(u + pad) * x, -(u + pad) * y],
                [0, 0, 0, x, y, 1, -(v + pad) * x, -(v + pad) * y],
            ]
            right += [u + pad, v + pad]
        warp = np.linalg.solve(np.array(rows, float), np.array(right, float))
        y, x = np.mgrid[0 : h + 2 * pad : 33j, 0 : w + 2 * pad : 33j]  # light as a coarse bilinear field
        u, v = np.clip((x - pad) / w, 0, 1), np.clip((y - pad) / h, 0, 1)
        a, b, c, d = light
        field = ((a * (1 - u) + b * u) * (1 - v) + (d * (1 - u) + c * u) * v).astype(np.float32)
        padded = np.pad(art, ((pad, pad), (pad, pad), (0, 0)), "edge")
        padded *= resize(field, h + 2 * pad, w + 2 * pad, Image.Resampling.BILINEAR)[..., None]
        image = Image.fromarray(np.clip(padded * 255 + 0.5, 0, 255).astype(np.uint8))
        cover = np.pad(np.ones((h, w), np.float32) if mask is None else mask, pad)
        stencil = Image.fromarray((cover * 255).astype(np.uint8))
        data, box = tuple(float(k) for k in warp), (int(size[0]), int(size[1]))
        warped = image.transform(box, Image.Transform.PERSPECTIVE, data, Image.Resampling.BICUBIC)
        shape = stencil.transform(box, Image.Transform.PERSPECTIVE, data, Image.Resampling.BILINEAR)
        patch = np.asarray(warped, np.float32) / 255
        self.paste(patch, np.asarray(shape, np.float32) / 255, int(low[0]), int(low[1]))

    def photo(self, rng: Rng) -> Picture:
        """The finished picture, uint8 [height, width, 3]: reduced, faintly vignetted, with sensor noise."""
        planes = [
            resize(np.ascontiguousarray(self.pixels[..., k]), self.height, self.width, Image.Resampling.LANCZOS)
            for k in range(3)
        ]
        image = np.stack(planes, -1)
        y, x = np.mgrid[-1 : 1 : self.height * 1j, -1 : 1 : self.width * 1j]
        image *= (1 - 0.012 * (x * x + y * y) / 2)[..., None]  # the vignette: 1.2 % in the corners
        # Noise fades towards clipped white, as in a packshot exposed for a white backdrop.
        sigma = 0.42 * np.clip((1 - image.mean(-1)) * 8 - 0.2, 0, 1)
        noisy = image * 255 + rng.standard_normal(image.shape) * sigma[..., None]
        levels: Picture = np.clip(np.round(noisy), 0, 255).astype(np.uint8)
        return levels


# --- solids ---------------------------------------------------------------------------------------


class Band(NamedTuple):
    """Material of a turned body down to `until` (from the top, delivered pixels); the rest are shares 0..1."""

    until: float
    gloss: float  # strength of the softbox reflections
    glass: float = 0  # 1: the artwork's colour is seen through, dense in the middle, dark at the rim
    metal: float = 0  # 1: the artwork's colour is lit by the reflected room


def turned(
    scene: Scene,
    cx: float,
    top: float,
    profile: Points,  # (height, radius) knots from the top down
    art: Array,  # float32 [h * S, w * S, 3], unrolled: the middle column faces the camera, rows are heights
    bands: Sequence[Band],  # materials from the top down
    tilt: float = 0.08,  # sine of the camera's elevation, which bends rows into ellipses
    flatten: Points = ((0, 1),),  # (height, 0..1) knots: 1 = round, 0 = flat like a tube's crimp
    ribs: tuple[float, float, float, float] | None = None,  # (from, to, pitch, depth): rings rolled into the wall
    shoulder: float = 1e9,  # below this height the profile is blown glass, rounded much more
) -> None:
    """A solid of revolution around x = cx with wrapped artwork, standing on a faintly reflecting ground."""
    knots = np.asarray(profile, float)
    tall, wide = knots[-1, 0], knots[:, 1].max()
    v = np.arange(0, tall, 1 / S)
    radius = np.interp(v, knots[:, 0], knots[:, 1])
    blown = _rounded_off(np.where(v < shoulder, radius, _rounded_off(radius, 24)), 3)
    radius = np.where(v < shoulder, blown, np.minimum(blown, radius.max()))
    if ribs:
        window = np.clip((v - ribs[0]) / 4, 0, 1) * np.clip((ribs[1] - v) / 4, 0, 1)
        radius = radius - ribs[3] * window * (0.5 - 0.5 * np.cos(2 * np.pi * (v - ribs[0]) / ribs[2]))
    slope = np.gradient(radius, 1 / S)
    ys = np.arange(0, tall + int(tilt * wide) + 94, 1 / S, dtype=np.float32)[:, None]  # room for the reflection
    left = round((cx - wide - 2) * S)
    dx = (left + np.arange(round((2 * wide + 4) * S), dtype=np.float32) + 0.5)[None] / S - cx
    height = ys - tilt * np.sqrt(np.maximum(wide**2 - dx**2, 0))
    for _ in range(5):  # the row that lands on this pixel depends on the radius there: iterate to the fixed point
        r = np.interp(tall - np.abs(tall - height), v, radius).astype(np.float32)
        height = ys - tilt * np.sqrt(np.maximum(r**2 - dx**2, 0))
    below = height > tall - 0.5 / S
    height = tall - np.abs(tall - height)  # the reflection: mirrored at the foot
    r = np.interp(height, v, radius).astype(np.float32)
    cover = np.clip((r - np.abs(dx)) * S + 0.5, 0, 1) * np.clip(height * S + 0.5, 0, 1)
    fade = np.clip(1 - (ys + 0 * dx - tall - tilt * r * 0.6) / 80, 0, 1) ** 2
    cover *= np.where(below, 0.1 * fade, 1)
    k = np.interp(height, *np.asarray(flatten, float).T).astype(np.float32)
    u = np.clip(dx / r, -1, 1) * k
    around = np.arcsin(np.clip(u, -0.9995, 0.9995)) / np.maximum(k, 0.02) * r
    colour = sample(art, art.shape[1] / 2 + around * S - 0.5, height * S - 0.5)
    lean = np.interp(height, v, slope).astype(np.float32)
    norm = 1 / np.sqrt(1 + lean * lean)
    w = np.sqrt(np.maximum(1 - u * u, 0))
    diffuse, softbox, room = studio_light(u * norm, -lean * norm, w * norm)
    ends = np.array([b.until for b in bands])
    at = np.minimum(np.searchsorted(ends, np.arange(0, tall + 1, 1 / S)), len(bands) - 1)
    band = at[np.clip(height * S, 0, len(at) - 1).astype(np.int32)]
    gloss, glass, metal = np.array([b[1:] for b in bands], np.float32).T[:, band, None]
    diffuse, softbox, room, w, edge = (a[..., None] for a in (diffuse, softbox, room, w, np.abs(u)))
    solid = colour * (diffuse * (1 - metal) + metal * room)
    # Seen through: more liquid in the middle, a bright refracted band near the rim, dark at the very rim.
    through = colour ** (0.55 + 0.75 * w) * (1 - 0.62 * smoothstep(0.9, 1.0, edge))
    through += 0.1 * np.exp(-(((edge - 0.84) / 0.05) ** 2))
    body = solid * (1 - glass) + through * glass
    softbox = softbox * (1.05 - 0.4 * height / tall)[..., None]  # the box hangs high: its image fades downwards
    fresnel = gloss * (0.72 + 0.28 * (1 - w) ** 2) * softbox
    body += (1.02 - body) * np.clip(fresnel, 0, 1)
    scene.paste(body.astype(np.float32), cover.astype(np.float32), left, round(top * S))


def _rounded_off(profile: Array, half: int) -> Array:
    """A Hann-weighted mean over `half` delivered pixels on both sides, mirrored at the ends."""
    kernel = np.hanning(2 * half * S + 1)
    return np.convolve(np.pad(profile, half * S, "reflect"), kernel / kernel.sum(), "valid")


def ellipse(scene: Scene, cx: float, cy: float, rx: float, ry: float, paint: Callable[[Array, Array], Array]) -> None:
    """A filled ellipse whose colour is paint(u, v), with u, v [h, w] in [-1, 1] across it; [h, w, 3] in [0, 1]."""
    x0, y0 = round((cx - rx - 1) * S), round((cy - ry - 1) * S)
    x = (x0 + np.arange(round((2 * rx + 2) * S), dtype=np.float32) + 0.5)[None] / S - cx
    y = (y0 + np.arange(round((2 * ry + 2) * S), dtype=np.float32) + 0.5)[:, None] / S - cy
    u, v = np.broadcast_arrays(x / rx, y / ry)
    rho = np.hypot(u, v)
    cover = np.clip((1 - rho) * rho / np.hypot(u / rx, v / ry).clip(1e-9) * S + 0.5, 0, 1)
    scene.paste(paint(u, v).astype(np.float32), cover.astype(np.float32), x0, y0)


def project(
    points: Sequence[Sequence[float]], cx: float, cy: float, yaw: float, pitch: float, roll: float = 0
) -> Array:
    """Model points (x right, y down, z to the camera; delivered pixels) in the picture, float32 [n, 2].

    The model's origin lands on (cx, cy); angles in radians, yaw > 0 shows the right side.
    """
    x, y, z = np.asarray(points, np.float32).T
    x, z = x * np.cos(yaw) - z * np.sin(yaw), x * np.sin(yaw) + z * np.cos(yaw)
    y, z = y * np.cos(pitch) + z * np.sin(pitch), z * np.cos(pitch) - y * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), x * np.sin(roll) + y * np.cos(roll)
    k = 2200 / (2200 - z)  # a long lens: 2200 delivered pixels away
    return np.stack([cx + x * k, cy + y * k], -1).astype(np.float32)


def _cast(scene: Scene, base: Array, casts: Sequence[Sequence[float]]) -> None:
    """Shadows of an outline [n, 2]: each (size around its middle, move right, move down, blur, strength)."""
    mid = base.mean(0)
    for grow, dx, dy, blur, strength in casts:
        scene.shadow(_points((base - mid) * grow + mid + [dx, dy]), blur, strength)


def carton(
    scene: Scene,
    cx: float,
    cy: float,
    size: tuple[float, float, float],
    yaw: float,
    pitch: float,
    front: Art,
    side: Art,
    top: Art,
) -> None:
    """A box (width, height, depth) around (cx, cy) with printed faces and its shadow; angles in radians.

    yaw > 0 shows its right side, yaw < 0 its left one.
    """
    w, h, d = (k / 2 for k in size)
    s = 1 if yaw > 0 else -1
    front_q, side_q, top_q, base = (
        project(face, cx, cy, yaw, pitch)
        for face in (
            [(-w, -h, d), (w, -h, d), (w, h, d), (-w, h, d)],
            [(s * w, -h, s * d), (s * w, -h, -s * d), (s * w, h, -s * d), (s * w, h, s * d)],
            [(-w, -h, -d), (w, -h, -d), (w, -h, d), (-w, -h, d)],
            [(-w, h, d), (w, h, d), (w, h, -d), (-w, h, -d)],
        )
    )
    _cast(scene, base, ((1.0, 0, 3, 2.5, 0.5), (1.05, 5, 7, 9, 0.3), (1.2, 30, 6, 28, 0.22)))
    scene.quad(top.pixels(), top_q, light=(0.97, 0.99, 1.04, 1.03))
    scene.quad(side.pixels(), side_q, light=(0.86, 0.74, 0.66, 0.78) if s > 0 else (0.8, 0.9, 0.86, 0.72))
    scene.quad(front.pixels(), front_q, light=(1.02, 0.98, 0.93, 0.96))
    fold, cover = np.full((2 * S, 8, 3), 0.93, np.float32), np.full((2 * S, 8), 0.45, np.float32)
    for a, b in ((front_q[0], front_q[1]), (front_q[1], front_q[2]) if s > 0 else (front_q[0], front_q[3])):
        n = np.array([b[1] - a[1], a[0] - b[0]]) / np.hypot(*(b - a)) * 0.6  # worn board shows lighter on folds
        scene.quad(fold, np.stack([a + n, b + n, b - n, a - n]).astype(np.float32), cover)


def rounded(width: float, height: float, radius: float) -> Array:
    """Coverage float32 [height * S, width * S] in [0, 1] of a rectangle with rounded corners."""
    mask = Image.new("L", (round(width * S), round(height * S)))
    ImageDraw.Draw(mask).rounded_rectangle((0, 0, mask.width - 1, mask.height - 1), radius * S, 255)
    return np.asarray(mask, np.float32) / 255


def slab(
    scene: Scene,
    cx: float,
    cy: float,
    art: Array,
    mask: Array,
    thick: float,
    rim: str,
    turn: tuple[float, float, float],
    lift: float = 0,
) -> None:
    """A flat plate around (cx, cy), `thick` delivered pixels deep, `lift` above the ground, with its shadow.

    art [h * S, w * S, 3] and mask [h * S, w * S], float32 in [0, 1]; rim: colour; turn: yaw, pitch, roll in radians.
    """
    h, w = (k / S / 2 for k in mask.shape)
    corners = [(-w, -h), (w, -h), (w, h), (-w, h)]
    radius = (1 - mask[0, : mask.shape[1] // 2]).sum() / S * 0.95  # as far as the top row is cut away
    outline = [
        (sx * (w - radius) + radius * np.cos(a + t), sy * (h - radius) + radius * np.sin(a + t), -thick)
        for sx, sy, a in ((1, -1, -1.57), (1, 1, 0), (-1, 1, 1.57), (-1, -1, 3.14))
        for t in np.linspace(0, 1.57, 8)
    ]
    back = project(outline, cx, cy, *turn)
    _cast(scene, back, ((1.0, 2, 3, 3 + lift, 0.4), (1.015, 6 + lift, 9 + lift, 12 + lift, 0.3)))
    steps = max(2, round(thick * 1.5))
    edge = np.ones((*mask.shape, 3), np.float32) * rgb(rim)
    for k in range(steps):
        t = k / (steps - 1)
        tone = 0.5 + 0.45 * np.sin(np.pi * (0.1 + 0.75 * t))  # a rounded rim
        quad = project([(x, y, -thick * (1 - t)) for x, y in corners], cx, cy, *turn)
        scene.quad(edge, quad, mask, (tone * 1.05, tone, tone * 0.8, tone * 0.9))
    scene.quad(art, project([(x, y, 0) for x, y in corners], cx, cy, *turn), mask, (1.03, 1.0, 0.95, 0.98))


# --- cloth and foil -------------------------------------------------------------------------------


def fold_relief(height: int, width: int, rng: Rng, folds: Sequence[Sequence[float]], rough: float) -> Array:
    """A relief float32 [height * S, width * S] in delivered pixels: folds plus soft random dents `rough` deep.

    Each fold is (x0, y0, x1, y1, half width, lift).
    """
    q = 3  # the relief is smooth: compute every third delivered pixel
    y, x = np.mgrid[0 : height // q, 0 : width // q].astype(np.float32) * q
    z = np.zeros_like(x)
    for cells, weight in ((5, 1.0), (11, 0.45), (23, 0.16)):
        noise = rng.standard_normal((cells, cells)).astype(np.float32)
        z += rough * weight * resize(noise, height // q, width // q)
    for x0, y0, x1, y1, half, lift in folds:
        length = float(np.hypot(x1 - x0, y1 - y0))
        ux, uy = (x1 - x0) / length, (y1 - y0) / length
        t = ((x - x0) * ux + (y - y0) * uy) / length
        bend = np.sin(t * 3 + x0) * half * 0.6
        across = ((x - x0) * uy - (y - y0) * ux + bend) / (half * (0.7 + 0.6 * np.clip(t, 0, 1)))
        z += lift * np.exp(-(np.abs(across) ** 1.8)) * smoothstep(-0.25, 0.25, t) * smoothstep(1.25, 0.5, t)
    return _mean(resize(z, height * S, width * S), 4 * S + 1)


def weave(kind: str, height: int, width: int, rng: Rng) -> Array:
    """Light modulation float32 [height * S, width * S] of a textile surface, around 0, within about 0.3.

    Kinds: knit, jersey, twill, canvas; film is smooth.
    """
    y, x = np.mgrid[0 : height * S, 0 : width * S].astype(np.float32) / S
    if kind == "knit":  # columns of V stitches, 9 x 7 px
        px = x % 9 / 9 - 0.5
        row = (y + 9 * np.abs(px)) % 7 / 7
        yarn = np.abs(np.sin(np.pi * row)) ** 0.8 * np.abs(np.cos(np.pi * (np.abs(px) * 2 - 0.5))) ** 0.7
        tone = (yarn - 0.55) * 0.5
    elif kind == "jersey":
        loops = 0.6 + 0.4 * np.sin(y * 2 * np.pi / 2.6 + 2 * np.abs(x % 3.1 - 1.5))
        tone = 0.035 * np.sin(x * 2 * np.pi / 3.1) * loops
    elif kind == "twill":
        tone = 0.06 * np.sin((x + y * 0.8) * 2 * np.pi / 3.6)
    elif kind == "canvas":
        tone = 0.07 * np.sin(x * 2 * np.pi / 3.3) * np.sin(y * 2 * np.pi / 3.3)
    elif kind == "film":
        tone = np.zeros_like(x)
    else:
        raise ValueError(f"unknown weave {kind!r}")
    grain = rng.standard_normal((height, width)).astype(np.float32) * 0.009 * (kind != "film")
    return np.asarray(tone + resize(grain, height * S, width * S), np.float32)


def sheet(
    scene: Scene,
    art: Art,  # as large as the scene
    outline: Points,
    relief: Array,  # float32 [height * S, width * S] in delivered pixels, from `fold_relief`
    tone: Array,  # float32 [height * S, width * S] around 0, from `weave`
    puff: float,  # height of the rounded rim
    gloss: float = 0,  # 0..1: softbox streaks on foil
    round_px: float = 14,  # how far in the rim is round
) -> None:
    """Cloth or foil cut to an outline: the relief bends the print and catches the light, the rim rounds off."""
    mask = scene.coverage(outline)
    inner = _soften(mask, round_px)
    z = relief + puff * np.sqrt(np.clip(inner * 2 - 1, 0, 1))
    gy, gx = (g * S for g in np.gradient(_mean(z, 5)))
    y, x = np.mgrid[0 : mask.shape[0], 0 : mask.shape[1]].astype(np.float32)
    colour = sample(art.pixels(), x + gx * 4 * S, y + gy * 4 * S)
    norm = 1 / np.sqrt(1 + gx * gx + gy * gy)
    diffuse, mirror, room = studio_light(-gx * norm, -gy * norm, norm)
    light = np.clip((1 + (0.5 * gx + 0.62 * gy)) * norm, 0.25, 1.35) * (0.8 + 0.2 * diffuse) * (1 + tone)
    colour *= light[..., None]
    if gloss:
        colour += (1 - colour) * (gloss * np.clip(mirror + 0.25 * (room - 0.75), 0, 1))[..., None]
    scene.paste(colour, mask, 0, 0)
