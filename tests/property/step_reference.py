"""Steps computed slowly: what every row of the kernel table must give, in int64 and loops."""

import math

import numpy as np

from bitfold.kernels.steps import (
    ALIGNMENT,
    AddStep,
    Buffer,
    ConvStep,
    CopyStep,
    DequantizeStep,
    MaxPoolStep,
    RescaleStep,
    Step,
    SumPoolStep,
    ThresholdStep,
    ToIndices,
    ToWide,
)

DTYPES = {"u8": np.uint8, "i32": np.int32, "f32": np.float32}


class Places:
    """Hands out buffers one behind the other."""

    def __init__(self):
        self.arena_bytes = 0

    def buffer(self, shape, kind):
        place = Buffer(self.arena_bytes, tuple(shape), kind)
        self.arena_bytes += math.ceil((place.num_bytes + 64) / ALIGNMENT) * ALIGNMENT
        return place


def aligned_arena(num_bytes, *, filled_with=0xA5):
    """An arena of exactly ``num_bytes``, at a multiple of 64."""
    block = np.full(num_bytes + ALIGNMENT, filled_with, np.uint8)
    start = -block.ctypes.data % ALIGNMENT
    return block[start : start + num_bytes]


def view(arena, place):
    """The tensor at ``place``, without a copy."""
    flat = arena[place.offset : place.offset + place.num_bytes].view(DTYPES[place.kind])
    return flat.reshape(place.shape)


def shift_half_up(value, shift):
    half = 1 << (shift - 1) if shift else 0
    return (value + half) >> shift


def finish(acc, epilogue, arena):
    """acc (H, W, O) int64 → what the epilogue stores."""
    match epilogue:
        case ToIndices(table=table, sign=sign):
            taken = table.astype(np.int64) <= (acc * sign)[..., None]
            return taken.sum(-1)
        case ToWide():
            y = shift_half_up(acc * epilogue.multiplier + epilogue.offset, epilogue.shift)
            if epilogue.negative_multiplier is not None:
                bent = shift_half_up(y * epilogue.negative_multiplier, epilogue.negative_shift)
                y = np.where(y < 0, bent, y)
            return y if epilogue.add is None else y + view(arena, epilogue.add)
        case _:
            return acc


def conv_accumulators(step, x):
    """x (H, W, C) indices → (OH, OW, O) int64."""
    codes = step.x_grid.lo + step.x_grid.step * x.astype(np.int64)
    top, left, bottom, right = step.padding
    codes = np.pad(codes, ((top, bottom), (left, right), (0, 0)))
    num_out, kernel_h, kernel_w, depth = step.weight.shape
    oh = (codes.shape[0] - kernel_h) // step.stride[0] + 1
    ow = (codes.shape[1] - kernel_w) // step.stride[1] + 1
    acc = np.zeros((oh, ow, num_out), np.int64) + step.bias
    per_group = num_out // step.groups
    for o in range(num_out):
        first = o // per_group * depth
        for i in range(oh):
            for j in range(ow):
                y, x0 = i * step.stride[0], j * step.stride[1]
                window = codes[y : y + kernel_h, x0 : x0 + kernel_w, first : first + depth]
                acc[i, j, o] += (window * step.weight[o].astype(np.int64)).sum()
    return acc


def windows(x, step, fill):
    """Windows (OH, OW, KH · KW, C) of x, padded with ``fill``."""
    top, left, bottom, right = getattr(step, "padding", (0, 0, 0, 0))
    x = np.pad(x, ((top, bottom), (left, right), (0, 0)), constant_values=fill)
    (kernel_h, kernel_w), (stride_h, stride_w) = step.kernel, step.stride
    oh, ow = (x.shape[0] - kernel_h) // stride_h + 1, (x.shape[1] - kernel_w) // stride_w + 1
    return np.array(
        [
            [
                x[i * stride_h : i * stride_h + kernel_h, j * stride_w : j * stride_w + kernel_w]
                .reshape(-1, x.shape[2])
                for j in range(ow)
            ]
            for i in range(oh)
        ]
    )  # fmt: skip


def expected_output(step: Step, arena: np.ndarray) -> np.ndarray:  # noqa: C901  # one case an operation
    """What ``step.out`` must hold after the step, from the arena before it."""
    x = view(arena, step.a if isinstance(step, AddStep) else step.x)
    wide = x.astype(np.int64)
    match step:
        case ConvStep():
            image = x.reshape((1,) * (3 - x.ndim) + x.shape)
            result = finish(conv_accumulators(step, image), step.epilogue, arena)
        case ThresholdStep():
            result = finish(wide, step.epilogue, arena)
        case RescaleStep():
            codes = step.x_lo + step.x_step * wide if step.x.kind == "u8" else wide
            result = finish(codes, step.epilogue, arena)
        case AddStep():
            b, count = view(arena, step.b), step.out.shape[-1]
            result = wide[..., step.a_start :][..., :count] + b[..., step.b_start :][..., :count]
        case MaxPoolStep():
            result = windows(wide, step, np.iinfo(np.int64).min).max(2)
        case SumPoolStep():
            codes = step.x_lo + step.x_step * wide if step.x.kind == "u8" else wide
            result = windows(codes, step, 0).sum(2)
        case CopyStep():
            result = view(arena, step.out).copy()
            taken = x[..., step.x_start : step.x_start + step.count]
            end = step.out_start + step.repeats * step.count
            result[..., step.out_start : end] = np.concatenate([taken] * step.repeats, -1)
        case DequantizeStep():
            result = x.astype(np.float32) * step.scale
    return result.reshape(step.out.shape).astype(DTYPES[step.out.kind])
