"""A real, short training run: it learns, it repeats itself exactly, and it says when it diverges."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import picture

from loupe.errors import InputError
from loupe.imaging.files import write_png
from loupe.imaging.metrics import score
from loupe.models.inference import super_resolve
from loupe.models.rdn import RDN
from loupe.patches.batches import Strategy
from loupe.patches.build import Source, build_index
from loupe.patches.index import PatchIndex
from loupe.training.ema import AveragedNetwork
from loupe.training.run import WINDOW, Recipe, centre, prepare, train, validate

MakeIndex = Callable[..., PatchIndex]
RECIPE = Recipe(
    seed=1, steps=60, batch=4, product_share=0.3, loss="l1", lr=0.004, warmup=0.1, ema=0.9, validate_every=25
)
CPU = torch.device("cpu")


def run(index: PatchIndex, folder: Path, recipe: Recipe = RECIPE) -> tuple[RDN, pd.DataFrame]:
    prepare(recipe.seed)
    network = RDN(D=1, C=2, G=8, G0=8, residual="bicubic")
    trained = train(network, index, recipe, folder / "curves.csv", folder / "runs", CPU)
    return trained, pd.read_csv(folder / "curves.csv")


@pytest.mark.parametrize("loss", ["l1", "mse"])
def test_it_learns_and_records_it(make_index: MakeIndex, tmp_path: Path, loss: str) -> None:
    recipe = dataclasses.replace(RECIPE, loss=loss)
    network, curves = run(make_index(), tmp_path, recipe)
    assert curves["step"].tolist() == [25, 50, 60]
    assert curves["valid_psnr_y"].iloc[-1] > curves["valid_psnr_y"].iloc[0] > 20
    assert curves["train_loss"].iloc[-1] < curves["train_loss"].iloc[0]
    assert not network.training
    board = EventAccumulator(str(tmp_path / "runs"))
    board.Reload()
    recorded = [event.value for event in board.Scalars("valid_psnr_y")]
    assert recorded == pytest.approx(curves["valid_psnr_y"].tolist(), rel=1e-4)


def test_the_same_recipe_gives_the_same_bytes(make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index()
    outcomes = []
    for name in ("a", "b"):
        network, _ = run(index, tmp_path / name)
        weights = {key: tensor.numpy().tobytes() for key, tensor in network.state_dict().items()}
        outcomes.append((weights, (tmp_path / name / "curves.csv").read_bytes()))
    assert outcomes[0] == outcomes[1]
    other, _ = run(index, tmp_path / "c", dataclasses.replace(RECIPE, seed=2))
    assert any(t.numpy().tobytes() != outcomes[0][0][key] for key, t in other.state_dict().items())


def test_divergence_ends_the_run_with_advice(make_index: MakeIndex, tmp_path: Path) -> None:
    with pytest.raises(FloatingPointError, match=r"step \d+; lower train.lr \(now 1e\+30\)"):
        run(make_index(), tmp_path, dataclasses.replace(RECIPE, lr=1e30, warmup=0.0, loss="mse"))
    assert not (tmp_path / "curves.csv").exists()


def test_validation_scores_the_averaged_network_by_the_protocol(make_index: MakeIndex) -> None:
    index = make_index()
    network = RDN(D=1, C=1, G=4, G0=4, residual="bicubic").eval()
    window = centre(index, 3)
    loss, valid_psnr = validate(network, [window], "mse", CPU, 2)
    lr, hr = window
    sr = super_resolve(network, lr)
    assert valid_psnr == score(hr, sr, 2).psnr_y
    assert loss == pytest.approx(np.mean((hr - sr.astype(float)) ** 2) / 255**2, rel=0.02)  # sr is rounded


def test_the_window_is_the_aligned_centre(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index()
    lr, hr = centre(index, 0)
    assert max(lr.shape[:2]) <= WINDOW
    np.testing.assert_array_equal(hr, index.hr(0))
    monkeypatch.setattr("loupe.training.run.WINDOW", 12)
    lr, hr = centre(index, 0)
    np.testing.assert_array_equal(lr, index.lr(0)[12:24, 16:28])
    np.testing.assert_array_equal(hr, index.hr(0)[24:48, 32:56])


def test_the_average_follows_and_lags() -> None:
    network = RDN(D=1, C=1, G=4, G0=4)
    averaged = AveragedNetwork(network, decay=0.5)
    with torch.no_grad():
        network.output.bias.fill_(1.0)  # type: ignore[union-attr]
        averaged.network.output.bias.fill_(0.0)  # type: ignore[union-attr]
    averaged.update(step=1000)
    assert averaged.network.output.bias.tolist() == pytest.approx([0.5] * 3)  # type: ignore[union-attr]
    averaged.update(step=0)  # early: a tenth of the past is kept
    assert averaged.network.output.bias.tolist() == pytest.approx([0.95] * 3)  # type: ignore[union-attr]
    assert not any(p.requires_grad for p in averaged.network.parameters())


def test_machine_facts_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.setenv("LOUPE_THREADS", "1")
    assert prepare(0) == CPU
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    monkeypatch.setenv("LOUPE_THREADS", "many")
    with pytest.raises(InputError, match="LOUPE_THREADS=many"):
        prepare(0)
    monkeypatch.delenv("LOUPE_THREADS")
    monkeypatch.setenv("LOUPE_DEVICE", "abacus")
    with pytest.raises(InputError, match=r"LOUPE_DEVICE=abacus: .*set it to cpu or cuda"):
        prepare(0)


def test_products_on_white_train_with_difficulty_weighting(tmp_path: Path) -> None:
    """Mostly flat white, as packshots are: hard filtering of easy patches is known to break such training."""
    sources = []
    for number in range(5):
        shot = np.full((120, 120, 3), 255, np.uint8)
        shot[40:80, 30:90] = picture(number, 40, 60)
        write_png(tmp_path / f"{number}.png", shot)
        split = "valid" if number == 4 else "train"
        sources.append(Source(tmp_path / f"{number}.png", f"{number}.png", "products", split))
    (tmp_path / "index").mkdir()
    build_index(sources, tmp_path / "index", scale=2, patch=16, valid_share=0.0)
    index = PatchIndex(tmp_path / "index")
    assert (index.patches["flat"] == 1).mean() > 0.3
    prepare(0)
    strategy = Strategy("pool", images=2, per_image=4, difficulty=0.95)
    network = RDN(D=1, C=2, G=8, G0=8, residual="bicubic")
    network = train(network, index, RECIPE, tmp_path / "curves.csv", tmp_path / "runs", CPU, strategy)
    curves = pd.read_csv(tmp_path / "curves.csv")
    assert curves.notna().all().all()
    assert curves["valid_loss"].is_monotonic_decreasing
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())
