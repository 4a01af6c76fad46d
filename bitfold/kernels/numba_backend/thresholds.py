"""Thresholds alone: integers to indices."""

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.epilogue import Rule, count_taken
from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import Int32Array


@jit
def take_thresholds(x: Int32Array, rule: Rule, out: NDArray[np.uint8]) -> None:
    """out[m, c] = #{j : table[c, j] ≤ sign[c]·x[m, c]}; x and out (M, C)."""
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[m, c] = count_taken(rule.table[c], rule.sign[c] * np.int64(x[m, c]))
