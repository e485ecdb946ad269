"""The contest: challenger and champion on the same pictures, as the gate judges it.

Scores that an evaluation left (`evaluate.json` and `per_image.csv`) are used instead of running a network again where
they are of the same weights and of all these pictures, and one picture scored anew comes out the same. So whatever has
changed since, pictures or code, the champion is scored again.
"""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loupe.evaluation.methods import Method, compared_with, stored
from loupe.evaluation.pairs import Pair, held_out, read_pairs
from loupe.evaluation.run import evaluate
from loupe.evaluation.slices import KINDS
from loupe.imaging.likeness import content_hash
from loupe.imaging.resize import Pixels
from loupe.patches.index import PatchIndex
from loupe.release.gate import Contender, GateError, ImageScore

SAME = 2e-4  # part by which another machine's rounding may change a score: 0.007 dB of 35
SHARE_DIGITS = 2e-6  # per_image.csv has six digits
LATENCY_SIDE = 96  # pixels of the picture that is timed: enough for the network to outweigh what is around it
ROUNDS = 7


def contest(
    sources: Sequence[Path],
    challenger: Path,
    champion: Path | None = None,
    scored: Sequence[Path] = (),
) -> tuple[Contender, Contender]:
    """Score two models on the same pictures, and time them in turn.

    Args:
        sources: a patch index, of which the held-out pictures are taken, or folders of ground truth, each a data set.
        challenger, champion: folders with a network, or ONNX files; without a champion it is bicubic enlargement.
        scored: folders with `evaluate.json` and `per_image.csv`, whose scores are used if they still hold.

    Returns:
        Challenger and champion, for `loupe.release.gate.decide`.

    Raises:
        InputError: a model or a picture cannot be used: both sides must have scored every picture.
    """
    ours = stored(challenger)
    others = compared_with(ours, champion)
    earlier = [_read(folder) for folder in scored]
    images, bicubic = _scores(ours, sources, earlier)
    if not others:
        return _contender(ours, images), Contender("bicubic", "", bicubic)
    (theirs,) = others
    times = _milliseconds(ours, theirs)
    return (
        _contender(ours, images, times[0]),
        _contender(theirs, _scores(theirs, sources, earlier)[0], times[1]),
    )


FIGURES = ("psnr_y", "ssim_y", "worst_patch_psnr_y", *(f"{kind}_psnr_y" for kind in KINDS))

Images = tuple[ImageScore, ...]
Rows = Sequence[Mapping[str, Any]]
Earlier = tuple[dict[str, Any], Rows]  # evaluate.json, and per_image.csv


def _contender(method: Method, images: Images, milliseconds: float | None = None) -> Contender:
    return Contender(method.label, method.facts["sha256"], images, milliseconds)


def _pictures(sources: Sequence[Path], scale: int) -> Iterator[Pair]:
    unusable: list[str] = []
    for source in sources:
        if (source / "index.json").exists():
            index = PatchIndex(source)
            if index.scale != scale:
                raise GateError(
                    f"{source}: made for scale {index.scale}, the model enlarges {scale} times; run `dvc repro` with "
                    "the recipe of the model"
                )
            yield from held_out(index)
        else:
            yield from read_pairs(source, None, None, scale, unusable.append)
    if unusable:
        raise GateError("\n".join([*unusable, "mend or remove these: a contest is over all pictures or none"]))


def _scores(method: Method, sources: Sequence[Path], earlier: Sequence[Earlier]) -> tuple[Images, Images]:
    """The scores of `method`, and of bicubic enlargement, on all pictures."""
    rows, prefix = _still_valid(method, sources, earlier) or (_score_all(method, sources), "")
    ours, bicubic = (tuple(_image(row, key, method.scale) for row in rows) for key in (prefix, "bicubic_"))
    return ours, bicubic


def _score_all(method: Method, sources: Sequence[Path]) -> Rows:
    report = evaluate(_pictures(sources, method.scale), method)
    if report.failures:
        raise GateError("\n".join([*report.failures, "a contest is over all pictures or none"]))
    return report.rows


def _still_valid(method: Method, sources: Sequence[Path], earlier: Sequence[Earlier]) -> tuple[Rows, str] | None:
    """Rows about exactly these pictures and the prefix of the columns about `method`, if there are any that hold."""
    found = [(rows, prefix) for summary, rows in earlier for prefix in _columns_of(method, summary)]
    if not found:
        return None
    names: list[tuple[str, str, str]] = []
    smallest: tuple[str, Pair] | None = None
    for pair in _pictures(sources, method.scale):
        digest = content_hash(pair.hr, pair.lr)
        names.append((digest, pair.set, pair.name))
        if smallest is None or pair.hr.size < smallest[1].hr.size:
            smallest = digest, pair
    for rows, prefix in found:
        by_content = {row.get("sha256"): row for row in rows}
        if smallest is None or not all(digest in by_content for digest, *_ in names):
            continue
        (again,) = evaluate([smallest[1]], method).rows
        if _alike(by_content[smallest[0]], prefix, again):
            return [{**by_content[digest], "set": set_, "image": name} for digest, set_, name in names], prefix
    return None


def _columns_of(method: Method, summary: Mapping[str, Any]) -> Iterator[str]:
    """The prefixes of columns about the same weights and configuration."""
    protocol = summary.get("protocol")
    if not isinstance(protocol, dict) or protocol.get("scale") != method.scale:
        return
    sides = {"": summary.get("model"), **{f"{key}_": facts for key, facts in dict(summary.get("compared", {})).items()}}
    for prefix, facts in sides.items():
        same = isinstance(facts, dict) and all(facts.get(key) == method.facts.get(key) for key in ("sha256", "config"))
        if same:
            yield prefix


def _alike(row: Mapping[str, Any], prefix: str, again: Mapping[str, Any]) -> bool:
    """Whether a stored row says of the method, of bicubic enlargement and of the picture what was found again."""
    common = [f"bicubic_{name}" for name in FIGURES] + [f"{kind}_share" for kind in KINDS]
    try:
        before = [row[f"{prefix}{name}"] for name in FIGURES] + [row[name] for name in common]
    except KeyError:  # of an earlier version
        return False
    now = [again[name] for name in (*FIGURES, *common)]
    return np.allclose(np.array(before, np.float64), now, rtol=SAME, atol=SHARE_DIGITS, equal_nan=True)


def _image(row: Mapping[str, Any], prefix: str, scale: int) -> ImageScore:
    """From a row of per_image.csv."""
    area = (row["height"] - 2 * scale) * (row["width"] - 2 * scale)
    pixels = [round(area * row[f"{kind}_share"]) for kind in KINDS]
    psnr_y, ssim_y, worst_patch_psnr_y, *by_kind = (row[f"{prefix}{name}"] for name in FIGURES)
    errors = (count and count * 255**2 / 10 ** (psnr / 10) for count, psnr in zip(pixels, by_kind, strict=True))
    identity = row["set"], row["image"], row["sha256"]
    return ImageScore(*identity, psnr_y, ssim_y, worst_patch_psnr_y, tuple(pixels), tuple(errors))


def _read(folder: Path) -> Earlier:
    try:
        summary: dict[str, Any] = dict(json.loads((folder / "evaluate.json").read_text()))
        kinds = {"set": str, "image": str, "sha256": str}
        rows = pd.read_csv(folder / "per_image.csv", dtype=kinds, keep_default_na=False, na_values=[""])
    except (OSError, ValueError, TypeError) as error:
        raise GateError(f"{folder}: no scores that can be read ({error}); leave it out, or evaluate again") from None
    return summary, [{str(key): value for key, value in row.items()} for row in rows.to_dict("records")]


def _milliseconds(*methods: Method) -> list[float]:
    """Median times of one small picture, the methods in turn, so that other work on the machine slows them alike."""
    pixels = np.random.default_rng(0).integers(0, 256, (LATENCY_SIDE, LATENCY_SIDE, 3), np.uint8)
    rounds = [[_timed(method, pixels) for method in methods] for _ in range(1 + ROUNDS)]
    return [1000 * statistics.median(times) for times in zip(*rounds[1:], strict=True)]  # the first warms up


def _timed(method: Method, pixels: Pixels) -> float:
    start = time.perf_counter()
    method.enlarge(pixels)
    return time.perf_counter() - start
