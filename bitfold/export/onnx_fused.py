"""Convolution and thresholds as one quantized convolution (docs/onnx.md, fused form).

index = clip(rint((factor·acc + bias)·scale), 0, L) with scale = m·2^−e. The numbers are chosen so
that (|factor|·Σ|code·w| + |bias|)·m < 2^24: then float32 holds every intermediate value exactly,
whether a runtime fuses the nodes into an integer kernel or runs them in floating point.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.export.onnx_affine import best_gain, is_canonical, offset_interval
from bitfold.ir import Accumulator, CodeTensor, Conv2d, IntArray, IntGraph, Thresholds

EXACT_FLOAT = 2**24
MAX_EXPONENT = 52
MAX_WEIGHT = 127
MAX_BITS = 4


@dataclass(frozen=True, slots=True)
class Fused:
    """Per output channel: what weights are multiplied by (with the sign), scale, and bias."""

    factor: IntArray
    scale: NDArray[np.float32]
    bias: IntArray

    @property
    def sign(self) -> IntArray:
        """(C,) of ±1."""
        return np.where(self.factor < 0, -1, 1).astype(np.int64)


def dyadic(scale: NDArray[np.float32]) -> tuple[IntArray, IntArray]:
    """(m, e) with scale = m·2^−e and m odd."""
    fraction, exponent = np.frexp(scale.astype(np.float64))
    mantissa = (fraction * EXACT_FLOAT).astype(np.int64)
    zeros = np.log2((mantissa & -mantissa).astype(np.float64)).astype(np.int64)
    return mantissa >> zeros, 24 - exponent.astype(np.int64) - zeros


def reach_of(conv: Conv2d, x: CodeTensor) -> IntArray:
    """(O,) bound on every partial sum of each channel's products."""
    sums = np.abs(conv.weight.reshape(len(conv.weight), -1)).sum(1)
    return np.asarray(sums * max(abs(x.lo), abs(x.hi)), dtype=np.int64)


def is_exact(form: Fused, reach: IntArray) -> NDArray[np.bool_]:
    """(O,): whether float32 holds all intermediate values of each channel."""
    if not ((form.scale > 0) & (form.scale < 1)).all():
        return np.zeros(len(reach), dtype=np.bool_)
    mantissa, exponent = dyadic(form.scale)
    size = (np.abs(form.factor) * reach + np.abs(form.bias)) * mantissa
    return np.asarray((size < EXACT_FLOAT) & (exponent <= MAX_EXPONENT), dtype=np.bool_)


def _is_taken(form: Fused, u: IntArray, steps: IntArray) -> NDArray[np.bool_]:
    """Whether rint(value at u) ≥ step, both (O, L): value > step − 1/2, in integers."""
    mantissa, exponent = dyadic(form.scale)
    value = (np.abs(form.factor)[:, None] * u + form.bias[:, None]) * mantissa[:, None]
    return np.asarray(2 * value > ((2 * steps - 1) << exponent[:, None]), dtype=np.bool_)


def _equals_table(form: Fused, table: IntArray, *, low: IntArray, high: IntArray) -> NDArray[np.bool_]:
    """(O,): whether ``form`` takes each step of ``table`` at its place, and never sits on a tie."""
    mantissa, exponent = dyadic(form.scale)
    steps = np.arange(1, table.shape[1] + 1, dtype=np.int64)[None]
    halves = (2 * steps - 1) << exponent[:, None]
    factor, bias, m = np.abs(form.factor)[:, None], form.bias[:, None], mantissa[:, None]
    taken = 2 * (factor * table + bias) * m > halves
    before = 2 * (factor * (table - 1) + bias) * m < halves
    right = (taken | (table > high[:, None])) & (before | (table <= low[:, None]))
    return np.asarray(right.all(1), dtype=np.bool_)


def is_fusable(graph: IntGraph, node: Thresholds) -> bool:
    """Whether ``node`` and the convolution it alone reads are narrow enough for the fused form."""
    conv = next(item for item in graph.nodes if item.name == node.x)
    if not isinstance(conv, Conv2d) or len(graph.consumers(conv.name)) != 1 or conv.bias.any():
        return False
    x = graph.types[conv.x]
    narrow = conv.weight_grid.bits <= MAX_BITS and node.grid.bits <= MAX_BITS
    narrow = narrow and isinstance(x, CodeTensor) and x.grid.bits <= MAX_BITS
    return narrow and isinstance(x, CodeTensor) and x.grid.step == 1 and -255 <= x.lo <= 0


def fit_fused(graph: IntGraph, node: Thresholds) -> Fused | None:
    """The fused form of ``node`` and its convolution, proven equal and exact; None without one."""
    conv = next(item for item in graph.nodes if item.name == node.x)
    if not is_fusable(graph, node) or not isinstance(conv, Conv2d):
        return None
    x, acc = graph.types[conv.x], graph.types[conv.name]
    assert isinstance(x, CodeTensor)
    assert isinstance(acc, Accumulator)
    low, high = (np.where(node.sign > 0, a, b) for a, b in ((acc.lo, -acc.hi), (acc.hi, -acc.lo)))
    gain, middle = np.zeros(len(node.table)), np.zeros(len(node.table))
    for sign, lo, hi in ((1, acc.lo, acc.hi), (-1, -acc.hi, -acc.lo)):
        rows = np.flatnonzero(node.sign == sign)
        if not is_canonical(node.table[rows], lo=lo, hi=hi):
            return None
        gain[rows] = best_gain(node.table[rows], lo=lo, hi=hi)
        least, first = offset_interval(gain[rows], node.table[rows], lo=lo, hi=hi)
        middle[rows] = (least + first) / 2 - 0.5
    reach, found = reach_of(conv, x), np.zeros(len(gain), dtype=np.bool_)
    best = Fused(np.zeros_like(reach), np.zeros(len(gain), np.float32), np.zeros_like(reach))
    most = MAX_WEIGHT // max(1, int(np.abs(conv.weight).max()))
    for factor in range(1, most + 1):
        form = _candidate(gain, middle, reach, factor=factor)
        good = is_exact(form, reach) & _equals_table(form, node.table, low=low, high=high)
        best = _merged(best, form, good & ~found)
        found |= good
        if found.all():
            return Fused(best.factor * node.sign, best.scale, best.bias)
    return None


def _candidate(gain: NDArray[np.float64], middle: NDArray[np.float64], reach: IntArray, *, factor: int) -> Fused:
    """Nearest dyadic scale with as long a mantissa as exactness allows, and the nearest bias."""
    ideal = gain / factor
    room = EXACT_FLOAT / (factor * reach + np.abs(middle / ideal) + 1)
    exponent = np.clip(np.floor(np.log2(room / ideal)), 1, MAX_EXPONENT)
    mantissa = np.clip(np.round(np.ldexp(ideal, exponent.astype(np.int64))), 1, EXACT_FLOAT - 1)
    scale = np.ldexp(mantissa, -exponent.astype(np.int64)).astype(np.float32)
    bias = np.clip(np.round(middle / scale), -EXACT_FLOAT, EXACT_FLOAT).astype(np.int64)
    return Fused(np.full(len(gain), factor, dtype=np.int64), scale, bias)


def _merged(best: Fused, form: Fused, use: NDArray[np.bool_]) -> Fused:
    return Fused(
        np.where(use, form.factor, best.factor),
        np.where(use, form.scale, best.scale).astype(np.float32),
        np.where(use, form.bias, best.bias),
    )


def fused_table(form: Fused, levels: int, *, lo: int, hi: int) -> IntArray:
    """The (O, levels − 1) table that ``form`` computes on accumulators lo … hi, by bisection."""
    sign = form.sign[:, None]
    steps = np.arange(1, levels, dtype=np.int64)[None]
    shape = (len(sign), levels - 1)
    least = np.broadcast_to(np.where(sign > 0, lo, -hi), shape).astype(np.int64)
    most = np.broadcast_to(np.where(sign > 0, hi, -lo) + 1, shape).astype(np.int64)
    for _ in range(int(hi - lo + 2).bit_length()):
        middle = (least + most) >> 1
        taken, open_ = _is_taken(form, middle, steps), least < most
        most = np.where(open_ & taken, middle, most)
        least = np.where(open_ & ~taken, middle + 1, least)
    return least
