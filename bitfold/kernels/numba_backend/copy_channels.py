"""Channels from one tensor to another: slices and concatenations."""

from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.jit import jit

T = TypeVar("T", np.uint8, np.int32)


@jit
def copy_channels(
    x: NDArray[T], out: NDArray[T], x_start: int, out_start: int, count: int, repeats: int
) -> None:
    """out[m, out_start + i·count + c] = x[m, x_start + c], c < count, i < repeats; (M, C) each."""
    for m in range(x.shape[0]):
        for i in range(repeats):
            for c in range(count):
                out[m, out_start + i * count + c] = x[m, x_start + c]
