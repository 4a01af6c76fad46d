"""Thresholds as one float32 line and a rounding: what QONNX's Quant computes (docs/onnx.md).

code = clip(rint(gain·x + offset), lo, hi). Proven by evaluating it at both sides of every step,
with more room than three float32 roundings take.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.export.onnx.affine import best_gain, is_canonical, offset_interval
from bitfold.ir.grid import Grid
from bitfold.ir.types import IntArray

EXACT_FLOAT = 2**24
SAFETY = 2.0**-21


@dataclass(frozen=True, slots=True)
class SingleLine:
    """gain and offset (C,) of float32; gain's sign is the table's sign."""

    gain: NDArray[np.float32]
    offset: NDArray[np.float32]

    @property
    def sign(self) -> IntArray:
        """(C,) of ±1."""
        return np.where(self.gain < 0, -1, 1).astype(np.int64)

    def values(self, u: IntArray) -> NDArray[np.float64]:
        """gain·x + offset for u (C, L), sign·x, without the roundings of float32."""
        gain = np.abs(self.gain.astype(np.float64))[:, None]
        return np.asarray(gain * u + self.offset.astype(np.float64)[:, None], dtype=np.float64)


def halves_of(grid: Grid) -> NDArray[np.float64]:
    """Where the rounding steps from one code to the next."""
    return np.asarray(grid.lo + 0.5 + np.arange(grid.levels - 1), dtype=np.float64)


def oriented_ends(sign: IntArray, ends: tuple[int, int]) -> tuple[IntArray, IntArray]:
    """(C, 1) least and greatest sign·x for x in ``ends``."""
    least = np.where(sign > 0, ends[0], -ends[1]).astype(np.int64)
    most = np.where(sign > 0, ends[1], -ends[0]).astype(np.int64)
    return least[:, None], most[:, None]


def is_proven(line: SingleLine, table: IntArray, grid: Grid, ends: tuple[int, int]) -> bool:
    """Whether ``line`` takes each step of ``table`` in float32, in any order of its operations."""
    least, most = oriented_ends(line.sign, ends)
    halves, size = halves_of(grid), np.abs(line.offset.astype(np.float64))[:, None]
    taken, before = line.values(table), line.values(table - 1)
    room = SAFETY * (np.abs(taken) + np.abs(before) + 2 * size + np.abs(halves) + 1)
    right = ((taken - halves >= room) | (table > most)) & (
        (halves - before >= room) | (table <= least)
    )
    return bool(right.all())


def fit_single(
    table: IntArray, sign: IntArray, grid: Grid, ends: tuple[int, int]
) -> SingleLine | None:
    """The line that equals ``table`` on integers in ``ends``, proven; None where none is found."""
    if grid.step != 1 or max(-ends[0], ends[1]) >= EXACT_FLOAT:
        return None
    gain, offset = np.zeros(len(table)), np.zeros(len(table))
    for turn, lo, hi in ((1, *ends), (-1, -ends[1], -ends[0])):
        rows = np.flatnonzero(sign == turn)
        if not is_canonical(table[rows], lo=lo, hi=hi):
            return None
        if len(rows):
            gain[rows] = best_gain(table[rows], lo=lo, hi=hi).astype(np.float32)
            first, last = offset_interval(gain[rows], table[rows], lo=lo, hi=hi)
            offset[rows] = (first + last) / 2 - 0.5 + grid.lo
    line = SingleLine((gain * sign).astype(np.float32), offset.astype(np.float32))
    return line if is_proven(line, table, grid, ends) else None


def single_table(line: SingleLine, grid: Grid, ends: tuple[int, int]) -> IntArray:
    """The (C, levels − 1) table that ``line`` computes on integers in ``ends``, by bisection."""
    halves, (low, high) = halves_of(grid), oriented_ends(line.sign, ends)
    shape = (len(line.gain), grid.levels - 1)
    least = np.broadcast_to(low, shape).astype(np.int64)
    most = np.broadcast_to(high + 1, shape).astype(np.int64)
    for _ in range(int(ends[1] - ends[0] + 2).bit_length()):
        middle = (least + most) >> 1
        taken, is_open = line.values(middle) > halves, least < most
        most = np.where(is_open & taken, middle, most)
        least = np.where(is_open & ~taken, middle + 1, least)
    return least
