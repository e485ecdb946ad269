"""Scores of whole sets, checked on pictures whose scores are known."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from tests.conftest import picture

from loupe.errors import InputError
from loupe.evaluation.methods import Method, bicubic
from loupe.evaluation.pairs import Pair
from loupe.evaluation.pictures import LARGEST, comparison, detailed_window
from loupe.evaluation.run import Outputs, evaluate
from loupe.evaluation.tables import slices_table, summary_table
from loupe.imaging.resize import Pixels, downscale, upscale


def pair(name: str, error: int, seed: int = 1, folder: str = "photos") -> Pair:
    """A gray pair whose finished picture is off by `error` everywhere."""
    hr = np.clip(picture(seed, 48, 64)[..., 0], 40, 200)
    return Pair(folder, name, hr, downscale(hr), (hr + error).astype(np.uint8))


def named(label: str) -> Method:
    """Bicubic enlargement under another name: for pairs that are finished."""
    return dataclasses.replace(bicubic(2, "model"), label=label)


def outputs(folder: Path) -> Outputs:
    return Outputs(folder / "evaluate.json", folder / "per_image.csv", folder / "report")


def test_means_gains_and_files(tmp_path: Path) -> None:
    pairs = [pair("a.png", 5), pair("deep/b.jpg", 10, 2), pair("c.png", 1, 3, "products")]
    report = evaluate(pairs, named("known"), outputs=outputs(tmp_path))
    photos, products = report.summary["sets"]["photos"], report.summary["sets"]["products"]
    expected = [20 * np.log10(255 / error) for error in (5, 10)]
    assert photos["n"] == 2
    assert photos["psnr_y"] == photos["psnr_rgb"] == pytest.approx(np.mean(expected))
    assert products["psnr_y"] == pytest.approx(20 * np.log10(255))
    assert photos["gain_db"] == pytest.approx(photos["psnr_y"] - photos["bicubic"]["psnr_y"])
    assert json.loads((tmp_path / "evaluate.json").read_text()) == report.summary
    rows = pd.read_csv(tmp_path / "per_image.csv")
    assert rows["image"].tolist() == ["a.png", "deep/b.jpg", "c.png"]
    assert rows["psnr_y"].tolist() == pytest.approx([*expected, 20 * np.log10(255)])
    found = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("comparisons/**/*.png"))
    assert found == [
        f"report/comparisons/{name}" for name in ("photos/a.png", "photos/deep/b.jpg.png", "products/c.png")
    ]
    table = summary_table(report.summary)
    assert f"{np.mean(expected):.2f}" in table
    assert "products" in table


def test_errors_are_told_apart_by_kind_of_pixel() -> None:
    """Flat paper with a step across: the network is off by 2 on one side, bicubic by nothing there."""
    hr = np.full((64, 64), 40, np.uint8)
    hr[:, 32:] = 200
    sr = hr.copy()
    sr[:, :16] += 2
    report = evaluate([Pair("s", "a", hr, downscale(hr), sr)], named("known"))
    scores = report.summary["sets"]["s"]
    kinds = scores["slices"]
    assert set(kinds) == {"flat", "text", "edge", "texture"}
    assert kinds["text"] == kinds["texture"] == {"share": 0.0}
    assert kinds["flat"]["share"] + kinds["edge"]["share"] == 1
    off = 14 * 60  # of the shaved 60 x 60
    flat = 60 * 60 * kinds["flat"]["share"]
    assert kinds["flat"]["psnr_y"] == pytest.approx(10 * np.log10(255**2 / (4 * off / flat)))
    assert kinds["edge"]["psnr_y"] == np.inf
    assert kinds["edge"]["bicubic_psnr_y"] < 40
    (row,) = report.rows
    assert row["flat_psnr_y"] == pytest.approx(kinds["flat"]["psnr_y"])
    assert np.isnan(row["text_psnr_y"])
    assert "edge" in slices_table(report.summary)
    assert "texture" not in slices_table(report.summary)


def test_pictures_are_known_by_ground_truth_and_input_and_not_by_name() -> None:
    hr = picture(1, 40, 48)
    lr = downscale(hr)
    names = [
        ("s", "a", hr, lr),
        ("t", "b", hr.copy(), lr),
        ("s", "c", hr, np.flip(lr)),
        ("s", "d", picture(2, 40, 48), lr),
    ]
    report = evaluate([Pair(*fields) for fields in names], named("known"))
    first, renamed, other_input, other = (row["sha256"] for row in report.rows)
    assert first == renamed
    assert len({first, other_input, other}) == 3


def test_the_worst_patch_of_every_method_is_in_the_rows() -> None:
    hr = np.clip(picture(1, 204, 204)[..., 0], 40, 200)
    sr = hr.copy()
    sr[10:20, 10:20] += 30
    (row,) = evaluate([Pair("s", "a", hr, downscale(hr), sr)], named("known")).rows
    assert row["worst_patch_psnr_y"] == pytest.approx(10 * np.log10(255**2 * 100**2 / (100 * 900)))
    assert row["worst_patch_psnr_y"] < row["psnr_y"]
    assert row["bicubic_worst_patch_psnr_y"] < row["bicubic_psnr_y"]


def test_intervals_need_two_pictures_and_hold_the_mean() -> None:
    three = [pair("a.png", 5), pair("b.png", 10, 2), pair("c.png", 7, 3)]
    report = evaluate(three, named("known"))
    scores = report.summary["sets"]["photos"]
    low, high = scores["interval_95"]["psnr_y"]
    assert 20 * np.log10(255 / 10) <= low < scores["psnr_y"] < high <= 20 * np.log10(255 / 5)
    assert f"{scores['interval_95']['gain_db'][0]:+.2f} to" in summary_table(report.summary)
    alone = evaluate(three[:1], named("known"))
    assert alone.summary["sets"]["photos"]["interval_95"]["gain_db"] is None


def test_consistency_is_that_of_the_downscaled_picture() -> None:
    hr = picture(1, 40, 48)
    lr = downscale(hr)
    report = evaluate(
        [Pair("s", "same", hr, lr, hr), Pair("s", "off", hr, lr, np.bitwise_xor(hr, np.uint8(1)))],
        named("known"),
    )
    same, off = report.rows
    assert same["consistency_db"] == np.inf
    assert 40 < off["consistency_db"] < 60


def test_threads_keep_the_order_of_pictures() -> None:
    many = [pair(f"{number}.png", 1 + number % 9, number) for number in range(12)]
    many[4] = Pair("photos", "4.png", many[4].hr, many[4].lr, many[4].hr[:-2])
    report = evaluate(many, named("known"))
    assert [row["image"] for row in report.rows] == [f"{number}.png" for number in range(12) if number != 4]
    assert len(report.failures) == 1
    assert report.failures[0].startswith("photos/4.png: cannot compare")


def test_bicubic_gains_nothing_over_itself() -> None:
    hr = picture(1, 40, 40)
    report = evaluate([Pair("s", "a", hr, downscale(hr))], named("bicubic"))
    scores = report.summary["sets"]["s"]
    assert scores["gain_db"] == 0
    assert scores["ssim_y"] == scores["bicubic"]["ssim_y"] < 1


def test_a_failing_picture_does_not_stop_the_others() -> None:
    def enlarge(pixels: Pixels) -> Pixels:
        if pixels[0, 0, 0] == 7:
            raise ValueError("broken")
        return upscale(pixels)

    good, bad = picture(1, 40, 40), np.full((40, 40, 3), 7, np.uint8)
    tiny = picture(2, 14, 40)  # 10 rows after the border: no SSIM window fits
    pairs = [Pair("s", name, hr, downscale(hr)) for name, hr in (("bad", bad), ("tiny", tiny), ("good", good))]
    report = evaluate(pairs, Method("model", "x", 2, enlarge))
    assert [row["image"] for row in report.rows] == ["good"]
    assert report.failures[0] == "s/bad: x: broken"
    assert report.failures[1].startswith("s/tiny: an image of 40 x 14 pixels is too small to score")


def test_infinite_scores_are_null_in_json(tmp_path: Path) -> None:
    hr = picture(1, 24, 24)
    pairs = [Pair("s", "a.png", hr, downscale(hr), hr)]
    report = evaluate(pairs, named("same"), outputs=outputs(tmp_path))
    assert report.rows[0]["psnr_y"] == float("inf")
    written = json.loads((tmp_path / "evaluate.json").read_text())["sets"]["s"]
    assert written["psnr_y"] is None
    assert written["ssim_y"] == 1
    assert not re.search("NaN|Infinity", (tmp_path / "evaluate.json").read_text())


def test_the_report_holds_every_version_of_a_picture(tmp_path: Path) -> None:
    hr = picture(1, 120, 100)
    made = Pair("<i>", "..%2f\n.png", hr, downscale(hr))
    champion = Method("champion", "itself", 2, lambda lr: hr)
    where = dataclasses.replace(outputs(tmp_path), own_range=True)
    report = evaluate([made], named("bicubic again"), [champion], where)
    assert report.failures == []
    folder = tmp_path / "report" / report.rows[0]["folder"]
    assert folder.relative_to(tmp_path).as_posix() == "report/pictures/0001"
    versions = {"hr": hr, "champion": hr, "sr": upscale(made.lr), "bicubic": upscale(made.lr), "lr": made.lr}
    for name, pixels in versions.items():
        np.testing.assert_array_equal(np.asarray(Image.open(folder / f"{name}.webp")), pixels)
    with Image.open(folder / "heat.png") as heat, Image.open(folder / "heat-own.png") as own:
        assert heat.size == (100, 120)
        assert own.height > 120  # the bar below
    worse = np.asarray(Image.open(folder / "difference.png").convert("RGB")).astype(int)
    assert (worse[..., 0] >= worse[..., 2]).all(), "never blue: nothing is better than the original"
    patches = pd.read_parquet(tmp_path / "report" / "patches.parquet")
    assert patches["psnr_y"].tolist() == pytest.approx([report.rows[0]["psnr_y"]], abs=1e-4)
    assert (tmp_path / "report" / "index.html").exists()


def test_nothing_scored_leaves_the_last_report_as_it_was(tmp_path: Path) -> None:
    where = outputs(tmp_path)
    evaluate([pair("a.png", 5)], named("known"), outputs=where)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    tiny = picture(1, 4, 4)
    with pytest.raises(InputError, match=r"s/tiny: an image of 4 x 4 pixels .*\nnothing could be scored"):
        evaluate([Pair("s", "tiny", tiny, downscale(tiny))], named("known"), outputs=where)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before


def test_a_report_needs_the_extra(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("loupe.evaluation.run.find_spec", lambda name: None)
    with pytest.raises(InputError, match="a report needs jinja2, matplotlib, pyarrow: pip install"):
        evaluate([pair("a.png", 5)], named("known"), outputs=outputs(tmp_path))
    assert evaluate([pair("a.png", 5)], named("known")).rows


def test_the_picture_shows_input_output_and_bicubic() -> None:
    lr = picture(1, 30, 200)
    sr, bicubic = np.full((60, 400, 3), 10, np.uint8), np.full((60, 400, 3), 99, np.uint8)
    canvas = np.asarray(comparison(lr, sr, bicubic, 2, ("Input", "Network\n30 dB", "Bicubic\n29 dB")))
    np.testing.assert_array_equal(canvas[12:72, 12:412], lr.repeat(2, axis=0).repeat(2, axis=1))
    np.testing.assert_array_equal(canvas[12:72, 424:824], sr)
    np.testing.assert_array_equal(canvas[12:72, 836:1236], bicubic)
    assert (canvas[80:, 424:824] < 100).any(), "the caption is drawn"


def test_large_pictures_show_their_most_detailed_window() -> None:
    image = np.full((1000, 1400, 3), 128, np.uint8)
    image[300:900, 700:1300] = picture(1, 600, 600)
    y, x = detailed_window(image, LARGEST)
    assert (y.stop - y.start, x.stop - x.start) == (LARGEST, LARGEST)
    assert 260 <= y.start <= 300
    assert 660 <= x.start <= 700
    lr = downscale(image)
    assert isinstance(comparison(lr, image, image, 2, ("a", "b", "c")), Image.Image)
    assert comparison(lr, image, image, 2, ("a", "b", "c")).width == 3 * LARGEST + 4 * 12
    assert detailed_window(np.zeros((1, 1, 3), np.uint8), 640) == (slice(0, 1), slice(0, 1))
