"""DVC stage `patch-index`: decoded pixels and patch coordinates of all pictures into index/."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

from tqdm import tqdm

from loupe.imaging.files import atomic_folder, find_images
from loupe.params import load_params
from loupe.patches.build import Source, build_index
from loupe.stages.running import stage

PHOTOS = Path("data/photos")
PRODUCTS = Path("data/products")
OUT = Path("index")


def sources() -> Iterator[Source]:
    """Photographs with the split of their folder, or in `unsplit`, then product images: there the content decides."""
    for below, split in (("train", "train"), ("valid", "valid"), ("unsplit", None)):
        for path in find_images(PHOTOS / below) if (PHOTOS / below).is_dir() else []:
            yield Source(path, path.relative_to(PHOTOS / below).as_posix(), "photos", split)
    for path in find_images(PRODUCTS):
        yield Source(path, path.relative_to(PRODUCTS).as_posix(), "products", None)


@stage
def main() -> None:
    """Index both data sets; pictures that cannot be used are named, and the others go on."""
    params = load_params()
    found = list(sources())
    bar = tqdm(total=len(found), unit="picture", desc="index", dynamic_ncols=True, disable=not sys.stderr.isatty())
    with bar, atomic_folder(OUT, resume=True) as folder:
        built = build_index(
            found,
            folder,
            scale=params.scale,
            patch=params.patches.size,
            valid_share=params.valid_share,
            low_resolution=params.patches.low_resolution,
            reductions=params.patches.reductions,
            say=lambda line: bar.write(line, file=sys.stdout),
            advance=bar.update,
        )
    print(
        f"{OUT}: {built.train} pictures to train on{f' and {built.reduced} reduced' if built.reduced else ''}, "
        f"{built.valid} to validate with, {built.aside} set aside, {built.left_out} left out; {built.patches} patches"
    )


if __name__ == "__main__":
    main()
