"""A whole graph through the stepped array: the values of every node, to compare with the oracle.

Every Conv2d and Linear is cut into tiles and multiplied by the PEs of ``stepper.py``; the other
operations are in-stream units and use the oracle's definition.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.mapping import MacNode, MappedLayer, map_graph
from bitfold.fpga_sim.stepper import step_gemm_values, step_layer_cycles
from bitfold.ir import oracle
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, inputs_of
from bitfold.ir.types import IntArray


def im2col(x: IntArray, node: Conv2d) -> IntArray:
    """Windows of codes (N, H, W, C) as rows (groups, N·OH·OW, KH·KW·C/groups); padding is 0."""
    _, kh, kw, depth = node.weight.shape
    top, left, bottom, right = node.padding
    padded = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (kh, kw), axis=(1, 2))
    windows = windows[:, :: node.stride[0], :: node.stride[1]]  # (N, OH, OW, C, KH, KW)
    num, oh, ow = windows.shape[:3]
    split = windows.reshape(num, oh, ow, node.groups, depth, kh, kw)
    ordered = split.transpose(3, 0, 1, 2, 5, 6, 4)
    return ordered.reshape(node.groups, num * oh * ow, kh * kw * depth)


def digits_of(codes: IntArray, grid: Grid, *, bits: int, count: int) -> list[IntArray]:
    """Base 2^bits digits of the index of every code, least first."""
    index = (codes - grid.lo) // grid.step
    return [(index >> (bits * i)) & (2**bits - 1) for i in range(count)]


def multiply(a: IntArray, w: IntArray, layer: MappedLayer, array: ArrayConfig) -> IntArray:
    """Σ_k a[p, k] · w[k, m] on the stepped array, (P, K) × (K, M) codes.

    Where the layer needs passes, PEs multiply digits of indices; the column's combining unit adds
    the shifted results, and the row sums Σ_k i_a of the edge restore the codes:

        Σ a·w = s_a·s_w·Σ i_a·i_w + lo_w·s_a·Σ i_a + lo_a·s_w·Σ i_w + K·lo_a·lo_w
    """
    if layer.gemm.passes == 1:
        return step_gemm_values(a, w, array)
    ga, gw = layer.activation_grid, layer.weight_grid
    a_digits = digits_of(a, ga, bits=layer.a_digit_bits, count=layer.a_digits)
    w_digits = digits_of(w, gw, bits=layer.w_digit_bits, count=layer.w_digits)
    total = np.zeros((len(a), w.shape[1]), dtype=np.int64)
    for i, a_digit in enumerate(a_digits):
        for j, w_digit in enumerate(w_digits):
            shift = i * layer.a_digit_bits + j * layer.w_digit_bits
            total += step_gemm_values(a_digit, w_digit, array) << shift
    row_sums = ((a - ga.lo) // ga.step).sum(axis=1, keepdims=True)
    column_sums = ((w - gw.lo) // gw.step).sum(axis=0)
    total *= ga.step * gw.step
    total += gw.lo * ga.step * row_sums
    total += ga.lo * gw.step * column_sums + len(w) * ga.lo * gw.lo
    return total


def _step_node(node: MacNode, x: IntArray, layer: MappedLayer, array: ArrayConfig) -> IntArray:
    """Accumulators of one layer, (N, …)."""
    num = len(x)
    if not isinstance(node, Conv2d):
        # P = 1: each image is a product of its own, its one pixel on the first row.
        images = [multiply(x[i : i + 1], node.weight.T, layer, array) for i in range(num)]
        return np.concatenate(images) + node.bias
    outs = len(node.weight) // node.groups
    flat = node.weight.reshape(node.groups, outs, -1)
    groups = [
        multiply(windows, flat[g].T, layer, array) for g, windows in enumerate(im2col(x, node))
    ]
    pixels = np.concatenate(groups, axis=1)
    _, kh, kw, _ = node.weight.shape
    oh = (x.shape[1] + node.padding[0] + node.padding[2] - kh) // node.stride[0] + 1
    ow = (x.shape[2] + node.padding[1] + node.padding[3] - kw) // node.stride[1] + 1
    return pixels.reshape(num, oh, ow, len(node.weight)) + node.bias


def step_graph(
    graph: IntGraph, images: NDArray[np.uint8], array: ArrayConfig | None = None
) -> dict[str, IntArray]:
    """Integers of every node but the last (N, …), each product stepped PE by PE.

    ``images`` are uint8 (N, H, W, C). Row folds run over all images at once, which changes no
    value; cycles are per image and come from ``step_graph_cycles``. Equal to ``trace_oracle``.
    """
    mapping = map_graph(graph, array or ArrayConfig())
    layers = {layer.name: layer for layer in mapping.layers}
    values: dict[str, IntArray] = {graph.input.name: oracle.quantize(graph.input, images)}
    for node in graph.nodes[1:-1]:
        xs: Sequence[IntArray] = [values[x] for x in inputs_of(node)]
        if isinstance(node, MacNode):
            values[node.name] = _step_node(node, xs[0], layers[node.name], mapping.array)
        else:
            values[node.name] = oracle.apply(node, list(xs))
    return values


def step_graph_cycles(graph: IntGraph, array: ArrayConfig | None = None) -> dict[str, int]:
    """Cycles of each layer for one image, counted by stepping the tile controller."""
    mapping = map_graph(graph, array or ArrayConfig())
    return {layer.name: step_layer_cycles(layer.gemm, mapping.array) for layer in mapping.layers}
