"""Elementwise sum of wide tensors."""

from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import Int32Array


@jit
def add_integers(a: Int32Array, b: Int32Array, out: Int32Array) -> None:
    """Out = a + b, all flat."""
    for i in range(out.size):
        out[i] = a[i] + b[i]
