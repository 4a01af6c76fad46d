"""Bytes to and from DRAM and the block RAM of the buffers (docs/fpga_model.md, 5 and 6).

A layer owns every in-stream node whose operands are complete only after it. A tensor that a later
layer reads is written to DRAM once, packed to its bits, and read once by each layer that uses it.
"""

import math
from collections.abc import Mapping as ReadOnlyDict
from dataclasses import dataclass

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.block_memory import MemoryCells, memory_cells, ultra_cells
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.mapping import MappedLayer, Mapping, mac_nodes
from bitfold.fpga_sim.per_graph import per_graph
from bitfold.fpga_sim.tiling import Traffic
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Conv2d, Dequantize, Linear, Node, Rescale, Thresholds, inputs_of
from bitfold.ir.types import CodeTensor, FloatTensor, TensorType, signed_bits

RESCALE_BITS = 32


def tensor_bits(kind: TensorType) -> int:
    """Packed bits of one image's tensor; codes by index, wide integers by their proven range."""
    elements = math.prod(kind.shape)
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


@per_graph
def layer_traffic(graph: IntGraph) -> ReadOnlyDict[str, Traffic]:
    """Packed DRAM bytes of each layer for one image, each moved once.

    The image is read as bytes; the result is written as the integers before ``Dequantize``.
    """
    owner = owners(graph)
    macs = {node.name: node for node in mac_nodes(graph)}
    constants, inputs, others, writes = (dict.fromkeys(macs, 0) for _ in range(4))
    written: set[str] = set()
    read: set[tuple[str, str]] = set()
    image = graph.input.name
    first = macs[owner[image]]
    # What the first layer reads may be made from the image on the way.
    (inputs if first.x == image else others)[first.name] += _bytes(8 * math.prod(graph.input.shape))
    for node in graph.nodes:
        mine = owner[node.name]
        constants[mine] += _bytes(parameter_bits(graph, node))
        for x in inputs_of(node):
            if x == image:
                continue
            size = _bytes(tensor_bits(graph.types[x]))
            crosses = owner[x] != mine or isinstance(node, Dequantize)
            if crosses and x not in written:
                written.add(x)
                writes[owner[x]] += size
            if owner[x] != mine and (x, mine) not in read:
                read.add((x, mine))
                (inputs if x == macs[mine].x else others)[mine] += size
    return {name: Traffic(constants[name], inputs[name], others[name], writes[name])
            for name in macs}  # fmt: skip


def layer_bytes(graph: IntGraph) -> ReadOnlyDict[str, int]:
    """DRAM bytes of each layer for one image with everything moved once."""
    return {name: traffic.total for name, traffic in layer_traffic(graph).items()}


def bram18(width: int, depth: int) -> int:
    """18-kbit blocks by FINN's rule over the aspect ratios 16384 × 1 … 512 × 36 (mode ``finn``).

    Buffers of the array follow ``block_memory`` instead, as Yosys maps them.
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
    ram: str = "bram"

    @property
    def bits(self) -> int:
        """Capacity of both halves."""
        return self.width * self.depth

    @property
    def cells(self) -> MemoryCells:
        """What synthesis makes of it; of a memory in UltraRAM what is around its blocks."""
        if self.ram == "bram":
            return memory_cells(self.width, self.depth)
        around = ultra_cells(self.width, self.depth)
        return MemoryCells(lut=around.lut, ff=around.ff)

    @property
    def bram18(self) -> int:
        """18-kbit blocks; 0 in UltraRAM and where LUT RAM or flip-flops are cheaper."""
        return self.cells.bram18

    @property
    def uram(self) -> int:
        """UltraRAM blocks; 0 in block RAM."""
        return ultra_cells(self.width, self.depth).blocks if self.ram == "uram" else 0


def weight_words(layer: MappedLayer, array: ArrayConfig) -> int:
    """Words of one column fold's weights, every digit of them.

    An input-stationary array streams filters: a grouped layer's fold is a whole group there.
    """
    one = ceil_div(layer.gemm.depth, array.lanes) * layer.w_digits
    streams = array.dataflow == "is" and layer.gemm.groups > 1
    return one * (ceil_div(layer.gemm.filters, array.cols) if streams else 1)


def _stream_words(layer: MappedLayer, array: ArrayConfig) -> int:
    """Words of the weights that a block should hold: all filters where they stream."""
    streams = array.dataflow == "is" and layer.gemm.groups == 1
    return weight_words(layer, array) * (ceil_div(layer.gemm.filters, array.cols) if streams else 1)


def tile_words(layer: MappedLayer, array: ArrayConfig) -> int:
    """Words of one row fold's unrolled windows, every digit of them."""
    return ceil_div(layer.gemm.depth, array.lanes) * layer.a_digits


def operand_widths(array: ArrayConfig) -> tuple[int, int]:
    """Bits of a word of weights (C·S·w_bits) and of activations (R·S·a_bits)."""
    assert array.w_bits is not None
    assert array.a_bits is not None
    return array.cols * array.lanes * array.w_bits, array.rows * array.lanes * array.a_bits


def buffers(graph: IntGraph, mapping: Mapping) -> tuple[Buffer, ...]:
    """Buffers that feed the array every cycle, of the depth given or sized for the largest layer.

    weights: one column fold, C·S·w_bits wide. tile: the unrolled windows of one row fold,
    R·S·a_bits wide. map: the packed input of one layer, as wide as the tile buffer it fills.
    sums: C partial sums a word, in weight- and input-stationary arrays. outputs: C results a word,
    only where asked for; without it results stream out.
    """
    array, layers = mapping.array, mapping.layers
    w_width, a_width = operand_widths(array)
    largest_map = max(8 * _bytes(tensor_bits(graph.types[x.x])) for x in mac_nodes(graph))
    weights = array.weight_words or 2 * max(_stream_words(layer, array) for layer in layers)
    tile = array.tile_words or 2 * max(tile_words(layer, array) for layer in layers)
    maps = array.map_words or 2 * ceil_div(largest_map, a_width)
    found = [
        Buffer("weights", w_width, weights, array.weight_ram),
        Buffer("tile", a_width, tile, array.tile_ram),
        Buffer("map", a_width, maps, array.map_ram),
    ]
    if array.dataflow != "os":
        sums = array.cols * mapping.acc_bits
        found.append(Buffer("sums", sums, array.acc_words, array.output_ram))
    if array.output_words is not None:
        out_bits = max(layer.out_bits for layer in layers)
        width = array.cols * out_bits
        found.append(Buffer("outputs", width, array.output_words, array.output_ram))
    return tuple(found)
