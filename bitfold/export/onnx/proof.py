"""The floating-point expressions of ``qcdq`` against the tables, for every reachable accumulator.

A line is float64, a fused convolution what ONNX Runtime's QLinearConv computes in float32. Without
its optimizer the same nodes run in float32 in an order of its choice: that form is proven by a
bound, or has nothing to round (``fused.error_bound``), and the proof is repeated here.
"""

from collections.abc import Mapping

import numpy as np

from bitfold.export.onnx.affine import Line
from bitfold.export.onnx.emit import Form
from bitfold.export.onnx.fused import Fused, error_bound, is_proven, side_of
from bitfold.export.requantization import Evaluate, RequantCheck, check_table
from bitfold.ir import Accumulator, CodeTensor, Conv2d, IntArray, IntGraph, Thresholds

UINT8 = 255
LINE, FUSED = "float64 line in ONNX", "fused float32 expression in ONNX"


def check_written(graph: IntGraph, forms: Mapping[str, Form]) -> tuple[RequantCheck, ...]:
    """Every table that is written as a line or fused, compared with its expression."""
    made = []
    for node in graph.nodes:
        form = forms.get(node.name) if isinstance(node, Thresholds) else None
        if form is None:
            continue
        assert isinstance(node, Thresholds)
        if isinstance(form, Line):
            made.append(check_table(graph, node, LINE, _line(form, node)))
        else:
            made.append(check_table(graph, node, FUSED, fused_indices(form, node)))
    return tuple(made)


def _line(line: Line, node: Thresholds) -> Evaluate:
    most = node.table.shape[1]

    def evaluate(channel: int, x: IntArray) -> IntArray:
        value = np.floor(line.gain[channel] * x.astype(np.float64) + line.offset[channel])
        index: IntArray = value.clip(0, most).astype(np.int64)
        return index

    return evaluate


def fused_indices(form: Fused, node: Thresholds) -> Evaluate:
    """clip(rint(float32(factor·x + bias)·scale)): float32 throughout, halves to even, as ORT."""
    most = node.table.shape[1]

    def evaluate(channel: int, x: IntArray) -> IntArray:
        integers = form.factor[channel] * x + form.bias[channel]
        value = np.rint(integers.astype(np.float32) * form.scale[channel])
        index: IntArray = value.clip(0, min(UINT8, most)).astype(np.int64)
        return index

    return evaluate


def unfused_failures(graph: IntGraph, node: Thresholds, form: Fused) -> IntArray:
    """Channels where float32 in any order could reach another code; none in what is exported."""
    conv = next(item for item in graph.nodes if item.name == node.x)
    assert isinstance(conv, Conv2d)
    x, acc = graph.types[conv.x], graph.types[conv.name]
    assert isinstance(x, CodeTensor)
    assert isinstance(acc, Accumulator)
    error = error_bound(form, side_of(conv, x), terms=conv.weight[0].size)
    return np.flatnonzero(~is_proven(form, node.table, error=error, ends=(acc.lo, acc.hi)))
