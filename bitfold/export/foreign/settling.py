"""From a value with pending parts to a tensor of the QGraph: input, quantizer, clip, pads, view."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.errors import UnsupportedError
from bitfold.export.foreign.reading import Reading, StoredCodes
from bitfold.export.foreign.rounding import ProductRule, TableRule
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import NO_PADS, VECTOR, Coding, Product, Value, View
from bitfold.export.qgraph import Activation, Affine, Conv, Flatten, Join, Relu
from bitfold.ir import Grid
from bitfold.ir.own_input import InputStep, OwnInput

ONE, ZERO = Fraction(1), Fraction(0)
PIXEL_LEVELS = 256
MAX_FEATURES = 2**20


def settled(reading: Reading, op: Op, i: int) -> Value:
    """Input ``i`` as a tensor of the QGraph: what is pending is emitted, pads and view excepted."""
    name = op.inputs[i] if op.has(i) else ""
    if name not in reading.settled:
        value = reading.value(op, i)
        reading.settled[name] = settle(reading, op, value, name=name)
    return reading.settled[name]


def settle(reading: Reading, op: Op, value: Value, *, name: str) -> Value:
    """``value`` without a pending quantizer, join or clip; ``name`` is its ONNX tensor's."""
    if value.is_raw:
        value = _integer_input(reading, op, value)
    if value.origin is not None or value.parts:
        value = _emitted(reading, op, value)
    return _clipped(reading, value, name=name)


def _emitted(reading: Reading, op: Op, value: Value) -> Value:
    """A pending quantizer or join, emitted once for all views of it."""
    if value.tensor not in reading.emitted:
        make = _joined if value.origin is None else _quantized
        reading.emitted[value.tensor] = make(reading, op, value, name=value.tensor)
    made = reading.emitted[value.tensor]
    return replace(
        value, node=made.node, coding=made.coding, is_vector=made.is_vector, origin=None, parts=(),
        chain=None, product=None,
    )  # fmt: skip


def real(reading: Reading, op: Op, i: int) -> Value:
    """Input ``i`` settled; UnsupportedError where it holds integers without a scale."""
    value = settled(reading, op, i)
    if value.integers:
        raise op.refused(
            "it computes with the stored integers", "Put a DequantizeLinear in front of it."
        )
    return value


def image(reading: Reading, op: Op, i: int, *, view: View) -> Value:
    """Input ``i`` as an image whose ONNX tensor is laid out as ``view``; pads stay pending."""
    value = real(reading, op, i)
    if value.is_vector or not value.looks(view):
        raise op.refused(
            f"its input of dimensions {['N', *value.dims]} is no image in the order"
            f" N{''.join(group[0] for group in view)}",
            "Remove the Reshape or Transpose in front of it, or export channels first.",
        )
    return value


def unpadded(reading: Reading, op: Op, value: Value, *, name: str) -> Value:
    """``value`` with its zero pads carried out by a 1x1 convolution channel by channel."""
    if value.pads == NO_PADS:
        return value
    coding, channels = value.coding, value.channels
    if coding is None or len(coding.scales) != 1:
        raise op.refused("it reads a padded tensor that is not quantized", "Quantize it.")
    ones = np.ones((channels, 1, 1, 1), np.int64)
    padded = reading.emit(
        Conv(reading.name(f"{name}.pad"), value.node, ones, Grid.narrow(2), (ONE,), (1, 1),
             value.pads, channels)
    )  # fmt: skip
    node = reading.emit(
        Activation(reading.name(f"{name}.padded"), padded, coding.grid, coding.scales)
    )
    sizes = value.sizes
    shape = (sizes["H"], sizes["W"], sizes["C"])
    return replace(value, node=node, shape=shape, pads=NO_PADS)


def vector(reading: Reading, op: Op, i: int) -> tuple[Value, tuple[str, ...]]:
    """Input ``i`` as a vector of the QGraph, in the order (H, W, C).

    Also the order in which the ONNX tensor has the axes. UnsupportedError unless that is (N, K).
    """
    value = real(reading, op, i)
    if len(value.view) != 1:
        raise op.refused(
            f"its input has dimensions {['N', *value.dims]}",
            "Matrix products of (N, K) by a constant are read: flatten in front of it.",
        )
    if value.is_vector:
        return value, ("C",)
    value = unpadded(reading, op, value, name=op.inputs[i])
    letters = value.letters(value.view[0])
    if value.dims[0] > MAX_FEATURES:
        raise op.refused(f"{value.dims[0]} features", f"At most {MAX_FEATURES} are read.")
    key = f"{op.inputs[i]} flat"
    if key not in reading.settled:
        node = Flatten(reading.name(f"{value.node}.flat"), value.node, channels_last=True)
        flat = replace(value, node=reading.emit(node), is_vector=True, view=VECTOR)
        reading.settled[key] = replace(flat, shape=(1, 1, value.dims[0]))
    return reading.settled[key], letters


def _integer_input(reading: Reading, op: Op, value: Value) -> Value:
    """The raw input where it holds integers: pixels of scale 1."""
    if not value.integers:
        raise UnsupportedError(
            "it reads the float input, which is not quantized",
            where=op.where,
            todo="Quantize the input, or let the model take uint8 pixels.",
        )
    node = reading.open_input(op, integer_input(reading), scale=ONE)
    least = integer_input(reading).lo
    coding = Coding(Grid(least, least + PIXEL_LEVELS - 1), (ONE,), 0)
    return replace(value, node=node, coding=coding)


def integer_input(reading: Reading, *, zero_point: int = 0) -> OwnInput:
    """The model's own integer input with codes integer − zero_point."""
    source = reading.source
    least = (-128 if source.dtype == "int8" else 0) - zero_point
    return OwnInput(
        source.input, source.dtype, source.dims, reading.channels_last,
        least, least + PIXEL_LEVELS - 1,
    )  # fmt: skip


def _clip_codes(value: Value, coding: Coding) -> Coding:
    """A clip in front of a quantizer leaves fewer codes: rounding is monotone."""
    low, high = value.clip
    scale = coding.scales[0]
    if len(set(coding.scales)) != 1:
        return coding
    least = coding.grid.lo if low is None else round(low / scale)
    most = coding.grid.hi if high is None else round(high / scale)
    return coding.within(least, most)


def _quantized(reading: Reading, op: Op, value: Value, *, name: str) -> Value:
    """Emit the pending quantizer of ``value.origin``."""
    origin, coding = value.origin, value.coding
    assert origin is not None
    assert coding is not None
    coding = _clip_codes(origin, coding)
    made = replace(value, origin=None, coding=coding, chain=None, product=None)
    if origin.is_raw and not origin.integers:
        return replace(made, node=_input_codes(reading, op, origin, coding))
    if origin.parts:
        return _quantized_parts(reading, op, made, origin.parts, name=name)
    if len(set(coding.scales)) == 1:
        # The clip has become fewer codes.
        origin = replace(origin, clip=(None, None))
    plain = settle(reading, op, origin, name=name)
    if plain.coding is not None and _is_same(plain.coding, coding):
        return replace(made, node=plain.node, coding=plain.coding)
    node = _quantizer(reading, plain, coding, name=name)
    _add_stored(reading, node, replace(made, view=origin.view), name=name)
    return replace(made, node=node)


def _quantizer(reading: Reading, plain: Value, coding: Coding, *, name: str) -> str:
    node = reading.emit(Activation(reading.name(name), plain.node, coding.grid, coding.scales))
    _add_rule(reading, node, plain, coding)
    return node


def _quantized_parts(
    reading: Reading, op: Op, made: Value, parts: tuple[Value, ...], *, name: str
) -> Value:
    """Each part quantized on one grid, then joined."""
    coding = made.coding
    assert coding is not None
    nodes = []
    for i, part in enumerate(parts):
        plain = settle(reading, op, part, name=f"{name}.part{i}")
        is_ready = plain.coding == coding
        nodes.append(
            plain.node if is_ready else _quantizer(reading, plain, coding, name=f"{name}.part{i}")
        )
    node = reading.emit(Join(reading.name(name), tuple(nodes)))
    _add_stored(reading, node, replace(made, view=parts[0].view), name=name)
    return replace(made, node=node, parts=())


def _add_stored(reading: Reading, node: str, made: Value, *, name: str) -> None:
    """Note which ONNX tensor holds the codes of ``node``."""
    coding = made.coding
    assert coding is not None
    if made.integers or len(coding.scales) == 1:
        scale = None if made.integers else float(coding.scales[0])
        reading.stored.append(StoredCodes(node, name, coding.zero_point, made.view, scale))


def _is_same(have: Coding, want: Coding) -> bool:
    inside = want.grid.lo <= have.grid.lo and have.grid.hi <= want.grid.hi
    return inside and have.scales == want.scales and have.grid.step == 1


def _add_rule(reading: Reading, node: str, origin: Value, coding: Coding) -> None:
    """How a runtime decides the codes of ``node``, where that is one known expression."""
    if len(coding.scales) != 1:
        return
    out = np.float32(float(coding.scales[0]))
    if origin.product is not None:
        reading.rules[node] = ProductRule(origin.product.scales, origin.product.bias, out)
    elif origin.chain is not None:
        steps = _per_channel(reading, origin)
        if steps is not None:
            reading.rules[node] = TableRule(steps, out)


def _per_channel(reading: Reading, origin: Value) -> tuple[InputStep, ...] | None:
    """The chain's steps for arrays (C, L); None where a constant varies along another axis."""
    steps = []
    for step in origin.chain or ():
        if len(step.values) == 1:
            steps.append(replace(step, shape=()))
        elif len(step.values) == origin.channels:
            steps.append(replace(step, shape=(origin.channels, 1)))
        else:
            return None
    return tuple(steps)


def _input_codes(reading: Reading, op: Op, raw: Value, coding: Coding) -> str:
    """The model's float input, quantized outside the graph by the model's own expression."""
    if len(coding.scales) != 1:
        raise op.refused("the input is quantized channel by channel", "Use one scale.")
    source, grid = reading.source, coding.grid
    own = OwnInput(
        source.input, source.dtype, source.dims, reading.channels_last, grid.lo, grid.hi,
        float(coding.scales[0]), raw.chain or (),
    )  # fmt: skip
    node = reading.open_input(op, own, scale=coding.scales[0])
    return narrowed_input(reading, node, grid, coding.scales[0])


def narrowed_input(reading: Reading, node: str, grid: Grid, scale: Fraction) -> str:
    """Pixels have 256 codes; an input of fewer gets a quantizer that changes none of them."""
    if grid.levels == PIXEL_LEVELS:
        return node
    name = f"{node}.codes"
    if name not in reading.taken:
        reading.emit(Activation(reading.name(name), node, grid, (scale,)))
    return name


def _join(reading: Reading, parts: tuple[Value, ...], *, name: str) -> str:
    return reading.emit(Join(reading.name(name), tuple(part.node for part in parts)))


def _joined(reading: Reading, op: Op, value: Value, *, name: str) -> Value:
    parts = tuple(
        settle(reading, op, part, name=f"{name}.part{i}") for i, part in enumerate(value.parts)
    )
    codings = {part.coding for part in parts}
    coding = codings.pop() if len(codings) == 1 else None
    return replace(value, node=_join(reading, parts, name=name), parts=(), coding=coding)


def _clipped(reading: Reading, value: Value, *, name: str) -> Value:
    """Carry out a pending clip: a ReLU, between shifts where its floor is not 0."""
    low, high = value.clip
    if low is None and high is None:
        return value
    assert low is not None
    node = value.node
    if low:
        node = reading.emit(Affine(reading.name(f"{name}.up"), node, *_map(value, ONE, -low)))
    ceiling = None if high is None else high - low
    node = reading.emit(Relu(reading.name(f"{name}.clip"), node, ceiling))
    if low:
        node = reading.emit(Affine(reading.name(f"{name}.down"), node, *_map(value, ONE, low)))
    return replace(value, node=node, clip=(None, None), coding=None, product=None, chain=None)


def _map(
    value: Value, gain: Fraction, bias: Fraction
) -> tuple[tuple[Fraction, ...], tuple[Fraction, ...]]:
    return (gain,) * value.channels, (bias,) * value.channels


def product_of(
    x: Value, scales: tuple[Fraction, ...], bias: np.ndarray | None, outs: int
) -> Product | None:
    """What an integer kernel knows of a product, where the input has one scale."""
    if x.coding is None or len(x.coding.scales) != 1:
        return None
    s_x = np.float32(float(x.coding.scales[0]))
    s_w = np.array([float(s) for s in scales], np.float32)
    added = np.zeros(outs, np.int64) if bias is None else bias
    return Product((s_x * s_w).astype(np.float32), added)
