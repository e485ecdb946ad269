"""ONNX models as baselines: both forms of input, and files that are no such model."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from tests.conftest import picture

from loupe.models.onnx import OnnxModel
from loupe.models.weights import ModelError

Shape = list[str | int | None]
FLOATS: Shape = ["n", 3, "h", "w"]
BYTES: Shape = ["n", "h", "w", 3]
AXES: dict[str, Sequence[float]] = {"float": (1, 1, 2, 2), "uint8": (1, 2, 2, 1)}
REPEATING = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}


def doubling(path: Path, kind: str = "float", scale: float = 2, operator: str = "Identity") -> Path:
    """A model that repeats pixels, after `operator`, written to `path`."""
    dtype, shape = (TensorProto.FLOAT, FLOATS) if kind == "float" else (TensorProto.UINT8, BYTES)
    factors = [1 if side == 1 else scale for side in AXES[kind]]
    nodes = [
        helper.make_node(operator, ["x"], ["y"]),
        helper.make_node(
            "Resize",
            ["y", "", "factors"],
            ["z"],
            mode="nearest",
            coordinate_transformation_mode="asymmetric",
            nearest_mode="floor",
        ),
    ]
    constant = helper.make_tensor("factors", TensorProto.FLOAT, [4], factors)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", dtype, shape)],
        [helper.make_tensor_value_info("z", dtype, None)],
        [constant],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize("kind", ["float", "uint8"])
def test_both_forms_give_the_same_picture(tmp_path: Path, kind: str) -> None:
    model = OnnxModel(doubling(tmp_path / "twice.onnx", kind))
    assert model.scale == 2
    assert model.facts["label"] == "twice"
    image = picture(1, 21, 30)
    np.testing.assert_array_equal(model(image), image.repeat(2, axis=0).repeat(2, axis=1))
    gray = image[..., 0]
    np.testing.assert_array_equal(model(gray), gray.repeat(2, axis=0).repeat(2, axis=1))


def test_values_that_are_no_numbers_fail_the_picture(tmp_path: Path) -> None:
    model = OnnxModel(doubling(tmp_path / "log.onnx", operator="Log"))
    with pytest.raises(ValueError, match="no numbers"):
        model(np.zeros((4, 4, 3), np.uint8))


def test_what_is_no_such_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"gone.onnx: no such file"):
        OnnxModel(tmp_path / "gone.onnx")
    (tmp_path / "torn.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"torn.onnx: no ONNX model that can be run"):
        OnnxModel(tmp_path / "torn.onnx")
    with pytest.raises(ModelError, match=r"makes 36 rows of 24; a whole multiple"):
        OnnxModel(doubling(tmp_path / "half.onnx", scale=1.5))
    model = onnx.load(doubling(tmp_path / "luma.onnx"))
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 1
    onnx.save(model, tmp_path / "luma.onnx")
    with pytest.raises(ModelError, match=r"its input is tensor\(float\) .*1.*; understood are float"):
        OnnxModel(tmp_path / "luma.onnx")
