"""QONNX's quantizers: Quant (IntQuant), BipolarQuant, MultiThreshold, Trunc.

The domain is what brevitas, qonnx and FINN write; arithmetic as in qonnx's own executor.
"""

import math
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from bitfold.export.foreign.elementwise import per_channel
from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.settling import narrowed_input, real, unpadded
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import Codes, Coding, Value, exact, rationals
from bitfold.export.onnx.file import Array
from bitfold.export.qgraph import Activation, Affine, Rationals, Steps, Ties
from bitfold.ir import Grid
from bitfold.ir.own_input import OwnInput

DOMAINS = (
    "qonnx.custom_op.general", "onnx.brevitas", "finn.custom_op.general",
    "qonnx.custom_op.channels_last", "finn",
)  # fmt: skip
HALF = Fraction(1, 2)
MAX_BITS, MAX_WEIGHT_BITS = 8, 32
MAX_CROSSINGS = 255
TIES: dict[str, Ties] = {"ROUND": "even", "HALF_EVEN": "even", "HALF_UP": "up"}
ROUNDERS: dict[str, Callable[[NDArray[np.float64]], NDArray[np.float64]]] = {
    "ROUND": np.rint, "HALF_EVEN": np.rint, "FLOOR": np.floor, "CEIL": np.ceil,
    "ROUND_TO_ZERO": np.trunc, "DOWN": np.trunc,
    "HALF_UP": lambda y: np.floor(y + 0.5),
}  # fmt: skip


def _integer(op: Op, value: Array, what: str) -> int:
    """A constant that must be one integer."""
    number = float(value.reshape(-1)[0]) if value.size == 1 else math.nan
    if not number.is_integer() or abs(number) > 2**31:
        raise op.refused(f"{what} is {value.ravel()[:4].tolist()}", "Use one integer.")
    return int(number)


def _grid(reading: Reading, op: Op, bits: int) -> Grid:
    signed, narrow = bool(op.integer("signed", 1)), bool(op.integer("narrow", 0))
    if signed:
        most = 2 ** (bits - 1) - 1
        return Grid(-most if narrow else -most - 1, most)
    return Grid(0, 2**bits - (2 if narrow else 1))


def _mode(op: Op, default: str = "ROUND") -> str:
    mode = op.text("rounding_mode", default).upper()
    if mode not in ROUNDERS:
        raise op.refused(f"rounding mode {mode}", f"Use one of {', '.join(ROUNDERS)}.")
    return mode


def quant(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Quant: of a constant its codes, of anything else thresholds."""
    x = reading.operand(op, 0)
    scale, zero, width = (reading.constant(op, i) for i in (1, 2, 3))
    if not scale.size or not (scale.astype(np.float64) > 0).all():
        raise op.refused("a scale is not positive", "Train or calibrate the model again.")
    bits = _integer(op, width, "the bit width")
    if not 1 <= bits <= (MAX_BITS if isinstance(x, Value) else MAX_WEIGHT_BITS):
        raise op.refused(f"{bits} bits", "Quantize activations to at most 8 bits.")
    zero_point = _integer(op, zero, "the zero point")
    if bits == 1 and op.integer("signed", 1):
        if zero_point:
            raise op.refused("one signed bit with a zero point", "Use BipolarQuant.")
        return bipolar_quant(reading, op)
    shifted = _grid(reading, op, bits)
    grid = Grid(shifted.lo - zero_point, shifted.hi - zero_point)
    if not isinstance(x, Value):
        return _quantized_weights(op, x, scale, grid, zero_point), "weights as codes"
    x = reading.value(op, 0)
    scales = rationals(scale.reshape(1)) if scale.size == 1 else per_channel(op, x, scale)
    if TIES.get(_mode(op)) != "even":
        return _stepped(reading, op, grid=grid, scales=scales)
    if zero_point % 2:
        raise op.refused(
            "an odd zero point, whose ties round the other way", "Use a zero point of 0."
        )
    coding = Coding(grid, scales, zero_point)
    made = Value(
        "", x.shape, x.view, x.is_vector, coding, origin=x, pads=x.pads, tensor=op.outputs[0]
    )
    return made, f"thresholds to codes {grid}, folded into the layer in front"


def _quantized_weights(
    op: Op, x: Array | Codes, scale: Array, grid: Grid, zero_point: int
) -> Codes:
    """Codes as the executor rounds them, in float32."""
    values = (x.real() if isinstance(x, Codes) else x).astype(np.float32)
    dims = (1,) * (values.ndim - scale.ndim) + scale.shape
    varying = [i for i, size in enumerate(dims) if size != 1]
    if len(dims) != values.ndim or len(varying) > 1:
        raise op.refused(f"scales of shape {list(scale.shape)}", "Use one, or one a channel.")
    if varying and dims[varying[0]] != values.shape[varying[0]]:
        raise op.refused(f"scales of shape {list(scale.shape)}", "Use one, or one a channel.")
    shaped = scale.astype(np.float32).reshape(dims if values.ndim else ())
    y = values / shaped + np.float32(zero_point)
    ends = float(grid.lo + zero_point), float(grid.hi + zero_point)
    clipped: NDArray[np.float64] = np.clip(y.astype(np.float64), *ends)
    codes = ROUNDERS[_mode(op)](clipped).astype(np.int64) - zero_point
    return Codes(codes, rationals(scale), varying[0] if varying else None, stored=False)


def _stepped(reading: Reading, op: Op, *, grid: Grid, scales: Rationals) -> tuple[Operand, str]:
    """Rounding modes other than to the nearest even: explicit crossings."""
    x, mode = _plain(reading, op), _mode(op)
    at = {"FLOOR": Fraction(0), "CEIL": Fraction(-1), "HALF_UP": -HALF}.get(mode)
    if at is None or len(set(scales)) != 1:
        raise op.refused(f"rounding mode {mode} of activations, or with a scale a channel",
                         "Use ROUND.")  # fmt: skip
    scale = scales[0]
    row = tuple(scale * (k + at) for k in range(grid.lo + 1, grid.hi + 1))
    node = Steps(reading.name(op.outputs[0]), x.node, (row,), grid, scale,
                 strict=(mode == "CEIL",) * len(row))  # fmt: skip
    return _coded(x, reading.emit(node), Coding(grid, (scale,), 0)), f"thresholds to codes {grid}"


def _coded(x: Value, node: str, coding: Coding | None) -> Value:
    return Value(node, x.shape, x.view, x.is_vector, coding)


def _plain(reading: Reading, op: Op) -> Value:
    return unpadded(reading, op, real(reading, op, 0), name=op.inputs[0])


def _thresholded_input(
    reading: Reading, op: Op, raw: Value, row: Rationals, *, scale: Fraction, bias: Fraction
) -> Value:
    """The model's float input behind a quantizer with crossings: pixels are indices."""
    source = reading.source
    own = OwnInput(
        source.input, source.dtype, source.dims, reading.channels_last, 0, len(row),
        steps=raw.chain or (), crossings=tuple(map(float, row)),
    )  # fmt: skip
    node = reading.open_input(op, own, scale=scale)
    node = narrowed_input(reading, node, Grid(0, len(row)), scale)
    made = replace(raw, node=node, coding=Coding(Grid(0, len(row)), (scale,), 0), chain=None)
    if not bias:
        return made
    counts = (Fraction(1),) * raw.channels, (bias,) * raw.channels
    shifted = reading.emit(Affine(reading.name(op.outputs[0]), node, *counts))
    return replace(made, node=shifted, coding=None)


def bipolar_quant(reading: Reading, op: Op) -> tuple[Operand, str]:
    """±scale, + where x ≥ 0."""
    x, scale = reading.operand(op, 0), reading.constant(op, 1)
    if not isinstance(x, Value):
        values = (x.real() if isinstance(x, Codes) else x).astype(np.float32)
        signs = _quantized_weights(op, np.sign(values) * 2 + 1, scale, Grid(-1, 1), 0)
        codes = np.where(values >= 0, 1, -1).astype(np.int64)
        return replace(signs, codes=codes), "weights of one bit"
    how = "thresholds to codes ±1"
    x = reading.value(op, 0)
    if x.is_raw and not x.integers:
        if scale.size != 1:
            raise op.refused("the input has a scale a channel", "Use one scale.")
        step = exact(scale.reshape(-1)[0])
        return _thresholded_input(reading, op, x, (Fraction(0),), scale=2 * step, bias=-step), how
    x = _plain(reading, op)
    scales = rationals(scale.reshape(1)) if scale.size == 1 else per_channel(op, x, scale)
    node = Activation(reading.name(op.outputs[0]), x.node, Grid.odd(1), scales, "up")
    return _coded(x, reading.emit(node), None), how


def multi_threshold(reading: Reading, op: Op) -> tuple[Operand, str]:
    """out_scale · #{t ≤ x} + out_bias."""
    table = reading.constant(op, 1)
    x = reading.value(op, 0)
    scale = exact(np.float32(op.number("out_scale", 1.0)))
    bias = exact(np.float32(op.number("out_bias", 0.0)))
    last = op.text("data_layout", "NCHW") == "NHWC"
    if scale <= 0 or table.ndim != 2 or not 1 <= table.shape[1] <= MAX_CROSSINGS:
        raise op.refused(
            f"thresholds {list(table.shape)}, scale {float(scale)}",
            f"Use (channels, 1 … {MAX_CROSSINGS}) thresholds and a positive scale.",
        )
    if (np.diff(table.astype(np.float64), axis=1) < 0).any():
        raise op.refused("thresholds that do not ascend", "Sort them.")
    group = x.view[-1 if last else 0]
    if len(table) != 1 and (len(table) != x.channels or x.letters(group) != ("C",)):
        raise op.refused(f"{len(table)} rows for {x.channels} channels", "Give one a channel.")
    rows = tuple(rationals(row) for row in table)
    how = f"thresholds, {table.shape[1] + 1} codes"
    if x.is_raw and not x.integers:
        if len(rows) != 1:
            raise op.refused("the input has thresholds a channel", "Use one row.")
        return _thresholded_input(reading, op, x, rows[0], scale=scale, bias=bias), how
    x = _plain(reading, op)
    shift = bias / scale
    whole = shift.denominator == 1
    lo = int(shift) if whole else 0
    grid = Grid(lo, lo + table.shape[1])
    offset = Fraction(0) if whole else bias
    node = Steps(reading.name(op.outputs[0]), x.node, rows, grid, scale, offset)
    coding = Coding(grid, (scale,), 0) if whole else None
    return _coded(x, reading.emit(node), coding), how


def trunc(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Trunc: the value in units of its scale, rounded, divided by a power of two and floored."""
    x = _plain(reading, op)
    scale, zero = exact(reading.constant(op, 1).reshape(-1)[0]), reading.constant(op, 2)
    is_second = len(op.inputs) == 6
    bits = [
        _integer(op, reading.constant(op, i), "a bit width") for i in (3, 5 if is_second else 4)
    ]
    out_scale = exact(reading.constant(op, 4).reshape(-1)[0]) if is_second else scale
    if _integer(op, zero, "the zero point") or scale <= 0 or out_scale <= 0:
        raise op.refused("a zero point, or a scale that is not positive", "Use a zero point of 0.")
    exponent = round(math.log2(out_scale / scale)) if is_second else bits[0] - bits[1]
    if not (1 <= bits[1] <= MAX_BITS and 0 <= exponent <= MAX_WEIGHT_BITS):
        raise op.refused(f"from {bits[0]} to {bits[1]} bits", "Truncate to at most 8 bits.")
    mode = _mode(op, "FLOOR")
    if is_second:
        grid = _grid(reading, op, bits[1])
    else:
        grid = (
            Grid(0, 2 ** bits[1] - 1)
            if x.is_nonnegative
            else Grid(-(2 ** bits[1]) // 2, 2 ** bits[1] // 2 - 1)
        )
    row = _truncated(op, grid, 2**exponent, mode)
    # x/scale = y − 1/2 is a tie, which only an even y takes.
    crossings, strict = tuple(scale * (y - HALF) for y in row), tuple(y % 2 == 1 for y in row)
    node = Steps(reading.name(op.outputs[0]), x.node, (crossings,), grid, out_scale, strict=strict)
    return _coded(x, reading.emit(node), Coding(grid, (out_scale,), 0)), f"thresholds {grid}"


def _truncated(op: Op, grid: Grid, divisor: int, mode: str) -> list[int]:
    """The least integer y = rne(x/scale) at which each code begins."""
    ks = range(grid.lo + 1, grid.hi + 1)
    if mode == "FLOOR":
        return [k * divisor for k in ks]
    if mode in ("ROUND", "HALF_EVEN"):
        # y/divisor = k − 1/2 is a tie, which only an even k takes.
        return [(2 * k - 1) * divisor // 2 + (k % 2 if divisor > 1 else 1) for k in ks]
    raise op.refused(f"rounding mode {mode} of a Trunc", "Use FLOOR.")
