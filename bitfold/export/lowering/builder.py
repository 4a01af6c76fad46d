"""What lowering knows while it walks the graph: the integer nodes made so far, and what they mean.

Each real-valued tensor is an integer tensor plus a *pending* per-channel affine map, and possibly a
bend (ReLU, PReLU) behind it, which its consumers absorb: a quantizer into thresholds, everything
that needs the value itself through ``stream.on_stream`` into a fixed-point rescale.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError
from bitfold.export.qgraph import Rationals
from bitfold.export.thresholds import Staircase
from bitfold.ir import (
    Accumulator,
    CodeTensor,
    IntGraph,
    Node,
    TensorType,
    WideTensor,
    check_ranges,
    inputs_of,
    output_type,
)

ErrorArray = NDArray[np.float64]
ZERO, ONE = Fraction(0), Fraction(1)


@dataclass(frozen=True, slots=True)
class Bend:
    """What follows the affine map: slopes below zero (None: a ReLU), and a ceiling or none."""

    slopes: Rationals | None = None
    ceiling: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Pending:
    """Integer tensor ``name`` with real value bend(gain[c]·X + bias[c]).

    ``error`` (C,) bounds, in real units, how far that is from the trained network's value when
    every quantized input is equal. ``image`` is the (H, W, C) shape that a flattened tensor had,
    ``likely`` as in ``Affine``.
    """

    name: str
    gain: Rationals
    bias: Rationals
    error: ErrorArray
    bend: Bend | None = None
    image: tuple[int, int, int] | None = None
    likely: tuple[float, ...] | None = None

    def then(
        self, gain: Rationals, bias: Rationals, *, likely: tuple[float, ...] | None = None
    ) -> "Pending":
        """The same integers behind another affine map; requires that there is no bend."""
        assert self.bend is None
        gains = tuple(g * h for g, h in zip(gain, self.gain, strict=True))
        biases = tuple(g * b + c for g, b, c in zip(gain, self.bias, bias, strict=True))
        steepness = np.array([abs(float(g)) for g in gain])
        error = self.error * steepness
        return replace(self, gain=gains, bias=biases, error=error, likely=likely)

    @property
    def is_uniform(self) -> bool:
        """Whether the integers are the values but for one positive scale."""
        return (
            self.bend is None
            and self.gain[0] > 0
            and all(g == self.gain[0] for g in self.gain)
            and not any(self.bias)
        )


@dataclass(frozen=True, slots=True)
class LayerReport:
    """What folding did to one layer: ``exact``, or ``bounded`` by ``error`` in real units."""

    name: str
    kind: str
    exact: bool
    error: float


@dataclass(frozen=True, slots=True)
class Decision:
    """What table ``name`` stands for: channel c gives stairs[c].index(gain[c]·X + bias[c])."""

    name: str
    gain: Rationals
    bias: Rationals
    stairs: tuple[Staircase, ...]


def exactly(name: str, scale: Fraction, channels: int) -> Pending:
    """A tensor whose integers are its values in units of ``scale``, without error."""
    return Pending(name, (scale,) * channels, (ZERO,) * channels, np.zeros(channels))


def spread(values: Sequence[Fraction], channels: int) -> Rationals:
    """One value a channel from one value, or from one a channel."""
    return tuple(values) * channels if len(values) == 1 else tuple(values)


def require_unflattened(source: Pending, name: str) -> None:
    """UnsupportedError where ``name`` treats the channels of a flattened image one by one.

    Torch flattens (C, H, W), the integers are (H, W, C): neither a vector of gains nor the codes
    of a quantizer would be in the network's order.
    """
    if source.image is not None and source.image[0] * source.image[1] > 1:
        raise UnsupportedError(
            f"it follows the flattening of an image {source.image}",
            where=f"layer {name}",
            todo="Put it in front of the flattening, or pool to 1x1 first.",
        )


@dataclass(slots=True)
class Builder:
    """The nodes made so far; lives for one call of ``lower``.

    ``fraction_bits`` is the stream's resolution; with ``adaptive`` it is only the finest one, and
    each part of the stream takes what its proven range leaves. ``last`` names the
    graph's last node.
    """

    fraction_bits: int
    adaptive: bool
    last: str
    nodes: list[Node] = field(default_factory=list)
    types: dict[str, TensorType] = field(default_factory=dict)
    known: dict[str, Pending] = field(default_factory=dict)
    streams: dict[str, Pending] = field(default_factory=dict)
    digits: dict[str, tuple[Pending, ...]] = field(default_factory=dict)
    reports: list[LayerReport] = field(default_factory=list)
    decisions: list[Decision] = field(default_factory=list)

    def emit(self, node: Node) -> TensorType:
        """Append ``node`` and infer its type; RangeError at once where int32 does not hold it."""
        kind = output_type(node, tuple(self.types[x] for x in inputs_of(node)))
        check_ranges(node, {node.name: kind})
        self.nodes.append(node)
        self.types[node.name] = kind
        return kind

    def free_name(self, name: str) -> str:
        """``name``, or with ``.wide`` where a node has it already, or with a number behind that."""
        if name not in self.types:
            return name
        wide, number = f"{name}.wide", 1
        while wide in self.types:
            wide, number = f"{name}.wide_{number}", number + 1
        return wide

    def integers(self, name: str) -> CodeTensor | Accumulator | WideTensor:
        """Type of an integer tensor."""
        tensor = self.types[name]
        assert isinstance(tensor, CodeTensor | Accumulator | WideTensor)
        return tensor

    def largest(self, name: str) -> int:
        """Greatest magnitude in the proven range of an integer tensor."""
        tensor = self.integers(name)
        return max(abs(tensor.lo), abs(tensor.hi))

    def report(self, name: str, kind: str, error: float) -> None:
        """Record how exactly a layer was folded."""
        self.reports.append(LayerReport(name, kind, exact=error == 0.0, error=error))

    def graph(self, meta: dict[str, str]) -> IntGraph:
        """The integer graph of all nodes."""
        return IntGraph.of(self.nodes, meta=meta)
