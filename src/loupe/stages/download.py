"""DVC stage `download`: the high-resolution photographs into data/photos/{train,valid}."""

from __future__ import annotations

from pathlib import Path

from loupe.datasets.sample import write_sample
from loupe.imaging.files import atomic_folder
from loupe.params import load_params
from loupe.stages.running import stage

OUT = Path("data/photos")


@stage
def main() -> None:
    """Fetch what the parameter `photos` names; `data/photos` appears only when all of it is there."""
    params = load_params()
    with atomic_folder(OUT) as folder:
        files = write_sample(folder)
    print(f"{OUT}: {len(files)} photographs ({params.photos})")


if __name__ == "__main__":
    main()
