"""The gate: may a challenger replace the champion? A pure function of what was measured on the same pictures.

It may when the gain in PSNR-Y is more than luck, and nothing else got worse beyond its limit: structure, single
pictures, the worst patches, each data set, each kind of pixel, time, and the bundle. docs/promotion.md says why each.

Decibels above CEILING count as CEILING: a picture that is right to a twelfth of a squared grey level is as right as
rounding to 8 bits leaves it. So no gain is infinite, and nothing is gained or lost where nobody could see it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from tabulate import tabulate

from loupe.errors import InputError
from loupe.evaluation.intervals import interval_of_groups
from loupe.evaluation.slices import KINDS
from loupe.evaluation.summary import decibels
from loupe.names import printable

CEILING = 10 * math.log10(255**2 * 12)  # 58.9 dB
PERCENTILE = 5
LEAST_PIXELS = 1000  # of a kind in a set; fewer say nothing about that kind
NAMED = 3  # pictures in a message


class GateError(InputError):
    """What cannot be decided upon; the message names the picture or figure and what to do."""


@dataclass(frozen=True)
class ImageScore:
    """How close a contender came to one picture.

    sha256: of ground truth and input, as in per_image.csv. psnr_y, worst_patch_psnr_y: decibels, infinite where nothing
    differs. ssim_y: at most 1. pixels, errors: of each of KINDS, how many were scored and the sum of their squared
    errors of luma, grey levels squared.
    """

    set: str
    name: str
    sha256: str
    psnr_y: float
    ssim_y: float
    worst_patch_psnr_y: float
    pixels: tuple[float, ...]
    errors: tuple[float, ...]


@dataclass(frozen=True)
class Contender:
    """One side of the contest.

    sha256: of the weights or the ONNX file; "" for bicubic enlargement, the opponent of a first champion.
    milliseconds: for one picture, measured together with the other side; None if it was not.
    """

    label: str
    sha256: str
    images: tuple[ImageScore, ...]
    milliseconds: float | None = None


@dataclass(frozen=True)
class Verification:
    """What checking the challenger's bundle found.

    onnx_levels: largest difference between its ONNX model and the network, grey levels. golden_failed: how many checks
    of its verify.py failed.
    """

    onnx_levels: float
    golden_failed: int


@dataclass(frozen=True)
class Limits:
    """The parameters `promotion`; profiles/sample.yaml gives the reason of each. Losses are positive."""

    min_images: int
    min_gain: float
    min_gain_over_bicubic: float
    max_ssim_loss: float
    max_image_loss: float
    max_patch_loss: float
    max_set_loss: float
    max_slice_loss: float
    max_flat_loss: float
    max_latency_ratio: float
    max_onnx_levels: float


@dataclass(frozen=True)
class Override:
    """Somebody's decision to promote whatever the gate says; both are texts for those who read the record."""

    reason: str
    who: str


@dataclass(frozen=True)
class Guard:
    """One condition, and what was found.

    measured: None if it could not be. least: `limit` is the least that passes, else the most; `gain` must exceed it.
    unit: after the figures; "" for a count.
    """

    name: str
    measured: float | None
    limit: float
    least: bool
    unit: str
    passed: bool
    sentence: str


@dataclass(frozen=True)
class ImageGain:
    """By how many decibels PSNR-Y of one picture is higher than the opponent's, both up to CEILING."""

    set: str
    name: str
    sha256: str
    gain_db: float


@dataclass(frozen=True)
class Side:
    """Who stood in the contest: label, and sha256 as in `Contender`."""

    label: str
    sha256: str


@dataclass(frozen=True)
class Decision:
    """The gate's record.

    passed: every guard did. promoted: that, or there is an override. gain_db: mean over the sets of their mean gain;
    interval_95: its interval, None where there are too few pictures for one. gains: by set, then sha256.
    """

    promoted: bool
    passed: bool
    challenger: Side
    champion: Side
    gain_db: float
    interval_95: tuple[float, float] | None
    guards: tuple[Guard, ...]
    gains: tuple[ImageGain, ...]
    limits: Limits
    override: Override | None

    @property
    def failed(self) -> tuple[Guard, ...]:
        """The guards that did not pass."""
        return tuple(guard for guard in self.guards if not guard.passed)

    def as_dict(self) -> dict[str, Any]:
        """As JSON has it; every figure is finite."""
        found: dict[str, Any] = json.loads(json.dumps(asdict(self), allow_nan=False))
        return found

    @classmethod
    def from_dict(cls, found: Mapping[str, Any]) -> Decision:
        """What `as_dict` gave; other keys beside its own are left out."""
        override, ends = found["override"], found["interval_95"]
        return cls(
            promoted=found["promoted"],
            passed=found["passed"],
            challenger=Side(**found["challenger"]),
            champion=Side(**found["champion"]),
            gain_db=found["gain_db"],
            interval_95=ends and tuple(ends),
            guards=tuple(Guard(**one) for one in found["guards"]),
            gains=tuple(ImageGain(**one) for one in found["gains"]),
            limits=Limits(**found["limits"]),
            override=override and Override(**override),
        )


def decide(
    challenger: Contender,
    champion: Contender,
    limits: Limits,
    verification: Verification | None = None,
    override: Override | None = None,
) -> Decision:
    """Decide, from scores on the same pictures; their order makes no difference.

    Args:
        challenger: who wants to be promoted.
        champion: who is in production, or bicubic enlargement where nobody is; see `loupe.release.contest`.
        limits: what is asked for.
        verification: of the challenger's bundle; None, not verified, fails.
        override: promote nevertheless.

    Raises:
        GateError: pictures differ, one is there twice, a figure is no number, or an override without reason or name.
    """
    if override and not (override.reason.strip() and override.who.strip()):
        raise GateError("an override needs a reason, and the name of who decides")
    pairs = _paired(challenger, champion)
    sets = {name: [pair for pair in pairs if pair[0].set == name] for name in dict.fromkeys(p[0].set for p in pairs)}
    gains = tuple(ImageGain(ours.set, ours.name, ours.sha256, _gain(ours, theirs)) for ours, theirs in pairs)
    by_set = {name: [gain.gain_db for gain in gains if gain.set == name] for name in sets}
    mean = _mean(_mean(values) for values in by_set.values())
    ends = interval_of_groups(list(by_set.values()))
    first = not champion.sha256
    guards = [
        _images(by_set, limits.min_images),
        _exceeds(mean, ends, limits.min_gain_over_bicubic if first else limits.min_gain, champion.label),
        _ssim(sets, limits.max_ssim_loss),
        _fifth_percentile(gains, limits.max_image_loss),
        _patches(pairs, limits.max_patch_loss),
        *_sets(by_set, limits.max_set_loss),
        *_slices(sets, limits.max_slice_loss, limits.max_flat_loss),
        *([] if first else [_latency(challenger, champion, limits.max_latency_ratio)]),
        *_bundle(verification, limits.max_onnx_levels),
    ]
    passed = all(guard.passed for guard in guards)
    return Decision(
        promoted=passed or override is not None,
        passed=passed,
        challenger=Side(challenger.label, challenger.sha256),
        champion=Side(champion.label, champion.sha256),
        gain_db=mean,
        interval_95=ends,
        guards=tuple(guards),
        gains=gains,
        limits=limits,
        override=override,
    )


def verdict(decision: Decision) -> str:
    """The decision as one sentence."""
    ours, theirs = (_named(side) for side in (decision.challenger, decision.champion))
    failed = ", ".join(guard.name for guard in decision.failed)
    if decision.passed:
        return f"promoted: {ours} instead of {theirs}: {decision.gain_db:+.2f} dB, and every guard passes"
    if decision.override:
        who, why = decision.override.who, decision.override.reason
        return f"promoted by override of {who}: {ours} instead of {theirs}, though {failed} failed: {why}"
    return f"refused: {ours} does not replace {theirs}: {failed}"


def decision_table(decision: Decision) -> str:
    """The decision as text: the verdict, and a row a guard."""
    rows = [
        (guard.name, "ok" if guard.passed else "FAILS", shown(guard), allowed(guard), guard.sentence)
        for guard in decision.guards
    ]
    headers = ("guard", "", "measured", "asked for", "")
    aligned = ("left", "left", "right", "left", "left")
    return f"{verdict(decision)}\n\n{tabulate(rows, headers=headers, disable_numparse=True, colalign=aligned)}"


def shown(guard: Guard) -> str:
    """What was measured, with its unit."""
    return "-" if guard.measured is None else _figure(guard, guard.measured)


def allowed(guard: Guard) -> str:
    """What is asked for, in words."""
    bound = "over" if guard.name == "gain" else "at least" if guard.least else "at most"
    return f"{bound} {_figure(guard, guard.limit)}"


Pairs = Sequence[tuple[ImageScore, ImageScore]]


def _figure(guard: Guard, value: float) -> str:
    digits = {"dB": "+.2f", "SSIM": "+.4f", "times": ".2f"}.get(guard.unit, "g")
    unit = {"SSIM": "", "levels": "level" if value == 1 else "levels"}.get(guard.unit, guard.unit)
    return f"{value:{digits}} {unit}".rstrip()


def _named(side: Side) -> str:
    return f"{side.label} ({side.sha256[:12]})" if side.sha256 else side.label


def _where(image: ImageScore | ImageGain) -> str:
    """The picture's name for people."""
    return printable(f"{image.set}/{image.name}")


def _mean(values: Iterable[float]) -> float:
    return float(np.mean(list(values)))


def _capped(psnr: float) -> float:
    return min(psnr, CEILING)


def _gain(ours: ImageScore, theirs: ImageScore) -> float:
    return _capped(ours.psnr_y) - _capped(theirs.psnr_y)


def _paired(challenger: Contender, champion: Contender) -> Pairs:
    """The scores of both sides picture by picture, by set and sha256."""
    ours, theirs = _by_content(challenger), _by_content(champion)
    if ours.keys() != theirs.keys():
        apart = {**ours, **theirs}
        odd = [_where(apart[key]) for key in sorted(ours.keys() ^ theirs.keys())]
        more = f" and {len(odd) - NAMED} more" if len(odd) > NAMED else ""
        raise GateError(
            f"{challenger.label} was scored on {len(ours)} pictures, {champion.label} on {len(theirs)}, and not the "
            f"same: only one has {', '.join(odd[:NAMED])}{more}; score both on the same pictures"
        )
    if not ours:
        raise GateError(f"{challenger.label}: no picture was scored; give pictures to compare on")
    return [(ours[key], theirs[key]) for key in sorted(ours)]


def _by_content(side: Contender) -> dict[tuple[str, str], ImageScore]:
    if side.milliseconds is not None and not (math.isfinite(side.milliseconds) and side.milliseconds > 0):
        raise GateError(f"{side.label}: a time of {side.milliseconds} ms cannot be; measure it again")
    found: dict[tuple[str, str], ImageScore] = {}
    seen: dict[str, ImageScore] = {}
    for image in side.images:
        figures = (image.psnr_y, image.worst_patch_psnr_y, image.ssim_y, *image.pixels, *image.errors)
        if any(math.isnan(value) for value in figures) or not all(map(math.isfinite, figures[2:])):
            raise GateError(f"{side.label}: a score of {_where(image)} is no number; score it again")
        if twin := seen.get(image.sha256):
            raise GateError(
                f"{side.label}: {_where(twin)} and {_where(image)} are the same picture, which would "
                "count twice; remove one"
            )
        seen[image.sha256] = found[image.set, image.sha256] = image
    return found


def _images(by_set: Mapping[str, Sequence[float]], least: int) -> Guard:
    fewest = min(by_set, key=lambda name: len(by_set[name]))
    count = len(by_set[fewest])
    sizes = ", ".join(f"{len(values)} of {name}" for name, values in by_set.items())
    enough = count >= least
    return Guard("images", count, least, True, "", enough, f"{sizes}: {'enough' if enough else 'too few'}")


def _exceeds(mean: float, ends: tuple[float, float] | None, limit: float, opponent: str) -> Guard:
    low = None if ends is None else ends[0]
    passed = low is not None and low > limit
    if ends is None:
        sentence = "one picture of a set tells nothing about others"
    else:
        found = f"mean {mean:+.2f} dB over {opponent}, 95 % interval {ends[0]:+.2f} to {ends[1]:+.2f}"
        luck = ": may be luck" if mean > limit and not passed else ": too little" if not passed else ""
        sentence = found + luck
    return Guard("gain", low, limit, True, "dB", passed, sentence)


def _loss(name: str, measured: float, most: float, unit: str, sentence: str) -> Guard:
    """A guard on a change that must not be below minus `most`."""
    return Guard(name, measured, -most, True, unit, measured >= -most, sentence)


def _ssim(sets: Mapping[str, Pairs], most: float) -> Guard:
    changes = {name: _mean(ours.ssim_y - theirs.ssim_y for ours, theirs in pairs) for name, pairs in sets.items()}
    worst = min(changes, key=changes.__getitem__)
    return _loss("SSIM", changes[worst], most, "SSIM", f"mean change of {worst}, the set with the lowest")


def _fifth_percentile(gains: Sequence[ImageGain], most: float) -> Guard:
    change = float(np.quantile([gain.gain_db for gain in gains], PERCENTILE / 100, method="inverted_cdf"))
    worst = min(gains, key=lambda gain: gain.gain_db)
    name = "5th percentile image"
    return _loss(name, change, most, "dB", f"least gained by {_where(worst)}: {worst.gain_db:+.2f} dB")


def _patches(pairs: Pairs, most: float) -> Guard:
    changes = [_capped(ours.worst_patch_psnr_y) - _capped(theirs.worst_patch_psnr_y) for ours, theirs in pairs]
    change = min(changes)
    image = pairs[changes.index(change)][0]
    return _loss("worst patches", change, most, "dB", f"of {_where(image)}")


def _sets(by_set: Mapping[str, Sequence[float]], most: float) -> list[Guard]:
    return [
        _loss(f"{name}: mean", _mean(values), most, "dB", f"mean gain over {len(values)} pictures")
        for name, values in by_set.items()
    ]


def _slices(sets: Mapping[str, Pairs], most: float, most_flat: float) -> list[Guard]:
    """PSNR-Y over all pixels of a kind in a set. Flat ones have a limit of their own: their errors are tiny."""
    guards = []
    for name, pairs in sets.items():
        for place, kind in enumerate(KINDS):
            pixels = sum(ours.pixels[place] for ours, _ in pairs)
            if pixels < LEAST_PIXELS:
                continue
            sides = zip(*pairs, strict=True)
            ours, theirs = (decibels(pixels, sum(image.errors[place] for image in side)) for side in sides)
            change = _capped(ours) - _capped(theirs)
            least = most_flat if kind == "flat" else most
            guards.append(_loss(f"{name}: {kind}", change, least, "dB", f"{theirs:.2f} dB before, {ours:.2f} now"))
    return guards


def _latency(challenger: Contender, champion: Contender, most: float) -> Guard:
    ours, theirs = challenger.milliseconds, champion.milliseconds
    if ours is None or theirs is None:
        return Guard("latency", None, most, False, "times", False, "not measured")
    ratio = ours / theirs
    sentence = f"{theirs:.0f} ms before, {ours:.0f} now, side by side"
    return Guard("latency", ratio, most, False, "times", ratio <= most, sentence)


def _bundle(verification: Verification | None, most_levels: float) -> list[Guard]:
    unknown = "the bundle has not been verified"
    levels = None if verification is None else verification.onnx_levels
    failed = None if verification is None else verification.golden_failed
    onnx = "largest difference between ONNX and network" if verification else unknown
    golden = "checks of verify.py that failed" if verification else unknown
    return [
        Guard("ONNX", levels, most_levels, False, "levels", levels is not None and levels <= most_levels, onnx),
        Guard("golden files", failed, 0, False, "", failed == 0, golden),
    ]
