"""Threshold tables against what they stand for, for every integer that can reach them.

A table decides (integer, channel) pairs. Up to ``MOST_PAIRS`` of a layer they are enumerated: the
index by the table, and the index by the definition. Beyond that both sides of every threshold are
evaluated: definition and table are monotone, so these decide about all pairs.
"""

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

import numpy as np

from bitfold.export.lowering import Decision
from bitfold.export.thresholds import Staircase
from bitfold.ir import Accumulator, FloatTensor, IntArray, IntGraph, Thresholds

Method = Literal["enumerated", "both sides of each threshold"]
Evaluate = Callable[[int, IntArray], IntArray]

MOST_PAIRS = 1 << 22
# Of the terms of the float64 evaluation, which rounds each to 2^-53: closer ones are decided by
# exact rationals.
NEAR = 2.0**-46


@dataclass(frozen=True, slots=True)
class WrongIndex:
    """A pair that is decided otherwise: index ``got``, where ``want`` is the table's."""

    channel: int
    integer: int
    got: int
    want: int


@dataclass(frozen=True, slots=True)
class RequantCheck:
    """One layer's table compared with ``against`` on ``pairs`` pairs, integers lo … hi.

    ``pairs`` counts every pair that is decided, ``evaluated`` those that were computed.
    """

    name: str
    against: str
    is_accumulator: bool
    lo: int
    hi: int
    channels: int
    pairs: int
    method: Method
    evaluated: int
    mismatches: int
    max_abs_diff: int
    first: WrongIndex | None


def check_table(
    graph: IntGraph, node: Thresholds, against: str, evaluate: Evaluate
) -> RequantCheck:
    """Compare ``node``'s table with ``evaluate(channel, integers)``, which must be monotone."""
    kind = graph.types[node.x]
    assert not isinstance(kind, FloatTensor)
    pairs = (kind.hi - kind.lo + 1) * len(node.table)
    is_all = pairs <= MOST_PAIRS
    everything = np.arange(kind.lo, kind.hi + 1) if is_all else None
    evaluated = mismatches = largest = 0
    first = None
    for channel in range(len(node.table)):
        x = everything if everything is not None else _sides(node, channel, kind.lo, kind.hi)
        want = np.searchsorted(node.table[channel], node.sign[channel] * x, side="right")
        got = evaluate(channel, x)
        wrong = np.flatnonzero(got != want)
        evaluated, mismatches = evaluated + len(x), mismatches + len(wrong)
        largest = max(largest, int(np.abs(got - want).max()))
        if len(wrong) and first is None:
            at = wrong[0]
            first = WrongIndex(channel, int(x[at]), int(got[at]), int(want[at]))
    method: Method = "enumerated" if is_all else "both sides of each threshold"
    return RequantCheck(
        node.name, against, isinstance(kind, Accumulator), kind.lo, kind.hi, len(node.table),
        pairs, method, evaluated, mismatches, largest, first,
    )  # fmt: skip


def _sides(node: Thresholds, channel: int, lo: int, hi: int) -> IntArray:
    """The integers at and in front of each threshold, and both ends."""
    at = node.sign[channel] * np.concatenate([node.table[channel], node.table[channel] - 1])
    return np.unique(np.concatenate([at, [lo, hi]]).clip(lo, hi))


def check_decisions(graph: IntGraph, decisions: tuple[Decision, ...]) -> tuple[RequantCheck, ...]:
    """Every table that has a decision of the fold against it, in exact rationals."""
    known = {decision.name: decision for decision in decisions}
    return tuple(
        check_table(
            graph, node, "exact rationals of the trained network", _exactly(known[node.name])
        )
        for node in graph.nodes
        if isinstance(node, Thresholds) and node.name in known
    )


def _exactly(decision: Decision) -> Evaluate:
    def evaluate(channel: int, x: IntArray) -> IntArray:
        return exact_indices(
            decision.gain[channel], decision.bias[channel], decision.stairs[channel], x
        )

    return evaluate


def exact_indices(gain: Fraction, bias: Fraction, stairs: Staircase, x: IntArray) -> IntArray:
    """Index of gain·x + bias for every integer: float64 where that is safe, else exactly.

    Safe is farther from a crossing than the rounding of float64 can move the value.
    """
    unit = float(stairs.scale * stairs.grid.step)
    product = np.float64(float(gain / (stairs.scale * stairs.grid.step))) * x
    shift = float(bias) / unit - stairs.grid.lo / stairs.grid.step + 0.5
    position = product + shift
    size = np.abs(product) + abs(float(bias) / unit) + abs(stairs.grid.lo) + 1
    levels = stairs.grid.levels
    index = np.floor(position.clip(-1, levels)).astype(np.int64)
    crossing = np.rint(position)
    is_near = np.abs(position - crossing) <= NEAR * size
    is_near &= (crossing >= 1) & (crossing <= levels - 1)
    for i in np.flatnonzero(is_near):
        index[i] = stairs.index(gain * int(x[i]) + bias)
    clipped: IntArray = index.clip(stairs.least, stairs.most)
    return clipped
