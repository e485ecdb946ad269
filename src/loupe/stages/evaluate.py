"""DVC stage `evaluate`: the trained network scored on every validation picture."""

from __future__ import annotations

from pathlib import Path

from loupe.errors import InputError
from loupe.evaluation.benchmarks import score_benchmarks
from loupe.evaluation.methods import compared_with, stored
from loupe.evaluation.pairs import held_out
from loupe.evaluation.run import Outputs, evaluate, write_summary
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


@stage
def main() -> None:
    """Score, draw, and print the table."""
    chosen = load_params().evaluation
    model = stored(MODEL)
    champion = Path(chosen.champion) if chosen.champion else None
    others = compared_with(model, champion, ensemble=MODEL if chosen.ensemble else None)
    index = PatchIndex(INDEX)
    report = evaluate(held_out(index), model, others, OUTPUTS)
    if chosen.benchmarks:
        report.summary["benchmarks"] = score_benchmarks(Path(chosen.benchmarks), model, index)
        write_summary(OUTPUTS.summary, report.summary)
    print(summary_table(report.summary), slices_table(report.summary), sep="\n\n")
    if report.failures:
        raise InputError("; ".join(report.failures))


if __name__ == "__main__":
    main()
