"""Steps as values for the fields of C's ``bf_step``: geometry, packed weights, folded constants."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import assert_never

import numpy as np

from bitfold.kernels.epilogues import FieldValue, Intervals, PackedEpilogue, pack_epilogue
from bitfold.kernels.packing import LANES, PANELS, QUAD, WORD_BITS, round_up, to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import (
    AddStep,
    Buffer,
    ConvStep,
    CopyStep,
    DequantizeStep,
    Int32Array,
    Int64Array,
    MaxPoolStep,
    RescaleStep,
    Step,
    SumPoolStep,
    ThresholdStep,
)

ELEMENTS = {"u8": 0, "i32": 1, "f32": 2}
INT16_MAX = 2**15 - 1
# Vector loads may run over the end of a scratch area, as over that of a buffer.
SPARE_BYTES = 64

OPS: dict[type[Step], str] = {
    ConvStep: "conv2d",
    ThresholdStep: "thresholds",
    RescaleStep: "rescale",
    AddStep: "add",
    MaxPoolStep: "maxpool",
    SumPoolStep: "sumpool",
    CopyStep: "copy",
    DequantizeStep: "dequantize",
}


@dataclass(frozen=True, slots=True)
class Segment:
    """C's ``bf_segment``: ``num_quads`` quads of input at ``offset``, then maybe a flush."""

    offset: int
    num_quads: int
    flush: bool


@dataclass(frozen=True, slots=True)
class PackedStep:
    """Values for the fields of C's ``bf_step``; arrays become pointers."""

    fields: dict[str, FieldValue]
    epilogue: PackedEpilogue
    segments: tuple[Segment, ...] = ()
    scratch_bytes: int = 0


def fits_every_step(row: Row) -> bool:
    """Whether ``row`` is exact whatever the step; false where its products are 16 bits wide."""
    return (row.op, row.layout, row.isa) != ("conv2d", "direct", "avx2")


def row_fits(row: Row, step: Step) -> bool:
    """Whether ``row`` is exact on ``step``: 16-bit products must not saturate."""
    if not isinstance(step, ConvStep) or fits_every_step(row):
        return True
    return flush_quads(step) >= 1


def flush_quads(step: ConvStep) -> int:
    """Quads whose products, two to a 16-bit sum, cannot overflow it; 0 where one quad can."""
    pair = 2 * (step.x_grid.levels - 1) * int(np.abs(step.weight.astype(np.int64)).max())
    return INT16_MAX // pair if pair else INT16_MAX


def pack_step(step: Step, row: Row) -> PackedStep:
    """Everything that ``row`` needs to run ``step``, but for the place of its scratch area."""
    match step:
        case ConvStep():
            return _pack_conv(step, row)
        case ThresholdStep() | RescaleStep():
            return _pack_lanewise(step)
        case AddStep():
            return _plain(step.a, step.out, {"y": step.b.offset, "count": step.out.num_elements})
        case MaxPoolStep():
            top, left, _, _ = step.padding
            return _plain(step.x, step.out, _window(step) | {"top": top, "left": left})
        case SumPoolStep():
            codes = {"x_lo": step.x_lo, "x_step": step.x_step}
            return _plain(step.x, step.out, _window(step) | codes)
        case CopyStep():
            sizes = {"x_start": step.x_start, "out_start": step.out_start, "count": step.count}
            return _plain(step.x, step.out, sizes)
        case DequantizeStep():
            scale = np.ascontiguousarray(step.scale, dtype=np.float32)
            return _plain(step.x, step.out, {"scale": scale})
        case _:
            assert_never(step)


def _plain(x: Buffer, out: Buffer, fields: Mapping[str, FieldValue]) -> PackedStep:
    """A step without an epilogue and without scratch."""
    return PackedStep({**_buffers(x, out), **fields}, PackedEpilogue())


def _image(shape: tuple[int, ...]) -> tuple[int, int, int]:
    """(H, W, C) of a buffer; a vector (C,) is a 1x1 image."""
    if len(shape) > 3 or not shape:
        raise ValueError(f"not an image or a vector: {shape}")
    h, w, c = (1,) * (3 - len(shape)) + shape
    return h, w, c


def _buffers(x: Buffer, out: Buffer) -> dict[str, FieldValue]:
    (h, w, c), (oh, ow, o) = _image(x.shape), _image(out.shape)
    return {
        "x": x.offset, "out": out.offset, "x_kind": ELEMENTS[x.kind],
        "h": h, "w": w, "c": c, "oh": oh, "ow": ow, "o": o,
    }  # fmt: skip


def _window(step: MaxPoolStep | SumPoolStep) -> dict[str, int]:
    return {
        "kernel_h": step.kernel[0],
        "kernel_w": step.kernel[1],
        "stride_h": step.stride[0],
        "stride_w": step.stride[1],
    }


def _pack_lanewise(step: ThresholdStep | RescaleStep) -> PackedStep:
    channels, epilogue = step.x.shape[-1], step.epilogue
    intervals = Intervals.of_int32(channels)
    if isinstance(step, RescaleStep) and step.x.kind == "u8":
        rule = step.epilogue
        epilogue = replace(
            rule,
            multiplier=rule.multiplier * step.x_step,
            offset=rule.offset + rule.multiplier * step.x_lo,
        )
        ends = np.zeros(channels, np.int64)
        intervals = Intervals(ends, ends + np.iinfo(np.uint8).max)
    return PackedStep(_buffers(step.x, step.out), pack_epilogue(epilogue, intervals=intervals))


def _pack_conv(step: ConvStep, row: Row) -> PackedStep:
    geometry = _conv_geometry(step)
    fields: dict[str, FieldValue] = {**_buffers(step.x, step.out), **geometry}
    num_out, kernel_h, kernel_w, depth = step.weight.shape
    panels = PANELS[row.layout](step.weight, groups=step.groups, grid=step.weight_grid)
    codes = step.weight.reshape(num_out, -1).astype(np.int64)
    bias = _wrapped(step.bias + step.x_grid.lo * codes.sum(1))
    fields["weight"] = panels
    fields["panel_bytes"] = panels.nbytes // len(panels)
    fields["bias"] = to_lanes(bias, groups=step.groups)
    fields["x_lo"], fields["x_step"] = step.x_grid.lo, step.x_grid.step
    num_words = round_up(kernel_h * kernel_w * depth, WORD_BITS) // 32
    fields["x_planes"], fields["w_planes"] = step.x_grid.bits, step.weight_grid.bits
    fields["w_lo"], fields["w_step"] = step.weight_grid.lo, step.weight_grid.step
    fields["num_words"] = num_words
    copy_bytes = _copy_bytes(geometry)
    scratch = round_up(copy_bytes + SPARE_BYTES, SPARE_BYTES)
    if row.layout == "bitserial":
        scratch += num_words * (32 + 4 * step.x_grid.bits) + SPARE_BYTES
    elif not copy_bytes:
        scratch = 0
    segments = _segments(step, geometry)
    fields["has_flushes"] = int(any(segment.flush for segment in segments))
    epilogue = pack_epilogue(step.epilogue, intervals=conv_intervals(step), groups=step.groups)
    return PackedStep(fields, epilogue, segments, round_up(scratch, SPARE_BYTES))


def _wrapped(bias: Int64Array) -> Int32Array:
    """Low 32 bits: sums are taken modulo 2^32, only the final accumulator is proven to fit."""
    return np.ascontiguousarray(bias).astype(np.uint64).astype(np.uint32).view(np.int32)


def conv_intervals(step: ConvStep) -> Intervals:
    """Least and greatest accumulator of every output channel, for independent codes."""
    codes = step.weight.reshape(len(step.weight), -1).astype(np.int64)
    ends = np.stack((codes * step.x_grid.lo, codes * step.x_grid.hi))
    return Intervals(ends.min(0).sum(1) + step.bias, ends.max(0).sum(1) + step.bias)


def _conv_geometry(step: ConvStep) -> dict[str, int]:
    num_out, kernel_h, kernel_w, depth = step.weight.shape
    h, w, _ = _image(step.x.shape)
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


def _copy_bytes(geometry: Mapping[str, int]) -> int:
    names = ("has_copy", "groups", "padded_h", "padded_w", "group_c")
    return math.prod(geometry[name] for name in names)


def _segments(step: ConvStep, geometry: Mapping[str, int]) -> tuple[Segment, ...]:
    """One segment a kernel row, cut so that 16-bit sums are flushed before they can overflow."""
    _, kernel_h, kernel_w, depth = step.weight.shape
    row_bytes = geometry["padded_w"] * depth
    limit, since = max(1, flush_quads(step)), 0
    segments: list[Segment] = []
    for row in range(kernel_h):
        left, offset = round_up(kernel_w * depth, QUAD) // QUAD, row * row_bytes
        while left:
            quads = min(left, limit)
            if since + quads > limit:
                segments[-1] = replace(segments[-1], flush=True)
                since = 0
            segments.append(Segment(offset, quads, flush=False))
            since, left, offset = since + quads, left - quads, offset + quads * QUAD
    return tuple(segments)
