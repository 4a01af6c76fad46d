"""Layout ``packed``: the panels of ``direct`` as indices of 1 to 4 bits (packing.py)."""

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Grid
from bitfold.kernels.layouts.common import (
    SPARE_BYTES,
    conv_fields,
    copy_bytes,
    flush_quads,
    tile_epilogue,
)
from bitfold.kernels.layouts.direct import SIXTEEN_BIT_ISAS, conv_segments
from bitfold.kernels.packed_step import PackedStep
from bitfold.kernels.packing import QUAD, direct_panels, pack_fields, round_up
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

MAX_BITS = 4
RUN = 256  # indices that are packed together
# Panels that a share holds expanded: what a tile takes at a time.
TILE_BLOCKS = {"avx512vnni": 4}
DEFAULT_TILE_BLOCKS = 2


class PackedLayout:
    """Weights that stay packed in memory; a kernel expands a panel once for all its pixels."""

    name = "packed"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Up to 16 levels; quads that need filling up have a code 0 to fill with; no saturation."""
        _, _, kernel_w, depth = step.weight.shape
        return (
            step.weight_grid.bits <= MAX_BITS
            and (step.weight_grid.has_zero or kernel_w * depth % QUAD == 0)
            and (row.isa not in SIXTEEN_BIT_ISAS or flush_quads(step) >= 1)
        )

    def fits_every_step(self, row: Row) -> bool:
        """Never."""
        return False

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Packed panels; scratch for the padded copy and a tile's expanded panels."""
        grid, segments = step.weight_grid, conv_segments(step)
        indices = panel_indices(step)
        panels = pack_fields(indices, bits=grid.bits)
        table = np.zeros(2**MAX_BITS, np.int8)
        table[: grid.levels] = np.arange(grid.lo, grid.hi + 1, grid.step)
        fields = conv_fields(step)
        fields |= {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "has_flushes": int(any(segment.flush for segment in segments)),
        }
        expanded_bytes = indices.shape[1]
        scratch = round_up(copy_bytes(fields) + SPARE_BYTES, SPARE_BYTES) + SPARE_BYTES
        scratch += TILE_BLOCKS.get(row.isa, DEFAULT_TILE_BLOCKS) * expanded_bytes + SPARE_BYTES
        extra = {"bits": grid.bits, "expanded_bytes": expanded_bytes, "table": table}
        return PackedStep(
            fields, tile_epilogue(step, row), segments, scratch, ("bf_packed", dict(extra))
        )


def panel_indices(step: ConvStep) -> NDArray[np.uint8]:
    """Indices (blocks, n) of the panels of ``direct``, n filled up to a multiple of 256."""
    grid: Grid = step.weight_grid
    panels = direct_panels(step.weight.astype(np.int8), groups=step.groups).astype(np.int16)
    codes = panels.reshape(len(panels), -1)
    # Lanes past the last channel hold zeros, which need not be a code: any will do.
    indices = np.clip((codes - grid.lo) // grid.step, 0, grid.levels - 1).astype(np.uint8)
    padded = np.zeros((len(codes), round_up(codes.shape[1], RUN)), np.uint8)
    padded[:, : codes.shape[1]] = indices
    return padded
