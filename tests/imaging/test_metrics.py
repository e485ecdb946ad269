"""The scoring protocol, against hand-made cases, scikit-image and the published figures."""

import os
from pathlib import Path

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from loupe.imaging.metrics import luma, psnr, score, shave, ssim

BENCHMARKS = os.environ.get("LOUPE_BENCHMARKS")


def test_luma_spans_16_to_235() -> None:
    colours = np.array([[[0, 0, 0], [255, 255, 255], [255, 0, 0], [0, 255, 0], [0, 0, 255]]], np.uint8)
    np.testing.assert_allclose(luma(colours)[0], [16, 235, 81.481, 144.553, 40.966], atol=1e-9)


def test_one_gray_channel_is_its_own_luma() -> None:
    gray = np.arange(64, dtype=np.uint8).reshape(8, 8)
    np.testing.assert_array_equal(luma(gray), gray)


def test_psnr_of_a_known_error() -> None:
    a = np.full((20, 20, 3), 100, np.uint8)
    b = a.copy()
    b[...] = 105
    assert psnr(a, b) == pytest.approx(20 * np.log10(255 / 5))
    assert psnr(a, a) == float("inf")


def test_the_border_does_not_count() -> None:
    a = np.full((20, 24, 3), 50, np.uint8)
    b = a.copy()
    b[:2] = b[-2:] = 255
    b[:, :2] = b[:, -2:] = 255
    assert score(a, b, 2).psnr_y == float("inf")
    assert score(a, b, 1).psnr_y < 40
    assert shave(a, 2).shape == (16, 20, 3)


def test_ssim_equals_scikit_image() -> None:
    rng = np.random.default_rng(3)
    a = rng.uniform(0, 255, (40, 53))
    b = np.clip(a + rng.normal(0, 20, a.shape), 0, 255)
    _, full = structural_similarity(
        a, b, data_range=255, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True, win_size=11
    )
    assert ssim(a, b) == pytest.approx(full[5:-5, 5:-5].mean(), abs=1e-7)
    assert ssim(a, a) == 1


def test_ssim_is_undefined_where_no_window_fits() -> None:
    assert np.isnan(ssim(np.zeros((10, 40)), np.zeros((10, 40))))


def test_what_cannot_be_compared_is_refused() -> None:
    a = np.zeros((9, 9, 3), np.uint8)
    with pytest.raises(ValueError, match="ground truth"):
        score(a, a[:8], 2)
    with pytest.raises(ValueError, match="ground truth"):
        score(a, a.astype(np.float32), 2)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="too small to score"):
        score(a[:4], a[:4], 2)


@pytest.mark.skipif(not BENCHMARKS, reason="LOUPE_BENCHMARKS names no folder with Set5 and Set14")
@pytest.mark.parametrize(("dataset", "expected"), [("Set5", 33.67), ("Set14", 30.23)])
def test_bicubic_from_the_official_images(dataset: str, expected: float) -> None:
    from loupe.evaluation.methods import bicubic
    from loupe.evaluation.pairs import read_pairs
    from loupe.evaluation.run import evaluate

    folder = Path(str(BENCHMARKS)) / dataset
    pairs = read_pairs(folder / "HR", folder / "LR_bicubic" / "X2", None, 2, pytest.fail)
    report = evaluate(pairs, bicubic(2, "model"))
    scores = report.summary["sets"][dataset]
    assert scores["psnr_y"] == pytest.approx(expected, abs=0.005)
    assert scores["gain_db"] == 0


@pytest.mark.skipif(not BENCHMARKS, reason="LOUPE_BENCHMARKS names no folder with Set5 and Set14")
def test_the_rdn_authors_pictures_score_as_published() -> None:
    from loupe.evaluation.methods import finished
    from loupe.evaluation.pairs import read_pairs
    from loupe.evaluation.run import evaluate

    folder = Path(str(BENCHMARKS)) / "Set5"
    pairs = read_pairs(folder / "HR", None, folder / "published_RDN_x2", 2, pytest.fail)
    scores = evaluate(pairs, finished(Path("published"), 2)).summary["sets"]["Set5"]
    assert scores["n"] == 5
    assert scores["psnr_y"] == pytest.approx(38.24, abs=0.005)
    assert scores["ssim_y"] == pytest.approx(0.9614, abs=0.00005)
