"""Layout ``direct_bytes``: panels of ``direct`` for rows that add products in 8 bits."""

from dataclasses import replace

import numpy as np

from bitfold.kernels.layouts.direct import DirectLayout, conv_segments
from bitfold.kernels.packed_step import PackedStep
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

INT8_MAX = 2**7 - 1
MIN_QUADS = 3  # with fewer between two flushes, sums in 16 bits take less work


class DirectBytesLayout:
    """For operands of two bits, or of one and up to six: a few products fit a byte."""

    name = "direct_bytes"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Whether three quads or more can be added between two flushes."""
        return byte_quads(step) >= MIN_QUADS

    def fits_every_step(self, row: Row) -> bool:
        """Never."""
        return False

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """As ``direct``, with more flushes."""
        packed = DirectLayout().pack(step, row)
        segments = conv_segments(step, byte_quads(step))
        flushes = int(any(segment.flush for segment in segments))
        return replace(packed, fields=packed.fields | {"has_flushes": flushes}, segments=segments)


def byte_quads(step: ConvStep) -> int:
    """Quads whose products, one to an 8-bit sum, cannot overflow it; 0 where one quad can."""
    largest = int(np.abs(step.weight.astype(np.int64)).max())
    return INT8_MAX // max(1, (step.x_grid.levels - 1) * largest)
