"""From a graph to the products that the array computes: one ``MappedLayer`` a Conv2d or Linear.

Pixels go on the rows, filters on the columns, the sum over taps and input channels runs in time.
A grouped convolution is one product per group, so a depthwise layer keeps one column in C busy.
"""

from dataclasses import dataclass, replace

from bitfold.errors import UnsupportedError, UsageError
from bitfold.fpga_sim.array import MAX_BITS, PE_BITS, ArrayConfig, bit_planes
from bitfold.fpga_sim.cycles import Gemm, ceil_div, scalesim_output_size
from bitfold.fpga_sim.per_graph import per_graph
from bitfold.fpga_sim.tiling import Window
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear
from bitfold.ir.ranges import product_interval
from bitfold.ir.types import Accumulator, CodeTensor, signed_bits

MacNode = Conv2d | Linear
LOW_BITS = 4
TERNARY_LEVELS = 3


@dataclass(frozen=True, slots=True)
class MappedLayer:
    """One layer on the array: its product, its operand widths and its widest sum.

    An operand enters as ``w_digits`` digits of ``w_digit_bits`` bits; a whole code is one digit.
    ``acc_bits`` holds what the PEs sum in one visit, ``out_bits`` the finished accumulator.
    """

    name: str
    gemm: Gemm
    weight_grid: Grid
    activation_grid: Grid
    w_digits: int
    a_digits: int
    w_digit_bits: int
    a_digit_bits: int
    acc_bits: int
    out_bits: int
    window: Window

    @property
    def depthwise(self) -> bool:
        """Whether every group has one input channel and there is more than one."""
        return self.gemm.groups > 1 and self.gemm.depth == self.taps

    @property
    def taps(self) -> int:
        """Kernel positions of one filter."""
        return self.window.taps


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

    @property
    def acc_bits(self) -> int:
        """Accumulator bits of every PE: given, or what the widest sum needs."""
        return self.array.acc_bits or max(layer.acc_bits for layer in self.layers)


@per_graph
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


def _window(graph: IntGraph, node: MacNode) -> Window:
    """Which input rows output pixels need; a Linear is one pixel."""
    if isinstance(node, Linear):
        return Window(1, 1, 1, 1, 1, taps=1)
    _, kh, kw, _ = node.weight.shape
    height, width = graph.types[node.name].shape[:2]
    rows = graph.types[node.x].shape[0]
    top, stride = node.padding[0], node.stride[0]
    return Window(rows, kh, stride, height, width, taps=kh * kw, padding=top)


@per_graph
def _operand_bits(graph: IntGraph) -> tuple[frozenset[int], frozenset[int]]:
    """Bits of the weights and of the codes of all layers; raises UnsupportedError beyond 8."""
    nodes = mac_nodes(graph)
    for node in nodes:
        bits = max(node.weight_grid.bits, input_grid(graph, node).bits)
        if bits > MAX_BITS:
            raise UnsupportedError(
                f"an operand has {bits} bits, a PE at most {MAX_BITS}", where=f"node {node.name}"
            )
    return (
        frozenset(node.weight_grid.bits for node in nodes),
        frozenset(input_grid(graph, node).bits for node in nodes),
    )


def _settle_widths(graph: IntGraph, array: ArrayConfig) -> ArrayConfig:
    """``array`` with operand widths: given ones, else taken from the layers.

    ``edge = wide`` takes the widest operand, ``edge = passes`` the widest of at most 4 bits, so
    that 8-bit edges and shortcuts do not set the size of every PE.
    """
    most = LOW_BITS if array.edge == "passes" else MAX_BITS
    settled = PE_BITS.get(array.pe)
    w_bits = settled or array.w_bits
    a_bits = settled or array.a_bits
    of_weights, of_codes = _operand_bits(graph)
    w_bits = w_bits or _widest(of_weights, most=most)
    a_bits = a_bits or _widest(of_codes, most=most)
    if array.pe == "dsp":
        array.require_whole_dsps(w_bits, a_bits)
    return array.with_bits(w_bits=w_bits, a_bits=a_bits)


def _widest(widths: frozenset[int], *, most: int) -> int:
    """The greatest width up to ``most``; the least one where all are greater."""
    return max((width for width in widths if width <= most), default=min(widths))


def _kind(grids: list[Grid], bits: int, *, pe: str, digits: bool) -> str:
    """Kind of a PE operand of ``bits`` bits; digits 0 … 3 need two full bits, codes −1 … 1 not."""
    if pe == "ternary":
        return "T"
    native = [grid for grid in grids if grid.bits <= bits]
    ternary = bits == 2 and native and all(grid.levels <= TERNARY_LEVELS for grid in native)
    return "T" if pe == "auto" and ternary and not digits else str(bits)


def _digit_bits(weights: Grid, codes: Grid, array: ArrayConfig) -> tuple[int, int]:
    """Bits of one digit of each operand: the PE's width, or 1 where a ternary PE cannot hold it."""
    assert array.w_bits is not None
    assert array.a_bits is not None
    if array.pe == "ternary" and max(weights.levels, codes.levels) > TERNARY_LEVELS:
        return 1, 1
    return array.w_bits, array.a_bits


@per_graph
def _sums(graph: IntGraph) -> dict[str, tuple[int, int]]:
    """Least and greatest sum of products of each layer."""
    found: dict[str, tuple[int, int]] = {}
    for node in mac_nodes(graph):
        codes = input_grid(graph, node)
        found[node.name] = product_interval(node.weight, node.bias * 0, lo=codes.lo, hi=codes.hi)
    return found


def _map_layer(graph: IntGraph, node: MacNode, array: ArrayConfig) -> MappedLayer:
    codes = input_grid(graph, node)
    out = graph.types[node.name]
    assert isinstance(out, Accumulator)
    gemm = _gemm(graph, node, array)
    window = _window(graph, node)
    w_bits, a_bits = _digit_bits(node.weight_grid, codes, array)
    w_digits = ceil_div(node.weight_grid.bits, w_bits)
    a_digits = ceil_div(codes.bits, a_bits)
    if array.pe == "serial":
        w_digits, a_digits = bit_planes(node.weight_grid), bit_planes(codes)
    if array.mode == "scalesim":
        w_digits = a_digits = 1
    visits = w_digits * a_digits
    passes, serial = (1, visits) if array.pe == "serial" else (visits, 1)
    if passes > 1:
        acc_bits = signed_bits(0, gemm.depth * (2**w_bits - 1) * (2**a_bits - 1))
    else:
        lo, hi = _sums(graph)[node.name]
        acc_bits = signed_bits(min(lo, 0), max(hi, 0))
    return MappedLayer(
        name=node.name,
        gemm=replace(gemm, passes=passes, serial=serial),
        weight_grid=node.weight_grid,
        activation_grid=codes,
        w_digits=w_digits,
        a_digits=a_digits,
        w_digit_bits=w_bits,
        a_digit_bits=a_bits,
        acc_bits=acc_bits,
        out_bits=signed_bits(out.lo, out.hi),
        window=window,
    )


def _require_accumulator(layer: MappedLayer, array: ArrayConfig) -> None:
    if array.acc_bits is not None and array.acc_bits < layer.acc_bits:
        raise UsageError(
            f"sums of {layer.acc_bits} bits overflow an accumulator of {array.acc_bits}",
            where=f"acc_bits, layer {layer.name}",
            todo=f"Use acc_bits {layer.acc_bits}, or leave it out.",
        )


def map_graph(graph: IntGraph, array: ArrayConfig) -> Mapping:
    """Lay every Conv2d and Linear of ``graph`` on ``array``.

    Raises UnsupportedError where an operand needs more than 8 bits, or nothing runs on the array;
    UsageError where a sum does not fit into ``acc_bits``.
    """
    settled = _settle_widths(graph, array)
    assert settled.w_bits is not None
    assert settled.a_bits is not None
    known = _known_operands(graph)
    key = settled.w_bits, settled.a_bits, settled.pe, settled.mode, settled.scalesim_ceil
    if key not in known:
        known[key] = _map_operands(graph, settled)
    found = known[key]
    for layer in found.layers if settled.acc_bits is not None else ():
        _require_accumulator(layer, settled)
    return Mapping(settled, found.w_kind, found.a_kind, found.layers)


@dataclass(frozen=True, slots=True)
class _Operands:
    """What a mapping has besides its array."""

    w_kind: str
    a_kind: str
    layers: tuple[MappedLayer, ...]


@per_graph
def _known_operands(graph: IntGraph) -> dict[tuple[int, int, str, str, bool], _Operands]:
    """Kept for all arrays of the same operand widths, PE kind and output sizes."""
    del graph
    return {}


def _map_operands(graph: IntGraph, array: ArrayConfig) -> _Operands:
    assert array.w_bits is not None
    assert array.a_bits is not None
    layers = tuple(_map_layer(graph, node, array) for node in mac_nodes(graph))
    digits = any(layer.gemm.passes > 1 for layer in layers)
    weights, codes = [x.weight_grid for x in layers], [x.activation_grid for x in layers]
    return _Operands(
        w_kind=_kind(weights, array.w_bits, pe=array.pe, digits=digits),
        a_kind=_kind(codes, array.a_bits, pe=array.pe, digits=digits),
        layers=layers,
    )
