"""The int8 network to race against: same convolutions, U8S8 QDQ, every batch norm folded away.

    Conv2d → Thresholds        DQ → Conv → Q(uint8, zero point 0)            QLinearConv
    Conv2d → Rescale → Add     DQ → Conv → Q(uint8, 128) → DQ → Add → Q      QLinearConv, QLinearAdd
    SumPool2d                  DQ → GlobalAveragePool → Q

This is the cheapest int8 form of the topology, not a calibrated model: requantizations and batch
norms on the residual stream, which cost us time, are free here. Scales do not influence speed.
"""

from dataclasses import dataclass, field
from typing import assert_never

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitfold.errors import UnsupportedError
from bitfold.ir import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    IntGraph,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    Thresholds,
)

OPSET, IR_VERSION = 21, 10
ACTIVATION_SCALE, WEIGHT_SCALE = 0.05, 0.01
SIGNED_ZERO_POINT = 128


@dataclass(slots=True)
class _Model:
    """Nodes and constants made so far; ``quantized`` maps our tensor names to uint8 ONNX names."""

    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)
    quantized: dict[str, tuple[str, int]] = field(default_factory=dict)

    def constant(self, name: str, values: NDArray[np.generic] | np.generic) -> str:
        """An initializer, made once."""
        self.constants.setdefault(name, numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, op: str, inputs: list[str], output: str, **attributes: int | list[int]) -> str:
        """Append a node with one output."""
        node = helper.make_node(op, inputs, [output], name=output)
        node.attribute.extend(helper.make_attribute(k, v) for k, v in attributes.items())
        self.nodes.append(node)
        return output

    def read(self, name: str, reader: str) -> str:
        """Dequantized view of one of our tensors, one DequantizeLinear per reader."""
        source, zero = self.quantized[name]
        scale = self.constant("activation_scale", np.float32(ACTIVATION_SCALE))
        point = self.constant(f"zero_point_{zero}", np.uint8(zero))
        return self.add("DequantizeLinear", [source, scale, point], f"{reader}/{name}/dq")

    def write(self, name: str, value: str, zero: int) -> None:
        """Quantize ``value`` to uint8 as our tensor ``name``."""
        scale = self.constant("activation_scale", np.float32(ACTIVATION_SCALE))
        point = self.constant(f"zero_point_{zero}", np.uint8(zero))
        self.quantized[name] = (
            self.add("QuantizeLinear", [value, scale, point], f"{name}/q"),
            zero,
        )

    def parameters(self, node: Conv2d | Linear, weight: NDArray[np.int8]) -> list[str]:
        """DequantizeLinear of int8 weights and int32 bias, one scale a channel."""
        scales = np.full(len(weight), WEIGHT_SCALE, np.float32)
        stored = self.constant(f"{node.name}.weight", weight)
        scale = self.constant(f"{node.name}.weight_scale", scales)
        dq = self.add("DequantizeLinear", [stored, scale], f"{node.name}/weight/dq", axis=0)
        bias = self.constant(f"{node.name}.bias", node.bias.astype(np.int32))
        bias_scale = self.constant(f"{node.name}.bias_scale", scales * np.float32(ACTIVATION_SCALE))
        return [
            dq,
            self.add("DequantizeLinear", [bias, bias_scale], f"{node.name}/bias/dq", axis=0),
        ]


def _conv(model: _Model, graph: IntGraph, node: Conv2d) -> None:
    weight = np.ascontiguousarray(node.weight.transpose(0, 3, 1, 2)).astype(np.int8)
    inputs = [model.read(node.x, node.name), *model.parameters(node, weight)]
    value = model.add(
        "Conv", inputs, f"{node.name}/conv",
        kernel_shape=list(weight.shape[2:]), strides=list(node.stride), pads=list(node.padding),
        group=node.groups,
    )  # fmt: skip
    unsigned = all(isinstance(reader, Thresholds) for reader in graph.consumers(node.name))
    model.write(node.name, value, 0 if unsigned else SIGNED_ZERO_POINT)


def _products(model: _Model, graph: IntGraph, node: Conv2d | Linear) -> None:
    if isinstance(node, Conv2d):
        _conv(model, graph, node)
        return
    weight = node.weight.astype(np.int8)
    inputs = [model.read(node.x, node.name), *model.parameters(node, weight)]
    model.add("Gemm", inputs, "logits", transB=1)


def _pool(model: _Model, node: MaxPool2d | SumPool2d, shape: tuple[int, ...]) -> None:
    _, zero = model.quantized[node.x]
    x = model.read(node.x, node.name)
    name = f"{node.name}/pool"
    window = {"kernel_shape": list(node.kernel), "strides": list(node.stride)}
    if isinstance(node, MaxPool2d):
        value = model.add("MaxPool", [x], name, pads=list(node.padding), **window)
    elif node.kernel == shape[:2]:
        value = model.add("GlobalAveragePool", [x], name)
    else:
        value = model.add("AveragePool", [x], name, **window)
    model.write(node.name, value, zero)


def _renamed(model: _Model, node: Thresholds | Rescale | Reshape) -> None:
    """Ops that cost the peer nothing, or only a change of shape."""
    source, zero = model.quantized[node.x]
    if isinstance(node, Reshape):
        source = model.add("Flatten", [source], f"{node.name}/flat")
    model.quantized[node.name] = (source, zero)


def _convert(model: _Model, graph: IntGraph, node: Node) -> None:
    match node:
        case Quantize():
            image = model.add("Transpose", ["image"], "image/nchw", perm=[0, 3, 1, 2])
            model.quantized[node.name] = (image, 0)
        case Conv2d() | Linear():
            _products(model, graph, node)
        case Add():
            total = [model.read(node.a, f"{node.name}/a"), model.read(node.b, f"{node.name}/b")]
            model.write(node.name, model.add("Add", total, f"{node.name}/sum"), 0)
        case Thresholds() | Rescale() | Reshape():
            _renamed(model, node)
        case MaxPool2d() | SumPool2d():
            _pool(model, node, graph.types[node.x].shape)
        case Slice() | Concat():
            raise UnsupportedError("no int8 peer for channel slices", where=f"node {node.name}")
        case Dequantize():
            pass
        case _:
            assert_never(node)


def int8_peer(graph: IntGraph) -> bytes:
    """Serialized ONNX model with ``graph``'s topology at int8; uint8 NHWC in, float logits out."""
    model = _Model()
    for node in graph.nodes:
        _convert(model, graph, node)
    image = helper.make_tensor_value_info("image", TensorProto.UINT8, ["N", *graph.input.shape])
    classes = graph.types[graph.output.name].shape[0]
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["N", classes])
    onnx_graph = helper.make_graph(
        model.nodes, "int8_peer", [image], [logits], list(model.constants.values())
    )
    proto: ModelProto = helper.make_model(
        onnx_graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
