"""What a bundle was made from: data, parameters, packages. A record for people, not an input.

The commit is not here. While a bundle is made the commit that will hold its dvc.lock does not exist yet, and one that
is written into it would make every bundle another one. A promotion asks for a clean commit and records that.
"""

from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from loupe.errors import InputError

PACKAGES = ("loupe", "dvc", "lightning", "numpy", "onnx", "onnxruntime", "pillow", "safetensors", "torch")
RUN, COST = "LOUPE_RUN_ID", "LOUPE_COST_USD"  # set by whoever starts the run, if they know


def lineage(root: Path, device: str, trained_on: str | None) -> dict[str, Any]:
    """What lineage.json holds; null where it is not known.

    Args:
        root: the project's folder, with dvc.lock and data.dvc.
        device: what networks run on here, such as `cpu` or `cuda`; training may have been elsewhere.
        trained_on: what the network itself tells of that, see `loupe.models.weights.trained_on`.

    Raises:
        InputError: LOUPE_COST_USD is no number.
    """
    lock, data = _yaml(root / "dvc.lock"), _yaml(root / "data.dvc")
    stages = lock.get("stages", {})
    return {
        "data": {out["path"]: out["md5"] for out in data.get("outs", [])},
        # as DVC recorded them when each stage ran; the bundle's own stage is recorded after it is made
        "stages": {name: _recorded(stages[name]) for name in stages if name != "package"},
        "packages": {"python": platform.python_version(), **{name: _version(name) for name in PACKAGES}},
        "device": device,
        "trained_on": trained_on,
        "run": os.environ.get(RUN) or None,
        "cost_usd": _cost(),
    }


def _recorded(stage: dict[str, Any]) -> dict[str, Any]:
    """A stage of dvc.lock: md5 of what it read (but for source files, which the commit holds) and wrote; parameters."""
    deps = {dep["path"]: dep["md5"] for dep in stage.get("deps", []) if not dep["path"].startswith("src/")}
    outs = {out["path"]: out["md5"] for out in stage.get("outs", [])}
    return {"params": stage.get("params", {}).get("params.yaml", {}), "deps": deps, "outs": outs}


def _yaml(path: Path) -> dict[str, Any]:
    return dict(YAML(typ="safe").load(path.read_text()) or {}) if path.exists() else {}


def _cost() -> float | None:
    given = os.environ.get(COST)
    try:
        return float(given) if given else None
    except ValueError:
        raise InputError(f"{COST}={given}: no number; give US dollars such as 1.25, or leave it out") from None


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
