"""Convolutions and matrix products by stored weights."""

import math
from fractions import Fraction

import numpy as np

from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.settling import image, product_of, real, vector
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import (
    CHANNELS_FIRST,
    VECTOR,
    Codes,
    Value,
    rationals,
    weight_grid,
)
from bitfold.export.qgraph import Affine, Conv, FullyConnected, Rationals
from bitfold.ir import IntArray

ZERO = Fraction(0)
# How far a bias's stored scale may lie from the product of the other two: float32 rounding.
SAME_SCALE = Fraction(1, 2**20)
MAX_KERNEL = 512
LARGEST_INTEGER_WEIGHT = 127


def weights(reading: Reading, op: Op, i: int) -> Codes:
    """Constant weights as integers with scales; floats that are small integers are their own."""
    found = reading.operand(op, i)
    if isinstance(found, Codes):
        return found
    if isinstance(found, Value):
        raise op.refused(
            f"its weight {op.inputs[i]!r} is computed from the image", "Weights must be constant."
        )
    values = found.astype(np.float64)
    if values.size and (values == np.rint(values)).all() and abs(values).max() <= 127:
        return Codes(values.astype(np.int64), (Fraction(1),), None, stored=False)
    raise op.refused(
        f"its weight {op.inputs[i]!r} is float32, not quantized",
        "Quantize this layer too (it may have been excluded from quantization).",
    )


def output_scales(op: Op, weight: Codes, *, axis: int) -> Rationals:
    """The scales of the output channels, which lie along ``axis`` of the weight."""
    if len(weight.scales) > 1 and weight.axis != axis:
        raise op.refused(
            f"its weight has scales along axis {weight.axis}, outputs along axis {axis}",
            "Quantize weights per tensor or per output channel.",
        )
    return weight.scales


def biases(
    reading: Reading, op: Op, i: int, *, units: Rationals, outs: int
) -> tuple[Rationals, IntArray | None]:
    """Real biases (O,), and the same in units of the accumulator where those are integers."""
    if not op.has(i):
        return (ZERO,) * outs, np.zeros(outs, np.int64)
    found = reading.operand(op, i)
    if isinstance(found, Value):
        raise op.refused("its bias is computed from the image", "A bias must be constant.")
    spread = units * outs if len(units) == 1 else units
    if isinstance(found, Codes) and _has_units(found, spread):
        codes = np.broadcast_to(found.codes.reshape(-1), outs).astype(np.int64)
        real = tuple(u * c for u, c in zip(spread, codes.tolist(), strict=True))
        return real, codes
    array = found.real() if isinstance(found, Codes) else found
    if array.size not in (1, outs):
        raise op.refused(f"a bias of shape {array.shape} for {outs} channels", "Export it again.")
    values = rationals(array)
    return values * outs if len(values) == 1 else values, None


def _has_units(bias: Codes, units: Rationals) -> bool:
    """Whether a stored bias counts in units of the accumulator, but for float32 rounding."""
    if bias.codes.size not in (1, len(units)) or len(bias.scales) not in (1, len(units)):
        return False
    have = bias.scales * (len(units) // len(bias.scales))
    return all(abs(h - u) <= u * SAME_SCALE for h, u in zip(have, units, strict=True))


def _padding(op: Op, x: Value, kernel: tuple[int, int], stride: tuple[int, int]) -> tuple[int, ...]:
    """(top, left, bottom, right) as ``pads`` or ``auto_pad`` say."""
    mode = op.text("auto_pad", "NOTSET")
    if mode in ("NOTSET", "VALID"):
        pads = op.integers("pads", (0, 0, 0, 0)) if mode == "NOTSET" else (0, 0, 0, 0)
        if len(pads) != 4 or min(pads) < 0:
            raise op.refused(f"pads {list(pads)}", "Use four pads, 0 or more.")
        return pads
    if mode not in ("SAME_UPPER", "SAME_LOWER"):
        raise op.refused(f"auto_pad {mode!r}", "Use pads.")
    begin, end = [], []
    for size, k, s in zip((x.sizes["H"], x.sizes["W"]), kernel, stride, strict=True):
        total = max(0, (-(-size // s) - 1) * s + k - size)
        small, large = total // 2, total - total // 2
        begin.append(small if mode == "SAME_UPPER" else large)
        end.append(large if mode == "SAME_UPPER" else small)
    return (*begin, *end)


def window(
    op: Op, x: Value, kernel: tuple[int, int]
) -> tuple[tuple[int, int], tuple[int, int, int, int]]:
    """(stride, padding) of a window over image ``x``."""
    stride = op.integers("strides", (1, 1))
    if len(stride) != 2 or min(*stride, *kernel) < 1:
        raise op.refused(
            f"kernel {list(kernel)}, strides {list(stride)}",
            "Windows of two dimensions are read, strides of at least 1.",
        )
    if max(kernel) > MAX_KERNEL:
        raise op.refused(f"a kernel of {list(kernel)}", f"At most {MAX_KERNEL} are read.")
    top, left, bottom, right = _padding(op, x, kernel, (stride[0], stride[1]))
    return (stride[0], stride[1]), (top, left, bottom, right)


def slid(
    reading: Reading, op: Op, x: Value, *, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int, int, int], channels: int,
) -> tuple[int, int, int]:  # fmt: skip
    """(H, W, C) of the result; UnsupportedError where the window does not fit."""
    top, left, bottom, right = padding
    height = (x.sizes["H"] + top + bottom - kernel[0]) // stride[0] + 1
    width = (x.sizes["W"] + left + right - kernel[1]) // stride[1] + 1
    reading.check_size(op, height, width, channels)
    return height, width, channels


def added_pads(x: Value, padding: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    """The window's own padding and the pads pending on ``x``."""
    top, left, bottom, right = (a + b for a, b in zip(x.pads, padding, strict=True))
    return top, left, bottom, right


def _dilated(op: Op, weight: IntArray) -> IntArray:
    """(O, KH, KW, I) weights with zeros between taps."""
    rows, columns = op.integers("dilations", (1, 1))
    if (rows, columns) == (1, 1):
        return weight
    outs, kh, kw, depth = weight.shape
    if min(rows, columns) < 1 or max((kh - 1) * rows, (kw - 1) * columns) >= MAX_KERNEL:
        raise op.refused(f"dilations {[rows, columns]}", f"Kernels up to {MAX_KERNEL} are read.")
    wide = np.zeros((outs, (kh - 1) * rows + 1, (kw - 1) * columns + 1, depth), np.int64)
    wide[:, ::rows, ::columns] = weight
    return wide


def conv(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Conv over an image of codes."""
    x = image(reading, op, 0, view=CHANNELS_FIRST)
    weight, groups = weights(reading, op, 1), op.integer("group", 1)
    codes = weight.codes
    if codes.ndim != 4 or not codes.size:
        raise op.refused(
            f"weights of shape {list(codes.shape)}", "Use convolutions in 2 dimensions."
        )
    if groups < 1 or codes.shape[1] * groups != x.channels or len(codes) % groups:
        raise op.refused(
            f"weights of shape {list(codes.shape)} in {groups} groups for {x.channels} channels",
            "Export the model again.",
        )
    scales = output_scales(op, weight, axis=0)
    spatial = _dilated(op, codes.transpose(0, 2, 3, 1))
    kernel = (spatial.shape[1], spatial.shape[2])
    stride, padding = window(op, x, kernel)
    shape = slid(reading, op, x, kernel=kernel, stride=stride, padding=padding, channels=len(codes))
    real_bias, bias = _bias_of(reading, op, 2, x=x, scales=scales, outs=len(codes))
    node = Conv(
        reading.name(op.outputs[0]), x.node, spatial, weight_grid(codes), scales, stride,
        added_pads(x, padding), groups, real_bias,
    )  # fmt: skip
    reading.emit(node)
    product = product_of(x, scales, bias, len(codes)) if weight.stored else None
    how = f"Conv2d, weights {node.grid}, zero points folded into bias and padding"
    return Value(node.name, shape, CHANNELS_FIRST, product=product), how


def _bias_of(
    reading: Reading, op: Op, i: int, *, x: Value, scales: Rationals, outs: int
) -> tuple[Rationals, IntArray | None]:
    if x.coding is None or len(x.coding.scales) != 1:
        return biases(reading, op, i, units=(ZERO,), outs=outs)
    units = tuple(x.coding.scales[0] * s for s in scales)
    return biases(reading, op, i, units=units, outs=outs)


def _permuted(
    x: Value, letters: tuple[str, ...], weight: IntArray, dims: dict[str, int]
) -> IntArray:
    """Weights (O, K) whose K runs along ``letters``, brought to the order (H, W, C)."""
    order = [letters.index(a) for a in ("H", "W", "C") if a in letters]
    split = weight.reshape(len(weight), *(dims[a] for a in letters))
    return split.transpose(0, *(1 + i for i in order)).reshape(len(weight), -1)


def linear(
    reading: Reading, op: Op, weight: Codes, *, axis: int, alpha: float = 1.0, beta: float = 1.0
) -> tuple[Operand, str]:
    """(N, K) by a constant; outputs lie along ``axis`` of the weight, a bias may be input 2."""
    before = real(reading, op, 0)
    x, letters = vector(reading, op, 0)
    codes = weight.codes if axis == 0 else weight.codes.T
    if codes.ndim != 2 or codes.shape[1] != math.prod(before.dims) or not codes.size:
        raise op.refused(
            f"weights of shape {list(weight.codes.shape)} for {before.dims} features",
            "Export the model again.",
        )
    scales = tuple(s * Fraction(alpha) for s in output_scales(op, weight, axis=axis))
    if min(scales) <= 0:
        raise op.refused(f"alpha is {alpha}", "Use a positive factor.")
    if not before.is_vector and len(letters) > 1:
        codes = _permuted(before, letters, codes, before.sizes)
    outs = len(codes)
    real_bias, bias = _bias_of(reading, op, 2, x=before, scales=scales, outs=outs)
    if beta != 1.0:
        real_bias, bias = tuple(b * Fraction(beta) for b in real_bias), None
    name = reading.name(op.outputs[0])
    held = real_bias if bias is not None else (ZERO,) * outs
    first = name if bias is not None else reading.name(f"{name}.product")
    grid = weight_grid(codes)
    reading.emit(FullyConnected(first, x.node, codes, grid, scales, held))
    if bias is None:
        reading.emit(Affine(name, first, (Fraction(1),) * outs, real_bias))
    exact = weight.stored and bias is not None and alpha == 1.0
    product = product_of(before, scales, bias, outs) if exact else None
    how = f"Linear, weights {grid}, zero point folded into the bias"
    return Value(name, (1, 1, outs), VECTOR, is_vector=True, product=product), how


def gemm(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Alpha · x · W + beta · bias."""
    if op.integer("transA", 0):
        raise op.refused("transA", "Transpose the weight instead.")
    axis = 0 if op.integer("transB", 0) else 1
    return linear(
        reading, op, weights(reading, op, 1), axis=axis,
        alpha=op.number("alpha", 1.0), beta=op.number("beta", 1.0),
    )  # fmt: skip


def matmul(reading: Reading, op: Op) -> tuple[Operand, str]:
    """X · W with constant W (K, O)."""
    if not isinstance(reading.operand(op, 0), Value):
        raise op.refused("its first operand is constant", "Only x · W is read, W constant.")
    return linear(reading, op, weights(reading, op, 1), axis=1)
