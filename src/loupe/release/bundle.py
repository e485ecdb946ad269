"""The bundle: what the serving team receives, and may check and run without loupe, PyTorch or DVC.

    bundle/
      model.onnx              pixels in, pixels out, float32
      model-int8.onnx         the same in 8-bit integers, if it is good enough; else metrics.json says why
      model.safetensors, config.json     the network for PyTorch
      contract.json           inputs, outputs, colour, transparency, sizes, tiles
      golden/, verify.py      pictures to check the models with, and what checks them and every file
      metrics.json            scores on validation pictures, and what int8 costs
      examples/, MODEL_CARD.md           for people
      lineage.json            what it was made from
      MANIFEST.json           every file's size and sha256, written last

Made twice from the same model and pictures all files are the same bytes. What tells of a moment or a machine (commit,
time, memory) is in the record of its promotion.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from loupe.errors import InputError
from loupe.evaluation.pairs import Pair
from loupe.evaluation.ranking import PER_PICTURE, patch_scores, select
from loupe.evaluation.slices import kinds_of
from loupe.evaluation.summary import gain as gain_over
from loupe.imaging.files import atomic_file, atomic_folder, write_png
from loupe.imaging.metrics import luma32
from loupe.imaging.resize import Pixels, upscale
from loupe.models.export import compact, halo, to_onnx
from loupe.models.inference import choose_device, super_resolve
from loupe.models.int8 import quantised
from loupe.models.onnx import OnnxModel
from loupe.models.rdn import RDN
from loupe.models.weights import CONFIG, WEIGHTS, describe, load_network
from loupe.patches.batches import PatchBatches
from loupe.patches.index import PatchIndex
from loupe.release import verify
from loupe.release.admission import Limits, Loss, SetLoss, by_set, loss, refusals
from loupe.release.card import model_card
from loupe.release.golden import FLOAT, INT8, Tolerance, golden_inputs, write_golden
from loupe.release.manifest import identity, write_manifest
from loupe.release.measure import SIDES

ONNX, ONNX_INT8 = "model.onnx", "model-int8.onnx"
TILE = 256  # input pixels a side, without halo; a D4 C3 G32 takes 230 MiB for it
BATCHES, BATCH = 32, 8  # patches to calibrate with
EXAMPLES = 3  # of the best patches, and of the worst
GAP = 4  # pixels between the panels of an example


@dataclass(frozen=True)
class Source:
    """What a bundle is made of.

    model: folder of the network. index: the patch index, for calibration and golden pictures. metrics: evaluate.json of
    that network. licences: of the pictures, Markdown. jpeg_share: of the product patches in training that were
    compressed. lineage: what lineage.json is to hold.
    """

    model: Path
    index: PatchIndex
    metrics: Path
    licences: str
    jpeg_share: float
    lineage: Mapping[str, Any]


@dataclass(frozen=True)
class Bundle:
    """What was made: the bundle's identity (manifest.py), and why there is no int8 variant, where there is none."""

    identity: str
    without_int8: list[str]


def write_bundle(folder: Path, source: Source, pairs: Iterable[Pair], int8: Limits | None) -> Bundle:
    """Make the bundle, check it as its receivers would, and put it in the place of `folder`.

    Args:
        folder: where; what is there is replaced when all went well.
        source: what it is made of.
        pairs: the validation pictures.
        int8: what the int8 variant may cost; None: it is not tried.

    Raises:
        InputError: the metrics are another model's, or the bundle does not do on this machine what it must.
    """
    metrics = json.loads(source.metrics.read_text())
    facts = describe(source.model)
    if metrics["model"].get("sha256") != facts["sha256"]:
        raise InputError(f"{source.metrics}: scores of another model than {source.model}; run `dvc repro evaluate`")
    network = load_network(source.model)
    with atomic_folder(folder) as out:
        for name in (WEIGHTS, CONFIG):
            shutil.copyfile(source.model / name, out / name)
        exported = to_onnx(network)
        (out / ONNX).write_bytes(compact(exported).SerializeToString(deterministic=True))
        variant: OnnxModel | None = None
        if int8 is not None:
            (out / ONNX_INT8).write_bytes(quantised(exported, _calibration(source.index)))
            variant = OnnxModel(out / ONNX_INT8)
        sets, examples = _look(out, network, variant, pairs)
        without_int8 = ["not wanted: package.int8 is false"] if int8 is None else refusals(sets, int8)
        models: dict[str, tuple[Callable[[Pixels], Pixels], Tolerance]] = {}
        models[ONNX] = partial(super_resolve, network.cpu()), FLOAT
        if variant is not None and not without_int8:
            models[ONNX_INT8] = variant, INT8
        elif variant is not None:
            (out / ONNX_INT8).unlink()
        write_golden(out, golden_inputs(source.index), models)
        shutil.copyfile(verify.__file__, out / "verify.py")
        metrics["int8"] = {
            "admitted": not without_int8,
            "reasons": without_int8,
            "limits": None if int8 is None else asdict(int8),
            "sets": {name: asdict(found) for name, found in sets.items()},
        }
        contract = _contract(network, list(models))
        told = (metrics, contract, source.licences, source.jpeg_share, examples)
        _write_json(out / "metrics.json", metrics)
        _write_json(out / "contract.json", contract)
        _write_json(out / "lineage.json", source.lineage)
        (out / "MODEL_CARD.md").write_text(model_card(facts["label"], *told), encoding="utf-8")
        made = identity(write_manifest(out))
        entries, wrong = verify.check_files(out)
        wrong += verify.check_models(out, entries)[1]
        if wrong:
            raise InputError(f"the bundle fails its own check: {'; '.join(wrong)}")
    return Bundle(made, without_int8)


def _calibration(index: PatchIndex) -> Iterator[Pixels]:
    """Low-resolution training patches, half of them of products: their flat white is what shows errors first."""
    batches = PatchBatches(index, BATCH, seed=0, product_share=0.5)
    return (batches.batch_at(step)[0] for step in range(BATCHES))


def _look(
    out: Path, network: RDN, variant: OnnxModel | None, pairs: Iterable[Pair]
) -> tuple[dict[str, SetLoss], list[dict[str, Any]]]:
    """Enlarge every validation picture: what the int8 variant costs, and the patches to show, as pictures."""
    network.to(choose_device())
    losses: list[tuple[str, Loss]] = []
    tables: list[pd.DataFrame] = []
    panels: dict[tuple[str, str, int, int], Pixels] = {}
    for pair in pairs:
        sr = super_resolve(network, pair.lr)
        if variant is not None:
            losses.append((pair.set, loss(pair.hr, sr, variant(pair.lr), network.scale)))
        bicubic = upscale(pair.lr, network.scale)
        hr_y, sr_y, bicubic_y = (luma32(pixels) for pixels in (pair.hr, sr, bicubic))
        table = patch_scores(pair.hr, hr_y, sr_y, bicubic_y, kinds_of(pair.hr), network.scale)
        table.insert(0, "set", pair.set)
        table.insert(1, "image", pair.name)
        table["gain_db"] = [gain_over(*scores) for scores in table[["psnr_y", "bicubic_psnr_y"]].to_numpy().tolist()]
        shown = pd.concat(select(table, PER_PICTURE, best="gain_db")).drop_duplicates(["y", "x"])
        nearest = pair.lr.repeat(network.scale, axis=0).repeat(network.scale, axis=1)
        for y, x, height, width in shown[["y", "x", "height", "width"]].to_numpy(int).tolist():
            cut = np.s_[y : y + height, x : x + width]
            panels[pair.set, pair.name, y, x] = _side_by_side([view[cut] for view in (nearest, bicubic, sr, pair.hr)])
        tables.append(shown)
    if not tables:
        raise InputError("the index holds no validation pictures; raise valid_share, then run `dvc repro`")
    gain, worst = select(pd.concat(tables, ignore_index=True), EXAMPLES, best="gain_db")
    examples = []
    for kind, table in (("gain", gain), ("worst", worst)):
        for number, row in enumerate(table.to_dict("records"), start=1):
            file = f"examples/{kind}-{number}.png"
            write_png(out / file, panels[row["set"], row["image"], row["y"], row["x"]])
            keys = ("set", "image", "psnr_y", "bicubic_psnr_y")
            examples.append({"kind": kind, "file": file, **{key: row[key] for key in keys}})
    return by_set(losses), examples


def _side_by_side(views: list[Pixels]) -> Pixels:
    """Views [h, w(, 3)] of the same patch in a row, every pixel twice as large."""
    colour = [np.dstack([view] * 3) if view.ndim == 2 else view for view in views]
    gap = np.full((len(views[0]), GAP, 3), 255, np.uint8)
    row = np.concatenate([part for view in colour for part in (view, gap)][:-1], axis=1)
    return row.repeat(2, axis=0).repeat(2, axis=1)


def _contract(network: RDN, models: list[str]) -> dict[str, Any]:
    """What a program must know to run the models; the same for every bundle of networks of one kind."""
    reach = halo(network)
    return {
        "format": 1,
        "models": {
            name: {"arithmetic": "8-bit integers" if name == ONNX_INT8 else "float32", "input": "pixels"}
            for name in models
        },
        "scale": network.scale,
        "input": {
            "name": "pixels",
            "type": "uint8",
            "shape": ["N", "H", "W", 3],
            "meaning": "red, green, blue in 0..255; rows from the top; N pictures of one size",
        },
        "output": {
            "name": "enlarged",
            "type": "uint8",
            "shape": ["N", f"{network.scale} * H", f"{network.scale} * W", 3],
            "meaning": "as the input; already rounded and clipped",
        },
        "colour": "sRGB, 8 bits. Convert other profiles, CMYK and 16 bits, and apply the EXIF orientation, beforehand",
        "alpha": "no alpha channel: lay the picture on white first, as those it was trained on. To keep transparency, "
        "multiply colours by alpha, enlarge both, alpha as a gray picture, and divide again; `loupe upscale` does so",
        "gray": "repeat it three times; the result is the luma of what comes out: (299 R + 587 G + 114 B) / 1000",
        "limits": {
            "smallest": [1, 1],
            "largest_at_once": [SIDES[-1], SIDES[-1]],
            "reason": "memory grows with H * W; cut larger pictures into tiles",
        },
        "tiles": {
            "side": TILE,
            "halo": reach,
            "meaning": f"the output does not depend on input pixels more than {reach} away: run windows of side + "
            f"2 * halo, cut at the picture's borders, and keep the middle",
        },
        "measured": "time and memory by size of the input: `measured` in the record of the promotion",
        "check": "python verify.py",
    }


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    with atomic_file(path) as stream:
        stream.write((json.dumps(content, indent=2, ensure_ascii=False) + "\n").encode())
