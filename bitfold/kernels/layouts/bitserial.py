"""Layout ``bitserial``: planes of weights against planes of input indices (packing.py).

Weights s·{−1, 1} and s·{−1, 0, 1} take one operation a plane of the input. With x a plane of the
input, n the negative weights and e those that are not zero, the ones of e & (x ^ n) are Σ x·w/s
plus the number of negative weights, a constant that goes into the bias.
"""

from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Grid
from bitfold.kernels.layouts.common import SPARE_BYTES, conv_epilogue, conv_fields, copy_bytes
from bitfold.kernels.packed_step import FieldValue, PackedStep
from bitfold.kernels.packing import bitserial_panels, round_up, to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

PLANE_PIXELS = 4  # windows that are gathered together
WORD_BITS, WORD_BYTES, BYTE_BITS = 32, 4, 8
SPARE_WORDS = 16


class PlaneOp(IntEnum):
    """C's ``bf_plane_op``."""

    AND = 0
    XOR = 1
    SELECT = 2


class BitserialLayout:
    """One population count a pair of planes; exact whatever the step."""

    name = "bitserial"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Always."""
        return True

    def fits_every_step(self, row: Row) -> bool:
        """Always."""
        return True

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Weight planes; scratch for the padded copy, its planes and sums, and four windows."""
        op = plane_op(step.weight_grid)
        planes = weight_planes(step, op)
        panels = bitserial_panels(planes, groups=step.groups)
        depth = round_up(step.weight.shape[3], BYTE_BITS)
        fields = conv_fields(step)
        fields |= {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "x_planes": step.x_grid.bits,
            "num_words": panels.shape[2],
            **_weight_codes(step, op),
        }
        row_words = round_up(int(fields["padded_w"]) * depth, WORD_BITS) // WORD_BITS
        extra = {"op": int(op), "bit_depth": depth, "row_words": row_words}
        scratch = _scratch_bytes(fields, row_words)
        return PackedStep(fields, conv_epilogue(step), (), scratch, ("bf_planes", dict(extra)))


def plane_op(grid: Grid) -> PlaneOp:
    """The cheapest operation for weights on ``grid``."""
    if grid.lo != -grid.hi or grid.levels not in (2, 3):
        return PlaneOp.AND
    return PlaneOp.XOR if grid.levels == 2 else PlaneOp.SELECT


def weight_planes(step: ConvStep, op: PlaneOp) -> NDArray[np.uint8]:
    """Ones and zeros (planes, O, KH, KW, C) as ``op`` reads them."""
    grid, codes = step.weight_grid, step.weight.astype(np.int16)
    if op is PlaneOp.AND:
        indices = (codes - grid.lo) // grid.step
        return np.stack([indices >> bit & 1 for bit in range(grid.bits)]).astype(np.uint8)
    planes = (codes < 0,) if op is PlaneOp.XOR else (codes != 0, codes < 0)
    return np.stack(planes).astype(np.uint8)


def _weight_codes(step: ConvStep, op: PlaneOp) -> dict[str, FieldValue]:
    """What turns counts into Σ index·w: w_lo, w_step, loops over planes, and the bias."""
    grid = step.weight_grid
    if op is PlaneOp.AND:
        return {"w_planes": grid.bits, "w_lo": grid.lo, "w_step": grid.step}
    codes = step.weight.reshape(len(step.weight), -1).astype(np.int64)
    too_much = (codes < 0).sum(1) * (2**step.x_grid.bits - 1) * grid.hi
    bias = step.bias + step.x_grid.lo * codes.sum(1) - step.x_grid.step * too_much
    wrapped = np.ascontiguousarray(bias).astype(np.uint64).astype(np.uint32).view(np.int32)
    lanes = to_lanes(wrapped, groups=step.groups)
    return {"w_planes": 1, "w_lo": 0, "w_step": grid.hi, "bias": lanes}


def _scratch_bytes(fields: dict[str, FieldValue], row_words: int) -> int:
    """As bf_areas_of_planes lays it out."""
    height, width = int(fields["padded_h"]), int(fields["padded_w"])
    planes = int(fields["x_planes"])
    words = height * planes * row_words + SPARE_WORDS + height * width
    words += PLANE_PIXELS * planes * int(fields["num_words"])
    copied = round_up(copy_bytes(fields) + SPARE_BYTES, SPARE_BYTES)
    total = copied + WORD_BITS * row_words + WORD_BYTES * words + SPARE_BYTES
    return round_up(total, SPARE_BYTES)
