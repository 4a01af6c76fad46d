"""Threshold tables as straight lines: index = (clamp(acc) · slope + intercept) >> shift.

Thresholds that come from an affine map and rounding lie close to a line, so one multiplication
replaces a comparison for each of them. A line is used only where it is proven equal to its table:
it rises with acc, so it is enough that it is right on both sides of every threshold.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Int64Array = NDArray[np.int64]

SHORT_BITS, LONG_BITS, SLOPE_BITS = 31, 62, 31


@dataclass(frozen=True, slots=True)
class Line:
    """index = (min(max(acc, low), high) · slope + intercept) >> shift, the sum below 2^62."""

    low: int
    high: int
    slope: int
    intercept: int
    shift: int

    def negated(self) -> "Line":
        """The line that takes −acc."""
        return Line(-self.high, -self.low, -self.slope, self.intercept, self.shift)


def fit_line(table: Int64Array, *, lo: int, hi: int, sum_bits: int) -> Line | None:
    """The line equal to #{j : table[j] ≤ acc} for all acc in lo … hi, or None where there is none.

    ``table`` (L,) ascends. The sum stays in 0 … 2^sum_bits − 1, the slope below 2^31.
    """
    always = int((table <= lo).sum())
    active = table[(table > lo) & (table <= hi)]
    last = always + len(active)
    shift = sum_bits - (last + 1).bit_length()
    if not len(active):
        return Line(lo, lo, 0, always << shift, shift)
    base = int(active[0]) - 1
    # The line must reach rank · 2^shift at every floor, and stay below it at every ceiling.
    ranks = np.arange(always, last + 2, dtype=np.int64)
    floors = np.concatenate(([0], active - base))
    ceilings = np.concatenate((active - base - 1, [active[-1] - base]))
    span = _slopes(floors, ranks[:-1], ceilings, ranks[1:], shift)
    excess = max(0, (sum(span) // 2).bit_length() - SLOPE_BITS)
    if excess:
        shift -= excess
        span = _slopes(floors, ranks[:-1], ceilings, ranks[1:], shift)
    slope = sum(span) // 2
    if span[0] > span[1] or slope.bit_length() > SLOPE_BITS:
        return None
    least = int(((ranks[:-1] << shift) - slope * floors).max())
    most = int(((ranks[1:] << shift) - slope * ceilings).min()) - 1
    if least > most:
        return None
    intercept = (least + most) // 2 - slope * base
    return Line(base, int(active[-1]), slope, intercept, shift)


def _slopes(
    floors: Int64Array,
    floor_ranks: Int64Array,
    ceilings: Int64Array,
    ceiling_ranks: Int64Array,
    shift: int,
) -> tuple[int, int]:
    """Least and greatest slope with an intercept; empty where least > greatest.

    From floor i and ceiling j: slope · (ceiling_j − floor_i) ≤ (rank_j − rank_i) · 2^shift − 1.
    """
    run = ceilings[None, :] - floors[:, None]
    rise = ((ceiling_ranks[None, :] - floor_ranks[:, None]) << shift) - 1
    if bool(((run == 0) & (rise < 0)).any()):
        return 1, 0
    most = (rise[run > 0] // run[run > 0]).min(initial=2**LONG_BITS)
    least = (-(rise[run < 0] // -run[run < 0])).max(initial=0)
    return int(least), int(most)
