"""A model by any of its names: a folder, a file, or what a release store calls it.

    model_at("bundle")          # that folder
    model_at("production")      # the version that the alias names, pulled from the store in LOUPE_STORE
    model_at("1.4.0")           # that version

What was pulled is kept, so that the next time only the alias is read.
"""

from __future__ import annotations

import hashlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING

from loupe.errors import InputError

if TYPE_CHECKING:
    from loupe.upscaling.runtimes import Runtime
    from loupe.upscaling.upscaler import Upscaler

NAME = r"[a-z0-9][a-z0-9.-]*"  # of an alias or a version, which no path with a separator or a suffix of ours has
STORE = "releases"


def model_at(model: str | Path, store: str | None = None) -> Path:
    """The folder or file of a model.

    Args:
        model: a path; or, where there is none, an alias or a version.
        store: the release store; else LOUPE_STORE, else `releases` in the working directory.

    Returns:
        The path given, or the folder that the version was pulled into: below LOUPE_CACHE, else `.cache`, of the
        working directory.

    Raises:
        InputError: there is neither such a path nor such a version.
    """
    path, name = Path(model), str(model)
    if path.exists() or not re.fullmatch(NAME, name) or path.suffix == ".onnx":
        return path
    address = store or os.environ.get("LOUPE_STORE") or STORE
    if "://" not in address and not Path(address).is_dir():
        raise InputError(f"{name}: no such file or folder, nor is there a release store {address}; set LOUPE_STORE")
    from loupe.release.pull import pull
    from loupe.release.store import open_store

    place = hashlib.sha256(address.encode()).hexdigest()[:12]
    folder = Path(os.environ.get("LOUPE_CACHE") or ".cache") / "models" / place / name
    return pull(open_store(address), folder, name, say=lambda line: None).folder


def load(
    model: str | Path = "production",
    scale: int | None = None,
    *,
    fast: bool = False,
    memory: int | None = None,
    runtime: Runtime | None = None,
) -> Upscaler:
    """Load a model once, to enlarge many pictures.

    Args:
        model: a bundle's folder, a model's folder, an ONNX file, or an alias or version; see `model_at`.
        scale: size factor; the network's own if absent, or its square.
        fast: use the 8-bit variant that a bundle may hold: faster, with slightly other pixels.
        memory: bytes that the network may take at once; 1 GiB if absent.
        runtime: what computes; chosen by what is there if absent, see docs/upscaling.md.

    Raises:
        InputError: there is no such model, it is damaged, or nothing is installed that can run it.
    """
    from loupe.upscaling.runtimes import load_enlarger
    from loupe.upscaling.upscaler import MEMORY, Upscaler

    enlarger = load_enlarger(model_at(model), runtime, fast)
    return Upscaler(enlarger, scale, memory or MEMORY, enlarger.identity)
