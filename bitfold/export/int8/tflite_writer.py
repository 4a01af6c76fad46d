"""The int8 peer as a TFLite flatbuffer, which LiteRT runs on XNNPACK.

int8 activations are the uint8 ones minus 128; one QUANTIZE in front turns pixels into them, one
DEQUANTIZE behind gives logits. Where padding gives the output size of SAME it is written as SAME
(which pads as many pixels, though not always on the same side); elsewhere a PAD goes before.
"""

from collections.abc import Sequence
from importlib import import_module
from types import ModuleType

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import MissingDependencyError
from bitfold.export.int8.calibration import Affine, Int8Peer
from bitfold.export.int8.topology import IMAGE, PeerLayer

SIGNED = 128
FILE_IDENTIFIER = b"TFL3"
SCHEMA_VERSION = 3
LOGITS = "logits"
# First version of each operator that takes int8 with one scale a channel.
VERSIONS = {
    "QUANTIZE": 2, "DEQUANTIZE": 2, "CONV_2D": 3, "DEPTHWISE_CONV_2D": 3, "FULLY_CONNECTED": 4,
    "ADD": 2, "MAX_POOL_2D": 2, "AVERAGE_POOL_2D": 2, "MEAN": 2, "SLICE": 2, "CONCATENATION": 2,
    "RESHAPE": 1, "PAD": 2,
}  # fmt: skip


def _schema() -> ModuleType:
    try:
        return import_module("ai_edge_litert.schema_py_generated")
    except ImportError as error:
        raise MissingDependencyError(
            "LiteRT is not installed",
            where="package ai-edge-litert",
            todo="pip install 'bitfold[bench]'",
        ) from error


class _Flatbuffer:
    """Tensors, operators and buffers made so far; the schema's classes carry no types."""

    def __init__(self, peer: Int8Peer, batch: int) -> None:
        self.peer = peer
        self.batch = batch
        self.schema = _schema()
        self.model = self.schema.ModelT()
        self.graph = self.schema.SubGraphT()
        self.model.version = SCHEMA_VERSION
        self.model.subgraphs = [self.graph]
        self.model.buffers = [self.schema.BufferT()]  # the empty one
        self.model.operatorCodes = []
        self.graph.tensors, self.graph.operators = [], []
        self.places: dict[str, int] = {}
        self.codes: dict[str, int] = {}

    def tensor(
        self, name: str, kind: str, shape: Sequence[int], affine: Affine | None = None
    ) -> int:
        """Declare an activation; gives its number."""
        tensor = self.schema.TensorT()
        tensor.name, tensor.shape, tensor.buffer = name.encode(), list(shape), 0
        tensor.type = getattr(self.schema.TensorType, kind)
        if affine is not None:
            self._quantize(tensor, [affine.scale], [affine.zero_point], axis=0)
        self.graph.tensors.append(tensor)
        self.places[name] = len(self.graph.tensors) - 1
        return self.places[name]

    def constant(
        self,
        name: str,
        values: NDArray[np.generic],
        *,
        scales: NDArray[np.float32] | None = None,
        axis: int = 0,
    ) -> int:
        """Store ``values``; gives the tensor's number."""
        kind = {"int8": "INT8", "int32": "INT32"}[values.dtype.name]
        place = self.tensor(name, kind, values.shape)
        tensor, buffer = self.graph.tensors[place], self.schema.BufferT()
        buffer.data = np.frombuffer(np.ascontiguousarray(values).tobytes(), np.uint8)
        self.model.buffers.append(buffer)
        tensor.buffer = len(self.model.buffers) - 1
        if scales is not None:
            self._quantize(tensor, scales, np.zeros(len(scales), np.int64), axis=axis)
        return place

    def _quantize(
        self,
        tensor: object,
        scales: Sequence[float] | NDArray[np.float32],
        zeros: Sequence[int] | NDArray[np.int64],
        *,
        axis: int,
    ) -> None:
        made = self.schema.QuantizationParametersT()
        made.scale = np.asarray(scales, np.float32)
        made.zeroPoint = np.asarray(zeros, np.int64)
        made.quantizedDimension = axis
        tensor.quantization = made  # type: ignore[attr-defined]

    def activation(self, layer: PeerLayer) -> int:
        """Declare the int8 result of ``layer``."""
        shape = layer.shape if len(layer.shape) == 1 else layer.shape[-3:]
        return self.tensor(layer.name, "INT8", (self.batch, *shape), self.affine(layer.name))

    def affine(self, tensor: str) -> Affine:
        """Quantization of a tensor as int8."""
        affine = self.peer.ranges[tensor]
        return Affine(affine.scale, affine.zero_point - SIGNED)

    def add(
        self, op: str, inputs: Sequence[int], output: int, options: str = "", **fields: int | bool
    ) -> None:
        """Append an operator; ``options`` names its table of ``fields``."""
        schema = self.schema
        if op not in self.codes:
            code = schema.OperatorCodeT()
            code.builtinCode = getattr(schema.BuiltinOperator, op)
            code.deprecatedBuiltinCode = code.builtinCode
            code.version = VERSIONS[op]
            self.codes[op] = len(self.model.operatorCodes)
            self.model.operatorCodes.append(code)
        made = schema.OperatorT()
        made.opcodeIndex = self.codes[op]
        made.inputs, made.outputs = list(inputs), [output]
        if options:
            made.builtinOptionsType = getattr(schema.BuiltinOptions, options)
            made.builtinOptions = getattr(schema, f"{options}T")()
            for name, value in fields.items():
                setattr(made.builtinOptions, name, value)
        self.graph.operators.append(made)

    def serialized(self) -> bytes:
        """The file."""
        builder = import_module("flatbuffers").Builder(1024)
        builder.Finish(self.model.Pack(builder), FILE_IDENTIFIER)
        return bytes(builder.Output())


def _same_size(layer: PeerLayer, source: Sequence[int]) -> bool:
    """Whether SAME padding gives the layer's output size."""
    return all(
        out == -(-size // stride)
        for out, size, stride in zip(layer.shape, source, layer.stride, strict=False)
    )


def _padded(file: _Flatbuffer, layer: PeerLayer) -> tuple[int, int]:
    """Input of a windowed layer and the padding attribute; a PAD is written where it must be."""
    name = layer.inputs[0]
    place = file.places[name]
    source = file.graph.tensors[place].shape
    top, left, bottom, right = layer.padding
    padding = file.schema.Padding
    if not any(layer.padding):
        return place, padding.VALID
    if _same_size(layer, source[1:3]):
        return place, padding.SAME
    shape = (source[0], source[1] + top + bottom, source[2] + left + right, source[3])
    out = file.tensor(f"{layer.name}/padded", "INT8", shape, file.affine(name))
    table = np.array([[0, 0], [top, bottom], [left, right], [0, 0]], np.int32)
    borders = file.constant(f"{layer.name}/padding", table)
    file.add("PAD", [place, borders], out, "PadOptions")
    return out, padding.VALID


def _conv(file: _Flatbuffer, layer: PeerLayer) -> None:
    made = file.peer.products[layer.name]
    source, padding = _padded(file, layer)
    scale = np.float32(file.peer.ranges[layer.inputs[0]].scale)
    bias = file.constant(f"{layer.name}/bias", made.bias, scales=made.scales * scale)
    strides = {"strideH": layer.stride[0], "strideW": layer.stride[1], "padding": padding}
    name = f"{layer.name}/weight"
    if layer.is_depthwise:
        weight = file.constant(name, made.weight.transpose(3, 1, 2, 0), scales=made.scales, axis=3)
        file.add(
            "DEPTHWISE_CONV_2D", [source, weight, bias], file.activation(layer),
            "DepthwiseConv2DOptions",
            depthMultiplier=len(made.weight) // layer.groups, **strides,
        )  # fmt: skip
        return
    weight = file.constant(name, made.weight, scales=made.scales)
    file.add("CONV_2D", [source, weight, bias], file.activation(layer), "Conv2DOptions", **strides)


def _linear(file: _Flatbuffer, layer: PeerLayer) -> None:
    made = file.peer.products[layer.name]
    scale = np.float32(file.peer.ranges[layer.inputs[0]].scale)
    weight = file.constant(f"{layer.name}/weight", made.weight, scales=made.scales)
    bias = file.constant(f"{layer.name}/bias", made.bias, scales=made.scales * scale)
    inputs = [file.places[layer.inputs[0]], weight, bias]
    file.add("FULLY_CONNECTED", inputs, file.activation(layer), "FullyConnectedOptions")


def _pool(file: _Flatbuffer, layer: PeerLayer) -> None:
    if layer.op == "mean_pool" and layer.shape[:2] == (1, 1):
        axes = file.constant(f"{layer.name}/axes", np.array([1, 2], np.int32))
        inputs = [file.places[layer.inputs[0]], axes]
        file.add("MEAN", inputs, file.activation(layer), "ReducerOptions", keepDims=True)
        return
    source, padding = _padded(file, layer)
    op = "MAX_POOL_2D" if layer.op == "max_pool" else "AVERAGE_POOL_2D"
    file.add(
        op, [source], file.activation(layer), "Pool2DOptions",
        filterHeight=layer.kernel[0], filterWidth=layer.kernel[1],
        strideH=layer.stride[0], strideW=layer.stride[1], padding=padding,
    )  # fmt: skip


def _shuffled(file: _Flatbuffer, layer: PeerLayer) -> None:
    """Layers that only move values."""
    inputs = [file.places[name] for name in layer.inputs]
    out = file.activation(layer)
    shape = file.graph.tensors[out].shape
    if layer.op == "concat":
        file.add("CONCATENATION", inputs, out, "ConcatenationOptions", axis=len(shape) - 1)
        return
    size = file.constant(f"{layer.name}/shape", np.array(shape, np.int32))
    if layer.op == "flatten":
        file.add("RESHAPE", [*inputs, size], out)
        return
    start = np.zeros(len(shape), np.int32)
    start[-1] = layer.start
    begin = file.constant(f"{layer.name}/begin", start)
    file.add("SLICE", [*inputs, begin, size], out, "SliceOptions")


def _layer(file: _Flatbuffer, layer: PeerLayer) -> None:
    match layer.op:
        case "conv":
            _conv(file, layer)
        case "linear":
            _linear(file, layer)
        case "add":
            inputs = [file.places[name] for name in layer.inputs]
            file.add("ADD", inputs, file.activation(layer), "AddOptions")
        case "max_pool" | "mean_pool":
            _pool(file, layer)
        case _:
            _shuffled(file, layer)


def peer_tflite(peer: Int8Peer, *, batch: int = 1) -> bytes:
    """A TFLite file: uint8 image (batch, H, W, C), float32 logits (batch, classes).

    Raises MissingDependencyError without the ai-edge-litert package, which brings the schema.
    """
    file = _Flatbuffer(peer, batch)
    shape = (batch, *peer.image_shape)
    pixels = file.tensor("pixels", "UINT8", shape, peer.ranges[IMAGE])
    image = file.tensor(IMAGE, "INT8", shape, file.affine(IMAGE))
    file.add("QUANTIZE", [pixels], image, "QuantizeOptions")
    for layer in peer.layers:
        _layer(file, layer)
    last = peer.layers[-1]
    logits = file.tensor(LOGITS, "FLOAT32", (batch, *last.shape))
    file.add("DEQUANTIZE", [file.places[last.name]], logits, "DequantizeOptions")
    file.graph.inputs, file.graph.outputs = [pixels], [logits]
    return file.serialized()
