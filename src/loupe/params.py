"""`params.yaml`: every knob of the pipeline, as frozen dataclasses that refuse what they do not know.

A profile in `profiles/` is a small YAML laid over `profiles/sample.yaml`; `loupe profile NAME` writes the outcome to
`params.yaml`, so that the file always shows, and DVC always tracks, exactly what runs.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, cast

from pydantic import ConfigDict, Field, PlainValidator, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass
from pydantic_core import PydanticCustomError
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from loupe.errors import InputError
from loupe.imaging.files import atomic_file

STRICT = ConfigDict(extra="forbid", strict=True)
BASE_PROFILE = "sample"


class ParamsError(InputError):
    """A mistake in a parameter file; the message names the file, the key and the allowed values."""


@dataclass(frozen=True, config=STRICT)
class PhotosPath:
    """One's own pictures in a folder; a relative path begins at the project's root folder."""

    path: str


@dataclass(frozen=True, config=STRICT)
class PhotosUrl:
    """One's own pictures elsewhere: one archive (https://, http://), or everything below an S3 prefix (s3://)."""

    url: str


Photos = Literal["sample", "div2k"] | PhotosPath | PhotosUrl


def _photos(value: Any) -> Photos:
    """The parameter `photos`; a union's own errors would name each of its members."""
    if value in ("sample", "div2k"):
        return cast(Photos, value)
    if not isinstance(value, dict):
        raise PydanticCustomError("photos", "choose sample, div2k, {path: FOLDER} or {url: ADDRESS}")
    if len(value) != 1 or (key := next(iter(value))) not in ("path", "url"):
        raise PydanticCustomError("photos", "give one of {path: FOLDER} and {url: ADDRESS}, and no other key")
    given = value[key]
    if not isinstance(given, str) or not given.strip():
        raise PydanticCustomError("photos", "the {key} must be a text", {"key": key})
    if key == "path":
        return PhotosPath(given)
    if not re.match(r"(https?|s3)://[^/]", given):
        raise PydanticCustomError("photos", "the url must begin with https://, http:// or s3://, and name a place")
    return PhotosUrl(given)


Probability = Annotated[float, Field(ge=0, le=1)]


@dataclass(frozen=True, config=STRICT)
class Patches:
    """How pictures are cut into patches, and which ones make a batch; profiles/sample.yaml explains the keys."""

    size: Annotated[int, Field(ge=8, le=512)]
    low_resolution: Literal["computed", "stored"]
    reductions: tuple[Annotated[int, Field(ge=2, le=16)], ...]
    strategy: Literal["pool", "grid", "random"]
    images: Annotated[int, Field(ge=1)]
    per_image: Annotated[int, Field(ge=1)]
    difficulty: Annotated[float, Field(ge=0, lt=1)]
    channel_shuffle: Probability


@dataclass(frozen=True, config=STRICT)
class Degradations:
    """What is done to product images beside reducing them; docs/degradations.md explains the keys."""

    blur_probability: Probability
    blur_sigma: tuple[float, float]
    shot_probability: Probability
    shot_peak: tuple[float, float]
    noise_probability: Probability
    noise_sigma: tuple[float, float]
    jpeg_probability: Probability
    jpeg_quality: tuple[int, int]
    jpeg_420_share: Probability


@dataclass(frozen=True, config=STRICT)
class Model:
    """The network; D, C, G, G0 are the RDN paper's."""

    name: Literal["rdn"]
    D: Annotated[int, Field(ge=1, le=64)]
    C: Annotated[int, Field(ge=1, le=64)]
    G: Annotated[int, Field(ge=1, le=512)]
    G0: Annotated[int, Field(ge=1, le=512)]
    residual: Literal["none", "nearest", "bicubic"]


@dataclass(frozen=True, config=STRICT)
class Train:
    """The training run; see `profiles/sample.yaml` for the meaning and the reason of each value."""

    seed: Annotated[int, Field(ge=0, lt=2**32)]
    init: str | None
    steps: Annotated[int, Field(ge=1)]
    batch: Annotated[int, Field(ge=1, le=4096)]
    product_share: Probability
    loss: Literal["l1", "mse", "charbonnier"]
    optimizer: Literal["adam", "muon"]
    lr: Annotated[float, Field(gt=0, le=1)]
    beta2: Annotated[float, Field(ge=0, lt=1)]
    warmup: Annotated[float, Field(ge=0, lt=1)]
    schedule: Literal["cosine", "halving"]
    halve_every: Annotated[int, Field(ge=1)]
    clip: Annotated[float, Field(ge=0)]
    ema: Annotated[float, Field(ge=0, lt=1)]
    validate_every: Annotated[int, Field(ge=1)]
    patience: Annotated[int, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Evaluation:
    """What the trained network is compared with, beside bicubic and Lanczos enlargement."""

    champion: str | None
    ensemble: bool
    benchmarks: str | None


@dataclass(frozen=True, config=STRICT)
class Package:
    """What the bundle holds beside the float model."""

    int8: bool


@dataclass(frozen=True, config=STRICT)
class Limit:
    """Where a fact of a picture becomes a warning, and where it is critical; null: never."""

    critical: float | None
    warning: float | None


@dataclass(frozen=True, config=STRICT)
class Quality:
    """What pictures must be like to be trained on; profiles/sample.yaml gives the reason of each limit."""

    min_side: Limit
    min_contrast: Limit
    max_white_share: Limit
    min_sharpness: Limit
    min_detail: Limit
    max_doubling: Limit
    max_blockiness: Limit
    min_jpeg_quality: Limit
    max_noise: Limit


Loss = Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Promotion:
    """What a model must be like to replace the one in production; profiles/sample.yaml gives the reason of each."""

    min_images: Annotated[int, Field(ge=2)]
    min_gain: Annotated[float, Field(ge=0)]
    min_gain_over_bicubic: Annotated[float, Field(ge=0)]
    max_ssim_loss: Loss
    max_image_loss: Loss
    max_patch_loss: Loss
    max_set_loss: Loss
    max_slice_loss: Loss
    max_flat_loss: Loss
    max_latency_ratio: Annotated[float, Field(gt=0)]
    max_onnx_levels: Annotated[float, Field(ge=0)]


@dataclass(frozen=True, config=STRICT)
class Retrain:
    """When new pictures are reason to train anew; profiles/sample.yaml gives the reason of each."""

    drift_share: Annotated[float, Field(ge=0, le=1)]
    new_images: Annotated[int, Field(ge=1)]
    champion_days: Annotated[float, Field(gt=0)]
    min_batch: Annotated[int, Field(ge=2)]


@dataclass(frozen=True, config=STRICT)
class Params:
    """Everything in `params.yaml`."""

    photos: Annotated[Photos, PlainValidator(_photos)]
    valid_share: Annotated[float, Field(ge=0, lt=1)]
    scale: Annotated[int, Field(ge=2, le=4)]
    patches: Patches
    degradations: Degradations
    model: Model
    train: Train
    quality: Quality
    evaluation: Evaluation
    package: Package
    promotion: Promotion
    retrain: Retrain


def load_params(path: Path = Path("params.yaml")) -> Params:
    """Read and check a parameter file.

    Raises:
        ParamsError: it is missing, no YAML, or holds an unknown, missing or out-of-range key.
    """
    return check_params(_read_yaml(path), path)


def check_params(values: Any, path: Path) -> Params:
    """Turn parsed YAML into `Params`; `path` is named in errors. Raises ParamsError."""
    try:
        return TypeAdapter(Params).validate_json(json.dumps(values, default=str))  # strict, yet builds nested sections
    except ValidationError as error:
        raise ParamsError("\n".join(f"{path}: {_explain(item)}" for item in error.errors())) from None


def profile_names(folder: Path = Path("profiles")) -> list[str]:
    """The profiles in `folder`, sorted."""
    return sorted(path.stem for path in folder.glob("*.yaml"))


def apply_profile(
    name: str,
    folder: Path = Path("profiles"),
    target: Path = Path("params.yaml"),
    changes: Mapping[str, str] | None = None,
) -> Params:
    """Write the profile `name` to `target`: the base profile with the profile's keys laid over it, comments kept.

    Args:
        name: a file of `folder`, without .yaml.
        folder: of the profiles.
        target: is replaced.
        changes: laid over the profile; see `change_params`.

    Raises:
        ParamsError: no such profile, or it or `changes` hold a wrong key or value; `target` is then as it was.
    """
    names = profile_names(folder)
    if name not in names:
        raise ParamsError(f"no profile {name!r}; choose one of {', '.join(names) or f'none: {folder} is empty'}")
    merged = _read_yaml(folder / f"{BASE_PROFILE}.yaml")
    if name != BASE_PROFILE:
        overlay = _read_yaml(folder / f"{name}.yaml")
        _lay_over(merged, overlay)
    params = check_params(merged, folder / f"{name}.yaml")
    if name != BASE_PROFILE and (comment := _header(folder / f"{name}.yaml")):
        merged.yaml_set_start_comment(comment)
    if changes:
        _change(merged, changes)
        params = check_params(merged, target)
    with atomic_file(target) as stream:
        _yaml().dump(merged, stream)
    return params


def change_params(changes: Mapping[str, str], target: Path = Path("params.yaml")) -> Params:
    """Write single parameters of `target` anew; the others, and the comments, stay.

    Args:
        changes: values by key with dots, written as in YAML: {"train.steps": "500", "train.init": "champion/1.4.0"}.
        target: the parameter file.

    Raises:
        ParamsError: a key is unknown, or a value wrong; `target` is then as it was.
    """
    values = _read_yaml(target)
    _change(values, changes)
    params = check_params(values, target)
    with atomic_file(target) as stream:
        _yaml().dump(values, stream)
    return params


def _yaml() -> YAML:
    yaml = YAML(typ="rt")  # round trip: keeps comments, and makes plain types only (safe)
    yaml.width = 120
    return yaml


def _read_yaml(path: Path) -> Any:
    try:
        values = _yaml().load(path.read_text())
    except FileNotFoundError:
        raise ParamsError(f"{path}: no such file; run in the project's root folder") from None
    except (YAMLError, UnicodeDecodeError) as error:
        raise ParamsError(f"{path}: not YAML: {error}") from None
    if not isinstance(values, dict):
        raise ParamsError(f"{path}: expected keys and values, found {type(values).__name__}")
    return values


def _change(values: Any, changes: Mapping[str, str]) -> None:
    for key, text in changes.items():
        try:
            value = _yaml().load(text)
        except YAMLError:
            raise ParamsError(f"{key} = {text}: not YAML") from None
        *sections, last = key.split(".")
        section = values
        for name in sections:
            section = section.get(name) if isinstance(section, dict) else None
        if not isinstance(section, dict):
            raise ParamsError(f"unknown key {key!r}; keys are written like train.steps")
        section[last] = value


def _lay_over(base: Any, overlay: Any) -> None:
    for key, value in overlay.items():
        if isinstance(value, dict) and isinstance(base.get(key), dict):
            _lay_over(base[key], value)
        else:
            base[key] = value


def _header(path: Path) -> str:
    lines = path.read_text().splitlines()
    count = next((i for i, line in enumerate(lines) if not line.startswith("#")), len(lines))
    return "\n".join(line.removeprefix("#").removeprefix(" ") for line in lines[:count])


def _explain(item: Any) -> str:
    """One pydantic error as a sentence that names the key and what is allowed."""
    *parents, last = (str(part) for part in item["loc"])
    key = ".".join([*parents, last])
    if item["type"] == "unexpected_keyword_argument":
        allowed = _keys_of(parents)
        close = difflib.get_close_matches(last, allowed, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        return f"unknown key {key!r}. {hint}Allowed here: {', '.join(allowed)}"
    if item["type"] == "missing":
        return f"the key {key!r} is missing"
    return f"{key} = {item['input']!r}: {item['msg'][0].lower()}{item['msg'][1:]}"


def _keys_of(parents: list[str]) -> list[str]:
    section: Any = Params
    for name in parents:
        section = {field.name: field.type for field in dataclasses.fields(section)}[name]
        section = globals()[section] if isinstance(section, str) else section
    return [field.name for field in dataclasses.fields(section)]
