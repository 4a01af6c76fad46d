"""Rescale alone: integers or indices to wide integers."""

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.epilogue import Rule, rescaled
from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import Int32Array


@jit
def rescale_integers(
    x: NDArray[np.uint8] | Int32Array,
    rule: Rule,
    lo: int,
    step: int,
    add: Int32Array,
    out: Int32Array,
) -> None:
    """Out = the rule on lo + step·x, plus ``add`` where the rule adds; x and out (M, C)."""
    for m in range(x.shape[0]):
        for c in range(x.shape[1]):
            y = rescaled(lo + step * int(np.int64(x[m, c])), rule, c)
            if rule.has_add:
                y += add[m, c]
            out[m, c] = y
