"""A bundle before the gate: beside what production names, on the same pictures, and checked as its receivers would."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from loupe.imaging.files import read_image
from loupe.models.inference import super_resolve
from loupe.models.onnx import OnnxModel
from loupe.models.weights import load_network
from loupe.release import verify
from loupe.release.bundle import ONNX
from loupe.release.contest import contest
from loupe.release.gate import Decision, Limits, Override, Verification, decide
from loupe.release.manifest import verify_folder
from loupe.release.pull import pull
from loupe.release.store import Store
from loupe.release.versions import Event, read_alias


def judge(
    store: Store,
    bundle: Path,
    alias: str,
    sources: Sequence[Path],
    limits: Limits,
    *,
    scored: Sequence[Path] = (),
    override: Override | None = None,
    cache: Path,
) -> tuple[Decision, Event | None]:
    """May `bundle` replace what `alias` names?

    Args:
        store: where the champion lies.
        bundle: the challenger.
        alias: such as `production`; where it names nothing, bicubic enlargement is the opponent.
        sources, scored: see `loupe.release.contest.contest`.
        limits, override: see `loupe.release.gate.decide`.
        cache: folder into which the champion is pulled; nothing comes that is there already.

    Returns:
        The decision, and the champion that it was made against, for `loupe.release.registry.promote`.

    Raises:
        InputError: the bundle is not whole, the champion cannot be had, or a picture cannot be used.
    """
    verification = check_bundle(bundle)
    champion = read_alias(store, alias)
    folder = cache / alias if champion else None
    if champion and folder:
        pull(store, folder, champion.version)
    sides = contest(sources, bundle, folder, scored)
    return decide(*sides, limits, verification, override), champion


def check_bundle(bundle: Path) -> Verification:
    """Run a bundle's golden pictures through its ONNX models, and the float one beside the network.

    Raises:
        ManifestError: the bundle is not whole.
    """
    _, wrong = verify.check_models(bundle, verify_folder(bundle))
    network, exported = load_network(bundle), OnnxModel(bundle / ONNX)
    levels = 0
    for case in json.loads((bundle / verify.GOLDEN).read_text())["cases"]:
        pixels = read_image(bundle / case["input"]).pixels
        off = np.abs(exported(pixels).astype(np.int16) - super_resolve(network, pixels))
        levels = max(levels, int(off.max()))
    return Verification(onnx_levels=levels, golden_failed=len(wrong))
