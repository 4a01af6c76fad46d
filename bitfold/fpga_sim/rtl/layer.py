"""A real layer of an integer graph as a product on the emitted array, with what has to come out.

Operands are sent as ``Operand`` says. A grid that is sent by its index leaves lo · Σ w out of every
sum of filter m; that constant and the bias are known beforehand:

    acc = step · sum + lo · Σ_k w[k, m] + bias[m]

so thresholds are moved instead: sum ≥ t' where acc ≥ t (or, for a negative gain, −acc ≥ t).
"""

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError, UsageError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import Gemm, ceil_div
from bitfold.fpga_sim.functional import im2col
from bitfold.fpga_sim.mapping import MacNode, input_grid, mac_nodes
from bitfold.fpga_sim.rtl.design import (
    PARALLEL_BITS,
    SIGNED,
    UNSIGNED,
    Design,
    Operand,
    ThresholdUnit,
    natural_kind,
)
from bitfold.fpga_sim.rtl.stimulus import Stimulus, Words, pack, stimulus, unpack
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Thresholds
from bitfold.ir.oracle import trace_oracle
from bitfold.ir.ranges import product_interval
from bitfold.ir.types import IntArray, signed_bits


@dataclass(frozen=True, slots=True)
class Tables:
    """Thresholds of filters on sums: entries (filters, count) ascending, flips (filters,)."""

    entries: IntArray
    flips: NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class LayerRun:
    """One layer on one array: operands that are sent, counters, and the words expected.

    ``loads`` are the entries of the threshold units, one word each; ``codes`` the words behind
    them, one for each word of results. Both are None where no threshold follows the layer.
    """

    name: str
    gemm: Gemm
    design: Design
    product: Stimulus
    loads: Words | None
    codes: Words | None


def find_layer(graph: IntGraph, name: str | None) -> MacNode:
    """The layer called ``name``; without one, the largest that thresholds follow directly."""
    nodes = mac_nodes(graph)
    if name is None:
        followed = [node for node in nodes if thresholds_of(graph, node) is not None]
        return max(followed or nodes, key=lambda node: _gemm(graph, node).macs)
    for node in nodes:
        if node.name == name:
            return node
    raise UsageError(
        f"the model has no layer {name!r} that runs on an array",
        where="option --layer",
        todo=f"choose from: {', '.join(node.name for node in nodes)}",
    )


def thresholds_of(graph: IntGraph, node: MacNode) -> Thresholds | None:
    """The ``Thresholds`` that reads the accumulators of ``node``, if one does."""
    found = (n for n in graph.nodes if isinstance(n, Thresholds) and n.x == node.name)
    return next(found, None)


def _gemm(graph: IntGraph, node: MacNode) -> Gemm:
    if not isinstance(node, Conv2d):
        return Gemm(1, node.weight.shape[1], len(node.weight))
    num_out, kh, kw, depth = node.weight.shape
    height, width = graph.types[node.name].shape[:2]
    return Gemm(height * width, kh * kw * depth, num_out // node.groups, node.groups)


def sent(codes: IntArray, grid: Grid, operand: Operand) -> IntArray:
    """What PEs multiply in place of ``codes``: themselves, or their index."""
    return codes if _sends_codes(grid, operand) else (codes - grid.lo) // grid.step


def _sends_codes(grid: Grid, operand: Operand) -> bool:
    return operand.form != UNSIGNED or (grid.lo == 0 and grid.step == 1)


def layer_operands(node: MacNode, x: IntArray) -> tuple[IntArray, IntArray]:
    """Codes a (G, N · P, K) and w (G, K, M) of ``node`` on input codes x (N, …)."""
    if not isinstance(node, Conv2d):
        return x[None], node.weight.T[None]
    outs = len(node.weight) // node.groups
    flat = node.weight.reshape(node.groups, outs, -1)
    return im2col(x, node), flat.transpose(0, 2, 1)


def layer_design(graph: IntGraph, node: MacNode, array: ArrayConfig) -> Design:
    """An array built for the grids of ``node``.

    Raises UnsupportedError where a PE cannot be built, UsageError where ``acc_bits`` does not hold
    every sum, or lanes do not fill whole DSP blocks.
    """
    grid = input_grid(graph, node)
    kind = natural_kind(node.weight_grid) if array.pe == "auto" else array.pe
    serial = kind == "serial"
    weight = Operand.of(node.weight_grid, serial=serial)
    activation = Operand.of(grid, serial=serial)
    if not _sends_codes(node.weight_grid, weight):
        raise UnsupportedError(
            f"weights on the grid {node.weight_grid} are neither symmetric nor odd",
            where=f"layer {node.name}",
            todo="Emit another layer.",
        )
    ends = sent(np.array([grid.lo, grid.hi]), grid, activation)
    lo, hi = product_interval(node.weight, node.bias * 0, lo=int(ends[0]), hi=int(ends[1]))
    needed = signed_bits(min(lo, 0), max(hi, 0))
    if array.acc_bits is not None and array.acc_bits < needed:
        raise UsageError(
            f"sums of {needed} bits overflow an accumulator of {array.acc_bits}",
            where=f"acc_bits, layer {node.name}",
            todo=f"Use acc_bits {needed}, or leave it out.",
        )
    if kind == "dsp":
        array.require_whole_dsps(weight.bits, activation.bits)
    unit = _threshold_unit(graph, node, array)
    return Design(replace(array, pe=kind), weight, activation, array.acc_bits or needed, unit)


def _threshold_unit(graph: IntGraph, node: MacNode, array: ArrayConfig) -> ThresholdUnit | None:
    follower = thresholds_of(graph, node)
    if follower is None:
        return None
    operand = Operand.of(follower.grid)
    gemm = _gemm(graph, node)
    offset = follower.grid.lo if operand.form == SIGNED else 0
    each = gemm.filters if array.dataflow == "is" else ceil_div(gemm.filters, array.cols)
    automatic = array.thresholds == "auto" and operand.bits > PARALLEL_BITS
    return ThresholdUnit(
        operand.bits,
        follower.table.shape[1],
        offset,
        gemm.groups * each,
        search=automatic or array.thresholds == "search",
    )


def sum_tables(node: MacNode, follower: Thresholds, grid: Grid, design: Design) -> Tables:
    """``follower``'s thresholds on acc, moved to the sums that leave the array."""
    codes = _sends_codes(grid, design.activation)
    step, lo = (1, 0) if codes else (grid.step, grid.lo)
    constant = node.bias + lo * node.weight.reshape(len(node.weight), -1).sum(1)
    table, rest = follower.table, constant[:, None]
    flips = follower.sign < 0
    # sum ≥ ⌈(t − constant) / step⌉; flipped: not sum ≥ ⌊(−t − constant) / step⌋ + 1.
    rising = -((rest - table) // step)
    falling = (-table - rest) // step + 1
    entries = np.where(flips[:, None], falling[:, ::-1], rising)
    half = 1 << (design.acc_bits - 1)
    return Tables(np.clip(entries, -half, half), flips)


def _codes(sums: IntArray, tables: Tables, filters: IntArray, design: Design) -> IntArray:
    """Operands behind the threshold units for sums (words, C) of ``filters`` (words, C)."""
    unit = design.thresholds
    assert unit is not None
    count = (tables.entries[filters] <= sums[:, :, None]).sum(axis=2)
    index: IntArray = np.where(tables.flips[filters], unit.count - count, count)
    return (index + unit.offset) & ((1 << unit.bits) - 1)


def _filters(gemm: Gemm, design: Design) -> IntArray:
    """(words, C): the filter of every result, −1 beyond the last; see ``_load_rows``."""
    array = design.array
    if array.dataflow == "is":
        stream = np.arange(gemm.groups * gemm.filters).reshape(gemm.groups, 1, gemm.filters)
        folds = ceil_div(gemm.pixels, array.cols)
        order = np.broadcast_to(stream, (gemm.groups, folds, gemm.filters)).reshape(-1)
        return np.repeat(order[:, None], array.cols, axis=1)
    folds = ceil_div(gemm.filters, array.cols)
    columns = np.full((gemm.groups, folds * array.cols), -1)
    columns[:, : gemm.filters] = np.arange(gemm.groups * gemm.filters).reshape(gemm.groups, -1)
    rows = gemm.pixels
    if array.dataflow == "os":
        rows = ceil_div(gemm.pixels, array.rows) * array.rows
    return np.repeat(columns.reshape(-1, array.cols), rows, axis=0)


def _load_rows(tables: Tables, gemm: Gemm, design: Design) -> Words:
    """Words (column, table, entry, value) that fill every threshold unit before a run."""
    unit, array = design.thresholds, design.array
    assert unit is not None
    last = 2**unit.bits - 1
    values = np.full((len(tables.entries), last + 1), 1 << (design.acc_bits - 1), dtype=np.int64)
    values[:, : unit.count] = tables.entries
    values[:, last] = tables.flips
    if array.dataflow == "is":
        places = [(0, f, f) for f in range(gemm.groups * gemm.filters)]
    else:
        columns = _filters(replace(gemm, pixels=1), replace_rows(design))
        places = [(c, t, int(f)) for t, row in enumerate(columns) for c, f in enumerate(row)]
    rows = [(c, t, e, int(values[f, e])) for c, t, f in places for e in range(last + 1)]
    fields = np.array(rows, dtype=np.int64)
    parts = [(fields[:, 3:], 64), (fields[:, 2:3], 32), (fields[:, 1:2], 32), (fields[:, :1], 16)]
    return np.concatenate([pack(part, bits) for part, bits in parts], axis=1)


def replace_rows(design: Design) -> Design:
    """``design`` with one row: its column folds are the same, one word each."""
    return replace(design, array=replace(design.array, rows=1))


def layer_run(graph: IntGraph, node: MacNode, x: IntArray, array: ArrayConfig) -> LayerRun:
    """``node`` on input codes x (N, …) on ``array``: stimulus, sums and codes expected."""
    design = layer_design(graph, node, array)
    grid = input_grid(graph, node)
    a, w = layer_operands(node, x)
    product = stimulus(sent(a, grid, design.activation), w, design)
    gemm = Gemm(a.shape[1], a.shape[2], w.shape[2], len(a), serial=design.serial)
    follower = thresholds_of(graph, node)
    if follower is None or design.thresholds is None:
        return LayerRun(node.name, gemm, design, product, None, None)
    tables = sum_tables(node, follower, grid, design)
    sums = unpack(product.golden, design.acc_bits, fields=array.cols)
    codes = _codes(sums, tables, _filters(gemm, design), design)
    return LayerRun(
        node.name,
        gemm,
        design,
        product,
        _load_rows(tables, gemm, design),
        pack(codes, design.thresholds.bits),
    )


def accumulators(sums: IntArray, node: MacNode, grid: Grid, design: Design) -> IntArray:
    """(G, N · P, M) sums as they leave the array → accumulators of ``node``, channels last."""
    codes = _sends_codes(grid, design.activation)
    step, lo = (1, 0) if codes else (grid.step, grid.lo)
    constant = node.bias + lo * node.weight.reshape(len(node.weight), -1).sum(1)
    found: IntArray = np.concatenate(step * sums, axis=1) + constant
    return found


def input_codes(graph: IntGraph, node: MacNode, images: NDArray[np.uint8]) -> IntArray:
    """Codes that ``node`` reads when the graph runs on uint8 images (N, H, W, C)."""
    found = trace_oracle(graph, images)[node.x]
    assert found.dtype == np.int64  # only the last node is float
    return found.astype(np.int64)
