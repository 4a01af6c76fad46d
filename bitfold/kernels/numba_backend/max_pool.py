"""Window maximum of indices or wide integers."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.jit import jit

T = TypeVar("T", np.uint8, np.int32)


@jit
def max_pool(
    x: NDArray[T],
    kernel: tuple[int, int],
    stride: tuple[int, int],
    start: tuple[int, int],
    out: NDArray[T],
) -> None:
    """Maximum of x (H, W, C) → out (OH, OW, C); ``start`` is (top, left) padding, which never wins.

    A window of nothing but padding gives 0, the least index.
    """
    height, width, depth = x.shape
    for oy in range(out.shape[0]):
        for ox in range(out.shape[1]):
            y0, x0 = oy * stride[0] - start[0], ox * stride[1] - start[1]
            for c in range(depth):
                best, empty = np.int64(0), True
                for iy in range(max(y0, 0), min(y0 + kernel[0], height)):
                    for ix in range(max(x0, 0), min(x0 + kernel[1], width)):
                        value = np.int64(x[iy, ix, c])
                        if empty or value > best:
                            best, empty = value, False
                out[oy, ox, c] = best
