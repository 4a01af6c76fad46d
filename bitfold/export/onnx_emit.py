"""Integer graph → ONNX nodes, each operation in a form whose floating point is exact.

Per operation the nodes, their names and why nothing rounds: docs/onnx.md. Tensors are NCHW.
Codes live as uint8 *indices* under the node's name and, where a convolution reads them, as
float32 codes under ``name/codes``; accumulators are float32 below 2^24, float64 above; the
residual stream is float64.
"""

from collections.abc import Mapping, Sequence
from typing import assert_never

import ml_dtypes
import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from bitfold.errors import UnsupportedError
from bitfold.export.onnx_affine import Line
from bitfold.ir.graph import IntGraph
from bitfold.ir.grid import Grid
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
from bitfold.ir.types import CodeTensor, FloatTensor, IntArray, Shape, TensorType

FLOAT, DOUBLE, UINT8 = ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.UINT8
OPSET, IR_VERSION = 21, 10
EXACT_FLOAT, EXACT_DOUBLE = 2**24, 2**53
INPUT, OUTPUT = "image", "logits"
INT4 = np.dtype(ml_dtypes.int4)

Attribute = int | tuple[int, ...]


def tensor_name(name: str) -> str:
    """ONNX tensor that holds node ``name``'s integers; the two reserved names step aside."""
    return f"{name}/integers" if name in (INPUT, OUTPUT) else name


def weight_dtype(grid: Grid) -> np.dtype[np.generic]:
    """INT4 where the codes fit, INT8 otherwise."""
    return INT4 if grid.lo >= -8 and grid.hi <= 7 else np.dtype(np.int8)


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


class Emitter:
    """Collects the nodes and initializers of one model; names are checked to be unique."""

    def __init__(self, graph: IntGraph, lines: Mapping[str, Line]) -> None:
        """``lines`` has the affine form of every Thresholds that has one."""
        self._types: Mapping[str, TensorType] = graph.types
        self._lines = lines
        self._values: dict[str, ir.Value] = {}
        self._initializers: list[ir.Value] = []
        self._nodes: list[ir.Node] = []
        self._input = self._value(INPUT, UINT8, ("N", *graph.input.shape))
        for node in graph.nodes:
            self._emit(node)
        self._output = self._values[OUTPUT]

    def model(self, metadata: Mapping[str, str]) -> ir.Model:
        """The finished model."""
        graph = ir.Graph(
            [self._input],
            [self._output],
            nodes=self._nodes,
            initializers=self._initializers,
            opset_imports={"": OPSET},
            name="bitfold",
        )
        return ir.Model(
            graph,
            ir_version=IR_VERSION,
            producer_name="bitfold",
            metadata_props=dict(metadata),
        )

    # building blocks

    def _value(self, name: str, dtype: ir.DataType, shape: Sequence[int | str]) -> ir.Value:
        if not name or name in self._values:
            raise UnsupportedError(
                f"two ONNX tensors would be called {name!r}",
                where=f"tensor {name}",
                todo="Rename the node: a name must not extend another's by /codes, .weight, ….",
            )
        value = ir.Value(name=name, shape=ir.Shape(shape), type=ir.TensorType(dtype))
        self._values[name] = value
        return value

    def _constant(self, name: str, values: NDArray[np.generic] | np.generic) -> ir.Value:
        array = np.asarray(values, order="C")
        tensor = ir.Tensor(array, name=name)
        value = self._value(name, tensor.dtype, array.shape)
        value.const_value = tensor
        self._initializers.append(value)
        return value

    def _op(
        self,
        op: str,
        inputs: Sequence[ir.Value],
        *,
        out: str,
        like: tuple[ir.DataType, Sequence[int | str]],
        **attributes: Attribute,
    ) -> ir.Value:
        value = self._value(out, *like)
        pairs = {key: list(v) if isinstance(v, tuple) else v for key, v in attributes.items()}
        self._nodes.append(ir.node(op, inputs, pairs, outputs=[value], name=out))
        return value

    def _shape(self, name: str) -> tuple[int | str, ...]:
        """NCHW (or (N, C)) shape of integer-graph tensor ``name``."""
        shape = self._types[name].shape
        return ("N", shape[2], shape[0], shape[1]) if len(shape) == 3 else ("N", *shape)

    def _per_channel(self, values: NDArray[np.generic], name: str) -> NDArray[np.generic]:
        """(C,) values shaped to broadcast over tensor ``name``."""
        return values.reshape(-1, 1, 1) if len(self._types[name].shape) == 3 else values.reshape(-1)

    def _integers(self, name: str) -> ir.Value:
        return self._values[tensor_name(name)]

    def _codes(self, name: str) -> ir.Value:
        """``name`` as numbers: float32 codes of a code tensor, else the tensor itself."""
        kind = self._types[name]
        if not isinstance(kind, CodeTensor):
            return self._integers(name)
        out = f"{name}/codes"
        if out in self._values:
            return self._values[out]
        lo, step = kind.grid.lo, kind.grid.step
        like = (FLOAT, self._shape(name))
        scale = self._constant(f"{out}.scale", np.float32(step))
        if lo % step == 0 and 0 <= -lo // step <= 255:
            zero = self._constant(f"{out}.zero_point", np.uint8(-lo // step))
            inputs = [self._integers(name), scale, zero]
            return self._op("DequantizeLinear", inputs, out=out, like=like)
        inputs = [self._integers(name), scale]
        steps = self._op("DequantizeLinear", inputs, out=f"{name}/steps", like=like)
        shift = self._constant(f"{out}.lo", np.float32(lo))
        return self._op("Add", [steps, shift], out=out, like=like)

    def _cast(self, value: ir.Value, dtype: ir.DataType, *, out: str) -> ir.Value:
        if value.dtype == dtype:
            return value
        assert value.shape is not None
        like = (dtype, tuple(_dims(value)))
        return self._op("Cast", [value], out=out, like=like, to=int(dtype))

    def _wide(self, x: str, node: str) -> ir.Value:
        """Tensor ``x`` as float64, cast for ``node`` where it is float32."""
        return self._cast(self._codes(x), DOUBLE, out=f"{node}/double")

    def _range(self, name: str) -> tuple[int, int]:
        """Proven range of integer tensor ``name``."""
        kind = self._types[name]
        if isinstance(kind, FloatTensor):
            raise UnsupportedError("floats are read after Dequantize", where=f"tensor {name}")
        return kind.lo, kind.hi

    # operations

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

    def _accumulator_type(self, node: Conv2d | Linear) -> ir.DataType:
        """FLOAT where no partial sum reaches 2^24, so that float32 holds all of them exactly."""
        lo, hi = self._range(node.x)
        flat = np.abs(node.weight.reshape(len(node.weight), -1)).sum(1)
        bound = int((flat * max(abs(lo), abs(hi)) + np.abs(node.bias)).max())
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
        dtype = self._accumulator_type(node)
        weight = node.weight.transpose(0, 3, 1, 2).astype(weight_dtype(node.weight_grid))
        stored = self._constant(f"{node.name}.weight", weight)
        scale = self._constant(f"{node.name}.weight.scale", np.float32(1))
        codes = self._op(
            "DequantizeLinear",
            [stored, scale],
            out=f"{node.name}.weight/codes",
            like=(dtype, weight.shape),
        )
        inputs = [self._codes(node.x), codes]
        if node.bias.any():
            inputs.append(self._constant(f"{node.name}.bias", node.bias.astype(np.float32)))
        self._op(
            "Conv",
            inputs,
            out=tensor_name(node.name),
            like=(dtype, self._shape(node.name)),
            kernel_shape=node.weight.shape[1:3],
            strides=node.stride,
            pads=node.padding,
            group=node.groups,
        )

    def _linear(self, node: Linear) -> None:
        dtype = self._accumulator_type(node)
        weight = node.weight.astype(weight_dtype(node.weight_grid))
        stored = self._constant(f"{node.name}.weight", weight)
        # A Cast, not a DequantizeLinear: ORT would join that with Gemm into integer kernels that
        # saturate on AVX2.
        codes = self._cast(stored, dtype, out=f"{node.name}.weight/codes")
        x = self._cast(self._codes(node.x), dtype, out=f"{node.name}/double")
        bias = self._constant(f"{node.name}.bias", node.bias.astype(dtype.numpy()))
        like = (dtype, self._shape(node.name))
        self._op("Gemm", [x, codes, bias], out=tensor_name(node.name), like=like, transB=1)

    def _thresholds(self, node: Thresholds) -> None:
        line = self._lines.get(node.name)
        x = self._wide(node.x, node.name)
        if line is None:
            self._comparisons(node, x)
            return
        name, like = node.name, (DOUBLE, self._shape(node.x))
        gain = self._constant(f"{name}.gain", self._per_channel(line.gain, node.x))
        offset = self._constant(f"{name}.offset", self._per_channel(line.offset, node.x))
        value = self._op("Mul", [x, gain], out=f"{name}/scaled", like=like)
        value = self._op("Add", [value, offset], out=f"{name}/shifted", like=like)
        value = self._op("Floor", [value], out=f"{name}/floor", like=like)
        least = self._constant(f"{name}.min", np.float64(0))
        most = self._constant(f"{name}.max", np.float64(node.grid.levels - 1))
        value = self._op("Clip", [value, least, most], out=f"{name}/clip", like=like)
        self._cast(value, UINT8, out=tensor_name(name))

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
        self._cast(value, UINT8, out=tensor_name(name))

    def _check_double(self, values: IntArray, factors: IntArray, node: Rescale, add: int) -> None:
        bound = int(np.abs(values).max()) * max(int(f) for f in np.abs(factors)) + add
        if bound >= EXACT_DOUBLE:
            raise UnsupportedError(
                f"a product may reach {bound}, float64 is exact below {EXACT_DOUBLE}",
                where=f"node {node.name}",
                todo="Use a smaller shift, hence smaller multipliers.",
            )

    def _affine_floor(
        self, value: ir.Value, node: Rescale, *, gain: IntArray, offset: IntArray, part: str
    ) -> ir.Value:
        """floor((gain·value + offset + half) / 2^shift); powers of two keep float64 exact."""
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

    def _rescale(self, node: Rescale) -> None:
        lo, hi = self._range(node.x)
        ends = np.array([lo, hi])
        add = int(np.abs(node.offset).max()) + half_of(node.shift)
        self._check_double(ends, node.multiplier, node, add)
        value = self._affine_floor(
            self._wide(node.x, node.name),
            node,
            gain=node.multiplier,
            offset=node.offset,
            part="",
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
        self._check_double(np.array([least]), slope, node, half_of(node.negative_shift))
        bent = self._affine_floor(
            value, node, gain=slope, offset=np.zeros_like(slope), part="/negative"
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
        half = (DOUBLE, ("N", channels, self._types[node.name].shape[0], width))
        value = self._op("MatMul", [rows, value], out=f"{node.name}/rows", like=half)
        self._op("MatMul", [value, columns], out=out, like=like)

    def _move(self, node: Add | MaxPool2d | Slice | Concat) -> None:
        """Operations that exist in ONNX as they are; on codes they act on indices."""
        inputs = [self._integers(x) for x in inputs_of(node)]
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
        value = self._integers(node.x)
        assert value.dtype is not None
        name, dtype = node.name, value.dtype
        if len(before) == 3:
            value = self._op(
                "Transpose",
                [value],
                out=f"{name}/nhwc",
                like=(dtype, ("N", *before)),
                perm=(0, 2, 3, 1),
            )
        shape = self._constant(f"{name}.shape", np.array([-1, *after], dtype=np.int64))
        out = f"{name}/reshaped" if len(after) == 3 else tensor_name(name)
        value = self._op("Reshape", [value, shape], out=out, like=(dtype, ("N", *after)))
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
            shape: list[int | str] = ["N", *kind.shape]
            self._op("Transpose", [value], out=OUTPUT, like=(FLOAT, shape), perm=(0, 2, 3, 1))


def rescale_bound(node: Rescale, *, lo: int, hi: int) -> int:
    """Least value before the negative side bends."""
    half = half_of(node.shift)
    multipliers: list[int] = node.multiplier.tolist()
    pairs = zip(multipliers, node.offset.tolist(), strict=True)
    return min((m * x + int(b) + half) >> node.shift for m, b in pairs for x in (lo, hi))


def _dims(value: ir.Value) -> list[int | str]:
    """Dimensions of ``value``, symbolic ones by name."""
    assert value.shape is not None
    return [d if isinstance(d, int) else str(d.value) for d in value.shape]
