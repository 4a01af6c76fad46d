"""Layout ``vector``: one output pixel whose window is the whole input, as in a Linear layer.

A panel is 32 output channels times groups of 8 / bits quads of the input: 128 bytes [32][4], quad s
in bits s · bits of every byte. Weights of up to 2 or 4 bits are indices, of more bits codes. Where
16-bit sums cannot hold a group, AVX2 takes pairs instead of quads: [pair][32][2] codes.
"""

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.layouts.common import (
    INT16_MAX,
    SPARE_BYTES,
    conv_epilogue,
    conv_fields,
    image_shape,
)
from bitfold.kernels.packed_step import FieldValue, PackedStep
from bitfold.kernels.packing import QUAD, round_up, to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

PANEL_LANES = 32
PACKED_BITS = (2, 4)
CODE_BITS = 8


class VectorLayout:
    """Weights that are read once, in the order in which they lie."""

    name = "vector"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Whether the window of the only output pixel is the whole input."""
        image, out = image_shape(step.x.shape), image_shape(step.out.shape)
        whole = step.weight.shape[1:] == image and out[:2] == (1, 1)
        return whole and step.groups == 1 and not any(step.padding)

    def fits_every_step(self, row: Row) -> bool:
        """Never: most outputs have more pixels."""
        return False

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Panels of 32 channels; scratch for the input in 16 bits where codes come in pairs."""
        bits = _stored_bits(step)
        values = _stored_values(step, bits)
        groups = -(-values.shape[1] // (QUAD * CODE_BITS // bits))
        flush = _flush_groups(step, values, bits) if row.isa == "avx2" else 1
        if not flush:
            bits, values = CODE_BITS, _stored_values(step, CODE_BITS)
            groups = -(-values.shape[1] // QUAD)
        panels = _panels(values, bits if flush else 0)
        fields = conv_fields(step)
        fields |= {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "bias": to_lanes(_padded(fields["bias"]), groups=1),
            "w_lo": 0 if bits == CODE_BITS else step.weight_grid.lo,
            "w_step": 1 if bits == CODE_BITS else step.weight_grid.step,
        }
        scratch = 0 if flush else round_up(2 * values.shape[1] + SPARE_BYTES, SPARE_BYTES)
        extra: dict[str, FieldValue] = {"bits": bits, "num_groups": groups, "flush": flush}
        return PackedStep(fields, conv_epilogue(step), (), scratch, ("bf_vector", extra))


def _padded(lanes: object) -> NDArray[np.generic]:
    """Per-lane values filled up to whole panels."""
    values = np.asarray(lanes)
    return np.pad(values, (0, -len(values) % PANEL_LANES))


def _stored_bits(step: ConvStep) -> int:
    return next((bits for bits in PACKED_BITS if step.weight_grid.levels <= 1 << bits), CODE_BITS)


def _stored_values(step: ConvStep, bits: int) -> NDArray[np.int64]:
    """Codes (O, K), or their indices where they take fewer than 8 bits."""
    codes = step.weight.reshape(len(step.weight), -1).astype(np.int64)
    grid = step.weight_grid
    return codes if bits == CODE_BITS else (codes - grid.lo) // grid.step


def _flush_groups(step: ConvStep, values: NDArray[np.int64], bits: int) -> int:
    """Groups whose products, two to a 16-bit sum, cannot overflow it; 0 where one can."""
    largest = max(1, int(np.abs(values).max(initial=0)))
    pair = 2 * max(1, step.x_grid.levels - 1) * largest
    return INT16_MAX // (pair * (CODE_BITS // bits))


def _panels(values: NDArray[np.int64], bits: int) -> NDArray[np.int8]:
    """(panels, groups, 32, 4) of ``bits`` bits, or (panels, pairs, 32, 2) where ``bits`` is 0."""
    run = QUAD * CODE_BITS // bits if bits else QUAD
    padded = np.zeros(
        (round_up(len(values), PANEL_LANES), round_up(values.shape[1], run)), np.int64
    )
    padded[: len(values), : values.shape[1]] = values
    if not bits:
        pairs = padded.reshape(-1, PANEL_LANES, padded.shape[1] // 2, 2)
        return np.ascontiguousarray(pairs.swapaxes(1, 2)).astype(np.int8)
    quads = padded.reshape(-1, PANEL_LANES, padded.shape[1] // run, CODE_BITS // bits, QUAD)
    shifts = bits * np.arange(CODE_BITS // bits)[:, None]
    packed = (quads << shifts).sum(3).swapaxes(1, 2)
    return np.ascontiguousarray(packed).astype(np.uint8).view(np.int8)
