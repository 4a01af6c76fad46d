"""Thresholds in exact rationals: batch norm, ReLU, clip and rounding in one integer table.

A code is at least k + 1 where value/scale passes k + 1/2; on the tie itself the even neighbour wins
(arithmetic.md, eq. 7). With value = gain·X + bias this is an inequality on the integer X.
"""

import math
from collections.abc import Sequence
from fractions import Fraction

import numpy as np

from bitfold.ir import Grid, IntArray

HALF = Fraction(1, 2)


def code_of(value: Fraction, *, scale: Fraction, grid: Grid) -> int:
    """clamp(rne(value / scale)) on a grid of step 1; the definition that thresholds reproduce."""
    return min(max(round(value / scale), grid.lo), grid.hi)


def channel_thresholds(gain: Fraction, bias: Fraction, *, scale: Fraction, grid: Grid) -> list[int]:
    """Least integer X with code(gain·X + bias) ≥ k + 1, for k = grid.lo … grid.hi − 1.

    Exact; requires gain > 0 and a grid of step 1. On a tie at k + 1/2 the code is k + 1 where k is
    odd and k where k is even.
    """
    table = []
    for k in range(grid.lo, grid.hi):
        crossing = (scale * (k + HALF) - bias) / gain
        table.append(math.ceil(crossing) if k % 2 else math.floor(crossing) + 1)
    return table


def oriented_thresholds(
    gain: Fraction, bias: Fraction, *, scale: Fraction, grid: Grid, lo: int, hi: int
) -> tuple[list[int], int]:
    """(table, sign) for one channel whose input lies in lo … hi.

    A negative gain is turned by sign = −1. A zero gain makes the constant code of ``bias``. Entries
    are clamped to [least, greatest + 1] of sign·X: the lower end always holds, the upper never.
    """
    if gain == 0:
        taken = code_of(bias, scale=scale, grid=grid) - grid.lo
        return [lo] * taken + [hi + 1] * (grid.levels - 1 - taken), 1
    sign = 1 if gain > 0 else -1
    least, most = (lo, hi) if sign == 1 else (-hi, -lo)
    table = channel_thresholds(abs(gain), bias, scale=scale, grid=grid)
    return [min(max(t, least), most + 1) for t in table], sign


def threshold_table(
    gains: Sequence[Fraction],
    biases: Sequence[Fraction],
    *,
    scale: Fraction,
    grid: Grid,
    lo: int,
    hi: int,
) -> tuple[IntArray, IntArray]:
    """Tables (C, levels − 1) and signs (C,) of all channels."""
    rows, signs = [], []
    computed: dict[tuple[Fraction, Fraction], tuple[list[int], int]] = {}
    for gain, bias in zip(gains, biases, strict=True):
        if (gain, bias) not in computed:
            computed[gain, bias] = oriented_thresholds(
                gain, bias, scale=scale, grid=grid, lo=lo, hi=hi
            )
        table, sign = computed[gain, bias]
        rows.append(table)
        signs.append(sign)
    return np.array(rows, dtype=np.int64), np.array(signs, dtype=np.int64)
