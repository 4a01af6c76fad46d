"""The walk over the graph, node by node, and the choice of the stream's resolution."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from bitfold.errors import RangeError, UnsupportedError
from bitfold.export.lowering.builder import (
    Bend,
    Builder,
    Decision,
    LayerReport,
    require_unflattened,
    spread,
)
from bitfold.export.lowering.joins import lower_join, lower_sum
from bitfold.export.lowering.products import lower_product
from bitfold.export.lowering.quantizers import (
    lower_activation,
    lower_append_one,
    lower_pixels,
    lower_steps,
)
from bitfold.export.lowering.stream import (
    lower_flex,
    lower_max_pool,
    lower_mean_pool,
    lower_pad_channels,
    on_stream,
)
from bitfold.export.qgraph import (
    Activation,
    Affine,
    AppendOne,
    BatchNorm,
    Conv,
    Flatten,
    Flex,
    FullyConnected,
    Join,
    MaxPool,
    MeanPool,
    PadChannels,
    Pixels,
    Prelu,
    QGraph,
    QNode,
    Relu,
    Steps,
    Sum,
)
from bitfold.ir import Dequantize, IntGraph, Reshape, scales_of, verify

# Resolutions that are tried for the whole stream, the finest first.
FRACTION_BITS = (16, 14, 12)
SAME_SCALE = 1e-12


def _unbent(build: Builder, name: str) -> None:
    """Carry out a bend that another map follows."""
    if build.known[name].bend is not None:
        build.known[name] = on_stream(build, name)


def _lower_map(build: Builder, node: Affine | Relu | Prelu) -> None:
    """Maps of single values stay pending."""
    _unbent(build, node.x)
    source = build.known[node.x]
    if not isinstance(node, Relu):
        require_unflattened(source, node.name)
    match node:
        case Affine():
            build.known[node.name] = source.then(node.gain, node.bias, likely=node.likely)
        case Relu():
            build.known[node.name] = replace(source, bend=Bend(ceiling=node.ceiling))
        case Prelu():
            slopes = spread(node.slopes, len(source.gain))
            build.known[node.name] = replace(source, bend=Bend(slopes=slopes))
        case _:
            assert_never(node)


def _lower_flatten(build: Builder, node: Flatten) -> None:
    source = build.known[node.x]
    height, width, channels = build.types[source.name].shape
    area = height * width
    if area > 1 and not source.is_uniform:
        source = on_stream(build, node.x)
    build.emit(Reshape(node.name, source.name, (area * channels,)))
    build.known[node.name] = replace(
        source, name=node.name, gain=source.gain * area, bias=source.bias * area,
        error=np.tile(source.error, area),
        image=None if node.channels_last else (height, width, channels),
        likely=source.likely if area == 1 else None,
    )  # fmt: skip


def _lower_moved(
    build: Builder, node: Sum | Join | Flex | PadChannels | MaxPool | MeanPool | Flatten
) -> None:
    match node:
        case Sum():
            lower_sum(build, node)
        case Join():
            lower_join(build, node)
        case Flex():
            lower_flex(build, node)
        case PadChannels():
            lower_pad_channels(build, node)
        case MaxPool():
            lower_max_pool(build, node)
        case MeanPool():
            lower_mean_pool(build, node)
        case Flatten():
            _lower_flatten(build, node)
        case _:
            assert_never(node)


def lower_node(build: Builder, node: QNode) -> None:
    """Add to ``build`` the integers of ``node``, or what its readers need of it."""
    match node:
        case Pixels():
            lower_pixels(build, node)
        case AppendOne():
            lower_append_one(build, node)
        case Conv() | FullyConnected():
            lower_product(build, node)
        case Affine() | Relu() | Prelu():
            _lower_map(build, node)
        case Activation():
            lower_activation(build, node)
        case Steps():
            lower_steps(build, node)
        case BatchNorm():
            raise UnsupportedError("a batch norm was not folded", where=f"layer {node.name}")
        case _:
            _lower_moved(build, node)


def _dequantized(build: Builder, name: str) -> str:
    """The integers behind the last node, such that their type's scale is their scale."""
    last = build.known[name]
    scales = np.array(scales_of(build.types[last.name]))
    true = np.array([float(g) for g in last.gain])
    plain = last.bend is None and not any(last.bias)
    if plain and np.allclose(true, scales, rtol=SAME_SCALE, atol=0):
        return last.name
    return on_stream(build, name).name


def _is_added(graph: QGraph, name: str) -> bool:
    return any(isinstance(r, Sum | Flex | PadChannels) for r in graph.consumers(name))


@dataclass(frozen=True, slots=True)
class Folded:
    """A verified integer graph, how exact each layer is, and what each threshold table decides."""

    graph: IntGraph
    layers: tuple[LayerReport, ...]
    decisions: tuple[Decision, ...]


def _lower_at(graph: QGraph, fraction_bits: int, *, adaptive: bool) -> Folded:
    build = Builder(fraction_bits, adaptive, graph.nodes[-1].name)
    for node in graph.nodes:
        lower_node(build, node)
        if isinstance(node, Conv) and _is_added(graph, node.name):
            # At once, so that a kernel can write the stream instead of its accumulators.
            build.known[node.name] = on_stream(build, node.name)
    build.emit(Dequantize("logits", _dequantized(build, graph.nodes[-1].name)))
    integers = build.graph(dict(graph.meta))
    verify(integers)
    return Folded(integers, tuple(build.reports), tuple(build.decisions))


def lower(
    graph: QGraph, *, resolutions: Sequence[int] = FRACTION_BITS
) -> tuple[IntGraph, tuple[LayerReport, ...]]:
    """``lower_with_decisions`` without the decisions."""
    lowered = lower_with_decisions(graph, resolutions=resolutions)
    return lowered.graph, lowered.layers


def lower_with_decisions(graph: QGraph, *, resolutions: Sequence[int] = FRACTION_BITS) -> Folded:
    """The verified integer graph, on as fine a stream as every proven range allows.

    One of ``resolutions`` (fraction bits) for the whole stream where one fits, else each
    part of the stream takes the finest that its own range leaves, and where that is coarse too a
    batch norm's result saturates (ADR 0012). Raises UnsupportedError naming the layer, RangeError
    where nothing fits.
    """
    for fraction_bits in resolutions:
        try:
            return _lower_at(graph, fraction_bits, adaptive=False)
        except RangeError:
            continue
    return _lower_at(graph, resolutions[0], adaptive=True)
