"""Layout ``depthwise``: one filter a channel, lanes over channels, two taps of a window at a time.

A *register* holds as many channels as it has bytes. Its *halves* are in the order that interleaving
two registers of bytes leaves: channels 0-7 of every 16, then channels 8-15; *quarters* split each
half once more, for sums in 32 bits.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.epilogues import TO_INDICES, pack_epilogue
from bitfold.kernels.layouts.common import (
    INT16_MAX,
    SPARE_BYTES,
    conv_fields,
    conv_intervals,
    image_shape,
)
from bitfold.kernels.packed_step import FieldValue, PackedEpilogue, PackedStep
from bitfold.kernels.packing import LANES, round_up, to_lanes
from bitfold.kernels.rows import REGISTER_BYTES, Row
from bitfold.kernels.steps import ConvStep, Int64Array, ToIndices

WIDE, SHORT, BOUNDS = 0, 1, 2
# Up to this many thresholds are compared with 16-bit sums; beyond, a line is quicker.
MAX_BOUNDS = 7
WIDENING_ISAS = ("scalar", "neon")  # their sums have 32 bits whatever the form
POINTER_BYTES = 8


@dataclass(frozen=True, slots=True)
class _Sums:
    """Form of the sums; taps (C, T); bounds (C, J) where sums are compared in 16 bits."""

    form: int
    taps: Int64Array
    bounds: Int64Array | None = None


class DepthwiseLayout:
    """Pairs of taps, register by register of channels."""

    name = "depthwise"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Whether every output channel reads the one input channel of its number."""
        channels = image_shape(step.x.shape)[2]
        return step.groups == channels == len(step.weight)

    def fits_every_step(self, row: Row) -> bool:
        """Never: most convolutions add up channels."""
        return False

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Weights and bounds in the order of the row's registers; scratch for taps and fill."""
        size = REGISTER_BYTES[row.isa]
        sums = _Sums(SHORT, _taps(step)) if row.isa in WIDENING_ISAS else _plan_sums(step)
        registers = _registers(_in_pairs(sums.taps), size)
        weight = _quarters(registers) if sums.form == WIDE else _halves(registers, np.int8)
        fields = conv_fields(step)
        fields |= {
            "weight": weight,
            "panel_bytes": weight.nbytes // len(weight),
            "bias": to_lanes(_of_channels(fields["bias"]), groups=1),
        }
        epilogue = pack_epilogue(step.epilogue, intervals=conv_intervals(step))
        extra: dict[str, FieldValue] = {"form": sums.form}
        if sums.bounds is not None:
            extra["bounds"] = _halves(_registers(sums.bounds, size), np.int16)
            count = sums.bounds.shape[1]
            epilogue = PackedEpilogue({"kind": TO_INDICES, "num_thresholds": count})
        return PackedStep(fields, epilogue, (), _scratch_bytes(step), ("bf_depthwise", extra))


def _scratch_bytes(step: ConvStep) -> int:
    """Pointers to the taps of a window, and a row of fill."""
    _, w, c = image_shape(step.x.shape)
    pointers = round_up(_taps(step).shape[1], 2) + 1
    return round_up(pointers * POINTER_BYTES + w * c + SPARE_BYTES, SPARE_BYTES)


def _taps(step: ConvStep) -> Int64Array:
    return step.weight.reshape(len(step.weight), -1).astype(np.int64)


def _of_channels(lanes: FieldValue) -> NDArray[np.generic]:
    """Per-lane values where every group, of one channel, has a block of its own."""
    return np.asarray(lanes)[::LANES]


def _plan_sums(step: ConvStep) -> _Sums:
    """The narrowest sums that hold every partial sum of indices times weights."""
    taps, most = _taps(step), step.x_grid.levels - 1
    ends = np.maximum(taps, 0).sum(1), np.minimum(taps, 0).sum(1)
    if most * max(int(ends[0].max()), -int(ends[1].min())) > INT16_MAX:
        return _Sums(WIDE, taps)
    rule = step.epilogue
    if not isinstance(rule, ToIndices) or rule.table.shape[1] > MAX_BOUNDS:
        return _Sums(SHORT, taps)
    sign = rule.sign.astype(np.int64)
    turned = taps * sign[:, None]
    if turned.max(initial=0) > np.iinfo(np.int8).max:
        return _Sums(SHORT, taps)
    bias = sign * (step.bias + step.x_grid.lo * taps.sum(1))
    # sign · (bias + x_step · sum) >= threshold, for the turned sum
    least = -((bias[:, None] - rule.table.astype(np.int64)) // step.x_grid.step)
    return _Sums(BOUNDS, turned, np.clip(least, -INT16_MAX, INT16_MAX + 1) - 1)


def _in_pairs(taps: Int64Array) -> Int64Array:
    """Taps (C, T) as (C, pairs, 2), with a weight of zero behind an odd last one."""
    padded = np.zeros((len(taps), round_up(taps.shape[1], 2)), np.int64)
    padded[:, : taps.shape[1]] = taps
    return padded.reshape(len(taps), -1, 2)


def _registers(values: Int64Array, size: int) -> Int64Array:
    """Values (C, J, …) as (registers, J, size / 16, 2, 8, …): the last two count channels."""
    rest = values.shape[1:]
    padded = np.zeros((round_up(len(values), size), *rest), np.int64)
    padded[: len(values)] = values
    split = padded.reshape(len(padded) // size, size // LANES, 2, LANES // 2, *rest)
    return np.moveaxis(split, 4, 1)


def _halves(registers: Int64Array, dtype: type[np.integer]) -> NDArray[np.generic]:
    """Registers as (registers, J, half, size / 16, 8, …)."""
    return np.ascontiguousarray(registers.swapaxes(2, 3)).astype(dtype)


def _quarters(registers: Int64Array) -> NDArray[np.int16]:
    """Registers of pairs as (registers, pairs, half, quarter, size / 16, 4, 2)."""
    split = registers.reshape(*registers.shape[:4], 2, 4, 2)
    return np.ascontiguousarray(np.moveaxis(split, 2, 4)).astype(np.int16)
