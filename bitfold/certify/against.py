"""Two models of one network that can be read: the first node, in topological order, that differs.

They are compared as integer graphs, by the oracle. ``against_files`` does it where one is not read.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, field

import numpy as np
from numpy.typing import NDArray

from bitfold.certify.causes import UNKNOWN, Cause, Values, likely_cause
from bitfold.certify.stages import FirstDifference, Stage
from bitfold.certify.structure import Alignment, align, is_output, parameter_differences
from bitfold.ir import CodeTensor, IntGraph, Node, TensorType, trace_float64

BATCH = 50
INTEGERS = "integer graphs"


@dataclass(slots=True)
class TensorPair:
    """One tensor that both models hold: what was compared and what differs."""

    name: str
    other: str
    compared: int = 0
    mismatches: int = 0
    max_abs_diff: float = 0.0
    first: FirstDifference | None = None

    def add(
        self,
        got: NDArray[np.generic],
        want: NDArray[np.generic],
        offset: int,
        explain: Callable[[], Cause],
    ) -> None:
        """Compare a batch that starts at image ``offset``; ``explain`` is asked at most once."""
        self.compared += want.size
        # Two NaN are alike: the models do the same.
        wrong = (got != want) & ~((got != got) & (want != want))
        if not wrong.any():
            return
        self.mismatches += int(wrong.sum())
        difference = np.abs(got[wrong].astype(np.float64) - want[wrong].astype(np.float64))
        self.max_abs_diff = max(self.max_abs_diff, float(difference.max()))
        if self.first is None:
            place = tuple(int(i) for i in np.argwhere(wrong)[0])
            index = (place[0] + offset, *place[1:]) if place else ()
            found, right = (float(array[place].astype(np.float64)) for array in (got, want))
            cause = explain()
            self.first = FirstDifference(self.name, index, found, right, cause.kind, cause.why)


@dataclass(frozen=True, slots=True)
class Bisection:
    """What two models have in common, and where they part.

    ``structure`` says in sentences what one has and the other has not; ``how`` they were compared.
    """

    first: str
    second: str
    how: str
    images: int
    tensors: tuple[TensorPair, ...]
    results: tuple[TensorPair, ...]
    structure: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Every number that both hold is equal, the results among them."""
        pairs = (*self.tensors, *self.results)
        return bool(self.results) and not any(pair.mismatches for pair in pairs)

    @property
    def place(self) -> FirstDifference | None:
        """The first difference in topological order."""
        pairs = (*self.tensors, *self.results)
        return next((pair.first for pair in pairs if pair.first is not None), None)

    def stages(self) -> tuple[Stage, ...]:
        """All tensors as one stage, the results as another."""
        made = []
        for what, pairs in (("tensors", self.tensors), ("results", self.results)):
            made.append(
                Stage(
                    f"{self.first}, {what}", self.second, sum(p.compared for p in pairs),
                    sum(p.mismatches for p in pairs),
                    max((p.max_abs_diff for p in pairs), default=0.0),
                    next((p.first for p in pairs if p.first is not None), None),
                    detail=f"{len(pairs)} tensors in {self.how}",
                )
            )  # fmt: skip
        return tuple(made)

    def to_dict(self) -> dict[str, object]:
        """The JSON form, below ``against``."""
        return {
            "model": self.first, "other": self.second, "how": self.how,
            "first": None if self.place is None else asdict(self.place),
            "structure": list(self.structure),
            "tensors": [asdict(pair) for pair in (*self.tensors, *self.results)],
        }  # fmt: skip


@dataclass(frozen=True, slots=True)
class Side:
    """A model that can be read: what to call it, its graph, and the pixels it gets."""

    label: str
    graph: IntGraph
    pixels: NDArray[np.uint8] = field(repr=False)


def bisect_graphs(first: Side, second: Side) -> Bisection:
    """Compare two graphs on the same images, by the oracle."""
    alignment = align(first.graph, second.graph)
    pairs = {pair[0].name: TensorPair(pair[0].name, pair[1].name) for pair in alignment.pairs}
    count = min(len(first.pixels), len(second.pixels))
    for offset in range(0, count, BATCH):
        batch = slice(offset, offset + BATCH)
        traces = [trace_float64(side.graph, side.pixels[batch]) for side in (first, second)]
        for nodes in alignment.pairs:
            got, want = traces[0][nodes[0].name], traces[1][nodes[1].name]
            kinds = [s.graph.types[n.name] for s, n in zip((first, second), nodes, strict=True)]
            explain = _Explanation(second.graph, alignment, nodes, got, want, traces[1])
            pairs[nodes[0].name].add(
                _plain(got, *kinds), _plain(want, *kinds[::-1]), offset, explain
            )
    results = [pairs.pop(node.name) for node, _ in alignment.pairs if is_output(node)]
    return Bisection(
        first.label, second.label, INTEGERS, count, tuple(pairs.values()), tuple(results),
        tuple(_structure(first, second, alignment)),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Explanation:
    """Why a pair of nodes differs, if it does."""

    graph: IntGraph
    alignment: Alignment
    nodes: tuple[Node, Node]
    got: Values
    want: Values
    trace: Mapping[str, Values]

    def __call__(self) -> Cause:
        """From the values, and from what differs between both nodes."""
        held = {node.name for _, node in self.alignment.pairs}
        name = self.nodes[1].name
        found = likely_cause(
            self.graph, name, got=self.got, want=self.want, trace=self.trace, held=held
        )
        told = "; ".join(parameter_differences(*self.nodes))
        if not told:
            return found
        if found == UNKNOWN:
            return Cause("parameters", told)
        return Cause(found.kind, f"{found.why}; {told}")


def _plain(values: Values, kind: TensorType, other: TensorType) -> Values:
    """Codes as indices where the two grids differ: a shift of all codes is no difference."""
    if not isinstance(kind, CodeTensor) or not isinstance(other, CodeTensor):
        return values
    if kind.grid == other.grid or kind.grid.levels != other.grid.levels:
        return values
    return (values.astype(np.int64) - kind.grid.lo) // kind.grid.step


def _structure(first: Side, second: Side, alignment: Alignment) -> Iterable[str]:
    for side, names in ((first, alignment.only_first), (second, alignment.only_second)):
        yield from (f"only {side.label} has {name}" for name in names)
    for nodes in alignment.pairs:
        kinds = [s.graph.types[n.name] for s, n in zip((first, second), nodes, strict=True)]
        grids = [kind.grid for kind in kinds if isinstance(kind, CodeTensor)]
        if len(grids) == 2 and grids[0] != grids[1]:
            yield f"{nodes[0].name} has codes {grids[0]}, not {grids[1]}"
