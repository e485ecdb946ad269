"""An index of picture files, as `loupe bench data` builds it; and the memory that a fresh process takes for that.

    python -m benchmarks._build PATCH FOLDER FILE FILE...     # prints the largest resident memory, MB

Apart from data.py, whose imports would hide what the build takes.
"""

from __future__ import annotations

import sys
from pathlib import Path

from loupe.patches.build import Source, build_index
from loupe.patches.index import LowResolution

SCALE = 2


def build(files: list[Path], folder: Path, patch: int, low_resolution: LowResolution = "computed") -> None:
    """Index `files` in the existing `folder`; the last one is there to validate with, as an index demands."""
    sources = [Source(path, path.name, "photos", "valid" if path == files[-1] else "train") for path in files]
    build_index(sources, folder, scale=SCALE, patch=patch, valid_share=0, low_resolution=low_resolution)


def peak_mb(process: int | str = "self") -> float:
    """Largest resident memory of a process so far: VmHWM, since getrusage starts at what the parent held.

    0 where it has ended, and there is nothing left to ask.
    """
    status = dict(line.split(":", 1) for line in Path(f"/proc/{process}/status").read_text().splitlines())
    return int(status.get("VmHWM", "0").split()[0]) / 1000


def main() -> None:
    """Build, and print the peak."""
    patch, folder, *files = sys.argv[1:]
    build([Path(file) for file in files], Path(folder), int(patch))
    print(peak_mb())


if __name__ == "__main__":
    main()
