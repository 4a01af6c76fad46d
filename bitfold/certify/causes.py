"""Why two forms of a tensor probably differ, from what the numbers themselves show.

Each rule looks at the first tensor that differs, whose inputs are equal, and speaks only where the
evidence is specific; where no rule does, the cause is unknown. The rules in their order:

layout         the same numbers in another order of axes or channels
rounding mode  a rescale that rounds otherwise, or codes as half a step would shift them
tie            a rescale that rounds halves otherwise, or codes off by one next to a threshold
padding value  only windows that leave the image differ
saturation     values clipped or wrapped at a machine limit, or pairs of products beyond 16 bits
"""

from collections.abc import Container, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitfold.certify.roundings import rescale_cause, threshold_cause
from bitfold.certify.saturation import clip_cause, pair_cause
from bitfold.ir import (
    CodeTensor,
    Conv2d,
    FloatTensor,
    IntArray,
    IntGraph,
    Linear,
    MaxPool2d,
    Node,
    Rescale,
    Thresholds,
    inputs_of,
)
from bitfold.ir.float64 import apply_float64

Kind = Literal[
    "tie", "saturation", "padding value", "rounding mode", "layout", "parameters", "unknown"
]
Values = NDArray[np.int64] | NDArray[np.float32]

IMAGES_EXAMINED = 4
# Fewer numbers than this come out as each other's permutation too easily.
TELLING_VALUES = 8
# That differences lie on the border alone by accident.
CHANCE = 0.01


@dataclass(frozen=True, slots=True)
class Cause:
    """What probably made two tensors differ, and the evidence in a few words."""

    kind: Kind
    why: str


UNKNOWN = Cause("unknown", "")


def likely_cause(
    graph: IntGraph,
    name: str,
    *,
    got: Values,
    want: Values,
    trace: Mapping[str, Values],
    held: Container[str],
) -> Cause:
    """The cause of got ≠ want at tensor ``name``, both (N, …, C).

    ``trace`` has all of the graph's own tensors for the same images, ``held`` the names that the
    other form has too: those in front of ``name`` are equal.
    """
    wrong = (got != want).reshape(len(want), -1).any(1)
    rows = np.flatnonzero(wrong)[:IMAGES_EXAMINED]
    few = {key: values[rows] for key, values in trace.items() if len(values) == len(want)}
    case = _Case(graph, _node(graph, name), got[rows], want[rows], few, held)
    return next((cause for cause in case.causes()), UNKNOWN)


def _node(graph: IntGraph, name: str) -> Node:
    return next(node for node in graph.nodes if node.name == name)


@dataclass(frozen=True, slots=True)
class _Case:
    """A tensor that differs, on the few images that show it."""

    graph: IntGraph
    node: Node
    got: Values
    want: Values
    trace: Mapping[str, Values]
    held: Container[str]

    def causes(self) -> Iterator[Cause]:
        """What each rule finds, in their order."""
        if why := layout_of(self.got, self.want):
            yield Cause("layout", why)
        if isinstance(self.graph.types[self.node.name], FloatTensor):
            return
        got, want = self.got.astype(np.int64), self.want.astype(np.int64)
        yield from self._of_rounding(got, want)
        yield from self._of_windows(got, want)
        kind = self.graph.types[self.node.name]
        grid = kind.grid if isinstance(kind, CodeTensor) else None
        if why := clip_cause(got, want, grid):
            yield Cause("saturation", why)

    def _of_rounding(self, got: IntArray, want: IntArray) -> Iterator[Cause]:
        x = self.trace.get(inputs_of(self.node)[0]) if inputs_of(self.node) else None
        if x is None:
            return
        found = None
        if isinstance(self.node, Rescale):
            found = rescale_cause(self.node, x.astype(np.int64), got)
        elif isinstance(self.node, Thresholds):
            found = threshold_cause(self.node, x.astype(np.int64), got, want)
        if found is not None:
            yield Cause(*found)

    def _of_windows(self, got: IntArray, want: IntArray) -> Iterator[Cause]:
        source = self._source()
        if source is None or source.x not in self.trace:
            return
        x = self.trace[source.x].astype(np.int64)
        is_itself = source.name == self.node.name
        if not isinstance(source, Linear) and (
            why := padding_cause(source, x, got - want, is_itself=is_itself)
        ):
            yield Cause("padding value", why)
        if isinstance(source, Conv2d | Linear):
            lo = self.graph.types[source.x]
            assert isinstance(lo, CodeTensor)
            sums = got if is_itself else None
            if why := pair_cause(source, x, got != want, lo=lo.lo, sums=sums):
                yield Cause("saturation", why)

    def _source(self) -> Conv2d | Linear | MaxPool2d | None:
        """The product or maximum behind the tensor, through what the other form does not hold."""
        node = self.node
        while not isinstance(node, Conv2d | Linear | MaxPool2d):
            if not isinstance(node, Thresholds | Rescale) or node.x in self.held:
                return None
            node = _node(self.graph, node.x)
        return node


def layout_of(got: NDArray[np.generic], want: NDArray[np.generic]) -> str | None:
    """Which other order of axes or channels makes ``got`` (N, …, C) equal to ``want``."""
    if np.unique(want).size < 2 or got.size < TELLING_VALUES:
        return None
    if want.ndim == 4:
        num, height, width, channels = want.shape
        first = want.transpose(0, 3, 1, 2).reshape(want.shape)
        last = want.reshape(num, channels, height, width).transpose(0, 2, 3, 1)
        turned = want.transpose(0, 2, 1, 3).reshape(want.shape)
        for what, other in (
            ("channels first where channels last are meant", first),
            ("channels last where channels first are meant", last),
            ("rows and columns exchanged", turned),
        ):
            if np.array_equal(got, other):
                return what
    return _permutation(got, want)


def _permutation(got: NDArray[np.generic], want: NDArray[np.generic]) -> str | None:
    """The channels in another order, where they are distinct enough to tell."""
    columns = [np.ascontiguousarray(np.moveaxis(a, -1, 0)) for a in (got, want)]
    keys = [[column.tobytes() for column in columns_of] for columns_of in columns]
    if len(set(keys[1])) * columns[1][0].size < TELLING_VALUES or len(set(keys[1])) < 3:
        return None
    if sorted(keys[0]) != sorted(keys[1]):
        return None
    moved = next(i for i, (a, b) in enumerate(zip(*keys, strict=True)) if a != b)
    return (
        f"channels in another order: {moved} holds what belongs to {keys[1].index(keys[0][moved])}"
    )


def padding_cause(
    node: Conv2d | MaxPool2d, x: IntArray, difference: IntArray, *, is_itself: bool
) -> str | None:
    """What windows that leave the image say; ``is_itself``: these are the node's own results."""
    if difference.ndim != 4:
        return None
    outside = _leaves_image(node, x.shape[1:3], difference.shape[1:3])
    wrong = difference.any(axis=(0, 3))
    if not outside.any() or (wrong & ~outside).any():
        return None
    if is_itself and isinstance(node, Conv2d) and (code := _padded_with(node, x, difference)):
        return f"positions outside the image count as code {code}, not 0"
    if outside.mean() ** int(wrong.sum()) > CHANCE:
        return None
    return f"only windows that leave the image differ: {int(wrong.sum())} of {wrong.size} positions"


def _leaves_image(
    node: Conv2d | MaxPool2d, size: tuple[int, ...], out: tuple[int, ...]
) -> NDArray[np.bool_]:
    """(OH, OW): whether the window there reaches over an edge of the image."""
    kernel = node.weight.shape[1:3] if isinstance(node, Conv2d) else node.kernel
    over = []
    for axis in (0, 1):
        start = np.arange(out[axis]) * node.stride[axis] - node.padding[axis]
        over.append((start < 0) | (start + kernel[axis] > size[axis]))
    return np.asarray(over[0][:, None] | over[1][None, :])


def _padded_with(node: Conv2d, x: IntArray, difference: IntArray) -> int:
    """The code p with difference = p · Σ(weights outside the image) everywhere; 0 without one."""
    ones = np.ones((1, *x.shape[1:]), dtype=np.int64)
    inside = apply_float64(replace(node, bias=np.zeros_like(node.bias)), [ones])
    outside = node.weight.reshape(len(node.weight), -1).sum(1) - inside
    at = np.argwhere((outside != 0) & (difference != 0))
    if not len(at):
        return 0
    place = tuple(at[0])
    code = int(difference[place]) // int(outside[(0, *place[1:])])
    return (
        code if np.array_equal(difference, np.broadcast_to(code * outside, difference.shape)) else 0
    )
