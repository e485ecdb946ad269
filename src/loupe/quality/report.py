"""What the gate found, for people and for tools: validation.json, findings.csv, and a page that opens from disk."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Mapping
from importlib.resources import files
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from loupe.imaging.files import ImageError, atomic_file, read_image
from loupe.quality.gate import SEVERITIES, Limits, rules

SHOWN = 60  # pictures with only warnings on the page; the refused ones are all there
THUMBNAIL = 192  # pixels, for screens of double density


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
    from jinja2 import DictLoader, Environment, StrictUndefined
    from markupsafe import Markup

    sources = {name: (files("loupe.quality") / name).read_text("utf-8") for name in ("page.html", "page.css")}
    groups = [group for _, group in findings.groupby(["set", "path"], sort=False)]  # critical ones come first
    refused = int(found["critical"])
    environment = Environment(
        loader=DictLoader(sources), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    page = environment.get_template(
        "page.html"
    ).render(
        style=Markup(sources["page.css"]),  # noqa: S704  # ours
        style_hash=f"sha256-{base64.b64encode(hashlib.sha256(sources['page.css'].encode()).digest()).decode()}",
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
    with atomic_file(folder / "index.html") as stream:
        stream.write(page.encode("utf-8", "backslashreplace"))  # names of files may hold bytes that are no text
    return folder / "index.html"


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
        "thumbnail": _thumbnail(roots[str(rows[0]["set"])] / str(rows[0]["path"])),
    }


def _thumbnail(path: Path) -> str:
    """A picture as a data address; "" where it cannot be decoded."""
    try:
        image = Image.fromarray(read_image(path).pixels)
    except ImageError:
        return ""
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    stream = io.BytesIO()
    image.save(stream, "WEBP", quality=80)
    return f"data:image/webp;base64,{base64.b64encode(stream.getvalue()).decode()}"
