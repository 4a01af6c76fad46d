"""The closed set of operations, one frozen dataclass each (docs/ir.md has the equations).

``name`` is the node's name and the name of the tensor it defines; ``x`` (or ``a`` and ``b``,
``xs``) name its inputs. Constant arrays are int64 and read-only. Layout is NHWC; weights are
(O, KH, KW, I/groups); C is the channel count of the tensor at hand.
"""

from dataclasses import Field, dataclass, fields
from typing import ClassVar

import numpy as np
from numpy.typing import ArrayLike

from bitfold.errors import OffGridError
from bitfold.ir.grid import Grid
from bitfold.ir.types import IntArray, Scales, Shape


def frozen_array(values: ArrayLike) -> IntArray:
    """A read-only, C-contiguous int64 copy of ``values``; OffGridError unless they are integers."""
    given = np.asarray(values)
    if given.size and given.dtype.kind not in "iub":
        raise OffGridError(
            f"a constant array has dtype {given.dtype}",
            todo="Round to integers of at most 64 bits first: nothing is truncated silently.",
        )
    array = np.array(given, dtype=np.int64, order="C")
    array.flags.writeable = False
    return array


class _Node:
    """Freezes array fields and compares nodes by value."""

    __slots__ = ()
    __dataclass_fields__: ClassVar[dict[str, Field[object]]]

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, np.ndarray):
                object.__setattr__(self, field.name, frozen_array(value))

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(_same(getattr(self, f.name), getattr(other, f.name)) for f in fields(self))


def _same(a: object, b: object) -> bool:
    if isinstance(a, np.ndarray) and isinstance(b, np.ndarray):
        return np.array_equal(a, b)
    return not isinstance(a, np.ndarray) and not isinstance(b, np.ndarray) and a == b


@dataclass(frozen=True, slots=True, eq=False)
class Quantize(_Node):
    """The graph's input: raw uint8 (N, H, W, C); index = pixel, code = grid.lo + pixel."""

    name: str
    shape: Shape
    grid: Grid
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Conv2d(_Node):
    """acc[o] = bias[o] + Σ code · weight[o]; padded positions hold code 0.

    ``padding`` is (top, left, bottom, right); output sizes round down.
    """

    name: str
    x: str
    weight: IntArray
    weight_grid: Grid
    weight_scales: Scales
    bias: IntArray
    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)
    groups: int = 1


@dataclass(frozen=True, slots=True, eq=False)
class Linear(_Node):
    """acc[o] = bias[o] + Σ_i code[i] · weight[o, i]; x is a vector (C,) of codes, weight (O, C)."""

    name: str
    x: str
    weight: IntArray
    weight_grid: Grid
    weight_scales: Scales
    bias: IntArray


@dataclass(frozen=True, slots=True, eq=False)
class Add(_Node):
    """a + b, two wide tensors of one scale."""

    name: str
    a: str
    b: str


@dataclass(frozen=True, slots=True, eq=False)
class Thresholds(_Node):
    """index[c] = #{j : table[c, j] ≤ sign[c] · x[c]}; table (C, levels − 1), sign (C,) of ±1.

    sign is −1 where the gain in front of the quantizer is negative.
    """

    name: str
    x: str
    table: IntArray
    sign: IntArray
    grid: Grid
    scale: float


@dataclass(frozen=True, slots=True, eq=False)
class Rescale(_Node):
    """Into fixed point: y = (multiplier[c] · x + offset[c] + 2^(shift−1)) >> shift, floor shift.

    Where y < 0 and ``negative_multiplier`` is given (PReLU; zeros make a ReLU),
    y = (negative_multiplier[c] · y + 2^(negative_shift−1)) >> negative_shift.
    A shift of 0 adds no half. Products are taken in 64 bits.
    """

    name: str
    x: str
    multiplier: IntArray
    offset: IntArray
    shift: int
    scale: float
    negative_multiplier: IntArray | None = None
    negative_shift: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class MaxPool2d(_Node):
    """Maximum over windows; padded positions never win. Codes or wide tensors."""

    name: str
    x: str
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int] = (0, 0, 0, 0)


@dataclass(frozen=True, slots=True, eq=False)
class SumPool2d(_Node):
    """Sum over windows, no padding; the result's scale is scale / (kh·kw): a mean."""

    name: str
    x: str
    kernel: tuple[int, int]
    stride: tuple[int, int]


@dataclass(frozen=True, slots=True, eq=False)
class Slice(_Node):
    """Channels start … stop − 1."""

    name: str
    x: str
    start: int
    stop: int


@dataclass(frozen=True, slots=True, eq=False)
class Concat(_Node):
    """Channels of all inputs, in order; inputs of one kind, grid and scale."""

    name: str
    xs: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Reshape(_Node):
    """Same integers, row-major (H, W, C) order, another shape."""

    name: str
    x: str
    shape: Shape


@dataclass(frozen=True, slots=True, eq=False)
class Dequantize(_Node):
    """The graph's output: float32(x) · float32(scales[c]), one float32 multiplication."""

    name: str
    x: str


Node = (
    Quantize | Conv2d | Linear | Add | Thresholds | Rescale | MaxPool2d | SumPool2d
    | Slice | Concat | Reshape | Dequantize
)  # fmt: skip


def inputs_of(node: Node) -> tuple[str, ...]:
    """Names of the tensors a node reads, in order."""
    match node:
        case Quantize():
            return ()
        case Add(a=a, b=b):
            return (a, b)
        case Concat(xs=xs):
            return xs
        case _:
            return (node.x,)
