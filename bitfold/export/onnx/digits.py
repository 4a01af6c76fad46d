"""Rescale products in 32 bits: operands in digits, so that no sum leaves int32 (docs/onnx.md).

y = (m·x + c) >> shift with x = Σ x_i·2^(k·i), m = Σ m_j·2^(k·j), c = Σ c_p·2^(k·p): all digits but
the last lie in 0 … 2^k − 1, the last carries the sign. Position p holds
S_p = Σ_{i+j=p} x_i·m_j + c_p + (S_{p−1} >> k); a plan proves every partial sum smaller than 2^31.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from bitfold.ir.types import INT32_MAX, IntArray

BASES = tuple(range(16, 7, -1))
MOST_DIGITS = 6


@dataclass(frozen=True, slots=True)
class ProductPlan:
    """Digits of x (a count), m and c (arrays (C,), least first), base 2^bits, and proven sizes.

    ``sizes[p]`` bounds |S_p|. ``shift`` is what the result is shifted by.
    """

    bits: int
    num_digits: int
    gains: tuple[IntArray, ...]
    offsets: tuple[IntArray, ...]
    sizes: tuple[int, ...]
    shift: int

    @property
    def first(self) -> int:
        """The position where the result begins: those below it only carry."""
        return min(self.shift // self.bits, len(self.sizes) - 1)

    @property
    def rest(self) -> int:
        """By how much position ``first`` is shifted."""
        return self.shift - self.bits * self.first


def digits_of(values: IntArray, *, bits: int, count: int) -> tuple[IntArray, ...]:
    """``count`` digits of base 2^bits, the last one signed."""
    low = [(values >> bits * i) & ((1 << bits) - 1) for i in range(count - 1)]
    return (*low, values >> bits * (count - 1))


def value_of(digits: Sequence[IntArray], *, bits: int) -> IntArray:
    """The integers that ``digits`` stand for."""
    return np.asarray(sum(digit << bits * i for i, digit in enumerate(digits)), dtype=np.int64)


def plan_product(
    gain: IntArray, offset: IntArray, *, shift: int, ends: tuple[int, int], most: int
) -> ProductPlan | None:
    """The plan of fewest products for x in ``ends`` and results up to ``most`` in size, if any.

    gain and offset are (C,); offset includes what rounds.
    """
    counts = sorted(product((1, 2, 3), (1, 2, 3), (0, 1)), key=lambda c: (c[0] * c[1], c))
    for of_x, of_gain, more in counts:
        for bits in BASES:
            positions = of_x + of_gain - 1 + more
            if positions > MOST_DIGITS or bits * (positions - 1) > 62:
                continue
            gains = digits_of(gain, bits=bits, count=of_gain)
            offsets = digits_of(offset, bits=bits, count=positions)
            sizes = _sizes(gains, offsets, bits=bits, of_x=of_x, ends=ends)
            plan = ProductPlan(bits, of_x, gains, offsets, sizes, shift)
            if max(sizes) <= INT32_MAX and _joins(plan, most):
                return plan
    return None


def affine_ends(
    gain: IntArray, offset: IntArray, *, shift: int, ends: tuple[int, int]
) -> tuple[int, int]:
    """Least and greatest (gain·x + offset) >> shift over all channels, for x in ``ends``."""
    pairs = list(zip(map(int, gain), map(int, offset), strict=True))
    values = [(m * x + c) >> shift for m, c in pairs for x in ends]
    return min(values), max(values)


def digit_ends(ends: tuple[int, int], *, bits: int, count: int) -> list[tuple[int, int]]:
    """Least and greatest value of each digit of an integer in ``ends``."""
    top = bits * (count - 1)
    return [(0, (1 << bits) - 1)] * (count - 1) + [(ends[0] >> top, ends[1] >> top)]


def _sizes(
    gains: tuple[IntArray, ...],
    offsets: tuple[IntArray, ...],
    *,
    bits: int,
    of_x: int,
    ends: tuple[int, int],
) -> tuple[int, ...]:
    """Bounds on Σ |terms| of each position, so that the order of additions does not matter."""
    sizes = [max(-lo, hi) for lo, hi in digit_ends(ends, bits=bits, count=of_x)]
    found: list[int] = []
    carry = 0
    for position, offset in enumerate(offsets):
        total = sum(
            sizes[i] * int(np.abs(gains[position - i]).max())
            for i in range(of_x)
            if 0 <= position - i < len(gains)
        )
        total += int(np.abs(offset).max()) + carry
        found.append(total)
        carry = (total >> bits) + 1
    return tuple(found)


def _joins(plan: ProductPlan, most: int) -> bool:
    """Whether the digits from ``first`` on can be put together inside int32."""
    above = len(plan.sizes) - 1 - plan.first
    if not above:
        return True
    steps = plan.bits * above - plan.rest
    return plan.rest < plan.bits and steps <= 30 and most + (1 << steps) <= INT32_MAX
