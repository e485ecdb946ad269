"""DVC stage `evaluate`: the trained network scored on every validation picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loupe.errors import InputError
from loupe.evaluation.methods import compared_with, stored
from loupe.evaluation.pairs import Pair
from loupe.evaluation.run import Outputs, evaluate
from loupe.evaluation.tables import slices_table, summary_table
from loupe.params import load_params
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage

MODEL = Path("models")
INDEX = Path("index")
OUTPUTS = Outputs(
    summary=Path("metrics/evaluate.json"),
    per_image=Path("metrics/per_image.csv"),
    report=Path("reports/evaluation"),
)


def pairs(index: PatchIndex) -> Iterator[Pair]:
    """The validation pictures of the index; one that was a single gray channel is scored as such."""
    for number, row in enumerate(index.images):
        if row.split == "valid":
            gray = row.channels == 1
            hr, lr = (view[..., 0] if gray else view for view in (index.hr(number), index.lr(number)))
            yield Pair(row.set, row.name, hr, lr)


@stage
def main() -> None:
    """Score, draw, and print the table."""
    chosen = load_params().evaluation
    model = stored(MODEL)
    champion = Path(chosen.champion) if chosen.champion else None
    others = compared_with(model, champion, ensemble=MODEL if chosen.ensemble else None)
    report = evaluate(pairs(PatchIndex(INDEX)), model, others, OUTPUTS)
    print(summary_table(report.summary), slices_table(report.summary), sep="\n\n")
    if report.failures:
        raise InputError("; ".join(report.failures))


if __name__ == "__main__":
    main()
