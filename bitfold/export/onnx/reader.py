"""ONNX file → integer graph, equal to the one that was written.

Weights, biases, thresholds, multipliers, strides and edges come from the ONNX nodes, so that an
edit shows; metadata adds what nodes cannot say (grids, scales, shifts). The result is then written
again in memory, and every node and constant must equal the file's: whatever was not understood
is found and named, never ignored.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
import onnx_ir as ir

from bitfold.errors import UnsupportedError
from bitfold.export.onnx.affine import Line, line_table
from bitfold.export.onnx.build import INPUT, INTEGER, LOWBIT, OUTPUT, QCDQ, QONNX, tensor_name
from bitfold.export.onnx.emit import Emitter, half_of, is_whole_map
from bitfold.export.onnx.file import (
    Array,
    Facts,
    OnnxFile,
    damaged,
    decode,
)
from bitfold.export.onnx.fused import Fused, error_bound, fused_table, is_proven, side_of
from bitfold.export.onnx.integer import IntegerEmitter
from bitfold.export.onnx.integer_reader import INTEGER_READERS
from bitfold.export.onnx.lowbit import LowbitEmitter
from bitfold.export.onnx.qdq import serialize
from bitfold.export.onnx.qonnx import QonnxEmitter
from bitfold.export.onnx.qonnx_reader import QONNX_READERS
from bitfold.export.onnx.reading import (
    Readers,
    Reading,
    channels_of,
    four_of,
    grid_of,
    one_of,
    pair_of,
)
from bitfold.export.onnx.weights import BASE
from bitfold.ir import (
    Accumulator,
    Add,
    CodeTensor,
    Concat,
    Conv2d,
    Dequantize,
    FloatTensor,
    Grid,
    IntArray,
    IntGraph,
    Linear,
    MaxPool2d,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    Thresholds,
    verify,
)

MAX_SHIFT = 62
MAX_SIDE = 2**16
MAX_GAIN = 2.0**53


def own_graph(model: onnx.ModelProto) -> IntGraph:
    """The verified graph of a file that ``to_onnx`` wrote.

    Raises InputError and UnsupportedError as ``bitfold.export.read_onnx`` does.
    """
    file = decode(model)
    reading = Reading(file)
    form = _FORMS[file.profile.name]
    for facts in file.facts.parts("nodes"):
        kind = facts.text("kind")
        if kind not in form.readers:
            raise damaged(f"unknown kind {kind!r}", where=facts.where)
        name = facts.text("name")
        reading.define(name, form.readers[kind](reading, name, facts))
    graph = IntGraph.of(reading.nodes, meta=file.facts.strings("meta"))
    verify(graph)
    _compare(file, form.write(graph, reading))
    return graph


def _quantize(reading: Reading, name: str, facts: Facts) -> Quantize:
    inputs = reading.file.inputs
    if len(inputs) != 1 or inputs[0].name != INPUT:
        raise damaged(f"one input called {INPUT} is expected", where="graph")
    wanted = reading.file.profile.input_type
    if inputs[0].type.tensor_type.elem_type != wanted:
        raise damaged(f"its elements must be {wanted.name}", where=f"input {INPUT}")
    dims = tuple(d.dim_value for d in inputs[0].type.tensor_type.shape.dim)[1:]
    if any(not 1 <= size <= MAX_SIDE for size in dims):
        raise damaged(f"image shape {dims}, sides must be 1 … {MAX_SIDE}", where=f"input {INPUT}")
    return Quantize(name, dims, grid_of(facts, "grid"), facts.number("scale"))


def _bias(file: OnnxFile, name: str, count: int) -> IntArray:
    if f"{name}.bias" not in file.constants:
        return np.zeros(count, dtype=np.int64)
    return file.integers(f"{name}.bias")


def _weight(file: OnnxFile, name: str) -> IntArray:
    """Codes as they are stored; where their lowest is, too, indices in units of the scale.

    Two stored halves are put together.
    """
    if f"{name}.weight.high" in file.constants:
        high, low = file.integers(f"{name}.weight.high"), file.integers(f"{name}.weight.low")
        if high.shape != low.shape:
            raise damaged(f"halves {high.shape} and {low.shape}", where=f"node {name}")
        return high * BASE + low
    stored = file.integers(f"{name}.weight")
    if f"{name}.weight.lo" not in file.constants:
        return stored
    step, low = file.integers(f"{name}.weight.scale"), file.integers(f"{name}.weight.lo")
    if (step.size, low.size) != (1, 1):
        raise damaged("one step and one lowest weight are expected", where=f"node {name}")
    return stored * int(step.ravel()[0]) + int(low.ravel()[0])


def _conv(reading: Reading, name: str, facts: Facts) -> Conv2d:
    file, where = reading.file, f"node {name}"
    node = f"{name}/high" if f"{name}.weight.high" in file.constants else tensor_name(name)
    weight = _weight(file, name)
    if weight.ndim != 4:
        raise damaged(f"weight of shape {weight.shape}", where=where)
    bias = _bias(file, name, len(weight))
    if f"{name}.bias.zero_point" in file.constants:
        weight, bias = _unscaled(reading, name, facts, weight=weight), np.zeros_like(bias)
    return Conv2d(
        name,
        reading.source(name),
        weight.transpose(0, 2, 3, 1),
        grid_of(facts, "weight_grid"),
        facts.numbers("weight_scales"),
        bias,
        pair_of(file.attribute(node, "strides"), where),
        four_of(file.attribute(node, "pads"), where),
        one_of(file.attribute(node, "group"), where),
    )


def _unscaled(reading: Reading, name: str, facts: Facts, *, weight: IntArray) -> IntArray:
    """Weights of a fused convolution without the factor of their channel."""
    factors = np.array(facts.integers("factors", count=len(weight)), dtype=np.int64)
    spread = factors.reshape(-1, 1, 1, 1)
    if not factors.all() or (np.abs(factors) > 127).any() or (weight % spread).any():
        raise UnsupportedError(
            "a fused layer's weights must be multiples of its channels' factors",
            where=f"initializer {name}.weight",
            todo="Edit it in whole steps, or export the model again.",
        )
    reading.factors[name] = factors
    return weight // spread


def _linear(reading: Reading, name: str, facts: Facts) -> Linear:
    weight = _weight(reading.file, name)
    if weight.ndim != 2:
        raise damaged(f"weight of shape {weight.shape}", where=f"node {name}")
    return Linear(
        name,
        reading.source(name),
        weight,
        grid_of(facts, "weight_grid"),
        facts.numbers("weight_scales"),
        _bias(reading.file, name, len(weight)),
    )


def _thresholds(reading: Reading, name: str, facts: Facts) -> Thresholds:
    file, x, grid = reading.file, reading.source(name), grid_of(facts, "grid")
    if x in reading.factors:
        table, sign = _fused(reading, name, x=x, grid=grid)
    elif f"{name}.gain" in file.constants:
        table, sign = _line(reading, name, x=x, grid=grid)
    else:
        table = file.integers(f"{name}.thresholds")
        table = table.reshape(len(table), -1) if table.ndim in (2, 4) else table
        sign = file.integers(f"{name}.sign").reshape(-1)
    return Thresholds(name, x, table, sign, grid, facts.number("scale"))


def _line(reading: Reading, name: str, *, x: str, grid: Grid) -> tuple[IntArray, IntArray]:
    gain, offset = (
        channels_of(reading.file.constant(f"{name}.{key}"), name).astype(np.float64)
        for key in ("gain", "offset")
    )
    kind = reading.types[x]
    if isinstance(kind, FloatTensor) or not len(gain) == len(offset) == kind.shape[-1]:
        raise damaged(f"{len(gain)} gains and {len(offset)} offsets for {x}", where=f"node {name}")
    if max(np.abs(gain).max(), np.abs(offset).max()) > MAX_GAIN:
        raise damaged("a gain or offset exceeds 2^53", where=f"node {name}")
    line = Line(gain, offset)
    reading.forms[name] = line
    return line_table(line, grid.levels, lo=kind.lo, hi=kind.hi), line.sign


def _fused(reading: Reading, name: str, *, x: str, grid: Grid) -> tuple[IntArray, IntArray]:
    scale = reading.file.constant(f"{x}.weight.scale")
    bias = reading.file.integers(f"{x}.bias")
    conv = next(node for node in reading.nodes if node.name == x)
    assert isinstance(conv, Conv2d)
    source, acc = reading.types[conv.x], reading.types[x]
    if scale.shape != bias.shape or scale.shape != (len(conv.weight),) or scale.dtype != np.float32:
        raise damaged(f"scale {scale.shape} and bias {bias.shape}", where=f"node {x}")
    if not isinstance(source, CodeTensor) or not isinstance(acc, Accumulator):
        raise damaged("a fused convolution reads codes", where=f"node {x}")
    form = Fused(reading.factors[x], scale.astype(np.float32), bias)
    ends = acc.lo, acc.hi
    error = error_bound(form, side_of(conv, source), terms=conv.weight[0].size)
    table = fused_table(form, grid.levels, lo=acc.lo, hi=acc.hi)
    if not is_proven(form, table, error=error, ends=ends).all():
        raise UnsupportedError(
            "float32 roundings of this layer could reach a neighbouring code",
            where=f"node {x}",
            todo="Undo the edit of its scale, bias or weights, or export the model again.",
        )
    reading.forms[name] = form
    return table, form.sign


def _factors(file: OnnxFile, constant: str, shift: int, name: str) -> IntArray:
    """Per-channel integers of a float64 constant in units of 2^−shift, of an int64 one as is."""
    is_integer = constant in file.constants and file.constant(constant).dtype == np.int64
    values = file.integers(constant, unit=1.0 if is_integer else 0.5**shift)
    return channels_of(values, name).astype(np.int64)


def _rescale(reading: Reading, name: str, facts: Facts) -> Rescale:
    file = reading.file
    shift = facts.integer("shift", most=MAX_SHIFT)
    negative_shift = facts.integer("negative_shift", most=MAX_SHIFT)
    multiplier = _factors(file, f"{name}.multiplier", shift, name)
    offset = _factors(file, f"{name}.offset", shift, name)
    negative: IntArray | None = None
    if f"{name}/negative.multiplier" in file.constants:
        negative = _factors(file, f"{name}/negative.multiplier", negative_shift, name)
    elif f"{name}.zero" in file.constants:
        negative = np.zeros_like(multiplier)
    return Rescale(
        name,
        reading.source(name),
        multiplier,
        offset - half_of(shift),
        shift,
        facts.number("scale"),
        negative,
        negative_shift,
    )


def _max_pool(reading: Reading, name: str, _: Facts) -> MaxPool2d:
    file, where, node = reading.file, f"node {name}", tensor_name(name)
    return MaxPool2d(
        name,
        reading.source(name),
        pair_of(file.attribute(node, "kernel_shape"), where),
        pair_of(file.attribute(node, "strides"), where),
        four_of(file.attribute(node, "pads"), where),
    )


def _sum_pool(reading: Reading, name: str, facts: Facts) -> SumPool2d:
    file, x = reading.file, reading.source(name)
    height, width, _ = reading.image_shape(x)
    stride = pair_of(facts.integers("stride", count=2), facts.where)
    if f"{name}.rows" not in file.constants:
        return SumPool2d(name, x, (height, width), stride)
    rows, columns = file.constant(f"{name}.rows").T, file.constant(f"{name}.columns")
    node = SumPool2d(name, x, (_window(rows), _window(columns)), stride)
    if (len(rows), len(columns)) != (height, width) or is_whole_map(node, (height, width)):
        raise damaged("its window matrices do not fit its input", where=f"node {name}")
    return node


def _window(matrix: Array) -> int:
    """Length of the window that the first column of a (size, outputs) 0/1 matrix sums."""
    return int(np.count_nonzero(matrix[:, 0])) if matrix.ndim == 2 and matrix.size else 0


def _slice(reading: Reading, name: str, _: Facts) -> Slice:
    starts, stops = (reading.file.integers(f"{name}.{key}").ravel() for key in ("starts", "ends"))
    if len(starts) != 1 or len(stops) != 1:
        raise damaged("it slices more than the channels", where=f"node {name}")
    return Slice(name, reading.source(name), int(starts[0]), int(stops[0]))


def _reshape(reading: Reading, name: str, _: Facts) -> Reshape:
    shape = reading.file.integers(f"{name}.shape").ravel().tolist()
    if len(shape) not in (2, 4):
        raise damaged(f"shape {shape}", where=f"node {name}")
    return Reshape(name, reading.source(name), tuple(shape[1:]))


def _add(reading: Reading, name: str, _: Facts) -> Add:
    return Add(name, *_pair_of_names(reading.sources(name), name))


def _pair_of_names(names: tuple[str, ...], where: str) -> tuple[str, str]:
    if len(names) != 2:
        raise damaged(f"Add reads {len(names)} tensors", where=f"node {where}")
    return names[0], names[1]


def _concat(reading: Reading, name: str, _: Facts) -> Concat:
    return Concat(name, reading.sources(name))


def _dequantize(reading: Reading, name: str, _: Facts) -> Dequantize:
    return Dequantize(name, reading.source(name, tensor=OUTPUT))


_QCDQ_READERS: Readers = {
    "Quantize": _quantize,
    "Conv2d": _conv,
    "Linear": _linear,
    "Thresholds": _thresholds,
    "Rescale": _rescale,
    "MaxPool2d": _max_pool,
    "SumPool2d": _sum_pool,
    "Slice": _slice,
    "Concat": _concat,
    "Reshape": _reshape,
    "Add": _add,
    "Dequantize": _dequantize,
}


@dataclass(frozen=True, slots=True)
class _Form:
    """How a profile is read, and how it is written again to be compared."""

    readers: Readers
    write: Callable[[IntGraph, Reading], ir.Model]


_FORMS: Mapping[str, _Form] = {
    QCDQ.name: _Form(_QCDQ_READERS, lambda graph, reading: Emitter(graph, reading.forms).model({})),
    INTEGER.name: _Form(
        {**_QCDQ_READERS, **INTEGER_READERS}, lambda graph, _: IntegerEmitter(graph).model({})
    ),
    LOWBIT.name: _Form(
        _QCDQ_READERS, lambda graph, reading: LowbitEmitter(graph, reading.forms).model({})
    ),
    QONNX.name: _Form(
        {**_QCDQ_READERS, **QONNX_READERS},
        lambda graph, reading: QonnxEmitter(graph, reading.singles).model({}),
    ),
}


def _compare(file: OnnxFile, model: ir.Model) -> None:
    """Raise where the file's nodes, constants or outputs differ from ``model``'s."""
    again = onnx.ModelProto.FromString(serialize(model)).graph
    wanted = {node.name: node for node in again.node}
    for name, node in file.nodes.items():
        if name not in wanted:
            raise _foreign(node, "it is not part of any layer that bitfold writes")
        if _signature(node) != _signature(wanted[name]):
            raise _foreign(node, f"bitfold writes {_signature(wanted[name])} here")
    constants = {tensor.name: tensor for tensor in again.initializer}
    missing = [name for name in wanted if name not in file.nodes]
    missing += [name for name in constants if name not in file.constants]
    missing += [] if file.outputs == (OUTPUT,) else [OUTPUT]
    if missing:
        raise damaged(f"{missing[0]!r} is missing", where="graph")
    _compare_constants(file, constants)


def _compare_constants(file: OnnxFile, wanted: Mapping[str, onnx.TensorProto]) -> None:
    for name, array in file.constants.items():
        if name not in wanted or not np.array_equal(
            array, np.asarray(onnx.numpy_helper.to_array(wanted[name])).astype(array.dtype)
        ):
            raise UnsupportedError(
                "its value contradicts the other constants of its layer",
                where=f"initializer {name}",
                todo="Edit weights, biases, gains and offsets only, or export the model again.",
            )


def _foreign(node: onnx.NodeProto, why: str) -> UnsupportedError:
    return UnsupportedError(
        f"operator {node.op_type} {_signature(node)}: {why}",
        where=f"node {node.name!r}",
        todo="Undo the edit, or export the model again.",
    )


def _signature(node: onnx.NodeProto) -> str:
    """Operator, attributes, inputs and outputs as text."""
    pairs = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    attributes = ", ".join(f"{key}={pairs[key]}" for key in sorted(pairs))
    return f"{', '.join(node.output)} = {node.op_type}({', '.join(node.input)}; {attributes})"
