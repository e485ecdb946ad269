"""What the gate found, for people and for tools: validation.json, findings.csv, and a page that opens from disk."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from loupe.imaging.files import atomic_file
from loupe.quality.gate import SEVERITIES, Limits, rules
from loupe.quality.page import rendered, thumbnail, write_page_file

SHOWN = 60  # pictures with only warnings on the page; the refused ones are all there


def summary(facts: Mapping[str, pd.DataFrame], findings: pd.DataFrame, limits: Limits) -> dict[str, Any]:
    """What validation.json holds: whether all is well, and by set how many pictures break each rule.

    {"success": bool, "critical": pictures, "warning": pictures, "sets": {NAME: {"images": n, "refused": [path, ...],
    "rules": {"RULE, SEVERITY": n}}}}; a picture with a critical finding counts there alone.
    """
    broken = {
        severity: set(findings[findings["severity"] == severity][["set", "path"]].itertuples(index=False, name=None))
        for severity in SEVERITIES
    }
    counts = findings.groupby(["set", "rule", "severity"]).size().to_dict()
    known = [(rule.name, rule.severity) for rule in rules(limits)]
    sets = {
        name: {
            "images": len(table),
            "refused": [path for path in table["path"] if (name, path) in broken["critical"]],
            "rules": {", ".join(rule): int(counts.get((name, *rule), 0)) for rule in known},
        }
        for name, table in facts.items()
    }
    return {
        "success": not broken["critical"],
        "critical": len(broken["critical"]),
        "warning": len(broken["warning"] - broken["critical"]),
        "sets": sets,
    }


def write_page(
    folder: Path,
    roots: Mapping[str, Path],
    found: Mapping[str, Any],
    findings: pd.DataFrame,
    limits: Limits,
) -> Path:
    """Write index.html and findings.csv into `folder`.

    Args:
        folder: where to.
        roots: the folder that the paths of each set are relative to, for thumbnails.
        found: see `summary`.
        findings: see `check`.
        limits: see `check`.

    Returns:
        The page's path.
    """
    groups = [group for _, group in findings.groupby(["set", "path"], sort=False)]  # critical ones come first
    refused = int(found["critical"])
    page = rendered(
        "validation.html",
        verdict=verdict(found),
        refused=refused,
        sets=[
            {"name": name, "count": one["images"], "rules": _rules(one["rules"], limits)}
            for name, one in found["sets"].items()
        ],
        pictures=[_picture(roots, group) for group in groups[: refused + SHOWN]],
        left_out=max(0, len(groups) - refused - SHOWN),
    )
    with atomic_file(folder / "findings.csv") as stream:
        findings.to_csv(stream, index=False)
    return write_page_file(folder / "index.html", page)


def verdict(found: Mapping[str, Any]) -> str:
    """One sentence."""
    images = sum(one["images"] for one in found["sets"].values())
    if found["critical"]:
        return f"{found['critical']} of {images} pictures must not be trained on; {found['warning']} more have warnings"
    if found["warning"]:
        return f"All {images} pictures can be trained on; {found['warning']} have warnings"
    return f"All {images} pictures are as they should be"


def lines(findings: pd.DataFrame, roots: Mapping[str, Path]) -> list[str]:
    """A line for each finding: the file, what it is, what is allowed, and what to do."""
    rows = findings.to_dict("records")
    return [
        f"{roots[row['set']] / row['path']}: {row['rule']} {row['value']}, allowed is {row['allowed']}: {row['advice']}"
        for row in rows
    ]


def _rules(counts: Mapping[str, int], limits: Limits) -> list[dict[str, Any]]:
    """A row for each rule, with what is allowed and how many pictures break it, by severity."""
    rows: dict[str, dict[str, Any]] = {}
    for rule in rules(limits):
        nothing = {"allowed": "", "count": 0}
        row = rows.setdefault(rule.name, {"name": rule.name, "critical": nothing, "warning": nothing})
        row[rule.severity] = {"allowed": rule.allowed, "count": counts[f"{rule.name}, {rule.severity}"]}
    return list(rows.values())


def _picture(roots: Mapping[str, Path], group: pd.DataFrame) -> dict[str, Any]:
    rows = group.to_dict("records")
    return {
        "set": rows[0]["set"],
        "path": rows[0]["path"],
        "findings": rows,
        "thumbnail": thumbnail(roots[str(rows[0]["set"])] / str(rows[0]["path"])),
    }
