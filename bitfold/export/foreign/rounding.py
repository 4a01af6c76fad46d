"""Thresholds moved to where a runtime's float32 arithmetic puts them (docs/onnx.md, readers).

A table from exact rationals and a runtime's float32 expression part where a value lies within
float32 rounding of a tie. Where that expression is known to be monotone in one integer, the
entries of the table are moved, one by one, to where the expression itself rises: every integer is
then decided as the runtime decides it.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from bitfold.export.foreign.values import Float32s
from bitfold.ir import CodeTensor, IntArray, IntGraph, Thresholds, verify
from bitfold.ir.own_input import InputStep, apply_steps

MAX_MOVES = 64


@dataclass(frozen=True, slots=True)
class ProductRule:
    """clamp(rint(float32(X + bias) · float32(scales/out)), lo, hi): ONNX Runtime's QLinearConv."""

    scales: Float32s
    bias: IntArray
    out: np.float32

    def codes(self, x: IntArray) -> NDArray[np.float64]:
        """Codes before the clamp for accumulators x (C, L)."""
        factor = (self.scales / self.out).astype(np.float32).reshape(-1, 1)
        acc = (x + self.bias[:, None]).astype(np.float32)
        codes: NDArray[np.float64] = np.rint((acc * factor).astype(np.float32)).astype(np.float64)
        return codes


@dataclass(frozen=True, slots=True)
class TableRule:
    """clamp(rint(steps(float32(X)) / scale), lo, hi): operations on integer pixels, quantized.

    ``steps`` take (C, L) arrays: their constants have shape () or (C, 1).
    """

    steps: tuple[InputStep, ...]
    scale: np.float32

    def codes(self, x: IntArray) -> NDArray[np.float64]:
        """Codes before the clamp for pixels x (C, L)."""
        values = apply_steps(x.astype(np.float32), self.steps)
        with np.errstate(over="ignore"):
            codes: NDArray[np.float64] = np.rint(values / self.scale).astype(np.float64)
        return codes


Rule = ProductRule | TableRule


def follow_runtime(graph: IntGraph, rules: Mapping[str, Rule]) -> IntGraph:
    """``graph`` with the tables of the nodes in ``rules`` moved; verified."""
    nodes = [
        _moved(graph, node, rules[node.name])
        if isinstance(node, Thresholds) and node.name in rules
        else node
        for node in graph.nodes
    ]
    moved = IntGraph.of(nodes, meta=dict(graph.meta))
    verify(moved)
    return moved


def _moved(graph: IntGraph, node: Thresholds, rule: Rule) -> Thresholds:
    """Entry j becomes the least integer whose code is at least lo + j + 1.

    The expression is monotone, so a step towards that integer is taken wherever the entry or its
    predecessor is on the wrong side. Entries at the ends of the range stand for always and never.
    """
    tensor = graph.types[node.x]
    assert isinstance(graph.types[node.name], CodeTensor)
    lo, hi = getattr(tensor, "lo", 0), getattr(tensor, "hi", 0)
    sign = node.sign[:, None]
    least, most = np.where(sign > 0, lo, -hi), np.where(sign > 0, hi, -lo)
    wanted = node.grid.lo + 1 + np.arange(node.table.shape[1])

    def holds(t: IntArray) -> NDArray[np.bool_]:
        return rule.codes(t * sign) >= wanted

    table = node.table.copy()
    for _ in range(MAX_MOVES):
        down = (table > least) & holds(np.maximum(table - 1, least))
        up = (table <= most) & ~holds(np.minimum(table, most))
        if not (down | up).any():
            return replace(node, table=table)
        table = table - down + (up & ~down)
    return node
