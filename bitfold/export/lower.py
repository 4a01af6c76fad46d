"""QGraph → IntGraph: every real-valued node becomes integers with proven ranges.

While walking, each tensor is known as an integer tensor plus a *pending* affine map that its
consumer absorbs: real value = gain[c]·X + bias[c]. Quantizers turn it into thresholds, ``Widen``
into a fixed-point rescale.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from typing import assert_never

import numpy as np

from bitfold.errors import RangeError, UnsupportedError
from bitfold.export.fixed_point import fixed_point
from bitfold.export.qgraph import (
    Activation,
    Affine,
    BatchNorm,
    Conv,
    Flatten,
    FullyConnected,
    MaxPool,
    MeanPool,
    Pixels,
    QGraph,
    QNode,
    Rationals,
    Relu,
    Sum,
    Widen,
)
from bitfold.export.thresholds import threshold_table
from bitfold.ir import (
    INT32_MAX,
    Accumulator,
    Add,
    CodeTensor,
    Conv2d,
    Dequantize,
    Grid,
    IntGraph,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    SumPool2d,
    TensorType,
    Thresholds,
    WideTensor,
    output_type,
    verify,
)

MAX_FRACTION_BITS = 16
MIN_FRACTION_BITS = 6


@dataclass(frozen=True, slots=True)
class Pending:
    """Integer tensor ``name`` with real value gain[c]·X + bias[c]; ``error`` in real units."""

    name: str
    gain: Rationals
    bias: Rationals
    error: float = 0.0

    def then(self, gain: Rationals, bias: Rationals) -> "Pending":
        """The same integers behind another affine map."""
        gains = tuple(g * h for g, h in zip(gain, self.gain, strict=True))
        biases = tuple(g * b + c for g, b, c in zip(gain, self.bias, bias, strict=True))
        worst = max((abs(float(g)) for g in gain), default=1.0)
        return Pending(self.name, gains, biases, self.error * worst)


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What folding did to one layer: ``exact``, or ``bounded`` by ``error`` in real units."""

    name: str
    kind: str
    exact: bool
    error: float


@dataclass(slots=True)
class _Builder:
    """The nodes made so far; lives for one call of ``lower``."""

    fraction_bits: int
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    known: dict[str, Pending] = field(default_factory=dict)
    reports: list[LayerReport] = field(default_factory=list)

    def emit(self, node: Node, *inputs: str) -> TensorType:
        """Append ``node`` and infer its type."""
        self.nodes.append(node)
        self.types[node.name] = output_type(node, tuple(self.types[x] for x in inputs))
        return self.types[node.name]

    def range_of(self, name: str) -> tuple[int, int]:
        """Proven range of an integer tensor."""
        tensor = self.types[name]
        assert isinstance(tensor, CodeTensor | Accumulator | WideTensor)
        return tensor.lo, tensor.hi

    def report(self, name: str, kind: str, error: float) -> None:
        """Record how exactly a layer was folded."""
        self.reports.append(LayerReport(name, kind, exact=error == 0.0, error=error))


def _uniform(scale: Fraction, channels: int) -> tuple[Rationals, Rationals]:
    return (scale,) * channels, (Fraction(0),) * channels


def _spread(values: Sequence[Fraction], channels: int) -> Rationals:
    return tuple(values) * channels if len(values) == 1 else tuple(values)


def _code_scale(build: _Builder, x: str, where: str) -> Fraction:
    """The exact scale of a tensor of codes; refuses anything still carrying an affine map."""
    pending = build.known[x]
    if not isinstance(build.types[pending.name], CodeTensor):
        raise UnsupportedError(
            "its input is not quantized",
            where=f"layer {where}",
            todo="Put an activation quantizer in front of it.",
        )
    return pending.gain[0]


def _floats(scales: Sequence[Fraction]) -> tuple[float, ...]:
    return tuple(float(s) for s in scales)


def _lower_pixels(build: _Builder, node: Pixels) -> None:
    scale = Fraction(1, node.std)
    build.emit(Quantize(node.name, node.shape, Grid.pixels(node.mean), float(scale)))
    build.known[node.name] = Pending(node.name, *_uniform(scale, node.shape[2]))


def _lower_conv(build: _Builder, node: Conv) -> None:
    scale = _code_scale(build, node.x, node.name)
    channels = len(node.weight)
    x = build.known[node.x].name
    conv = Conv2d(
        node.name, x, node.weight, node.grid, _floats(node.scales),
        np.zeros(channels, np.int64), node.stride, node.padding, node.groups,
    )  # fmt: skip
    build.emit(conv, x)
    gains = tuple(scale * s for s in _spread(node.scales, channels))
    build.known[node.name] = Pending(node.name, gains, (Fraction(0),) * channels)


def _lower_linear(build: _Builder, node: FullyConnected) -> None:
    scale = _code_scale(build, node.x, node.name)
    x = build.known[node.x].name
    units = [scale * s for s in _spread(node.scales, len(node.weight))]
    bias = np.array([round(b / u) for b, u in zip(node.bias, units, strict=True)])
    linear = Linear(node.name, x, node.weight, node.grid, _floats(node.scales), bias)
    build.emit(linear, x)
    rounding = max(
        (abs(float(b - round(b / u) * u)) for b, u in zip(node.bias, units, strict=True)),
        default=0.0,
    )
    build.known[node.name] = Pending(node.name, tuple(units), (Fraction(0),) * len(units), rounding)
    build.report(node.name, "bias", rounding)


def _lower_activation(build: _Builder, node: Activation) -> None:
    source = build.known[node.x]
    if node.grid.step != 1:
        raise UnsupportedError(f"activation grid {node.grid}", where=f"layer {node.name}")
    lo, hi = build.range_of(source.name)
    table, sign = threshold_table(
        source.gain, source.bias, scale=node.scale, grid=node.grid, lo=lo, hi=hi
    )
    build.emit(
        Thresholds(node.name, source.name, table, sign, node.grid, float(node.scale)), source.name
    )
    build.report(node.name, "thresholds", source.error)
    build.known[node.name] = Pending(node.name, *_uniform(node.scale, len(sign)))


def _wide_bits(build: _Builder, source: Pending, headroom: int) -> int:
    """Fraction bits of a rescale whose results are summed ``headroom`` at a time."""
    lo, hi = build.range_of(source.name)
    reach = max(
        abs(g * x + b) for g, b in zip(source.gain, source.bias, strict=True) for x in (lo, hi)
    )
    bits = build.fraction_bits
    while bits and (reach + 1) * headroom * 2**bits > INT32_MAX:
        bits -= 1
    return bits


def _lower_widen(build: _Builder, node: Widen) -> None:
    source = build.known[node.x]
    if node.gain is not None and node.bias is not None:
        source = source.then(node.gain, node.bias)
    shape = build.types[source.name].shape
    headroom = node.headroom or shape[0] * shape[1]
    bits = build.fraction_bits if headroom == 1 else _wide_bits(build, source, headroom)
    lo, hi = build.range_of(source.name)
    form = fixed_point(source.gain, source.bias, fraction_bits=bits, largest=max(abs(lo), abs(hi)))
    channels = len(source.gain)
    rescale = Rescale(
        node.name, source.name, form.multiplier, form.offset, form.shift, 2.0**-bits,
        np.zeros(channels, np.int64) if node.relu else None,
    )  # fmt: skip
    build.emit(rescale, source.name)
    error = source.error + form.error * 2.0**-bits
    build.report(node.name, "stream", error)
    build.known[node.name] = Pending(
        node.name, *_uniform(Fraction(1, 2**bits), channels), error=error
    )


def _lower_sum(build: _Builder, node: Sum) -> None:
    a, b = build.known[node.a], build.known[node.b]
    build.emit(Add(node.name, a.name, b.name), a.name, b.name)
    build.known[node.name] = Pending(node.name, a.gain, a.bias, a.error + b.error)


def _lower_pool(build: _Builder, node: MaxPool | MeanPool) -> None:
    source = build.known[node.x]
    if isinstance(build.types[source.name], Accumulator) or any(source.bias):
        raise UnsupportedError(
            "pooling in front of the quantizer",
            where=f"layer {node.name}",
            todo="Quantize first, or pool the residual stream.",
        )
    if isinstance(node, MaxPool):
        build.emit(
            MaxPool2d(node.name, source.name, node.kernel, node.stride, node.padding), source.name
        )
        build.known[node.name] = Pending(node.name, source.gain, source.bias, source.error)
        return
    height, width, _ = build.types[source.name].shape
    kernel = node.kernel or (height, width)
    build.emit(SumPool2d(node.name, source.name, kernel, node.stride or kernel), source.name)
    area = kernel[0] * kernel[1]
    gains = tuple(g / area for g in source.gain)
    build.known[node.name] = Pending(node.name, gains, source.bias, source.error)


def _lower_flatten(build: _Builder, node: Flatten) -> None:
    source = build.known[node.x]
    height, width, channels = build.types[source.name].shape
    if (height, width) != (1, 1):
        raise UnsupportedError(
            f"flattening a {height}x{width} image",
            where=f"layer {node.name}",
            todo="Pool to 1x1 in front of the fully connected layer.",
        )
    build.emit(Reshape(node.name, source.name, (channels,)), source.name)
    build.known[node.name] = Pending(node.name, source.gain, source.bias, source.error)


def _lower_affine(build: _Builder, node: Affine) -> None:
    build.known[node.name] = build.known[node.x].then(node.gain, node.bias)


def _lower_tensor_op(build: _Builder, node: Widen | Sum | MaxPool | MeanPool | Flatten) -> None:
    """Ops on whole tensors: the stream, pools, shapes."""
    match node:
        case Widen():
            _lower_widen(build, node)
        case Sum():
            _lower_sum(build, node)
        case MaxPool() | MeanPool():
            _lower_pool(build, node)
        case Flatten():
            _lower_flatten(build, node)
        case _:
            assert_never(node)


def _lower_node(build: _Builder, node: QNode) -> None:
    match node:
        case Pixels():
            _lower_pixels(build, node)
        case Conv():
            _lower_conv(build, node)
        case FullyConnected():
            _lower_linear(build, node)
        case Affine():
            _lower_affine(build, node)
        case Activation():
            _lower_activation(build, node)
        case BatchNorm() | Relu():
            raise UnsupportedError(
                f"{type(node).__name__} was not folded", where=f"layer {node.name}"
            )
        case _:
            _lower_tensor_op(build, node)


def _lower_at(graph: QGraph, fraction_bits: int) -> tuple[IntGraph, tuple[LayerReport, ...]]:
    build = _Builder(fraction_bits)
    for node in graph.nodes:
        _lower_node(build, node)
    last = build.known[graph.nodes[-1].name]
    build.emit(Dequantize("logits", last.name), last.name)
    integers = IntGraph.of(build.nodes, meta=dict(graph.meta))
    verify(integers)
    return integers, tuple(build.reports)


def lower(graph: QGraph) -> tuple[IntGraph, tuple[LayerReport, ...]]:
    """The verified integer graph, with as many fraction bits as every proven range allows.

    Raises UnsupportedError naming the layer, RangeError where no stream resolution fits.
    """
    for fraction_bits in range(MAX_FRACTION_BITS, MIN_FRACTION_BITS - 1, -1):
        try:
            return _lower_at(graph, fraction_bits)
        except RangeError:
            if fraction_bits == MIN_FRACTION_BITS:
                raise
    raise AssertionError("unreachable: the loop returns or raises")
