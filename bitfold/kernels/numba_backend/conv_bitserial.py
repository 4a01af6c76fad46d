"""Convolution on bit planes: AND and popcount on 64 codes at a time; best for few planes.

Σ a·w = s_a·s_w·Σ i_a·i_w + lo_w·s_a·Σ i_a + lo_a·s_w·Σ i_w + K·lo_a·lo_w
"""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.epilogue import Rule, store_row
from bitfold.kernels.numba_backend.geometry import Geometry
from bitfold.kernels.numba_backend.jit import jit, popcount
from bitfold.kernels.packing import pack_planes
from bitfold.kernels.steps import ConvStep, Int32Array, Int64Array

Words = NDArray[np.uint64]


class PlaneWeights(NamedTuple):
    """Weight planes (O, planes, words) over K = KH·KW·C/groups, and the constants of the identity.

    ``constant`` (O,) is bias + lo_a·s_w·Σ i_w + K·lo_a·lo_w.
    """

    planes: Words
    constant: Int64Array
    product_factor: int
    sum_factor: int
    x_planes: int
    pad_index: int


def bind_bitserial(step: ConvStep) -> PlaneWeights:
    """The constants of ``conv_bitserial`` for a step."""
    a, w = step.x_grid, step.weight_grid
    codes = step.weight.reshape(len(step.weight), -1).astype(np.int64)
    indices = (codes - w.lo) // w.step
    sums = indices.sum(1) * (a.lo * w.step) + codes.shape[1] * a.lo * w.lo
    return PlaneWeights(
        planes=np.array(pack_planes(indices.astype(np.uint8), w.bits), np.uint64, order="C"),
        constant=np.array(step.bias + sums, np.int64),
        product_factor=a.step * w.step,
        sum_factor=w.lo * a.step,
        x_planes=a.bits,
        pad_index=a.zero_index if any(step.padding) else 0,
    )


@jit
def pack_image(x: NDArray[np.uint8], geometry: Geometry, num_planes: int, pad_index: int) -> Words:
    """Planes (H + 1, W, groups, planes, words) of x (H, W, C); row H is padding."""
    height, width, _ = x.shape
    words = (geometry.depth + 63) >> 6
    packed = np.zeros((height + 1, width, geometry.groups, num_planes, words), np.uint64)
    for iy in range(height + 1):
        for ix in range(width):
            for group in range(geometry.groups):
                for c in range(geometry.depth):
                    index = pad_index
                    if iy < height:
                        index = int(np.int64(x[iy, ix, group * geometry.depth + c]))
                    for p in range(num_planes):
                        bit = np.uint64((index >> p) & 1)
                        packed[iy, ix, group, p, c >> 6] |= bit << np.uint64(c & 63)
    return packed


@jit
def append_bits(patch: Words, words: Words, position: int, count: int) -> None:
    """The first ``count`` bits of ``words`` into the zeros of ``patch`` at bit ``position``."""
    for i in range(words.size):
        at, shift = (position + 64 * i) >> 6, (position + 64 * i) & 63
        patch[at] |= words[i] << np.uint64(shift)
        if shift + min(64, count - 64 * i) > 64:
            patch[at + 1] |= words[i] >> np.uint64(64 - shift)


@jit
def gather_planes(
    packed: Words, patch: Words, geometry: Geometry, first: int, group: int, oy: int, ox: int
) -> None:
    """Patch (planes, words over K) of the window at (oy, ox); ``first`` is the first packed row."""
    patch[:] = 0
    height, position = packed.shape[0] - 1, 0
    for dy in range(geometry.kh):
        iy = oy * geometry.stride_y - geometry.top + dy - first
        for dx in range(geometry.kw):
            ix = ox * geometry.stride_x - geometry.left + dx
            if iy < 0 or iy >= height or ix < 0 or ix >= packed.shape[1]:
                source = packed[height, 0, group]
            else:
                source = packed[iy, ix, group]
            for p in range(patch.shape[0]):
                append_bits(patch[p], source[p], position, geometry.depth)
            position += geometry.depth


@jit
def index_sum(patch: Words) -> int:
    """Σ i_a over the window."""
    total = 0
    for p in range(patch.shape[0]):
        for k in range(patch.shape[1]):
            total += popcount(patch[p, k]) << p
    return total


@jit
def index_product(patch: Words, weight: Words) -> int:
    """Σ i_a·i_w = Σ_{p,q} popcount(a[p] & w[q]) << (p + q)."""
    total = 0
    for q in range(weight.shape[0]):
        for p in range(patch.shape[0]):
            ones = 0
            for k in range(patch.shape[1]):
                ones += popcount(patch[p, k] & weight[q, k])
            total += ones << (p + q)
    return total


@jit
def conv_bitserial(
    x: NDArray[np.uint8],
    weights: PlaneWeights,
    geometry: Geometry,
    rows: tuple[int, int],
    rule: Rule,
    add: Int32Array,
    out_indices: NDArray[np.uint8],
    out_integers: Int32Array,
) -> None:
    """Output rows ``rows`` of indices x (H, W, C); the last three are as in ``store_row``."""
    num_out, _, words = weights.planes.shape
    outs = num_out // geometry.groups
    first = min(max(0, rows[0] * geometry.stride_y - geometry.top), x.shape[0])
    last = min(
        max(first, (rows[1] - 1) * geometry.stride_y - geometry.top + geometry.kh), x.shape[0]
    )
    packed = pack_image(x[first:last], geometry, weights.x_planes, weights.pad_index)
    patch = np.empty((weights.x_planes, words), np.uint64)
    acc = np.empty((geometry.ow, num_out), np.int32)
    for oy in range(rows[0], rows[1]):
        for ox in range(geometry.ow):
            for group in range(geometry.groups):
                gather_planes(packed, patch, geometry, first, group, oy, ox)
                base = weights.sum_factor * index_sum(patch)
                for o in range(group * outs, (group + 1) * outs):
                    product = index_product(patch, weights.planes[o])
                    acc[ox, o] = weights.constant[o] + base + weights.product_factor * product
        store_row(oy, acc, rule, add, out_indices, out_integers)
