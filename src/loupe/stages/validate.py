"""DVC stage `validate`: stops the pipeline if a picture must not become ground truth, and says which and why."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

from loupe.errors import InputError
from loupe.imaging.files import atomic_file
from loupe.params import load_params
from loupe.quality.gate import Limits, check
from loupe.quality.report import lines, summary, verdict, write_page
from loupe.quality.table import measure_all
from loupe.stages.running import stage

ROOTS = {"photos": Path("data/photos"), "products": Path("data/products")}
METRICS = Path("metrics/validation.json")
REPORT = Path("reports/validation")
SHOWN = 20  # lines about single pictures


@stage
def main() -> None:
    """Measure, check, and write the report, whether all is well or not."""
    limits = Limits.of(dataclasses.asdict(load_params().quality))
    facts = {name: measure_all(root, follow_links=True) for name, root in ROOTS.items()}  # DVC may keep files as links
    findings = check(facts, limits)
    found = summary(facts, findings, limits)
    for name, table in facts.items():
        with atomic_file(REPORT / f"{name}.parquet") as stream:
            table.to_parquet(stream, index=False)
    page = write_page(REPORT, ROOTS, found, findings, limits)
    with atomic_file(METRICS) as stream:
        stream.write((json.dumps(found, indent=2) + "\n").encode())
    print(f"{verdict(found)}: {page}")
    critical = findings[findings["severity"] == "critical"]
    if len(critical):
        more = [f"and {len(critical) - SHOWN} more, see {page}"] if len(critical) > SHOWN else []
        last = "remove or mend them, or change the limits in params.yaml"
        raise InputError("\n".join([*lines(critical.head(SHOWN), ROOTS), *more, last]))


if __name__ == "__main__":
    main()
