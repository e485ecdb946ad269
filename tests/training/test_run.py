"""Real, short training runs: they learn, repeat themselves exactly, and survive what ends them."""

import dataclasses
import json
import math
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from lightning.fabric import Fabric
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tests.conftest import picture

from loupe.errors import InputError
from loupe.imaging.files import write_png
from loupe.imaging.metrics import score
from loupe.models.inference import super_resolve
from loupe.models.rdn import RDN
from loupe.models.weights import build_network, save_network
from loupe.patches.batches import PatchBatches, Strategy
from loupe.patches.build import Source, build_index
from loupe.patches.index import PatchIndex
from loupe.patches.resident import pool_bytes
from loupe.training.guard import DivergedError
from loupe.training.losses import LOSSES
from loupe.training.run import COMPILE_MODES, Ahead, Recipe, feed, machine, part_size, prepare, train
from loupe.training.validation import CROPS, GAP, crops, validate

MakeIndex = Callable[..., PatchIndex]
CONFIG = {"name": "rdn", "D": 1, "C": 2, "G": 8, "G0": 8, "scale": 2, "residual": "bicubic"}
RECIPE = Recipe(
    seed=1,
    init=None,
    steps=60,
    batch=4,
    product_share=0.3,
    loss="l1",
    optimizer="adam",
    lr=0.004,
    beta2=0.99,
    warmup=0.1,
    schedule="cosine",
    halve_every=1,
    clip=0.0,
    ema=0.9,
    validate_every=25,
    patience=0,
)


@pytest.fixture(scope="module")
def fabric() -> Fabric:
    return prepare()


def near(fabric: Fabric) -> float:
    """By how much losses may differ where the order of sums does."""
    return 1e-4 if fabric.device.type == "cpu" else 5e-3  # bfloat16


def run(
    fabric: Fabric,
    index: PatchIndex,
    folder: Path,
    recipe: Recipe = RECIPE,
    config: dict[str, Any] = CONFIG,
    **options: Any,
) -> tuple[RDN, pd.DataFrame]:
    curves = folder / "curves.csv"
    trained = train(fabric, config, index, recipe, curves=curves, runs=folder / "runs", **options)
    return trained, pd.read_csv(curves)


def bytes_of(network: RDN) -> dict[str, bytes]:
    return {key: tensor.numpy().tobytes() for key, tensor in network.state_dict().items()}


@pytest.mark.parametrize(
    ("loss", "optimizer"), [("l1", "adam"), ("mse", "adam"), ("charbonnier", "adam"), ("l1", "muon")]
)
def test_it_learns_and_records_it(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, loss: str, optimizer: str
) -> None:
    recipe = dataclasses.replace(RECIPE, loss=loss, optimizer=optimizer)
    network, curves = run(fabric, make_index(), tmp_path, recipe)
    assert curves["step"].tolist() == [25, 50, 60]
    assert curves["valid_psnr_y"].iloc[-1] > curves["valid_psnr_y"].iloc[0] > 20
    assert curves["train_loss"].iloc[-1] < curves["train_loss"].iloc[0]
    assert (curves["gradient_norm"] > 0).all()
    assert (curves["skipped"] == 0).all()
    assert not network.training
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("rdn-D1-C2-G8-")
    assert not list(folder.glob("*.pt"))  # done: nothing to go on from
    board = EventAccumulator(str(folder), size_guidance={"images": 0})
    board.Reload()
    for tag, column in (("loss/train", "train_loss"), ("loss/valid", "valid_loss"), ("PSNR-Y/valid", "valid_psnr_y")):
        assert [event.value for event in board.Scalars(tag)] == pytest.approx(curves[column].tolist(), rel=1e-4)
    assert {"PSNR-Y/train", "learning rate", "gradient norm", "patches a second"} <= set(board.Tags()["scalars"])
    assert board.Tags()["images"] == ["bicubic, network, original/photos/3.png"]
    assert len(board.Images("bicubic, network, original/photos/3.png")) == 3


def test_the_same_recipe_gives_the_same_bytes(fabric: Fabric, make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index()
    outcomes = []
    for name in ("a", "b"):
        network, _ = run(fabric, index, tmp_path / name)
        outcomes.append((bytes_of(network), (tmp_path / name / "curves.csv").read_bytes()))
    assert outcomes[0] == outcomes[1]
    other, _ = run(fabric, index, tmp_path / "c", dataclasses.replace(RECIPE, seed=2))
    assert bytes_of(other) != outcomes[0][0]


def test_muon_moves_the_kernels_between_hidden_layers_and_adam_the_rest(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path
) -> None:
    index = make_index()
    start = build_network(CONFIG)
    once = dataclasses.replace(RECIPE, init=str(tmp_path / "model"), steps=1, warmup=0.0, ema=0.0, lr=0.01)
    torch.nn.init.normal_(start.output.weight, std=0.1)  # at zero no gradient comes through
    save_network(tmp_path / "model", start, CONFIG)
    by_adam, _ = run(fabric, index, tmp_path / "adam", once)
    by_muon, _ = run(fabric, index, tmp_path / "muon", dataclasses.replace(once, optimizer="muon"))
    for name, before in start.state_dict().items():
        adams, muons = (network.state_dict()[name] - before for network in (by_adam, by_muon))
        if before.ndim == 4 and name not in ("shallow_1.weight", "output.weight"):
            assert muons.any() and not torch.equal(muons, adams)
        else:
            assert torch.equal(muons, adams)


def test_the_best_validation_is_kept(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A rate that rises to ruin: the last weights are not the best."""
    monkeypatch.setattr("loupe.training.run.rounded", dict)  # the curves are of the weights before
    recipe = dataclasses.replace(RECIPE, lr=0.019, warmup=0.95, ema=0.0, validate_every=5, loss="mse")
    index = make_index()
    network, curves = run(fabric, index, tmp_path, recipe)
    scores = curves["valid_psnr_y"].to_list()
    assert max(scores) > scores[-1]
    ((_, psnr_y),) = validate(network, index, [3], LOSSES["mse"])
    assert psnr_y == pytest.approx(max(scores), abs=near(fabric))


def test_it_stops_early_when_the_validation_loss_has_converged(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = dataclasses.replace(RECIPE, lr=0.03, warmup=0.95, ema=0.0, validate_every=5, patience=2, loss="mse")
    _, curves = run(fabric, make_index(), tmp_path, recipe)
    assert curves["step"].iloc[-1] < 60
    assert (curves["valid_loss"].iloc[-2:] >= curves["valid_loss"].min()).all()
    assert "stopped early: the validation loss has not fallen for 2 validations" in capsys.readouterr().out


def test_checkpoints_stay_until_the_network_is_kept(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOUPE_CHECKPOINT_SECONDS", "0")
    index = make_index()

    def killed(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(fabric, index, tmp_path, keep=killed)
    monkeypatch.setattr("loupe.training.run.TrainingRun.step", killed)
    monkeypatch.setattr("loupe.training.run.machine", lambda device: "an abacus")
    kept: list[tuple[RDN, str]] = []
    trained, _ = run(fabric, index, tmp_path, keep=lambda *pair: kept.append(pair))
    assert kept == [(trained, f"{machine(fabric.device)}; an abacus")], "it says where it went on, too"
    with pytest.raises(KeyboardInterrupt):
        run(fabric, index, tmp_path)  # nothing is left to go on from


def test_going_on_after_an_early_stop_ends_at_once(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Killed between the last checkpoint, made after the early stop, and the end."""
    monkeypatch.setenv("LOUPE_CHECKPOINT_SECONDS", "0")
    recipe = dataclasses.replace(RECIPE, lr=0.03, warmup=0.95, ema=0.0, validate_every=5, patience=2, loss="mse")
    index = make_index()
    whole, curves = run(fabric, index, tmp_path / "whole", recipe)

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("loupe.training.run.write_curves", killed)
        with pytest.raises(KeyboardInterrupt):
            run(fabric, index, tmp_path / "resumed", recipe)
    with monkeypatch.context() as patch:
        patch.setattr("loupe.training.run.TrainingRun.step", killed)
        resumed, again = run(fabric, index, tmp_path / "resumed", recipe)
    assert bytes_of(resumed) == bytes_of(whole)
    pd.testing.assert_frame_equal(again, curves)


def test_divergence_ends_the_run_with_advice(fabric: Fabric, make_index: MakeIndex, tmp_path: Path) -> None:
    with pytest.raises(DivergedError, match=r"diverged: .* at step \d+ of 60. Lower train.lr \(now 1e\+30\)"):
        run(fabric, make_index(), tmp_path, dataclasses.replace(RECIPE, lr=1e30, warmup=0.0, loss="mse"))
    assert not (tmp_path / "curves.csv").exists()


def test_a_bad_step_is_skipped_and_counted(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = 0

    def sometimes_nan(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        nonlocal calls
        calls += 1
        return (prediction - target).abs().mean() * (math.nan if calls in (5, 6, 30) else 1)

    monkeypatch.setitem(LOSSES, "l1", sometimes_nan)
    network, curves = run(fabric, make_index(), tmp_path)
    assert curves["skipped"].iloc[-1] == 3
    assert curves.notna().all().all()
    assert all(torch.isfinite(tensor).all() for tensor in network.state_dict().values())


def test_clipping_shortens_gradients(fabric: Fabric, make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index()
    free, curves = run(fabric, index, tmp_path / "free")
    clipped, _ = run(fabric, index, tmp_path / "clipped", dataclasses.replace(RECIPE, clip=1e-3))
    loose, _ = run(fabric, index, tmp_path / "loose", dataclasses.replace(RECIPE, clip=1e6))
    assert curves["gradient_norm"].min() > 1e-3
    assert bytes_of(clipped) != bytes_of(free) == bytes_of(loose)


def test_parts_of_a_batch_give_the_same_training(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index()
    whole, curves = run(fabric, index, tmp_path / "whole")
    monkeypatch.setenv("LOUPE_PART", "3")  # parts of unequal size
    parts, of_parts = run(fabric, index, tmp_path / "parts")
    np.testing.assert_allclose(of_parts["train_loss"], curves["train_loss"], rtol=near(fabric))
    torch.manual_seed(RECIPE.seed)
    start = build_network(CONFIG).state_dict()
    for name, tensor in whole.state_dict().items():
        torch.testing.assert_close(parts.state_dict()[name], tensor, rtol=0.02, atol=20 * near(fabric))
        apart, moved = (parts.state_dict()[name] - tensor).norm(), (tensor - start[name]).norm()
        assert apart < 0.1 * moved + 1e-3, name


def test_the_plain_path_gives_the_same_training(fabric: Fabric, make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index()
    _, ours = run(fabric, index, tmp_path / "ours")
    _, plain = run(fabric, index, tmp_path / "plain", plain=True)
    np.testing.assert_allclose(ours["train_loss"], plain["train_loss"], rtol=near(fabric))


@pytest.mark.skipif(shutil.which("g++") is None, reason="on a CPU torch.compile needs a C++ compiler")
def test_compiled_training_gives_the_same_losses(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index()
    # mse: where flat pixels are met exactly, the slope of l1 hangs on the last bit
    recipe = dataclasses.replace(RECIPE, steps=6, validate_every=2, loss="mse")
    trained, eager = run(fabric, index, tmp_path / "eager", recipe)
    for mode in COMPILE_MODES[: 1 if fabric.device.type == "cpu" else 2]:
        monkeypatch.setenv("LOUPE_COMPILE", mode)
        compiled, found = run(fabric, index, tmp_path / mode, recipe)
        np.testing.assert_allclose(found["train_loss"], eager["train_loss"], rtol=near(fabric))
        assert compiled.state_dict().keys() == trained.state_dict().keys()  # no wrapper's prefix
    monkeypatch.setenv("LOUPE_COMPILE", "fast")
    with pytest.raises(InputError, match=r"LOUPE_COMPILE=fast: set it to off or one of default, reduce-overhead"):
        run(fabric, index, tmp_path / "compiled", recipe)


def test_a_cpu_computes_in_bfloat16_where_it_is_asked_to(
    make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    index = make_index()
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.setenv("LOUPE_PRECISION", "32-true")
    _, whole = run(prepare(), index, tmp_path / "whole")
    assert "bfloat16" not in machine(torch.device("cpu"))
    monkeypatch.setenv("LOUPE_PRECISION", "bf16-mixed")
    trained, half = run(prepare(), index, tmp_path / "half")
    assert machine(torch.device("cpu")).endswith(" and bfloat16")
    assert (half["train_loss"] != whole["train_loss"]).any()
    np.testing.assert_allclose(half["train_loss"], whole["train_loss"], rtol=2e-2)
    np.testing.assert_allclose(half["valid_psnr_y"], whole["valid_psnr_y"], atol=0.2)
    assert {tensor.dtype for tensor in trained.state_dict().values()} == {torch.float32}
    monkeypatch.setenv("LOUPE_PRECISION", "half")
    with pytest.raises(
        InputError, match=r"LOUPE_PRECISION=half: set it to one of 32-true, bf16-mixed, or leave it out"
    ):
        prepare()


def test_a_gpu_is_fed_ahead_or_from_its_own_memory(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    batches = PatchBatches(make_index(), 4, 0, 0.5)
    ahead = Ahead(batches)
    for step in (0, 1, 2, 7, 3):
        for ours, theirs in zip(ahead.batch_at(step), batches.batch_at(step), strict=True):
            np.testing.assert_array_equal(ours, theirs)
    gpu, files = torch.device("cuda"), Strategy("random")
    assert feed(batches, Strategy(), torch.device("cpu")) is batches
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (pool_bytes(batches.index), 10**12))
    assert isinstance(feed(batches, Strategy(), gpu), Ahead)  # half of the free memory is the network's
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda device: (10**12, 10**12))
    assert isinstance(feed(batches, files, gpu), Ahead)


def test_running_out_of_memory_says_what_to_lower(
    fabric: Fabric, make_index: MakeIndex, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def greedy(prediction: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        return torch.empty(2**60)

    monkeypatch.setitem(LOSSES, "l1", greedy)
    index = make_index()
    with pytest.raises(InputError, match=r"out of memory with 4 of the 4 patches .* set LOUPE_PART=2 \(now 4\)"):
        run(fabric, index, tmp_path)
    monkeypatch.setenv("LOUPE_PART", "1")
    with pytest.raises(InputError, match=r"lower patches.size \(now 16\) to 8"):
        run(fabric, index, tmp_path)


def test_fine_tuning_starts_from_the_given_network(fabric: Fabric, make_index: MakeIndex, tmp_path: Path) -> None:
    index = make_index()
    champion, before = run(fabric, index, tmp_path / "champion")
    save_network(tmp_path / "model", champion, CONFIG)
    recipe = dataclasses.replace(RECIPE, init=str(tmp_path / "model"), lr=1e-5, steps=5, validate_every=1)
    _, curves = run(fabric, index, tmp_path / "tuned", recipe)
    assert curves["valid_psnr_y"].iloc[0] == pytest.approx(before["valid_psnr_y"].max(), abs=0.05)
    deeper = {**CONFIG, "D": 3}
    _, curves = run(fabric, index, tmp_path / "deeper", recipe, config=deeper)
    assert curves["valid_psnr_y"].iloc[0] == pytest.approx(before["valid_psnr_y"].max(), abs=0.05)
    save_network(tmp_path / "model", build_network({**CONFIG, "D": 2}), {**CONFIG, "D": 2})
    with pytest.raises(InputError, match=r"train.init = .*model: another network: D 2 \(here 1\); set `model`"):
        run(fabric, index, tmp_path / "tuned", recipe)
    with pytest.raises(InputError, match="no model here"):
        run(fabric, index, tmp_path / "tuned", dataclasses.replace(recipe, init=str(tmp_path / "nothing")))


def test_validation_scores_whole_pictures_by_the_protocol(make_index: MakeIndex) -> None:
    index = make_index()
    network = RDN(D=1, C=1, G=4, G0=4, residual="bicubic").eval()
    ((loss, psnr_y),) = validate(network, index, [3], LOSSES["mse"])
    sr = super_resolve(network, index.lr(3))
    assert psnr_y == pytest.approx(score(index.hr(3), sr, 2).psnr_y, abs=1e-6)
    assert loss == pytest.approx(np.mean((index.hr(3) - sr.astype(float)) ** 2) / 255**2, rel=0.02)  # sr is rounded
    index.images[3] = dataclasses.replace(index.images[3], channels=1)
    gray = super_resolve(network, np.ascontiguousarray(index.lr(3)[..., 0]))
    assert gray.ndim == 2
    ((_, psnr_y),) = validate(network, index, [3], LOSSES["mse"])
    assert psnr_y != pytest.approx(score(index.hr(3), sr, 2).psnr_y, abs=1e-3)


def test_crops_are_aligned_centres(make_index: MakeIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    index = make_index(valid=CROPS + 2)
    monkeypatch.setattr("loupe.training.validation.CROP", 12)
    network = RDN(D=1, C=1, G=4, G0=4, residual="bicubic").eval()
    pictures = crops(network, index)
    assert len(pictures) == CROPS
    first = pictures["photos/3.png"]
    assert first.shape == (24, 72 + 2 * GAP, 3)
    assert (first[:, 24 : 24 + GAP] == 255).all()
    np.testing.assert_array_equal(first[:, -24:], index.hr(3)[24:48, 32:56])


def test_machine_facts_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    threads = torch.get_num_threads()
    monkeypatch.setenv("LOUPE_DEVICE", "cpu")
    monkeypatch.setenv("LOUPE_THREADS", "1")
    assert prepare().device == torch.device("cpu")
    assert torch.get_num_threads() == 1
    torch.set_num_threads(threads)
    monkeypatch.setenv("LOUPE_THREADS", "many")
    with pytest.raises(InputError, match="LOUPE_THREADS=many"):
        prepare()
    monkeypatch.delenv("LOUPE_THREADS")
    monkeypatch.setenv("LOUPE_DEVICE", "abacus")
    with pytest.raises(InputError, match=r"LOUPE_DEVICE=abacus: .*set it to cpu or cuda"):
        prepare()


def test_products_on_white_train_with_difficulty_weighting(fabric: Fabric, tmp_path: Path) -> None:
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
    strategy = Strategy("pool", images=2, per_image=4, difficulty=0.95)
    network, curves = run(fabric, index, tmp_path, strategy=strategy)
    assert curves.notna().all().all()
    assert curves["valid_loss"].is_monotonic_decreasing
    assert all(torch.isfinite(parameter).all() for parameter in network.parameters())


# Whole processes, for what ends them.

SCRIPT = """
import json, sys
from pathlib import Path
from loupe.models.weights import save_network
from loupe.patches.index import PatchIndex
from loupe.stages.running import stage
from loupe.training.run import Recipe, prepare, train

@stage
def main():
    index, folder = map(Path, sys.argv[1:3])
    config, recipe = map(json.loads, sys.argv[3:])
    fabric = prepare()
    curves, runs = folder / "curves.csv", folder / "runs"
    network = train(fabric, config, PatchIndex(index), Recipe(**recipe), curves=curves, runs=runs)
    if fabric.is_global_zero:
        save_network(folder / "model", network, config)

main()
"""


class Training:
    """A training run in a process of its own."""

    def __init__(self, index: Path, folder: Path, recipe: Recipe, *launcher: str, **environment: str) -> None:
        self.folder = folder
        folder.mkdir(exist_ok=True)
        (folder / "train.py").write_text(SCRIPT)
        arguments = [str(folder / "train.py"), str(index), str(folder)]
        self.command = [
            sys.executable,
            *launcher,
            *arguments,
            json.dumps(CONFIG),
            json.dumps(dataclasses.asdict(recipe)),
        ]
        self.environment = os.environ | {"LOUPE_CHECKPOINT_SECONDS": "0", "LOUPE_THREADS": "1"} | environment

    def start(self) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self.command, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )

    def finish(self) -> str:
        with self.start() as process:
            output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output
        return output

    def checkpoints(self) -> list[Path]:
        return sorted(self.folder.glob("runs/*/checkpoint-*.pt"))

    def wait_for_step(self, process: subprocess.Popen[str], step: int) -> None:
        deadline = time.monotonic() + 120
        while not any(int(path.stem.split("-")[1]) >= step for path in self.checkpoints()):
            assert process.poll() is None, process.communicate()[0]
            assert time.monotonic() < deadline
            time.sleep(0.01)

    def outcome(self) -> tuple[bytes, bytes]:
        return (self.folder / "model/model.safetensors").read_bytes(), (self.folder / "curves.csv").read_bytes()


def folder_of(make_index: MakeIndex, tmp_path: Path) -> Path:
    make_index()
    return tmp_path / "index-2-16-computed"


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
def test_killed_at_any_moment_it_ends_in_the_same_bytes(make_index: MakeIndex, tmp_path: Path, optimizer: str) -> None:
    index = folder_of(make_index, tmp_path)
    recipe = dataclasses.replace(RECIPE, optimizer=optimizer, steps=300, validate_every=100)
    whole = Training(index, tmp_path / "whole", recipe)
    whole.finish()
    killed = Training(index, tmp_path / "killed", recipe)
    for step in (40, 130, 210):
        with killed.start() as process:
            killed.wait_for_step(process, step)
            process.kill()
            output = process.communicate()[0]
        assert process.returncode == -signal.SIGKILL, output
    latest = killed.checkpoints()[-1]
    latest.write_bytes(latest.read_bytes()[:1000])  # as a file system may leave it after a power cut
    output = killed.finish()
    assert f"{latest.name}: unreadable, and left aside" in output
    (step,) = map(int, re.findall(r"going on from step (\d+) of 300", output))
    assert step >= 200
    assert killed.outcome() == whole.outcome()


def test_sigterm_writes_a_checkpoint_and_ends_at_once(make_index: MakeIndex, tmp_path: Path) -> None:
    index = folder_of(make_index, tmp_path)
    recipe = dataclasses.replace(RECIPE, steps=100_000, validate_every=50)
    training = Training(index, tmp_path / "run", recipe)
    with training.start() as process:
        training.wait_for_step(process, 60)
        training_started = time.monotonic()
        process.terminate()
        output = process.communicate(timeout=30)[0]
    assert time.monotonic() - training_started < 10
    assert process.returncode == 128 + signal.SIGTERM
    (step,) = re.findall(r"stopped at step (\d+); start again to go on from there", output)
    assert training.checkpoints()[-1].name == f"checkpoint-{int(step):08}.pt"


def test_a_full_disk_is_said_and_loses_nothing(make_index: MakeIndex, tmp_path: Path) -> None:
    index = folder_of(make_index, tmp_path)
    training = Training(index, tmp_path / "run", RECIPE)
    limit = (
        "import resource, runpy, sys; resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000)); sys.argv.pop(0); "
    )
    training.command[1:1] = ["-c", limit + "runpy.run_path(sys.argv[0])"]
    with training.start() as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert re.search(r"error: .*checkpoint-0+1.pt: cannot write a checkpoint of 0 MB \(File too large\); free", output)
    assert not training.checkpoints()
    assert not list(training.folder.rglob("*.part"))


@pytest.mark.parametrize("launcher", ["torchrun", "LOUPE_DEVICES"])
def test_two_processes_train_as_one(make_index: MakeIndex, tmp_path: Path, launcher: str) -> None:
    index = folder_of(make_index, tmp_path)
    alone = Training(index, tmp_path / "alone", RECIPE)
    alone.finish()
    if launcher == "torchrun":
        torchrun = ("-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone")
        shared = Training(index, tmp_path / "shared", RECIPE, *torchrun)
    else:
        shared = Training(index, tmp_path / "shared", RECIPE, LOUPE_DEVICES="2")
    shared.finish()
    one, two = (pd.read_csv(training.folder / "curves.csv") for training in (alone, shared))
    for column in ("train_loss", "valid_loss"):
        np.testing.assert_allclose(two[column], one[column], atol=1e-5)
    assert two["step"].tolist() == one["step"].tolist()
    assert len(list((tmp_path / "shared" / "runs").rglob("events.out.tfevents.*"))) == 1  # rank 0 alone writes


@pytest.mark.parametrize("told", ["first", "second"])
def test_two_processes_stop_after_the_same_step(make_index: MakeIndex, tmp_path: Path, told: str) -> None:
    index = folder_of(make_index, tmp_path)
    recipe = dataclasses.replace(RECIPE, steps=100_000, validate_every=50)
    seldom = {"LOUPE_CHECKPOINT_SECONDS": "2"}  # so that the last one is not there anyway
    training = Training(index, tmp_path / "run", recipe, LOUPE_DEVICES="2", **seldom)
    with training.start() as process:
        training.wait_for_step(process, 1)
        (second,) = psutil.Process(process.pid).children()
        (process if told == "first" else second).terminate()
        output = process.communicate(timeout=60)[0]
    assert process.returncode == 128 + signal.SIGTERM, output
    (step,) = re.findall(r"stopped at step (\d+); start again to go on from there", output)
    assert training.checkpoints()[-1].name == f"checkpoint-{int(step):08}.pt"


def test_a_batch_that_cannot_be_shared_is_refused(make_index: MakeIndex, tmp_path: Path) -> None:
    index = folder_of(make_index, tmp_path)
    training = Training(index, tmp_path / "run", dataclasses.replace(RECIPE, batch=3), LOUPE_DEVICES="2")
    with training.start() as process:
        output = process.communicate(timeout=120)[0]
    assert process.returncode == 1
    assert "train.batch = 3 cannot be shared by 2 processes; make it a multiple" in output


def test_parts_are_chosen_for_the_cache() -> None:
    cpu = torch.device("cpu")
    assert part_size(8, 32, cpu) == 8
    assert part_size(16, 48, cpu) == 8
    assert part_size(1, 512, cpu) == 1
    assert part_size(32, 48, torch.device("cuda")) == 32
