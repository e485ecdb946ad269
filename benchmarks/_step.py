"""One side of `loupe bench train` in a process of its own, since the allocator's settings cannot be taken back.

    python -m benchmarks._step SIDE '{"...": ...}'     # prints JSON

SIDE: `ours`, the training run as it ships, with its guard, moving average and feeding; `plain`, a bare loop over the
same network in contiguous tensors, the whole batch at once, as public implementations write it; `plain tuned`, the
same with an allocator that keeps freed memory, on a GPU in bfloat16 instead. LOUPE_DEVICE says where. With marks in
the request it is a race for a PSNR instead: `plain` is then the same run with LOUPE_PLAIN=1.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from benchmarks._build import peak_mb
from loupe.imaging.files import find_images, read_image
from loupe.imaging.metrics import score
from loupe.imaging.resize import Pixels, crop_to_multiple, downscale
from loupe.models.inference import choose_device, super_resolve, to_tensor
from loupe.models.weights import build_network
from loupe.patches.batches import PatchBatches, Strategy
from loupe.patches.index import PatchIndex
from loupe.training.memory import keep_freed_memory
from loupe.training.run import Recipe, TrainingRun, at_hand, prepare

Request = dict[str, Any]
EVALUATE_EVERY = 50  # steps of a race


def steps(side: str, request: Request) -> dict[str, Any]:
    """Times and losses of training steps: {"ms": [...], "losses": [...], "peak_mb": ..., "feed_ms": [...]}.

    peak_mb: largest memory of the process; on a GPU, largest memory of tensors there. feed_ms: of one batch alone, as
    floats on the device.
    """
    config, recipe = request["config"], Recipe(**request["recipe"])
    device = choose_device()
    torch.manual_seed(recipe.seed)
    index = PatchIndex(Path(request["index"]))
    batches = PatchBatches(index, recipe.batch, recipe.seed, 0.0)
    if side == "ours":
        run = TrainingRun(prepare(), build_network(config), index, recipe, Strategy())
        take, source = run.step, at_hand(batches, Strategy(), device)
    else:
        if side == "plain tuned":
            keep_freed_memory()
        half = side == "plain tuned" and device.type == "cuda"
        take, source = plain_step(build_network(config).to(device), batches, recipe.lr, half), batches
    times, losses, feeding = [], [], []
    for _ in range(request["steps"]):
        start = time.perf_counter()
        losses.append(take())  # a number: the device has finished
        times.append(1000 * (time.perf_counter() - start))
    for step in range(request["steps"]):
        start = time.perf_counter()
        for pixels in source.batch_at(step):
            to_tensor(pixels, device)[0, 0, 0, 0].item()
        feeding.append(1000 * (time.perf_counter() - start))
    peak = torch.cuda.max_memory_allocated(device) / 1e6 if device.type == "cuda" else peak_mb()
    return {"ms": times, "losses": losses, "peak_mb": peak, "feed_ms": feeding}


def plain_step(network: nn.Module, batches: PatchBatches, lr: float, half: bool) -> Any:
    """A function that takes the next step and gives its loss; `half`: under autocast to bfloat16."""
    device = next(network.parameters()).device
    optimizer = torch.optim.Adam(network.parameters(), lr=lr, betas=(0.9, 0.99))
    done = 0

    def take() -> float:
        nonlocal done
        low, high = (to_tensor(pixels, device).contiguous() for pixels in batches.batch_at(done))
        optimizer.zero_grad()
        with torch.autocast(device.type, torch.bfloat16, enabled=half):
            loss = F.l1_loss(network(low), high)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        done += 1
        return loss.item()

    return take


def race(side: str, request: Request) -> dict[str, Any]:
    """Seconds of training until the averaged network passes each mark on the pictures in `hr`; scoring is not counted.

    {"seconds": {"36.5": ..., or null if it is never passed}, "steps": {...}, "last": dB}
    """
    plain = side != "ours"
    fabric = prepare(plain)
    recipe = Recipe(**request["recipe"])
    torch.manual_seed(recipe.seed)
    index = PatchIndex(Path(request["index"]))
    strategy = Strategy(**request["strategy"])
    run = TrainingRun(fabric, build_network(request["config"]), index, recipe, strategy, plain=plain)
    pictures = [crop_to_multiple(read_image(path).pixels, index.scale) for path in find_images(Path(request["hr"]))]
    pairs = [(downscale(hr, index.scale), hr) for hr in pictures]
    seconds, last = 0.0, 0.0
    passed: dict[str, float | None] = {str(mark): None for mark in request["marks"]}
    at: dict[str, int] = {}
    while run.progress.step < recipe.steps and None in passed.values():
        start = time.perf_counter()
        run.step()
        seconds += time.perf_counter() - start
        if run.progress.step % EVALUATE_EVERY == 0:
            last = mean_psnr_y(run, pairs)
            for mark in passed:
                if passed[mark] is None and last >= float(mark):
                    passed[mark], at[mark] = seconds, run.progress.step
    return {"seconds": passed, "steps": at, "last": last}


def mean_psnr_y(run: TrainingRun, pairs: list[tuple[Pixels, Pixels]]) -> float:
    """Of the averaged network over (low, high) pictures, in decibels."""
    network = run.averaged.network
    return float(np.mean([score(hr, super_resolve(network, lr), network.scale).psnr_y for lr, hr in pairs]))


def ceiling(request: Request) -> dict[str, Any]:
    """The highest rate that one of the network's own 3 x 3 convolutions reaches alone, and what a step computes.

    {"gflop_per_s": forward and backward, "gflop": of a step}. Channels last, memory kept, a part of the batch at once;
    in bfloat16 on a GPU.
    """
    device = prepare().device
    number = torch.bfloat16 if device.type == "cuda" else torch.float32
    network = build_network(request["config"])
    part, patch, batch = request["part"], request["patch"], request["batch"]
    work = 0.0
    rates = []
    seen = set()

    def measure(layer: nn.Conv2d, x: torch.Tensor) -> float:
        weight, x = (
            tensor.detach().to(device, number).contiguous(memory_format=torch.channels_last).requires_grad_()
            for tensor in (layer.weight, x)
        )
        gradient = torch.rand_like(F.conv2d(x, weight, padding=1))
        times = []
        for _ in range(12):
            start = time.perf_counter()
            torch.autograd.grad(F.conv2d(x, weight, padding=1), (x, weight), gradient)
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            times.append(time.perf_counter() - start)
        return 3 * flop(layer, x) / float(np.median(times[3:]))

    def flop(layer: nn.Conv2d, x: torch.Tensor) -> float:
        return 2.0 * layer.weight.numel() * x.shape[0] * x.shape[2] * x.shape[3]

    inputs: list[tuple[nn.Conv2d, torch.Tensor]] = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            layer.register_forward_pre_hook(lambda module, given: inputs.append((module, given[0])))
    with torch.no_grad():
        network(torch.rand(part, 3, patch, patch))
    for layer, x in inputs:
        work += (2 if x.shape[1] == 3 else 3) * flop(layer, x) * batch / part  # no gradient of the picture itself
        shape = (tuple(layer.weight.shape), tuple(x.shape))
        if layer.kernel_size == (3, 3) and shape not in seen:
            seen.add(shape)
            rates.append(measure(layer, x))
    return {"gflop_per_s": max(rates) / 1e9, "gflop": work / 1e9}


def main() -> None:
    """Do what the command line says."""
    side, request = sys.argv[1], json.loads(sys.argv[2])
    if side == "ceiling":
        answer = ceiling(request)
    else:
        answer = race(side, request) if "marks" in request else steps(side, request)
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
