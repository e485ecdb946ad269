"""What a person sees of a run: a bar or plain lines, one line a validation, TensorBoard, and curves.csv."""

from __future__ import annotations

import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType

import pandas as pd
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from loupe.imaging.files import atomic_file
from loupe.imaging.resize import Pixels

LINE_EVERY = 60.0  # seconds between plain lines where there is no terminal


@dataclass(frozen=True)
class CurvePoint:
    """One row of curves.csv, written at each validation.

    step: taken so far. lr: of the last of them. train_*: means since the row before, of the network being trained,
    over patches. valid_*: of the averaged network, over whole pictures. Losses as the recipe's; PSNR of luma in
    decibels; gradient_norm before clipping; skipped: steps refused so far as diverging.
    """

    step: int
    lr: float
    train_loss: float
    valid_loss: float
    train_psnr_y: float
    valid_psnr_y: float
    gradient_norm: float
    skipped: int


BOARD_NAMES = {
    "lr": "learning rate",
    "train_loss": "loss/train",
    "valid_loss": "loss/valid",
    "train_psnr_y": "PSNR-Y/train",
    "valid_psnr_y": "PSNR-Y/valid",
    "gradient_norm": "gradient norm",
    "skipped": "skipped steps",
}


class Follower:
    """Shows one run. Of several processes only the first may have one that is not `quiet`.

    Args:
        folder: for TensorBoard's files.
        steps: length of the run. done: steps taken before this start of it.
        batch: patches a step.
        quiet: show and write nothing.
    """

    def __init__(self, folder: Path, steps: int, done: int, batch: int, quiet: bool) -> None:
        self._steps, self._batch, self._quiet = steps, batch, quiet
        self._started = self._last_line = time.monotonic()
        self._taken = 0
        self._writer = None if quiet else SummaryWriter(str(folder), purge_step=done + 1 if done else None)
        terminal = sys.stderr.isatty()
        self._plain = not (quiet or terminal)
        self._bar = tqdm(
            total=steps, initial=done, unit="step", desc="train", dynamic_ncols=True, disable=quiet or not terminal
        )

    def __enter__(self) -> Follower:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bar.close()
        if self._writer:
            self._writer.close()

    def say(self, line: str) -> None:
        """Print a line to stdout, above the bar if there is one."""
        if not self._quiet:
            self._bar.write(line, file=sys.stdout)
            sys.stdout.flush()

    def stepped(self, step: int, loss: float) -> None:
        """Step number `step` (from 1) is done."""
        self._taken += 1
        self._bar.update()
        if self._plain and time.monotonic() - self._last_line > LINE_EVERY:
            self.say(f"step {step:>7}/{self._steps}  loss {loss:.5f}  {self._pace(step)}")
            self._last_line = time.monotonic()

    def validated(self, point: CurvePoint, best_step: int, pictures: dict[str, Pixels]) -> None:
        """Report a validation; `best_step` is the one whose weights would ship now."""
        if self._writer is None:
            return
        for field, value in asdict(point).items():
            if field in BOARD_NAMES:
                self._writer.add_scalar(BOARD_NAMES[field], value, point.step)
        self._writer.add_scalar("patches a second", self._rate(), point.step)
        for name, picture in pictures.items():
            self._writer.add_image(f"bicubic, network, original/{name}", picture, point.step, dataformats="HWC")
        self._writer.flush()
        best = "best" if best_step == point.step else f"best at step {best_step}"
        skipped = f"  {point.skipped} skipped" if point.skipped else ""
        self.say(
            f"step {point.step:>7}/{self._steps}  loss {point.train_loss:.5f}, valid {point.valid_loss:.5f}  "
            f"PSNR-Y {point.train_psnr_y:.2f} dB, valid {point.valid_psnr_y:.2f} dB ({best}){skipped}  "
            f"{self._pace(point.step)}"
        )
        self._last_line = time.monotonic()

    def _rate(self) -> float:
        return self._batch * self._taken / max(time.monotonic() - self._started, 1e-9)

    def _pace(self, step: int) -> str:
        seconds = (self._steps - step) * self._batch / max(self._rate(), 1e-9)
        left = f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.0f} min" if seconds < 7200 else ""
        return f"{self._rate():.0f} patches/s, {left or f'{seconds / 3600:.1f} h'} left"


def write_curves(path: Path, points: list[CurvePoint]) -> None:
    """The whole history of a run as CSV; nothing in it depends on the clock."""
    with atomic_file(path) as stream:
        pd.DataFrame([asdict(point) for point in points]).to_csv(stream, index=False, float_format="%.6g")
