"""Ways to enlarge a picture that are scored side by side: networks, ONNX models, and what any program offers."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from loupe.errors import InputError
from loupe.imaging.resize import Pixels, upscale

Enlarge = Callable[[Pixels], Pixels]


@dataclass(frozen=True)
class Method:
    """One way.

    key: its name in columns and files. label: its name for people. scale: size factor. enlarge: uint8 [h, w(, 3)] ->
    uint8 [h * scale, w * scale(, 3)]; a ValueError fails that picture only. facts: what reports say about it.
    """

    key: str
    label: str
    scale: int
    enlarge: Enlarge
    facts: dict[str, Any] = field(default_factory=dict)


def bicubic(scale: int, key: str = "bicubic") -> Method:
    """MATLAB's, the usual baseline; the article's column from a drawing program."""
    return Method(key, "bicubic", scale, lambda pixels: upscale(pixels, scale))


def lanczos(scale: int) -> Method:
    """Pillow's, with three lobes: the sharpest of the usual filters."""

    def enlarge(pixels: Pixels) -> Pixels:
        height, width = pixels.shape[:2]
        size = (width * scale, height * scale)
        return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS))

    return Method("lanczos", "Lanczos", scale, enlarge)


def usual(scale: int) -> list[Method]:
    """What every model is compared with."""
    return [bicubic(scale), lanczos(scale)]


def finished(folder: Path, scale: int) -> Method:
    """Pictures that are there already: every pair has its own."""
    return Method("model", folder.name, scale, upscale, {"folder": str(folder)})


def stored(path: Path, key: str = "model", ensemble: bool = False) -> Method:
    """A model: a folder with a network (or its `model.safetensors`), or an ONNX file.

    Args:
        path: where it is.
        key: its name in columns.
        ensemble: average over mirrorings and quarter turns; not for ONNX files.

    Raises:
        ModelError: there is no model, or it is damaged.
    """
    if path.suffix == ".onnx":
        from loupe.models.onnx import OnnxModel  # only where such a model is named

        model = OnnxModel(path)
        return Method(key, model.facts["label"], model.scale, model, model.facts)
    from loupe.models.inference import choose_device, super_resolve  # PyTorch, only where it is needed
    from loupe.models.weights import describe, load_network

    network = load_network(path).to(choose_device())
    facts = describe(path)
    label = f"{facts['label']} self-ensemble" if ensemble else facts["label"]
    return Method(key, label, network.scale, lambda pixels: super_resolve(network, pixels, ensemble), facts)


def compared_with(
    model: Method, champion: Path | None = None, others: list[Path] | None = None, ensemble: Path | None = None
) -> list[Method]:
    """What `model` is scored beside, apart from the `usual`, in the order of the table.

    Args:
        model: what is scored.
        champion: the model in production.
        others: further models, known by their file's name.
        ensemble: the model's own folder, to score its self-ensemble.

    Raises:
        InputError: one is no model, has another scale, or two have the same name.
    """
    methods = [stored(champion, "champion")] if champion else []
    methods += [stored(path, _key(path)) for path in others or []]
    if ensemble:
        methods.append(stored(ensemble, "ensemble", ensemble=True))
    keys = [method.key for method in (model, *usual(model.scale), *methods)]
    for method in methods:
        if method.scale != model.scale:
            raise InputError(
                f"{method.label} enlarges {method.scale} times, {model.label} {model.scale} times; compare "
                "models of one scale"
            )
        if keys.count(method.key) > 1:
            raise InputError(f"two models are called {method.key!r}; rename the file or folder of one")
    return methods


def _key(path: Path) -> str:
    """A name for columns: what the file or folder is called, in letters, digits and underscores."""
    path = path.resolve()
    name = path.parent.name if path.name == "model.safetensors" else path.stem
    return re.sub(r"\W+", "_", name.lower()).strip("_") or "other"
