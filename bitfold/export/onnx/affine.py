"""Threshold tables as straight lines: the form that ONNX nodes can evaluate (docs/onnx.md).

A table (C, L) of ascending thresholds is reproduced by ``clip(floor(gain·u + offset), 0, L)``,
u = sign·x, when for every channel and level j the line is ≥ j + 1 at u = t_j and < j + 1 at
u = t_j − 1. Both sides are monotone in u, so these 2·L points decide about every integer.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.ir.types import IntArray

Float64 = NDArray[np.float64]

SEARCH_ROUNDS = 120
PRECISION = 2.0**-50
# Two roundings of gain·u + offset err by less than 2^-52 of the larger term each; eight times that
# covers any order of evaluation, a fused multiply-add included.
SAFETY = 2.0**-49


@dataclass(frozen=True, slots=True)
class Line:
    """index = clip(floor(gain·x + offset), 0, L) in float64; gain's sign is the table's sign."""

    gain: Float64
    offset: Float64

    @property
    def sign(self) -> IntArray:
        """(C,) of ±1."""
        return np.where(self.gain < 0, -1, 1).astype(np.int64)


def is_canonical(table: IntArray, *, lo: int, hi: int) -> bool:
    """Whether ``table`` ascends and stays within lo … hi + 1: what bisection gives back."""
    in_range = bool(((table >= lo) & (table <= hi + 1)).all())
    return in_range and bool((np.diff(table, axis=1) >= 0).all())


def _bounds(
    gain: Float64, table: IntArray, *, lo: int, hi: int
) -> tuple[tuple[Float64, IntArray], tuple[Float64, IntArray]]:
    """Least allowed and first forbidden offset, each (C,) with the input u that binds it.

    Where all entries lie at one end only one side is bound; any line that stays flat will do.
    """
    rows, levels = np.arange(len(table)), table.shape[1]
    steps = np.arange(1, levels + 1, dtype=np.float64)
    lines = steps - gain[:, None] * table
    above = np.where(table <= hi, lines, -np.inf)
    below = np.where(table > lo, lines + gain[:, None], np.inf)
    last, first = above.argmax(1), below.argmin(1)
    least, most = above[rows, last], below[rows, first]
    never, always = np.isneginf(least), np.isposinf(most)
    return (
        (np.where(never, -gain * lo, least), np.where(never, lo, table[rows, last])),
        (
            np.where(always, levels + 1 - gain * hi, most),
            np.where(always, hi, table[rows, first] - 1),
        ),
    )


def offset_interval(gain: Float64, table: IntArray, *, lo: int, hi: int) -> tuple[Float64, Float64]:
    """Per channel the offsets that keep the line right: (least allowed, first forbidden)."""
    (least, _), (first, _) = _bounds(gain, table, lo=lo, hi=hi)
    return least, first


def best_gain(table: IntArray, *, lo: int, hi: int) -> Float64:
    """Per channel the gain of the widest margin: a concave function, bisected by its slope."""
    span = float(max(hi - lo, 1))
    left = np.full(len(table), 0.25 / span)
    right = np.full(len(table), float(table.shape[1] + 1))
    for _ in range(SEARCH_ROUNDS):
        middle = (left + right) / 2
        (_, last), (_, first) = _bounds(middle, table, lo=lo, hi=hi)
        rising = last > first
        left, right = np.where(rising, middle, left), np.where(rising, right, middle)
        if (right - left <= PRECISION * left).all():
            break
    widest: Float64 = (left + right) / 2
    return widest


def fit_line(table: IntArray, sign: IntArray, *, lo: int, hi: int) -> Line | None:
    """The line that equals ``table`` on x in lo … hi, proven; None where there is none.

    ``sign`` (C,) orients x; lo and hi bound x itself.
    """
    flipped = sign[:, None] < 0
    tables = [np.asarray(table), np.asarray(table)]
    ranges = [(lo, hi), (-hi, -lo)]
    gain = np.zeros(len(table))
    offset = np.zeros(len(table))
    for part, (low, high), chosen in zip(tables, ranges, (~flipped, flipped), strict=True):
        rows = np.flatnonzero(chosen[:, 0])
        if not len(rows):
            continue
        if not is_canonical(part[rows], lo=low, hi=high):
            return None
        gain[rows] = best_gain(part[rows], lo=low, hi=high)
        least, first = offset_interval(gain[rows], part[rows], lo=low, hi=high)
        offset[rows] = (least + first) / 2
    line = Line(gain * sign, offset)
    return line if _equals_table(line, table, lo=lo, hi=hi) else None


def _equals_table(line: Line, table: IntArray, *, lo: int, hi: int) -> bool:
    """Prove that the float64 expression takes each step of ``table``, with room for rounding."""
    sign = line.sign[:, None]
    low, high = np.where(sign > 0, lo, -hi), np.where(sign > 0, hi, -lo)
    gain, offset = np.abs(line.gain)[:, None], line.offset[:, None]
    steps = np.arange(1, table.shape[1] + 1, dtype=np.float64)
    taken = gain * table + offset
    before = gain * (table - 1) + offset
    room = SAFETY * (np.abs(gain * table) + gain + np.abs(offset) + steps)
    right = ((taken - steps >= room) | (table > high)) & ((steps - before >= room) | (table <= low))
    return bool(right.all())


def line_table(line: Line, levels: int, *, lo: int, hi: int) -> IntArray:
    """The (C, levels − 1) table that ``line`` computes on x in lo … hi, by bisection."""
    sign = line.sign[:, None]
    gain, offset = np.abs(line.gain)[:, None], line.offset[:, None]
    steps = np.arange(1, levels, dtype=np.float64)
    shape = (len(sign), levels - 1)
    least = np.broadcast_to(np.where(sign > 0, lo, -hi), shape).astype(np.int64)
    most = np.broadcast_to(np.where(sign > 0, hi, -lo) + 1, shape).astype(np.int64)
    for _ in range(int(hi - lo + 2).bit_length()):
        middle = (least + most) >> 1
        taken = np.floor(gain * middle + offset) >= steps
        open_ = least < most
        most = np.where(open_ & taken, middle, most)
        least = np.where(open_ & ~taken, middle + 1, least)
    return least
