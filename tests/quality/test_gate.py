"""The gate: each rule on facts that break it, relations between pictures, and what people get to see."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from tests.conftest import picture

from loupe.imaging.facts import Facts, measure
from loupe.imaging.files import write_png
from loupe.quality.gate import Limit, Limits, check, related, rules
from loupe.quality.report import summary, verdict, write_page

LIMITS = Limits(
    min_side=Limit(100, 200),
    min_contrast=Limit(5, 15),
    max_white_share=Limit(0.99, 0.9),
    min_sharpness=Limit(20, 100),
    min_detail=Limit(0.1, 0.2),
    max_doubling=Limit(0.4, 0.25),
    max_blockiness=Limit(None, 1.5),
    min_jpeg_quality=Limit(None, 80),
    max_noise=Limit(12, 6),
)
GOOD = Facts(
    decodable=True,
    error="",
    bytes=1,
    sha256="a",
    format="PNG",
    suffix_matches=True,
    width=300,
    height=300,
    frames=1,
    perceptual_hash="0" * 64,
    contrast=50,
    white_share=0.5,
    sharpness=1000,
    detail=0.4,
    blockiness=1.0,
    noise=1.0,
)


def table(*rows: dict[str, Any]) -> pd.DataFrame:
    """Good pictures 0.png, 1.png ..., each changed as told."""
    distinct = ({"path": f"{n}.png", "sha256": str(n)} for n in range(len(rows)))
    return pd.DataFrame([{**asdict(GOOD), **own, **row} for own, row in zip(distinct, rows, strict=True)])


def found(facts: pd.DataFrame) -> list[tuple[str, str, str]]:
    """(path, rule, severity) of all findings."""
    return list(check({"products": facts}, LIMITS)[["path", "rule", "severity"]].itertuples(index=False, name=None))


def test_good_pictures_break_nothing() -> None:
    assert found(table({}, {})) == []
    assert summary({"products": table({})}, check({"products": table({})}, LIMITS), LIMITS)["success"]


@pytest.mark.parametrize(
    ("change", "rule", "severity"),
    [
        ({"decodable": False, "error": "refused: empty"}, "decodable", "critical"),
        ({"height": 99}, "min side", "critical"),
        ({"width": 199}, "min side", "warning"),
        ({"contrast": 4.9}, "min contrast", "critical"),
        ({"white_share": 0.95}, "max white share", "warning"),
        ({"sharpness": 19.0}, "min sharpness", "critical"),
        ({"detail": 0.15}, "min detail", "warning"),
        ({"doubling": 1.0}, "max doubling", "critical"),
        ({"blockiness": 9.0}, "max blockiness", "warning"),
        ({"jpeg_quality": 79.0}, "min jpeg quality", "warning"),
        ({"noise": 13.0}, "max noise", "critical"),
        ({"frames": 7}, "one frame", "warning"),
        ({"suffix_matches": False}, "name", "warning"),
    ],
)
def test_each_rule_finds_its_picture(change: dict[str, Any], rule: str, severity: str) -> None:
    findings = found(table({}, change, {}))
    assert ("1.png", rule, severity) in findings
    assert {path for path, _, _ in findings} == {"1.png"}


def test_a_limit_itself_is_allowed_and_unknown_facts_are_no_fault() -> None:
    assert found(table({"width": 200, "noise": 6.0, "detail": np.nan})) == []


def test_a_picture_that_cannot_be_decoded_breaks_that_rule_alone() -> None:
    facts = table({})
    bad = replace(Facts(False, "refused: the file is empty; deliver it again", 0, ""))
    facts = pd.concat([facts, pd.DataFrame([{"path": "bad.png", **asdict(bad)}])], ignore_index=True)
    assert found(facts) == [("bad.png", "decodable", "critical")]
    (finding,) = check({"products": facts}, LIMITS).to_dict("records")
    assert finding["value"] == "refused: the file is empty; deliver it again"


def test_the_same_file_twice_and_on_both_sides() -> None:
    same = {"sha256": "x"}
    assert found(table(same, same)) == [("1.png", "duplicate", "warning")]
    leak = table(same | {"path": "train/a.png"}, same | {"path": "valid/b.png"})
    assert ("valid/b.png", "leak", "critical") in found(leak)
    assert related(leak)["leaks_to"].tolist() == ["", "train/a.png"]


def test_a_near_duplicate_of_a_validation_picture_is_named() -> None:
    near, far = "f" + "0" * 63, "f" * 64
    others = ({"path": f"train/{hash_}.png", "perceptual_hash": hash_} for hash_ in (near, far))
    facts = table({"path": "valid/a.png"}, *others)
    assert found(facts) == [(f"train/{near}.png", "near leak", "warning")]
    assert related(facts)["near_leak_to"].tolist() == ["", "valid/a.png", ""]


def test_critical_findings_come_first_and_every_rule_says_what_to_do() -> None:
    findings = check({"photos": table({"width": 150}), "products": table({"noise": 99.0})}, LIMITS)
    assert findings["severity"].tolist() == ["critical", "warning"]  # and not both for one rule
    assert all(rule.advice and rule.allowed for rule in rules(LIMITS))
    assert findings["advice"].str.len().min() > 5


def test_the_page_shows_what_was_found_and_escapes_names(tmp_path: Path) -> None:
    name = "<img src=x onerror=alert(1)>.png"
    write_png(tmp_path / name, picture(1, 60, 60))
    facts = pd.DataFrame([{"path": name, **asdict(measure(tmp_path / name))}])
    findings = check({"products": facts}, LIMITS)
    totals = summary({"products": facts}, findings, LIMITS)
    assert totals["sets"]["products"]["refused"] == [name]
    assert totals["sets"]["products"]["rules"]["min side, critical"] == 1
    assert verdict(totals) == "1 of 1 pictures must not be trained on; 0 more have warnings"
    page = write_page(tmp_path / "report", {"products": tmp_path}, totals, findings, LIMITS).read_text()
    assert "&lt;img src=x onerror=alert(1)&gt;.png" in page
    assert "<img src=x" not in page
    assert "at least 100 pixels on the shorter side: deliver it larger" in page
    assert 'src="data:image/webp;base64,' in page
    assert (tmp_path / "report" / "findings.csv").read_text().startswith("set,path,rule")
