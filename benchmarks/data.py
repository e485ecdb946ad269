"""Feeding patches to training: loupe's decoded pool beside the usual ways, in one run.

    loupe bench data [--images 16] [--seconds 3] [--rounds 3] [--patch 48] [--batch 16] [--json]

Every contender gives batch after batch of random pairs from the same pictures, each turned one of eight ways. They are
timed in turn, round by round; workers are started and the first batches fetched before the clock starts, and it stops
after a whole turn of all workers. `ratios`: above 1, ours is faster; of several rivals of a kind the fastest counts.
"""

from __future__ import annotations

import argparse
import dataclasses
import io
import itertools
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import lmdb
import numpy as np
import numpy.typing as npt
import torch
from PIL import Image, ImageDraw
from tabulate import tabulate
from torch import Tensor
from torch.nn.functional import l1_loss
from torch.utils.data import DataLoader, Dataset

from benchmarks._build import SCALE, build
from benchmarks._report import parser, publish, say
from loupe.imaging.resize import Pixels, downscale
from loupe.models.inference import to_tensor
from loupe.models.weights import build_network
from loupe.params import load_params
from loupe.patches.batches import PatchBatches, Strategy, turned
from loupe.patches.index import LowResolution, PatchIndex
from loupe.training.memory import keep_freed_memory

SUB_IMAGE = 480  # BasicSR's, in high-resolution pixels
SEED = 0
CORES = len(os.sched_getaffinity(0))

Batch: TypeAlias = Sequence[Tensor | npt.NDArray[np.float64]]  # low resolution, high resolution


@dataclass(frozen=True)
class Material:
    """The same pictures in the form that each contender reads.

    hr, lr: PNG files. sub_images: LMDB of PNG sub-images under the keys hr/0, lr/0, hr/1 and so on. indexes:
    loupe's, by how low resolution is had.
    """

    hr: list[Path]
    lr: list[Path]
    sub_images: Path
    indexes: dict[LowResolution, Path]


@dataclass(frozen=True)
class Contender:
    """A way to feed patches. batches: starts an endless feed; workers: processes that it starts for that."""

    batches: Callable[[], Iterator[Batch]]
    workers: int = 0


def pools(material: Material, batch: int) -> dict[str, PatchBatches]:
    """Ours, by name: what PatchBatches offers. The first one counts in the ratios."""

    def feed(low_resolution: LowResolution, strategy: Strategy) -> PatchBatches:
        return PatchBatches(PatchIndex(material.indexes[low_resolution]), batch, SEED, 0.0, strategy)

    return {
        "pool, LR stored": feed("stored", Strategy("pool")),
        "pool, LR computed": feed("computed", Strategy("pool")),
        "grid, LR stored": feed("stored", Strategy("grid")),
        "grid, LR computed": feed("computed", Strategy("grid")),
        "random, from files": feed("computed", Strategy("random")),
    }


def contenders(material: Material, patch: int, batch: int) -> dict[str, Contender]:
    """Everything that is compared, by name."""
    files = PngPatches(material.hr, material.lr, patch)
    sub_images = SubImagePatches(material.sub_images, patch)
    return {
        **{name: Contender(partial(pool_batches, pool)) for name, pool in pools(material, batch).items()},
        "batch decode": Contender(partial(decoded_batches, material.hr, material.lr, patch, batch)),
        **{f"PNG, workers: {n}": Contender(partial(loaded_batches, files, batch, n), n) for n in (0, 1, 2)},
        **{f"LMDB, workers: {n}": Contender(partial(loaded_batches, sub_images, batch, n), n) for n in (0, 2)},
    }


def pool_batches(pool: PatchBatches) -> Iterator[Batch]:
    """Ours: copies of slices of the decoded pool, as float32 [N, 3, H, W] in [0, 1]."""
    for step in itertools.count():
        lr, hr = pool.batch_at(step)
        yield to_tensor(lr), to_tensor(hr)


def decoded_batches(hr: list[Path], lr: list[Path], patch: int, batch: int) -> Iterator[Batch]:
    """One picture decoded a batch, the way of idealo's image-super-resolution: float64 [N, H, W, 3] in [0, 1].

    As there, the whole picture is divided by 255 before it is cut. Its search for patches that are not flat is left
    out, which makes this one faster.
    """
    rng = np.random.default_rng(SEED)
    while True:
        pairs: list[list[npt.NDArray[np.float64]]] = []
        number = rng.integers(len(hr))
        low, high = (np.asarray(Image.open(files[number])) / 255 for files in (lr, hr))
        for _ in range(batch):
            (y, x), turn = random_place(rng, low.shape[:2], patch)
            cuts = low[y : y + patch, x : x + patch], high[y * SCALE :, x * SCALE :][: patch * SCALE, : patch * SCALE]
            pairs.append([np.rot90(cut[:, :: 1 - 2 * (turn & 1)], turn >> 1) for cut in cuts])
        yield [np.stack(side) for side in zip(*pairs, strict=True)]


class PngPatches(Dataset[tuple[Tensor, Tensor]]):
    """A patch is cut from a random picture, whose two PNG files are decoded for it: float32 [3, H, W] in [0, 1]."""

    def __init__(self, hr: list[Path], lr: list[Path], patch: int) -> None:
        self._hr, self._lr, self._patch = hr, lr, patch

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        rng = np.random.default_rng([SEED, number])
        picture = rng.integers(len(self._hr))
        return cut_pair(rng, self._lr[picture], self._hr[picture], self._patch)


class SubImagePatches(Dataset[tuple[Tensor, Tensor]]):
    """The same from an LMDB of PNG sub-images, the way of BasicSR: two small decodings a patch."""

    def __init__(self, folder: Path, patch: int) -> None:
        self._folder, self._patch = folder, patch
        self._database: Any = None
        self._process = 0

    def __getitem__(self, number: int) -> tuple[Tensor, Tensor]:
        if self._process != os.getpid():  # each process opens its own, as LMDB demands; a worker inherits one
            if self._database:
                self._database.close()
            self._database = lmdb.open(str(self._folder), readonly=True, lock=False, readahead=False)
            self._process = os.getpid()
        rng = np.random.default_rng([SEED, number])
        picture = rng.integers(self._database.stat()["entries"] // 2)
        with self._database.begin() as transaction:
            lr, hr = (io.BytesIO(transaction.get(f"{side}/{picture}".encode())) for side in ("lr", "hr"))
        return cut_pair(rng, lr, hr, self._patch)


def loaded_batches(patches: Dataset[tuple[Tensor, Tensor]], batch: int, workers: int) -> Iterator[Batch]:
    """Batches of a PyTorch data loader with so many worker processes."""
    return iter(DataLoader(patches, batch, sampler=itertools.count(), num_workers=workers))


def cut_pair(
    rng: np.random.Generator, lr: Path | io.BytesIO, hr: Path | io.BytesIO, patch: int
) -> tuple[Tensor, Tensor]:
    """A random, turned pair of patches of two encoded pictures: float32 [3, H, W] in [0, 1]."""
    with Image.open(lr) as low, Image.open(hr) as high:
        (y, x), turn = random_place(rng, (low.height, low.width), patch)
        sides = (image.crop((x * s, y * s, (x + patch) * s, (y + patch) * s)) for image, s in ((low, 1), (high, SCALE)))
        cuts = (turned(np.asarray(side), turn).transpose(2, 0, 1) for side in sides)
        low_patch, high_patch = (torch.from_numpy(np.ascontiguousarray(cut)).float().div_(255) for cut in cuts)
    return low_patch, high_patch


def random_place(rng: np.random.Generator, size: tuple[int, ...], patch: int) -> tuple[tuple[int, int], int]:
    """(y, x) of a patch in a low-resolution picture of `size` (height, width), and a turn in 0..7."""
    y, x = (int(rng.integers(side - patch + 1)) for side in size)
    return (y, x), int(rng.integers(8))


def photograph(seed: int, width: int, height: int) -> Pixels:
    """A picture that a PNG encoder finds as hard as a photograph: clouds, edges, grain; uint8 [H, W, 3]."""
    rng = np.random.default_rng(seed)
    pixels = np.full((height, width, 3), 120, np.float32)
    for octave in range(1, 9):
        rows, columns = (height >> octave) + 2, (width >> octave) + 2
        gray = rng.standard_normal((rows, columns), np.float32)
        for channel in range(3):
            noise = Image.fromarray(gray + 0.25 * rng.standard_normal((rows, columns), np.float32))
            cloud = np.asarray(noise.resize((width, height), Image.Resampling.BICUBIC))
            pixels[..., channel] += 1.1 * 2 ** (0.68 * octave) * cloud
    picture = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    draw = ImageDraw.Draw(picture, "RGBA")
    for shape in [draw.ellipse, draw.rectangle] * 20:
        (x, y), (half_width, half_height) = rng.integers(0, (width, height)), rng.uniform(0.02, 0.2, 2) * height
        box = (x - half_width, y - half_height, x + half_width, y + half_height)
        shape(box, fill=(*rng.integers(0, 256, 3).tolist(), 110))
    grain = 2 * rng.standard_normal(pixels.shape, np.float32)
    return np.asarray(np.clip(np.asarray(picture) + grain + 0.5, 0, 255), np.uint8)


def small_index(folder: Path, width: int, height: int, patch: int) -> Path:
    """An index of four such pictures, made in `folder`; where it lies."""
    files = [folder / f"{number}.png" for number in range(4)]
    for number, path in enumerate(files):
        Image.fromarray(photograph(number, width, height)).save(path)
    (folder / "index").mkdir()
    build(files, folder / "index", patch)
    return folder / "index"


def prepare(folder: Path, images: int, width: int, height: int, patch: int) -> Material:
    """Make the pictures and all forms of them in `folder`."""
    hr, lr = ([folder / side / f"{number}.png" for number in range(images)] for side in ("hr", "lr"))
    for name in ("hr", "lr", "computed", "stored"):
        (folder / name).mkdir()

    def make(number: int) -> list[tuple[bytes, bytes]]:
        high = photograph(number, width, height)
        low = downscale(high, SCALE)
        Image.fromarray(high).save(hr[number])
        Image.fromarray(low).save(lr[number])
        return list(sub_images(low, high))

    database = lmdb.open(str(folder / "sub-images"), map_size=2**36)
    with ThreadPoolExecutor(CORES) as pool, database.begin(write=True) as transaction:
        for number, (low, high) in enumerate(itertools.chain.from_iterable(pool.map(make, range(images)))):
            transaction.put(f"lr/{number}".encode(), low)
            transaction.put(f"hr/{number}".encode(), high)
    database.close()
    indexes: dict[LowResolution, Path] = {"stored": folder / "stored", "computed": folder / "computed"}
    for low_resolution, place in indexes.items():
        build(hr, place, patch, low_resolution)
    return Material(hr, lr, folder / "sub-images", indexes)


def sub_images(low: Pixels, high: Pixels) -> Iterator[tuple[bytes, bytes]]:
    """A picture as PNG sub-images (low, high), compressed as BasicSR does; its overlap, which costs no time, left out.

    The last ones of a row or column end at the border.
    """
    side = SUB_IMAGE // SCALE
    starts = ([*range(0, length - side, side), length - side] for length in low.shape[:2])
    for y, x in itertools.product(*starts):
        cuts = low[y : y + side, x : x + side], high[y * SCALE :, x * SCALE :][:SUB_IMAGE, :SUB_IMAGE]
        streams = io.BytesIO(), io.BytesIO()
        for cut, stream in zip(cuts, streams, strict=True):
            Image.fromarray(cut).save(stream, "PNG", compress_level=3)
        yield streams[0].getvalue(), streams[1].getvalue()


def patches_per_second(contender: Contender, seconds: float) -> float:
    """Patches delivered a second, over at least `seconds` and whole turns of all workers."""
    batches = contender.batches()
    turn = max(1, contender.workers)
    for _ in range(turn):
        next(batches)
    patches, start = 0, time.perf_counter()
    while True:
        for _ in range(turn):
            patches += len(next(batches)[0])
        if (elapsed := time.perf_counter() - start) >= seconds:
            return patches / elapsed


def measure_feeds(entries: dict[str, Contender], seconds: float, rounds: int, patch: int) -> list[dict[str, Any]]:
    """A row for each contender: medians over the rounds."""
    rates: dict[str, list[float]] = {name: [] for name in entries}
    for number in range(rounds):
        for name, contender in entries.items():
            rates[name].append(patches_per_second(contender, seconds))
        say(f"feeding, round {number + 1} of {rounds}: {', '.join(f'{k} {v[-1]:.0f}' for k, v in rates.items())}")
    bytes_of_pair = 3 * patch**2 * (1 + SCALE**2)
    medians = {name: statistics.median(values) for name, values in rates.items()}
    return [
        {"name": name, "patches_per_s": rate, "mb_per_s": rate * bytes_of_pair / 1e6} for name, rate in medians.items()
    ]


def measure_index(files: list[Path], folder: Path, rounds: int, patch: int) -> list[dict[str, Any]]:
    """Building an index beside decoding the same files with all cores; and the memory of builds of once and twice."""

    def index() -> None:
        with tempfile.TemporaryDirectory(dir=folder) as target:
            build(files, Path(target), patch)

    def decode() -> None:
        with ThreadPoolExecutor(CORES) as pool:
            list(pool.map(load, files))

    def load(path: Path) -> None:
        with Image.open(path) as image:
            image.load()

    seconds: dict[str, list[float]] = {"index build": [], "Pillow decode, all cores": []}
    for number in range(rounds):
        for name, work in zip(seconds, (index, decode), strict=True):
            start = time.perf_counter()
            work()
            seconds[name].append(time.perf_counter() - start)
        say(f"index, round {number + 1} of {rounds}: {', '.join(f'{k} {v[-1]:.1f} s' for k, v in seconds.items())}")
    rows: list[dict[str, Any]] = [
        {"name": name, "files_per_s": len(files) / statistics.median(values)} for name, values in seconds.items()
    ]
    mirrored = [folder / f"mirrored-{path.name}" for path in files]  # other content, or they would be left out
    for path, copy in zip(files, mirrored, strict=True):
        Image.open(path).transpose(Image.Transpose.FLIP_LEFT_RIGHT).save(copy, compress_level=1)
    rows[0]["peak_mb"] = peak_mb(files, folder, patch)
    rows[0]["peak_mb_of_twice_as_many"] = peak_mb(files + mirrored, folder, patch)
    return rows


def peak_mb(files: list[Path], folder: Path, patch: int) -> float:
    """Largest resident memory in MB of a fresh process that builds an index of `files`."""
    with tempfile.TemporaryDirectory(dir=folder) as target:
        command = [sys.executable, "-m", "benchmarks._build", str(patch), target, *map(str, files)]
        return float(subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.split()[-1])


def measure_share(index: Path, steps: int) -> dict[str, float]:
    """What feeding takes of a training step of the smallest network that ships, that of the profile sample."""
    params = load_params(Path("profiles/sample.yaml"))
    config = {**dataclasses.asdict(params.model), "scale": params.scale}
    network = build_network(config).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.Adam(network.parameters())
    pool = PatchBatches(PatchIndex(index), params.train.batch, SEED, 0.0)
    feeding, computing = [], []
    for step in range(steps):
        start = time.perf_counter()
        lr, hr = (to_tensor(pixels) for pixels in pool.batch_at(step))
        fed = time.perf_counter()
        optimizer.zero_grad()
        l1_loss(network(lr), hr).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        computing.append(time.perf_counter() - fed)
        feeding.append(fed - start)
    feed, compute = (1000 * statistics.median(times) for times in (feeding, computing))
    return {"patch": PatchIndex(index).patch, "feed_ms": feed, "step_ms": compute, "share": feed / (feed + compute)}


def ratios(feeds: list[dict[str, Any]], index: list[dict[str, Any]]) -> dict[str, float]:
    """Ours over the fastest rival of each kind."""

    def pool_vs(kind: str) -> float:
        ours: float = feeds[0]["patches_per_s"]
        return ours / max(float(row["patches_per_s"]) for row in feeds if row["name"].startswith(kind))

    return {
        "pool_vs_batch_decode": pool_vs("batch decode"),
        "pool_vs_png": pool_vs("PNG"),
        "pool_vs_lmdb": pool_vs("LMDB"),
        "index_vs_decode": index[0]["files_per_s"] / index[1]["files_per_s"],
    }


def options() -> argparse.Namespace:
    """The command line."""
    arguments = parser(__doc__, "data")
    arguments.add_argument("--images", type=int, default=16, help="pictures, at least 2 (default 16)")
    arguments.add_argument("--size", type=int, nargs=2, default=(2040, 1356), metavar=("W", "H"), help="of a picture")
    arguments.add_argument("--seconds", type=float, default=3, help="for each contender and round (default 3)")
    arguments.add_argument("--rounds", type=int, default=3, help="rounds; the median is reported (default 3)")
    arguments.add_argument("--patch", type=int, default=48, help="low-resolution side of a patch (default 48)")
    arguments.add_argument("--batch", type=int, default=16, help="patches in a batch (default 16)")
    chosen = arguments.parse_args()
    if chosen.images < 2 or min(chosen.size) < SUB_IMAGE:
        arguments.error(f"it takes at least 2 pictures, of at least {SUB_IMAGE} x {SUB_IMAGE} pixels")
    return chosen


def main() -> None:
    """Make the pictures, time every contender, report."""
    chosen = options()
    keep_freed_memory()  # as training does; in favour of all that run in this process
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        say(f"making {chosen.images} pictures")
        width, height = chosen.size
        material = prepare(folder, chosen.images, width, height, chosen.patch)
        png_mb = statistics.mean(path.stat().st_size for path in material.hr) / 1e6
        entries = contenders(material, chosen.patch, chosen.batch)
        feeds = measure_feeds(entries, chosen.seconds, chosen.rounds, chosen.patch)
        index = measure_index(material.hr, folder, chosen.rounds, chosen.patch)
        say("feeding beside training")
        share = measure_share(material.indexes["computed"], 20 * chosen.rounds)
    report = {
        "pictures": {"count": chosen.images, "width": width, "height": height, "png_mb": png_mb},
        "patch": chosen.patch,
        "batch": chosen.batch,
        "seconds": chosen.seconds,
        "rounds": chosen.rounds,
        "rows": feeds + index,
        "training_step": share,
        "ratios": ratios(feeds, index),
    }
    publish(
        chosen,
        report,
        tabulate([row.values() for row in feeds], ["feeding", "patches/s", "MB/s"], floatfmt=".1f"),
        tabulate(
            [row.values() for row in index], ["indexing", "files/s", "peak MB", "of twice as many"], floatfmt=".1f"
        ),
        f"feeding takes {share['feed_ms']:.1f} ms beside {share['step_ms']:.0f} ms of training: {share['share']:.1%}",
        tabulate(report["ratios"].items(), ["ours is faster by", "times"], floatfmt=".2f"),
    )


if __name__ == "__main__":
    main()
