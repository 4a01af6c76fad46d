"""Bytes to and from DRAM, stall cycles, block RAM of the buffers (docs/fpga_model.md, 5 and 6).

A layer owns every in-stream node whose operands are complete only after it. A tensor that a later
layer reads is written to DRAM once, packed to its bits, and read once by each layer that uses it.
"""

from collections.abc import Mapping as ReadOnlyDict
from dataclasses import dataclass
from fractions import Fraction
from math import ceil

import numpy as np

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.mapping import MappedLayer, Mapping, mac_nodes
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Conv2d, Dequantize, Linear, Node, Rescale, Thresholds, inputs_of
from bitfold.ir.types import CodeTensor, FloatTensor, TensorType, signed_bits

RESCALE_BITS = 32


def tensor_bits(kind: TensorType) -> int:
    """Packed bits of one image's tensor; codes by index, wide integers by their proven range."""
    elements = int(np.prod(kind.shape))
    match kind:
        case CodeTensor():
            return elements * kind.grid.bits
        case FloatTensor():
            return elements * 32
        case _:
            return elements * signed_bits(kind.lo, kind.hi)


def _bytes(bits: int) -> int:
    return ceil_div(bits, 8)


def owners(graph: IntGraph) -> dict[str, str]:
    """The layer that each node belongs to: the latest layer it depends on.

    What depends on no layer belongs to the first one.
    """
    macs = [node.name for node in mac_nodes(graph)]
    order = {name: i for i, name in enumerate(macs)}
    owner: dict[str, str] = {}
    for node in graph.nodes:
        if node.name in order:
            owner[node.name] = node.name
            continue
        inputs = [owner[x] for x in inputs_of(node)]
        owner[node.name] = max(inputs, key=order.__getitem__, default=macs[0])
    return owner


def parameter_bits(graph: IntGraph, node: Node) -> int:
    """Packed bits of a node's constants: weights by index, biases and tables by proven range."""
    match node:
        case Conv2d() | Linear():
            acc = graph.types[node.name]
            assert not isinstance(acc, CodeTensor | FloatTensor)
            bias = node.bias.size * signed_bits(acc.lo, acc.hi)
            return node.weight.size * node.weight_grid.bits + bias
        case Thresholds():
            source = graph.types[node.x]
            assert not isinstance(source, FloatTensor)
            entry = signed_bits(min(source.lo, -source.hi), max(source.hi, -source.lo) + 1)
            return node.table.size * entry + node.sign.size
        case Rescale():
            slopes = 0 if node.negative_multiplier is None else node.negative_multiplier.size
            return (node.multiplier.size + node.offset.size + slopes) * RESCALE_BITS
        case _:
            return 0


def layer_bytes(graph: IntGraph) -> ReadOnlyDict[str, int]:
    """DRAM bytes of each layer for one image: constants, tensors read, tensors written.

    The image is read as bytes; the result is written as the integers before ``Dequantize``.
    """
    owner = owners(graph)
    total = dict.fromkeys(owner.values(), 0)
    written: set[str] = set()
    read: set[tuple[str, str]] = set()
    total[owner[graph.input.name]] += _bytes(8 * int(np.prod(graph.input.shape)))
    for node in graph.nodes:
        mine = owner[node.name]
        total[mine] += _bytes(parameter_bits(graph, node))
        for x in inputs_of(node):
            if x == graph.input.name:
                continue
            size = _bytes(tensor_bits(graph.types[x]))
            crosses = owner[x] != mine or isinstance(node, Dequantize)
            if crosses and x not in written:
                written.add(x)
                total[owner[x]] += size
            if owner[x] != mine and (x, mine) not in read:
                read.add((x, mine))
                total[mine] += size
    return total


def stall_cycles(compute: int, num_bytes: int, *, bytes_per_cycle: Fraction) -> int:
    """max(0, ⌈bytes / bytes per cycle⌉ − compute): transfers overlap the layer's own computing."""
    return max(0, ceil(Fraction(num_bytes) / bytes_per_cycle) - compute)


def bram18(width: int, depth: int) -> int:
    """18-kbit blocks of a simple dual-port memory of ``depth`` words of ``width`` bits.

    FINN's rule over the aspect ratios 16384 × 1 … 512 × 36.
    """
    if width == 1:
        return ceil_div(depth, 16384)
    if width == 2:
        return ceil_div(depth, 8192)
    if width <= 4:
        return ceil_div(depth, 4096) * ceil_div(width, 4)
    if width <= 9:
        return ceil_div(depth, 2048) * ceil_div(width, 9)
    if width <= 18 or depth > 512:
        return ceil_div(depth, 1024) * ceil_div(width, 18)
    return ceil_div(depth, 512) * ceil_div(width, 36)


@dataclass(frozen=True, slots=True)
class Buffer:
    """A double-buffered memory: ``width`` bits a word, ``depth`` words in both halves."""

    name: str
    width: int
    depth: int

    @property
    def bram18(self) -> int:
        """18-kbit blocks."""
        return bram18(self.width, self.depth)


def _weight_words(layer: MappedLayer, array: ArrayConfig) -> int:
    return ceil_div(layer.gemm.depth, array.lanes) * layer.w_digits


def _tile_words(layer: MappedLayer, array: ArrayConfig) -> int:
    return ceil_div(layer.gemm.depth, array.lanes) * layer.a_digits


def buffers(graph: IntGraph, mapping: Mapping) -> tuple[Buffer, ...]:
    """Buffers that feed the array every cycle, sized for the largest layer, each twice.

    weights: one column fold, C·S·w_bits wide. tile: the unrolled windows of one row fold,
    R·S·a_bits wide. map: the packed input of one layer, as wide as the tile buffer it fills.
    """
    array = mapping.array
    assert array.w_bits is not None
    assert array.a_bits is not None
    w_width = array.cols * array.lanes * array.w_bits
    a_width = array.rows * array.lanes * array.a_bits
    largest_map = max(tensor_bits(graph.types[node.x]) for node in mac_nodes(graph))
    layers = mapping.layers
    return (
        Buffer("weights", w_width, 2 * max(_weight_words(layer, array) for layer in layers)),
        Buffer("tile", a_width, 2 * max(_tile_words(layer, array) for layer in layers)),
        Buffer("map", a_width, 2 * ceil_div(largest_map, a_width)),
    )


def bram36(parts: tuple[Buffer, ...]) -> int:
    """36-kbit blocks of all buffers; two 18-kbit halves of one block may serve two buffers."""
    return ceil_div(sum(part.bram18 for part in parts), 2)
