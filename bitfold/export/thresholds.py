"""Thresholds in exact rationals: batch norm, ReLU, clip and rounding in one integer table.

Index j rises to j + 1 where value/scale passes lo + step·(j + 1/2); on the crossing itself the
quantizer's tie rule decides (arithmetic.md, eq. 7). With value = gain·X + bias this is an
inequality on the integer X.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bitfold.export.qgraph import Ties
from bitfold.ir import Grid, IntArray

HALF = Fraction(1, 2)


@dataclass(frozen=True, slots=True)
class Staircase:
    """A quantizer as a function of the real value: its grid, scale and tie rule.

    Where ``floor`` or ``ceiling`` is given, the value is first brought to at least the one and at
    most the other (ReLU, ReLU6).
    """

    grid: Grid
    scale: Fraction
    ties: Ties = "even"
    floor: Fraction | None = None
    ceiling: Fraction | None = None

    def rises_on_the_tie(self, j: int) -> bool:
        """Whether the crossing from index j to j + 1 itself belongs to j + 1."""
        parity = j if self.grid.step != 1 else self.grid.lo + j
        return self.ties == "up" or parity % 2 == 1

    def crossing(self, j: int) -> Fraction:
        """The real value between indices j and j + 1."""
        return self.scale * (self.grid.lo + self.grid.step * (j + HALF))

    def _rounded(self, value: Fraction) -> int:
        below = (value / self.scale - self.grid.lo) / self.grid.step
        j = math.floor(below)
        if below - j != HALF:
            j = math.floor(below + HALF)
        elif self.rises_on_the_tie(j):
            j += 1
        return min(max(j, 0), self.grid.levels - 1)

    @property
    def least(self) -> int:
        """The least index that a value can have."""
        return 0 if self.floor is None else self._rounded(self.floor)

    @property
    def most(self) -> int:
        """The greatest index that a value can have."""
        return self.grid.levels - 1 if self.ceiling is None else self._rounded(self.ceiling)

    def index(self, value: Fraction) -> int:
        """Index of ``value``; the definition that threshold tables reproduce."""
        return min(max(self._rounded(value), self.least), self.most)


def channel_thresholds(gain: Fraction, bias: Fraction, stairs: Staircase) -> list[int]:
    """Least integer X with index(gain·X + bias) ≥ j + 1, for j = 0 … levels − 2.

    Exact; requires gain > 0; takes no notice of floor and ceiling.
    """
    first = (stairs.crossing(0) - bias) / gain
    step = stairs.scale * stairs.grid.step / gain
    # One denominator for all levels: integers are far faster than one Fraction a level.
    below = math.lcm(first.denominator, step.denominator)
    above, rise = int(first * below), int(step * below)
    return [
        -(-(above + j * rise) // below)
        if stairs.rises_on_the_tie(j)
        else (above + j * rise) // below + 1
        for j in range(stairs.grid.levels - 1)
    ]


def oriented_thresholds(
    gain: Fraction, bias: Fraction, stairs: Staircase, *, lo: int, hi: int
) -> tuple[list[int], int]:
    """(table, sign) for one channel whose input lies in lo … hi.

    A negative gain is turned by sign = −1. A zero gain makes the constant index of ``bias``.
    Entries are clamped to [least, greatest + 1] of sign·X: the lower end always holds, the upper
    never.
    """
    count = stairs.grid.levels - 1
    if gain == 0:
        taken = stairs.index(bias)
        return [lo] * taken + [hi + 1] * (count - taken), 1
    sign = 1 if gain > 0 else -1
    least, most = (lo, hi) if sign == 1 else (-hi, -lo)
    table = [min(max(t, least), most + 1) for t in channel_thresholds(abs(gain), bias, stairs)]
    held, free = stairs.least, stairs.most
    return [least] * held + table[held:free] + [most + 1] * (count - free), sign


def threshold_table(
    gains: Sequence[Fraction],
    biases: Sequence[Fraction],
    stairs: Sequence[Staircase],
    *,
    lo: int,
    hi: int,
) -> tuple[IntArray, IntArray]:
    """Tables (C, levels − 1) and signs (C,) of all channels; ``stairs``: one a channel."""
    rows, signs = [], []
    computed: dict[tuple[Fraction, Fraction, Staircase], tuple[list[int], int]] = {}
    for key in zip(gains, biases, stairs, strict=True):
        if key not in computed:
            computed[key] = oriented_thresholds(*key, lo=lo, hi=hi)
        table, sign = computed[key]
        rows.append(table)
        signs.append(sign)
    return np.array(rows, dtype=np.int64), np.array(signs, dtype=np.int64)
