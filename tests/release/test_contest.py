"""Two small networks on a few pictures: scored, timed, remembered, and judged."""

import dataclasses
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tests.conftest import picture
from tests.models.test_onnx import doubling
from tests.release.test_gate import LIMITS, SOUND, failed

from loupe.errors import InputError
from loupe.evaluation.methods import bicubic, compared_with, stored
from loupe.evaluation.pairs import held_out, read_pairs
from loupe.evaluation.run import Outputs, evaluate
from loupe.imaging.files import read_image, write_png
from loupe.imaging.metrics import score
from loupe.imaging.resize import downscale
from loupe.models.weights import build_network, save_network
from loupe.patches.index import PatchIndex
from loupe.release.contest import contest
from loupe.release.gate import Contender, GateError, ImageScore, decide, decision_table

CONFIG = {"name": "rdn", "D": 1, "C": 1, "G": 4, "G0": 4, "scale": 2, "residual": "bicubic"}
SIZES = {"a": (64, 80), "b": (48, 52), "c": (70, 60), "d": (60, 90)}  # b is the smallest
FIGURES = [field.name for field in dataclasses.fields(ImageScore)][3:]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Pictures, an untrained network, the same with noise in its last layer or NaN, one of another scale, and ONNX."""
    folder = tmp_path_factory.mktemp("contest")
    for seed, (name, size) in enumerate(SIZES.items()):
        write_png(folder / "shots" / f"{name}.png", picture(seed, *size))
    torch.manual_seed(0)
    network = build_network(CONFIG)
    save_network(folder / "clean", network, CONFIG)
    torch.nn.init.normal_(network.output.weight, std=0.03)
    save_network(folder / "noisy", network, CONFIG)
    torch.nn.init.constant_(network.output.weight, torch.nan)
    save_network(folder / "nan", network, CONFIG)
    save_network(folder / "x3", build_network({**CONFIG, "scale": 3}), {**CONFIG, "scale": 3})
    doubling(folder / "twice.onnx")
    return folder


@pytest.fixture(scope="module")
def scored(place: Path) -> Path:
    """What `loupe evaluate --model clean --champion noisy --out scored` leaves."""
    folder = place / "scored"
    model = stored(place / "clean")
    outputs = Outputs(folder / "evaluate.json", folder / "per_image.csv", folder / "report")
    pairs = read_pairs(place / "shots", None, None, 2, pytest.fail)
    evaluate(pairs, model, compared_with(model, place / "noisy"), outputs)
    return folder


def assert_equal_scores(one: Contender, other: Contender) -> None:
    """Of the same model on the same pictures, as far as the digits in per_image.csv go."""
    assert (one.label, one.sha256) == (other.label, other.sha256)
    for ours, theirs in zip(one.images, other.images, strict=True):
        assert (ours.set, ours.name, ours.sha256) == (theirs.set, theirs.name, theirs.sha256)
        for figure in FIGURES:
            assert getattr(ours, figure) == pytest.approx(getattr(theirs, figure), rel=1e-5), figure


def test_the_better_of_two_networks_wins_and_the_other_does_not(place: Path) -> None:
    clean, noisy = contest([place / "shots"], place / "clean", place / "noisy")
    assert [image.name for image in clean.images] == ["a.png", "b.png", "c.png", "d.png"]
    assert clean.milliseconds and noisy.milliseconds
    limits = dataclasses.replace(LIMITS, max_latency_ratio=100.0)  # this machine may have other work
    won = decide(clean, noisy, limits, SOUND)
    assert won.promoted, decision_table(won)
    lost = decide(noisy, clean, limits, SOUND)
    assert {"gain", "SSIM", "shots: mean", "5th percentile image"} <= set(failed(lost))
    again = decide(clean, clean, limits, SOUND)
    assert failed(again) == ["gain"]
    for image in noisy.images:
        hr = read_image(place / "shots" / image.name).pixels
        known = score(hr, stored(place / "noisy").enlarge(downscale(hr)), 2)
        assert (image.psnr_y, image.ssim_y) == pytest.approx((known.psnr_y, known.ssim_y), abs=1e-6)
        assert sum(image.pixels) == (hr.shape[0] - 4) * (hr.shape[1] - 4)
        pooled = 10 * np.log10(255**2 * sum(image.pixels) / sum(image.errors))
        assert pooled == pytest.approx(known.psnr_y, abs=1e-3)


def test_a_first_champion_stands_against_bicubic_enlargement(place: Path) -> None:
    clean, opponent = contest([place / "shots"], place / "clean")
    assert (opponent.label, opponent.sha256) == ("bicubic", "")
    hr = read_image(place / "shots" / "a.png").pixels
    assert opponent.images[0].psnr_y == pytest.approx(score(hr, bicubic(2).enlarge(downscale(hr)), 2).psnr_y)
    decision = decide(clean, opponent, dataclasses.replace(LIMITS, min_gain_over_bicubic=2.0), SOUND)
    assert "gain" in failed(decision), "untrained, it is another bicubic enlargement, a little sharper"
    assert 0 < decision.gain_db < 2


def test_an_onnx_file_and_an_index(place: Path, make_index: Callable[..., PatchIndex], tmp_path: Path) -> None:
    index = make_index(train=1, valid=2, products=0)
    (folder,) = tmp_path.glob("index-*")
    twice, clean = contest([folder], place / "twice.onnx", place / "clean")
    assert (twice.label, clean.label) == ("twice", "RDN D1 C1 G4")
    assert [image.set for image in twice.images] == ["photos"] * 2
    expected = evaluate(held_out(index), stored(place / "twice.onnx")).rows
    assert [image.psnr_y for image in twice.images] == [row["psnr_y"] for row in expected]
    assert [image.sha256 for image in twice.images] == [image.sha256 for image in clean.images]
    with pytest.raises(GateError, match="made for scale 2, the model enlarges 3 times"):
        contest([folder], place / "x3")


def test_stored_scores_give_the_same_contest(place: Path, scored: Path) -> None:
    for ours, theirs in zip(
        contest([place / "shots"], place / "noisy", place / "clean", scored=[scored]),
        contest([place / "shots"], place / "noisy", place / "clean"),
        strict=True,
    ):
        assert_equal_scores(ours, theirs)


def changed_scores(scored: Path, folder: Path, row: str, column: str, by: float) -> Path:
    """A copy in which one figure is another."""
    folder.mkdir()
    shutil.copy(scored / "evaluate.json", folder)
    table = pd.read_csv(scored / "per_image.csv")
    table[column] += by * (table["image"] == row)
    table.to_csv(folder / "per_image.csv", index=False)
    return folder


def test_stored_scores_are_used_only_if_a_picture_scored_anew_agrees(place: Path, scored: Path, tmp_path: Path) -> None:
    fresh, _ = contest([place / "shots"], place / "clean")
    other = changed_scores(scored, tmp_path / "other", "a.png", "psnr_y", 1.0)
    believed, _ = contest([place / "shots"], place / "clean", scored=[other])
    assert believed.images[0].psnr_y == pytest.approx(fresh.images[0].psnr_y + 1), "networks did not run on it"
    stale = changed_scores(scored, tmp_path / "stale", "b.png", "edge_share", 0.01)
    assert_equal_scores(contest([place / "shots"], place / "clean", scored=[stale])[0], fresh)
    champions = changed_scores(scored, tmp_path / "champions", "a.png", "champion_psnr_y", 1.0)
    noisy, _ = contest([place / "shots"], place / "noisy", scored=[stale, champions])
    assert noisy.images[0].psnr_y == pytest.approx(contest([place / "shots"], place / "noisy")[0].images[0].psnr_y + 1)


def test_other_pictures_or_another_model_are_scored_again(place: Path, scored: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "shots", tmp_path / "shots")
    pixels = read_image(tmp_path / "shots" / "a.png").pixels
    write_png(tmp_path / "shots" / "a.png", np.flip(pixels))
    turned, _ = contest([tmp_path / "shots"], place / "clean", scored=[scored])
    assert_equal_scores(turned, contest([tmp_path / "shots"], place / "clean")[0])
    config = {**CONFIG, "residual": "nearest"}  # the same weights, another network
    save_network(tmp_path / "nearest", build_network(config), config)
    shutil.copy(place / "clean" / "model.safetensors", tmp_path / "nearest")
    nearest, _ = contest([place / "shots"], tmp_path / "nearest", scored=[scored])
    assert_equal_scores(nearest, contest([place / "shots"], tmp_path / "nearest")[0])
    assert nearest.images[0].psnr_y != contest([place / "shots"], place / "clean", scored=[scored])[0].images[0].psnr_y


def test_a_renamed_picture_keeps_its_score(place: Path, scored: Path, tmp_path: Path) -> None:
    for name in SIZES:
        write_png(tmp_path / "renamed" / f"{name}2.png", read_image(place / "shots" / f"{name}.png").pixels)
    other = changed_scores(scored, tmp_path / "other", "a.png", "psnr_y", 1.0)
    ours, _ = contest([tmp_path / "renamed"], place / "clean", scored=[other])
    assert (ours.images[0].set, ours.images[0].name) == ("renamed", "a2.png")
    assert ours.images[0].psnr_y == pytest.approx(contest([place / "shots"], place / "clean")[0].images[0].psnr_y + 1)


def test_all_pictures_or_none(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "shots", tmp_path / "shots")
    (tmp_path / "shots" / "torn.png").write_bytes((tmp_path / "shots" / "a.png").read_bytes()[:99])
    with pytest.raises(GateError, match=r"torn\.png: .*\na contest is over all pictures or none|torn\.png"):
        contest([tmp_path / "shots"], place / "clean")
    with pytest.raises(InputError, match="no numbers"):
        contest([place / "shots"], place / "nan", place / "clean")
    with pytest.raises(InputError, match=r"RDN D1 C1 G4 enlarges 3 times, RDN D1 C1 G4 2 times"):
        contest([place / "shots"], place / "clean", place / "x3")


def test_scores_that_cannot_be_read_are_named(place: Path, tmp_path: Path) -> None:
    with pytest.raises(GateError, match=r"no scores that can be read .*leave it out, or evaluate again"):
        contest([place / "shots"], place / "clean", scored=[tmp_path])
    (tmp_path / "evaluate.json").write_text("{")
    (tmp_path / "per_image.csv").write_text("set\n")
    with pytest.raises(GateError, match=r"no scores that can be read"):
        contest([place / "shots"], place / "clean", scored=[tmp_path])
