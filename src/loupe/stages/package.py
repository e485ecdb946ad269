"""DVC stage `package`: the trained network as the bundle that the serving team receives."""

from __future__ import annotations

from pathlib import Path

from loupe.evaluation.pairs import held_out
from loupe.models.inference import choose_device
from loupe.models.weights import trained_on
from loupe.params import load_params
from loupe.patches.index import PatchIndex
from loupe.release.admission import LIMITS
from loupe.release.bundle import Source, write_bundle
from loupe.release.lineage import lineage
from loupe.stages.running import stage

MODEL = Path("models")
INDEX = Path("index")
METRICS = Path("metrics/evaluate.json")
LICENCES = Path("data/LICENCES.md")
PHOTOS = Path("data/photos/LICENCES.md")
OUT = Path("bundle")


@stage
def main() -> None:
    """Export, quantise, describe and check; bundle/ appears only when it passes its own verify.py."""
    params = load_params()
    index = PatchIndex(INDEX)
    licences = "\n\n".join(path.read_text().strip() for path in (LICENCES, PHOTOS) if path.exists())
    source = Source(
        MODEL,
        index,
        METRICS,
        licences,
        jpeg_share=params.degradations.jpeg_probability,
        lineage=lineage(Path(), choose_device().type, trained_on(MODEL)),
    )
    bundle = write_bundle(OUT, source, held_out(index), LIMITS if params.package.int8 else None)
    for reason in bundle.without_int8:
        print(f"no int8 variant: {reason}")
    print(f"{OUT}: {bundle.identity[:12]}; `python {OUT / 'verify.py'}` checks it anywhere")


if __name__ == "__main__":
    main()
