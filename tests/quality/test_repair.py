"""Pictures made smaller: what was repeated comes back exactly, and JPEG's grid goes."""

import io
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.conftest import fabric
from tests.quality.test_gate import GOOD, LIMITS

from loupe.imaging.facts import measure
from loupe.imaging.files import write_png
from loupe.imaging.resize import downscale
from loupe.quality.repair import needs_repair, repaired, repetition_error


@pytest.mark.parametrize("factor", [2, 3])
@pytest.mark.parametrize("gray", [False, True])
def test_repeated_pixels_come_back_exactly(tmp_path: Path, factor: int, gray: bool) -> None:
    original = fabric(1, 200, 220)
    original = original[..., 0] if gray else original
    enlarged = np.repeat(np.repeat(original, factor, axis=0), factor, axis=1)
    write_png(tmp_path / "a.png", enlarged)
    facts = measure(tmp_path / "a.png")
    assert needs_repair(facts, LIMITS)
    done = repaired(enlarged, facts, LIMITS)
    assert np.array_equal(done.pixels, original)
    assert done.change == f"reduced to 1/{factor}: its pixels were repeated (doubling 1.00)"
    assert repetition_error(enlarged, factor) == 0 < repetition_error(enlarged, 5 - factor)


def test_jpeg_is_halved_by_the_exact_filter(tmp_path: Path) -> None:
    stream = io.BytesIO()
    Image.fromarray(fabric(2, 300, 320)).save(stream, "JPEG", quality=60)
    (tmp_path / "a.jpg").write_bytes(stream.getvalue())
    facts, pixels = measure(tmp_path / "a.jpg"), np.asarray(Image.open(stream))
    assert needs_repair(facts, LIMITS)
    done = repaired(pixels, facts, LIMITS)
    assert np.array_equal(done.pixels, downscale(pixels, 2))
    assert "1/2: JPEG had" in done.change


@pytest.mark.parametrize(
    ("change", "needed"),
    [
        ({}, False),
        ({"doubling": 0.25, "blockiness": 1.5, "jpeg_quality": 80.0}, False),
        ({"doubling": 0.26}, True),
        ({"blockiness": 1.51}, True),
        ({"jpeg_quality": 79.0}, True),
        ({"doubling": float("nan"), "blockiness": float("nan")}, False),
    ],
)
def test_limits_decide(change: dict[str, float], needed: bool) -> None:
    facts = replace(GOOD, **change)  # type: ignore[arg-type]
    assert needs_repair(facts, LIMITS) == needed


def test_without_limits_nothing_is_repaired() -> None:
    never = type(LIMITS.max_noise)(None, None)
    limits = replace(LIMITS, max_doubling=never, max_blockiness=never, min_jpeg_quality=never)
    assert not needs_repair(replace(GOOD, doubling=1.0, blockiness=9.0, jpeg_quality=1.0), limits)
