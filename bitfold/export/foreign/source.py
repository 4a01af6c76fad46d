"""Another tool's ONNX file, decoded with suspicion: bounded, sorted, nothing run or fetched."""

import heapq
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from onnx import numpy_helper

from bitfold.errors import InputError, UnsupportedError
from bitfold.export.onnx.file import Array, tensor_holds

MAX_NODES = 50_000
MAX_SIDE = 2**16
MAX_ELEMENTS = 2**26
Attribute = int | float | str | tuple[int, ...] | tuple[float, ...] | Array

BITS: Mapping[int, int] = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.FLOAT16: 16,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.UINT16: 16,
    onnx.TensorProto.INT16: 16,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT64: 64,
    onnx.TensorProto.BOOL: 8,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT2: 2,
}
INPUT_DTYPES: Mapping[int, str] = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.UINT8: "uint8",
    onnx.TensorProto.INT8: "int8",
}


@dataclass(frozen=True, slots=True)
class Op:
    """One node; ``inputs`` has "" where an optional input is left out.

    ``unread`` names an attribute that holds a graph, or another value that is not read.
    """

    name: str
    kind: str
    domain: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Attribute]
    unread: str = ""

    @property
    def where(self) -> str:
        """The node as an error names it."""
        return f"node {self.name!r} ({self.kind})"

    def refused(self, what: str, todo: str) -> UnsupportedError:
        """An UnsupportedError about this node."""
        return UnsupportedError(what, where=self.where, todo=todo)

    def has(self, i: int) -> bool:
        """Whether input ``i`` is given."""
        return i < len(self.inputs) and self.inputs[i] != ""

    def integer(self, key: str, default: int) -> int:
        """An integer attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, int):
            raise self._bad(key, "an integer")
        return value

    def number(self, key: str, default: float) -> float:
        """A float attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, int | float) or not math.isfinite(value):
            raise self._bad(key, "a finite number")
        return float(value)

    def text(self, key: str, default: str) -> str:
        """A string attribute."""
        value = self.attributes.get(key, default)
        if not isinstance(value, str):
            raise self._bad(key, "a string")
        return value

    def integers(self, key: str, default: tuple[int, ...]) -> tuple[int, ...]:
        """A list of integers below 2^31 in size."""
        value = self.attributes.get(key, default)
        numbers = value if isinstance(value, tuple) else ()
        found = tuple(v for v in numbers if isinstance(v, int) and abs(v) < 2**31)
        if not isinstance(value, tuple) or len(found) != len(value):
            raise self._bad(key, "a list of integers")
        return found

    def _bad(self, key: str, wanted: str) -> InputError:
        return InputError(
            f"attribute {key} must be {wanted}", where=self.where, todo="Export the model again."
        )


@dataclass(frozen=True, slots=True)
class Source:
    """A model in order: every node after what it reads. ``dims`` are the input's, without batch."""

    ops: tuple[Op, ...]
    constants: Mapping[str, Array]
    input: str
    dtype: str
    batch: int
    dims: tuple[int, ...]
    output: str
    opset: int


def decode_source(model: onnx.ModelProto, folder: Path | None = None) -> Source:
    """Decode a model; external data must lie in ``folder``.

    Raises InputError for what is damaged (cycles, tensors without a source, dimensions that do not
    fit their content), UnsupportedError for what is not read (several inputs or outputs,
    subgraphs, dimensions without a size).
    """
    graph = model.graph
    if len(graph.node) > MAX_NODES:
        raise UnsupportedError(
            f"{len(graph.node)} nodes, at most {MAX_NODES} are read", where="graph"
        )
    if graph.sparse_initializer or model.training_info:
        raise UnsupportedError(
            "sparse initializers and training parts are not supported",
            where="model",
            todo="Export the model for inference.",
        )
    constants = _constants(graph.initializer, folder)
    ops = tuple(_op(node, i, folder) for i, node in enumerate(graph.node))
    name, dtype, batch, dims = _input(graph, constants)
    if len(graph.output) != 1:
        raise UnsupportedError(
            f"{len(graph.output)} outputs", where="graph", todo="Keep one output: the logits."
        )
    ordered = _sorted(ops, known={name, *constants})
    opset = max((e.version for e in model.opset_import if e.domain in ("", "ai.onnx")), default=1)
    return Source(ordered, constants, name, dtype, batch, dims, graph.output[0].name, opset)


def _constants(tensors: Iterable[onnx.TensorProto], folder: Path | None) -> dict[str, Array]:
    found: dict[str, Array] = {}
    for tensor in tensors:
        if tensor.name in found:
            raise InputError("two initializers have one name", where=f"initializer {tensor.name}")
        found[tensor.name] = decode_constant(tensor, tensor.name, folder)
    return found


def decode_constant(tensor: onnx.TensorProto, name: str, folder: Path | None) -> Array:
    """Values of a tensor, whose content must fit its dimensions; bytes may lie in ``folder``."""
    where = f"initializer {name}"
    bits = BITS.get(tensor.data_type)
    if bits is None:
        raise UnsupportedError(
            f"elements of type {_type_name(tensor.data_type)}",
            where=where,
            todo="Use float32, or integers of 2, 4, 8, 16 or 32 bits.",
        )
    count = math.prod(tensor.dims)
    if min(tensor.dims, default=1) < 0:
        raise InputError(f"dimensions {list(tensor.dims)}", where=where)
    if tensor.data_location == onnx.TensorProto.EXTERNAL:
        tensor = _fetched(tensor, folder, num_bytes=(count * bits + 7) // 8, where=where)
    if not tensor_holds(tensor, count, bits):
        raise InputError(
            f"dimensions {list(tensor.dims)} do not fit its content",
            where=where,
            todo="The file is damaged: export the model again.",
        )
    array = np.asarray(numpy_helper.to_array(tensor))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InputError("a value is not finite", where=where)
    return array


def _type_name(number: int) -> str:
    names: dict[int, str] = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return names.get(number, str(number))


def _fetched(
    tensor: onnx.TensorProto, folder: Path | None, *, num_bytes: int, where: str
) -> onnx.TensorProto:
    """The tensor with its bytes from a file in the model's own folder, never outside it."""
    entries = {entry.key: entry.value for entry in tensor.external_data}
    location, todo = entries.get("location", ""), "Save the model in one file."
    if folder is None:
        raise InputError("external data of a model in memory", where=where, todo=todo)
    base = folder.resolve()
    try:
        path = (base / location).resolve(strict=True)
        offset = int(entries.get("offset", "0"))
        length = int(entries.get("length", str(num_bytes)))
    except (OSError, ValueError) as error:
        raise InputError(f"external data {location!r}: {error}", where=where, todo=todo) from error
    if not path.is_relative_to(base) or not path.is_file():
        raise InputError(
            f"external data {location!r} is no file in the model's folder", where=where, todo=todo
        )
    if offset < 0 or length != num_bytes or offset + length > path.stat().st_size:
        raise InputError(
            f"{length} bytes of external data at {offset} do not fit {list(tensor.dims)}",
            where=where,
            todo=todo,
        )
    with path.open("rb") as stream:
        stream.seek(offset)
        content = stream.read(length)
    filled = onnx.TensorProto(data_type=tensor.data_type, dims=tensor.dims, name=tensor.name)
    filled.raw_data = content
    return filled


def _op(node: onnx.NodeProto, index: int, folder: Path | None) -> Op:
    name = node.name or f"{node.op_type}_{index}"
    attributes: dict[str, Attribute] = {}
    unread = ""
    for attribute in node.attribute:
        value = _attribute(attribute, name, folder)
        if value is None:
            unread = attribute.name
        else:
            attributes[attribute.name] = value
    domain = "" if node.domain == "ai.onnx" else node.domain
    return Op(name, node.op_type, domain, tuple(node.input), tuple(node.output), attributes, unread)


def _attribute(attribute: onnx.AttributeProto, node: str, folder: Path | None) -> Attribute | None:
    kinds = onnx.AttributeProto
    match attribute.type:
        case kinds.INT:
            return int(attribute.i)
        case kinds.FLOAT:
            return float(attribute.f)
        case kinds.STRING:
            return attribute.s.decode("utf-8", errors="replace")
        case kinds.INTS:
            return tuple(attribute.ints)
        case kinds.FLOATS:
            return tuple(attribute.floats)
        case kinds.TENSOR:
            return decode_constant(attribute.t, f"{attribute.name} of {node}", folder)
    return None


def _input(
    graph: onnx.GraphProto, constants: Mapping[str, Array]
) -> tuple[str, str, int, tuple[int, ...]]:
    """Name, dtype, batch (1 where it is open) and the other dimensions of the one input."""
    inputs = [info for info in graph.input if info.name not in constants]
    if len(inputs) != 1:
        raise UnsupportedError(
            f"{len(inputs)} inputs: {[info.name for info in inputs[:5]]}",
            where="graph",
            todo="Keep one input; make the others initializers.",
        )
    kind, where = inputs[0].type.tensor_type, f"input {inputs[0].name}"
    if kind.elem_type not in INPUT_DTYPES:
        raise UnsupportedError(
            f"its elements are of type {_type_name(kind.elem_type)}",
            where=where,
            todo="Models that take float32, uint8 or int8 are read.",
        )
    sizes = [dim.dim_value for dim in kind.shape.dim]
    if len(sizes) not in (2, 4):
        raise UnsupportedError(
            f"its shape has {len(sizes)} dimensions",
            where=where,
            todo="Images (N, C, H, W) or (N, H, W, C) and vectors (N, C) are read.",
        )
    if any(not 1 <= size <= MAX_SIDE for size in sizes[1:]) or math.prod(sizes[1:]) > MAX_ELEMENTS:
        raise UnsupportedError(
            f"its dimensions are {sizes} (0: without a size)",
            where=where,
            todo=f"Fix height, width and channels to 1 … {MAX_SIDE}; the batch may stay open.",
        )
    return inputs[0].name, INPUT_DTYPES[kind.elem_type], max(1, sizes[0]), tuple(sizes[1:])


def _makers(ops: tuple[Op, ...], known: set[str]) -> dict[str, int]:
    """Which node defines a tensor."""
    made: dict[str, int] = {}
    for i, op in enumerate(ops):
        for output in filter(None, op.outputs):
            if output in made or output in known:
                raise InputError("two nodes define one tensor", where=f"tensor {output}")
            made[output] = i
    return made


def _sorted(ops: tuple[Op, ...], *, known: set[str]) -> tuple[Op, ...]:
    """``ops`` in topological order; InputError on a cycle or on a tensor that nothing defines."""
    made = _makers(ops, known)
    readers: list[list[int]] = [[] for _ in ops]
    waiting = [0] * len(ops)
    for i, op in enumerate(ops):
        read = set(filter(None, op.inputs)) - known
        missing = sorted(read - made.keys())
        if missing:
            raise InputError(f"it reads {missing[0]!r}, which nothing defines", where=op.where)
        waiting[i] = len(read)
        for x in sorted(read):
            readers[made[x]].append(i)
    ready = [i for i, count in enumerate(waiting) if not count]
    order: list[int] = []
    while ready:
        order.append(heapq.heappop(ready))
        for reader in readers[order[-1]]:
            waiting[reader] -= 1
            if not waiting[reader]:
                heapq.heappush(ready, reader)
    if len(order) < len(ops):
        stuck = next(i for i, count in enumerate(waiting) if count)
        raise InputError("it waits for its own result: a cycle", where=ops[stuck].where)
    return tuple(ops[i] for i in order)
