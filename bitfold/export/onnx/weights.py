"""How weights are stored: their type in the file, and two halves where one sum is too large."""

import numpy as np

from bitfold.errors import UnsupportedError
from bitfold.export.onnx.build import EXACT_FLOAT, INT4
from bitfold.ir.ops import Conv2d, Linear
from bitfold.ir.types import IntArray

HALF_BITS = 4
BASE = 1 << HALF_BITS


def weight_dtype(node: Conv2d | Linear) -> np.dtype[np.generic]:
    """INT4 where the grid fits, INT8 otherwise; UnsupportedError where that does not either."""
    grid = node.weight_grid
    if grid.lo >= -8 and grid.hi <= 7:
        return INT4
    if grid.lo < -128 or grid.hi > 127:
        raise UnsupportedError(
            f"weights lie on {grid}, int8 ends at -128 … 127",
            where=f"node {node.name}",
            todo="Quantize the weights to at most 8 bits with step 1.",
        )
    return np.dtype(np.int8)


def halves_of(weight: IntArray) -> tuple[IntArray, IntArray]:
    """(high, low) with weight = 16·high + low, low in −8 … 7: sums of each are a 16th as large."""
    high = (weight + BASE // 2) >> HALF_BITS
    return high, weight - (high << HALF_BITS)


def sum_bound(weight: IntArray, bias: IntArray, *, side: int) -> int:
    """Bound on any partial sum of weight (N, …) times codes up to ``side`` in size, plus bias."""
    flat = np.abs(weight.reshape(len(weight), -1)).sum(1)
    return int((flat * side + np.abs(bias)).max())


def needs_halves(node: Conv2d, *, side: int) -> bool:
    """Whether float32 holds every sum of codes up to ``side`` in halves, and not in one."""
    high, low = halves_of(node.weight)
    whole = sum_bound(node.weight, node.bias, side=side)
    none = np.zeros_like(node.bias)
    halves = max(sum_bound(high, none, side=side), sum_bound(low, node.bias, side=side))
    return halves < EXACT_FLOAT <= whole
