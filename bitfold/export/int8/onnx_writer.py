"""The int8 peer as ONNX: QuantizeLinear/DequantizeLinear around every layer, U8S8, per channel."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from bitfold.export.int8.calibration import Affine, Int8Peer
from bitfold.export.int8.topology import IMAGE, PeerLayer

OPSET, IR_VERSION = 21, 10
LOGITS = "logits"


@dataclass(slots=True)
class _Model:
    """Nodes and constants made so far."""

    peer: Int8Peer
    batch: int
    nodes: list[NodeProto] = field(default_factory=list)
    constants: dict[str, TensorProto] = field(default_factory=dict)

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

    def affine(self, tensor: str) -> list[str]:
        """Names of scale and zero point."""
        affine: Affine = self.peer.ranges[tensor]
        return [
            self.constant(f"{tensor}/scale", np.float32(affine.scale)),
            self.constant(f"{tensor}/zero_point", np.uint8(affine.zero_point)),
        ]

    def read(self, tensor: str, reader: str) -> str:
        """Dequantized view of a tensor, one DequantizeLinear a reader."""
        if tensor == IMAGE:
            # Pixels are dequantized before they are transposed: the other way round OpenVINO runs
            # the first convolution in float.
            real = self.add("DequantizeLinear", [IMAGE, *self.affine(IMAGE)], f"{reader}/dq")
            return self.add("Transpose", [real], f"{reader}/nchw", perm=[0, 3, 1, 2])
        stored = [f"{tensor}/q", *self.affine(tensor)]
        return self.add("DequantizeLinear", stored, f"{reader}/dq")

    def write(self, tensor: str, value: str) -> None:
        """Quantize ``value`` as ``tensor``."""
        self.add("QuantizeLinear", [value, *self.affine(tensor)], f"{tensor}/q")

    def parameters(self, layer: PeerLayer) -> list[str]:
        """DequantizeLinear of int8 weights and int32 bias, one scale a channel."""
        made, name = self.peer.products[layer.name], layer.name
        weight = made.weight if made.weight.ndim == 2 else made.weight.transpose(0, 3, 1, 2)
        source = np.float32(self.peer.ranges[layer.inputs[0]].scale)
        stored = self.constant(f"{name}/weight", np.ascontiguousarray(weight))
        scale = self.constant(f"{name}/weight/scale", made.scales)
        # Without a zero point ONNX Runtime multiplies fully connected layers in float.
        zero = self.constant(f"{name}/weight/zero_point", np.zeros(len(made.scales), np.int8))
        bias = self.constant(f"{name}/bias", made.bias)
        bias_scale = self.constant(f"{name}/bias/scale", made.scales * source)
        return [
            self.add("DequantizeLinear", [stored, scale, zero], f"{name}/weight/dq", axis=0),
            self.add("DequantizeLinear", [bias, bias_scale], f"{name}/bias/dq", axis=0),
        ]


def _layer(model: _Model, layer: PeerLayer) -> str:
    """Nodes of ``layer`` between its inputs and its output, both real; the output's name."""
    name = f"{layer.name}/real"
    inputs = [model.read(x, f"{layer.name}/{i}") for i, x in enumerate(layer.inputs)]
    match layer.op:
        case "conv":
            inputs += model.parameters(layer)
            return model.add("Conv", inputs, name, **_window(layer), group=layer.groups)
        case "linear":
            return model.add("Gemm", inputs + model.parameters(layer), name, transB=1)
        case "add":
            return model.add("Add", inputs, name)
        case "max_pool":
            return model.add("MaxPool", inputs, name, **_window(layer))
        case "mean_pool":
            is_global = layer.shape[:2] == (1, 1)
            attributes = {} if is_global else _window(layer)
            return model.add(f"{'Global' * is_global}AveragePool", inputs, name, **attributes)
        case _:
            return _moved(model, layer, inputs)


def _window(layer: PeerLayer) -> dict[str, list[int]]:
    return {
        "kernel_shape": list(layer.kernel),
        "strides": list(layer.stride),
        "pads": list(layer.padding),
    }


def _moved(model: _Model, layer: PeerLayer, inputs: list[str]) -> str:
    """Layers that only move values."""
    name = f"{layer.name}/real"
    if layer.op == "concat":
        return model.add("Concat", inputs, name, axis=1)
    if layer.op == "flatten":
        return model.add("Flatten", inputs, name)
    bounds = {"start": layer.start, "stop": layer.start + layer.shape[-1], "axis": 1}
    return model.add(
        "Slice",
        inputs
        + [model.constant(f"{layer.name}/{k}", np.array([v], np.int64)) for k, v in bounds.items()],
        name,
    )


def peer_onnx(peer: Int8Peer, *, batch: int = 1) -> bytes:
    """A serialized ONNX model: uint8 image (batch, H, W, C), float32 logits (batch, classes)."""
    model = _Model(peer, batch)
    for layer in peer.layers:
        model.write(layer.name, _layer(model, layer))
    last = peer.layers[-1]
    model.add("DequantizeLinear", [f"{last.name}/q", *model.affine(last.name)], LOGITS)
    image = helper.make_tensor_value_info(IMAGE, TensorProto.UINT8, [batch, *peer.image_shape])
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, [batch, *last.shape])
    graph = helper.make_graph(
        model.nodes, "int8_peer", [image], [logits], list(model.constants.values())
    )
    proto: ModelProto = helper.make_model(
        graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION
    )
    serialized: bytes = proto.SerializeToString(deterministic=True)
    return serialized
