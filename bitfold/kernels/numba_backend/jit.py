"""Compilation of kernels with numba: the GIL is released, results are cached where possible."""

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar, cast

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]  # ships no types
from numba import njit, types
from numba.extending import intrinsic

P = ParamSpec("P")
R = TypeVar("R")


def jit(function: Callable[P, R]) -> Callable[P, R]:
    """``function`` compiled on its first call, for use by Python and by other kernels.

    Machine code is cached on disk; without a writable cache folder it is compiled per process.
    """
    try:
        compiled = njit(nogil=True, cache=True)(function)
    except RuntimeError:  # numba found no folder to cache in
        compiled = njit(nogil=True)(function)
    return cast("Callable[P, R]", compiled)


class Kernel:
    """A compiled kernel that Python calls; a cache that cannot be read or written is left aside."""

    def __init__(self, compiled: Callable[..., None]) -> None:
        self._run = compiled

    def __call__(self, *args: object) -> None:
        """Run on ``args``; compile first if this is the first call with such types."""
        try:
            self._run(*args)
        except (OSError, EOFError):  # disk full, no permission, or a damaged cache file
            self._run = njit(nogil=True)(cast("Any", self._run).py_func)
            self._run(*args)


def _count_ones_type(_typing: object, _word: object) -> tuple[object, object]:
    def emit(_context: object, builder: ir.IRBuilder, _signature: object, args: object) -> object:
        return cast("object", builder.ctpop(cast("list[ir.Value]", args)[0]))

    return types.uint64(types.uint64), emit


_count_ones = cast("Callable[[np.uint64], np.uint64]", intrinsic(_count_ones_type))


@jit
def popcount(word: np.uint64) -> int:
    """Number of ones in a 64-bit word."""
    return int(np.int64(_count_ones(word)))
