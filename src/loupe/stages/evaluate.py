"""DVC stage `evaluate`: the trained network scored on every validation picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from loupe.errors import InputError
from loupe.evaluation.pairs import Pair
from loupe.evaluation.run import Outputs, evaluate, slices_table, summary_table
from loupe.models.inference import choose_device, super_resolve
from loupe.models.weights import describe, load_network
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage

MODEL = Path("models")
INDEX = Path("index")
OUTPUTS = Outputs(
    summary=Path("metrics/evaluate.json"),
    per_image=Path("metrics/per_image.csv"),
    pictures=Path("reports/evaluation"),
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
    network = load_network(MODEL).to(choose_device())
    index = PatchIndex(INDEX)
    report = evaluate(
        pairs(index), lambda pixels: super_resolve(network, pixels), describe(MODEL), index.scale, OUTPUTS
    )
    print(summary_table(report.summary), slices_table(report.summary), sep="\n\n")
    if report.failures:
        raise InputError("; ".join(report.failures))


if __name__ == "__main__":
    main()
