"""What is proved without an image: accumulator ranges, and tables on every reachable integer."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bitfold.certify.stages import FirstDifference, Stage
from bitfold.ir import (
    Accumulator,
    CodeTensor,
    Conv2d,
    IntArray,
    IntGraph,
    Linear,
    signed_bits,
)

if TYPE_CHECKING:
    from bitfold.export import Decision, RequantCheck

EXTREME_CODES = "sums of the extreme codes of every output channel"
INTERVAL = "interval of the inputs"
THRESHOLDS = "threshold tables"


@dataclass(frozen=True, slots=True)
class AccumulatorProof:
    """Accumulators of one layer lie in lo … hi, which needs ``bits`` bits, by ``bound``."""

    name: str
    lo: int
    hi: int
    bits: int
    bound: str


def accumulator_proofs(graph: IntGraph) -> tuple[AccumulatorProof, ...]:
    """Every accumulator of ``graph`` with its proven range."""
    return tuple(
        AccumulatorProof(
            node.name, kind.lo, kind.hi, signed_bits(kind.lo, kind.hi),
            EXTREME_CODES if isinstance(node, Conv2d | Linear) else INTERVAL,
        )
        for node in graph.nodes
        if isinstance(kind := graph.types[node.name], Accumulator)
    )  # fmt: skip


def accumulator_stage(graph: IntGraph) -> Stage:
    """The proven ranges against sums of the codes that make each channel least and greatest.

    Codes are independent, so these sums are the ends of what the layer can give; a window at the
    border adds code 0 instead, which lies between.
    """
    compared = mismatches = 0
    first: FirstDifference | None = None
    for node in graph.nodes:
        if not isinstance(node, Conv2d | Linear):
            continue
        kind, (least, most) = graph.types[node.name], _extremes(graph, node)
        assert isinstance(kind, Accumulator)
        compared += 2 * len(least)
        pairs = ((kind.lo, int(least.min())), (kind.hi, int(most.max())))
        for end, (got, want) in enumerate(pairs):
            mismatches += got != want
            if got != want and first is None:
                first = FirstDifference(node.name, (end,), got, want)
    return Stage(
        "accumulator ranges", EXTREME_CODES, compared, mismatches,
        0.0 if first is None else abs(first.got - first.want), first,
    )  # fmt: skip


def _extremes(graph: IntGraph, node: Conv2d | Linear) -> tuple[IntArray, IntArray]:
    """(O,) least and greatest sum: each weight meets the code at one end of its grid."""
    x = graph.types[node.x]
    assert isinstance(x, CodeTensor)
    flat = node.weight.reshape(len(node.weight), -1)
    for_most = np.where(flat > 0, x.hi, x.lo)
    for_least = np.where(flat > 0, x.lo, x.hi)
    return (flat * for_least).sum(1) + node.bias, (flat * for_most).sum(1) + node.bias


def requantization_checks(
    graph: IntGraph, decisions: Sequence["Decision"]
) -> tuple["RequantCheck", ...]:
    """Each table against the trained network's exact rationals and against its form in ONNX."""
    from bitfold.export import check_decisions, check_forms

    return (*check_decisions(graph, tuple(decisions)), *check_forms(graph))


def requantization_stages(checks: Sequence["RequantCheck"]) -> Iterator[Stage]:
    """One stage for each thing that tables were compared with."""
    for against in dict.fromkeys(check.against for check in checks):
        chosen = [check for check in checks if check.against == against]
        yield Stage(
            f"requantization, {against}", THRESHOLDS, sum(check.evaluated for check in chosen),
            sum(check.mismatches for check in chosen),
            float(max(check.max_abs_diff for check in chosen)),
            next((_place(check) for check in chosen if check.first is not None), None),
            detail=f"{len(chosen)} layers; index is (channel, integer)",
        )  # fmt: skip


def _place(check: "RequantCheck") -> FirstDifference:
    assert check.first is not None
    first = check.first
    return FirstDifference(
        check.name, (first.channel, first.integer), float(first.got), float(first.want)
    )


def pairs_checked(checks: Sequence["RequantCheck"]) -> int:
    """(accumulator, channel) pairs of all layers whose table was compared with something."""
    return sum({c.name: c.pairs for c in checks if c.is_accumulator}.values())
