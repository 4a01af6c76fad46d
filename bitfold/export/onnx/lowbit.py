"""Integer graph → ONNX, profile ``lowbit``: codes in ONNX's 2-bit and 4-bit types (docs/onnx.md).

The exact forms of ``qcdq``, but weights are INT2, UINT2, INT4 or UINT4 and activations go through
QuantizeLinear to UINT2 or UINT4 and back. Slices, joins and maxima act on float32 indices: they
exist for no sub-byte type.
"""

from collections.abc import Mapping

import ml_dtypes
import numpy as np
import onnx_ir as ir

from bitfold.export.onnx.affine import Line
from bitfold.export.onnx.build import FLOAT, LOWBIT, tensor_name
from bitfold.export.onnx.emit import Emitter, Form
from bitfold.export.onnx.weights import weight_dtype
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
from bitfold.ir.ops import Conv2d, Linear, Thresholds
from bitfold.ir.types import CodeTensor, IntArray

INT2: np.dtype[np.generic] = np.dtype(ml_dtypes.int2)
INT4: np.dtype[np.generic] = np.dtype(ml_dtypes.int4)
UNSIGNED: Mapping[int, np.dtype[np.generic]] = {
    2: np.dtype(ml_dtypes.uint2),
    4: np.dtype(ml_dtypes.uint4),
}


def index_dtype(grid: Grid) -> np.dtype[np.generic]:
    """The narrowest unsigned type of ONNX that holds the grid's indices."""
    widths = [bits for bits in UNSIGNED if grid.bits <= bits]
    return UNSIGNED[widths[0]] if widths else np.dtype(np.uint8)


def signed_dtype(grid: Grid) -> np.dtype[np.generic] | None:
    """The signed sub-byte type that holds the grid's codes in no more bits than its indices."""
    if grid.lo >= -2 and grid.hi <= 1:
        return INT2
    return INT4 if grid.lo >= -8 and grid.hi <= 7 and grid.bits > 2 else None


class LowbitEmitter(Emitter):
    """Writes every node of a graph, codes in sub-byte types."""

    profile = LOWBIT

    def __init__(self, graph: IntGraph, forms: Mapping[str, Form]) -> None:
        """``forms``: the lines of Thresholds; those without one are written as comparisons."""
        super().__init__(
            graph, {key: form for key, form in forms.items() if isinstance(form, Line)}
        )
        for node in graph.nodes:
            if isinstance(graph.types[node.name], CodeTensor):
                self._tell_place(node.name)

    def _tell_place(self, name: str) -> None:
        """Where the numbers of code tensor ``name`` are in a type that every tool can show."""
        if self._integers(name).dtype in (FLOAT, ir.DataType.UINT8):
            return
        codes, indices = f"{name}/codes", f"{name}/indices"
        if codes in self._values:
            self.facts[name] = {"tensor": codes, "holds": "codes"}
        else:
            self.facts[name] = {"tensor": indices}

    def _weight_codes(
        self, node: Conv2d | Linear, weight: IntArray, dtype: ir.DataType
    ) -> ir.Value:
        """Codes where a signed type holds them; else indices, which lo and step turn into codes."""
        grid, name = node.weight_grid, node.name
        direct = signed_dtype(grid)
        if direct is None and grid.bits > 4:
            direct = weight_dtype(node)
        if direct is not None:
            return self._stored(node, weight.astype(direct), 1, dtype)
        index = ((weight - grid.lo) // grid.step).astype(index_dtype(grid))
        steps = self._stored(node, index, grid.step, dtype, part="/steps")
        low = self._constant(f"{name}.weight.lo", np.array(grid.lo, dtype=dtype.numpy()))
        like = (dtype, weight.shape)
        return self._op("Add", [steps, low], out=f"{name}.weight/codes", like=like)

    def _stored(
        self,
        node: Conv2d | Linear,
        values: np.ndarray[tuple[int, ...], np.dtype[np.generic]],
        step: int,
        dtype: ir.DataType,
        *,
        part: str = "/codes",
    ) -> ir.Value:
        """step·values in floating point."""
        name = node.name
        stored = self._constant(f"{name}.weight", values)
        scale = self._constant(f"{name}.weight.scale", np.float32(step))
        like = (FLOAT, values.shape)
        out = f"{name}.weight{part}"
        if dtype == FLOAT:
            return self._op("DequantizeLinear", [stored, scale], out=out, like=like)
        single = self._op("DequantizeLinear", [stored, scale], out=f"{out}/single", like=like)
        return self._cast(single, dtype, out=out)

    def _index(self, node: Thresholds, value: ir.Value) -> None:
        dtype = index_dtype(node.grid)
        if dtype == np.uint8:
            super()._index(node, value)
            return
        name = node.name
        real = self._cast(value, FLOAT, out=f"{name}/float")
        scale = self._constant(f"{name}.scale", np.float32(1))
        zero = self._constant(f"{name}.zero_point", np.array(0, dtype=dtype))
        like = (ir.DataType.from_numpy(dtype), self._shape(name))
        self._op("QuantizeLinear", [real, scale, zero], out=tensor_name(name), like=like)

    def _movable(self, name: str) -> ir.Value:
        """Indices as float32. Behind a DequantizeLinear ORT would move them before it."""
        value = self._integers(name)
        out = f"{name}/indices"
        if not isinstance(self._types[name], CodeTensor):
            return value
        return self._values[out] if out in self._values else self._cast(value, FLOAT, out=out)

    def _codes(self, name: str) -> ir.Value:
        """Float32 codes; where ``name`` was moved, from the float32 indices that it holds."""
        kind, value, out = self._types[name], self._integers(name), f"{name}/codes"
        if not isinstance(kind, CodeTensor) or value.dtype != FLOAT:
            return super()._codes(name)
        if out in self._values:
            return self._values[out]
        step, like = kind.grid.step, (FLOAT, self._shape(name))
        if step != 1:
            factor = self._constant(f"{out}.scale", np.float32(step))
            value = self._op("Mul", [value, factor], out=f"{name}/steps", like=like)
        if kind.grid.lo == 0:
            return value
        low = self._constant(f"{out}.lo", np.float32(kind.grid.lo))
        return self._op("Add", [value, low], out=out, like=like)
