"""Integer matrices of Winograd's algorithm for three taps, and the ranges of what they make.

In one dimension, m outputs from m + 2 inputs x and three taps g:

    divisor · y = Aᵀ · (scale ∘ (G · g) ∘ (B · x))

Rows of G and B are free of common factors; ``scale`` holds what is left of them. A tile of m x n
outputs takes the outer product of two such algorithms.
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.steps import Int64Array

TAPS = 3


@dataclass(frozen=True, slots=True)
class Algorithm:
    """One dimension: ``b`` (t, t), ``g`` (t, 3), ``scale`` (t,), ``a`` (t, m), ``divisor``."""

    b: Int64Array
    g: Int64Array
    scale: Int64Array
    a: Int64Array
    divisor: int


def _matrix(*rows: tuple[int, ...]) -> Int64Array:
    return np.array(rows, dtype=np.int64)


# Points 0 1 -1 ∞, then 2, then -2.
ALGORITHMS = {
    2: Algorithm(
        b=_matrix((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, -1, 0, 1)),
        g=_matrix((1, 0, 0), (1, 1, 1), (1, -1, 1), (0, 0, 1)),
        scale=np.array((2, 1, 1, 2)),
        a=_matrix((1, 0), (1, 1), (1, -1), (0, 1)),
        divisor=2,
    ),
    3: Algorithm(
        b=_matrix((2, -1, -2, 1, 0), (0, -2, -1, 1, 0), (0, 2, -3, 1, 0), (0, -1, 0, 1, 0),
                  (0, 2, -1, -2, 1)),
        g=_matrix((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (0, 0, 1)),
        scale=np.array((3, -3, -1, 1, 6)),
        a=_matrix((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (0, 0, 1)),
        divisor=6,
    ),
    4: Algorithm(
        b=_matrix((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
                  (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1)),
        g=_matrix((1, 0, 0), (1, 1, 1), (1, -1, 1), (1, 2, 4), (1, -2, 4), (0, 0, 1)),
        scale=np.array((6, -2, -2, 1, 1, 6)),
        a=_matrix((1, 0, 0, 0), (2, 2, 2, 2), (2, -2, 2, -2), (1, 2, 4, 8), (1, -2, 4, -8),
                  (0, 0, 0, 4)),
        divisor=24,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Tile:
    """``rows`` x ``columns`` outputs at a time; arrays over positions are in row-major order."""

    rows: int
    columns: int

    @property
    def positions(self) -> int:
        """Products of one tile, one input channel and one output channel."""
        return (self.rows + TAPS - 1) * (self.columns + TAPS - 1)

    @property
    def divisor(self) -> int:
        """What the sums are multiples of."""
        return ALGORITHMS[self.rows].divisor * ALGORITHMS[self.columns].divisor

    @cached_property
    def scale(self) -> Int64Array:
        """Factor of every position, (positions,)."""
        return np.outer(ALGORITHMS[self.rows].scale, ALGORITHMS[self.columns].scale).reshape(-1)

    @cached_property
    def inputs(self) -> Int64Array:
        """Coefficients of the inputs, (positions, inputs of a tile)."""
        return np.kron(ALGORITHMS[self.rows].b, ALGORITHMS[self.columns].b)

    @cached_property
    def taps(self) -> Int64Array:
        """Coefficients of the nine weights, (positions, 9)."""
        return np.kron(ALGORITHMS[self.rows].g, ALGORITHMS[self.columns].g)

    def offsets(self, most: int) -> Int64Array:
        """What makes every transformed input of 0 … ``most`` unsigned, (positions,)."""
        offsets: Int64Array = -most * np.minimum(self.inputs, 0).sum(1)
        return offsets

    def widths(self, most: int) -> Int64Array:
        """Greatest transformed input with its offset, (positions,)."""
        widths: Int64Array = most * np.abs(self.inputs).sum(1)
        return widths

    def weight_range(self, lo: int, hi: int) -> tuple[Int64Array, Int64Array]:
        """Least and greatest transformed weight of weights ``lo`` … ``hi``, two (positions,)."""
        ends = np.stack((self.taps * lo, self.taps * hi))
        return ends.min(0).sum(1), ends.max(0).sum(1)

    def transform(self, weight: NDArray[np.int8]) -> NDArray[np.int16]:
        """Weights (O, 3, 3, C) → (positions, O, C). Float32 products of such integers are exact."""
        num_out, _, _, depth = weight.shape
        taps = np.moveaxis(weight.reshape(num_out, TAPS * TAPS, depth), 1, 0)
        flat = taps.reshape(TAPS * TAPS, -1).astype(np.float32)
        product = self.taps.astype(np.float32) @ flat
        return product.astype(np.int16).reshape(-1, num_out, depth)

    def count(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of tiles that cover an output of ``height`` x ``width``."""
        return math.ceil(height / self.rows), math.ceil(width / self.columns)


TILES = tuple(Tile(rows, columns) for rows in ALGORITHMS for columns in ALGORITHMS)
