"""Fixed-point multipliers for the residual stream, with their error bound (ADR 0006).

y = (M·X + B + 2^(n−1)) >> n,   M = rne(G·2^(F+n)),   B = rne(H·2^(F+n))
|y − 2^F·(G·X + H)| ≤ 1/2 + |X|max·2^−(n+1) + 2^−(n+1)          (arithmetic.md, eq. 9)
"""

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bitfold.errors import RangeError
from bitfold.ir import IntArray

MULTIPLIER_LIMIT = 2**31 - 1
OFFSET_LIMIT = 2**61
GUARD_BITS = 3
MAX_SHIFT = 40


@dataclass(frozen=True, slots=True)
class FixedPoint:
    """Multipliers and offsets (C,), their shift, and the error bound in units of the result."""

    multiplier: IntArray
    offset: IntArray
    shift: int
    error: float


def _fit(gain: Fraction, bias: Fraction, unit: int) -> bool:
    """Whether multiplier and offset fit: with them every product and sum fits int64."""
    return round(gain * unit) <= MULTIPLIER_LIMIT and round(bias * unit) <= OFFSET_LIMIT


def fixed_point(
    gains: Sequence[Fraction], biases: Sequence[Fraction], *, fraction_bits: int, largest: int
) -> FixedPoint:
    """Multipliers for inputs up to ``largest`` in magnitude and a result in units of 2^−F.

    The shift is the least for which the multiplier's rounding adds at most 1/16 of a unit, unless
    multiplier or offset would then leave its range: then it is the greatest that fits.
    """
    wanted = max(1, largest).bit_length() + GUARD_BITS
    steepest = max(abs(gain) for gain in gains)
    shift = min(wanted, MAX_SHIFT)
    farthest = max(abs(bias) for bias in biases)
    while shift and not _fit(steepest, farthest, 2 ** (fraction_bits + shift)):
        shift -= 1
    unit = 2 ** (fraction_bits + shift)
    if not _fit(steepest, farthest, unit):
        raise RangeError(
            f"a gain of {float(steepest):.4g} and a bias of {float(farthest):.4g} do not fit"
            f" 32 and 62 bits at 2^-{fraction_bits}"
        )
    multiplier = [round(gain * unit) for gain in gains]
    offset = [round(bias * unit) for bias in biases]
    rounding = 0.5 if shift else 0.0
    error = rounding + (largest + 1) / 2 ** (shift + 1)
    return FixedPoint(np.array(multiplier), np.array(offset), shift, error)
