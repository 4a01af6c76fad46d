"""What happens to accumulators before they are stored: thresholds, rescale and add, or nothing."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from bitfold.kernels.numba_backend.jit import jit
from bitfold.kernels.steps import (
    Epilogue,
    Int32Array,
    Int64Array,
    ToAccumulators,
    ToIndices,
    ToWide,
)

MODE_ACCUMULATORS, MODE_INDICES, MODE_WIDE = 0, 1, 2
LINEAR_SEARCH_ENTRIES = 16


class Rule(NamedTuple):
    """An epilogue as kernels take it: one type for all modes, unused arrays empty."""

    mode: int
    table: Int32Array  # (O, L)
    sign: Int32Array  # (O,)
    multiplier: Int64Array  # (O,)
    offset: Int64Array  # (O,)
    shift: int
    negative_multiplier: Int64Array  # (O,), or (0,) for none
    negative_shift: int
    has_add: int


def bind_epilogue(epilogue: Epilogue) -> Rule:
    """The rule of a step's epilogue, with arrays of its own."""
    empty32, empty64 = np.empty(0, np.int32), np.empty(0, np.int64)
    table = np.empty((0, 0), np.int32)
    match epilogue:
        case ToAccumulators():
            return Rule(MODE_ACCUMULATORS, table, empty32, empty64, empty64, 0, empty64, 0, 0)
        case ToIndices():
            return Rule(
                MODE_INDICES,
                np.array(epilogue.table, np.int32, order="C"),
                np.array(epilogue.sign, np.int32),
                empty64,
                empty64,
                0,
                empty64,
                0,
                0,
            )
        case ToWide():
            negative = epilogue.negative_multiplier
            return Rule(
                MODE_WIDE,
                table,
                empty32,
                np.array(epilogue.multiplier, np.int64),
                np.array(epilogue.offset, np.int64),
                epilogue.shift,
                empty64 if negative is None else np.array(negative, np.int64),
                epilogue.negative_shift,
                int(epilogue.add is not None),
            )


@jit
def count_taken(row: Int32Array, value: int) -> int:
    """#{j : row[j] ≤ value} of an ascending row."""
    if row.size <= LINEAR_SEARCH_ENTRIES:
        taken = 0
        for j in range(row.size):
            taken += row[j] <= value
        return taken
    low, high = 0, row.size
    while low < high:
        middle = (low + high) >> 1
        if row[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@jit
def shift_half_up(value: int, shift: int) -> int:
    """(value + 2^(shift−1)) >> shift, floor; a shift of 0 adds no half."""
    if shift == 0:
        return value
    return (value + (1 << (shift - 1))) >> shift


@jit
def rescaled(value: int, rule: Rule, channel: int) -> int:
    """``value`` of one channel by the multiplier, offset and shift of ``rule``; 64-bit products."""
    y = shift_half_up(rule.multiplier[channel] * value + rule.offset[channel], rule.shift)
    if y < 0 and rule.negative_multiplier.size > 0:
        y = shift_half_up(rule.negative_multiplier[channel] * y, rule.negative_shift)
    return y


@jit
def finish(
    acc: Int32Array,
    rule: Rule,
    add: Int32Array,
    out_indices: NDArray[np.uint8],
    out_integers: Int32Array,
) -> None:
    """Apply ``rule`` to acc (M, O); the result goes to the one output that its mode fills.

    ``add`` is (M, O) where the rule adds, else empty.
    """
    for m in range(acc.shape[0]):
        for o in range(acc.shape[1]):
            value = int(np.int64(acc[m, o]))
            if rule.mode == MODE_INDICES:
                out_indices[m, o] = count_taken(rule.table[o], rule.sign[o] * value)
            elif rule.mode == MODE_WIDE:
                y = rescaled(value, rule, o)
                if rule.has_add:
                    y += add[m, o]
                out_integers[m, o] = y
            else:
                out_integers[m, o] = acc[m, o]


@jit
def store_row(
    oy: int,
    acc: Int32Array,
    rule: Rule,
    add: Int32Array,
    out_indices: NDArray[np.uint8],
    out_integers: Int32Array,
) -> None:
    """``finish`` for image row oy: acc (OW, O), the others (OH, OW, O), (1, 0, 0) if unused."""
    finish(
        acc,
        rule,
        add[oy % add.shape[0]],
        out_indices[oy % out_indices.shape[0]],
        out_integers[oy % out_integers.shape[0]],
    )
