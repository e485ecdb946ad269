"""The int8 variant: what is in integers, what is not, and that real inputs decide on the ranges."""

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from tests.conftest import picture

from loupe.models.export import to_onnx
from loupe.models.int8 import FLOAT_NODES, quantised
from loupe.models.rdn import RDN


@pytest.fixture(scope="module")
def model() -> onnx.ModelProto:
    torch.manual_seed(0)
    made = to_onnx(RDN(D=2, C=2, G=4, G0=4, residual="bicubic").eval())
    before = made.SerializeToString()
    variant = onnx.load_from_string(quantised(made, [picture(number, 24, 24)[None] for number in range(3)]))
    assert made.SerializeToString() == before, "what is handed in stays as it is"
    return variant


def test_blocks_are_in_integers_and_what_touches_the_picture_is_not(model: onnx.ModelProto) -> None:
    made_by = {output: node.op_type for node in model.graph.node for output in node.output}
    convs = {node.name: node for node in model.graph.node if node.op_type == "Conv"}
    in_integers = {name for name, node in convs.items() if made_by.get(node.input[1]) == "DequantizeLinear"}
    assert set(convs) - in_integers == set(FLOAT_NODES) - {"blocks"}
    assert {f"blocks.{d}.layers.{c}" for d in range(2) for c in range(2)} < in_integers


def test_weights_have_seven_bits_and_a_scale_for_each_channel(model: onnx.ModelProto) -> None:
    constants = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    weights = {name: value for name, value in constants.items() if value.dtype == np.int8 and value.ndim == 4}
    assert len(weights) == 7, "two layers and a fusion in each of two blocks, and shallow_2"
    for name, value in weights.items():
        assert value.min() >= -64 and value.max() <= 64
        assert constants[name.replace("_quantized", "_scale")].shape == (len(value),)
