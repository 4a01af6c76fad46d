"""Layout ``direct_signed``: panels of ``direct`` for rows that read index - 128 as int8."""

from dataclasses import replace

import numpy as np

from bitfold.kernels.layouts.common import INT16_MAX, largest_digit
from bitfold.kernels.layouts.direct import NO_LIMIT, WIDE_SUM_ISAS, DirectLayout, conv_segments
from bitfold.kernels.packed_step import PackedStep
from bitfold.kernels.packing import to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

OFFSET = 128


class DirectSignedLayout:
    """The bias makes up for the offset, so indices of 8 bits have signed products; always exact."""

    name = "direct_signed"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Always."""
        return True

    def fits_every_step(self, row: Row) -> bool:
        """Always."""
        return True

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """As ``direct``, with bias + 128 · x_step · Σ w modulo 2^32."""
        packed = DirectLayout().pack(step, row)
        segments = conv_segments(step, signed_quads(step, row))
        codes = step.weight.reshape(len(step.weight), -1).astype(np.int64)
        shift = to_lanes(OFFSET * step.x_grid.step * codes.sum(1), groups=step.groups)
        total = np.asarray(packed.fields["bias"], np.int64) + np.asarray(shift, np.int64)
        bias = total.astype(np.uint64).astype(np.uint32).view(np.int32)
        flushes = int(any(segment.flush for segment in segments))
        fields = packed.fields | {"bias": bias, "has_flushes": flushes}
        return replace(packed, fields=fields, segments=segments)


def signed_quads(step: ConvStep, row: Row) -> int:
    """Quads whose products, one to a 16-bit sum, cannot overflow it; 32-bit sums need no limit."""
    if row.isa in WIDE_SUM_ISAS:
        return NO_LIMIT
    return INT16_MAX // (OFFSET * max(1, largest_digit(step)))
