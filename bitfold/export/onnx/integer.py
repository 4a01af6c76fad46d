"""Integer graph → ONNX, profile ``integer``: integers from the pixels to the logits (docs/onnx.md).

Codes are uint8 indices, everything else is int32. Convolutions are ConvInteger, linear layers
MatMulInteger, thresholds comparisons. Each operation uses only what ONNX Runtime, the reference
evaluator and OpenVINO compute exactly; OpenVINO sums products and windows in float32, so sums are
kept below 2^24, in parts where a layer's are larger.
"""

from collections.abc import Sequence

import numpy as np
import onnx_ir as ir

from bitfold.errors import UnsupportedError
from bitfold.export.onnx.build import EXACT_FLOAT, INTEGER, UINT8, tensor_name
from bitfold.export.onnx.compare import ComparingEmitter
from bitfold.export.onnx.digits import affine_ends, plan_product
from bitfold.export.onnx.emit import Json, half_of, is_whole_map
from bitfold.export.onnx.int32 import INT32, shape_of
from bitfold.ir.graph import IntGraph
from bitfold.ir.ops import Add, Concat, Conv2d, Linear, MaxPool2d, Rescale, Slice, SumPool2d
from bitfold.ir.types import INT32_MAX, CodeTensor, IntArray

PAIR_LIMIT = 2**15 - 1
WEIGHT_ZERO = 128


def reads_as(kind: CodeTensor) -> tuple[int, int, int]:
    """(zero, step, base) with code = step·(index − zero) + base; base is 0 where 0 is a code."""
    grid = kind.grid
    if grid.lo % grid.step == 0 and 0 <= -grid.lo // grid.step <= 255:
        return -grid.lo // grid.step, grid.step, 0
    return 0, grid.step, grid.lo


def input_parts(node: Conv2d | Linear, kind: CodeTensor) -> list[tuple[int, int]]:
    """Ranges of input channels whose products add up to less than 2^24 in size, in any order.

    Raises UnsupportedError where one channel's do not, or where channels come in groups.
    """
    zero, _, _ = reads_as(kind)
    size = max(zero, kind.grid.levels - 1 - zero)
    weight = np.abs(node.weight.reshape(len(node.weight), -1, node.weight.shape[-1])).sum(1)
    sums = size * np.cumsum(weight, axis=1)
    parts, start, before = [], 0, np.zeros(len(weight), dtype=np.int64)
    for channel in range(1, weight.shape[1] + 1):
        if (sums[:, channel - 1] - before >= EXACT_FLOAT).any():
            parts.append((start, channel - 1))
            start, before = channel - 1, sums[:, channel - 2] if channel > 1 else before
    parts.append((start, weight.shape[1]))
    in_groups = isinstance(node, Conv2d) and node.groups > 1 and len(parts) > 1
    last = sums[:, -1] - before
    if in_groups or any(a == b for a, b in parts) or (last >= EXACT_FLOAT).any():
        raise UnsupportedError(
            f"partial sums may reach {int(sums[:, -1].max())}, runtimes are exact below "
            f"{EXACT_FLOAT}",
            where=f"node {node.name}",
            todo="Use fewer input channels a group, or fewer weight or activation bits.",
        )
    return parts


def is_padded_apart(node: Conv2d) -> bool:
    """Whether ``node`` is 1×1, strided and padded: OpenVINO sizes it wrongly."""
    return node.weight.shape[1:3] == (1, 1) and any(node.padding) and max(node.stride) > 1


class IntegerEmitter(ComparingEmitter):
    """Writes every node of a graph in integers."""

    profile = INTEGER

    def __init__(self, graph: IntGraph) -> None:
        """Every Thresholds is written as comparisons."""
        super().__init__(graph, {})
        for node in graph.nodes:
            if isinstance(node, MaxPool2d | SumPool2d):
                facts: dict[str, Json] = {"kernel": list(node.kernel), "stride": list(node.stride)}
                self.facts[node.name] = facts
            if isinstance(node, MaxPool2d):
                self.facts[node.name]["padding"] = list(node.padding)

    # sums of products

    def _zero_point(self, name: str) -> ir.Value:
        """Index that codes count from; padding is filled with it."""
        kind = self._types[name]
        assert isinstance(kind, CodeTensor)
        key = f"{name}.zero_point"
        if key in self._values:
            return self._values[key]
        return self._constant(key, np.uint8(reads_as(kind)[0]))

    def _weight(self, node: Conv2d | Linear, size: int) -> tuple[IntArray, int]:
        """Weights as they are stored, (O, I, KH, KW) or (I, O), and their zero point.

        Signed bytes, where no sum of two products leaves 16 bits, in which some kernels add them.
        """
        if np.abs(node.weight).max(initial=0) > WEIGHT_ZERO - 1:
            raise UnsupportedError(
                f"weights lie on {node.weight_grid}, not in -127 … 127",
                where=f"node {node.name}",
                todo="Quantize the weights to at most 8 bits, symmetrically.",
            )
        is_safe = 2 * size * int(np.abs(node.weight).max(initial=0)) <= PAIR_LIMIT
        zero = 0 if is_safe else WEIGHT_ZERO
        spread = node.weight.transpose(*((0, 3, 1, 2) if isinstance(node, Conv2d) else (1, 0)))
        return spread + zero, zero

    def _conv(self, node: Conv2d) -> None:
        self._sum_of_products(node, channels=1)

    def _linear(self, node: Linear) -> None:
        self._sum_of_products(node, channels=0)

    def _sum_of_products(self, node: Conv2d | Linear, *, channels: int) -> None:
        """One ConvInteger or MatMulInteger, or several over parts of the channels, added up.

        ``channels``: the axis of the stored weights that counts input channels.
        """
        kind = self._types[node.x]
        assert isinstance(kind, CodeTensor)
        name, parts = node.name, input_parts(node, kind)
        weight, zero = self._weight(node, kind.grid.levels - 1)
        dtype = np.int8 if zero == 0 else np.uint8
        terms = []
        source = self._padded(node)
        for i, (start, stop) in enumerate(parts):
            suffix, x = str(i) if len(parts) > 1 else "", source
            if suffix:
                x = self._sliced(x, (start, stop), axis=1, out=f"{name}/part{suffix}")
            piece = np.take(weight, range(start, stop), axis=channels)
            stored = self._constant(f"{name}.weight{suffix}", piece.astype(dtype))
            inputs = [x, stored, self._zero_point(node.x)]
            if zero:
                key = f"{name}.weight{suffix}.zero_point"
                inputs.append(self._constant(key, np.uint8(zero)))
            terms.append(self._integer_product(node, inputs, out=f"{name}/products{suffix}"))
        bias = self._stored_bias(node, kind)
        if self._reach(node, kind) + int(np.abs(bias).max()) >= EXACT_FLOAT:
            terms = [self._apart(term, out=f"{name}/apart{i}") for i, term in enumerate(terms)]
        total = terms[0]
        for i, term in enumerate(terms[1:], 1):
            total = self._binary("Add", total, term, out=f"{name}/sum{i}")
        _, step, _ = reads_as(kind)
        if step != 1:
            total = self._with("Mul", total, step, out=f"{name}/codes_products")
        self._with("Add", total, bias, out=tensor_name(name), key=f"{name}.bias")

    def _integer_product(
        self, node: Conv2d | Linear, inputs: Sequence[ir.Value], *, out: str
    ) -> ir.Value:
        like = (INT32, self._shape(node.name))
        if isinstance(node, Linear):
            return self._op("MatMulInteger", inputs, out=out, like=like)
        return self._op(
            "ConvInteger",
            inputs,
            out=out,
            like=like,
            kernel_shape=node.weight.shape[1:3],
            strides=node.stride,
            pads=(0, 0, 0, 0) if is_padded_apart(node) else node.padding,
            group=node.groups,
        )

    def _padded(self, node: Conv2d | Linear) -> ir.Value:
        """The indices that ``node`` reads, with its padding where ConvInteger cannot have it."""
        value = self._integers(node.x)
        if isinstance(node, Linear) or not is_padded_apart(node):
            return value
        height, width, channels = self._types[node.x].shape
        top, left, bottom, right = node.padding
        ends = np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
        inputs = [value, self._constant(f"{node.name}.pads", ends), self._zero_point(node.x)]
        dims = (self.profile.batch, channels, height + top + bottom, width + left + right)
        return self._op("Pad", inputs, out=f"{node.name}/padded", like=(UINT8, dims))

    def _stored_bias(self, node: Conv2d | Linear, kind: CodeTensor) -> IntArray:
        """What step·Σ index·weight lacks to the accumulator: bias + base·Σ weight."""
        _, _, base = reads_as(kind)
        flat = node.weight.reshape(len(node.weight), -1)
        bias = self._per_channel(node.bias + base * flat.sum(1), node.name).astype(np.int64)
        if max(self._reach(node, kind), int(np.abs(bias).max())) > INT32_MAX:
            raise UnsupportedError(
                "a sum of its products may leave int32 before the bias is added",
                where=f"node {node.name}",
                todo="Use fewer input channels, or fewer weight or activation bits.",
            )
        return bias

    def _reach(self, node: Conv2d | Linear, kind: CodeTensor) -> int:
        zero, step, _ = reads_as(kind)
        size = step * max(zero, kind.grid.levels - 1 - zero)
        return size * int(np.abs(node.weight.reshape(len(node.weight), -1)).sum(1).max())

    # the stream

    def _rescale(self, node: Rescale) -> None:
        ends, slope = self._range(node.x), node.negative_multiplier
        out, like = tensor_name(node.name), (INT32, self._shape(node.name))
        to = out if slope is None else f"{node.name}/floor"
        offset = node.offset + half_of(node.shift)
        value = self._affine(
            node, self._codes(node.x), (node.multiplier, offset, node.shift), ends=ends, out=to
        )
        if slope is None:
            return
        if not slope.any():
            self._with("Max", value, 0, out=out, key=f"{node.name}.zero")
            return
        zero = self._constant(f"{node.name}.zero", np.int32(0))
        below = self._binary("Min", value, zero, out=f"{node.name}/below")
        least, _ = affine_ends(node.multiplier, offset, shift=node.shift, ends=ends)
        half = np.full_like(slope, half_of(node.negative_shift))
        bent = self._affine(
            node, below, (slope, half, node.negative_shift), ends=(min(least, 0), 0),
            out=f"{node.name}/bent", part="/negative",
        )  # fmt: skip
        like_mask = (ir.DataType.BOOL, self._shape(node.name))
        mask = self._op("Less", [value, zero], out=f"{node.name}/is_below", like=like_mask)
        self._op("Where", [mask, bent, value], out=out, like=like)

    def _affine(
        self,
        node: Rescale,
        value: ir.Value,
        line: tuple[IntArray, IntArray, int],
        *,
        ends: tuple[int, int],
        out: str,
        part: str = "",
    ) -> ir.Value:
        """(gain·value + offset) >> shift, ``line`` = (gain, offset, shift), value in ``ends``."""
        gain, offset, shift = line
        least, most = affine_ends(gain, offset, shift=shift, ends=ends)
        size = max(-least, most)
        plan = plan_product(gain, offset, shift=shift, ends=ends, most=size)
        if plan is None or size > INT32_MAX:
            raise UnsupportedError(
                f"multiplier, offset and range {ends[0]} … {ends[1]} leave 32 bits in every "
                "split into digits",
                where=f"node {node.name}",
                todo="Use the qcdq profile, or fewer fraction bits.",
            )
        key = "negative_digit_bits" if part else "digit_bits"
        self.facts.setdefault(node.name, {})[key] = plan.bits
        prefix = f"{node.name}{part}"
        if plan.num_digits == 1:
            value = self._apart(value, out=f"{prefix}/apart")
        return self._product(value, plan, node.x, ends=ends, prefix=prefix, out=out)

    # windows

    def _sum_pool(self, node: SumPool2d) -> None:
        shape, out = self._types[node.x].shape, tensor_name(node.name)
        value = self._codes(node.x)
        if is_whole_map(node, shape):
            self._sum_map(node, value)
            return
        (height, width, _), (kh, kw), (sh, sw) = shape, node.kernel, node.stride
        for axis, size, kernel, stride, name in (
            (2, height, kh, sh, f"{node.name}/rows"),
            (3, width, kw, sw, out),
        ):
            taps = self._taps(value, size, kernel=kernel, stride=stride, axis=axis, prefix=name)
            value = self._added(taps, out=name)

    def _added(self, values: Sequence[ir.Value], *, out: str) -> ir.Value:
        if len(values) == 1:
            return self._op("Identity", values, out=out, like=(INT32, shape_of(values[0])))
        total = values[0]
        for i, value in enumerate(values[1:], 1):
            name = out if i == len(values) - 1 else f"{out}/sum{i}"
            total = self._binary("Add", total, value, out=name)
        return total

    def _taps(
        self, value: ir.Value, size: int, *, kernel: int, stride: int, axis: int, prefix: str
    ) -> list[ir.Value]:
        """Row (or column) i of every window, for each i of the window."""
        span = (size - kernel) // stride * stride + 1
        return [
            self._sliced(value, (i, i + span), axis=axis, stride=stride, out=f"{prefix}/tap{i}")
            for i in range(kernel)
        ]

    def _sum_map(self, node: SumPool2d, value: ir.Value) -> None:
        """ReduceSum; of sums past 2^24 the upper and the lower bits apart."""
        name, out, (lo, hi) = node.name, tensor_name(node.name), self._range(node.x)
        area, size = node.kernel[0] * node.kernel[1], max(abs(lo), abs(hi))
        axes = self._constant(f"{name}.axes", np.array([2, 3], dtype=np.int64))
        like = (INT32, self._shape(name))

        def reduced(x: ir.Value, to: str) -> ir.Value:
            return self._op("ReduceSum", [x, axes], out=to, like=like, keepdims=1)

        if size * area < EXACT_FLOAT:
            reduced(value, out)
            return
        bits = 24 - area.bit_length()
        if bits < 1 or ((size >> bits) + 1) * area >= EXACT_FLOAT:
            raise UnsupportedError(
                f"a sum over {area} positions of up to {size}",
                where=f"node {name}",
                todo="Use smaller images.",
            )
        lower = self._with("BitwiseAnd", value, (1 << bits) - 1, out=f"{name}/lower")
        upper = self._shifted(value, bits, size=size, out=f"{name}/upper")
        uppers = self._apart(reduced(upper, f"{name}/uppers"), out=f"{name}/upper_sum")
        lowers = self._apart(reduced(lower, f"{name}/lowers"), out=f"{name}/lower_sum")
        high = self._with("Mul", uppers, 1 << bits, out=f"{name}/high")
        self._binary("Add", high, lowers, out=out)

    def _move(self, node: Add | MaxPool2d | Slice | Concat) -> None:
        if isinstance(node, MaxPool2d) and not isinstance(self._types[node.x], CodeTensor):
            self._max_pool(node)
            return
        super()._move(node)

    def _max_pool(self, node: MaxPool2d) -> None:
        """Max over shifted copies: MaxPool takes no int32, and float32 holds 24 bits."""
        name, value = node.name, self._integers(node.x)
        height, width, channels = self._types[node.x].shape
        top, left, bottom, right = node.padding
        if any(node.padding):
            pads = self._constant(
                f"{name}.pads", np.array([0, 0, top, left, 0, 0, bottom, right], dtype=np.int64)
            )
            # A power of two: OpenVINO keeps it in float32.
            least = self._constant(f"{name}.least", np.int32(-(2**31)))
            height, width = height + top + bottom, width + left + right
            like = (INT32, (self.profile.batch, channels, height, width))
            value = self._op("Pad", [value, pads, least], out=f"{name}/padded", like=like)
        for axis, size, place, out in (
            (2, height, 0, f"{name}/rows"),
            (3, width, 1, tensor_name(name)),
        ):
            taps = self._taps(
                value, size, kernel=node.kernel[place], stride=node.stride[place], axis=axis,
                prefix=out,
            )  # fmt: skip
            op = "Max" if len(taps) > 1 else "Identity"
            value = self._op(op, taps, out=out, like=(INT32, shape_of(taps[0])))

    def _sliced(
        self,
        value: ir.Value,
        part: tuple[int, int],
        *,
        axis: int,
        out: str,
        stride: int = 1,
    ) -> ir.Value:
        """Positions start … stop − 1 of ``axis``, every ``stride``-th."""
        key, (start, stop) = out.replace("/", "."), part
        dims = shape_of(value)
        dims[axis] = (stop - start + stride - 1) // stride
        inputs = [value]
        for word, number in (("start", start), ("stop", stop), ("axis", axis), ("step", stride)):
            inputs.append(self._constant(f"{key}.{word}", np.array([number], dtype=np.int64)))
        assert value.dtype is not None
        return self._op("Slice", inputs, out=out, like=(value.dtype, dims))

    # codes

    def _codes(self, name: str) -> ir.Value:
        """``name`` as int32: the codes of a code tensor, else the tensor itself."""
        kind = self._types[name]
        if not isinstance(kind, CodeTensor):
            return self._integers(name)
        out = f"{name}/codes"
        if out in self._values:
            return self._values[out]
        if (kind.grid.lo, kind.grid.step) == (0, 1):
            return self._cast(self._integers(name), INT32, out=out)
        value = self._cast(self._integers(name), INT32, out=f"{name}/indices")
        if kind.grid.step != 1:
            value = self._with("Mul", value, kind.grid.step, out=f"{name}/steps")
        return self._with("Add", value, kind.grid.lo, out=out)
