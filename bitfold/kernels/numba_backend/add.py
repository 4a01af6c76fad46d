"""Elementwise sum of wide tensors."""

from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import Int32Array


@jit
def add_integers(a: Int32Array, b: Int32Array, out: Int32Array, a_start: int, b_start: int) -> None:
    """out[m, c] = a[m, a_start + c] + b[m, b_start + c]; (M, C) each."""
    for m in range(out.shape[0]):
        for c in range(out.shape[1]):
            out[m, c] = a[m, a_start + c] + b[m, b_start + c]
