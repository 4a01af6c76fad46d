"""An ONNX file decoded with suspicion: bounded, checked, nothing executed, nothing fetched."""

import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # has no stubs
from numpy.typing import NDArray
from onnx import numpy_helper

from bitfold.errors import BitfoldError, InputError, UnsupportedError
from bitfold.export.onnx.build import PROFILES, QCDQ, QONNX_DOMAIN, Profile
from bitfold.export.onnx.emit import Json
from bitfold.export.onnx.qdq import FORMAT, GRAPH_KEY, PROFILE_KEY, VERSION_KEY
from bitfold.export.onnx.wire import check_wire

MAX_BYTES = 2**29
MAX_TEXT = 2**26
ELEMENT_BITS: Mapping[int, int] = {
    onnx.TensorProto.FLOAT: 32,
    onnx.TensorProto.DOUBLE: 64,
    onnx.TensorProto.UINT8: 8,
    onnx.TensorProto.INT8: 8,
    onnx.TensorProto.INT2: 2,
    onnx.TensorProto.UINT2: 2,
    onnx.TensorProto.INT4: 4,
    onnx.TensorProto.UINT4: 4,
    onnx.TensorProto.INT32: 32,
    onnx.TensorProto.INT64: 64,
}
DOMAINS = ("", "ai.onnx", QONNX_DOMAIN)
OPERATORS = (
    "Add",
    "BipolarQuant",
    "BitwiseAnd",
    "Cast",
    "Clip",
    "Concat",
    "Conv",
    "ConvInteger",
    "DequantizeLinear",
    "Div",
    "Floor",
    "Gather",
    "Gemm",
    "GreaterOrEqual",
    "Identity",
    "Less",
    "MatMul",
    "MatMulInteger",
    "Max",
    "MaxPool",
    "Min",
    "Mod",
    "Mul",
    "MultiThreshold",
    "Pad",
    "Quant",
    "QuantizeLinear",
    "ReduceSum",
    "Relu",
    "Reshape",
    "Slice",
    "Sub",
    "Transpose",
    "Unsqueeze",
    "Where",
)

Array = NDArray[np.generic]


def damaged(what: str, *, where: str) -> InputError:
    """An InputError about a file that is not as it was written."""
    return InputError(what, where=where, todo="The file is damaged: export the model again.")


@dataclass(frozen=True, slots=True)
class OnnxFile:
    """A decoded model of ours: nodes by name, constants by name, and the facts in its metadata."""

    nodes: Mapping[str, onnx.NodeProto]
    producers: Mapping[str, onnx.NodeProto]
    constants: Mapping[str, Array]
    inputs: tuple[onnx.ValueInfoProto, ...]
    outputs: tuple[str, ...]
    facts: "Facts"
    profile: Profile

    def constant(self, name: str) -> Array:
        """The initializer called ``name``; InputError where there is none."""
        if name not in self.constants:
            raise damaged("the initializer is missing", where=f"initializer {name}")
        return self.constants[name]

    def integers(self, name: str, *, unit: float = 1.0) -> NDArray[np.int64]:
        """The initializer divided by ``unit``, which must leave integers below 2^53."""
        array = self.constant(name)
        if array.dtype.kind != "f":
            return array.astype(np.int64)
        with np.errstate(over="ignore"):
            values = array.astype(np.float64) / unit
        if not (np.abs(values) < 2.0**53).all() or (values != np.floor(values)).any():
            raise UnsupportedError(
                f"values must be multiples of {unit!r} and below 2^53 of them",
                where=f"initializer {name}",
                todo="Edit it in whole steps, or export the model again.",
            )
        return values.astype(np.int64)

    def attribute(self, node: str, key: str) -> tuple[int, ...]:
        """An integer or integer-list attribute of the node called ``node``."""
        if node not in self.nodes:
            raise damaged("the node is missing", where=f"node {node}")
        for attribute in self.nodes[node].attribute:
            if attribute.name == key:
                is_one = attribute.type == onnx.AttributeProto.INT
                return (attribute.i,) if is_one else tuple(attribute.ints)
        raise damaged(f"attribute {key} is missing", where=f"node {node}")


class Facts:
    """The JSON object in ``bitfold.graph``, or a part of it, with typed access."""

    def __init__(self, document: Json, where: str) -> None:
        if not isinstance(document, dict):
            raise damaged("a JSON object is expected", where=where)
        self._document = document
        self.where = where

    def _get(self, key: str) -> Json:
        if key not in self._document:
            raise damaged(f"{key!r} is missing", where=self.where)
        return self._document[key]

    def _bad(self, key: str, wanted: str) -> InputError:
        return damaged(f"{key!r} must be {wanted}", where=self.where)

    def text(self, key: str) -> str:
        """A string."""
        value = self._get(key)
        if not isinstance(value, str):
            raise self._bad(key, "a string")
        return value

    def integer(self, key: str, *, most: int) -> int:
        """An integer 0 … ``most``."""
        value = self._get(key)
        if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
            raise self._bad(key, f"an integer 0 … {most}")
        return value

    def integers(self, key: str, *, count: int) -> tuple[int, ...]:
        """``count`` integers below 2^31 in size."""
        value = self._get(key)
        items = value if isinstance(value, list) else []
        numbers = [x for x in items if isinstance(x, int) and -(2**31) < x < 2**31]
        if len(numbers) != count or len(items) != count:
            raise self._bad(key, f"{count} integers")
        return tuple(numbers)

    def number(self, key: str) -> float:
        """A finite float, written in hexadecimal."""
        return self._hex(self._get(key), key)

    def numbers(self, key: str) -> tuple[float, ...]:
        """Finite floats, written in hexadecimal."""
        value = self._get(key)
        if not isinstance(value, list):
            raise self._bad(key, "a list of hexadecimal floats")
        return tuple(self._hex(item, key) for item in value)

    def _hex(self, item: Json, key: str) -> float:
        try:
            number = float.fromhex(item) if isinstance(item, str) else math.nan
        except (ValueError, OverflowError):
            number = math.nan
        if not math.isfinite(number):
            raise self._bad(key, "hexadecimal floats, finite")
        return number

    def parts(self, key: str) -> "list[Facts]":
        """A list of objects."""
        value = self._get(key)
        if not isinstance(value, list):
            raise self._bad(key, "a list")
        return [Facts(item, f"{self.where}, {key} {i}") for i, item in enumerate(value)]

    def strings(self, key: str) -> dict[str, str]:
        """An object whose values are strings."""
        value = self._get(key)
        items = value if isinstance(value, dict) else {"": None}
        strings = {k: v for k, v in items.items() if isinstance(v, str)}
        if len(strings) != len(items):
            raise self._bad(key, "an object of strings")
        return strings


def read_bytes(path: str | Path) -> bytes:
    """Content of a file; InputError where it is missing, a folder or above 512 MiB."""
    source = Path(path)
    try:
        size = source.stat().st_size
        if size > MAX_BYTES:
            raise InputError(f"{size} bytes; an ONNX file has at most {MAX_BYTES}", where=str(path))
        return source.read_bytes()
    except (OSError, ValueError) as error:
        raise InputError(
            f"cannot read the file: {error}", where=f"file {path}", todo="Check the path."
        ) from error


def parse(data: bytes) -> onnx.ModelProto:
    """The bytes of a file as a model, its texts checked; raises InputError."""
    check_wire(data)
    try:
        model: onnx.ModelProto = onnx.ModelProto.FromString(data)
    except DecodeError as error:
        raise InputError(
            f"not an ONNX model, or truncated ({len(data)} bytes)",
            where="model",
            todo="Check that the download or the export was complete.",
        ) from error
    if not model.graph.node:
        raise InputError("no graph in the file", where="model", todo="Is this an ONNX model?")
    _check_text(model)
    return model


def is_ours(model: onnx.ModelProto) -> bool:
    """Whether bitfold wrote the model: its metadata says so."""
    return {GRAPH_KEY, VERSION_KEY} <= {entry.key for entry in model.metadata_props}


def decode(model: onnx.ModelProto) -> OnnxFile:
    """Decode a model that bitfold wrote.

    Raises InputError for what is damaged, UnsupportedError for what bitfold does not write
    (external data, functions, subgraphs, other opsets).
    """
    graph = model.graph
    _check_keys(model)
    _check_plain(model)
    nodes = _by_name(graph.node)
    producers: dict[str, onnx.NodeProto] = {}
    for node in graph.node:
        for output in node.output:
            if output in producers:
                raise damaged("two nodes define one tensor", where=f"tensor {output}")
            producers[output] = node
    constants: dict[str, Array] = {}
    for tensor in graph.initializer:
        if tensor.name in constants or tensor.name in producers:
            raise damaged("its name is taken", where=f"initializer {tensor.name}")
        constants[tensor.name] = decode_tensor(tensor)
    outputs = tuple(output.name for output in graph.output)
    facts, profile = _facts(model), _profile(model)
    return OnnxFile(nodes, producers, constants, tuple(graph.input), outputs, facts, profile)


def _profile(model: onnx.ModelProto) -> Profile:
    """The profile that the file says it has; files before profiles were named are qcdq."""
    names = [entry.value for entry in model.metadata_props if entry.key == PROFILE_KEY]
    name = names[0] if names else QCDQ.name
    if name not in PROFILES:
        raise damaged(f"{name!r} is no profile", where=f"metadata {PROFILE_KEY}")
    return PROFILES[name]


def _check_text(model: onnx.ModelProto) -> None:
    """Protobuf hands out text that is not UTF-8 as bytes; no name of ours is such."""
    graph = model.graph
    texts: list[object] = [item.name for item in (*graph.input, *graph.output, *graph.initializer)]
    for node in graph.node:
        texts += [node.name, node.op_type, node.domain, *node.input, *node.output]
        texts += [attribute.name for attribute in node.attribute]
    for entry in (*model.metadata_props, *model.opset_import):
        texts += [getattr(entry, key) for key in ("key", "value", "domain") if hasattr(entry, key)]
    bad = [text for text in texts if not isinstance(text, str)]
    if bad:
        raise damaged(f"a name is not text: {bad[0]!r}", where="model")


def _by_name(nodes: Iterable[onnx.NodeProto]) -> dict[str, onnx.NodeProto]:
    found: dict[str, onnx.NodeProto] = {}
    for node in nodes:
        if node.name in found:
            raise damaged("two nodes have one name", where=f"node {node.name!r}")
        found[node.name] = node
    return found


def _check_keys(model: onnx.ModelProto) -> None:
    keys = [entry.key for entry in model.metadata_props]
    if len(set(keys)) != len(keys):
        raise damaged("a key occurs twice", where="model metadata")


def _check_plain(model: onnx.ModelProto) -> None:
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise UnsupportedError(
                "external data is refused",
                where=f"initializer {tensor.name}",
                todo="Save the model in one file (onnx.save with save_as_external_data=False).",
            )
    if model.functions or graph.sparse_initializer or model.training_info:
        raise UnsupportedError(
            "functions, sparse initializers and training parts are not supported",
            where="model",
            todo="Export the model again.",
        )
    for node in graph.node:
        if node.op_type not in OPERATORS or node.domain not in DOMAINS:
            raise UnsupportedError(
                f"operator {node.domain or 'ai.onnx'}::{node.op_type} is not supported",
                where=f"node {node.name!r}",
                todo=f"Supported: {', '.join(OPERATORS)}.",
            )
    wanted = _profile(model).opsets
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    if opsets != wanted:
        raise UnsupportedError(
            f"operator sets {opsets}, not {wanted}",
            where="model",
            todo="Export the model again: other operator sets are not read.",
        )


def decode_tensor(tensor: onnx.TensorProto) -> Array:
    """The tensor's values; InputError where dtype, dimensions and content do not fit."""
    where = f"initializer {tensor.name}"
    bits = ELEMENT_BITS.get(tensor.data_type)
    if bits is None:
        raise damaged(f"element type {tensor.data_type} is not used by bitfold", where=where)
    count = math.prod(tensor.dims)
    if min(tensor.dims, default=1) < 0 or not tensor_holds(tensor, count, bits):
        raise damaged(f"dimensions {list(tensor.dims)} do not fit its content", where=where)
    array = np.asarray(numpy_helper.to_array(tensor))
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise damaged("a value is not finite", where=where)
    return array.astype(np.int64) if bits < 8 else array


def tensor_holds(tensor: onnx.TensorProto, count: int, bits: int) -> bool:
    """Whether the tensor carries exactly ``count`` elements of ``bits`` bits."""
    if tensor.HasField("raw_data"):
        return len(tensor.raw_data) == (count * bits + 7) // 8
    lengths: Mapping[int, int] = {
        onnx.TensorProto.FLOAT: len(tensor.float_data),
        onnx.TensorProto.DOUBLE: len(tensor.double_data),
        onnx.TensorProto.INT64: len(tensor.int64_data),
    }
    typed = lengths.get(tensor.data_type, len(tensor.int32_data))
    return typed == (count * bits + 7) // 8 if bits < 8 else typed == count


def _facts(model: onnx.ModelProto) -> Facts:
    properties = {entry.key: entry.value for entry in model.metadata_props}
    where = f"metadata {GRAPH_KEY}"
    if properties[VERSION_KEY] != FORMAT:
        raise UnsupportedError(
            f"format version {properties[VERSION_KEY]!r}, this bitfold reads {FORMAT!r}",
            where=f"metadata {VERSION_KEY}",
            todo="Read it with the bitfold that wrote it, or export the model again.",
        )
    text = properties[GRAPH_KEY]
    if len(text) > MAX_TEXT:
        raise damaged(f"{len(text)} characters", where=where)
    try:
        return Facts(json.loads(text), where)
    except (ValueError, RecursionError) as error:
        if isinstance(error, BitfoldError):
            raise
        raise damaged(f"not JSON: {error}", where=where) from error
