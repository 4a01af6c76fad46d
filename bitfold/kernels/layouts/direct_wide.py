"""Layout ``direct_wide``: 16 channels times pairs of indices, each widened to a 16-bit word."""

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.layouts.common import (
    SPARE_BYTES,
    conv_epilogue,
    conv_fields,
    conv_geometry,
    copy_bytes,
)
from bitfold.kernels.packed_step import PackedStep, Segment
from bitfold.kernels.packing import QUAD, direct_wide_panels, round_up
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep, Int8Array, Int32Array

Int16Array = NDArray[np.int16]
WORD_BYTES = 2
PAIR = 2


class DirectWideLayout:
    """Panels of int16 weights for rows that add products in 32 bits; always exact.

    Rows widen the input once, while they pad it; a kernel row of few channels is one run of pairs.
    """

    name = "direct_wide"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Always."""
        return True

    def fits_every_step(self, row: Row) -> bool:
        """Always."""
        return True

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Panels of each digit, one segment a kernel row, and a scratch area for the words."""
        digits = word_digits(step.weight)
        layers = [direct_wide_panels(digit, groups=step.groups) for digit in digits]
        panels = np.stack(layers, axis=1)
        fields = conv_fields(step) | {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "digits": len(digits),
            "has_copy": 1,
        }
        scratch = round_up(WORD_BYTES * copy_bytes(fields) + SPARE_BYTES, SPARE_BYTES)
        return PackedStep(fields, conv_epilogue(step), _segments(step), scratch)


def word_digits(weight: Int8Array | Int32Array) -> list[Int16Array]:
    """``weight`` as balanced digits of base 2^16, the highest first.

    Σ_k 2^(16·k) · digit_k = weight, with digits in −2^15 … 2^15 − 1.
    """
    rest = weight.astype(np.int64)
    digits: list[Int16Array] = []
    while rest.any() or not digits:
        digit = ((rest + 2**15) & (2**16 - 1)) - 2**15
        digits.append(digit.astype(np.int16))
        rest = (rest - digit) >> 16
    return digits[::-1]


def _segments(step: ConvStep) -> tuple[Segment, ...]:
    """One a kernel row; a pair of words is a quad of bytes."""
    _, kernel_h, kernel_w, depth = step.weight.shape
    row_bytes = conv_geometry(step)["padded_w"] * depth * WORD_BYTES
    quads = round_up(kernel_w * depth, PAIR) * WORD_BYTES // QUAD
    return tuple(Segment(row * row_bytes, quads, flush=False) for row in range(kernel_h))
