"""Layout ``dictionary``: sums of a few channels' products, looked up by codes of both operands.

An entry of the table is Σ (2·index + shift)·w over the channels of a group, less the least entry,
divided by the divisor that all entries share. ``shift`` is chosen so that entries are small: the
smaller they are, the more look-ups a byte holds. Nothing but constants remains to be added:

    Σ index·w = (divisor · Σ entry + groups · least − shift · Σ w) / 2
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Grid
from bitfold.kernels.layouts.common import SPARE_BYTES, conv_epilogue, conv_fields
from bitfold.kernels.packed_step import PackedStep
from bitfold.kernels.packing import LANES, round_up, to_lanes
from bitfold.kernels.rows import Row
from bitfold.kernels.steps import ConvStep

MAX_ROWS = 256
BYTE_MAX, WORD_MAX = 2**8 - 1, 2**16 - 1
CODE_BYTES = 2
# Bytes of a row of the table, by the ISA's shuffle.
ENTRIES = {"avx512vbmi": 64}
DEFAULT_ENTRIES = 16
LANES_OF = {16: 32, 64: 64}  # output channels of one vector of weight indices

Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Dictionary:
    """The table of one pair of grids; ``entries`` holds (rows, columns) below 256."""

    group: int
    shift: int
    least: int
    divisor: int
    entries: Int64Array

    @property
    def flush(self) -> int:
        """Look-ups that a sum of bytes holds, an even number."""
        return BYTE_MAX // max(1, int(self.entries.max())) // 2 * 2


class DictionaryLayout:
    """One look-up for 2 to 6 channels of 32 or 64 output channels."""

    name = "dictionary"

    def fits(self, step: ConvStep, row: Row) -> bool:
        """Few levels, sums that fit 16 bits, and more than one block of output channels."""
        dictionary = find_dictionary(step.x_grid, step.weight_grid, row_entries(row))
        if dictionary is None or len(step.weight) // step.groups <= LANES:
            return False
        most = num_codes(step, dictionary.group) * int(dictionary.entries.max())
        return dictionary.flush >= 2 and most <= WORD_MAX

    def fits_every_step(self, row: Row) -> bool:
        """Never."""
        return False

    def pack(self, step: ConvStep, row: Row) -> PackedStep:
        """Weight indices, the table, and scratch for the codes of one group's padded input."""
        width = row_entries(row)
        dictionary = find_dictionary(step.x_grid, step.weight_grid, width)
        if dictionary is None:
            raise ValueError(f"{row.symbol} does not fit {step.name}")
        fields = conv_fields(step)
        codes = grouped_weights(step, dictionary.group)
        panels = index_panels(step, codes, dictionary.group, width)
        table = np.zeros((len(dictionary.entries), width), np.uint8)
        table[:, : dictionary.entries.shape[1]] = dictionary.entries
        fields |= {
            "weight": panels,
            "panel_bytes": panels.nbytes // len(panels),
            "bias": to_lanes(_bias(step, dictionary, codes), groups=step.groups),
        }
        pixel_groups = codes.shape[3]
        pixels = int(fields["padded_h"]) * int(fields["padded_w"])
        extra = {
            "group": dictionary.group, "levels": step.x_grid.levels,
            "pixel_groups": pixel_groups, "entries": width, "flush": dictionary.flush,
            "vector_blocks": LANES_OF[width] // LANES,
            "factor": step.x_grid.step * dictionary.divisor // 2,
            "table": table,
        }  # fmt: skip
        scratch = round_up(CODE_BYTES * pixels * pixel_groups + SPARE_BYTES, SPARE_BYTES)
        return PackedStep(fields, conv_epilogue(step), (), scratch, ("bf_dictionary", dict(extra)))


def row_entries(row: Row) -> int:
    """Bytes of one row of the table that ``row`` looks up in."""
    return ENTRIES.get(row.isa, DEFAULT_ENTRIES)


def find_dictionary(x_grid: Grid, w_grid: Grid, width: int) -> Dictionary | None:
    """The table for the largest group that fits, None where that is less than two channels."""
    group = 1
    while w_grid.levels ** (group + 1) <= width and x_grid.levels ** (group + 1) <= MAX_ROWS:
        group += 1
    if group < 2 or min(x_grid.levels, w_grid.levels) < 2:
        return None
    tables = (_table(x_grid, w_grid, group, shift) for shift in range(-2 * (x_grid.levels - 1), 2))
    exact = [table for table in tables if x_grid.step * table.divisor % 2 == 0]
    return min(exact, key=lambda table: int(table.entries.max()))


def _table(x_grid: Grid, w_grid: Grid, group: int, shift: int) -> Dictionary:
    x = 2 * _digits(x_grid.levels, group) + shift
    w = w_grid.lo + w_grid.step * _digits(w_grid.levels, group)
    sums = x @ w.T
    least = int(sums.min())
    divisor = int(np.gcd.reduce((sums - least).reshape(-1)))
    return Dictionary(group, shift, least, divisor, (sums - least) // divisor)


def _digits(levels: int, group: int) -> Int64Array:
    """Index j of the group in every code: code = Σ index_j · levels^j; (levels^group, group)."""
    codes = np.arange(levels**group)
    return codes[:, None] // levels ** np.arange(group) % levels


def pixel_codes(depth: int, group: int) -> int:
    """Codes of one pixel: whole groups, an even number of them."""
    return round_up(round_up(depth, group) // group, 2)


def num_codes(step: ConvStep, group: int) -> int:
    """Look-ups of one window."""
    _, kernel_h, kernel_w, depth = step.weight.shape
    return int(kernel_h * kernel_w) * pixel_codes(depth, group)


def grouped_weights(step: ConvStep, group: int) -> NDArray[np.int16]:
    """Codes (O, KH, KW, groups of channels, group); channels that do not exist take the first."""
    num_out, kernel_h, kernel_w, depth = step.weight.shape
    shape = (num_out, kernel_h, kernel_w, pixel_codes(depth, group), group)
    filled = np.full((*shape[:3], shape[3] * group), step.weight_grid.lo, np.int16)
    filled[..., :depth] = step.weight
    return filled.reshape(shape)


def index_panels(
    step: ConvStep, codes: NDArray[np.int16], group: int, width: int
) -> NDArray[np.uint8]:
    """Layout ``dictionary`` (packing.py): (vectors, window bytes, lanes)."""
    grid = step.weight_grid
    # Below 256: no more than the table has columns.
    factors = (grid.levels ** np.arange(group)).astype(np.int16)
    sums: NDArray[np.uint8] = np.zeros(codes.shape[:-1], np.uint8)
    for j in range(group):
        sums += ((codes[..., j] - grid.lo) // grid.step * factors[j]).astype(np.uint8)
    indices = sums.reshape(step.groups, len(codes) // step.groups, -1)
    lanes = LANES_OF[width]
    half = lanes // 2
    padded = np.zeros((step.groups, round_up(indices.shape[1], lanes), indices.shape[2]), np.uint8)
    padded[:, : indices.shape[1]] = indices
    # Byte 2i is channel i of the lower half of the lanes, byte 2i + 1 of the upper.
    halves = padded.reshape(-1, 2, half, indices.shape[2]).transpose(0, 3, 2, 1)
    vectors: NDArray[np.uint8] = halves.reshape(len(halves), indices.shape[2], lanes)
    if width == DEFAULT_ENTRIES:
        vectors = (vectors[:, 0::2] | vectors[:, 1::2] << 4).astype(np.uint8)
    return np.ascontiguousarray(vectors)


def _bias(step: ConvStep, dictionary: Dictionary, codes: NDArray[np.int16]) -> NDArray[np.int32]:
    """What is added to factor · Σ entry, modulo 2^32."""
    grid = step.x_grid
    flat = codes.reshape(len(codes), -1)
    real = step.weight.reshape(len(step.weight), -1)
    looked_up = num_codes(step, dictionary.group) * dictionary.least
    twice = grid.step * (looked_up - dictionary.shift * flat.sum(1, dtype=np.int64))
    bias = step.bias + grid.lo * real.sum(1, dtype=np.int64) + twice // 2
    wrapped: NDArray[np.int32] = bias.astype(np.uint64).astype(np.uint32).view(np.int32)
    return wrapped
