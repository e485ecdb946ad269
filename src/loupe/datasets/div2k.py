"""DIV2K: 800 + 100 photographs of 2 megapixels and more, the field's usual training and validation set.

    python -m loupe.datasets.div2k --check-lr     # are our reductions the official ones, bit for bit? 1.0 GB more

E. Agustsson and R. Timofte, NTIRE 2017 Challenge on Single Image Super-Resolution: Dataset and Study, CVPRW 2017;
https://data.vision.ee.ethz.ch/cvl/DIV2K/. Sizes and checksums are those that TensorFlow Datasets publishes, so any
mirror will do: LOUPE_DIV2K_MIRRORS names your own, which are asked first. An archive that already lies in the download
cache under its official name is used.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from tqdm import tqdm

from loupe.datasets.archive import unpack
from loupe.datasets.fetch import RemoteFile, download_cache, fetch, missing_bytes, require_space
from loupe.errors import InputError
from loupe.imaging.files import read_image
from loupe.imaging.resize import downscale

HOME = "https://data.vision.ee.ethz.ch/cvl/DIV2K/"
MIRRORS = (
    HOME,
    "http://data.vision.ee.ethz.ch/cvl/DIV2K/",
    "https://huggingface.co/datasets/eugenesiow/Div2k/resolve/main/",
)
LICENCE = "DIV2K is made available for academic research purpose only; the copyright belongs to the images' owners"


class Div2kError(InputError):
    """DIV2K cannot be had or checked; the message says what to do."""


@dataclass(frozen=True)
class Div2kArchive:
    """One official archive: file name, bytes, sha256, the folder inside it and how many pictures that holds.

    mirrors: the folders on the web where it lies, in the order to ask.
    """

    name: str
    size: int
    sha256: str
    inside: str
    pictures: int
    mirrors: Sequence[str] = MIRRORS

    def remote(self) -> RemoteFile:
        """Where it can be had, one's own mirrors first."""
        own = (base.strip() for base in os.environ.get("LOUPE_DIV2K_MIRRORS", "").split(","))
        bases = [base for base in own if base] + list(self.mirrors)
        return RemoteFile(self.name, tuple(f"{base.rstrip('/')}/{self.name}" for base in bases), self.size, self.sha256)


HR = {
    "train": Div2kArchive(
        "DIV2K_train_HR.zip",
        3530603713,
        "9d0b9c463f6e35b6c62cc6a930ee2224f670b34c1df841a57670f9acf0f6c335",
        "DIV2K_train_HR",
        800,
    ),
    "valid": Div2kArchive(
        "DIV2K_valid_HR.zip",
        448993893,
        "20dd31fd84d777bc1cf5d6b7654a3f569c0aec74458ae094122ad1d0489900fc",
        "DIV2K_valid_HR",
        100,
    ),
}
LR_X2 = {
    "train": Div2kArchive(
        "DIV2K_train_LR_bicubic_X2.zip",
        925390592,
        "a53a424317575838dadce4bcd97cf7b744d6855f43740ed5f0245af3cf4bd850",
        "DIV2K_train_LR_bicubic/X2",
        800,
    ),
    "valid": Div2kArchive(
        "DIV2K_valid_LR_bicubic_X2.zip",
        117763600,
        "60eed9875c697df51204aa579e2a699e1d5215095788a097ff54dd17e2664d57",
        "DIV2K_valid_LR_bicubic/X2",
        100,
    ),
}


def write_div2k(
    folder: Path,
    cache: Path,
    archives: Mapping[str, Div2kArchive] = HR,
    say: Callable[[str], None] = print,
) -> list[Path]:
    """Write the photographs into `folder`/train and `folder`/valid under their official names, and LICENCES.md.

    Args:
        folder: an existing folder, temporary.
        cache: where the archives are kept.
        archives: those of each split.
        say: receives progress and retries.

    Returns:
        The files written.

    Raises:
        FetchError, ArchiveError: an archive cannot be had, or the disk has too little room for it and its pictures.
        Div2kError: an archive has not DIV2K's layout.
    """
    say(LICENCE)
    remotes = [archive.remote() for archive in archives.values()]
    require_space(  # photographs do not pack: unpacked they are as large
        [(cache, missing_bytes(remote, cache)) for remote in remotes] + [(folder, a.size) for a in archives.values()]
    )
    packed = [fetch(remote, cache, say=say) for remote in remotes]  # both before anything is unpacked
    written: list[Path] = []
    for (split, archive), path in zip(archives.items(), packed, strict=True):
        written += _place(archive, path, folder / split)
    (folder / "LICENCES.md").write_text(f"{LICENCE}. Source: {HOME}\n")
    return written


def check_lr(
    photos: Path,
    cache: Path,
    archives: Mapping[str, Div2kArchive] = LR_X2,
    say: Callable[[str], None] = print,
) -> int:
    """Compare our x2 reductions of the photographs with the official low-resolution pictures, and say the outcome.

    Args:
        photos: folder with `train` and `valid` as `write_div2k` leaves them.
        cache: where the archives are kept.
        archives: the low-resolution ones.
        say: receives a line a split, and one for each picture that differs.

    Returns:
        How many pictures differ.

    Raises:
        FetchError, ArchiveError, Div2kError: as `write_div2k`; ImageError: a photograph cannot be read.
    """
    differ = 0
    for split, archive in archives.items():
        if len(list((photos / split).glob("*.png"))) < archive.pictures:
            raise Div2kError(f"{photos / split}: no DIV2K here; run `loupe profile div2k`, `dvc repro download` first")
        packed = fetch(archive.remote(), cache, say=say)
        with tempfile.TemporaryDirectory(dir=cache) as temporary:
            small = _place(archive, packed, Path(temporary) / split)
            bad = [path for path in tqdm(small, desc=split, disable=None) if not _is_ours(path, photos / split)]
        for path in bad:
            say(f"{split}/{path.name}: differs from our reduction")
        say(f"{split}: {len(small) - len(bad)} of {len(small)} identical, bit for bit")
        differ += len(bad)
    return differ


def _place(archive: Div2kArchive, packed: Path, folder: Path) -> list[Path]:
    """Unpack the pictures of one archive into `folder`, without the folders they lie in."""
    raw = folder.with_name(f".{folder.name}")
    raw.mkdir(parents=True)
    names = unpack(packed, raw)
    if [str(Path(name).parent) for name in names] != [archive.inside] * archive.pictures:
        raise Div2kError(f"{packed}: expected {archive.pictures} pictures in {archive.inside}, found {len(names)}")
    (raw / archive.inside).rename(folder)
    shutil.rmtree(raw)
    return sorted(folder.iterdir())


def _is_ours(small: Path, photos: Path) -> bool:
    """Whether the official reduction 0001x2.png is what we make of 0001.png."""
    large = photos / f"{small.stem.removesuffix('x2')}.png"
    return np.array_equal(read_image(small).rgb, downscale(read_image(large).rgb, 2))


def main(arguments: Sequence[str] | None = None) -> None:
    """Command line: `python -m loupe.datasets.div2k --check-lr`; code 1 if a picture differs, 2 after an error."""
    parser = argparse.ArgumentParser(prog="python -m loupe.datasets.div2k", description="Checks on DIV2K.")
    parser.add_argument("--check-lr", action="store_true", required=True, help="our reductions against the official")
    parser.add_argument("--photos", type=Path, default=Path("data/photos"), help="the photographs (data/photos)")
    try:
        differ = check_lr(parser.parse_args(arguments).photos, download_cache())
    except (InputError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        sys.exit(2)
    sys.exit(1 if differ else 0)


if __name__ == "__main__":
    main()
