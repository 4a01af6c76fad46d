"""Operators on stored integers, as compositions of the ones on real values.

QLinearConv and its relatives are DequantizeLinear, the operation and QuantizeLinear in one;
ConvInteger and MatMulInteger are the operation on integers minus their zero points.
"""

from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.export.foreign import elementwise, moves, pools, products, quantizers
from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import Codes

Handler = Callable[[Reading, Op], tuple[Operand, str]]
ONE = np.array(1.0, np.float32)


def _bound(reading: Reading, op: Op, key: str, value: Operand) -> str:
    """A tensor name of its own for an intermediate value of ``op``."""
    name = f"{op.outputs[0]}/{key}"
    reading.operands[name] = value
    return name


def _dequantized(reading: Reading, op: Op, key: str, *, inputs: tuple[str, ...]) -> str:
    """(x, scale, zero point) dequantized; channels of a constant lie along its first axis."""
    part = Op(
        op.name, op.kind, "", inputs, (f"{op.outputs[0]}/{key}",), {"axis": op.integer("_axis", 0)}
    )
    value, _ = quantizers.dequantize_linear(reading, part)
    return _bound(reading, op, key, value)


def _quantized(reading: Reading, op: Op, made: Operand, *, inputs: tuple[str, ...]) -> Operand:
    """The result of the operation quantized with (scale, zero point)."""
    name = _bound(reading, op, "real", made)
    part = Op(op.name, op.kind, "", (name, *inputs), op.outputs, {})
    return quantizers.quantize_linear(reading, part)[0]


def _operation(op: Op, inputs: tuple[str, ...]) -> Op:
    return replace(op, inputs=inputs, outputs=(f"{op.outputs[0]}/real",))


def _names(op: Op, *slots: int) -> tuple[str, ...]:
    return tuple(op.inputs[i] if op.has(i) else "" for i in slots)


def _bias_codes(reading: Reading, op: Op, i: int, *, scales: tuple[str, str]) -> str:
    """A bias (O,) of integers in units of the accumulator, as stored codes."""
    if not op.has(i):
        return ""
    x_scale, w_scale = (reading.operand(op, op.inputs.index(name)) for name in scales)
    assert isinstance(x_scale, np.ndarray)
    assert isinstance(w_scale, np.ndarray)
    unit = x_scale.astype(np.float64).reshape(-1) * w_scale.astype(np.float64).reshape(-1)
    bias = reading.constant(op, i).astype(np.int64).reshape(-1)
    fractions = tuple(Fraction(u) for u in unit.tolist())
    codes = Codes(bias, fractions, 0 if len(fractions) > 1 else None, stored=True)
    return _bound(reading, op, "bias", codes)


def qlinear_conv(reading: Reading, op: Op) -> tuple[Operand, str]:
    """QLinearConv: x, scale, zero, w, scale, zero, y scale, zero, bias."""
    x = _dequantized(reading, op, "x", inputs=_names(op, 0, 1, 2))
    w = _dequantized(reading, op, "w", inputs=_names(op, 3, 4, 5))
    bias = _bias_codes(reading, op, 8, scales=(op.inputs[1], op.inputs[4]))
    made, how = products.conv(reading, _operation(op, (x, w, bias) if bias else (x, w)))
    return _quantized(reading, op, made, inputs=_names(op, 6, 7)), how


def qlinear_matmul(reading: Reading, op: Op) -> tuple[Operand, str]:
    """QLinearMatMul: a, scale, zero, b, scale, zero, y scale, zero."""
    x = _dequantized(reading, op, "x", inputs=_names(op, 0, 1, 2))
    across = replace(op, attributes={**op.attributes, "_axis": 1})
    w = _dequantized(reading, across, "w", inputs=_names(op, 3, 4, 5))
    made, how = products.matmul(reading, _operation(op, (x, w)))
    return _quantized(reading, op, made, inputs=_names(op, 6, 7)), how


def qgemm(reading: Reading, op: Op) -> tuple[Operand, str]:
    """com.microsoft QGemm: a, scale, zero, b, scale, zero, bias, y scale, zero."""
    x = _dequantized(reading, op, "x", inputs=_names(op, 0, 1, 2))
    axis = 0 if op.integer("transB", 0) else 1
    across = replace(op, attributes={**op.attributes, "_axis": axis})
    w = _dequantized(reading, across, "w", inputs=_names(op, 3, 4, 5))
    bias = _bias_codes(reading, op, 6, scales=(op.inputs[1], op.inputs[4]))
    made, how = products.gemm(reading, _operation(op, (x, w, bias) if bias else (x, w)))
    if not op.has(7):
        return made, how
    return _quantized(reading, op, made, inputs=_names(op, 7, 8)), how


def qlinear_add(reading: Reading, op: Op) -> tuple[Operand, str]:
    """com.microsoft QLinearAdd: a, scale, zero, b, scale, zero, y scale, zero."""
    a = _dequantized(reading, op, "a", inputs=_names(op, 0, 1, 2))
    b = _dequantized(reading, op, "b", inputs=_names(op, 3, 4, 5))
    made, how = elementwise.binary(reading, replace(_operation(op, (a, b)), kind="Add"))
    return _quantized(reading, op, made, inputs=_names(op, 6, 7)), how


def qlinear_concat(reading: Reading, op: Op) -> tuple[Operand, str]:
    """com.microsoft QLinearConcat: y scale, zero, then (x, scale, zero) for every part."""
    parts = tuple(
        _dequantized(reading, op, f"x{i}", inputs=_names(op, i, i + 1, i + 2))
        for i in range(2, len(op.inputs) - 2, 3)
    )
    made, how = moves.concat(reading, _operation(op, parts))
    return _quantized(reading, op, made, inputs=_names(op, 0, 1)), how


def qlinear_pool(reading: Reading, op: Op) -> tuple[Operand, str]:
    """com.microsoft QLinear(Global)AveragePool: x, scale, zero, y scale, zero."""
    if op.integer("channels_last", 0):
        raise op.refused("a pool with channels last", "Export channels first.")
    x = _dequantized(reading, op, "x", inputs=_names(op, 0, 1, 2))
    pool = pools.average_pool if "kernel_shape" in op.attributes else pools.global_pool
    made, how = pool(reading, replace(_operation(op, (x,)), kind="GlobalAveragePool"))
    return _quantized(reading, op, made, inputs=_names(op, 3, 4)), how


def _centred(reading: Reading, op: Op, key: str, *, slot: int, zero: int, axis: int = 0) -> str:
    """Integers minus their zero point, as real values of scale 1."""
    unit = _bound(reading, op, f"{key}.one", ONE)
    inputs = (op.inputs[slot], unit, *_names(op, zero)) if op.has(zero) else (op.inputs[slot], unit)
    if op.has(zero):
        zeros = reading.constant(op, zero)
        if zeros.size > 1:
            spread = _bound(reading, op, f"{key}.ones", np.ones(zeros.size, np.float32))
            inputs = (
                op.inputs[slot],
                spread,
                _bound(reading, op, f"{key}.zeros", zeros.reshape(-1)),
            )
    across = replace(op, attributes={**op.attributes, "_axis": axis})
    return _dequantized(reading, across, key, inputs=inputs)


def conv_integer(reading: Reading, op: Op) -> tuple[Operand, str]:
    """ConvInteger: x, w, x zero, w zero."""
    x = _centred(reading, op, "x", slot=0, zero=2)
    w = _centred(reading, op, "w", slot=1, zero=3)
    return products.conv(reading, replace(op, inputs=(x, w)))


def matmul_integer(reading: Reading, op: Op) -> tuple[Operand, str]:
    """MatMulInteger: a, b, a zero, b zero."""
    x = _centred(reading, op, "x", slot=0, zero=2)
    w = _centred(reading, op, "w", slot=1, zero=3, axis=1)
    return products.matmul(reading, replace(op, inputs=(x, w)))


def dynamic(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Scales that depend on the image cannot be folded."""
    raise op.refused(
        "scales that depend on the image", "Quantize statically (quantize_static, calibrated)."
    )
