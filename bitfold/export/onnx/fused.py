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

    ``ends``: the accumulator's proven range.
    """
    taken, before = step_sides(form, table, error=error, ends=ends)
    return np.asarray((taken & before).all(1), dtype=np.bool_)


def step_sides(
    form: Fused, table: IntArray, *, error: Float64, ends: tuple[int, int]
) -> tuple[BoolArray, BoolArray]:
    """(O, L): whether ``form`` has risen at t_j, and has not at t_j − 1, clear of any rounding.

    Values ascend with u, so these integers decide about all.
    """
    low = np.where(form.factor > 0, ends[0], -ends[1])[:, None]
    high = np.where(form.factor > 0, ends[1], -ends[0])[:, None]
    halves = np.arange(1, table.shape[1] + 1) - 0.5
    taken, before = _values(form, table), _values(form, table - 1)
    room = error[:, None] + SLACK * (np.abs(taken) + np.abs(before) + halves)
    return (
        np.asarray((taken - halves > room) | (table > high)),
        np.asarray((halves - before > room) | (table <= low)),
    )


@dataclass(frozen=True, slots=True)
class NotFused:
    """Why a convolution and its thresholds take the exact form.

    ``channel`` and ``accumulator`` name the first pair whose code no scale and bias kept away from
    float32 rounding; both are None where the layer has no fused form at all.
    """

    why: str
    channel: int | None = None
    accumulator: int | None = None


@dataclass(frozen=True, slots=True)
class Fitted:
    """A proven fused form, and the natural one that it stands for.

    ``natural`` (C,) is the thresholds' own slope as float32; ``tied`` lists (channel, accumulator)
    where that scale leaves float32 rounding a say, so that it had to be nudged: the first
    accumulator of each such channel. ``bound`` (C,) is 0 where no float32 rounding happens at all.
    """

    form: Fused
    natural: NDArray[np.float32]
    tied: tuple[tuple[int, int], ...]
    bound: Float64

    @property
    def exported(self) -> NDArray[np.float64]:
        """(C,) what one accumulator counts in the file: its scale times its factor."""
        return np.asarray(np.abs(self.form.factor) * self.form.scale.astype(np.float64))

    @property
    def nudged(self) -> IntArray:
        """Channels whose exported scale is not the natural one."""
        return np.flatnonzero(self.exported != self.natural)


def refusal(graph: IntGraph, node: Thresholds) -> str | None:
    """Why ``node`` and what it reads have no fused form; None where one may exist."""
    conv = next(item for item in graph.nodes if item.name == node.x)
    if not isinstance(conv, Conv2d):
        return "the thresholds read no convolution"
    if len(graph.consumers(conv.name)) != 1:
        return "the accumulators have other readers"
    if conv.bias.any():
        return "the accumulators have a bias of their own"
    x = graph.types[conv.x]
    assert isinstance(x, CodeTensor)
    for what, bits in (
        ("weights", conv.weight_grid.bits), ("codes", x.grid.bits), ("results", node.grid.bits)
    ):  # fmt: skip
        if bits > MAX_BITS:
            return f"{what} have {bits} bits: 8-bit kernels may saturate beyond {MAX_BITS}"
    if x.grid.step != 1 or not -255 <= x.lo <= 0:
        return f"codes {x.grid} have no zero point in uint8"
    return None


def fit_fused(graph: IntGraph, node: Thresholds) -> Fitted | NotFused:
    """The fused form of ``node`` and its convolution, proven equal; else why there is none."""
    if (why := refusal(graph, node)) is not None:
        return NotFused(why)
    conv = next(item for item in graph.nodes if item.name == node.x)
    assert isinstance(conv, Conv2d)
    x, acc = graph.types[conv.x], graph.types[conv.name]
    assert isinstance(x, CodeTensor)
    assert isinstance(acc, Accumulator)
    gain, middle = np.zeros(len(node.table)), np.zeros(len(node.table))
    for sign, lo, hi in ((1, acc.lo, acc.hi), (-1, -acc.hi, -acc.lo)):
        rows = np.flatnonzero(node.sign == sign)
        if not is_canonical(node.table[rows], lo=lo, hi=hi):
            return NotFused("thresholds beyond the accumulator's range")
        gain[rows] = best_gain(node.table[rows], lo=lo, hi=hi)
        least, first = offset_interval(gain[rows], node.table[rows], lo=lo, hi=hi)
        middle[rows] = (least + first) / 2 - 0.5
    return _searched(gain, middle, side_of(conv, x), node=node, conv=conv, ends=(acc.lo, acc.hi))


def _searched(
    gain: Float64,
    middle: Float64,
    side: IntArray,
    *,
    node: Thresholds,
    conv: Conv2d,
    ends: tuple[int, int],
) -> Fitted | NotFused:
    """The first candidate of each channel that is proven."""
    found, terms = np.zeros(len(gain), dtype=np.bool_), conv.weight[0].size
    best, bound = Fused(node.sign, np.ones(len(gain), np.float32), 0 * node.sign), 0 * gain
    natural = _natural(gain, middle, node.sign)
    error = error_bound(natural, side, terms=terms)
    tied = _unproven(natural, node.table, error=error, ends=ends)
    for form in _candidates(gain, middle, side, node=node, conv=conv):
        error = error_bound(form, side, terms=terms)
        good = is_proven(form, node.table, error=error, ends=ends)
        best = _merged(best, form, good & ~found)
        bound = np.where(good & ~found, error, bound)
        found |= good
        if found.all():
            return Fitted(best, natural.scale, tuple(tied.items()), bound)
    channel = int(np.flatnonzero(~found)[0])
    return NotFused(
        "no scale and bias keep it away from float32 rounding", channel, tied.get(channel)
    )


def _natural(gain: Float64, middle: Float64, sign: IntArray) -> Fused:
    """The slope of the thresholds and the nearest bias, without a factor and without a search."""
    scale = gain.astype(np.float32)
    bias = np.clip(np.round(middle / scale), -EXACT_FLOAT, EXACT_FLOAT).astype(np.int64)
    return Fused(sign, scale, bias)


def _unproven(
    form: Fused, table: IntArray, *, error: Float64, ends: tuple[int, int]
) -> dict[int, int]:
    """Channel → the first accumulator that ``form`` may round to another code."""
    found = {}
    taken, before = step_sides(form, table, error=error, ends=ends)
    for channel in np.flatnonzero(~(taken & before).all(1)):
        level = int(np.flatnonzero(~(taken & before)[channel])[0])
        u = table[channel, level] - int(taken[channel, level])
        found[int(channel)] = int(np.sign(form.factor[channel]) * u)
    return found


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
