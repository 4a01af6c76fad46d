"""Integer graph → ONNX nodes, each operation in a form whose floating point is exact.

Per operation the nodes, their names and why nothing rounds: docs/onnx.md. Tensors are NCHW.
Codes live as uint8 *indices* under the node's name and, where a convolution reads them, as
float32 codes under ``name/codes``; accumulators are float32 below 2^24, float64 above; the
residual stream is float64.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import assert_never

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError
from bitfold.export.onnx.affine import Line
from bitfold.export.onnx.build import (
    DOUBLE,
    EXACT_DOUBLE,
    EXACT_FLOAT,
    FLOAT,
    OUTPUT,
    UINT8,
    Attribute,
    Builder,
    tensor_name,
)
from bitfold.export.onnx.fused import Fused
from bitfold.export.onnx.notes import note_of
from bitfold.export.onnx.weights import BASE, halves_of, needs_halves, sum_bound, weight_dtype
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    Thresholds,
    inputs_of,
)
from bitfold.ir.ranges import scales_of
from bitfold.ir.types import IntArray, Shape

Form = Line | Fused
Json = str | int | float | None | list["Json"] | dict[str, "Json"]


def half_of(shift: int) -> int:
    """What is added before a right shift to round half up; a shift of 0 adds nothing."""
    return 1 << (shift - 1) if shift else 0


def window_matrix(size: int, *, kernel: int, stride: int) -> NDArray[np.float64]:
    """(size, outputs) of 0 and 1: column o sums positions o·stride … o·stride + kernel − 1."""
    starts = np.arange((size - kernel) // stride + 1) * stride
    offsets = np.arange(size)[:, None] - starts[None, :]
    return ((offsets >= 0) & (offsets < kernel)).astype(np.float64)


def is_whole_map(node: SumPool2d, shape: Shape) -> bool:
    """Whether one window covers the whole (H, W, C) input."""
    return node.kernel == shape[:2]


class Emitter(Builder):
    """Writes every node of a graph."""

    def __init__(
        self,
        graph: IntGraph,
        forms: Mapping[str, Form],
        facts: Mapping[str, dict[str, Json]] = MappingProxyType({}),
    ) -> None:
        """``forms``: how each Thresholds is written that is not written as comparisons.

        ``facts``: what the metadata says of a node besides.
        """
        super().__init__(graph)
        self.forms = forms
        self.facts: dict[str, dict[str, Json]] = dict(facts)
        self.warnings: list[str] = []
        self._fused = {
            node.x: form
            for node in graph.nodes
            if isinstance(node, Thresholds) and isinstance(form := forms.get(node.name), Fused)
        }
        for node in graph.nodes:
            self._emit(node)
            self._nodes[-1].doc_string = note_of(node, self._types[node.name])

    def _emit(self, node: Node) -> None:
        match node:
            case Conv2d():
                self._conv(node)
            case Linear():
                self._linear(node)
            case Thresholds():
                self._thresholds(node)
            case Rescale():
                self._rescale(node)
            case SumPool2d():
                self._sum_pool(node)
            case Add() | MaxPool2d() | Slice() | Concat():
                self._move(node)
            case _:
                self._emit_edge(node)

    def _emit_edge(self, node: Quantize | Reshape | Dequantize) -> None:
        """Operations that meet the outside layout."""
        match node:
            case Quantize():
                self._quantize(node)
            case Reshape():
                self._reshape(node)
            case Dequantize():
                self._dequantize(node)
            case _:
                assert_never(node)

    def _quantize(self, node: Quantize) -> None:
        if len(node.shape) != 3 or node.grid.levels != 256:
            raise UnsupportedError(
                f"the input must be (H, W, C) pixels on 256 levels, got {node.shape} on "
                f"{node.grid}",
                where=f"node {node.name}",
                todo="Use Grid.pixels(mean).",
            )
        like = (UINT8, self._shape(node.name))
        self._op(
            "Transpose", [self._input], out=tensor_name(node.name), like=like, perm=(0, 3, 1, 2)
        )

    def _side(self, x: str) -> int:
        """Size of the largest integer in tensor ``x``."""
        lo, hi = self._range(x)
        return max(abs(lo), abs(hi))

    def _accumulator_type(self, node: Conv2d | Linear) -> ir.DataType:
        """FLOAT where no partial sum reaches 2^24, so that float32 holds all of them exactly."""
        bound = sum_bound(node.weight, node.bias, side=self._side(node.x))
        if bound < EXACT_FLOAT:
            return FLOAT
        if isinstance(node, Linear) and bound < EXACT_DOUBLE:
            return DOUBLE
        raise UnsupportedError(
            f"partial sums may reach {bound}, float32 is exact below {EXACT_FLOAT}",
            where=f"node {node.name}",
            todo="Use fewer input channels a group, or fewer weight or activation bits.",
        )

    def _conv(self, node: Conv2d) -> None:
        if node.name in self._fused:
            self._fused_conv(node, self._fused[node.name])
            return
        if needs_halves(node, side=self._side(node.x)):
            self._conv_in_halves(node)
            return
        dtype = self._accumulator_type(node)
        weight = node.weight.transpose(0, 3, 1, 2)
        codes = self._weight_codes(node, weight, dtype)
        inputs = [self._codes(node.x), codes]
        if node.bias.any():
            inputs.append(self._constant(f"{node.name}.bias", node.bias.astype(np.float32)))
        self._windows(node, inputs, dtype)

    def _conv_in_halves(self, node: Conv2d) -> None:
        """16·Conv(high) + Conv(low) in float64, where the whole sum passes 2^24."""
        name, wide = node.name, (DOUBLE, self._shape(node.name))
        sums = []
        for part, weight in zip(("high", "low"), halves_of(node.weight), strict=True):
            codes = weight.transpose(0, 3, 1, 2).astype(np.int8)
            stored = self._constant(f"{name}.weight.{part}", codes)
            scale = self._constant(f"{name}.weight.{part}.scale", np.float32(1))
            out, like = f"{name}.weight.{part}/codes", (FLOAT, codes.shape)
            inputs = [
                self._codes(node.x),
                self._op("DequantizeLinear", [stored, scale], out=out, like=like),
            ]
            if part == "low" and node.bias.any():
                inputs.append(self._constant(f"{name}.bias", node.bias.astype(np.float32)))
            value = self._windows(node, inputs, FLOAT, out=f"{name}/{part}")
            sums.append(self._cast(value, DOUBLE, out=f"{name}/{part}/double"))
        base = self._constant(f"{name}.weight.base", np.float64(BASE))
        scaled = self._op("Mul", [sums[0], base], out=f"{name}/scaled", like=wide)
        self._op("Add", [scaled, sums[1]], out=tensor_name(name), like=wide)

    def _weight_codes(
        self, node: Conv2d | Linear, weight: IntArray, dtype: ir.DataType
    ) -> ir.Value:
        """``weight`` (of ``node``, in its layout in the file) as float codes."""
        name = node.name
        stored = self._constant(f"{name}.weight", weight.astype(weight_dtype(node)))
        if isinstance(node, Linear):
            # A Cast, not a DequantizeLinear: ORT would join that with Gemm into integer kernels
            # that saturate on AVX2.
            return self._cast(stored, dtype, out=f"{name}.weight/codes")
        scale = self._constant(f"{name}.weight.scale", np.float32(1))
        return self._op(
            "DequantizeLinear",
            [stored, scale],
            out=f"{name}.weight/codes",
            like=(dtype, weight.shape),
        )

    def _windows(
        self, node: Conv2d, inputs: list[ir.Value], dtype: ir.DataType, *, out: str = ""
    ) -> ir.Value:
        """The Conv of ``inputs``, in tensor ``out``: by default the node's own."""
        return self._op(
            "Conv",
            inputs,
            out=out or tensor_name(node.name),
            like=(dtype, self._shape(node.name)),
            kernel_shape=node.weight.shape[1:3],
            strides=node.stride,
            pads=node.padding,
            group=node.groups,
        )

    def _fused_conv(self, node: Conv2d, form: Fused) -> None:
        """Weights times factor, in units of a dyadic scale: its output is rounded by the next Q."""
        name = node.name
        weight = (node.weight * form.factor.reshape(-1, 1, 1, 1)).transpose(0, 3, 1, 2)
        scale = self._constant(f"{name}.weight.scale", form.scale)
        inputs = [self._codes(node.x)]
        for key, array in (
            ("weight", weight.astype(np.int8)),
            ("bias", form.bias.astype(np.int32)),
        ):
            stored = self._constant(f"{name}.{key}", array)
            zero = self._constant(f"{name}.{key}.zero_point", np.zeros(len(array), array.dtype))
            inputs.append(
                self._op(
                    "DequantizeLinear",
                    [stored, scale, zero],
                    out=f"{name}.{key}/scaled",
                    like=(FLOAT, array.shape),
                    axis=0,
                )
            )
        self._windows(node, inputs, FLOAT)

    def _linear(self, node: Linear) -> None:
        dtype = self._accumulator_type(node)
        codes = self._weight_codes(node, node.weight, dtype)
        x = self._cast(self._codes(node.x), dtype, out=f"{node.name}/double")
        bias = self._constant(f"{node.name}.bias", node.bias.astype(dtype.numpy()))
        like = (dtype, self._shape(node.name))
        self._op("Gemm", [x, codes, bias], out=tensor_name(node.name), like=like, transB=1)

    def _thresholds(self, node: Thresholds) -> None:
        form = self.forms.get(node.name)
        if isinstance(form, Fused):
            self._round(node)
            return
        x = self._wide(node.x, node.name)
        if form is None:
            self.warnings.append(
                f"{node.name}: no line reproduces the thresholds; {node.grid.levels - 1} "
                "comparisons do"
            )
            self._comparisons(node, x)
            return
        self._line(node, x, form)

    def _round(self, node: Thresholds) -> None:
        """Round a fused convolution's output to uint8, and clip *after* that: it stays fusable."""
        name, like = node.name, (UINT8, self._shape(node.x))
        scale = self._constant(f"{name}.scale", np.float32(1))
        zero = self._constant(f"{name}.zero_point", np.uint8(0))
        inputs = [self._integers(node.x), scale, zero]
        value = self._op("QuantizeLinear", inputs, out=f"{name}/rounded", like=like)
        least = self._constant(f"{name}.min", np.uint8(0))
        most = self._constant(f"{name}.max", np.uint8(node.grid.levels - 1))
        self._op("Clip", [value, least, most], out=tensor_name(name), like=like)

    def _line(self, node: Thresholds, x: ir.Value, line: Line) -> None:
        name, like = node.name, (DOUBLE, self._shape(node.x))
        gain = self._constant(f"{name}.gain", self._per_channel(line.gain, node.x))
        offset = self._constant(f"{name}.offset", self._per_channel(line.offset, node.x))
        value = self._op("Mul", [x, gain], out=f"{name}/scaled", like=like)
        value = self._op("Add", [value, offset], out=f"{name}/shifted", like=like)
        value = self._op("Floor", [value], out=f"{name}/floor", like=like)
        least = self._constant(f"{name}.min", np.float64(0))
        most = self._constant(f"{name}.max", np.float64(node.grid.levels - 1))
        self._index(node, self._op("Clip", [value, least, most], out=f"{name}/clip", like=like))

    def _comparisons(self, node: Thresholds, x: ir.Value) -> None:
        """Σ_j [t_j ≤ sign·x]: any table, at the price of a tensor ``levels`` times as large."""
        name, shape = node.name, self._shape(node.x)
        deep = (*shape, node.table.shape[1])
        sign = self._constant(
            f"{name}.sign", self._per_channel(node.sign.astype(np.float64), node.x)
        )
        value = self._op("Mul", [x, sign], out=f"{name}/oriented", like=(DOUBLE, shape))
        last = self._constant(f"{name}.last", np.array([-1], dtype=np.int64))
        like = (DOUBLE, (*shape, 1))
        value = self._op("Unsqueeze", [value, last], out=f"{name}/deep", like=like)
        table = node.table.astype(np.float64)
        table = table.reshape(-1, 1, 1, table.shape[1]) if len(shape) == 4 else table
        thresholds = self._constant(f"{name}.thresholds", table)
        like = (ir.DataType.BOOL, deep)
        value = self._op("GreaterOrEqual", [value, thresholds], out=f"{name}/taken", like=like)
        value = self._cast(value, ir.DataType.INT32, out=f"{name}/ones")
        like = (ir.DataType.INT32, shape)
        value = self._op("ReduceSum", [value, last], out=f"{name}/count", like=like, keepdims=0)
        self._index(node, value)

    def _index(self, node: Thresholds, value: ir.Value) -> None:
        """Store ``value``, the index as another type."""
        self._cast(value, UINT8, out=tensor_name(node.name))

    def _is_exact(self, values: IntArray, factors: IntArray, add: int) -> bool:
        """Whether float64 holds every product plus ``add``."""
        bound = int(np.abs(values).max()) * max(int(f) for f in np.abs(factors)) + add
        return bound < EXACT_DOUBLE

    def _affine_floor(
        self,
        value: ir.Value,
        node: Rescale,
        *,
        gain: IntArray,
        offset: IntArray,
        part: str,
        exact: bool,
    ) -> ir.Value:
        """floor((gain·value + offset + half) / 2^shift); powers of two keep float64 exact.

        Products past 2^53 are taken in int64.
        """
        if not exact:
            return self._affine_shift(value, node, gain=gain, offset=offset, part=part)
        shift = node.negative_shift if part else node.shift
        like = (DOUBLE, self._shape(node.x))
        prefix, unit = f"{node.name}{part}", 0.5**shift
        gains = self._per_channel(gain.astype(np.float64) * unit, node.x)
        offsets = self._per_channel((offset + half_of(shift)).astype(np.float64) * unit, node.x)
        factor = self._constant(f"{prefix}.multiplier", gains)
        value = self._op("Mul", [value, factor], out=f"{prefix}/scaled", like=like)
        term = self._constant(f"{prefix}.offset", offsets)
        value = self._op("Add", [value, term], out=f"{prefix}/shifted", like=like)
        last = node.negative_multiplier is None
        out = tensor_name(node.name) if last else f"{prefix}/floor"
        return self._op("Floor", [value], out=out, like=like)

    def _affine_shift(
        self, value: ir.Value, node: Rescale, *, gain: IntArray, offset: IntArray, part: str
    ) -> ir.Value:
        """The same in int64: y − (y mod 2^shift) is a multiple of 2^shift, the remainder ≥ 0."""
        shift = node.negative_shift if part else node.shift
        prefix, like = f"{node.name}{part}", (ir.DataType.INT64, self._shape(node.x))
        value = self._cast(value, ir.DataType.INT64, out=f"{prefix}/integers")
        factor = self._constant(f"{prefix}.multiplier", self._per_channel(gain, node.x))
        value = self._op("Mul", [value, factor], out=f"{prefix}/scaled", like=like)
        added = self._per_channel(offset + half_of(shift), node.x)
        term = self._constant(f"{prefix}.offset", added)
        value = self._op("Add", [value, term], out=f"{prefix}/shifted", like=like)
        unit = self._constant(f"{prefix}.unit", np.int64(1 << shift))
        rest = self._op("Mod", [value, unit], out=f"{prefix}/rest", like=like)
        value = self._op("Sub", [value, rest], out=f"{prefix}/multiple", like=like)
        value = self._op("Div", [value, unit], out=f"{prefix}/quotient", like=like)
        last = node.negative_multiplier is None
        out = tensor_name(node.name) if last else f"{prefix}/floor"
        return self._cast(value, DOUBLE, out=out)

    def _rescale(self, node: Rescale) -> None:
        lo, hi = self._range(node.x)
        ends = np.array([lo, hi])
        add = int(np.abs(node.offset).max()) + half_of(node.shift)
        value = self._affine_floor(
            self._wide(node.x, node.name),
            node,
            gain=node.multiplier,
            offset=node.offset,
            part="",
            exact=self._is_exact(ends, node.multiplier, add),
        )
        slope = node.negative_multiplier
        if slope is None:
            return
        out, like = tensor_name(node.name), (DOUBLE, self._shape(node.name))
        zero = self._constant(f"{node.name}.zero", np.float64(0))
        if not slope.any():
            self._op("Max", [value, zero], out=out, like=like)
            return
        scaled = Rescale(node.name, node.x, node.multiplier, node.offset, node.shift, node.scale)
        least = rescale_bound(scaled, lo=lo, hi=hi)
        exact = self._is_exact(np.array([least]), slope, half_of(node.negative_shift))
        bent = self._affine_floor(
            value, node, gain=slope, offset=np.zeros_like(slope), part="/negative", exact=exact
        )
        below = (ir.DataType.BOOL, self._shape(node.name))
        mask = self._op("Less", [value, zero], out=f"{node.name}/below", like=below)
        self._op("Where", [mask, bent, value], out=out, like=like)

    def _sum_pool(self, node: SumPool2d) -> None:
        shape, (lo, hi) = self._types[node.x].shape, self._range(node.x)
        area = node.kernel[0] * node.kernel[1]
        exact = max(abs(lo), abs(hi)) * area < EXACT_FLOAT
        value = self._codes(node.x)
        if not (exact and is_whole_map(node, shape)):
            value = self._cast(value, DOUBLE, out=f"{node.name}/double")
        assert value.dtype is not None
        out, like = tensor_name(node.name), (value.dtype, self._shape(node.name))
        if is_whole_map(node, shape):
            axes = self._constant(f"{node.name}.axes", np.array([2, 3], dtype=np.int64))
            self._op("ReduceSum", [value, axes], out=out, like=like, keepdims=1)
            return
        (height, width, channels), (kh, kw), (sh, sw) = shape, node.kernel, node.stride
        rows = self._constant(
            f"{node.name}.rows", window_matrix(height, kernel=kh, stride=sh).transpose()
        )
        columns = self._constant(f"{node.name}.columns", window_matrix(width, kernel=kw, stride=sw))
        half = (DOUBLE, (self.profile.batch, channels, self._types[node.name].shape[0], width))
        value = self._op("MatMul", [rows, value], out=f"{node.name}/rows", like=half)
        self._op("MatMul", [value, columns], out=out, like=like)

    def _move(self, node: Add | MaxPool2d | Slice | Concat) -> None:
        """Operations that exist in ONNX as they are; on codes they act on indices."""
        inputs = [self._movable(x) for x in inputs_of(node)]
        assert inputs[0].dtype is not None
        out, like = tensor_name(node.name), (inputs[0].dtype, self._shape(node.name))
        match node:
            case Add():
                self._op("Add", inputs, out=out, like=like)
            case Concat():
                self._op("Concat", inputs, out=out, like=like, axis=1)
            case Slice():
                for key, number in (("starts", node.start), ("ends", node.stop), ("axes", 1)):
                    array = np.array([number], dtype=np.int64)
                    inputs.append(self._constant(f"{node.name}.{key}", array))
                self._op("Slice", inputs, out=out, like=like)
            case MaxPool2d():
                attributes: dict[str, Attribute] = {
                    "kernel_shape": node.kernel,
                    "strides": node.stride,
                    "pads": node.padding,
                }
                self._op("MaxPool", inputs, out=out, like=like, **attributes)
            case _:
                assert_never(node)

    def _reshape(self, node: Reshape) -> None:
        """Row-major (H, W, C) order, so an image is transposed first and afterwards."""
        before, after = self._types[node.x].shape, node.shape
        value = self._movable(node.x)
        assert value.dtype is not None
        name, dtype = node.name, value.dtype
        if len(before) == 3:
            value = self._op(
                "Transpose",
                [value],
                out=f"{name}/nhwc",
                like=(dtype, (self.profile.batch, *before)),
                perm=(0, 2, 3, 1),
            )
        shape = self._constant(f"{name}.shape", np.array([-1, *after], dtype=np.int64))
        out = f"{name}/reshaped" if len(after) == 3 else tensor_name(name)
        value = self._op(
            "Reshape", [value, shape], out=out, like=(dtype, (self.profile.batch, *after))
        )
        if len(after) == 3:
            like = (dtype, self._shape(name))
            self._op("Transpose", [value], out=tensor_name(name), like=like, perm=(0, 3, 1, 2))

    def _dequantize(self, node: Dequantize) -> None:
        kind = self._types[node.x]
        value = self._cast(self._codes(node.x), FLOAT, out=f"{node.name}/float")
        scales = np.array(scales_of(kind), dtype=np.float32)
        scale = self._constant(f"{node.name}.scale", self._per_channel(scales, node.x))
        is_image = len(kind.shape) == 3
        out = f"{node.name}/nchw" if is_image else OUTPUT
        value = self._op("Mul", [value, scale], out=out, like=(FLOAT, self._shape(node.x)))
        if is_image:
            shape: list[int | str] = [self.profile.batch, *kind.shape]
            self._op("Transpose", [value], out=OUTPUT, like=(FLOAT, shape), perm=(0, 2, 3, 1))


def rescale_bound(node: Rescale, *, lo: int, hi: int) -> int:
    """Least value before the negative side bends."""
    half = half_of(node.shift)
    multipliers: list[int] = node.multiplier.tolist()
    pairs = zip(multipliers, node.offset.tolist(), strict=True)
    return min((m * x + int(b) + half) >> node.shift for m, b in pairs for x in (lo, hi))
