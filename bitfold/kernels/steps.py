"""Steps: the lowered operations that a backend runs, one image at a time.

A plan is a tuple of steps over one *arena*, a block of bytes reused from step to step. Codes lie in
the arena as *indices*, one unsigned byte each (``u8``); wide tensors and accumulators as ``i32``;
results as ``f32``. Layout is (H, W, C), dense, without a batch dimension. A step is data: it says
what to compute, and every row of the kernel table that implements it gives the same integers.
"""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Grid
from bitfold.kernels.buffer import ALIGNMENT, ELEMENT_BYTES, Buffer, ElementKind

INT32_INTERVAL = (-(2**31), 2**31 - 1)
Int8Array = NDArray[np.int8]
Int32Array = NDArray[np.int32]
Int64Array = NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class ToIndices:
    """Epilogue: index[o] = #{j : table[o, j] ≤ sign[o] · acc[o]} → u8. table (O, L) int32."""

    table: Int32Array
    sign: Int32Array


@dataclass(frozen=True, slots=True)
class ToWide:
    """Epilogue: y = (multiplier[o]·acc + offset[o] + half) >> shift (64-bit) → i32, then + ``add``.

    half is 2^(shift−1), or 0 where shift is 0. Where y < 0 and ``negative_multiplier`` is given,
    y = (negative_multiplier[o]·y + 2^(negative_shift−1)) >> negative_shift, before the addition.
    """

    multiplier: Int64Array
    offset: Int64Array
    shift: int
    add: Buffer | None = None
    negative_multiplier: Int64Array | None = None
    negative_shift: int = 0


@dataclass(frozen=True, slots=True)
class ToAccumulators:
    """Epilogue: the accumulators themselves → i32."""


Epilogue = ToIndices | ToWide | ToAccumulators


@dataclass(frozen=True, slots=True)
class ConvStep:
    """acc[o] = bias[o] + Σ code·weight[o], then the epilogue; a Linear is a 1x1 image.

    ``x`` holds indices (H, W, C) of codes on ``x_grid``; padding is (top, left, bottom, right),
    filled with the index of code 0. ``weight`` holds codes (O, KH, KW, C/groups) on
    ``weight_grid``, int32 where that is wider than 8 bits; ``bias`` (O,) int64. |acc| < 2^31 is
    proven. ``out`` is (OH, OW, O).
    """

    name: str
    x: Buffer
    out: Buffer
    x_grid: Grid
    weight: Int8Array | Int32Array
    weight_grid: Grid
    bias: Int64Array
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]
    groups: int
    epilogue: Epilogue

    @property
    def is_wide(self) -> bool:
        """Whether weights take more than a byte."""
        return self.weight.dtype != np.int8


@dataclass(frozen=True, slots=True)
class ThresholdStep:
    """i32 (H, W, C) → u8 indices, channel by channel (C is the last dimension)."""

    name: str
    x: Buffer
    out: Buffer
    epilogue: ToIndices


@dataclass(frozen=True, slots=True)
class RescaleStep:
    """i32 → i32 by a ``ToWide`` rule. An u8 input holds indices: code = x_lo + x_step·index.

    ``interval`` is the proven least and greatest integer of an i32 input.
    """

    name: str
    x: Buffer
    out: Buffer
    epilogue: ToWide
    x_lo: int = 0
    x_step: int = 1
    interval: tuple[int, int] = INT32_INTERVAL


@dataclass(frozen=True, slots=True)
class AddStep:
    """Channels ``a_start …`` of a plus ``b_start …`` of b, as many as out has; all i32."""

    name: str
    a: Buffer
    b: Buffer
    out: Buffer
    a_start: int = 0
    b_start: int = 0


@dataclass(frozen=True, slots=True)
class MaxPoolStep:
    """Window maximum of u8 indices or i32; padded positions never win."""

    name: str
    x: Buffer
    out: Buffer
    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int, int, int]


@dataclass(frozen=True, slots=True)
class SumPoolStep:
    """Window sum → i32. An u8 input holds indices: code = x_lo + x_step·index."""

    name: str
    x: Buffer
    out: Buffer
    kernel: tuple[int, int]
    stride: tuple[int, int]
    x_lo: int = 0
    x_step: int = 1


@dataclass(frozen=True, slots=True)
class CopyStep:
    """Channels ``x_start … x_start+count−1`` of x → channels ``out_start …`` of out; same kind.

    ``repeats`` copies lie one behind the other.
    """

    name: str
    x: Buffer
    out: Buffer
    x_start: int
    out_start: int
    count: int
    repeats: int = 1


@dataclass(frozen=True, slots=True)
class DequantizeStep:
    """out[c] = float32(x[c]) · scale[c], one float32 product; i32 → f32. scale (C,) float32."""

    name: str
    x: Buffer
    out: Buffer
    scale: NDArray[np.float32]


Step = (
    ConvStep
    | ThresholdStep
    | RescaleStep
    | AddStep
    | MaxPoolStep
    | SumPoolStep
    | CopyStep
    | DequantizeStep
)

__all__ = [
    # where tensors lie
    "ALIGNMENT",
    "ELEMENT_BYTES",
    "Buffer",
    "ElementKind",
    # arrays
    "Int8Array",
    "Int32Array",
    "Int64Array",
    # epilogues
    "Epilogue",
    "ToAccumulators",
    "ToIndices",
    "ToWide",
    # steps
    "Step",
    "AddStep",
    "ConvStep",
    "CopyStep",
    "DequantizeStep",
    "MaxPoolStep",
    "RescaleStep",
    "SumPoolStep",
    "ThresholdStep",
]
