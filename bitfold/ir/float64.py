"""The oracle's integers by float64 matrix products: for networks too large for its own loops.

float64 holds every integer up to 2^53, so a sum whose terms add up to no more in size is exact in
whatever order a BLAS adds it. Where that is not proven, the oracle's own int64 product is taken.
``tests/property/test_ir_float64.py`` compares the two by ``==``; the oracle remains the definition.
"""

import numpy as np
from numpy.typing import NDArray

from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Conv2d, Linear, Node
from bitfold.ir.oracle import (
    IMAGES_AT_A_TIME,
    Images,
    TracedArray,
    Xs,
    apply,
    padded,
    taps,
    trace_oracle,
)
from bitfold.ir.types import IntArray

EXACT_BELOW = 2**53


def trace_float64(
    graph: IntGraph, images: Images, *, chunk: int = IMAGES_AT_A_TIME
) -> dict[str, TracedArray]:
    """What ``trace_oracle`` gives, sooner."""
    return trace_oracle(graph, images, chunk=chunk, evaluator=apply_float64)


def apply_float64(node: Node, xs: Xs) -> IntArray:
    """What ``oracle.apply`` gives for the same node and inputs."""
    if not isinstance(node, Conv2d | Linear) or not _is_exact(node, xs[0]):
        return apply(node, xs)
    x = xs[0].astype(np.float64)
    if isinstance(node, Linear):
        sums: NDArray[np.float64] = x @ node.weight.T.astype(np.float64)
    elif node.weight.shape[3] == 1:
        sums = _depthwise_sums(node, x)
    else:
        sums = np.concatenate([_group_sums(node, x, g) for g in range(node.groups)], axis=-1)
    return sums.astype(np.int64) + node.bias


def _is_exact(node: Conv2d | Linear, x: IntArray) -> bool:
    """Whether no partial sum can reach 2^53 in size."""
    weight = np.abs(node.weight.reshape(len(node.weight), -1))
    largest = max(1, -int(x.min(initial=0)), int(x.max(initial=0)))
    return largest * int(weight.sum(1).max(initial=0)) < EXACT_BELOW


def _group_sums(node: Conv2d, x: NDArray[np.float64], group: int) -> NDArray[np.float64]:
    """(N, OH, OW, O/groups): one matrix product a tap."""
    num_out, rows, columns, depth = node.weight.shape
    outs = num_out // node.groups
    weight = node.weight[group * outs : (group + 1) * outs].astype(np.float64)
    codes = padded(x[..., group * depth : (group + 1) * depth], node.padding, fill=0)
    places = taps(codes, (rows, columns), node.stride)
    return sum(tap @ weight[:, i, j].T for i, j, tap in places)  # type: ignore[return-value]


def _depthwise_sums(node: Conv2d, x: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N, OH, OW, O) where a group has one channel: lane by lane."""
    num_out, rows, columns, _ = node.weight.shape
    weight = node.weight[..., 0].astype(np.float64)
    codes = np.repeat(padded(x, node.padding, fill=0), num_out // node.groups, axis=-1)
    places = taps(codes, (rows, columns), node.stride)
    return sum(tap * weight[:, i, j] for i, j, tap in places)  # type: ignore[return-value]
