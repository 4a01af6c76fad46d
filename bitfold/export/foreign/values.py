"""What an ONNX tensor is while a model is read: a constant, stored weights, or a value of the net.

A value is a tensor of the ``QGraph`` under construction, whose layout is always (H, W, C) or (C,),
and a *view*: which of its axes stand where in the ONNX tensor. Reshape, Transpose and Flatten
change the view alone.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitfold.export.onnx.file import Array
from bitfold.export.qgraph import Rationals
from bitfold.ir import Grid, IntArray
from bitfold.ir.own_input import InputStep

View = tuple[tuple[str, ...], ...]
CHANNELS_FIRST: View = (("C",), ("H",), ("W",))
CHANNELS_LAST: View = (("H",), ("W",), ("C",))
VECTOR: View = (("C",),)
NO_PADS = (0, 0, 0, 0)
Float32s = NDArray[np.float32]


def exact(value: float | np.generic) -> Fraction:
    """A float as the rational that it is."""
    return Fraction(float(value))


def rationals(array: Array) -> Rationals:
    """Every element of a float or integer array, row-major, as the rational that it is."""
    values = array.astype(np.int64) if array.dtype.kind in "iub" else array.astype(np.float64)
    return tuple(Fraction(v) for v in values.ravel().tolist())


@dataclass(frozen=True, slots=True)
class Codes:
    """Constant integers with scales: real value = scale · code; scales one, or one along ``axis``.

    ``stored``: the file holds the integers (or a QuantizeLinear that makes them).
    """

    codes: IntArray
    scales: Rationals
    axis: int | None
    stored: bool

    def real(self) -> NDArray[np.float32]:
        """The float32 values a runtime computes with."""
        scales = np.array([float(s) for s in self.scales], np.float32)
        if self.axis is not None:
            shape = [1] * self.codes.ndim
            shape[self.axis] = len(scales)
            scales = scales.reshape(shape)
        return (self.codes.astype(np.float32) * scales).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Coding:
    """How a value is stored: code = clamp(rne(x/scale)) on ``grid``, integer code + zero_point."""

    grid: Grid
    scales: Rationals
    zero_point: int

    def within(self, lo: int, hi: int) -> "Coding":
        """The same with codes in lo … hi alone, of which at least two are left."""
        least = min(max(lo, self.grid.lo), self.grid.hi)
        most = max(min(hi, self.grid.hi), least)
        if least == most:
            least, most = (least, most + 1) if most < self.grid.hi else (least - 1, most)
        return replace(self, grid=Grid(least, most))


@dataclass(frozen=True, slots=True)
class Product:
    """A product of stored integers: what a runtime's integer kernel rescales to codes.

    ``scales`` (O,) or (1,) are float32(s_x · s_w); ``bias`` (O,) counts in units of the
    accumulator.
    """

    scales: Float32s
    bias: IntArray


@dataclass(frozen=True, slots=True)
class Value:
    """A tensor of the network; ``shape`` (H, W, C) is that of tensor ``node`` in the QGraph.

    ``node`` is "" as long as the model's own input is not quantized.
    ``coding`` says that the real values are codes, ``integers`` that the ONNX tensor holds
    the integers themselves (between QuantizeLinear and DequantizeLinear).
    Pending are: a quantizer of ``origin`` (not emitted before somebody reads it), a clip, zero
    ``pads`` (top, left, bottom, right) and a join of ``parts``. ``chain`` are the float32
    operations since the model's own input, in whose layout their constants are.
    ``tensor`` is the ONNX tensor that a pending quantizer or join defines.
    ``nonnegative``: a mean of codes none of which is below 0. ``left_out``: behind the final
    Softmax.
    """

    node: str
    shape: tuple[int, int, int]
    view: View
    is_vector: bool = False
    coding: Coding | None = None
    integers: bool = False
    origin: "Value | None" = None
    clip: tuple[Fraction | None, Fraction | None] = (None, None)
    pads: tuple[int, int, int, int] = NO_PADS
    parts: "tuple[Value, ...]" = ()
    chain: tuple[InputStep, ...] | None = None
    product: Product | None = None
    tensor: str = ""
    nonnegative: bool = False
    left_out: bool = False

    @property
    def sizes(self) -> dict[str, int]:
        """Size of each axis, pads included."""
        top, left, bottom, right = self.pads
        height, width, channels = self.shape
        return {"H": height + top + bottom, "W": width + left + right, "C": channels}

    @property
    def dims(self) -> tuple[int, ...]:
        """Dimensions of the ONNX tensor, without the batch."""
        sizes = self.sizes
        return tuple(math.prod(sizes[a] for a in group) for group in self.view)

    @property
    def channels(self) -> int:
        """Number of channels."""
        return self.shape[2]

    @property
    def is_raw(self) -> bool:
        """Whether this is the model's own float input, not quantized so far."""
        return self.node == "" and self.origin is None and not self.parts

    @property
    def is_nonnegative(self) -> bool:
        """Whether no value is below 0."""
        coded = self.coding is not None and self.coding.grid.lo >= 0
        return self.nonnegative or coded or (self.clip[0] is not None and self.clip[0] >= 0)

    def letters(self, group: tuple[str, ...]) -> tuple[str, ...]:
        """The axes of a group that have more than one element."""
        return tuple(a for a in group if self.sizes[a] > 1)

    def looks(self, view: View) -> bool:
        """Whether the tensor is laid out as ``view`` says; axes of size 1 may stand anywhere."""
        if len(view) != len(self.view):
            return False
        pairs = zip(self.view, view, strict=True)
        return all(self.letters(a) == self.letters(b) for a, b in pairs)

    def reshaped(self, dims: Sequence[int]) -> "Value | None":
        """The same values as a tensor of ``dims``; None where that mixes axes."""
        rest = [a for group in self.view for a in self.letters(group)]
        groups: list[tuple[str, ...]] = []
        for size in dims:
            group: list[str] = []
            while math.prod(self.sizes[a] for a in group) < size and rest:
                group.append(rest.pop(0))
            if math.prod(self.sizes[a] for a in group) != size:
                return None
            groups.append(tuple(group))
        return None if rest else replace(self, view=tuple(groups))

    def real_bounds(self) -> tuple[Fraction | None, Fraction | None]:
        """What is known about the least and the greatest value."""
        low, high = self.clip
        if self.coding is not None and low is None:
            low = self.coding.grid.lo * min(self.coding.scales)
        return low, high


def weight_grid(codes: IntArray) -> Grid:
    """The smallest usual grid that holds all ``codes``."""
    lo, hi = int(codes.min(initial=0)), int(codes.max(initial=0))
    if codes.size and (np.abs(codes) == 1).all():
        return Grid.odd(1)
    for bits in range(2, 9):
        most = 2 ** (bits - 1) - 1
        if lo >= -most and hi <= most:
            return Grid(-most, most)
        if lo >= -most - 1 and hi <= most:
            return Grid(-most - 1, most)
    return Grid(lo, hi)
