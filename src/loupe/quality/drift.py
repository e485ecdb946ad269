"""Drift: whether a batch of new pictures is of another kind than those trained on, by the facts of both.

How far apart two sets are in a fact is what Evidently calls its normed Wasserstein distance: how far the values of one
must be moved, on average, to become those of the other, in standard deviations of the reference. Two sets of one source
are never the same, and the fewer pictures, the further apart. So the limit of each fact is measured: all pictures are
thrown together and dealt out anew DRAWS times, as a reference and a batch of the same sizes, and in 99 of 100 of these
unshifted pairs no fact at all reaches its limit.

Dealing out both together is exact at any size. Drawing both from the reference alone is not: what a small reference
lacks its draws lack too, and a batch from the same source then seems new (docs/quality.md has the numbers).
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy.stats import rankdata

from loupe.imaging.files import atomic_file

if TYPE_CHECKING:
    from evidently.core.report import Snapshot

# The facts that are compared: what pictures show and how good they are. Left out is what says nothing about what a
# network sees (bytes, names, profiles, transparency, which is composited), and JPEG's quality, which is that of the
# last saving alone and unknown for a PNG: blockiness sees what any of them has done.
FACTS = (
    *("shorter_side", "sharpness", "detail", "doubling", "blockiness", "noise"),
    *("brightness", "contrast", "colourfulness", "entropy", "edge_density", "flat_share", "white_share"),
)
# Facts whose ratios count, not their differences: compared as log(1 + x). Else a few carpets decide on the noise.
LOGARITHMIC = frozenset({"shorter_side", "sharpness", "detail", "blockiness", "noise"})
METHOD = "wasserstein"  # Evidently's name of the distance
LEAST_SPREAD = 0.001  # Evidently's least standard deviation, for facts that are constant in the reference
SMALL = 0.1  # Evidently's own limit. Between large sets less is found too, but matters to nobody
ALARMS = 0.01  # share of unshifted batches in which some fact reaches its limit
DRAWS = 4000  # 40 of them may alarm, about three for each fact
KNOWN = 0.5  # a fact is compared if at least this share of either set has it
CHUNK = 2**22  # elements of the arrays that deal out pictures; 32 MiB as numbers

Values: TypeAlias = npt.NDArray[np.float64]
Dealt: TypeAlias = npt.NDArray[np.bool_]  # [draws, n]: which of n pictures are in the batch


@dataclass(frozen=True)
class FactDrift:
    """One fact of both sets.

    name: of the fact. statistic: distance, standard deviations of the reference, from 0; as log(1 + x) for LOGARITHMIC
    facts. threshold: from which on it is drift. Both are None where the fact was not compared. drifted: whether it is.
    reference_median, current_median: in the fact's own unit; None if no picture has the fact.
    """

    name: str
    statistic: float | None
    threshold: float | None
    drifted: bool
    reference_median: float | None
    current_median: float | None


@dataclass(frozen=True)
class Drift:
    """A batch beside the reference.

    drift: whether some fact drifted. enough: whether both sets are large enough to tell; if not, nothing was compared.
    share: of the compared facts that drifted, 0 to 1. n_reference, n_current: pictures that could be decoded. columns:
    the FACTS, in order.
    """

    drift: bool
    enough: bool
    share: float
    n_reference: int
    n_current: int
    columns: tuple[FactDrift, ...]

    @property
    def drifted(self) -> tuple[str, ...]:
        """The names of the facts that drifted."""
        return tuple(fact.name for fact in self.columns if fact.drifted)

    @property
    def compared(self) -> tuple[FactDrift, ...]:
        """The facts that both sets have."""
        return tuple(fact for fact in self.columns if fact.statistic is not None)


def compare(
    reference: pd.DataFrame, current: pd.DataFrame, *, min_batch: int, draws: int = DRAWS, seed: int = 0
) -> Drift:
    """Whether `current` drifted away from `reference`.

    Args:
        reference, current: rows of `measure_all`; those that cannot be decoded do not count.
        min_batch: pictures that either set must have, from 1; with fewer no alarm is raised.
        draws: how often pictures are dealt out anew, for the thresholds.
        seed: of that. The same tables and seed give the same result.

    Returns:
        What drifted. An unshifted batch is said to drift in about ALARMS of all cases, whatever the sizes.
    """
    before, now = finite_facts(reference), finite_facts(current)
    enough = min(len(before), len(now)) >= min_batch
    names = [name for name in FACTS if enough and min(one[name].notna().mean() for one in (before, now)) >= KNOWN]
    found = _calibrated(as_compared(before)[names], as_compared(now)[names], draws, seed) if names else {}
    columns = []
    for name in FACTS:
        medians = [None if np.isnan(median := one[name].median()) else float(median) for one in (before, now)]
        statistic, threshold = found.get(name, (None, None))
        drifted = statistic is not None and threshold is not None and statistic >= threshold
        columns.append(FactDrift(name, statistic, threshold, drifted, *medians))
    count = sum(fact.drifted for fact in columns)
    return Drift(count > 0, enough, count / max(len(names), 1), len(before), len(now), tuple(columns))


def finite_facts(facts: pd.DataFrame) -> pd.DataFrame:
    """The FACTS of the pictures that could be decoded, as float64; what is not finite is NaN."""
    decoded = facts[facts["decodable"]]
    values = decoded.assign(shorter_side=decoded[["width", "height"]].min(axis=1))[list(FACTS)].astype(np.float64)
    return values.where(np.isfinite(values))


def as_compared(values: pd.DataFrame) -> pd.DataFrame:
    """`finite_facts` on the scale on which they are compared: LOGARITHMIC ones as log(1 + x)."""
    return values.assign(**{name: np.log1p(values[name]) for name in FACTS if name in LOGARITHMIC})


def distances(values: Values, dealt: Dealt) -> Values:
    """Normed Wasserstein distances between the two parts of one sample, for many ways to part it.

    Args:
        values: float64 [n], any range, not NaN.
        dealt: bool [draws, n]; which values are in the batch.

    Returns:
        float64 [draws], from 0: the area between the two distribution functions, divided by the standard deviation of
        the values that are not in the batch, at least LEAST_SPREAD. 0 where either part is empty.
    """
    order = np.argsort(values, kind="stable")
    ordered = (values - values.mean())[order]
    batch = dealt[:, order].astype(np.float64)
    size = batch.sum(axis=1)
    rest = len(values) - size
    there = (size > 0) & (rest > 0)
    size, rest = np.maximum(size, 1), np.maximum(rest, 1)
    first, second = ordered.sum() - batch @ ordered, (ordered**2).sum() - batch @ ordered**2  # moments of the rest
    spread = np.sqrt(np.maximum(second / rest - (first / rest) ** 2, 0))
    below = np.cumsum(batch, axis=1)[:, :-1]  # how many of the batch are no larger than each value
    steps = below * (1 / size + 1 / rest)[:, None] - np.arange(1, len(values)) / rest[:, None]
    area = np.abs(steps, out=steps) @ np.diff(ordered)
    found: Values = np.where(there, area / np.maximum(spread, LEAST_SPREAD), 0)
    return found


def joint_limits(by_chance: Values, share: float) -> Values:
    """A limit for each fact, equally rare for all of them, beyond which some fact is in at most `share` of the draws.

    Args:
        by_chance: float64 [draws, facts], distances of unshifted pairs.
        share: 0 to 1.

    Returns:
        float64 [facts]. Source: Westfall and Young, Resampling-Based Multiple Testing (1993): single-step min-P.
    """
    at_least = rankdata(-by_chance, method="max", axis=0)  # how many draws are as far apart
    rarest = np.sort(at_least.min(axis=1))
    rank = int(rarest[int(share * len(by_chance))])
    limits: Values = np.sort(by_chance, axis=0)[len(by_chance) - rank]
    return limits


def to_json(drift: Drift) -> str:
    """For tools: the fields of `Drift` and of its columns, and `drifted`, the names alone; null for None."""
    return json.dumps({**asdict(drift), "drifted": drift.drifted}, indent=2) + "\n"


def drift_table(drift: Drift) -> str:
    """For people: a row for each fact, the farthest from its threshold first."""
    from tabulate import tabulate

    columns = sorted(drift.columns, key=lambda fact: -_excess(fact))
    rows = [
        (
            fact.name,
            *("-" if value is None else f"{value:.4g}" for value in (fact.reference_median, fact.current_median)),
            *("-" if value is None else f"{value:.3g}" for value in (fact.statistic, fact.threshold)),
            "-" if fact.statistic is None else "yes" if fact.drifted else "no",
        )
        for fact in columns
    ]
    heads = ("fact", "reference median", "current median", "distance", "threshold", "drift")
    return tabulate(rows, heads, disable_numparse=True, colalign=("left", *["right"] * 4, "left"))


def verdict(drift: Drift, min_batch: int) -> str:
    """One sentence; `min_batch` as for `compare`."""
    sizes = f"{drift.n_current} pictures beside {drift.n_reference} of the reference"
    if not drift.enough:
        return f"Too few to tell: {sizes}; at least {min_batch} of either are needed"
    if not drift.drift:
        return f"No drift: {sizes} differ no more than chance lets them"
    return f"Drift in {len(drift.drifted)} of {len(drift.compared)} facts, {', '.join(drift.drifted)}: {sizes}"


def write_drift(folder: Path, drift: Drift, reference: pd.DataFrame, current: pd.DataFrame) -> list[Path]:
    """Write drift.json, see `to_json`, and index.html, Evidently's page of the same comparison, into `folder`.

    The page opens without a network. Where nothing was compared there is none, and an older one is removed.

    Args:
        folder: where to.
        drift: of `reference` and `current`, see `compare`.
        reference, current: the tables that were compared.

    Returns:
        The paths of what was written.
    """
    path, page = folder / "drift.json", folder / "index.html"
    page.unlink(missing_ok=True)  # a page never lies beside the figures of another comparison
    with atomic_file(path) as stream:
        stream.write(to_json(drift).encode())
    if not drift.compared:
        return [path]
    with atomic_file(page) as stream:
        stream.write(evidently_report(drift, reference, current).get_html_str(as_iframe=False).encode())
    return [path, page]


def evidently_report(drift: Drift, reference: pd.DataFrame, current: pd.DataFrame) -> Snapshot:
    """Evidently's comparison of the facts that `drift` compared, with its thresholds."""
    from evidently import DataDefinition, Dataset, Report
    from evidently.presets import DataDriftPreset

    titles = {fact.name: f"log(1 + {fact.name})" if fact.name in LOGARITHMIC else fact.name for fact in drift.compared}
    definition = DataDefinition(numerical_columns=list(titles.values()))
    before, now = (
        Dataset.from_pandas(as_compared(finite_facts(facts))[list(titles)].rename(columns=titles), definition)
        for facts in (reference, current)
    )
    preset = DataDriftPreset(
        columns=list(titles.values()),
        method=METHOD,
        per_column_threshold={titles[fact.name]: fact.threshold for fact in drift.compared},
        drift_share=1 / len(titles),  # as here: one is enough
    )
    with np.errstate(all="ignore"):  # it correlates all facts, and some may be constant
        return Report([preset]).run(now, before)


def _calibrated(before: pd.DataFrame, now: pd.DataFrame, draws: int, seed: int) -> dict[str, tuple[float, float]]:
    """Of each column the distance between both sets, and from which distance on it is drift."""
    both = pd.concat([before, now]).to_numpy(np.float64)
    names, batch = list(map(str, before)), np.arange(len(both)) >= len(before)
    apart = _all_distances(both, batch[None])[0]
    rng = np.random.default_rng(seed)
    many = max(1, CHUNK // len(both))
    sizes = [min(many, draws - start) for start in range(0, draws, many)]
    by_chance = [_all_distances(both, rng.permuted(np.tile(batch, (size, 1)), axis=1)) for size in sizes]
    limits = joint_limits(np.concatenate(by_chance), ALARMS) * (1 + 1e-9)  # beyond chance, whatever the rounding
    return dict(zip(names, zip(apart.tolist(), np.maximum(limits, SMALL).tolist(), strict=True), strict=True))


def _all_distances(both: Values, dealt: Dealt) -> Values:
    """`distances` of all columns of float64 [n, columns], each without its NaN: float64 [draws, columns]."""
    known = ~np.isnan(both)
    return np.stack([distances(both[rows, i], dealt[:, rows]) for i, rows in enumerate(known.T)], axis=1)


def _excess(fact: FactDrift) -> float:
    """How far beyond its threshold a fact is; for sorting."""
    return fact.statistic / fact.threshold if fact.statistic is not None and fact.threshold else -1
