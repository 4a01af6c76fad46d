"""The immutable integer graph: a tuple of nodes with inferred types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Self

from bitfold.errors import OrderError
from bitfold.ir.ops import Dequantize, Node, Quantize, inputs_of
from bitfold.ir.ranges import infer_types
from bitfold.ir.types import TensorType


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
        """A graph with its types inferred; raises GraphError subclasses on nodes that do not fit."""
        ordered = tuple(nodes)
        defined: set[str] = set()
        for node in ordered:
            missing = [x for x in inputs_of(node) if x not in defined]
            if missing or node.name in defined:
                what = f"reads {missing} before they exist" if missing else "its name is taken"
                raise OrderError(what, where=f"node {node.name}")
            defined.add(node.name)
        if not ordered or not isinstance(ordered[0], Quantize):
            raise OrderError("the first node must be Quantize", where="graph")
        if not isinstance(ordered[-1], Dequantize):
            raise OrderError("the last node must be Dequantize", where="graph")
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
