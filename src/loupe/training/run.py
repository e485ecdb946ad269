"""The training run: patches in, averaged weights out, curves on the way.

    for step in range(steps):   batch -> network -> loss -> Adam -> moving average
    every `validate_every`:     the averaged network on the centre of every validation picture -> one row of curves.csv

Nothing in the curves depends on the clock, so that two runs of one recipe write the same files.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import torch
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from loupe.errors import InputError
from loupe.imaging.degradations import Degradation
from loupe.imaging.files import atomic_file
from loupe.imaging.metrics import luma, psnr, shave
from loupe.imaging.resize import Pixels
from loupe.models.inference import choose_device, to_pixels, to_tensor
from loupe.models.rdn import RDN
from loupe.patches.batches import PatchBatches, Strategy
from loupe.patches.index import PatchIndex
from loupe.training.ema import AveragedNetwork
from loupe.training.losses import LOSSES
from loupe.training.schedule import learning_rate

WINDOW = 128  # low-resolution pixels of a validation picture's centre that the curves are drawn from


@dataclass(frozen=True)
class Recipe:
    """How to train: the parameters `train` of params.yaml, explained in profiles/sample.yaml."""

    seed: int
    steps: int
    batch: int
    product_share: float
    loss: str
    lr: float
    warmup: float
    ema: float
    validate_every: int


@dataclass(frozen=True)
class CurvePoint:
    """One row of curves.csv. Losses as the recipe's; PSNR of luma in decibels, over pixels of the windows or patches.

    train_* are means over the steps since the row before, of the network being trained; valid_* of the averaged one.
    """

    step: int
    lr: float
    train_loss: float
    valid_loss: float
    train_psnr_y: float
    valid_psnr_y: float


def prepare(seed: int) -> torch.device:
    """Seed everything, ask for deterministic algorithms, and choose the device (see `choose_device`).

    LOUPE_THREADS is how many cores to use; all of them without it.

    Raises:
        InputError: LOUPE_DEVICE or LOUPE_THREADS makes no sense.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True)
    if threads := os.environ.get("LOUPE_THREADS"):
        if not threads.isdecimal() or int(threads) < 1:
            raise InputError(f"LOUPE_THREADS={threads}: set it to a whole number from 1, or leave it out")
        torch.set_num_threads(int(threads))
    return choose_device()


def train(
    network: RDN,
    index: PatchIndex,
    recipe: Recipe,
    curves: Path,
    board: Path,
    device: torch.device,
    strategy: Strategy = Strategy(),  # noqa: B008  # frozen
    degradation: Degradation | None = None,
) -> RDN:
    """Train `network` on the index's training patches.

    Args:
        network: freshly built; changed in place.
        index: patches to train on and pictures to validate with.
        recipe: how.
        curves: CSV file to write, one row a validation (see CurvePoint).
        board: folder for TensorBoard.
        device: where to compute.
        strategy: which patches make a batch.
        degradation: what is done to product patches beside reducing them.

    Returns:
        The network with averaged weights, in evaluation mode.

    Raises:
        FloatingPointError: the loss is no longer a number.
    """
    network.to(device, memory_format=torch.channels_last).train()  # type: ignore[call-overload]  # twice as fast on CPUs
    averaged = AveragedNetwork(network, recipe.ema)
    optimizer = torch.optim.Adam(network.parameters(), betas=(0.9, 0.99))
    batches = PatchBatches(index, recipe.batch, recipe.seed, recipe.product_share, strategy, degradation)
    windows = [centre(index, number) for number, row in enumerate(index.images) if row.split == "valid"]
    loss_of = LOSSES[recipe.loss]
    points: list[CurvePoint] = []
    sums = np.zeros(2)
    since = 0
    started = time.monotonic()
    bar = tqdm(total=recipe.steps, unit="step", desc="train", dynamic_ncols=True, disable=not sys.stderr.isatty())
    with SummaryWriter(str(board)) as writer, bar:
        for step in range(recipe.steps):
            rate = learning_rate(step, recipe.steps, recipe.lr, recipe.warmup)
            for group in optimizer.param_groups:
                group["lr"] = rate
            lr, hr = (to_tensor(pixels, device) for pixels in batches.batch_at(step))
            optimizer.zero_grad(set_to_none=True)
            prediction = network(lr)
            loss = loss_of(prediction, hr)
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            averaged.update(step)
            sums += loss.item(), _psnr_y(prediction.detach(), hr)
            since += 1
            if not np.isfinite(sums[0]):
                raise FloatingPointError(
                    f"the loss is no number at step {step}; lower train.lr (now {recipe.lr}) or raise train.warmup"
                )
            bar.update()
            if (step + 1) % recipe.validate_every and step + 1 < recipe.steps:
                continue
            train_loss, train_psnr = (float(total) for total in sums / since)
            valid_loss, valid_psnr = validate(averaged.network, windows, recipe.loss, device, index.scale)
            point = CurvePoint(step + 1, rate, train_loss, valid_loss, train_psnr, valid_psnr)
            points.append(point)
            for name, value in asdict(point).items():
                writer.add_scalar(name, value, step + 1)
            sums, since = np.zeros(2), 0
            seconds = time.monotonic() - started
            left = seconds / (step + 1) * (recipe.steps - step - 1)
            bar.write(
                f"step {step + 1:>6}/{recipe.steps}  train {train_psnr:.2f} dB  valid {valid_psnr:.2f} dB (luma)  "
                f"{recipe.batch * (step + 1) / seconds:.0f} patches/s  {left:.0f} s left",
                file=sys.stdout,
            )
            sys.stdout.flush()
    with atomic_file(curves) as stream:
        pd.DataFrame([asdict(point) for point in points]).to_csv(stream, index=False, float_format="%.6g")
    return averaged.network


def centre(index: PatchIndex, number: int) -> tuple[Pixels, Pixels]:
    """The middle of picture `number`: low-resolution uint8 [h, w, 3], sides at most WINDOW, and its high-resolution."""
    lr = index.lr(number)
    (y, height), (x, width) = ((max(0, (side - WINDOW) // 2), min(side, WINDOW)) for side in lr.shape[:2])
    scale = index.scale
    hr = index.hr(number)[y * scale : (y + height) * scale, x * scale : (x + width) * scale]
    return lr[y : y + height, x : x + width].copy(), hr.copy()


@torch.inference_mode()
def validate(
    network: RDN, windows: list[tuple[Pixels, Pixels]], loss: str, device: torch.device, scale: int
) -> tuple[float, float]:
    """Mean loss and mean PSNR of luma in decibels of `network` over (low, high) windows, `scale` pixels shaved."""
    losses, scores = [], []
    for lr, hr in windows:
        prediction = network(to_tensor(lr[None], device))
        losses.append(LOSSES[loss](prediction, to_tensor(hr[None], device)).item())
        scores.append(psnr(*(shave(luma(pixels), scale) for pixels in (to_pixels(prediction)[0], hr))))
    return float(np.mean(losses)), float(np.mean(scores))


def _psnr_y(prediction: torch.Tensor, target: torch.Tensor) -> float:
    """PSNR of luma in decibels over a whole batch of float [N, 3, H, W]; not rounded or shaved: a curve, no score."""
    weights = torch.tensor([65.481, 128.553, 24.966], device=prediction.device) / 255
    error = torch.einsum("nchw,c->nhw", prediction - target, weights).square().mean().item()
    return float(-10 * np.log10(max(error, 1e-10)))
