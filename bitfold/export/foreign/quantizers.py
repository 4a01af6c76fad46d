"""QuantizeLinear, DequantizeLinear and what may stand between them: Clip and Cast of integers."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.settling import integer_input, settled
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import Codes, Coding, Value, rationals
from bitfold.export.onnx.file import Array
from bitfold.export.qgraph import Affine
from bitfold.ir import Grid

MAX_LEVELS = 256
ONE = Fraction(1)
LEFT_OUT = "left out, behind the final Softmax"
OUTPUT_DTYPES = {2: (0, 255), 3: (-128, 127), 4: (0, 65535), 5: (-32768, 32767),
                 21: (0, 15), 22: (-8, 7), 25: (0, 3), 26: (-2, 1)}  # fmt: skip
DTYPES = {"uint8": (0, 255), "int8": (-128, 127), "uint4": (0, 15), "int4": (-8, 7),
          "uint2": (0, 3), "int2": (-2, 1), "uint16": (0, 65535), "int16": (-32768, 32767),
          "int32": (-(2**31), 2**31 - 1)}  # fmt: skip


def _range(op: Op, zero: Array | None) -> tuple[int, int]:
    """Least and greatest integer of a QuantizeLinear's output type."""
    if zero is not None:
        found = DTYPES.get(zero.dtype.name)
    else:
        found = OUTPUT_DTYPES.get(op.integer("output_dtype", 0) or 2)
    if found is None:
        raise op.refused("its output type is no integer of at most 32 bits", "Use int8 or uint8.")
    return found


def _parameters(reading: Reading, op: Op, *, rank: int) -> tuple[Array, Array | None, int | None]:
    """(scale, zero point, axis): axis None for one scale. Raises on blocks and odd shapes."""
    if op.integer("block_size", 0):
        raise op.refused("quantization in blocks", "Quantize per tensor or per channel.")
    scale, zero = reading.constant(op, 1), reading.optional(op, 2)
    if scale.dtype.kind != "f" or not scale.size or not (scale.astype(np.float64) > 0).all():
        raise op.refused("a scale is not positive", "Calibrate the model again.")
    if scale.size == 1:
        return scale.reshape(()), None if zero is None else zero.reshape(-1)[:1], None
    axis = op.integer("axis", 1)
    axis += rank if axis < 0 else 0
    if scale.ndim != 1 or not 0 <= axis < rank or (zero is not None and zero.shape != scale.shape):
        raise op.refused(f"scales of shape {scale.shape}", "Quantize per tensor or per channel.")
    return scale, zero, axis


def _zeros(zero: Array | None, count: int) -> np.ndarray:
    return np.zeros(count, np.int64) if zero is None else zero.astype(np.int64).reshape(-1)


def _along(values: np.ndarray, axis: int | None, rank: int) -> np.ndarray:
    """Per-channel values, shaped to broadcast along ``axis``."""
    return values.reshape([-1 if i == axis else 1 for i in range(rank)]) if rank else values[0]


def quantize_linear(reading: Reading, op: Op) -> tuple[Operand, str]:
    """A constant becomes integers; anything else a quantizer, emitted by what reads it."""
    x = reading.operand(op, 0)
    if not isinstance(x, Value):
        return _quantized_constant(reading, op, x), "stored integers"
    if x.left_out:
        return x, LEFT_OUT
    x = reading.value(op, 0)
    scale, zero, axis = _parameters(reading, op, rank=len(x.dims) + 1)
    least, most = _range(op, zero)
    if x.integers:
        raise op.refused("it quantizes integers", "Put a DequantizeLinear in front of it.")
    if most - least >= MAX_LEVELS:
        raise op.refused(
            f"activations of {most - least + 1} levels", "Quantize activations to at most 8 bits."
        )
    zeros = _zeros(zero, scale.size)
    if axis is not None and (x.view[axis - 1] != ("C",) or len(set(zeros.tolist())) != 1):
        raise op.refused(
            "channels with zero points of their own", "Use one zero point for all channels."
        )
    shift = int(zeros[0])
    coding = Coding(Grid(least - shift, most - shift), rationals(scale), shift)
    how = f"thresholds to codes {coding.grid}, folded into the layer in front"
    return Value("", x.shape, x.view, x.is_vector, coding, integers=True, origin=x,
                 pads=x.pads, tensor=op.outputs[0]), how  # fmt: skip


def _quantized_constant(reading: Reading, op: Op, x: Array | Codes) -> Array:
    values = x.real() if isinstance(x, Codes) else x
    scale, zero, axis = _parameters(reading, op, rank=values.ndim)
    least, most = _range(op, zero)
    shaped = _along(scale.reshape(-1).astype(np.float32), axis, values.ndim)
    shift = _along(_zeros(zero, scale.size), axis, values.ndim)
    if axis is not None and scale.size != values.shape[axis]:
        raise op.refused(f"{scale.size} scales for {values.shape}", "Export the model again.")
    rounded = np.rint(values.astype(np.float32) / shaped).astype(np.float64) + shift
    integers: Array = np.clip(rounded, least, most).astype(np.int32)
    return integers


def dequantize_linear(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Constants become stored codes; a quantizer's integers the codes' real values."""
    x = reading.operand(op, 0)
    if not isinstance(x, Value):
        return _stored(reading, op, x), "weights as stored"
    if x.left_out:
        return x, LEFT_OUT
    scale, zero, axis = _parameters(reading, op, rank=len(x.dims) + 1)
    zeros = _zeros(zero, scale.size)
    if axis is not None and (x.view[axis - 1] != ("C",) or len(set(zeros.tolist())) != 1):
        raise op.refused("channels with zero points of their own", "Use one zero point.")
    return dequantized(reading, op, x, scales=rationals(scale), zero_point=int(zeros[0]))


def dequantized(
    reading: Reading, op: Op, x: Value, *, scales: tuple[Fraction, ...], zero_point: int
) -> tuple[Value, str]:
    """Real values scale · (integer − zero_point) of integers ``x``, input 0 of ``op``."""
    if x.is_raw and x.integers:
        return _opened(reading, op, x, scales=scales, zero_point=zero_point)
    x = settled(reading, op, 0)
    coding = x.coding
    if not x.integers:
        # Sums of an integer product: their own value is the integer.
        offset = tuple(-zero_point * s for s in scales)
        return _mapped(reading, op, x, scales, offset), "folded into what follows"
    assert coding is not None
    if (coding.scales, coding.zero_point) == (scales, zero_point):
        return replace(x, integers=False), "the codes' values"
    if len(scales) != len(coding.scales):
        raise op.refused("scales differ from the quantizer's", "Use the scales of its input.")
    pairs = list(zip(scales, coding.scales, strict=True))
    gain = tuple(s / have for s, have in pairs)
    bias = tuple(s * (coding.zero_point - zero_point) for s in scales)
    made = _mapped(reading, op, replace(x, integers=False), gain, bias)
    return made, "an affine map of the codes"


def _opened(
    reading: Reading, op: Op, x: Value, *, scales: tuple[Fraction, ...], zero_point: int
) -> tuple[Value, str]:
    if len(scales) != 1:
        raise op.refused("the input has a scale a channel", "Use one scale.")
    own = integer_input(reading, zero_point=zero_point)
    node = reading.open_input(op, own, scale=scales[0])
    coding = Coding(Grid(own.lo, own.hi), scales, zero_point)
    return replace(x, node=node, coding=coding, integers=False, chain=None), "the input's codes"


def _mapped(
    reading: Reading, op: Op, x: Value, gain: tuple[Fraction, ...], bias: tuple[Fraction, ...]
) -> Value:
    spread = x.channels if len(gain) == 1 else 1
    node = Affine(reading.name(op.outputs[0]), x.node, gain * spread, bias * spread)
    return replace(x, node=reading.emit(node), coding=None, product=None, chain=None)


def _stored(reading: Reading, op: Op, x: Array | Codes) -> Codes:
    if isinstance(x, Codes) or x.dtype.kind == "f":
        raise op.refused("it dequantizes floats", "Store integers, or remove it.")
    scale, zero, axis = _parameters(reading, op, rank=x.ndim)
    if axis is not None and scale.size != x.shape[axis]:
        raise op.refused(f"{scale.size} scales for {x.shape}", "Export the model again.")
    shift = _along(_zeros(zero, scale.size), axis, x.ndim)
    return Codes(x.astype(np.int64) - shift, rationals(scale), axis, stored=True)


def clip_integers(reading: Reading, op: Op, x: Value) -> tuple[Operand, str]:
    """Clip behind QuantizeLinear: fewer codes."""
    coding = x.coding
    if coding is None or x.origin is None:
        raise op.refused("it clips integers that no QuantizeLinear made", "Move it behind one.")
    least, most = (reading.optional(op, i) for i in (1, 2))
    lo, hi = coding.grid.lo, coding.grid.hi
    lo = lo if least is None else int(least.reshape(-1)[0]) - coding.zero_point
    hi = hi if most is None else int(most.reshape(-1)[0]) - coding.zero_point
    narrowed = coding.within(lo, hi)
    return replace(
        x, coding=narrowed, tensor=op.outputs[0]
    ), f"codes {narrowed.grid} of the quantizer"


def cast(reading: Reading, op: Op) -> tuple[Operand, str]:
    """Floats stay what they are; the input's pixels become real values."""
    x = reading.value(op, 0)
    if op.integer("to", 1) not in (1, 11):
        raise op.refused("a cast to integers of what depends on the image", "Use QuantizeLinear.")
    if not x.integers:
        return x, "the same values"
    if x.is_raw:
        chain = x.chain
        made = settled(reading, op, 0)
        return replace(made, integers=False, chain=chain), "pixels as real values"
    made = settled(reading, op, 0)
    coding = made.coding
    assert coding is not None
    gain = tuple(ONE / s for s in coding.scales)
    bias = (Fraction(coding.zero_point),) * len(gain)
    value = _mapped(reading, op, replace(made, integers=False), gain, bias)
    return value, "the integers as real values"
