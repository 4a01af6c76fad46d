"""Depthwise convolution: one filter a channel, all channels of a pixel at a time."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.epilogue import Rule, store_row
from bitfold.kernels.numba_backend.geometry import Geometry
from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import ConvStep, Int32Array


class TapWeights(NamedTuple):
    """Weight codes (KH, KW, C), bias (C,) mod 2^32, and the input's grid."""

    codes: NDArray[np.int8]
    bias: Int32Array
    x_lo: int
    x_step: int


def is_depthwise(step: ConvStep) -> bool:
    """Whether every output channel reads the input channel of its own number."""
    return step.groups == len(step.weight) == step.x.shape[-1]


def bind_depthwise(step: ConvStep) -> TapWeights:
    """The constants of ``conv_depthwise`` for a depthwise step."""
    codes = np.array(step.weight[..., 0].transpose(1, 2, 0), np.int8, order="C")
    bias = np.array(step.bias, np.int64).astype(np.int32)  # sums are exact mod 2^32
    return TapWeights(codes, bias, step.x_grid.lo, step.x_grid.step)


@jit
def add_tap(
    acc: Int32Array, x: NDArray[np.uint8], codes: NDArray[np.int8], lo: int, step: int
) -> None:
    """Acc += (lo + step·x)·codes, channel by channel, mod 2^32."""
    low, scale = np.int32(lo), np.int32(step)
    for c in range(acc.size):
        code = np.int32(low + np.int32(scale * np.int32(x[c])))
        acc[c] += np.int32(code * np.int32(codes[c]))


@jit
def conv_depthwise(
    x: NDArray[np.uint8],
    weights: TapWeights,
    geometry: Geometry,
    rows: tuple[int, int],
    rule: Rule,
    add: Int32Array,
    out_indices: NDArray[np.uint8],
    out_integers: Int32Array,
) -> None:
    """Output rows ``rows`` of indices x (H, W, C); the last three are as in ``store_row``."""
    height, width, depth = x.shape
    acc = np.empty((geometry.ow, depth), np.int32)
    for oy in range(rows[0], rows[1]):
        for ox in range(geometry.ow):
            acc[ox] = weights.bias
            for dy in range(geometry.kh):
                iy = oy * geometry.stride_y - geometry.top + dy
                for dx in range(geometry.kw):
                    ix = ox * geometry.stride_x - geometry.left + dx
                    if 0 <= iy < height and 0 <= ix < width:  # padding holds code 0
                        taps = weights.codes[dy, dx]
                        add_tap(acc[ox], x[iy, ix], taps, weights.x_lo, weights.x_step)
        store_row(oy, acc, rule, add, out_indices, out_integers)
