"""Grids: the integers a code may take (arithmetic.md, eq. 1; ADR 0002)."""

from dataclasses import dataclass
from typing import Self


@dataclass(frozen=True, slots=True)
class Grid:
    """The codes ``lo, lo + step, …, hi``; real value = scale · code, and there is no zero point.

    The *index* of a code is ``(code − lo) / step``, an unsigned number below ``levels``: it is
    what gets packed.
    """

    lo: int
    hi: int
    step: int = 1

    def __post_init__(self) -> None:
        """Reject a grid that is empty or whose ends are not a whole number of steps apart."""
        if self.step < 1 or self.hi < self.lo or (self.hi - self.lo) % self.step:
            raise ValueError(f"not a grid: lo={self.lo}, hi={self.hi}, step={self.step}")

    @classmethod
    def unsigned(cls, bits: int) -> Self:
        """0 … 2^bits − 1."""
        return cls(0, 2**bits - 1)

    @classmethod
    def narrow(cls, bits: int) -> Self:
        """−(2^(bits−1) − 1) … 2^(bits−1) − 1: symmetric, with a zero."""
        return cls(1 - 2 ** (bits - 1), 2 ** (bits - 1) - 1)

    @classmethod
    def odd(cls, bits: int) -> Self:
        """±1, ±3, …, ±(2^bits − 1): mid-rise, without a zero."""
        return cls(1 - 2**bits, 2**bits - 1, 2)

    @classmethod
    def pixels(cls, mean: int) -> Self:
        """Pixel − mean for pixels 0 … 255: the index is the raw pixel."""
        return cls(-mean, 255 - mean)

    @property
    def levels(self) -> int:
        """Number of codes."""
        return (self.hi - self.lo) // self.step + 1

    @property
    def bits(self) -> int:
        """Bits of an index: the least b ≥ 1 with levels ≤ 2^b."""
        return max(1, (self.levels - 1).bit_length())

    @property
    def has_zero(self) -> bool:
        """Whether code 0 is on the grid."""
        return self.lo <= 0 <= self.hi and self.lo % self.step == 0

    @property
    def zero_index(self) -> int:
        """Index of code 0; padding is filled with it. Raises ValueError where 0 is not a code."""
        if not self.has_zero:
            raise ValueError(f"{self} has no code 0")
        return -self.lo // self.step

    def __str__(self) -> str:
        """``lo:hi`` or ``lo:hi:step``."""
        return f"{self.lo}:{self.hi}" + (f":{self.step}" if self.step != 1 else "")
