"""The training run: patches in, the best averaged weights out; whatever interrupts it, it goes on where it was.

    for each step:          batch -> network -> loss -> gradients -> guard -> optimizer -> moving average
    every `validate_every`: the averaged network on whole validation pictures -> a row of curves.csv; the best is kept
    every minute:           a checkpoint

Lightning Fabric brings devices, precision and data-parallel processes. A batch is a function of seed and step, and
everything else that a step depends on is in the checkpoint, so that a run that was killed ends in the same bytes.
Nothing in curves.csv depends on the clock.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
import os
import shutil
import signal
import statistics
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any, Literal, cast

import torch
from lightning.fabric import Fabric
from torch import Tensor

from loupe.errors import InputError
from loupe.imaging.degradations import Degradation
from loupe.imaging.metrics import LUMA
from loupe.imaging.resize import Pixels
from loupe.models.inference import choose_device, to_tensor
from loupe.models.rdn import RDN
from loupe.models.weights import build_network, load_network, rounded
from loupe.patches.batches import PatchBatches, Strategy
from loupe.patches.index import PatchIndex
from loupe.patches.resident import ResidentPool, fits
from loupe.training.checkpoint import Checkpoints, key_of
from loupe.training.ema import AveragedNetwork
from loupe.training.follow import CurvePoint, Follower, write_curves
from loupe.training.graphs import Recorded
from loupe.training.guard import DivergedError, Guard
from loupe.training.losses import LOSSES
from loupe.training.memory import keep_freed_memory
from loupe.training.muon import Muon
from loupe.training.schedule import Schedule, learning_rate
from loupe.training.validation import crops, validate

CODE = ("imaging", "models", "patches", "training")  # packages whose code shapes the outcome
# Low-resolution pixels computed at once on a CPU. Larger batches are computed in parts: the activations of a part stay
# in the processor's cache, and memory is a fraction (loupe bench train).
PART_PIXELS = 20_000
CHECKPOINT_SECONDS = 60.0
Batch = tuple[Pixels, Pixels] | tuple[Tensor, Tensor]  # low and high resolution, uint8 [N, H, W, 3]
Precision = Literal["32-true", "bf16-mixed"]  # Lightning's names
PRECISIONS: tuple[Precision, ...] = ("32-true", "bf16-mixed")
COMPILE_MODES = ("default", "reduce-overhead")  # PyTorch's names; the second replays CUDA graphs, ours (graphs.py)


@dataclass(frozen=True)
class Recipe:
    """How to train: the parameters `train` of params.yaml, explained in profiles/sample.yaml."""

    seed: int
    init: str | None
    steps: int
    batch: int
    product_share: float
    loss: str
    optimizer: str
    lr: float
    beta2: float
    warmup: float
    schedule: Schedule
    halve_every: int
    clip: float
    ema: float
    validate_every: int
    patience: int


@dataclass
class Progress:
    """All of a run's state that is no tensor; a checkpoint holds it as a dictionary.

    sums: loss, squared luma error, gradient norm since the last row of the curves, over `since` steps. stalled:
    validations since the validation loss last fell. machines: what it ran on so far.
    """

    step: int = 0
    points: list[dict[str, Any]] = field(default_factory=list)
    sums: list[float] = field(default_factory=lambda: [0.0, 0.0, 0.0])
    since: int = 0
    best_psnr_y: float = -math.inf
    best_step: int = 0
    lowest_loss: float = math.inf
    stalled: int = 0
    stopped: bool = False
    machines: list[str] = field(default_factory=list)


class Interrupted(SystemExit):  # it is no error
    """A signal ended the run; what was done is in a checkpoint."""


def prepare(plain: bool = False) -> Fabric:
    """Choose devices and precision, ask for deterministic algorithms, and keep freed memory in the process.

    Facts of the machine are environment variables: LOUPE_DEVICE (see `choose_device`), LOUPE_DEVICES (how many of
    them, each in a process of its own; `torchrun` says it in its own way), LOUPE_THREADS (cores to use; all without),
    LOUPE_PRECISION (see `_precision`).

    Args:
        plain: leave memory as PyTorch does it by itself, to compare with.

    Raises:
        InputError: one of them makes no sense.
    """
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # without it cuBLAS is not deterministic
    if not plain:
        keep_freed_memory()
        # filling memory before it is written costs a twentieth of a step; nothing here reads before writing
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    torch.use_deterministic_algorithms(True)
    if threads := _whole_number("LOUPE_THREADS"):
        torch.set_num_threads(threads)
    device = choose_device()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", _whole_number("LOUPE_DEVICES") or 1))
    world = int(os.environ.get("WORLD_SIZE", here))
    fabric = Fabric(
        accelerator=device.type,
        devices=[device.index] if device.index is not None and world == 1 else here,
        num_nodes=max(1, world // here),
        strategy="ddp" if world > 1 else "auto",
        precision=_precision(device),
    )
    fabric.launch()
    return fabric


def train(
    fabric: Fabric,
    config: dict[str, Any],
    index: PatchIndex,
    recipe: Recipe,
    *,
    curves: Path,
    runs: Path,
    strategy: Strategy = Strategy(),  # noqa: B008  # frozen
    degradation: Degradation | None = None,
    facts: Mapping[str, str] | None = None,
    keep: Callable[[RDN, str], object] = lambda trained, trained_on: None,
    plain: bool = False,
) -> RDN:
    """Train a network on the index's training patches, or go on with a run that was interrupted.

    Args:
        fabric: from `prepare`; its processes share each batch.
        config: describes the network, see `build_network`.
        index: patches to train on and pictures to validate with.
        recipe: how.
        curves: CSV file to write, one row a validation (see CurvePoint).
        runs: folder that receives a folder for this run: TensorBoard's files, and checkpoints until it ends.
        strategy: which patches make a batch.
        degradation: what is done to product patches beside reducing them.
        facts: recorded in checkpoints, such as the git commit.
        keep: stores the network, in the first process, and on what it was trained (`machine`; several where a
            checkpoint has moved); the checkpoints go when it has returned.
        plain: compute as public implementations do (contiguous tensors, the whole batch at once), to compare with.

    Returns:
        The network with the averaged weights of the best validation (PSNR-Y), rounded to half precision, in evaluation
        mode on the CPU.

    Raises:
        InputError: what the recipe starts from does not fit, the batch cannot be shared out, memory or disk is short.
        DivergedError: training blew up and did not recover.
        Interrupted: SIGTERM or SIGINT ended it; a checkpoint was written.
    """
    torch.manual_seed(recipe.seed)
    network = _initial(config, recipe.init)
    described = {
        "model": config,
        "recipe": asdict(recipe),
        "patches": asdict(strategy),
        "degradations": asdict(degradation) if degradation else None,
        "data": _hash_of_data(index),
        "code": _hash_of_code(),
        "init": _hash_of_weights(network) if recipe.init else None,
    }
    identity = json.loads(json.dumps(described))  # plain lists for tuples, as a checkpoint gives it back
    folder = runs / f"{_label(config)}-{key_of(identity)}"
    checkpoints = Checkpoints(folder, identity)
    run = TrainingRun(fabric, network, index, recipe, strategy, degradation, plain)
    state = checkpoints.load(fabric.print)
    if state is not None:
        run.restore(state)
        fabric.print(f"going on from step {run.progress.step} of {recipe.steps} ({folder})", flush=True)
    elif fabric.is_global_zero:
        shutil.rmtree(folder, ignore_errors=True)  # an earlier run's curves
    first = fabric.is_global_zero
    interval = _checkpoint_seconds()
    if (here := machine(fabric.device)) not in run.progress.machines:
        run.progress.machines.append(here)
    done = run.progress.step
    with _signals() as stopped_by, Follower(folder, recipe.steps, done, recipe.batch, quiet=not first) as follower:
        saved = time.monotonic()
        while run.progress.step < recipe.steps and not run.progress.stopped:
            loss = run.step(asked=bool(stopped_by))
            follower.stepped(run.progress.step, loss)
            if run.progress.step % recipe.validate_every == 0 or run.progress.step == recipe.steps:
                point = run.validate()
                pictures = crops(run.averaged.network, index) if first else {}
                follower.validated(point, run.progress.best_step, pictures)
            if first and (run.stopping or time.monotonic() - saved >= interval):
                checkpoints.save(run.progress.step, {**run.state(), "facts": dict(facts or {})})
                saved = time.monotonic()
            if run.stopping:
                fabric.barrier()  # Lightning kills all processes once one has gone, also one that still writes
                follower.say(f"stopped at step {run.progress.step}; start again to go on from there")
                raise Interrupted(128 + (stopped_by or [signal.SIGTERM])[0] if first else 0)
        if run.progress.stopped:
            follower.say(
                f"stopped early: the validation loss has not fallen for {recipe.patience} validations; "
                f"kept are the weights of step {run.progress.best_step}"
            )
    trained = run.result()
    if first:
        write_curves(curves, [CurvePoint(**point) for point in run.progress.points])
        keep(trained, "; ".join(run.progress.machines))
        checkpoints.remove()
    return trained


class TrainingRun:
    """One process's share of a run: the network, and what a step changes.

    stopping: whether a process was asked to stop before the last step. All know of it after the same step, so that none
    waits for one that has left.
    """

    def __init__(
        self,
        fabric: Fabric,
        network: RDN,
        index: PatchIndex,
        recipe: Recipe,
        strategy: Strategy,
        degradation: Degradation | None = None,
        plain: bool = False,
    ) -> None:
        world = fabric.world_size
        if recipe.batch % world:
            raise InputError(f"train.batch = {recipe.batch} cannot be shared by {world} processes; make it a multiple")
        self.progress = Progress()
        self.stopping = False
        self._fabric, self._recipe, self._index, self._plain = fabric, recipe, index, plain
        self._luma = torch.tensor(LUMA, device=fabric.device) / 255
        size = recipe.batch // world
        self._part = size if plain else part_size(size, index.patch, fabric.device)
        self._guard = Guard(recipe.loss)
        self._loss = LOSSES[recipe.loss]
        network.train()
        if not plain:
            network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        mode = None if plain else compile_mode(fabric.device)
        compiled = network if mode is None else torch.compile(network)
        self._graphs = mode == "reduce-overhead" and fabric.device.type == "cuda" and world == 1
        self._recorded: Recorded | None = None
        optimizers = _optimizers(network, recipe, fabric.device)
        self._network, *self._optimizers = fabric.setup(cast(RDN, compiled), *optimizers)
        self._plain_network = network
        self._weights = list(network.parameters())
        self.averaged = AveragedNetwork(network, recipe.ema)
        self._best = self._average()
        batches = PatchBatches(
            index, size, recipe.seed, recipe.product_share, strategy, degradation, fabric.global_rank, world
        )
        self._feed = feed(batches, strategy, fabric.device)
        valid = [number for number, row in enumerate(index.images) if row.split == "valid"]
        self._valid = valid[fabric.global_rank :: world]
        self._valid_count = len(valid)

    def step(self, asked: bool = False) -> float:
        """Take one step; its loss. `asked`: whether this process was asked to stop."""
        recipe, progress = self._recipe, self.progress
        rate = self._rate()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate
        lr, hr = self._feed.batch_at(progress.step)
        with _memory_advice(self._part, recipe.batch, self._index.patch):
            figures = self._record(lr, hr) if self._graphs else self._gradients(lr, hr)
        if asked:
            figures[2] = 1.0
        if self._fabric.world_size > 1:
            figures = torch.cat([self._sum(figures[:3]) / self._fabric.world_size, figures[3:]])
        loss: float
        loss, error, stopping, norm = figures.tolist()  # a GPU is waited for once
        self.stopping = stopping > 0
        try:
            admitted = self._guard.admits(loss, norm)
        except DivergedError as diverged:
            usual = statistics.median(self._guard.norms or [1.0])
            raise DivergedError(
                f"{diverged}; at step {progress.step} of {recipe.steps}. Lower train.lr (now {recipe.lr}), raise "
                f"train.warmup (now {recipe.warmup}), or set train.clip (now {recipe.clip}) to some {2 * usual:.2g}"
            ) from None
        if admitted:
            for optimizer in self._optimizers:
                optimizer.step()
            self.averaged.update(progress.step)
            for place, value in enumerate((loss, error, norm)):
                progress.sums[place] += value
            progress.since += 1
        progress.step += 1
        return loss

    def validate(self) -> CurvePoint:
        """Score the averaged network on all validation pictures, and keep its weights if they are the best so far."""
        progress = self.progress
        rows = validate(self.averaged.network, self._index, self._valid, self._loss)
        columns = [math.fsum(column) for column in zip(*rows, strict=True)] or [0.0, 0.0]
        sums = torch.tensor(columns, dtype=torch.float64)
        valid_loss, psnr_y = (self._sum(sums) / self._valid_count).tolist()
        loss, error, norm = (total / progress.since if progress.since else math.nan for total in progress.sums)
        point = CurvePoint(
            step=progress.step,
            lr=self._rate(progress.step - 1),
            train_loss=loss,
            valid_loss=valid_loss,
            train_psnr_y=-10 * math.log10(max(error, 1e-10)) if error >= 0 else math.nan,
            valid_psnr_y=psnr_y,
            gradient_norm=norm,
            skipped=self._guard.skipped,
        )
        progress.points.append(asdict(point))
        progress.sums, progress.since = [0.0, 0.0, 0.0], 0
        if psnr_y > progress.best_psnr_y:
            progress.best_psnr_y, progress.best_step = psnr_y, progress.step
            self._best = self._average()
        progress.stalled = 0 if valid_loss < progress.lowest_loss else progress.stalled + 1
        progress.lowest_loss = min(progress.lowest_loss, valid_loss)
        progress.stopped = 0 < self._recipe.patience <= progress.stalled
        return point

    def state(self) -> dict[str, Any]:
        """Everything that the next step depends on, for a checkpoint."""
        random = {"cpu": torch.get_rng_state()}
        if self._fabric.device.type == "cuda":
            random["cuda"] = torch.cuda.get_rng_state(self._fabric.device)
        return {
            "progress": asdict(self.progress),
            "guard": asdict(self._guard),
            "network": self._plain_network.state_dict(),
            "average": self.averaged.network.state_dict(),
            "best": self._best,
            "optimizers": [optimizer.optimizer.state_dict() for optimizer in self._optimizers],
            "random": random,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """The opposite of `state`."""
        self.progress = Progress(**state["progress"])
        self._guard = Guard(**state["guard"])
        self._plain_network.load_state_dict(state["network"])
        self.averaged.network.load_state_dict(state["average"])
        self._best = state["best"]
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.optimizer.load_state_dict(saved)
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"] and self._fabric.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], self._fabric.device)

    def result(self) -> RDN:
        """The network to ship, its weights rounded to half precision."""
        network = self.averaged.network.cpu()
        network.load_state_dict(rounded(self._best))
        return network

    def _record(self, lr: Pixels | Tensor, hr: Pixels | Tensor) -> Tensor:
        """`_gradients` as a CUDA graph."""
        device = self._fabric.device
        batch = [pixels if isinstance(pixels, Tensor) else torch.from_numpy(pixels).to(device) for pixels in (lr, hr)]
        if self._recorded is None:
            self._recorded = Recorded(self._gradients, batch, lambda: self._gradients(*batch))
        return cast(Tensor, self._recorded(*batch))

    def _gradients(self, lr: Pixels | Tensor, hr: Pixels | Tensor) -> Tensor:
        """Gradients of one batch, part by part: those of all processes, clipped if the recipe says so.

        Returns:
            float [4]: loss and squared luma error of this process, zero, the norm of the gradients before clipping.
        """
        device = self._fabric.device
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        totals = torch.zeros(3, device=device)
        for start in range(0, len(lr), self._part):
            part = slice(start, start + self._part)
            share = len(lr[part]) / len(lr)
            low, high = (to_tensor(pixels[part], device) for pixels in (lr, hr))
            if self._plain:
                low, high = low.contiguous(), high.contiguous()
            more = start + self._part < len(lr)
            with self._fabric.no_backward_sync(self._network) if more else nullcontext():
                prediction = self._network(low)
                loss = self._loss(prediction, high) * share
                self._fabric.backward(loss)
            totals[:2] += torch.stack([loss.detach(), share * self._luma_error(prediction.detach(), high)])
        gradients = [weights.grad for weights in self._weights if weights.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        if self._recipe.clip:
            torch.nn.utils.clip_grads_with_norm_(self._weights, self._recipe.clip, norm)
        return torch.cat([totals, norm[None]])

    def _luma_error(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Mean squared error of luma, in units of the range, of [N, 3, H, W]; not rounded or shaved: for a curve."""
        return torch.einsum("nchw,c->nhw", prediction.float() - target, self._luma).square().mean()

    def _sum(self, values: Tensor) -> Tensor:
        if self._fabric.world_size == 1:
            return values
        total: Tensor = self._fabric.all_reduce(values.to(self._fabric.device), reduce_op="sum")  # type: ignore[assignment]
        return total

    def _average(self) -> dict[str, Tensor]:
        return {name: tensor.detach().cpu().clone() for name, tensor in self.averaged.network.state_dict().items()}

    def _rate(self, step: int | None = None) -> float:
        recipe = self._recipe
        step = self.progress.step if step is None else step
        return learning_rate(step, recipe.steps, recipe.lr, recipe.warmup, recipe.schedule, recipe.halve_every)


def machine(device: torch.device) -> str:
    """What decides how a training rounds, apart from its code: PyTorch, and the kind of processor."""
    cpu = f"CPU with {torch.backends.cpu.get_cpu_capability()}"
    if _precision(device) != PRECISIONS[0]:
        cpu += " and bfloat16"
    return f"PyTorch {torch.__version__}, {cpu if device.type == 'cpu' else torch.cuda.get_device_name(device)}"


class Ahead:
    """Batches by step; a thread makes the next one while a GPU computes."""

    def __init__(self, batches: PatchBatches | ResidentPool) -> None:
        self._batches = batches
        self._thread = ThreadPoolExecutor(1)
        self._next: tuple[int, Future[Batch]] | None = None

    def batch_at(self, step: int) -> Batch:
        """See PatchBatches."""
        waiting = self._next
        future = waiting[1] if waiting and waiting[0] == step else self._submit(step)
        pair = future.result()
        self._next = (step + 1, self._submit(step + 1))
        return pair

    def _submit(self, step: int) -> Future[Batch]:
        return self._thread.submit(self._batches.batch_at, step)


def feed(batches: PatchBatches, strategy: Strategy, device: torch.device) -> PatchBatches | Ahead:
    """Where batches come from: to a GPU ahead of time, from its own memory if the decoded pictures fit there."""
    return Ahead(at_hand(batches, strategy, device)) if device.type == "cuda" else batches


def at_hand(batches: PatchBatches, strategy: Strategy, device: torch.device) -> PatchBatches | ResidentPool:
    """The batches as they are, or in a GPU's own memory if the decoded pictures fit there."""
    resident = device.type == "cuda" and strategy.name != "random" and fits(batches.index, device)
    return ResidentPool(batches, device) if resident else batches


def _initial(config: dict[str, Any], init: str | None) -> RDN:
    """A new network, or the one in the folder `init`, if it is of the same kind and no deeper."""
    network = build_network(config)
    if init is None:
        return network
    start = load_network(Path(init))
    try:
        network.begin_as(start)
        fits = (start.scale, start.residual) == (network.scale, network.residual)
    except RuntimeError:
        fits = False
    if not fits:
        stored = json.loads((Path(init) / "config.json").read_text())
        different = ", ".join(
            f"{key} {stored.get(key)} (here {config.get(key)})"
            for key in sorted(stored.keys() | config.keys())
            if stored.get(key) != config.get(key)
        )
        raise InputError(f"train.init = {init}: another network: {different}; set `model` and `scale` to match it")
    return network


def _optimizers(network: RDN, recipe: Recipe, device: torch.device) -> list[torch.optim.Optimizer]:
    """One for all parameters, or Muon for the kernels between hidden layers and Adam for the rest, as Muon is meant."""
    ends = {network.shallow_1.weight, network.output.weight}
    hidden: list[torch.nn.Parameter] = []
    rest: list[torch.nn.Parameter] = []
    for parameter in network.parameters():
        for_muon = recipe.optimizer == "muon" and parameter.ndim == 4 and parameter not in ends
        (hidden if for_muon else rest).append(parameter)
    adam = torch.optim.Adam(rest, lr=recipe.lr, betas=(0.9, recipe.beta2), fused=device.type == "cuda")
    return [adam, Muon(hidden, recipe.lr)] if hidden else [adam]


def part_size(size: int, patch: int, device: torch.device) -> int:
    """Patches computed at once: LOUPE_PART, else all on a GPU, and on a CPU the fewest equal parts of PART_PIXELS."""
    if given := _whole_number("LOUPE_PART"):
        return min(given, size)
    if device.type != "cpu":
        return size
    parts = math.ceil(size * patch**2 / PART_PIXELS)
    return math.ceil(size / parts)


def _precision(device: torch.device) -> Precision:
    """What the network computes in: LOUPE_PRECISION, else bfloat16 on a GPU that has it, and float32.

    A CPU is asked for it, not assumed: results would differ more between two of them.

    Raises:
        InputError: LOUPE_PRECISION is none of PRECISIONS.
    """
    whole, half = PRECISIONS
    natively = device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)
    given = os.environ.get("LOUPE_PRECISION") or (half if natively else whole)
    if given not in PRECISIONS:
        raise InputError(f"LOUPE_PRECISION={given}: set it to one of {', '.join(PRECISIONS)}, or leave it out")
    return half if given == half else whole


def compile_mode(device: torch.device) -> str | None:
    """How the network is compiled, None for not at all: LOUPE_COMPILE, else `reduce-overhead` on a GPU with Triton.

    Raises:
        InputError: LOUPE_COMPILE is none of `off` and COMPILE_MODES.
    """
    serves = device.type == "cuda" and importlib.util.find_spec("triton") is not None
    mode = os.environ.get("LOUPE_COMPILE") or ("reduce-overhead" if serves else "off")
    if mode not in ("off", *COMPILE_MODES):
        raise InputError(f"LOUPE_COMPILE={mode}: set it to off or one of {', '.join(COMPILE_MODES)}, or leave it out")
    return None if mode == "off" else mode


@contextmanager
def _memory_advice(part: int, batch: int, patch: int) -> Iterator[None]:
    """Turn running out of memory into what to do about it."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        text = str(error).lower()
        if not isinstance(error, MemoryError | torch.OutOfMemoryError) and "allocate memory" not in text:
            raise
        if part > 1:
            advice = f"set LOUPE_PART={part // 2} (now {part}): the same training with about half the memory"
        else:
            advice = (
                f"lower patches.size (now {patch}) to {patch // 2}: about a quarter of the memory; or a smaller model"
            )
        raise InputError(f"out of memory with {part} of the {batch} patches of a batch at once; {advice}") from None


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Within the block SIGTERM and SIGINT are only noted, in the list, so that a step can be finished."""
    noted: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # signals belong to the main thread
        yield noted
        return

    def note(number: int, frame: FrameType | None) -> None:
        noted.append(number)

    before = {number: signal.signal(number, note) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _checkpoint_seconds() -> float:
    text = os.environ.get("LOUPE_CHECKPOINT_SECONDS", "")
    try:
        return float(text) if text else CHECKPOINT_SECONDS
    except ValueError:
        raise InputError(f"LOUPE_CHECKPOINT_SECONDS={text}: set it to a number of seconds, or leave it out") from None


def _whole_number(variable: str) -> int | None:
    """An environment variable as a whole number from 1, None where it is not set."""
    text = os.environ.get(variable, "")
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise InputError(f"{variable}={text}: set it to a whole number from 1, or leave it out")
    return int(text)


def _hash_of_data(index: PatchIndex) -> str:
    """Differs when a pixel, a split, or the order or the difficulty of patches does; not when a path does."""
    rows = [[row.set, row.name, row.split, row.height, row.width, row.channels, row.sha256] for row in index.images]
    digest = hashlib.sha256(json.dumps([index.scale, index.patch, index.low_resolution, rows]).encode())
    for name in ("image", "y", "x", "bicubic_psnr"):
        digest.update(index.patches[name].to_numpy().tobytes())
    return digest.hexdigest()


def _hash_of_code() -> str:
    """Of the sources of this package that shape the outcome."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(path for name in CODE for path in (root / name).glob("*.py")):
        digest.update(path.relative_to(root).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def _hash_of_weights(network: RDN) -> str:
    digest = hashlib.sha256()
    for name, tensor in network.state_dict().items():
        digest.update(name.encode() + tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def _label(config: Mapping[str, Any]) -> str:
    sizes = "".join(f"-{key}{config[key]}" for key in ("D", "C", "G") if key in config)
    return f"{config['name']}{sizes}"
