"""From a graph to the products that the array computes: one ``MappedLayer`` a Conv2d or Linear.

Pixels go on the rows, filters on the columns, the sum over taps and input channels runs in time.
A grouped convolution is one product per group, so a depthwise layer keeps one column in C busy.
"""

from dataclasses import dataclass

from bitfold.errors import UnsupportedError
from bitfold.fpga_sim.array import MAX_BITS, ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, ceil_div, scalesim_output_size
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear
from bitfold.ir.ranges import product_interval
from bitfold.ir.types import Accumulator, CodeTensor, signed_bits

MacNode = Conv2d | Linear
LOW_BITS = 4


@dataclass(frozen=True, slots=True)
class MappedLayer:
    """One layer on the array: its product, its operand widths and its widest sum.

    ``acc_bits`` holds what the PEs sum in one visit, ``out_bits`` the finished accumulator.
    """

    name: str
    gemm: Gemm
    weight_grid: Grid
    activation_grid: Grid
    w_digits: int
    a_digits: int
    acc_bits: int
    out_bits: int


@dataclass(frozen=True, slots=True)
class Mapping:
    """An array with settled operand widths, and every layer on it in graph order.

    ``w_kind`` and ``a_kind`` name the operands of a PE: ``1``, ``T`` (ternary), ``2`` … ``8``.
    """

    array: ArrayConfig
    w_kind: str
    a_kind: str
    layers: tuple[MappedLayer, ...]

    @property
    def has_passes(self) -> bool:
        """Whether some layer is computed digit by digit."""
        return any(layer.gemm.passes > 1 for layer in self.layers)


def mac_nodes(graph: IntGraph) -> tuple[MacNode, ...]:
    """The nodes that run on the array, in order; raises UnsupportedError where there is none."""
    nodes = tuple(node for node in graph.nodes if isinstance(node, Conv2d | Linear))
    if not nodes:
        raise UnsupportedError(
            "the graph has no Conv2d and no Linear: nothing runs on the array", where="graph"
        )
    return nodes


def input_grid(graph: IntGraph, node: MacNode) -> Grid:
    """Grid of the codes that ``node`` reads."""
    kind = graph.types[node.x]
    assert isinstance(kind, CodeTensor)  # the graph's type inference raises DomainError otherwise
    return kind.grid


def _gemm(graph: IntGraph, node: MacNode, array: ArrayConfig) -> Gemm:
    """The product of ``node``, one visit per tile."""
    if isinstance(node, Linear):
        return Gemm(1, node.weight.shape[1], node.weight.shape[0])
    num_out, kh, kw, depth = node.weight.shape
    height, width = graph.types[node.name].shape[:2]
    if array.mode == "scalesim" and array.scalesim_ceil:
        h, w = graph.types[node.x].shape[:2]
        top, left, bottom, right = node.padding
        height = scalesim_output_size(h + top + bottom, kernel=kh, stride=node.stride[0])
        width = scalesim_output_size(w + left + right, kernel=kw, stride=node.stride[1])
    return Gemm(height * width, kh * kw * depth, num_out // node.groups, node.groups)


def _settle_widths(graph: IntGraph, nodes: tuple[MacNode, ...], array: ArrayConfig) -> ArrayConfig:
    """``array`` with operand widths: given ones, else taken from the layers.

    ``edge = wide`` takes the widest operand, ``edge = passes`` the widest of at most 4 bits, so
    that 8-bit edges and shortcuts do not set the size of every PE.
    """
    most = LOW_BITS if array.edge == "passes" else MAX_BITS
    w_bits = array.w_bits or _widest({node.weight_grid.bits for node in nodes}, most=most)
    a_bits = array.a_bits or _widest({input_grid(graph, node).bits for node in nodes}, most=most)
    return array.with_bits(w_bits=w_bits, a_bits=a_bits)


def _widest(widths: set[int], *, most: int) -> int:
    """The greatest width up to ``most``; the least one where all are greater."""
    return max((width for width in widths if width <= most), default=min(widths))


def _kind(grids: list[Grid], bits: int, *, digits: bool) -> str:
    """Kind of a PE operand of ``bits`` bits; digits 0 … 3 need two full bits, codes −1 … 1 not."""
    native = [grid for grid in grids if grid.bits <= bits]
    if bits == 2 and native and not digits and all(grid.levels <= 3 for grid in native):
        return "T"
    return str(bits)


def _map_layer(graph: IntGraph, node: MacNode, array: ArrayConfig) -> MappedLayer:
    assert array.w_bits is not None
    assert array.a_bits is not None
    codes = input_grid(graph, node)
    out = graph.types[node.name]
    assert isinstance(out, Accumulator)
    gemm = _gemm(graph, node, array)
    w_digits = ceil_div(node.weight_grid.bits, array.w_bits)
    a_digits = ceil_div(codes.bits, array.a_bits)
    if array.mode == "scalesim":
        w_digits = a_digits = 1
    passes = w_digits * a_digits
    if passes > 1:
        acc_bits = signed_bits(0, gemm.depth * (2**array.w_bits - 1) * (2**array.a_bits - 1))
    else:
        lo, hi = product_interval(node.weight, node.bias * 0, lo=codes.lo, hi=codes.hi)
        acc_bits = signed_bits(min(lo, 0), max(hi, 0))
    return MappedLayer(
        name=node.name,
        gemm=Gemm(gemm.pixels, gemm.depth, gemm.filters, gemm.groups, passes),
        weight_grid=node.weight_grid,
        activation_grid=codes,
        w_digits=w_digits,
        a_digits=a_digits,
        acc_bits=acc_bits,
        out_bits=signed_bits(out.lo, out.hi),
    )


def map_graph(graph: IntGraph, array: ArrayConfig) -> Mapping:
    """Lay every Conv2d and Linear of ``graph`` on ``array``.

    Raises UnsupportedError where an operand needs more than 8 bits, or nothing runs on the array.
    """
    nodes = mac_nodes(graph)
    for node in nodes:
        bits = max(node.weight_grid.bits, input_grid(graph, node).bits)
        if bits > MAX_BITS:
            raise UnsupportedError(
                f"an operand has {bits} bits, a PE at most {MAX_BITS}", where=f"node {node.name}"
            )
    settled = _settle_widths(graph, nodes, array)
    assert settled.w_bits is not None
    assert settled.a_bits is not None
    layers = tuple(_map_layer(graph, node, settled) for node in nodes)
    digits = any(layer.gemm.passes > 1 for layer in layers)
    return Mapping(
        array=settled,
        w_kind=_kind([layer.weight_grid for layer in layers], settled.w_bits, digits=digits),
        a_kind=_kind([layer.activation_grid for layer in layers], settled.a_bits, digits=digits),
        layers=layers,
    )
