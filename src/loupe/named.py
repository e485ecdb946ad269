"""A model by any of its names: a folder, a file, or what a release store calls it.

    model_at("bundle")          # that folder
    model_at("production")      # the version that the alias names, pulled from the store in LOUPE_STORE
    model_at("1.4.0")           # that version

What was pulled is kept, so that the next time only the alias is read. Where there is no store, `production` is the
network that comes with the package: SEED is itself a release store, and `loupe registry seed` begins one with it.
"""

from __future__ import annotations

import hashlib
import logging
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
SEED = Path(__file__).with_name("seed")

LOG = logging.getLogger(__name__)


def model_at(model: str | Path, store: str | None = None) -> Path:
    """The folder or file of a model.

    Args:
        model: a path; or, where there is none, an alias or a version.
        store: the release store; else LOUPE_STORE, else `releases` in the working directory; `production` may also be
            that of SEED.

    Returns:
        The path given, or the folder that the version was pulled into: below LOUPE_CACHE, else `.cache`, of the
        working directory. What SEED holds is used where it lies, and a warning is logged.

    Raises:
        InputError: there is neither such a path nor such a version.
    """
    path, name = Path(model), str(model)
    if path.exists() or not re.fullmatch(NAME, name) or path.suffix == ".onnx":
        return path
    from loupe.release.pull import find, pull
    from loupe.release.store import FolderStore, open_store

    address = store or os.environ.get("LOUPE_STORE") or (STORE if Path(STORE).is_dir() else "")
    if not address and name == "production":
        found = find(FolderStore(SEED), name)
        LOG.warning("no release store in LOUPE_STORE or %s/: taking the network that comes with loupe", STORE)
        return SEED / found.path
    address = address or STORE
    if "://" not in address and not Path(address).is_dir():
        raise InputError(f"{name}: no such file or folder, nor is there a release store {address}; set LOUPE_STORE")
    place = hashlib.sha256(address.encode()).hexdigest()[:12]
    folder = Path(os.environ.get("LOUPE_CACHE") or ".cache") / "models" / place / name
    return pull(open_store(address), folder, name, say=lambda line: None).folder


def shipped() -> frozenset[str]:
    """The identities of the versions that come with the package."""
    from loupe.release.store import FolderStore
    from loupe.release.versions import read_versions

    return frozenset(version.identity for version in read_versions(FolderStore(SEED)))


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
