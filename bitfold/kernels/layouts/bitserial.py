"""Layout ``bitserial``: planes of weight indices against planes of window indices (packing.py)."""

from bitfold.kernels.layouts.common import (
    SPARE_BYTES,
    PackedStep,
    conv_epilogue,
    conv_fields,
    copy_bytes,
)
from bitfold.kernels.packing import PANELS, WORD_BITS, round_up
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep


class BitserialLayout:
    """One popcount a pair of planes; exact whatever the step."""

    name = "bitserial"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Always."""
        return True

    def fits_every_step(self, row: Row) -> bool:
        """Always."""
        return True

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Weight planes; scratch for the padded copy, a window's bytes and its planes."""
        _, kernel_h, kernel_w, depth = step.weight.shape
        panels = PANELS[self.name](step.weight, groups=step.groups, grid=step.weight_grid)
        num_words = round_up(kernel_h * kernel_w * depth, WORD_BITS) // 32
        fields = conv_fields(step)
        fields |= {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "x_planes": step.x_grid.bits, "w_planes": step.weight_grid.bits,
            "w_lo": step.weight_grid.lo, "w_step": step.weight_grid.step,
            "num_words": num_words,
        }  # fmt: skip
        window_bytes = num_words * (32 + 4 * step.x_grid.bits) + SPARE_BYTES
        scratch = round_up(copy_bytes(fields) + SPARE_BYTES, SPARE_BYTES) + window_bytes
        return PackedStep(fields, conv_epilogue(step), (), round_up(scratch, SPARE_BYTES))
