"""The immutable integer graph: a tuple of nodes with inferred types."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from bitfold.errors import OrderError
from bitfold.ir.ops import Dequantize, Node, Quantize, inputs_of
from bitfold.ir.ranges import infer_types
from bitfold.ir.types import TensorType


def check_order(nodes: Sequence[Node]) -> None:
    """Invariant 1: unique names, inputs before readers, one ``Quantize``, one ``Dequantize``.

    Raises OrderError.
    """
    defined: set[str] = set()
    for node in nodes:
        where = f"node {node.name}"
        missing = [x for x in inputs_of(node) if x not in defined]
        if missing:
            raise OrderError(
                f"it reads {', '.join(missing)} before it is defined",
                where=where,
                todo="List nodes in topological order.",
            )
        if node.name in defined:
            raise OrderError("its name is taken", where=where, todo="Give every node its own name.")
        defined.add(node.name)
    for kind, place in ((Quantize, 0), (Dequantize, -1)):
        at = [i for i, node in enumerate(nodes) if isinstance(node, kind)]
        if at != [place % len(nodes) if nodes else place]:
            raise OrderError(
                f"{kind.__name__} stands at {at} of {len(nodes)} nodes",
                where="graph",
                todo="A graph has one Quantize, its first node, and one Dequantize, its last.",
            )


@dataclass(frozen=True, slots=True)
class IntGraph:
    """Nodes in topological order, from one ``Quantize`` to one ``Dequantize``.

    ``meta`` holds (key, value) strings that travel with the graph: method, net, bits, classes.
    ``types`` maps each node's name to the type of the tensor it defines; it is derived.
    Build with ``IntGraph.of``; check with ``bitfold.ir.verify``.
    """

    nodes: tuple[Node, ...]
    meta: tuple[tuple[str, str], ...] = ()
    types: Mapping[str, TensorType] = field(default_factory=dict, compare=False, repr=False)

    @classmethod
    def of(cls, nodes: Iterable[Node], *, meta: Mapping[str, str] | None = None) -> Self:
        """A graph with its types inferred; raises GraphErrors on nodes that do not fit."""
        ordered = tuple(nodes)
        check_order(ordered)
        return cls(
            ordered,
            tuple(sorted((meta or {}).items())),
            MappingProxyType(dict(infer_types(ordered))),
        )

    @property
    def input(self) -> Quantize:
        """The node that takes raw pixels."""
        node = self.nodes[0]
        assert isinstance(node, Quantize)
        return node

    @property
    def output(self) -> Dequantize:
        """The node that gives float32 results."""
        node = self.nodes[-1]
        assert isinstance(node, Dequantize)
        return node

    def consumers(self, name: str) -> tuple[Node, ...]:
        """Nodes that read tensor ``name``, in order."""
        return tuple(node for node in self.nodes if name in inputs_of(node))
