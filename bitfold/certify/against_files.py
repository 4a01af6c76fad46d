"""Two ONNX files under ONNX Runtime, tensor by tensor of one name: where one cannot be read.

The file that can be read, if it is one of ours, says what its tensors mean; a difference in one of
them is explained as in a certificate.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.certify.against import BATCH, Bisection, TensorPair
from bitfold.certify.causes import UNKNOWN, Cause, layout_of, likely_cause
from bitfold.errors import UsageError
from bitfold.ir import IntGraph, trace_float64

if TYPE_CHECKING:
    from bitfold.export import Exposed, RunnableModel

RUNTIME = "ONNX Runtime"
Arrays = Mapping[str, NDArray[np.generic]]


@dataclass(frozen=True, slots=True)
class FileSide:
    """A model that ONNX Runtime runs: what to call it, its file, the values it gets.

    ``graph``: what its tensors mean, where it can be read.
    """

    label: str
    path: Path
    values: NDArray[np.generic] = field(repr=False)
    graph: IntGraph | None = None


@dataclass(frozen=True, slots=True)
class _Meaning:
    """The integer graph behind one of the two files, and which tensor holds which node."""

    graph: IntGraph
    copy: "Exposed"
    is_first: bool
    nodes: Mapping[str, str]

    @classmethod
    def of(cls, sides: "tuple[FileSide, FileSide]") -> "_Meaning | None":
        """From the first side that is a readable file of ours and takes pixels."""
        from bitfold.export import exposed, profile_in

        for is_first, side in zip((True, False), sides, strict=True):
            pixels = side.values.dtype == np.uint8 and side.values.ndim == 4
            if side.graph is not None and pixels:
                data = side.path.read_bytes()
                if profile_in(data) is not None:
                    copy = exposed(data)
                    nodes = {tensor: node for node, tensor in copy.tensors.items()}
                    return cls(side.graph, copy, is_first, nodes)
        return None

    def cause(self, name: str, got: Arrays, want: Arrays, pixels: NDArray[np.uint8]) -> Cause:
        """Why tensor ``name``, or the one its layer gives, differs."""
        from bitfold.export import node_integers

        node = self.nodes.get(name, name.partition("/")[0])
        if node not in self.copy.tensors:
            return UNKNOWN
        tensor = self.copy.tensors[node]
        if tensor not in got or tensor not in want:
            return UNKNOWN
        own, other = (got, want) if self.is_first else (want, got)
        right, wrong = (node_integers(self.copy, node, a[tensor]) for a in (own, other))
        if right.shape != wrong.shape or (right == wrong).all():
            return UNKNOWN
        held = {key for key, name_of in self.copy.tensors.items() if name_of in other}
        trace = trace_float64(self.graph, pixels)
        return likely_cause(self.graph, node, got=wrong, want=right, trace=trace, held=held)


def bisect_files(first: FileSide, second: FileSide) -> Bisection:
    """Compare two files under ONNX Runtime: results, and every tensor whose name both have.

    Raises UnsupportedError where it does not run one, UsageError where their numbers of outputs
    differ or the values do not fit.
    """
    from bitfold.export import run_tensors, runnable_model

    models = [runnable_model(side.path) for side in (first, second)]
    outputs = [model.outputs for model in models]
    if len(outputs[0]) != len(outputs[1]):
        raise UsageError(
            f"{len(outputs[0])} outputs against {len(outputs[1])}",
            where=f"files {first.path}, {second.path}",
            todo="Compare models of one network.",
        )
    others = set(models[1].tensors)
    shared = [n for n in models[0].tensors if n in others and n not in (*outputs[0], *outputs[1])]
    tensors = {name: TensorPair(name, name) for name in shared}
    results = {a: TensorPair(a, b) for a, b in zip(*outputs, strict=True)}
    explain = _Explanation((models[0], models[1]), _Meaning.of((first, second)))
    structure: dict[str, None] = {}
    for offset in range(0, len(first.values), BATCH):
        feeds = [side.values[offset : offset + BATCH] for side in (first, second)]
        inner = [
            run_tensors(model, feed, shared, optimized=False)
            for model, feed in zip(models, feeds, strict=True)
        ]
        told = _compare(tensors, (inner[0], inner[1]), offset, partial(explain, feeds[0]))
        structure |= dict.fromkeys(told)
        whole = [
            run_tensors(model, feed, names, optimized=True)
            for model, feed, names in zip(models, feeds, outputs, strict=True)
        ]
        told = _compare(results, (whole[0], whole[1]), offset, partial(explain, feeds[0]))
        structure |= dict.fromkeys(told)
    compared = tuple(pair for pair in tensors.values() if pair.compared)
    found = tuple(pair for pair in results.values() if pair.compared)
    counts = _only(models[0].tensors, models[1].tensors, first, second)
    return Bisection(
        first.label, second.label, RUNTIME, len(first.values), compared, found,
        (*counts, *structure),
    )  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Explanation:
    """Why a tensor differs, if it does."""

    models: "tuple[RunnableModel, RunnableModel]"
    meaning: _Meaning | None

    def __call__(
        self, values: NDArray[np.generic], names: tuple[str, str], got: Arrays, want: Arrays
    ) -> Cause:
        """From what the tensor means, where that is known, and from the operators that give it."""
        from bitfold.export import operator_differences

        a, b = got[names[0]], want[names[1]]
        why = layout_of(a, b)
        found = UNKNOWN if why is None else Cause("layout", why)
        if found == UNKNOWN and self.meaning is not None:
            found = self.meaning.cause(names[0], got, want, values.astype(np.uint8))
        told = "; ".join(operator_differences(*self.models, names))
        if not told:
            return found
        return (
            Cause("parameters", told)
            if found == UNKNOWN
            else Cause(found.kind, f"{found.why}; {told}")
        )


def _compare(
    pairs: Mapping[str, TensorPair],
    traces: tuple[Arrays, Arrays],
    offset: int,
    explain: Callable[[tuple[str, str], Arrays, Arrays], Cause],
) -> Iterable[str]:
    """Compare what both have; what has two shapes is told."""
    got, want = traces
    for name, pair in pairs.items():
        if name not in got or pair.other not in want:
            continue
        a, b = got[name], want[pair.other]
        if a.shape == b.shape:
            pair.add(a, b, offset, partial(explain, (name, pair.other), got, want))
            continue
        yield f"{name} has shape {_sizes(a)}, not {_sizes(b)}{_turned(a, b)}"


def _sizes(array: NDArray[np.generic]) -> str:
    return "x".join(map(str, array.shape))


def _turned(got: NDArray[np.generic], want: NDArray[np.generic]) -> str:
    """That one is the other in another layout, where it is."""
    if got.ndim != 4 or want.ndim != 4:
        return ""
    for order, what in (((0, 3, 1, 2), "channels first"), ((0, 2, 3, 1), "channels last")):
        if np.array_equal(got.transpose(order), want):
            return f": layout, equal with {what}"
    return ""


def _only(first: Sequence[str], second: Sequence[str], a: FileSide, b: FileSide) -> Iterable[str]:
    for names, others, side in ((first, second, a), (second, first, b)):
        alone = [name for name in names if name not in set(others)]
        if alone:
            yield f"only {side.label} has {len(alone)} of its {len(names)} tensors, as {alone[0]}"
