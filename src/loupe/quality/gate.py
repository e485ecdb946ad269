"""The gate: which pictures may become ground truth, by Great Expectations suites over their facts.

A rule has a severity. What breaks a critical one must not be trained on, and stops the pipeline; a warning is shown and
counted. Every rule is one expectation of a suite, its limits are the parameters `quality`, and each picture that breaks
it becomes a finding: which picture, what it is, what is allowed, and what a shop can do about it.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import pandas as pd

from loupe.imaging.likeness import NEAR, Hash, distance

if TYPE_CHECKING:
    from great_expectations.core import ExpectationSuite

Severity = Literal["critical", "warning"]
SEVERITIES: tuple[Severity, ...] = ("critical", "warning")
FINDINGS = ("set", "path", "rule", "severity", "value", "allowed", "advice")


@dataclass(frozen=True)
class Limit:
    """Where a fact becomes a warning, and where critical; None: never."""

    critical: float | None
    warning: float | None


@dataclass(frozen=True)
class Limits:
    """The parameters `quality`; profiles/sample.yaml gives the reason of each."""

    min_side: Limit
    min_contrast: Limit
    max_white_share: Limit
    min_sharpness: Limit
    min_detail: Limit
    max_doubling: Limit
    max_blockiness: Limit
    min_jpeg_quality: Limit
    max_noise: Limit

    @classmethod
    def of(cls, values: Mapping[str, Mapping[str, float | None]]) -> Limits:
        """From the section as plain dictionaries."""
        return cls(**{name: Limit(**limit) for name, limit in values.items()})


@dataclass(frozen=True)
class Rule:
    """One expectation about one column of the facts; `advice` is for whoever delivers the picture."""

    name: str
    column: str
    severity: Severity
    allowed: str
    advice: str
    expectation: dict[str, Any]


# Facts with limits: column, unit, and what to do about a picture beyond them.
ADVICE = {
    "min_side": ("shorter_side", "pixels on the shorter side", "deliver it larger"),
    "min_contrast": ("contrast", "levels of contrast", "it shows next to nothing; deliver another one"),
    "max_white_share": ("white_share", "of it white", "crop it closer to the product"),
    "min_sharpness": ("sharpness", "squared levels of sharpness", "it is blurred; deliver a sharp one"),
    "min_detail": ("detail", "of detail", "it seems enlarged from a smaller one; deliver the original"),
    "max_doubling": ("doubling", "of doubled pixels", "its pixels are repeated; deliver the smaller original"),
    "max_blockiness": (
        "blockiness",
        "of an 8 x 8 grid",
        "JPEG has damaged it; deliver it in higher quality, or as PNG",
    ),
    "min_jpeg_quality": ("jpeg_quality", "of JPEG quality", "deliver it in higher quality, or as PNG"),
    "max_noise": ("noise", "levels of noise", "deliver one taken with more light"),
}


def rules(limits: Limits) -> list[Rule]:
    """All rules, the critical ones first."""
    yes, none = {"value_set": [True]}, {"value_set": [""]}
    found = [
        Rule("decodable", "decodable", "critical", "readable", "deliver it again as PNG or JPEG", yes),
        Rule("leak", "leaks_to", "critical", "in one split only", "remove it from one of both", none),
        Rule("near leak", "near_leak_to", "warning", "unlike those of the other split", "it is not trained on", none),
        Rule("duplicate", "duplicate_of", "warning", "there once", "remove it", none),
        Rule("one frame", "frames", "warning", "1 frame", "only the first frame is used", {"value_set": [0, 1]}),
        Rule("name", "suffix_matches", "warning", "a fitting suffix", "rename it", yes),
    ]
    for name, (column, unit, advice) in ADVICE.items():
        least = name.startswith("min_")
        for severity in SEVERITIES:
            value = getattr(getattr(limits, name), severity)
            if value is not None:
                allowed = f"{'at least' if least else 'at most'} {value:g} {unit}"
                ends = {"min_value" if least else "max_value": value}
                found.append(Rule(name.replace("_", " "), column, severity, allowed, advice, ends))
    return sorted(found, key=lambda rule: SEVERITIES.index(rule.severity))


def related(facts: pd.DataFrame) -> pd.DataFrame:
    """`facts` with what only a comparison of pictures tells.

    Args:
        facts: rows of `measure_all`. Pictures in a folder `train` or `valid` are in that split; of the others the
            content decides later.

    Returns:
        A copy with shorter_side (pixels), and by path, "" for none: duplicate_of, the first file of the same bytes;
        leaks_to, one of the same bytes in the other split; near_leak_to, a validation picture that this training
        picture nearly equals.
    """
    readable: list[bool] = facts["decodable"].tolist()
    paths: list[str] = facts["path"].tolist()
    splits = [path.split("/")[0] for path in paths]
    held_out = [row for row, split in enumerate(splits) if split == "valid" and readable[row]]
    hashes = [_bits(text) for text in facts["perceptual_hash"].tolist()]
    unseen = np.stack([hashes[row] for row in held_out]) if held_out else np.empty((0, 4), np.uint64)
    duplicates, leaks, near = ([""] * len(paths) for _ in range(3))
    first: dict[str, int] = {}
    for row, digest in enumerate(facts["sha256"].tolist()):
        if not readable[row]:
            continue
        earlier = first.setdefault(digest, row)
        if earlier != row:
            sides = leaks if {splits[row], splits[earlier]} == {"train", "valid"} else duplicates
            sides[row] = paths[earlier]
        if splits[row] == "train" and held_out:
            apart = distance(hashes[row], unseen)
            nearest = held_out[int(apart.argmin())]
            if apart.min() <= NEAR and digest != facts["sha256"].iat[nearest]:
                near[row] = paths[nearest]
    return facts.assign(
        # of what cannot be decoded nothing else is said
        shorter_side=facts[["width", "height"]].min(axis=1).where(facts["decodable"]),
        suffix_matches=facts["suffix_matches"] | ~facts["decodable"],
        duplicate_of=duplicates,
        leaks_to=leaks,
        near_leak_to=near,
    )


def _bits(text: str) -> Hash:
    """A perceptual hash from its hexadecimal digits, as uint64 [4]; zeros for none."""
    return np.frombuffer(bytes.fromhex(text or 64 * "0"), np.uint64)


def suite(name: str, limits: Limits) -> ExpectationSuite:
    """The rules as a Great Expectations suite; `meta` carries what a finding says."""
    import great_expectations as gx
    from great_expectations.expectations import core

    kinds: Any = core  # it exports more than it says
    found = []
    for rule in rules(limits):
        kind: Callable[..., Any] = (
            kinds.ExpectColumnValuesToBeInSet
            if "value_set" in rule.expectation
            else kinds.ExpectColumnValuesToBeBetween
        )
        meta = {"rule": rule.name, "allowed": rule.allowed, "advice": rule.advice}
        found.append(kind(column=rule.column, severity=rule.severity, meta=meta, **rule.expectation))
    return gx.ExpectationSuite(name=name, expectations=found)


def check(facts: Mapping[str, pd.DataFrame], limits: Limits, data_docs: Path | None = None) -> pd.DataFrame:
    """Run the suite over the facts of each data set.

    Args:
        facts: by name of the set, rows of `measure_all`, see `related`.
        limits: what is allowed.
        data_docs: folder for Great Expectations' own pages, which load their style from the network; None: none.

    Returns:
        The findings, critical ones first, then in the order of files: set, path, rule, severity, value (of the fact),
        allowed, advice.
    """
    os.environ.setdefault("GX_ANALYTICS_ENABLED", "false")
    import great_expectations as gx

    context = gx.get_context(mode="file", project_root_dir=data_docs) if data_docs else gx.get_context(mode="ephemeral")
    context.variables.progress_bars = {"globally": False}  # type: ignore[assignment]  # as its documentation has it
    tables = {name: related(table) for name, table in facts.items() if len(table)}
    findings = [finding for name, table in tables.items() for finding in _run(context, name, table, limits)]
    if data_docs:
        context.build_data_docs()
    found = pd.DataFrame(findings, columns=list(FINDINGS))
    order = found["severity"].map(SEVERITIES.index)
    found = found.assign(order=order).sort_values("order", kind="stable").drop(columns="order")
    # what is critical is no warning as well
    return found.drop_duplicates(["set", "path", "rule"]).reset_index(drop=True)


def _run(context: Any, name: str, table: pd.DataFrame, limits: Limits) -> Iterator[dict[str, Any]]:
    import great_expectations as gx

    asset = context.data_sources.add_or_update_pandas(name).add_dataframe_asset(name)
    batch = asset.add_batch_definition_whole_dataframe("all")
    definition = gx.ValidationDefinition(data=batch, suite=context.suites.add_or_update(suite(name, limits)), name=name)
    definition = context.validation_definitions.add_or_update(definition)
    table = table.reset_index(drop=True).assign(row=lambda frame: frame.index)
    outcome = definition.run(
        batch_parameters={"dataframe": table},
        result_format={"result_format": "COMPLETE", "unexpected_index_column_names": ["row"]},
    )
    for result in outcome.results:
        if result.exception_info.get("raised_exception"):
            raise RuntimeError(f"{name}: {result.expectation_config.kwargs['column']}: {result.exception_info}")
        config = result.expectation_config
        column = config.kwargs["column"]
        for broken in result.result.get("unexpected_index_list") or []:
            row = table.iloc[broken["row"]]
            value = row["error"] if column == "decodable" else row[column]
            yield {
                "set": name,
                "path": row["path"],
                "severity": str(config.severity.value),
                "value": f"{value:.4g}" if isinstance(value, float) else str(value),
                **{key: config.meta[key] for key in ("rule", "allowed", "advice")},
            }
