"""A trained network as one ONNX file that takes and gives pixels, for those who run it without PyTorch.

    uint8 [N, H, W, 3] -> / 255 -> the network -> * 255, rounded, clipped -> uint8 [N, scale * H, scale * W, 3]

N, H and W are free. The graph is written node by node from the layers of rdn.py, beside which it reads: PyTorch's own
exporter needs two more packages, writes names and constants that change with its version, and unrolls what it traced.
That both compute the same is tested on sizes from 1 x 1.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from onnx import ModelProto, TensorProto, checker, helper, numpy_helper
from torch import nn

from loupe.models.rdn import RDN, ResidualDenseBlock
from loupe.models.weights import ModelError

OPSET, IR_VERSION = 18, 8  # of 2022: servers are seldom up to date
FIRST, LAST = "shallow_1", "output"  # nodes that see the picture, and make it


def halo(network: RDN) -> int:
    """How far an input pixel reaches: output pixels more than so many input pixels away do not depend on it.

    One pixel for each 3 x 3 convolution at low resolution: two shallow, D * C, one of fusion, one before the shuffle;
    and one for the last convolution, whose neighbour may belong to the next input pixel. Bicubic enlargement reaches
    two.
    """
    layers = sum(len(block.layers) for block in network.blocks if isinstance(block, ResidualDenseBlock))
    return layers + 5


def to_onnx(network: RDN) -> ModelProto:
    """The network as an ONNX model with the conversion from and to pixels inside; the same weights, the same bytes.

    Nodes that are convolutions have the names that rdn.py gives them, such as `blocks.0.layers.1`.

    Raises:
        ModelError: a weight is no number: as pixels, what it makes could not be told from a picture.
    """
    for name, tensor in network.state_dict().items():
        if not torch.isfinite(tensor).all():
            raise ModelError(f"{name}: weights that are no numbers; train or pull the model again")
    graph = _Graph(network)
    bytes_first = graph.add("Transpose", "pixels", perm=[0, 3, 1, 2])  # a quarter of what floats would move
    x = graph.add("Div", graph.add("Cast", bytes_first, to=TensorProto.FLOAT), graph.constant("white", 255))
    y = graph.add("Mul", _network(graph, network, x), "white")
    y = graph.add("Clip", graph.add("Round", y), graph.constant("lowest", 0), "white")  # half to even, as PyTorch's
    y = graph.add("Cast", y, to=TensorProto.UINT8)
    graph.add("Transpose", y, output="enlarged", perm=[0, 2, 3, 1])
    sides = [f"{network.scale}H", f"{network.scale}W"]
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "rdn",
            [helper.make_tensor_value_info("pixels", TensorProto.UINT8, ["N", "H", "W", 3])],
            [helper.make_tensor_value_info("enlarged", TensorProto.UINT8, ["N", *sides, 3])],
            graph.tensors,
        ),
        producer_name="loupe",
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    checker.check_model(model, full_check=True)
    return model


def compact(model: ModelProto) -> ModelProto:
    """The same model in half the space: weights that half precision holds exactly are stored so.

    Runtimes widen them once, as they load the file; all is computed in float32 as before.
    """
    small = ModelProto()
    small.CopyFrom(model)
    widen = []
    for tensor in small.graph.initializer:
        values = numpy_helper.to_array(tensor)
        half = values.astype(np.float16)
        if values.dtype == np.float32 and values.size > 1 and np.array_equal(half.astype(np.float32), values):
            name = tensor.name
            tensor.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            widen.append(helper.make_node("Cast", [f"{name}.half"], [name], name=f"{name}.wide", to=TensorProto.FLOAT))
    for node in reversed(widen):
        small.graph.node.insert(0, node)
    checker.check_model(small, full_check=True)
    return small


def _network(graph: _Graph, network: RDN, x: str) -> str:
    """`RDN.forward`, line by line."""
    shallow = graph.conv(FIRST, x)
    features = graph.conv("shallow_2", shallow)
    outputs = []
    for d in range(len(network.blocks)):
        features = _block(graph, network, d, features)
        outputs.append(features)
    together = graph.add("Concat", *outputs, output="blocks", axis=1)
    fused = graph.conv("global_fusion.1", graph.conv("global_fusion.0", together))
    fused = graph.add("Add", shallow, fused)
    details = graph.add("DepthToSpace", graph.conv("upsample.0", fused), blocksize=network.scale, mode="CRD")
    y = graph.conv(LAST, details)
    if network.residual == "none":
        return y
    if network.residual == "nearest":
        factors = graph.constant("factors", [1, 1, network.scale, network.scale])
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return graph.add("Add", y, graph.add("Resize", x, "", factors, mode="nearest", **how))
    return graph.add("Add", y, _bicubic(graph, x, network.scale))


def _bicubic(graph: _Graph, x: str, scale: int) -> str:
    """PyTorch's bicubic enlargement as a convolution and a shuffle: ONNX Runtime's `Resize` takes twenty times as long.

    An output pixel's place between input pixels is one of scale x scale, each with its own 5 x 5 weights (Keys' cubic
    kernel, a = -0.75, on the four nearest rows and columns). Edge pixels are repeated.
    """
    places = (np.arange(scale) + 0.5) / scale - 0.5  # from the middle of the input pixel
    far = np.abs(np.arange(-2, 3) - places[:, None])
    a = -0.75
    near = (a + 2) * far**3 - (a + 3) * far**2 + 1
    line = np.where(far <= 1, near, np.where(far < 2, a * (far**3 - 5 * far**2 + 8 * far - 4), 0))  # [scale, 5]
    weights = np.einsum("ik,jl->ijkl", line, line).reshape(scale**2, 1, 5, 5)
    edges = graph.constant("edges", [0, 0, 2, 2, 0, 0, 2, 2], np.int64)
    padded = graph.add("Pad", x, edges, mode="edge")
    kernel = graph.constant("bicubic.weight", np.tile(weights, (3, 1, 1, 1)))  # red, green and blue alike
    enlarged = graph.add("Conv", padded, kernel, output="bicubic", group=3)
    return graph.add("DepthToSpace", enlarged, blocksize=scale, mode="CRD")


def _block(graph: _Graph, network: RDN, d: int, x: str) -> str:
    """`ResidualDenseBlock.forward`, line by line."""
    features = x
    for c in range(len(network.blocks[d].layers)):  # type: ignore[arg-type]  # a ModuleList
        new = graph.add("Relu", graph.conv(f"blocks.{d}.layers.{c}", features))
        features = graph.add("Concat", features, new, axis=1)
    return graph.add("Add", x, graph.conv(f"blocks.{d}.fusion", features))


class _Graph:
    """Nodes and constants of a graph that is being written; each node is added after those that feed it."""

    def __init__(self, network: RDN) -> None:
        self._layers = {name: layer for name, layer in network.named_modules() if isinstance(layer, nn.Conv2d)}
        self.nodes: list[Any] = []
        self.tensors: list[Any] = []

    def add(self, operator: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        """Add a node of one output; the output's name."""
        output = output or f"{operator.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [output], name=output, **attributes))
        return output

    def conv(self, name: str, x: str) -> str:
        """Add the network's convolution `name`, with its weights."""
        layer = self._layers[name]
        weights = [self.constant(f"{name}.{key}", tensor.detach().cpu()) for key, tensor in layer.named_parameters()]
        kernel, margin = list(layer.kernel_size), [int(side) for side in layer.padding]
        return self.add("Conv", x, *weights, output=name, kernel_shape=kernel, pads=margin * 2)

    def constant(self, name: str, value: npt.ArrayLike, kind: npt.DTypeLike = np.float32) -> str:
        """Add a constant; its name."""
        self.tensors.append(numpy_helper.from_array(np.asarray(value, kind), name))
        return name
