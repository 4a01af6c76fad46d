"""A graph in numbers: one row a node, and the totals; pure functions of the graph."""

import math
from dataclasses import asdict, dataclass

from bitfold.ir import (
    Accumulator,
    CodeTensor,
    Conv2d,
    IntGraph,
    Linear,
    Node,
    TensorType,
    WideTensor,
    inputs_of,
)
from bitfold.ir.types import signed_bits


@dataclass(frozen=True, slots=True)
class LayerRow:
    """One node: ``shape`` and ``lo … hi`` of its result; weights where it has some."""

    name: str
    op: str
    shape: tuple[int, ...]
    w_bits: int | None
    w_grid: str | None
    a_bits: int | None
    a_grid: str | None
    macs: int
    parameters: int
    packed_bytes: int
    lo: int | None
    hi: int | None
    acc_bits: int | None
    kernel: str | None

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        return asdict(self)


def macs_of(node: Node, shape: tuple[int, ...]) -> int:
    """Multiplications of one image; ``shape`` is the result's."""
    match node:
        case Conv2d(weight=weight):
            return math.prod(shape) * math.prod(weight.shape[1:])
        case Linear(weight=weight):
            return int(weight.size)
        case _:
            return 0


def packed_bytes_of(node: Node) -> int:
    """Bytes of the weights at their own width, bit-packed; biases not counted."""
    match node:
        case Conv2d() | Linear():
            return (int(node.weight.size) * node.weight_grid.bits + 7) // 8
        case _:
            return 0


def _range(kind: TensorType) -> tuple[int | None, int | None, int | None]:
    if isinstance(kind, (Accumulator, WideTensor)):
        return kind.lo, kind.hi, signed_bits(kind.lo, kind.hi)
    if isinstance(kind, CodeTensor):
        return kind.lo, kind.hi, None
    return None, None, None


def _row(node: Node, graph: IntGraph, kernel: str | None) -> LayerRow:
    kind = graph.types[node.name]
    weighted = isinstance(node, (Conv2d, Linear))
    source = graph.types[inputs_of(node)[0]] if weighted else kind
    grid = source.grid if isinstance(source, CodeTensor) else None
    lo, hi, acc_bits = _range(kind)
    return LayerRow(
        name=node.name,
        op=type(node).__name__,
        shape=tuple(kind.shape),
        w_bits=node.weight_grid.bits if isinstance(node, (Conv2d, Linear)) else None,
        w_grid=str(node.weight_grid) if isinstance(node, (Conv2d, Linear)) else None,
        a_bits=None if grid is None else grid.bits,
        a_grid=None if grid is None else str(grid),
        macs=macs_of(node, tuple(kind.shape)),
        parameters=int(node.weight.size + node.bias.size)
        if isinstance(node, (Conv2d, Linear))
        else 0,
        packed_bytes=packed_bytes_of(node),
        lo=lo,
        hi=hi,
        acc_bits=acc_bits,
        kernel=kernel,
    )


def layer_rows(graph: IntGraph, *, kernels: dict[str, str]) -> tuple[LayerRow, ...]:
    """One row a node, in order; ``kernels`` maps node names to the kernel that runs them."""
    return tuple(_row(node, graph, kernels.get(node.name)) for node in graph.nodes)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over the layers with weights."""

    layers: int
    macs: int
    parameters: int
    packed_weight_bytes: int


def totals(graph: IntGraph) -> Totals:
    """Layers with weights, their multiplications an image, parameters and packed bytes."""
    rows = [row for row in layer_rows(graph, kernels={}) if row.w_bits is not None]
    return Totals(
        layers=len(rows),
        macs=sum(row.macs for row in rows),
        parameters=sum(row.parameters for row in rows),
        packed_weight_bytes=sum(row.packed_bytes for row in rows),
    )
