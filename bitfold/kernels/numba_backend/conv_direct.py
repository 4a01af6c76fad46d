"""Convolution by dot products of codes in 32 bits: any grids, best for many bits."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.epilogue import Rule, store_row
from bitfold.kernels.numba_backend.geometry import Geometry
from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import ConvStep, Int32Array

Int8Array = NDArray[np.int8]
Int16Array = NDArray[np.int16]


class DirectWeights(NamedTuple):
    """Weight codes (O, K) with K = KH·KW·C/groups, bias (O,) mod 2^32, and the input's grid."""

    codes: Int8Array | Int32Array
    bias: Int32Array
    x_lo: int
    x_step: int


def bind_direct(step: ConvStep) -> DirectWeights:
    """The constants of ``conv_direct`` for a step."""
    flat = step.weight.reshape(len(step.weight), -1)
    codes = flat.astype(np.int32) if step.is_wide else flat.astype(np.int8)
    bias = np.array(step.bias, np.int64).astype(np.int32)  # sums are exact mod 2^32
    return DirectWeights(codes, bias, step.x_grid.lo, step.x_grid.step)


@jit
def gather_codes(
    x: NDArray[np.uint8],
    patch: Int16Array,
    geometry: Geometry,
    weights: DirectWeights,
    group: int,
    oy: int,
    ox: int,
) -> None:
    """patch[k] = code under window position k; code 0 in the padding."""
    depth, start, k = geometry.depth, group * geometry.depth, 0
    for dy in range(geometry.kh):
        iy = oy * geometry.stride_y - geometry.top + dy
        for dx in range(geometry.kw):
            ix = ox * geometry.stride_x - geometry.left + dx
            if iy < 0 or iy >= x.shape[0] or ix < 0 or ix >= x.shape[1]:
                patch[k : k + depth] = 0
            else:
                for c in range(depth):
                    patch[k + c] = weights.x_lo + weights.x_step * x[iy, ix, start + c]
            k += depth


@jit
def dot(a: Int16Array, b: Int8Array | Int32Array) -> np.int32:
    """Σ a·b mod 2^32."""
    total = np.int32(0)
    for k in range(a.size):
        total = np.int32(total + np.int32(np.int32(a[k]) * np.int32(b[k])))
    return total


@jit
def conv_direct(
    x: NDArray[np.uint8],
    weights: DirectWeights,
    geometry: Geometry,
    rows: tuple[int, int],
    rule: Rule,
    add: Int32Array,
    out_indices: NDArray[np.uint8],
    out_integers: Int32Array,
) -> None:
    """Output rows ``rows`` of indices x (H, W, C); the last three are as in ``store_row``."""
    num_out = weights.codes.shape[0]
    outs = num_out // geometry.groups
    patch = np.empty(weights.codes.shape[1], np.int16)
    acc = np.empty((geometry.ow, num_out), np.int32)
    for oy in range(rows[0], rows[1]):
        for ox in range(geometry.ow):
            for group in range(geometry.groups):
                gather_codes(x, patch, geometry, weights, group, oy, ox)
                for o in range(group * outs, (group + 1) * outs):
                    acc[ox, o] = weights.bias[o] + dot(patch, weights.codes[o])
        store_row(oy, acc, rule, add, out_indices, out_integers)
