"""Integers to float32 results."""

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import Int32Array


@jit
def dequantize(x: Int32Array, scale: NDArray[np.float32], out: NDArray[np.float32]) -> None:
    """out[m, c] = float32(x[m, c]) · scale[c], one float32 product; x and out (M, C)."""
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            out[m, c] = np.float32(x[m, c]) * scale[c]
