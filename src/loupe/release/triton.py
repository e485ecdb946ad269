"""A bundle as NVIDIA's Triton Inference Server wants its models: a folder of a repository.

    repository/rdn-x2/config.pbtxt
    repository/rdn-x2/1/model.onnx

Triton puts requests of one size into a batch; pictures of other sizes run on their own. Source of the format: Triton's
documentation of model repositories and configurations.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path

from loupe.errors import InputError
from loupe.imaging.files import atomic_folder
from loupe.release.manifest import verify_folder

CONFIG = """\
name: "{name}"
backend: "onnxruntime"
max_batch_size: {batch}
input [
  {{
    name: "{given}"
    data_type: TYPE_UINT8
    dims: [ -1, -1, 3 ]  # height, width, channels; the batch is in front
  }}
]
output [
  {{
    name: "{made}"
    data_type: TYPE_UINT8
    dims: [ -1, -1, 3 ]
  }}
]
dynamic_batching {{ }}
"""


def export(bundle: Path, repository: Path, name: str = "rdn-x2", model: str = "model.onnx", batch: int = 8) -> Path:
    """Write `repository`/`name` from a bundle, whole or not at all; another model of that name is replaced.

    Args:
        bundle: as the registry gives it; it is checked first.
        repository: Triton's model repository.
        name: letters, digits, `-`, `_` and `.`: what clients ask for.
        model: which file of the bundle.
        batch: pictures in a batch, at most.

    Returns:
        The folder written.

    Raises:
        InputError: the name cannot be one, or the bundle has no such model. ManifestError: the bundle is damaged.
    """
    check_name(name)
    verify_folder(bundle)
    contract = json.loads((bundle / "contract.json").read_text())
    if model not in contract["models"]:
        raise InputError(f"{bundle}: has no {model}; there are {', '.join(contract['models'])}")
    given, made = contract["input"]["name"], contract["output"]["name"]
    with atomic_folder(repository / name) as folder:
        (folder / "1").mkdir()
        shutil.copyfile(bundle / model, folder / "1" / "model.onnx")
        (folder / "config.pbtxt").write_text(CONFIG.format(name=name, batch=batch, given=given, made=made))
    return repository / name


def check_name(name: str) -> str:
    """`name`, if a model can be called so on a server: it is part of paths, addresses and queries there.

    Raises:
        InputError: it cannot.
    """
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise InputError(f"{name!r}: no name for a model; take letters, digits, -, _ and .")
    return name
