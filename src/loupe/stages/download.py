"""DVC stage `download`: the high-resolution photographs into data/photos/{train,valid}, or unsplit."""

from __future__ import annotations

from pathlib import Path

from loupe.datasets.div2k import write_div2k
from loupe.datasets.fetch import download_cache
from loupe.datasets.own import take_folder, take_url
from loupe.datasets.sample import write_sample
from loupe.imaging.files import atomic_folder
from loupe.params import PhotosPath, PhotosUrl, load_params
from loupe.stages.running import stage

OUT = Path("data/photos")


@stage
def main() -> None:
    """Fetch what the parameter `photos` names; `data/photos` appears only when all of it is there."""
    photos = load_params().photos
    with atomic_folder(OUT) as folder:
        if isinstance(photos, PhotosPath):
            files, origin = take_folder(Path(photos.path), folder, OUT), photos.path
        elif isinstance(photos, PhotosUrl):
            files, origin = take_url(photos.url, folder, download_cache()), photos.url
        elif photos == "div2k":
            files, origin = write_div2k(folder, download_cache()), photos
        else:
            files, origin = write_sample(folder), photos
    print(f"{OUT}: {len(files)} photographs ({origin})")
    if not isinstance(photos, str):
        print("DVC cannot see changes there: after one, run `dvc repro --force download`, then `dvc repro`")


if __name__ == "__main__":
    main()
