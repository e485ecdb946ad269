"""Draw docs/before-after.png, the README's picture: a held-out label, bicubic beside the network.

dvc repro && python docs/before_after.py
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from loupe.imaging.files import atomic_file, read_image
from loupe.imaging.resize import downscale, upscale
from loupe.models.inference import super_resolve
from loupe.models.weights import load_network

PRODUCT = Path("data/products/pouch-single-origin.png")  # in the validation split
WINDOW = np.s_[462:592, 156:446]
ENLARGE = 2  # by whole pixels, so that they can be seen
MARGIN, CAPTION = 10, 28


def main() -> None:
    """Enlarge the halved product both ways and put the same window of both side by side."""
    lr = downscale(read_image(PRODUCT).rgb)
    panels = {
        "bicubic, twice the size": upscale(lr),
        "loupe, twice the size": super_resolve(load_network(Path("models")), lr),
    }
    images = [Image.fromarray(pixels[WINDOW]) for pixels in panels.values()]
    width, height = (ENLARGE * side for side in images[0].size)
    canvas = Image.new("RGB", (2 * width + MARGIN, height + CAPTION), "white")
    draw = ImageDraw.Draw(canvas)
    for x, image, caption in zip((0, width + MARGIN), images, panels, strict=True):
        canvas.paste(image.resize((width, height), Image.Resampling.NEAREST), (x, 0))
        draw.text((x + 4, height + 6), caption, fill="#333", font=ImageFont.load_default(16))
    with atomic_file(Path("docs/before-after.png")) as stream:
        canvas.save(stream, format="PNG", optimize=True)


if __name__ == "__main__":
    main()
