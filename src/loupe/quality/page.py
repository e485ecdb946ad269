"""Pages that open from disk without a network: a template of this folder, its style inside, and small pictures."""

from __future__ import annotations

import base64
import hashlib
import io
from importlib.resources import files
from pathlib import Path
from typing import Any

from PIL import Image

from loupe.imaging.files import ImageError, atomic_file, read_image

THUMBNAIL = 192  # pixels, for screens of double density


def rendered(template: str, *, package: str = "loupe.quality", style: str = "", **values: Any) -> str:
    """A page from a template of a package, which fills in base.html, with the style of all and behind it its own."""
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    sources = {"base.html": (files("loupe.quality") / "base.html").read_text("utf-8")}
    sources[template] = (files(package) / template).read_text("utf-8")
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    style = (files("loupe.quality") / "page.css").read_text("utf-8") + style
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    ours = Markup(style)  # noqa: S704  # not from outside
    return environment.get_template(template).render(style=ours, style_hash=f"sha256-{digest}", **values)


def write_page_file(path: Path, page: str) -> Path:
    """Write a page; its path."""
    with atomic_file(path) as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))  # names of files may hold bytes that are no text
    return path


def thumbnail(path: Path) -> str:
    """A picture as a data address; "" where it cannot be decoded."""
    try:
        image = Image.fromarray(read_image(path).pixels)
    except ImageError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
