"""The contact sheet of an ingest: what was accepted and what was not, with the reasons."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from loupe.quality.ingest import Decision, Ingested
from loupe.quality.page import rendered, thumbnail, write_page_file

ACCEPTED = 600  # accepted pictures on the page; the refused ones are all there


def write_sheet(folder: Path, ingested: Ingested, dry_run: bool = False) -> Path:
    """Write index.html into `folder`: a contact sheet of what was accepted and what was not, with the reasons.

    Args:
        folder: where to.
        ingested: the outcome, while its pictures are still there.
        dry_run: whether nothing was written elsewhere.

    Returns:
        The page's path.
    """
    accepted = [one for one in ingested.decisions if one.state == "accepted"]
    refused = [one for one in ingested.decisions if one.state == "quarantined"]
    page = rendered(
        "sheet.html",
        verdict=ingested.verdict,
        dry_run=dry_run,
        refused=[_shown(one) for one in refused],
        accepted=[_shown(one) for one in accepted[:ACCEPTED]],
        left_out=max(0, len(accepted) - ACCEPTED),
        others=ingested.others,
    )
    return write_page_file(folder / "index.html", page)


def _shown(decision: Decision) -> dict[str, Any]:
    return {
        "name": decision.name,
        "file": decision.file,
        "changes": decision.changes,
        "findings": decision.findings,
        "thumbnail": thumbnail(decision.picture) if decision.picture else "",
    }
