"""Affine maps, batch norms and rectifications; in front of the input's quantizer, its own steps."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.export.foreign.quantizers import clip_integers
from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.settling import real, unpadded
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import NO_PADS, Value, exact, rationals
from bitfold.export.onnx.file import Array
from bitfold.export.qgraph import Affine, BatchNorm, Prelu, Rationals, Sum
from bitfold.ir.own_input import InputStep, Operator

ONE, ZERO = Fraction(1), Fraction(0)
BINARY: dict[str, Operator] = {"Add": "Add", "Sub": "Sub", "Mul": "Mul", "Div": "Div"}
PADDED_TODO = "Put the Pad behind it."


def _step(operator: Operator, constant: Array) -> InputStep:
    values = constant.astype(np.float32)
    return InputStep(operator, tuple(map(float, values.ravel().tolist())), values.shape)


def _chained(reading: Reading, op: Op, x: Value, operator: Operator, constant: Array) -> Value:
    """One more float32 operation on the model's own input."""
    fits = constant.ndim <= len(x.dims) + 1 and all(
        size in (1, have)
        for size, have in zip(constant.shape[::-1], (1, *x.dims)[::-1], strict=False)
    )
    # A step is taken in the input's own layout, whatever views lie between.
    if constant.size != 1 and not (fits and x.dims == reading.source.dims):
        raise op.refused(f"a constant of shape {constant.shape} for {x.dims}", "Broadcast it.")
    assert x.chain is not None
    return replace(x, chain=(*x.chain, _step(operator, constant)))


def per_channel(op: Op, x: Value, constant: Array) -> Rationals:
    """A constant that broadcasts to ``x`` as one value a channel."""
    if constant.size == 1:
        return rationals(constant.reshape(1)) * x.channels
    dims = (1,) * (len(x.dims) + 1 - constant.ndim) + constant.shape
    varying = [i for i, size in enumerate(dims) if size != 1]
    if len(dims) != len(x.dims) + 1 or len(varying) != 1 or varying[0] == 0:
        raise op.refused(
            f"a constant of shape {list(constant.shape)} for values {['N', *x.dims]}",
            "Constants of one value, or one value a channel, are read.",
        )
    if x.letters(x.view[varying[0] - 1]) != ("C",) or constant.size != x.channels:
        raise op.refused(
            f"a constant of shape {list(constant.shape)} does not run along the channels",
            "Constants of one value, or one value a channel, are read.",
        )
    return rationals(constant.reshape(-1))


def affine(reading: Reading, op: Op, x: Value, gain: Rationals, bias: Rationals) -> Value:
    """Gain · x + bias, channel by channel."""
    if any(bias) and x.pads != NO_PADS:
        x = unpadded(reading, op, x, name=op.outputs[0])
    node = Affine(reading.name(op.outputs[0]), x.node, gain, bias)
    return replace(x, node=reading.emit(node), coding=None, product=None, chain=None)


def binary(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Add, Sub, Mul, Div with a constant; Add of two values of the network."""
    left, right = reading.operand(op, 0), reading.operand(op, 1)
    if isinstance(left, Value) and isinstance(right, Value):
        return _of_two(reading, op)
    first = isinstance(left, Value)
    x, constant = reading.value(op, 0 if first else 1), reading.constant(op, 1 if first else 0)
    if op.kind == "Div" and (not first or not constant.all()):
        raise op.refused("a division by the image or by 0", "Use Mul with a constant.")
    operator: Operator = "SubFrom" if op.kind == "Sub" and not first else BINARY[op.kind]
    if x.is_raw and not x.integers:
        return _chained(reading, op, x, operator, constant), "a step of the input's own quantizer"
    x = real(reading, op, 0 if first else 1)
    values = per_channel(op, x, constant)
    gain, bias = _as_map(operator, values)
    made = affine(reading, op, x, gain, bias)
    if x.chain is not None:
        made = _chained(reading, op, replace(made, chain=x.chain), operator, constant)
    return made, "an affine map, folded into what follows"


def _as_map(operator: Operator, values: Rationals) -> tuple[Rationals, Rationals]:
    none, one = (ZERO,) * len(values), (ONE,) * len(values)
    match operator:
        case "Add":
            return one, values
        case "Sub":
            return one, tuple(-v for v in values)
        case "SubFrom":
            return tuple(-v for v in one), values
        case "Mul":
            return values, none
        case _:
            return tuple(1 / v for v in values), none


def _of_two(reading: Reading, op: Op) -> tuple[Operand, str]:
    if op.kind != "Add":
        raise op.refused(
            f"{op.kind} of two tensors of the network", "Only sums of two tensors are read."
        )
    a, b = (unpadded(reading, op, real(reading, op, i), name=op.inputs[i]) for i in (0, 1))
    if a.shape != b.shape or a.dims != b.dims or not a.looks(b.view):
        raise op.refused(
            f"a sum of {['N', *a.dims]} and {['N', *b.dims]}", "Operands need one shape."
        )
    node = reading.emit(Sum(reading.name(op.outputs[0]), a.node, b.node, fine=True))
    how = "Add of integers in the ratio of both scales"
    return Value(node, a.shape, a.view, a.is_vector), how


def batch_norm(reading: Reading, op: Op) -> tuple[Operand, str]:
    """BatchNormalization with constant statistics."""
    x = unpadded(reading, op, real(reading, op, 0), name=op.inputs[0])
    if not x.view or x.letters(x.view[0]) not in (("C",), ()):
        raise op.refused("its second dimension is not the channels", "Export channels first.")
    columns = []
    for i in range(1, 5):
        values = reading.constant(op, i)
        if values.size != x.channels:
            raise op.refused(f"{values.size} values for {x.channels} channels", "Export it again.")
        columns.append(tuple(map(float, values.ravel().tolist())))
    gamma, beta, mean, var = columns
    eps = op.number("epsilon", 1e-5)
    node = BatchNorm(reading.name(op.outputs[0]), x.node, gamma, beta, mean, var, eps)
    made = replace(x, node=reading.emit(node), coding=None, product=None, chain=None)
    return made, "an affine map, folded into what follows"


def _clipped(op: Op, x: Value, low: Fraction | None, high: Fraction | None) -> tuple[Value, str]:
    """A pending clip, together with one that is pending already."""
    if x.is_raw and not x.integers:
        assert x.chain is not None
        for operator, end in (("Max", low), ("Min", high)):
            if end is not None:
                step = InputStep(operator, (float(end),), ())  # type: ignore[arg-type]
                x = replace(x, chain=(*x.chain, step))
        return x, "a step of the input's own quantizer"
    if x.pads != NO_PADS and ((low or ZERO) > 0 or (high is not None and high < 0)):
        raise op.refused("a clip without 0 behind a Pad", PADDED_TODO)
    have_low, have_high = x.clip
    lows = [end for end in (low, have_low) if end is not None]
    highs = [end for end in (high, have_high) if end is not None]
    clip = (max(lows, default=None), min(highs, default=None))
    known = x.real_bounds()[0]
    if clip == (low, None) and known is not None and low is not None and known >= low:
        return replace(x, clip=(None, None)), "nothing to do: no code lies below"
    return replace(x, clip=clip), "fewer codes of the quantizer behind it"


def relu(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Relu."""
    return _rectified(reading, op, ZERO, None)


def clip(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Clip between constants, of integers or of real values."""
    x = reading.value(op, 0)
    if x.integers and not x.is_raw:
        return clip_integers(reading, op, x)
    ends: list[Fraction | None] = []
    for i, key in ((1, "min"), (2, "max")):
        given = reading.optional(op, i)
        if given is None and key in op.attributes:
            given = np.array(op.number(key, 0.0))
        ends.append(None if given is None else exact(given.reshape(-1)[0]))
    low, high = ends
    if low is not None and high is not None and low >= high:
        raise op.refused(f"a clip to {float(low)} … {float(high)}", "Its ends are swapped.")
    return _rectified(reading, op, low, high)


def _rectified(
    reading: Reading, op: Op, low: Fraction | None, high: Fraction | None
) -> tuple[Operand, str]:
    x = reading.value(op, 0)
    if x.integers:
        raise op.refused("it computes with stored integers", "Put a DequantizeLinear before it.")
    return _clipped(op, x, low, high)


def prelu(reading: Reading, op: Op) -> tuple[Operand, str]:
    """PRelu and LeakyRelu."""
    x = real(reading, op, 0)
    if op.kind == "LeakyRelu":
        slopes: Rationals = (exact(np.float32(op.number("alpha", 0.01))),) * x.channels
    else:
        slopes = per_channel(op, x, reading.constant(op, 1))
    node = Prelu(reading.name(op.outputs[0]), x.node, slopes)
    made = replace(x, node=reading.emit(node), coding=None, product=None, chain=None)
    return made, "slopes of a rescale, bounded"
