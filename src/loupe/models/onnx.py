"""Any ONNX super-resolution model, applied to one whole picture: to score it beside our own."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnxruntime
from onnxruntime.capi import onnxruntime_pybind11_state as ort
from PIL import Image

from loupe.imaging.resize import Pixels
from loupe.models.weights import ModelError

PROBE = 24  # side of the gray picture that tells the scale
ERRORS = (  # they have no base of their own
    ort.EPFail,
    ort.Fail,
    ort.InvalidArgument,
    ort.InvalidGraph,
    ort.InvalidProtobuf,
    ort.NotImplemented,
    ort.RuntimeException,
)


class OnnxModel:
    """A model file with one picture in and one out, of any height and width.

    Two forms are understood, told apart by the input's type and shape: uint8 [N, H, W, 3], and float [N, 3, H, W] in
    [0, 1], which is rounded and clipped here.

    Attributes:
        scale: size factor, found by enlarging a small picture.
        facts: label and sha256 of the file, for reports.

    Raises:
        ModelError: the file is missing or no such model.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.log_severity_level = 3  # errors come as exceptions
        try:
            data = path.read_bytes()
            self._session = onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except FileNotFoundError:
            raise ModelError(f"{path}: no such file") from None
        except ERRORS as error:
            raise ModelError(f"{path}: no ONNX model that can be run ({_first_line(error)})") from None
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1 or len(outputs) != 1:
            raise ModelError(f"{path}: {len(inputs)} inputs, {len(outputs)} outputs; one picture in, one out is needed")
        self._input = inputs[0]
        kind, shape = self._input.type, list(self._input.shape)
        self._floats = {"tensor(float)": np.float32, "tensor(float16)": np.float16}.get(kind)
        known = self._floats is not None or kind == "tensor(uint8)"
        if not known or len(shape) != 4 or shape[1 if self._floats else 3] != 3:
            raise ModelError(
                f"{path}: its input is {kind} {shape}; understood are float [N, 3, H, W] and uint8 [N, H, W, 3]"
            )
        small = self(np.full((PROBE, PROBE, 3), 128, np.uint8))
        self.scale, rest = divmod(len(small), PROBE)
        if rest or not self.scale:
            raise ModelError(f"{path}: makes {len(small)} rows of {PROBE}; a whole multiple is needed")
        self.facts: dict[str, Any] = {"label": path.stem, "sha256": hashlib.sha256(data).hexdigest()}

    def __call__(self, image: Pixels) -> Pixels:
        """Enlarge uint8 [H, W, 3], or [H, W] gray by way of three equal channels, as the network does.

        Raises:
            ValueError: the model failed on it, or gave NaN or infinity.
        """
        gray = image.ndim == 2
        rgb = np.repeat(image[..., None], 3, axis=2) if gray else image
        batch: npt.NDArray[Any] = np.ascontiguousarray(rgb)[None]
        if self._floats is not None:
            batch = np.ascontiguousarray(batch.transpose(0, 3, 1, 2) / np.float32(255), self._floats)
        try:
            (output,) = self._session.run(None, {self._input.name: batch})
        except ERRORS as error:
            raise ModelError(f"{self._path}: {_first_line(error)}") from None
        if self._floats is not None:
            if not np.isfinite(output).all():
                raise ValueError("the model gave values that are no numbers")
            output = np.rint(output.astype(np.float32) * 255).clip(0, 255).astype(np.uint8).transpose(0, 2, 3, 1)
        if output.ndim != 4 or output.dtype != np.uint8 or output.shape[3] != 3:
            raise ModelError(f"{self._path}: its output is {output.dtype} {list(output.shape)}, not a picture")
        pixels: Pixels = np.ascontiguousarray(output[0])
        return np.asarray(Image.fromarray(pixels).convert("L")) if gray else pixels


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0]
