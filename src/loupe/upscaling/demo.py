"""One page with a magnifying glass over a picture, before and after; it opens from the disk and loads nothing."""

from __future__ import annotations

import base64
import hashlib
import html
import io
from importlib.resources import files
from pathlib import Path

import numpy as np
from PIL import Image

from loupe.errors import InputError
from loupe.imaging.files import atomic_file, read_image
from loupe.imaging.resize import Pixels, upscale
from loupe.upscaling.upscaler import Upscaler

MOST = 4_000_000  # pixels of input: the page holds both enlarged pictures, lossless


def write_demo(path: Path, picture: Path, upscaler: Upscaler) -> tuple[str, ...]:
    """Write the page.

    Args:
        path: of the page.
        picture: a file that `loupe.imaging.files.read_image` takes; shown in sRGB, and on white.
        upscaler: the network.

    Returns:
        Notes about what was changed in the picture.

    Raises:
        InputError: the picture cannot be read, or is too large for a page.
    """
    loaded = read_image(picture)
    height, width = loaded.pixels.shape[:2]
    if height * width > MOST:
        raise InputError(f"{picture}: {width} x {height} pixels are too many for a page; cut out a part")
    page = files("loupe.upscaling") / "page"
    style, script = ((page / name).read_text("utf-8") for name in ("demo.css", "demo.js"))
    fields = {
        "name": html.escape(picture.name),
        "width": str(width),
        "height": str(height),
        "new_width": str(width * upscaler.scale),
        "new_height": str(height * upscaler.scale),
        "style_hash": _hash(style),
        "script_hash": _hash(script),
        "style": style,
        "script": script,
        "before": _address(upscale(loaded.pixels, upscaler.scale)),
        "after": _address(upscaler.upscale(loaded.pixels)),
    }
    parts = (page / "demo.html").read_text("utf-8").split("{")  # in one pass: what is filled in is not searched again
    filled = parts[0] + "".join(fields[key] + rest for key, _, rest in (part.partition("}") for part in parts[1:]))
    with atomic_file(path) as stream:
        stream.write(filled.encode("utf-8", "backslashreplace"))  # names of files may hold bytes that are no text
    return loaded.notes


def _hash(text: str) -> str:
    """As a page's security policy names a style or a script."""
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}"


def _address(pixels: Pixels) -> str:
    """A picture as a data address, lossless."""
    stream = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(pixels)).save(stream, "WEBP", lossless=True, quality=50, method=2)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
