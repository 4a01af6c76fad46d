"""Tensor types: what an integer tensor holds, without its batch dimension.

Shapes are (H, W, C) for images and (C,) for vectors. A scale is the real value of integer 1.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.ir.grid import Grid

IntArray = NDArray[np.int64]
Shape = tuple[int, ...]
Scales = tuple[float, ...]

INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


@dataclass(frozen=True, slots=True)
class CodeTensor:
    """Codes on a grid of at most 256 levels; one scale for the tensor."""

    shape: Shape
    grid: Grid
    scale: float

    @property
    def lo(self) -> int:
        """Least code."""
        return self.grid.lo

    @property
    def hi(self) -> int:
        """Greatest code."""
        return self.grid.hi


@dataclass(frozen=True, slots=True)
class Accumulator:
    """Integer sums of products, proven to lie in lo … hi; scales: one, or one a channel."""

    shape: Shape
    lo: int
    hi: int
    scales: Scales


@dataclass(frozen=True, slots=True)
class WideTensor:
    """Fixed-point residual stream (ADR 0006), every value proven to lie in lo … hi; one scale."""

    shape: Shape
    lo: int
    hi: int
    scale: float


@dataclass(frozen=True, slots=True)
class FloatTensor:
    """float32 results behind ``Dequantize``."""

    shape: Shape


TensorType = CodeTensor | Accumulator | WideTensor | FloatTensor


def signed_bits(lo: int, hi: int) -> int:
    """Bits of the least two's-complement integer that holds lo … hi."""
    return max((-lo - 1).bit_length() if lo < 0 else 0, hi.bit_length() if hi > 0 else 0) + 1
