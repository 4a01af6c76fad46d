"""Steps as values for the fields of C's ``bf_step``."""

from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import numpy as np

from bitfold.kernels.epilogues import Intervals, pack_epilogue
from bitfold.kernels.layouts import LAYOUTS, TAKE_WIDE
from bitfold.kernels.layouts.common import buffer_fields
from bitfold.kernels.packed_step import FieldValue, PackedEpilogue, PackedStep
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import (
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
)

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


def fits_every_step(row: Row) -> bool:
    """Whether ``row`` is exact whatever the step, of weights that fit a byte."""
    return row.op != "conv2d" or LAYOUTS[row.layout].fits_every_step(row)


def row_fits(row: Row, step: Step) -> bool:
    """Whether ``row`` computes what ``step`` is, and exactly."""
    if row.op != OPS[type(step)]:
        return False
    if not isinstance(step, ConvStep):
        return True
    return (not step.is_wide or row.layout in TAKE_WIDE) and LAYOUTS[row.layout].fits(step, row)


def pack_step(step: Step, row: Row) -> PackedStep:
    """Everything that ``row`` needs to run ``step``, but for the place of its scratch area."""
    match step:
        case ConvStep():
            return LAYOUTS[row.layout].pack(step, row)
        case ThresholdStep() | RescaleStep():
            return _pack_lanewise(step)
        case AddStep():
            starts = {"x_start": step.a_start, "y_start": step.b_start}
            other = {"y": step.b.offset, "y_c": step.b.shape[-1]}
            return _plain(step.a, step.out, starts | other)
        case MaxPoolStep():
            top, left, _, _ = step.padding
            return _plain(step.x, step.out, _window(step) | {"top": top, "left": left})
        case SumPoolStep():
            codes = {"x_lo": step.x_lo, "x_step": step.x_step}
            return _plain(step.x, step.out, _window(step) | codes)
        case CopyStep():
            starts = {"x_start": step.x_start, "out_start": step.out_start}
            counts = {"count": step.count, "repeats": step.repeats}
            return _plain(step.x, step.out, starts | counts)
        case DequantizeStep():
            scale = np.ascontiguousarray(step.scale, dtype=np.float32)
            return _plain(step.x, step.out, {"scale": scale})
        case _:
            assert_never(step)


def _plain(x: Buffer, out: Buffer, fields: Mapping[str, FieldValue]) -> PackedStep:
    """A step without an epilogue and without scratch."""
    return PackedStep({**buffer_fields(x, out), **fields}, PackedEpilogue())


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
    if isinstance(step, RescaleStep) and step.x.kind == "i32":
        lo, hi = step.interval
        intervals = Intervals(np.full(channels, lo, np.int64), np.full(channels, hi, np.int64))
    if isinstance(step, RescaleStep) and step.x.kind == "u8":
        rule = step.epilogue
        epilogue = replace(
            rule,
            multiplier=rule.multiplier * step.x_step,
            offset=rule.offset + rule.multiplier * step.x_lo,
        )
        ends = np.zeros(channels, np.int64)
        intervals = Intervals(ends, ends + np.iinfo(np.uint8).max)
    return PackedStep(buffer_fields(step.x, step.out), pack_epilogue(epilogue, intervals=intervals))
