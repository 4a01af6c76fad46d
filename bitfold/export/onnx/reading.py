"""What the readers of all ONNX profiles share: nodes read so far, and checked small values."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import onnx

from bitfold.errors import RangeError
from bitfold.export.onnx.build import tensor_name
from bitfold.export.onnx.emit import Form
from bitfold.export.onnx.file import Array, Facts, OnnxFile, damaged
from bitfold.export.onnx.single import SingleLine
from bitfold.ir import (
    INT32_MAX,
    INT32_MIN,
    FloatTensor,
    Grid,
    IntArray,
    Node,
    TensorType,
    inputs_of,
    output_type,
)

MAX_CHANNELS = 2**16
MAX_LEVELS = 256


@dataclass(slots=True)
class Reading:
    """Nodes read so far, their types, and which ONNX tensor belongs to which node."""

    file: OnnxFile
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    forms: dict[str, Form] = field(default_factory=dict)
    owners: dict[str, str] = field(default_factory=dict)
    factors: dict[str, IntArray] = field(default_factory=dict)
    singles: dict[str, SingleLine] = field(default_factory=dict)

    def define(self, name: str, node: Node) -> None:
        """Add the node called ``name``; InputError for a name taken, RangeError beyond int32."""
        if name in self.types:
            raise damaged("two nodes have one name", where=f"node {name}")
        kind = output_type(node, tuple(self.types[x] for x in inputs_of(node)))
        if not isinstance(kind, FloatTensor) and (kind.lo < INT32_MIN or kind.hi > INT32_MAX):
            raise RangeError(
                f"its range {kind.lo} … {kind.hi} does not fit int32",
                where=f"node {name}",
                todo="Undo the edit, or export the model again.",
            )
        self.nodes.append(node)
        self.types[name] = kind
        forms = (tensor_name(name), f"{name}/codes", f"{name}/indices")
        self.owners |= dict.fromkeys(forms, name)

    # where a node's input comes from

    def source(self, name: str, *, tensor: str | None = None) -> str:
        """The node whose integers ``name`` reads: walk up its chain of ONNX nodes."""
        tensor = tensor or tensor_name(name)
        for _ in range(len(self.file.nodes)):
            producer = self.file.producers.get(tensor)
            if producer is None:
                break
            slot = _data_slot(producer)
            if slot >= len(producer.input):
                break
            tensor = producer.input[slot]
            if tensor in self.owners:
                return self.owners[tensor]
        raise damaged("its input does not come from an earlier node", where=f"node {name}")

    def sources(self, name: str) -> tuple[str, ...]:
        """The nodes that an Add or Concat reads, in order."""
        producer = self.file.producers.get(tensor_name(name))
        inputs = list(producer.input) if producer is not None else []
        unknown = [x for x in inputs if x not in self.owners]
        if unknown or not inputs:
            raise damaged(f"it reads {unknown} before they exist", where=f"node {name}")
        return tuple(self.owners[x] for x in inputs)

    def image_shape(self, name: str) -> tuple[int, int, int]:
        """(H, W, C) of tensor ``name``; InputError where it is no image."""
        shape = self.types[name].shape
        if len(shape) != 3:
            raise damaged(f"it reads {name}, which is no image: {shape}", where=f"node {name}")
        return shape[0], shape[1], shape[2]


def _data_slot(node: onnx.NodeProto) -> int:
    """Which input of an ONNX node carries the integers."""
    if node.op_type == "Where":
        return 2
    return 1 if node.op_type == "MatMul" and node.name.endswith("/rows") else 0


def grid_of(facts: Facts, key: str) -> Grid:
    """The grid under ``key``; InputError for one that is none, or has more than 256 codes."""
    lo, hi, step = facts.integers(key, count=3)
    if step < 1 or hi < lo or (hi - lo) % step or (hi - lo) // step >= MAX_LEVELS:
        raise damaged(f"{key!r} {lo}:{hi}:{step} is no grid of ≤ 256 codes", where=facts.where)
    return Grid(lo, hi, step)


def one_of(values: tuple[int, ...], where: str) -> int:
    """The only number of ``values``; InputError where there are others."""
    if len(values) != 1:
        raise damaged(f"one number is expected, got {values}", where=where)
    return values[0]


def pair_of(values: tuple[int, ...], where: str) -> tuple[int, int]:
    """The two numbers of ``values``; InputError where there are more or fewer."""
    if len(values) != 2:
        raise damaged(f"two numbers are expected, got {values}", where=where)
    return values[0], values[1]


def four_of(values: tuple[int, ...], where: str) -> tuple[int, int, int, int]:
    """The four numbers of ``values``; InputError where there are more or fewer."""
    if len(values) != 4:
        raise damaged(f"four numbers are expected, got {values}", where=where)
    return values[0], values[1], values[2], values[3]


def channels_of(array: Array, name: str) -> Array:
    """A per-channel constant as (C,)."""
    if array.size > MAX_CHANNELS or array.ndim not in (1, 3) or array.size != array.shape[0]:
        raise damaged(f"shape {array.shape} is not one value a channel", where=f"node {name}")
    return array.reshape(-1)


NodeReader = Callable[[Reading, str, Facts], Node]
Readers = Mapping[str, NodeReader]
