"""Judge one model against another on the held-out pictures: print the gate's table, draw docs/images/promotion.svg.

    dvc repro
    python docs/promotion.py models                    # a first champion, against bicubic enlargement
    python docs/promotion.py models champion           # a challenger, against a champion's folder

Nothing is promoted. The bundle's checks, which come before a promotion, are shown as passed.
"""

from __future__ import annotations

import argparse
from dataclasses import asdict
from pathlib import Path

from loupe.imaging.files import atomic_file
from loupe.params import load_params
from loupe.release.contest import contest
from loupe.release.drawing import decision_picture
from loupe.release.gate import Limits, Verification, decide, decision_table


def main() -> None:
    """Read the options, judge, print and draw."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("challenger", type=Path)
    options.add_argument("champion", type=Path, nargs="?")
    options.add_argument("--pictures", type=Path, nargs="+", default=[Path("index")], help="index, or folders")
    options.add_argument("--out", type=Path, default=Path("docs/images/promotion.svg"))
    given = options.parse_args()
    sides = contest(given.pictures, given.challenger, given.champion)
    limits = Limits(**asdict(load_params().promotion))
    decision = decide(*sides, limits, Verification(onnx_levels=0, golden_failed=0))
    print(decision_table(decision))
    with atomic_file(given.out) as stream:
        stream.write(decision_picture(decision).encode())


if __name__ == "__main__":
    main()
