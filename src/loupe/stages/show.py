"""Print the scores of the last evaluation and where its pictures are: the end of `make repro`."""

from __future__ import annotations

import json

from loupe.errors import InputError
from loupe.evaluation.tables import slices_table, summary_table
from loupe.stages.evaluate import OUTPUTS
from loupe.stages.running import stage


@stage
def main() -> None:
    """Read metrics/evaluate.json; nothing is computed."""
    if not OUTPUTS.summary.exists():
        raise InputError(f"{OUTPUTS.summary}: not there yet; run `dvc repro`")
    summary = json.loads(OUTPUTS.summary.read_text())
    print(summary_table(summary), slices_table(summary), sep="\n\n")
    print(f"\nlook at {OUTPUTS.report / 'index.html'}: every picture under a magnifying glass, best and worst patches")


if __name__ == "__main__":
    main()
