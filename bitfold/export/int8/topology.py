"""Layers that an int8 engine would run for the network behind an integer graph.

What the integer form added is taken out again, what costs us time but not an int8 engine is free:

    Thresholds, Rescale                  nothing: scales of the layer before
    a nonlinearity (ReLU, PReLU)         clipping at zero by the unsigned quantization before it
    convolutions of one input, added     one convolution (the sum of two is a convolution): digits
    a constant channel, concatenated     nothing: a bias
"""

from dataclasses import dataclass, replace
from typing import Literal, assert_never

import numpy as np

from bitfold.ir import (
    Add,
    CodeTensor,
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
from bitfold.ir.types import IntArray

PeerOp = Literal["conv", "linear", "add", "max_pool", "mean_pool", "slice", "concat", "flatten"]
IMAGE = "image"
PRODUCTS: tuple[PeerOp, ...] = ("conv", "linear")


@dataclass(frozen=True, slots=True)
class PeerLayer:
    """One layer; its name is that of the tensor it makes, of ``shape`` (H, W, C) or (C,).

    ``clipped`` results are cut off below zero. ``weight`` holds codes (O, KH, KW, I/groups), or
    (O, I); ``padding`` is (top, left, bottom, right); ``start`` is a slice's first channel.
    """

    name: str
    op: PeerOp
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    clipped: bool = False
    weight: IntArray | None = None
    kernel: tuple[int, int] = (1, 1)
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1
    start: int = 0

    @property
    def is_product(self) -> bool:
        """Whether the layer multiplies by weights."""
        return self.op in PRODUCTS

    @property
    def is_depthwise(self) -> bool:
        """Whether each filter reads one channel."""
        return self.op == "conv" and self.groups > 1 and self.codes.shape[3] == 1

    @property
    def codes(self) -> IntArray:
        """The weight of a product."""
        assert self.weight is not None
        return self.weight

    def has_geometry_of(self, other: "PeerLayer") -> bool:
        """Whether both multiply the same windows of the same input."""
        same = (
            self.op == other.op
            and self.inputs == other.inputs
            and (self.kernel, self.stride) == (other.kernel, other.stride)
            and (self.padding, self.groups) == (other.padding, other.groups)
        )
        return same and self.is_product and self.codes.shape == other.codes.shape


class _Reader:
    """Layers so far, and which of them each tensor of the graph is (None: a constant)."""

    def __init__(self, graph: IntGraph) -> None:
        self.graph = graph
        self.layers: dict[str, PeerLayer] = {}
        self.tensors: dict[str, str | None] = {}

    def source(self, tensor: str) -> str:
        """The layer that makes ``tensor``."""
        name = self.tensors[tensor]
        assert name is not None, f"{tensor} is constant"
        return name

    def add(self, layer: PeerLayer) -> None:
        """Append ``layer``."""
        self.layers[layer.name] = replace(layer, clipped=_is_clipped(self.graph, layer.name))
        self.tensors[layer.name] = layer.name

    def read(self, node: Node) -> None:
        """The layer of ``node``, or the layer that it is another name for."""
        match node:
            case Quantize():
                self.tensors[node.name] = IMAGE
            case Conv2d() | Linear():
                self.product(node)
            case Add():
                self.sum(node)
            case Thresholds() if _is_constant(self.graph, node):
                self.tensors[node.name] = None
            case Thresholds() | Rescale() | Dequantize():
                self.tensors[node.name] = self.tensors[node.x]
            case Concat():
                self.joined(node)
            case MaxPool2d() | SumPool2d() | Slice() | Reshape():
                self.unary(node)
            case _:
                assert_never(node)

    def product(self, node: Conv2d | Linear) -> None:
        """A convolution or a fully connected layer, without weights of constant channels."""
        source = self.source(node.x)
        shape = self.graph.types[node.name].shape
        if isinstance(node, Linear):
            self.add(PeerLayer(node.name, "linear", (source,), shape, weight=node.weight))
            return
        channels = self.shape(source)[-1] // node.groups
        weight = node.weight[..., :channels]
        self.add(
            PeerLayer(
                node.name, "conv", (source,), shape,
                weight=weight, kernel=(weight.shape[1], weight.shape[2]), stride=node.stride,
                padding=node.padding, groups=node.groups,
            )
        )  # fmt: skip

    def sum(self, node: Add) -> None:
        """An addition, or the one convolution that two of them are."""
        a, b = self.source(node.a), self.source(node.b)
        one, other = self.layers.get(a), self.layers.get(b)
        if one is not None and other is not None and one.has_geometry_of(other):
            self.tensors[node.name] = a
            self.layers[a] = replace(one, clipped=_is_clipped(self.graph, node.name))
            return
        self.add(PeerLayer(node.name, "add", (a, b), self.graph.types[node.name].shape))

    def joined(self, node: Concat) -> None:
        """A concatenation of what is not constant; of one such part, that part."""
        parts = tuple(name for x in node.xs if (name := self.tensors[x]) is not None)
        if len(parts) == 1:
            self.tensors[node.name] = parts[0]
            return
        self.add(PeerLayer(node.name, "concat", parts, self.graph.types[node.name].shape))

    def unary(self, node: MaxPool2d | SumPool2d | Slice | Reshape) -> None:
        """A pool, a slice, or a change of shape."""
        shape, inputs = self.graph.types[node.name].shape, (self.source(node.x),)
        match node:
            case MaxPool2d():
                layer = PeerLayer(
                    node.name, "max_pool", inputs, shape,
                    kernel=node.kernel, stride=node.stride, padding=node.padding,
                )  # fmt: skip
            case SumPool2d():
                layer = PeerLayer(
                    node.name, "mean_pool", inputs, shape, kernel=node.kernel, stride=node.stride
                )
            case Slice():
                layer = PeerLayer(node.name, "slice", inputs, shape, start=node.start)
            case Reshape():
                layer = PeerLayer(node.name, "flatten", inputs, shape)
            case _:
                assert_never(node)
        self.add(layer)

    def shape(self, name: str) -> tuple[int, ...]:
        """Of a layer or of the image."""
        return self.graph.input.shape if name == IMAGE else self.layers[name].shape


def _is_clipped(graph: IntGraph, tensor: str) -> bool:
    """Whether every reader of ``tensor`` cuts it off below zero, directly or after rescaling."""
    readers = graph.consumers(tensor)
    return bool(readers) and all(_clips(graph, reader) for reader in readers)


def _clips(graph: IntGraph, node: Node) -> bool:
    match node:
        case Thresholds():
            return node.grid.lo >= 0
        case Rescale():
            return node.negative_multiplier is not None or _is_clipped(graph, node.name)
        case MaxPool2d():
            return _is_clipped(graph, node.name)
        case _:
            return False


def _is_constant(graph: IntGraph, node: Thresholds) -> bool:
    """Whether no code of the input reaches a threshold, or each code reaches it."""
    source = graph.types[node.x]
    if not isinstance(source, CodeTensor):
        return False
    sign = node.sign[:, None]
    ends = np.stack([sign * source.grid.lo, sign * source.grid.hi])
    reached = node.table <= ends
    return bool(np.array_equal(reached[0], reached[1]))


def peer_layers(graph: IntGraph) -> tuple[PeerLayer, ...]:
    """Layers of ``graph``'s network as an int8 engine would run it, in order, the logits last."""
    reader = _Reader(graph)
    for node in graph.nodes:
        reader.read(node)
    output = reader.source(graph.output.name)
    return _needed(tuple(reader.layers.values()), output)


def _needed(layers: tuple[PeerLayer, ...], output: str) -> tuple[PeerLayer, ...]:
    """The layers that ``output`` depends on."""
    needed, kept = {output}, list[PeerLayer]()
    for layer in reversed(layers):
        if layer.name in needed:
            needed.update(layer.inputs)
            kept.append(layer)
    return tuple(reversed(kept))
