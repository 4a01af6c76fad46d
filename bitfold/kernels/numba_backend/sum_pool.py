"""Window sum of codes or wide integers."""

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import Int32Array


@jit
def sum_pool(
    x: NDArray[np.uint8] | Int32Array,
    lo: int,
    step: int,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    out: Int32Array,
) -> None:
    """Out (OH, OW, C) = Σ over the window of lo + step·x; x (H, W, C)."""
    constant = lo * kernel[0] * kernel[1]
    for oy in range(out.shape[0]):
        for ox in range(out.shape[1]):
            for c in range(out.shape[2]):
                total = np.int64(0)
                for dy in range(kernel[0]):
                    for dx in range(kernel[1]):
                        total += np.int64(x[oy * stride[0] + dy, ox * stride[1] + dx, c])
                out[oy, ox, c] = constant + step * total
