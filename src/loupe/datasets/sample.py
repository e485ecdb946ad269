"""The bundled sample: real photographs that come with scikit-image, scikit-learn and matplotlib.

Small, but varied enough to train a network that beats bicubic enlargement by a wide margin, and there without any
download. Train and valid are split by scene: both views of the stereo pair are on one side. JPEG files carry block
edges, so they are halved first (antialiased), which makes them clean ground truth; valid holds lossless files only.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from loupe.imaging.files import ImageError, read_image, write_png
from loupe.imaging.resize import downscale

FOLDERS = {
    "scikit-image": ("skimage", "data"),
    "scikit-learn": ("sklearn", "datasets/images"),
    "matplotlib": ("matplotlib", "mpl-data/sample_data"),
}


@dataclass(frozen=True)
class Photo:
    """One bundled photograph: where it lies, its side, its licence and who made it."""

    package: str
    file: str
    split: str
    licence: str
    author: str

    @property
    def name(self) -> str:
        """File name under data/photos/SPLIT."""
        return Path(self.file).stem + ".png"


PHOTOS = (
    Photo("scikit-image", "motorcycle_left.png", "train", "none stated", "Middlebury stereo data 2014"),
    Photo("scikit-image", "motorcycle_right.png", "train", "none stated", "Middlebury stereo data 2014"),
    Photo("scikit-image", "ihc.png", "train", "no known restrictions", "CMMI"),
    Photo("scikit-image", "brick.png", "train", "CC0", "CC0Textures"),
    Photo("scikit-image", "grass.png", "train", "CC0", "linolafett, deviantart.com"),
    Photo("scikit-image", "gravel.png", "train", "CC0", "CC0Textures"),
    Photo("scikit-image", "coins.png", "train", "no known restrictions", "Brooklyn Museum"),
    Photo("scikit-image", "page.png", "train", "BSD-3-Clause", "scikit-image"),
    Photo("scikit-image", "hubble_deep_field.jpg", "train", "public domain", "NASA"),
    Photo("scikit-image", "retina.jpg", "train", "CC0", "M. Häggström"),
    Photo("scikit-image", "rocket.jpg", "train", "public domain", "SpaceX"),
    Photo("scikit-learn", "china.jpg", "train", "CC BY 2.0", "danielbuechele, flickr.com"),
    Photo("scikit-learn", "flower.jpg", "train", "CC BY 2.0", "vultilion, flickr.com"),
    Photo("matplotlib", "grace_hopper.jpg", "train", "public domain", "J. S. Davis, US Navy"),
    Photo("scikit-image", "astronaut.png", "valid", "public domain", "NASA"),
    Photo("scikit-image", "camera.png", "valid", "CC0", "L. Varshney"),
    Photo("scikit-image", "chelsea.png", "valid", "CC0", "S. van der Walt"),
    Photo("scikit-image", "coffee.png", "valid", "CC0", "R. Michetti"),
)


def write_sample(folder: Path) -> list[Path]:
    """Write the photographs as PNG into `folder`/train and `folder`/valid, and their origin into LICENCES.md.

    Returns:
        The image files written.

    Raises:
        ImageError: a package or one of its photographs is missing; the message says what to install.
    """
    written = []
    for photo in PHOTOS:
        source = _package_folder(photo.package) / photo.file
        if not source.exists():
            raise ImageError(f"{source}: missing from {photo.package}; install the versions in requirements.lock")
        pixels = read_image(source).pixels
        if source.suffix == ".jpg":
            pixels = downscale(pixels, 2)
        target = folder / photo.split / photo.name
        write_png(target, pixels)
        written.append(target)
    rows = [f"| {p.split}/{p.name} | {p.package} | {p.licence} | {p.author} |" for p in PHOTOS]
    table = ["| file | package | licence | by |", "|---|---|---|---|", *rows]
    (folder / "LICENCES.md").write_text("\n".join(table) + "\n")
    return written


def _package_folder(package: str) -> Path:
    module, below = FOLDERS[package]
    spec = find_spec(module)  # finds the package without importing it
    if spec is None or spec.origin is None:
        raise ImageError(f"the bundled photographs need {package}; run `make install`")
    return Path(spec.origin).parent / below
