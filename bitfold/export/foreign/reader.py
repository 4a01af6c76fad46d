"""The walk over another tool's model, node by node, and its lowering to an integer graph."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import onnx

from bitfold.errors import BitfoldError, InputError, UnsupportedError
from bitfold.export.foreign import (
    constants,
    elementwise,
    integer_ops,
    moves,
    pools,
    products,
    quantizers,
)
from bitfold.export.foreign import qonnx_ops as qonnx
from bitfold.export.foreign.reading import Operand, Reading, StoredCodes
from bitfold.export.foreign.rounding import Rule, follow_runtime
from bitfold.export.foreign.settling import settle, vector
from bitfold.export.foreign.source import Op, Source, decode_source
from bitfold.export.foreign.values import Value
from bitfold.export.lowering import LayerReport, lower
from bitfold.export.passes import commute_max_pool, fold_batchnorm
from bitfold.export.qgraph import QGraph, QNode, sources
from bitfold.ir import IntGraph
from bitfold.ir.own_input import KEY

Handler = Callable[[Reading, Op], tuple[Operand, str]]
Status = Literal["supported", "unsupported", "unreached"]
# Fraction bits of the stream: as fine as the whole network's ranges allow.
RESOLUTIONS = tuple(range(28, 11, -2))
MICROSOFT = "com.microsoft"

OPERATORS: Mapping[str, Handler] = {
    "QuantizeLinear": quantizers.quantize_linear,
    "DequantizeLinear": quantizers.dequantize_linear,
    "Cast": quantizers.cast,
    "Conv": products.conv,
    "Gemm": products.gemm,
    "MatMul": products.matmul,
    "Add": elementwise.binary,
    "Sub": elementwise.binary,
    "Mul": elementwise.binary,
    "Div": elementwise.binary,
    "BatchNormalization": elementwise.batch_norm,
    "Relu": elementwise.relu,
    "Clip": elementwise.clip,
    "PRelu": elementwise.prelu,
    "LeakyRelu": elementwise.prelu,
    "MaxPool": pools.max_pool,
    "AveragePool": pools.average_pool,
    "GlobalAveragePool": pools.global_pool,
    "GlobalMaxPool": pools.global_pool,
    "ReduceMean": pools.reduce_mean,
    "Reshape": moves.reshape,
    "Flatten": moves.flatten,
    "Transpose": moves.transpose,
    "Squeeze": moves.squeeze,
    "Unsqueeze": moves.unsqueeze,
    "Shape": moves.shape_of,
    "Pad": moves.pad,
    "Concat": moves.concat,
    "Identity": moves.same,
    "Dropout": moves.same,
    "Softmax": moves.softmax,
    "LogSoftmax": moves.softmax,
    "QLinearConv": integer_ops.qlinear_conv,
    "QLinearMatMul": integer_ops.qlinear_matmul,
    "ConvInteger": integer_ops.conv_integer,
    "MatMulInteger": integer_ops.matmul_integer,
    "DynamicQuantizeLinear": integer_ops.dynamic,
}
MICROSOFT_OPERATORS: Mapping[str, Handler] = {
    "QuantizeLinear": quantizers.quantize_linear,
    "DequantizeLinear": quantizers.dequantize_linear,
    "QGemm": integer_ops.qgemm,
    "QLinearAdd": integer_ops.qlinear_add,
    "QLinearConcat": integer_ops.qlinear_concat,
    "QLinearAveragePool": integer_ops.qlinear_pool,
    "QLinearGlobalAveragePool": integer_ops.qlinear_pool,
}
QONNX_OPERATORS: Mapping[str, Handler] = {
    "Quant": qonnx.quant,
    "IntQuant": qonnx.quant,
    "BipolarQuant": qonnx.bipolar_quant,
    "MultiThreshold": qonnx.multi_threshold,
    "Trunc": qonnx.trunc,
}


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One ONNX node: how it is lowered, or why not and what to do.

    ``unreached``: it reads what an unsupported node would give, and may well be supported itself.
    """

    name: str
    op: str
    status: Status
    how: str
    todo: str = ""


@dataclass(frozen=True, slots=True)
class ForeignModel:
    """A model of another tool as an integer graph.

    ``layers`` says what is exact, ``stored`` where the codes lie in the ONNX model, ``rules`` whose
    thresholds follow a runtime's own expression.
    The model's own input is in the graph's ``meta`` (bitfold.ir.own_input).
    """

    graph: IntGraph
    layers: tuple[LayerReport, ...]
    nodes: tuple[NodeReport, ...]
    stored: tuple[StoredCodes, ...]
    rules: Mapping[str, Rule]


@dataclass(frozen=True, slots=True)
class Survey:
    """Every node's report, and the first error where the model cannot be read as a whole."""

    nodes: tuple[NodeReport, ...]
    error: BitfoldError | None
    model: ForeignModel | None


def read_model(model: onnx.ModelProto, folder: Path | None = None) -> ForeignModel:
    """Read ``model``; raises the first node's UnsupportedError, InputError, or a GraphError."""
    survey = survey_model(model, folder)
    if survey.error is not None:
        raise survey.error
    assert survey.model is not None
    return survey.model


def survey_model(model: onnx.ModelProto, folder: Path | None = None) -> Survey:
    """Read ``model`` as far as possible; nodes that cannot be read do not stop the others.

    Raises InputError where the file is damaged.
    """
    source = decode_source(model, folder)
    reading = Reading(source, channels_last=_takes_channels_last(source))
    reports, first = [], None
    needed = _needed(source)
    for op in source.ops:
        if not needed.intersection(op.outputs):
            reports.append(NodeReport(op.name, op.kind, "supported", "not used: nothing reads it"))
            continue
        try:
            reports.append(NodeReport(op.name, op.kind, "supported", _read(reading, op)))
        except BitfoldError as error:
            first = first or error
            is_root = reading.poisoned.keys().isdisjoint(op.inputs)
            reading.poisoned.update((name, op.name) for name in op.outputs)
            status: Status = "unsupported" if is_root else "unreached"
            reports.append(NodeReport(op.name, op.kind, status, error.what, error.todo))
    found = tuple(reports)
    if first is not None:
        return Survey(found, first, None)
    try:
        return Survey(found, None, _lowered(reading, found))
    except BitfoldError as error:
        return Survey(found, error, None)


def _needed(source: Source) -> set[str]:
    """Tensors that the output depends on."""
    needed = {source.output}
    for op in reversed(source.ops):
        if needed.intersection(op.outputs):
            needed.update(op.inputs)
    return needed


def _takes_channels_last(source: Source) -> bool:
    """Whether the first Transpose behind the input makes (N, C, H, W) of (N, H, W, C)."""
    followed = {source.input}
    for op in source.ops:
        if not followed.intersection(op.inputs) or op.kind in ("Conv", "QLinearConv"):
            continue
        if op.kind == "Transpose":
            return op.attributes.get("perm") == (0, 3, 1, 2)
        if op.kind in ("QuantizeLinear", "DequantizeLinear", "Cast", "Sub", "Div", "Mul", "Add",
                       "Quant", "IntQuant", "Identity", "Clip", "MultiThreshold"):  # fmt: skip
            followed.update(op.outputs)
    return False


def _handler(reading: Reading, op: Op) -> Handler:
    if op.domain in qonnx.DOMAINS:
        found = QONNX_OPERATORS.get(op.kind)
    elif op.domain == MICROSOFT:
        found = MICROSOFT_OPERATORS.get(op.kind)
    elif op.domain:
        found = None
    else:
        found = OPERATORS.get(op.kind)
        folded = constants.FOLDED.get(op.kind)
        is_constant = not any(
            isinstance(reading.operands.get(x), Value) or x in reading.poisoned for x in op.inputs
        )
        if folded is not None and is_constant:
            found = folded
    if found is None or op.unread:
        what = f"attribute {op.unread}" if op.unread else "the operator"
        raise op.refused(f"{what} is not supported", "See docs/onnx.md for what is read.")
    return found


def _read(reading: Reading, op: Op) -> str:
    """Read one node; how it is lowered."""
    try:
        made, how = _handler(reading, op)(reading, op)
    except BitfoldError as error:
        raise (
            error if error.where else type(error)(error.what, where=op.where, todo=error.todo)
        ) from error
    # Numpy makes scalars of arrays without dimensions.
    reading.operands[op.outputs[0]] = np.asarray(made) if isinstance(made, np.generic) else made
    reading.poisoned.update((name, op.name) for name in op.outputs[1:] if name)
    return how


def _lowered(reading: Reading, reports: tuple[NodeReport, ...]) -> ForeignModel:
    last = _output(reading)
    graph = QGraph(_live(reading.nodes, last))
    assert reading.input is not None
    graph = commute_max_pool(fold_batchnorm(graph))
    meta = ((KEY, reading.input.to_text()), ("source", "another tool"))
    integers, layers = lower(replace(graph, meta=meta), resolutions=RESOLUTIONS)
    names = {node.name for node in integers.nodes}
    rules = {name: rule for name, rule in reading.rules.items() if name in names}
    moved = follow_runtime(integers, rules)
    tensors = {name for op in reading.source.ops for name in op.outputs}
    stored = tuple(s for s in reading.stored if s.node in names and s.tensor in tensors)
    return ForeignModel(moved, layers, reports, stored, rules)


def _output(reading: Reading) -> str:
    """The QGraph node that gives the model's result."""
    source = reading.source
    found = reading.operands.get(source.output)
    op = Op("output", "Identity", "", (source.output,), (f"{source.output}.flat",), {})
    if found is None:
        raise InputError("nothing defines the output", where=f"output {source.output}")
    if not isinstance(found, Value):
        raise UnsupportedError("the output is a constant", where=f"output {source.output}")
    value = settle(reading, op, replace(found, left_out=False), name=source.output)
    if len(value.view) != 1 or value.is_vector:
        return value.node
    reading.operands[source.output] = replace(value, integers=False)
    flat, letters = vector(reading, op, 0)
    if len(letters) > 1 and letters != ("H", "W", "C"):
        raise UnsupportedError(
            f"the result is an image {value.shape}, flattened channels first",
            where=f"output {source.output}",
            todo="Cut the model in front of that.",
        )
    return flat.node


def _live(nodes: list[QNode], last: str) -> tuple[QNode, ...]:
    """The nodes that ``last`` depends on, with ``last`` at the end."""
    needed, kept = {last}, []
    for node in reversed(nodes):
        if node.name in needed or node is nodes[0]:
            needed.update(sources(node))
            kept.append(node)
    ordered = [node for node in reversed(kept) if node.name != last]
    return (*ordered, next(node for node in kept if node.name == last))
