"""Convolution and thresholds as one quantized convolution (docs/onnx.md, fused form).

index = clip(rint((factor·acc + bias)·scale), 0, L). A runtime may compute it in integers with one
float32 multiplication (ONNX Runtime's QLinearConv) or in float32 throughout, in any order. Both
are covered: either scale = m·2^−e with few enough bits that float32 holds every intermediate value
exactly, or a bound on all roundings is smaller than the distance to the next rounding boundary.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.export.onnx.affine import Float64, best_gain, is_canonical, offset_interval
from bitfold.ir import Accumulator, CodeTensor, Conv2d, IntArray, IntGraph, Thresholds

BoolArray = NDArray[np.bool_]

EXACT_FLOAT = 2**24
MAX_EXPONENT = 52
TINY = 2.0**-60
SLACK = 2.0**-48
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


def side_of(conv: Conv2d, x: CodeTensor) -> IntArray:
    """(O,) bound on the sum of any subset of each channel's products; code 0 is on x's grid."""
    flat = conv.weight.reshape(len(conv.weight), -1)
    ends = flat * x.lo, flat * x.hi
    most, least = np.maximum(*ends).sum(1), np.minimum(*ends).sum(1)
    return np.asarray(np.maximum(most, -least), dtype=np.int64)


def error_bound(form: Fused, side: IntArray, *, terms: int) -> Float64:
    """(O,) bound on |computed − exact| before rounding; 0 where float32 is exact, ∞ unknown.

    Roundings of float32, each at most 2^−24 of its result: scaled weights, products, every one of
    the ``terms`` additions (a partial sum never exceeds size·scale), and the scaled bias.
    """
    size = np.abs(form.factor) * side + np.abs(form.bias)
    if not ((form.scale > TINY) & (form.scale < 1)).all() or (size >= EXACT_FLOAT).any():
        return np.full(len(side), np.inf)
    mantissa, exponent = dyadic(form.scale)
    exact = (size * mantissa < EXACT_FLOAT) & (exponent <= MAX_EXPONENT)
    roundings = (terms + 8) * form.scale.astype(np.float64) * size / EXACT_FLOAT
    return np.where(exact, 0.0, roundings)


def _values(form: Fused, u: IntArray) -> Float64:
    """(factor·u + bias)·scale in float64 for u (O, L)."""
    integers = np.abs(form.factor)[:, None] * u + form.bias[:, None]
    return np.asarray(integers * form.scale.astype(np.float64)[:, None], dtype=np.float64)


def is_proven(form: Fused, table: IntArray, *, error: Float64, ends: tuple[int, int]) -> BoolArray:
    """(O,): whether ``form`` takes each step of ``table``, farther than ``error`` from a tie.

    ``ends``: the accumulator's proven range. Values ascend with u, so t_j − 1 and t_j decide.
    """
    low = np.where(form.factor > 0, ends[0], -ends[1])[:, None]
    high = np.where(form.factor > 0, ends[1], -ends[0])[:, None]
    halves = np.arange(1, table.shape[1] + 1) - 0.5
    taken, before = _values(form, table), _values(form, table - 1)
    room = error[:, None] + SLACK * (np.abs(taken) + np.abs(before) + halves)
    right = ((taken - halves > room) | (table > high)) & ((halves - before > room) | (table <= low))
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
    """The fused form of ``node`` and its convolution, proven equal; None without one."""
    conv = next(item for item in graph.nodes if item.name == node.x)
    if not is_fusable(graph, node) or not isinstance(conv, Conv2d):
        return None
    x, acc = graph.types[conv.x], graph.types[conv.name]
    assert isinstance(x, CodeTensor)
    assert isinstance(acc, Accumulator)
    gain, middle = np.zeros(len(node.table)), np.zeros(len(node.table))
    for sign, lo, hi in ((1, acc.lo, acc.hi), (-1, -acc.hi, -acc.lo)):
        rows = np.flatnonzero(node.sign == sign)
        if not is_canonical(node.table[rows], lo=lo, hi=hi):
            return None
        gain[rows] = best_gain(node.table[rows], lo=lo, hi=hi)
        least, first = offset_interval(gain[rows], node.table[rows], lo=lo, hi=hi)
        middle[rows] = (least + first) / 2 - 0.5
    found, side = np.zeros(len(gain), dtype=np.bool_), side_of(conv, x)
    best = Fused(node.sign, np.ones(len(gain), np.float32), np.zeros_like(node.sign))
    for form in _candidates(gain, middle, side, node=node, conv=conv):
        error = error_bound(form, side, terms=conv.weight[0].size)
        good = is_proven(form, node.table, error=error, ends=(acc.lo, acc.hi))
        best = _merged(best, form, good & ~found)
        found |= good
        if found.all():
            return best
    return None


def _candidates(
    gain: Float64, middle: Float64, side: IntArray, *, node: Thresholds, conv: Conv2d
) -> Iterator[Fused]:
    """Nearest scale and bias for each factor: with few bits, so that all is exact; then with 24."""
    most = MAX_WEIGHT // max(1, int(np.abs(conv.weight).max()))
    for factor in range(1, most + 1):
        ideal = gain / factor
        room = EXACT_FLOAT / (factor * side + np.abs(middle / ideal) + 1)
        exponent = np.clip(np.floor(np.log2(room / ideal)), 1, MAX_EXPONENT).astype(np.int64)
        mantissa = np.clip(np.round(np.ldexp(ideal, exponent)), 1, EXACT_FLOAT - 1)
        for real in (np.ldexp(mantissa, -exponent), ideal):
            scale = real.astype(np.float32)
            bias = np.clip(np.round(middle / scale), -EXACT_FLOAT, EXACT_FLOAT).astype(np.int64)
            yield Fused(factor * node.sign, scale, bias)


def _merged(best: Fused, form: Fused, use: BoolArray) -> Fused:
    return Fused(
        np.where(use, form.factor, best.factor),
        np.where(use, form.scale, best.scale).astype(np.float32),
        np.where(use, form.bias, best.bias),
    )


def fused_table(form: Fused, levels: int, *, lo: int, hi: int) -> IntArray:
    """The (O, levels − 1) table that ``form`` computes on accumulators lo … hi, by bisection."""
    sign = form.sign[:, None]
    halves = np.arange(1, levels) - 0.5
    shape = (len(sign), levels - 1)
    least = np.broadcast_to(np.where(sign > 0, lo, -hi), shape).astype(np.int64)
    most = np.broadcast_to(np.where(sign > 0, hi, -lo) + 1, shape).astype(np.int64)
    for _ in range(int(hi - lo + 2).bit_length()):
        middle = (least + most) >> 1
        taken, open_ = _values(form, middle) > halves, least < most
        most = np.where(open_ & taken, middle, most)
        least = np.where(open_ & ~taken, middle + 1, least)
    return least
