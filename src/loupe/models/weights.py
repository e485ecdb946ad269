"""A trained network on disk: a folder with `model.safetensors` (weights) and `config.json` (how to build it)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import Tensor

from loupe.errors import InputError
from loupe.imaging.files import atomic_file
from loupe.models.rdn import RDN

NETWORKS = {"rdn": RDN}
WEIGHTS, CONFIG = "model.safetensors", "config.json"
TRAINED_ON = "trained_on"


class ModelError(InputError):
    """A model that cannot be loaded or built; the message names the folder or key and what to do."""


def build_network(config: dict[str, Any]) -> RDN:
    """The network that `config` describes: its `name` and the arguments of its class, such as D, C, G, G0, scale.

    Raises:
        ModelError: an unknown name or argument.
    """
    arguments = dict(config)
    name = arguments.pop("name", None)
    if name not in NETWORKS:
        raise ModelError(f"unknown network {name!r}; known: {', '.join(NETWORKS)}")
    try:
        return NETWORKS[name](**arguments)
    except TypeError as error:
        raise ModelError(f"network {name!r}: {error}") from None


def save_network(folder: Path, network: RDN, config: dict[str, Any], trained_on: str | None = None) -> None:
    """Write `network` and the `config` that builds it into `folder`, weights first.

    A network whose weights are all exact in half precision (`rounded`) takes half the space, and comes back the same.
    trained_on: what the function `trained_on` is to tell; it stands in the head of the file of weights.
    """
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
    if all(torch.equal(half, tensors[name]) for name, half in rounded(tensors).items()):
        tensors = {name: tensor.half() for name, tensor in tensors.items()}
    with atomic_file(folder / WEIGHTS) as stream:
        stream.write(save(tensors, {TRAINED_ON: trained_on} if trained_on else None))  # of two, the order would vary
    with atomic_file(folder / CONFIG) as stream:
        stream.write((json.dumps(config, indent=2) + "\n").encode())


def rounded(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Float32 weights to the nearest that half precision can hold: the files are half as large.

    What that costs is far below what any score shows: 0.00003 dB on Set5 for the network that ships.
    """
    return {name: tensor.half().float() for name, tensor in weights.items()}


def load_network(folder: Path) -> RDN:
    """The network stored in `folder` (or beside the given `model.safetensors`), in evaluation mode on the CPU.

    Raises:
        ModelError: a file is missing or damaged, or weights and configuration do not fit each other.
    """
    folder = folder.parent if folder.name == WEIGHTS else folder
    with _told(folder):
        config = json.loads((folder / CONFIG).read_text())
        tensors = load_file(folder / WEIGHTS)
    network = build_network(config)
    try:
        network.load_state_dict(tensors)
    except RuntimeError as error:
        raise ModelError(f"{folder}: weights do not fit {CONFIG}: {str(error).splitlines()[1].strip()}") from None
    return network.eval()


def trained_on(folder: Path) -> str | None:
    """On what the network in `folder` was trained, such as "PyTorch 2.13.0+cpu, CPU with AVX2"; None: not told.

    Raises:
        ModelError: the weights are missing or damaged.
    """
    with _told(folder), safe_open(folder / WEIGHTS, "pt") as stored:
        told = (stored.metadata() or {}).get(TRAINED_ON)
    return str(told) if told else None


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """Turn files of a model that are missing or damaged into what to do about it."""
    try:
        yield
    except FileNotFoundError as error:
        raise ModelError(f"{folder}: no model here: {Path(error.filename or WEIGHTS).name} is missing") from None
    except (json.JSONDecodeError, UnicodeDecodeError, SafetensorError) as error:
        raise ModelError(f"{folder}: the model is damaged ({error}); train or pull it again") from None


def describe(folder: Path) -> dict[str, Any]:
    """Facts about the model in `folder` for reports: label, configuration, and the sha256 of its weights."""
    folder = folder.parent if folder.name == WEIGHTS else folder
    config = json.loads((folder / CONFIG).read_text())
    sizes = " ".join(f"{key}{config[key]}" for key in ("D", "C", "G") if key in config)
    digest = hashlib.sha256((folder / WEIGHTS).read_bytes()).hexdigest()
    return {"label": f"{config['name'].upper()} {sizes}", "config": config, "sha256": digest}
