"""The quantized float graph between tracing and folding: real-valued ops with explicit quantizers.

Everything a fold needs is exact: weights are codes with rational scales, activation quantizers
have rational scales, and a batch norm is its four vectors. A pass maps a ``QGraph`` to a new one.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Literal

from bitfold.ir import Grid, IntArray

Rationals = tuple[Fraction, ...]
Ties = Literal["even", "up"]


@dataclass(frozen=True, slots=True)
class Pixels:
    """The image: real value (pixel − means[c])/stds[c]; ``shape`` is (H, W, C)."""

    name: str
    shape: tuple[int, int, int]
    means: Rationals
    stds: Rationals


@dataclass(frozen=True, slots=True)
class AppendOne:
    """Behind the channels of codes x one more that is ``code`` everywhere (arithmetic.md, eq. 24).

    Zero padding then marks what lies outside the image.
    """

    name: str
    x: str
    code: int


@dataclass(frozen=True, slots=True)
class Conv:
    """Convolution with weight codes (O, KH, KW, I/groups); real weight = scales[o] · code.

    ``grid`` may be wider than 8 bits: lowering splits such codes into digits.
    """

    name: str
    x: str
    weight: IntArray
    grid: Grid
    scales: Rationals
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int
    bias: Rationals | None = None


@dataclass(frozen=True, slots=True)
class FullyConnected:
    """Fully connected layer with weight codes (O, I) and a real bias (O,)."""

    name: str
    x: str
    weight: IntArray
    grid: Grid
    scales: Rationals
    bias: Rationals


@dataclass(frozen=True, slots=True)
class BatchNorm:
    """gamma · (x − mean)/sqrt(var + eps) + beta per channel, all float64 values."""

    name: str
    x: str
    gamma: tuple[float, ...]
    beta: tuple[float, ...]
    mean: tuple[float, ...]
    var: tuple[float, ...]
    eps: float


@dataclass(frozen=True, slots=True)
class Affine:
    """gain[c] · x + bias[c].

    ``likely`` (C,) is a magnitude that a trained network's values do not reach, where statistics
    say so; a proof it is not.
    """

    name: str
    x: str
    gain: Rationals
    bias: Rationals
    likely: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class Relu:
    """max(x, 0), and min(·, ceiling) where there is one (ReLU6)."""

    name: str
    x: str
    ceiling: Fraction | None = None


@dataclass(frozen=True, slots=True)
class Prelu:
    """x where x ≥ 0, slopes[c] · x below."""

    name: str
    x: str
    slopes: Rationals


@dataclass(frozen=True, slots=True)
class Activation:
    """Activation quantizer: index = clamp(round(x/scale)), on ``grid``; one scale or one a channel.

    ``ties`` as ``bitfold.models.ActivationQuantizer`` defines it. ``layer`` names the module that
    it stands for, where that is not ``name``.
    """

    name: str
    x: str
    grid: Grid
    scales: Rationals
    ties: Ties = "even"
    layer: str = ""


@dataclass(frozen=True, slots=True)
class Sum:
    """a + b.

    ``fine``: two tensors of codes are added in the ratio of their scales, not on the stream.
    """

    name: str
    a: str
    b: str
    fine: bool = False


@dataclass(frozen=True, slots=True)
class Join:
    """The channels of all inputs, in order."""

    name: str
    xs: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Steps:
    """A quantizer given by its crossings: value scale · (grid.lo + index) + offset.

    index = #{j: crossings[c][j] ≤ x}, or < x where ``strict[j]``; one row of ascending
    ``crossings``, or one a channel.
    """

    name: str
    x: str
    crossings: tuple[Rationals, ...]
    grid: Grid
    scale: Fraction
    offset: Fraction = Fraction(0)
    strict: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Flex:
    """BASQ's skip to another number of channels: repetition, or the sum of channel groups."""

    name: str
    x: str
    channels: int


@dataclass(frozen=True, slots=True)
class PadChannels:
    """Zero channels behind those of x, ``channels`` in total."""

    name: str
    x: str
    channels: int


@dataclass(frozen=True, slots=True)
class MaxPool:
    """Window maximum."""

    name: str
    x: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class MeanPool:
    """Window mean; ``kernel`` None means the whole image."""

    name: str
    x: str
    kernel: tuple[int, int] | None
    stride: tuple[int, int] | None


@dataclass(frozen=True, slots=True)
class Flatten:
    """An image → a vector: (C, H, W) as torch orders it, or (H, W, C) with ``channels_last``."""

    name: str
    x: str
    channels_last: bool = False


QNode = (
    Pixels | AppendOne | Conv | FullyConnected | BatchNorm | Affine | Relu | Prelu | Activation
    | Steps | Sum | Join | Flex | PadChannels | MaxPool | MeanPool | Flatten
)  # fmt: skip


def sources(node: QNode) -> tuple[str, ...]:
    """Names of the tensors that ``node`` reads."""
    match node:
        case Pixels():
            return ()
        case Sum(a=a, b=b):
            return (a, b)
        case Join(xs=xs):
            return xs
        case _:
            return (node.x,)


@dataclass(frozen=True, slots=True)
class QGraph:
    """Nodes in topological order, ``Pixels`` first, the logits last."""

    nodes: tuple[QNode, ...]
    meta: tuple[tuple[str, str], ...] = ()

    def __getitem__(self, name: str) -> QNode:
        """The node of that name."""
        return next(node for node in self.nodes if node.name == name)

    def consumers(self, name: str) -> tuple[QNode, ...]:
        """Nodes that read tensor ``name``."""
        return tuple(node for node in self.nodes if name in sources(node))

    def rewrite(self, rule: Callable[[QNode], Iterable[QNode]]) -> "QGraph":
        """Replace every node by what ``rule`` gives for it (nothing, one or several nodes)."""
        return QGraph(tuple(new for node in self.nodes for new in rule(node)), self.meta)
