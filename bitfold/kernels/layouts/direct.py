"""Layout ``direct``: 16 channels times quads of input bytes (packing.py).

Weights of more than 8 bits lie in panels of their own for each digit.
"""

from dataclasses import replace

import numpy as np

from bitfold.kernels.layouts.common import (
    SPARE_BYTES,
    byte_digits,
    conv_fields,
    conv_geometry,
    copy_bytes,
    flush_quads,
    tile_epilogue,
)
from bitfold.kernels.packed_step import PackedStep, Segment
from bitfold.kernels.packing import QUAD, direct_panels, round_up
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

SIXTEEN_BIT_ISAS = ("avx2", "avx512bw")  # rows of layout direct that add products in 16 bits
SEVEN_BIT_ISAS = ("neon", "neondot")  # rows of layout direct that read indices as int8
WIDE_SUM_ISAS = (
    "neondot",
    "avx512vnni",
    "avxvnni",
)  # rows whose sums have 32 bits and need no flushes
MAX_SIGNED_LEVELS = 128
NO_LIMIT = 2**31


class DirectLayout:
    """Panels of int8 weights, and flushes between sums."""

    name = "direct"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Whether ``row`` is exact on ``step``: 16-bit products must not saturate."""
        if row.isa in SEVEN_BIT_ISAS:
            return step.x_grid.levels <= MAX_SIGNED_LEVELS
        return self.fits_every_step(row) or flush_quads(step) >= 1

    def fits_every_step(self, row: Row) -> bool:
        """Whether ``row`` is exact whatever the step."""
        return row.isa not in SIXTEEN_BIT_ISAS + SEVEN_BIT_ISAS

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Panels, segments and a scratch area for the padded copy."""
        digits = byte_digits(step.weight)
        layers = [direct_panels(digit, groups=step.groups) for digit in digits]
        panels = np.stack(layers, axis=1)
        segments = conv_segments(step, NO_LIMIT if row.isa in WIDE_SUM_ISAS else None)
        fields = conv_fields(step)
        fields |= {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "digits": len(digits),
            "has_flushes": int(any(segment.flush for segment in segments)),
        }
        copied = copy_bytes(fields)
        scratch = round_up(copied + SPARE_BYTES, SPARE_BYTES) if copied else 0
        return PackedStep(fields, tile_epilogue(step, row), segments, scratch)


def conv_segments(step: ConvStep, limit: int | None = None) -> tuple[Segment, ...]:
    """One segment a kernel row, cut so that narrow sums are flushed before they can overflow.

    ``limit`` is how many quads may be added between two flushes, at least 1; by default what sums
    of two products in 16 bits allow.
    """
    _, kernel_h, kernel_w, depth = step.weight.shape
    row_bytes = conv_geometry(step)["padded_w"] * depth
    limit, since = limit or max(1, flush_quads(step)), 0
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
