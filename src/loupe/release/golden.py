"""Golden pictures: small inputs of every awkward kind, with what each model makes of them, for verify.py to compare.

    golden/golden.json          which files belong together, and how far off a model may be (verify.py shows its form)
    golden/NAME.png             an input: colour, gray, or with transparency, which belongs on white
    golden/NAME.model.png       what model.onnx makes of it, and so on for each ONNX file

What model.onnx must make comes from PyTorch, so the pictures also tell that the export is right.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path, PurePath

import numpy as np
from PIL import Image

from loupe.imaging.files import atomic_file, on_white, write_png
from loupe.imaging.resize import Pixels
from loupe.patches.index import PatchIndex

FOLDER = "golden"


@dataclass(frozen=True)
class Tolerance:
    """How far a model may be off: the largest difference of a sample, and the mean over all; grey levels."""

    largest: int
    mean: float


# Rounding to 8 bits turns differences in a float's last bits into a level, in few samples.
FLOAT = Tolerance(1, 0.01)
# The sums of integers are the same everywhere; what is rounded between them is not. Computed in floats throughout, the
# validation pictures come out 2 levels off at most, 0.003 on average.
INT8 = Tolerance(4, 0.02)


def write_golden(
    folder: Path, inputs: Mapping[str, Pixels], models: Mapping[str, tuple[Callable[[Pixels], Pixels], Tolerance]]
) -> None:
    """Write the golden pictures below the bundle `folder`.

    Args:
        folder: the bundle.
        inputs: by name, uint8 [H, W, 3], [H, W] gray, or [H, W, 4] with transparency.
        models: by the name of its file, what gives the expected picture, and how far from that the file may be.
    """
    cases = []
    for name, pixels in inputs.items():
        path = f"{FOLDER}/{name}.png"
        write_png(folder / path, pixels)
        opaque = np.asarray(on_white(Image.fromarray(pixels)))
        expected = {model: f"{FOLDER}/{name}.{PurePath(model).stem}.png" for model in models}
        for model, (enlarge, _) in models.items():
            write_png(folder / expected[model], enlarge(opaque))
        cases.append({"input": path, "expected": expected})
    tolerances = {model: asdict(tolerance) for model, (_, tolerance) in models.items()}
    with atomic_file(folder / FOLDER / "golden.json") as stream:
        content = {"format": 1, "models": tolerances, "cases": cases}
        stream.write((json.dumps(content, indent=2) + "\n").encode())


def golden_inputs(index: PatchIndex) -> dict[str, Pixels]:
    """Low-resolution inputs by name: parts of the first validation picture of each set, and what is easily forgotten.

    The same for the same index: uint8 [H, W, 3], [H, W] or [H, W, 4].
    """
    firsts: dict[str, int] = {}
    for number, row in enumerate(index.images):
        if row.split == "valid":
            firsts.setdefault(row.set, number)
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (32, 32, 3), np.uint8)
    pictures = {f"of-{name}": index.lr(number) for name, number in firsts.items()}
    last = list(pictures.values())[-1] if pictures else noise
    middle = _middle(last, 37, 53)
    ramp = np.linspace(0, 255, middle[..., 0].size).astype(np.uint8).reshape(middle.shape[:2])
    return {
        **{name: _middle(lr, 64, 64) for name, lr in pictures.items()},
        "odd": middle,
        "gray": np.asarray(Image.fromarray(middle).convert("L")),
        "transparent": np.dstack([middle, ramp]),
        "white": np.full((24, 24, 3), 255, np.uint8),  # a packshot's background must stay as it is
        "noise": noise,
        "row": noise[:1],
        "column": noise[:, :1],
        "pixel": noise[:1, :1],
    }


def _middle(pixels: Pixels, height: int, width: int) -> Pixels:
    """The middle of [H, W, 3], at most so large."""
    top, left = (max(0, (side - wanted) // 2) for side, wanted in zip(pixels.shape, (height, width), strict=False))
    return pixels[top : top + height, left : left + width]
