"""What all layouts of a convolution have in common: geometry, intervals, the packed step."""

import math
from collections.abc import Mapping

import numpy as np

from bitfold.kernels.epilogues import Intervals, pack_epilogue
from bitfold.kernels.packed_step import FieldValue, PackedEpilogue
from bitfold.kernels.packing import LANES, round_up, to_blocks, to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import (
    Buffer,
    ConvStep,
    Int8Array,
    Int32Array,
    Int64Array,
    ToIndices,
)

ELEMENTS = {"u8": 0, "i32": 1, "f32": 2}
INT16_MAX = 2**15 - 1
SHORT_TABLE_ISAS = ("avx2", "avxvnni")  # rows that compare sums of 16 bits
MOST_SHORT = 3  # thresholds that they keep in registers
# Vector loads may run over the end of a scratch area, as over that of a buffer.
SPARE_BYTES = 64


def image_shape(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a buffer; a vector (C,) is a 1x1 image."""
    if len(shape) > 3 or not shape:
        raise ValueError(f"not an image or a vector: {shape}")
    h, w, c = (1,) * (3 - len(shape)) + shape
    return h, w, c


def buffer_fields(x: Buffer, out: Buffer) -> dict[str, FieldValue]:
    """Places and shapes of input and output."""
    (h, w, c), (oh, ow, o) = image_shape(x.shape), image_shape(out.shape)
    return {
        "x": x.offset, "out": out.offset, "x_kind": ELEMENTS[x.kind],
        "h": h, "w": w, "c": c, "oh": oh, "ow": ow, "o": o,
    }  # fmt: skip


def flush_quads(step: ConvStep) -> int:
    """Quads whose products, two to a 16-bit sum, cannot overflow it; 0 where one quad can."""
    largest = largest_digit(step)
    pair = 2 * (step.x_grid.levels - 1) * largest
    return INT16_MAX // pair if pair else INT16_MAX


def largest_digit(step: ConvStep) -> int:
    """The largest size of a weight that kernels multiply by: of wide weights, that of a digit."""
    return 128 if step.is_wide else max(-int(step.weight.min()), int(step.weight.max()))


def conv_intervals(step: ConvStep) -> Intervals:
    """Least and greatest accumulator of every output channel, for independent codes."""
    codes = step.weight.reshape(len(step.weight), -1)
    positive = np.maximum(codes, 0).sum(1, dtype=np.int64)
    negative = np.minimum(codes, 0).sum(1, dtype=np.int64)
    lo, hi = step.x_grid.lo, step.x_grid.hi
    return Intervals(
        lo * positive + hi * negative + step.bias, hi * positive + lo * negative + step.bias
    )


def byte_digits(weight: Int8Array | Int32Array) -> list[Int8Array]:
    """``weight`` as balanced digits of base 256, the highest first; itself where a byte holds it.

    Σ_k 256^k · digit_k = weight, with digits in −128 … 127.
    """
    if weight.dtype == np.int8:
        return [weight.astype(np.int8)]
    rest = weight.astype(np.int64)
    digits: list[Int8Array] = []
    while rest.any() or not digits:
        digit = ((rest + 128) & 255) - 128
        digits.append(digit.astype(np.int8))
        rest = (rest - digit) >> 8
    return digits[::-1]


def conv_epilogue(step: ConvStep) -> PackedEpilogue:
    """The epilogue's constants, lane by lane."""
    return pack_epilogue(step.epilogue, intervals=conv_intervals(step), groups=step.groups)


def tile_epilogue(step: ConvStep, row: Row) -> PackedEpilogue:
    """``conv_epilogue`` with few thresholds in 16 bits too, where sums of index · weight fit them.

    acc = bias + x_lo · Σ w + sum, so that sign · acc ≥ t is sign · sum ≥ t − sign · (acc − sum).
    Beyond the sums, a threshold is reached always or never, and so it is one past their ends.
    """
    epilogue, rule = conv_epilogue(step), step.epilogue
    if row.isa not in SHORT_TABLE_ISAS or not isinstance(rule, ToIndices):
        return epilogue
    if not 1 <= rule.table.shape[1] <= MOST_SHORT:
        return epilogue
    codes = step.weight.reshape(len(step.weight), -1).astype(np.int64)
    most = step.x_grid.levels - 1
    ends = most * np.stack((np.minimum(codes, 0).sum(1), np.maximum(codes, 0).sum(1)))
    if step.x_grid.step != 1 or step.is_wide or np.abs(ends).max() >= INT16_MAX:
        return epilogue
    sign = rule.sign.astype(np.int64)
    rest = sign * (step.bias + step.x_grid.lo * codes.sum(1))
    table = np.clip(rule.table.astype(np.int64) - rest[:, None], -INT16_MAX, INT16_MAX)
    blocks = to_blocks(table.astype(np.int16), groups=step.groups)
    halves = blocks.reshape(*blocks.shape[:-1], 2, 2, LANES // 4)  # as vpackssdw leaves them
    short = np.ascontiguousarray(halves.swapaxes(-3, -2))
    return PackedEpilogue(epilogue.fields | {"short_table": short})


def conv_fields(step: ConvStep) -> dict[str, FieldValue]:
    """Geometry, places, codes and the bias of every lane: bias + x_lo · Σ w, modulo 2^32."""
    sums = step.weight.reshape(len(step.weight), -1).sum(1, dtype=np.int64)
    bias = _wrapped(step.bias + step.x_grid.lo * sums)
    return {
        **buffer_fields(step.x, step.out),
        **conv_geometry(step),
        "bias": to_lanes(bias, groups=step.groups),
        "x_lo": step.x_grid.lo, "x_step": step.x_grid.step,
    }  # fmt: skip


def _wrapped(bias: Int64Array) -> Int32Array:
    """Low 32 bits: sums are taken modulo 2^32, only the final accumulator is proven to fit."""
    return np.ascontiguousarray(bias).astype(np.uint64).astype(np.uint32).view(np.int32)


def conv_geometry(step: ConvStep) -> dict[str, int]:
    """Kernel, strides, padding and groups, and whether the input is copied to be padded."""
    num_out, kernel_h, kernel_w, depth = step.weight.shape
    h, w, _ = image_shape(step.x.shape)
    top, left, bottom, right = step.padding
    padded = any(step.padding)
    per_group = num_out // step.groups
    return {
        "kernel_h": kernel_h, "kernel_w": kernel_w,
        "stride_h": step.stride[0], "stride_w": step.stride[1],
        "top": top, "left": left,
        "groups": step.groups, "group_c": depth, "group_o": per_group,
        "group_lanes": round_up(per_group, LANES),
        "has_copy": int(padded or step.groups > 1),
        "padded_h": h + top + bottom, "padded_w": w + left + right,
        "fill": step.x_grid.zero_index if padded else 0,
    }  # fmt: skip


def copy_bytes(geometry: Mapping[str, FieldValue]) -> int:
    """Bytes of the padded copy, 0 where there is none."""
    names = ("has_copy", "groups", "padded_h", "padded_w", "group_c")
    return math.prod(int(geometry[name]) for name in names)
