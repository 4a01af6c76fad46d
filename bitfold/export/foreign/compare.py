"""Another tool's model under ONNX Runtime beside the graph read from it: flips, layer by layer.

Every layer answers for itself: it is fed with ONNX Runtime's own codes. Where its codes then
differ, float32 rounding of the runtime's expression decided otherwise, and the distance from the
threshold in between says by how much.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import onnx
from numpy.typing import NDArray

from bitfold.errors import MissingDependencyError, UnsupportedError
from bitfold.export.foreign.reader import ForeignModel, read_model
from bitfold.export.foreign.reading import StoredCodes
from bitfold.export.foreign.rounding import ProductRule
from bitfold.export.onnx.file import parse, read_bytes
from bitfold.ir import (
    Add,
    IntArray,
    Node,
    SumPool2d,
    Thresholds,
    scales_of,
    trace_oracle,
)
from bitfold.ir.float64 import apply_float64
from bitfold.ir.own_input import own_input

if TYPE_CHECKING:
    import onnxruntime

Values = NDArray[np.generic]
PACKED = (
    onnx.TensorProto.UINT4,
    onnx.TensorProto.INT4,
    onnx.TensorProto.UINT2,
    onnx.TensorProto.INT2,
)


@dataclass(frozen=True, slots=True)
class RuntimeFlips:
    """Codes of one layer that differ from ONNX Runtime's, out of ``compared``.

    ``first`` is the index of the first, where the runtime has ``want`` and the graph ``got``.
    ``farthest`` is the greatest distance of a flipped integer from the threshold in between, in
    steps of the layer's codes.
    """

    name: str
    compared: int
    flips: int
    first: tuple[int, ...] | None = None
    got: int = 0
    want: int = 0
    farthest: float = 0.0


def runtime_codes(
    model: onnx.ModelProto, stored: Sequence[StoredCodes], values: Values, *, optimized: bool
) -> tuple[dict[str, IntArray], Values]:
    """Codes by node name, (N, H, W, C) or (N, C), and the result, as ONNX Runtime computes them."""
    exposed = onnx.ModelProto()
    exposed.CopyFrom(model)
    present = {output.name for output in exposed.graph.output}
    wanted = [item for item in stored if item.tensor not in present]
    packed = _packed_tensors(model)
    names = [model.graph.output[0].name]
    for item in wanted:
        names.append(item.tensor)
        if item.tensor in packed:
            # Numpy has no such type.
            names[-1] = f"{item.tensor}/unpacked"
            exposed.graph.node.append(
                onnx.helper.make_node(
                    "Cast", [item.tensor], [names[-1]], names[-1], to=onnx.TensorProto.INT32
                )
            )
        exposed.graph.output.append(onnx.ValueInfoProto(name=names[-1]))
    found = _run(_session(exposed.SerializeToString(), optimized=optimized), names, values)
    codes = {item.node: _codes(item, x) for item, x in zip(wanted, found[1:], strict=True)}
    return codes, found[0]


def _packed_tensors(model: onnx.ModelProto) -> set[str]:
    """What QuantizeLinear makes with fewer than 8 bits."""
    kinds = {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    return {
        node.output[0]
        for node in model.graph.node
        if node.op_type == "QuantizeLinear" and kinds.get(node.input[-1]) in PACKED
    }


def _session(data: bytes, *, optimized: bool) -> "onnxruntime.InferenceSession":
    try:
        import onnxruntime as ort
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            "ONNX Runtime is not installed",
            where="package onnxruntime",
            todo="pip install 'bitfold[bench]'",
        ) from error
    levels = ort.GraphOptimizationLevel
    # x86 processors without VNNI add pairs of 8-bit products in saturating 16 bits, unless asked
    # for precision; some models cannot be loaded that way.
    failure = Exception()
    for precise in ("1", "0"):
        options = ort.SessionOptions()
        options.log_severity_level = 4
        options.intra_op_num_threads = 1
        options.graph_optimization_level = (
            levels.ORT_ENABLE_ALL if optimized else levels.ORT_DISABLE_ALL
        )
        options.add_session_config_entry("session.x64quantprecision", precise)
        # ONNX Runtime's exceptions share no base below Exception.
        try:
            return ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        except Exception as error:
            failure = error
    raise _not_run(failure)


def _not_run(error: Exception) -> UnsupportedError:
    return UnsupportedError(
        f"ONNX Runtime does not run the model: {error}",
        where="model",
        todo="Check the model and its input with ONNX Runtime alone.",
    )


def _run(session: "onnxruntime.InferenceSession", names: list[str], values: Values) -> list[Values]:
    """Outputs for all values; a model with a fixed batch takes as many at a time."""
    feed = session.get_inputs()[0]
    fixed = feed.shape[0] if isinstance(feed.shape[0], int) else len(values)
    step = max(1, fixed)
    feeds = [values[i : i + step] for i in range(0, max(1, len(values)), step)]
    try:
        parts = [session.run(names, {feed.name: part}) for part in feeds]
    except Exception as error:
        raise _not_run(error) from error
    return [np.concatenate(columns) for columns in zip(*parts, strict=True)]


def _codes(item: StoredCodes, tensor: Values) -> IntArray:
    """A tensor of the model as codes, in the graph's layout."""
    if item.scale is None:
        codes = tensor.astype(np.int64) - item.zero_point
    else:
        codes = np.rint(tensor.astype(np.float64) / item.scale).astype(np.int64)
    order = [i for axis in ("H", "W", "C") for i, g in enumerate(item.view) if axis in g]
    if len(order) != len(item.view):
        return codes
    return np.ascontiguousarray(codes.transpose(0, *(1 + i for i in order)))


def compare_runtime(
    model: onnx.ModelProto,
    values: Values,
    *,
    read: ForeignModel | None = None,
    optimized: bool = True,
) -> tuple[RuntimeFlips, ...]:
    """Flips of every layer on ``values`` (N, …), in the form of the model's own input."""
    foreign = read or read_model(model)
    forced, _ = runtime_codes(model, foreign.stored, values, optimized=optimized)
    own = own_input(foreign.graph)
    assert own is not None
    pixels = own.to_pixels(values)
    reshaped = {
        name: codes.reshape(len(pixels), *foreign.graph.types[name].shape)
        for name, codes in forced.items()
    }
    return _flips(foreign, pixels, reshaped)


def compare_file(path: Path, values: Values, *, optimized: bool = True) -> tuple[RuntimeFlips, ...]:
    """``compare_runtime`` for a file."""
    model = parse(read_bytes(path))
    return compare_runtime(model, values, read=read_model(model, path.parent), optimized=optimized)


def _flips(
    foreign: ForeignModel, pixels: NDArray[np.uint8], forced: Mapping[str, IntArray]
) -> tuple[RuntimeFlips, ...]:
    graph = foreign.graph
    found: list[RuntimeFlips] = []

    def evaluate(node: Node, xs: Sequence[IntArray]) -> IntArray:
        made = apply_float64(node, xs)
        if node.name not in forced:
            return made
        found.append(_compared(foreign, node, xs[0], got=made, want=forced[node.name]))
        return forced[node.name]

    trace_oracle(graph, pixels, chunk=max(1, len(pixels)), evaluator=evaluate)
    return tuple(found)


def _compared(
    foreign: ForeignModel, node: Node, x: IntArray, *, got: IntArray, want: IntArray
) -> RuntimeFlips:
    places = np.argwhere(got != want)
    if not len(places):
        return RuntimeFlips(node.name, want.size, 0)
    first = tuple(int(i) for i in places[0])
    farthest = float("nan")
    if isinstance(node, Thresholds):
        at = np.nonzero(got != want)
        ends = _distances(foreign, node, x[at], got[at], want[at], at[-1])
        farthest = float(ends.max())
    return RuntimeFlips(
        node.name, want.size, len(places), first, int(got[first]), int(want[first]), farthest
    )


def _distances(
    foreign: ForeignModel,
    node: Thresholds,
    x: IntArray,
    got: IntArray,
    want: IntArray,
    channels: IntArray,
) -> NDArray[np.float64]:
    """How far sign·x lies from the crossing between both codes, in steps of the code.

    The crossing is known exactly behind products and sums. Elsewhere the threshold stands for it,
    the least integer behind it.
    """
    graph, rule = foreign.graph, foreign.rules.get(node.name)
    source = next(other for other in graph.nodes if other.name == node.x)
    between = np.minimum(got, want) + 0.5
    if isinstance(rule, ProductRule):
        units = np.broadcast_to(rule.scales / np.float64(rule.out), len(rule.bias))
        return np.abs((x + rule.bias[channels]) * units[channels] - between)
    if isinstance(source, Add | SumPool2d):
        unit = scales_of(graph.types[node.x])[0] / node.scale
        return np.asarray(np.abs(x * unit - between), np.float64)
    behind = (np.maximum(got, want) - node.grid.lo - 1).clip(0, node.table.shape[1] - 1)
    entries = node.table[channels, behind]
    gaps = np.diff(node.table.astype(np.float64), axis=1)
    steps = np.array([np.median(row[row > 0]) if (row > 0).any() else 1.0 for row in gaps])
    distance: NDArray[np.float64] = np.abs(entries - node.sign[channels] * x) / steps[channels]
    return distance
