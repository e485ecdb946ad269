"""index.html of a release store: all versions with their scores, and what happened. Opens from disk, loads nothing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from loupe.quality.page import rendered
from loupe.release.tags import ARTIFACT
from loupe.release.versions import Event, version_path


def render(rows: Sequence[Mapping[str, Any]], events: Sequence[Event], alias: str) -> bytes:
    """The page, the same bytes for the same content.

    Args:
        rows: see `registry.overview`.
        events: the history, oldest first.
        alias: the one that the title tells of.
    """
    sets = list(dict.fromkeys(name for row in rows for name in row["sets"] or {}))
    current = next((row["version"] for row in rows if alias in row["aliases"]), None)
    page = rendered(
        "page.html",
        package="loupe.release",
        style=(files("loupe.release") / "page.css").read_text("utf-8"),
        artifact=ARTIFACT,
        title=f"Version {current} is in {alias}" if current else f"Nothing is in {alias}",
        current=current,
        sets=sets,
        rows=[_row(row, sets) for row in rows],
        events=[
            {
                "moved_at": event.moved_at,
                "event": event.event,
                "words": words(event),
                "by": event.by,
                "reason": event.reason,
                "decision": event.decision,
                "picture": event.picture,
            }
            for event in reversed(events)
        ],
    )
    return page.encode()


def words(event: Event) -> str:
    """What happened, in a few words."""
    if event.event == "remove":
        return f"files of {event.version} removed"
    done = "rolled back" if event.event == "rollback" else "promoted"
    return f"{event.alias}: {done}, {event.previous or 'nothing'} → {event.version}"


def _row(row: Mapping[str, Any], sets: Sequence[str]) -> dict[str, Any]:
    path = version_path(row["version"], row["identity"])
    return {**row, "path": path, "scores": [_score((row["sets"] or {}).get(name)) for name in sets]}


def _score(figures: Any) -> dict[str, Any] | None:
    """The figures of one set, rounded; None where they are not there: bundles come from elsewhere."""
    if not isinstance(figures, Mapping):
        return None
    values = [figures.get(key) for key in ("psnr_y", "ssim_y", "gain_db")]
    psnr, ssim, gain = (float(value) if isinstance(value, int | float) else math.nan for value in values)
    if not all(map(math.isfinite, (psnr, ssim, gain))):
        return None
    return {"psnr_y": f"{psnr:.2f}", "ssim_y": f"{ssim:.4f}", "gain": f"{gain:+.2f}", "better": gain > 0}
