"""Convolutions and fully connected layers: everything a product of small codes can express.

A kernel multiplies codes of at most 8 bits by weight codes of at most 8 bits, under one scale. What
is wider, or carries an offset or a scale a channel, is brought into that form exactly or with a
stated bound:

- *offset*: x = g·X + b (mid-rise input): one more channel that is constant inside the image takes
  the weights Σ_c w·b/g (arithmetic.md, eq. 24);
- *channel scales* s_c along the reduction (BASQ as published): integer multipliers
  m_c = rne(s_c/unit) go into the weights, with the bound of METHODS' option A (ADR 0008);
- *wide weights*: digits of base 255 in −127 … 127, one product a digit, recombined exactly
  (ADR 0010);
- *wide inputs* (an edge layer behind an unquantized tensor): digits of the input likewise.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from bitfold.errors import RangeError, UnsupportedError
from bitfold.export.lowering.builder import ZERO, Builder, ErrorArray, Pending, spread
from bitfold.export.lowering.quantizers import append_one
from bitfold.export.lowering.stream import (
    SATURATE_BELOW,
    add,
    bits_within,
    on_stream,
    reach,
    rescaled,
)
from bitfold.export.qgraph import Conv, FullyConnected, Rationals
from bitfold.ir import (
    INT32_MAX,
    Add,
    CodeTensor,
    Conv2d,
    Grid,
    IntArray,
    Linear,
    Rescale,
    Thresholds,
    WideTensor,
    product_interval,
)

BASE = 255
DIGIT = 127
MAX_WEIGHT_DIGITS = 3
INPUT_DIGITS = 3
MAX_MULTIPLIER_BITS = 22
MAX_OFFSET_FACTOR = 1 << 10

Product = Conv | FullyConnected


@dataclass(frozen=True, slots=True)
class _Form:
    """A product in kernel form: acc·scales[o] + bias[o] over codes ``x``, error (O,) in real units.

    ``weight`` (O, …) may still be wider than 8 bits. ``shown`` are its scales beside the input's
    type, for readers of the graph.
    """

    x: str
    weight: IntArray
    grid: Grid
    scales: Rationals
    bias: Rationals
    error: ErrorArray
    shown: tuple[float, ...]


def digits_of(values: IntArray) -> tuple[IntArray, ...]:
    """Balanced digits of base 255, the least first; Σ digits[k]·255^k = values."""
    digits: list[IntArray] = []
    while values.any() or not digits:
        digit = (values + DIGIT) % BASE - DIGIT
        digits.append(digit)
        values = (values - digit) // BASE
    return tuple(digits)


def largest_input(count: int) -> int:
    """Greatest integer that ``count`` digits hold and that int32 holds beside its highest one."""
    digits: int = DIGIT * sum(BASE**k for k in range(count))
    highest: int = BASE ** (count - 1)
    return min(digits, (INT32_MAX - highest) // 2)


def lower_product(build: Builder, node: Product) -> None:
    """Lower a convolution or a fully connected layer."""
    source = build.known[node.x]
    plain = source.bend is None and min(source.gain) > 0
    if plain and isinstance(build.types[source.name], CodeTensor):
        form = _kernel_form(build, node, source)
        build.known[node.name] = _integer_product(build, node, form)
        return
    terms = [
        _on_digit(build, node, digit, k) for k, digit in enumerate(_input_digits(build, node.x))
    ]
    build.known[node.name] = _total(build, node, terms)


def _bias(node: Product) -> Rationals:
    return node.bias if node.bias is not None else (ZERO,) * len(node.weight)


def _form(build: Builder, node: Product, x: str, *, weight: IntArray, gains: Rationals) -> _Form:
    """An exact form over ``x``, on the layer's own weight grid where the codes are still on it."""
    codes = build.types[x]
    assert isinstance(codes, CodeTensor)
    limit = int(np.abs(weight).max())
    on_grid = limit <= node.grid.hi and not ((weight - node.grid.lo) % node.grid.step).any()
    grid = node.grid if on_grid else Grid(-limit, limit)
    shown = tuple(float(g) / codes.scale for g in gains)
    return _Form(x, weight, grid, gains, _bias(node), np.zeros(len(gains)), shown)


def _kernel_form(build: Builder, node: Product, source: Pending) -> _Form:
    scales = spread(node.scales, len(node.weight))
    weight = _permuted(node, source)
    if any(source.bias):
        return _without_offset(build, node, source, weight=weight, scales=scales)
    if len(set(source.gain)) == 1:
        gains = tuple(source.gain[0] * s for s in scales)
        shown = tuple(map(float, node.scales))
        errors = np.zeros(len(scales))
        return _Form(source.name, weight, node.grid, gains, _bias(node), errors, shown)
    if isinstance(node, Conv) and node.weight.shape[3] == 1:
        outs = len(scales) // node.groups
        gains = tuple(source.gain[o // outs] * s for o, s in enumerate(scales))
        return _form(build, node, source.name, weight=weight, gains=gains)
    return _with_multipliers(build, node, source, weight=weight, scales=scales)


def _permuted(node: Product, source: Pending) -> IntArray:
    """Weights in the order of our integers: torch flattens (C, H, W), we (H, W, C)."""
    if not isinstance(node, FullyConnected) or source.image is None:
        return node.weight
    height, width, channels = source.image
    ordered = node.weight.reshape(-1, channels, height, width).transpose(0, 2, 3, 1)
    return ordered.reshape(len(node.weight), -1)


def _require_dense(node: Product, what: str) -> None:
    if isinstance(node, Conv) and node.groups != 1:
        raise UnsupportedError(
            f"a grouped convolution of an input with {what}",
            where=f"layer {node.name}",
            todo="Quantize its input with one scale and a zero.",
        )


def _without_offset(
    build: Builder, node: Product, source: Pending, *, weight: IntArray, scales: Rationals
) -> _Form:
    """The part of b in x = g·X + b becomes weights on a channel, constant inside the image."""
    _require_dense(node, "an offset")
    if len(set(source.gain)) != 1:
        raise UnsupportedError(
            "an input with an offset and a scale a channel", where=f"layer {node.name}",
            todo="Put an activation quantizer in front of it.",
        )  # fmt: skip
    gain = source.gain[0]
    ratios = [b / gain for b in source.bias]
    padded = isinstance(node, Conv) and any(node.padding)
    codes = build.types[source.name]
    assert isinstance(codes, CodeTensor)
    if not padded:
        taps = weight.reshape(-1, weight.shape[-1]).astype(object) * np.array(ratios, object)
        sums = taps.reshape(len(weight), -1).sum(1).tolist()
        bias = tuple(b + s * gain * t for b, s, t in zip(_bias(node), scales, sums, strict=True))
        gains = tuple(gain * s for s in scales)
        return replace(_form(build, node, source.name, weight=weight, gains=gains), bias=bias)
    per_code = [r / codes.grid.hi for r in ratios]
    factor = math.lcm(*(r.denominator for r in per_code))
    if factor > MAX_OFFSET_FACTOR:
        raise UnsupportedError(
            "an offset that is no simple fraction of the scale", where=f"layer {node.name}",
            todo="Use a quantizer whose code 0 is real 0, or no padding.",
        )  # fmt: skip
    name = f"{node.name}.with_one"
    append_one(build, name, source.name)
    ones = (weight * np.array([int(r * factor) for r in per_code])).sum(-1, keepdims=True)
    wide = np.concatenate([weight * factor, ones], axis=-1)
    gains = tuple(gain * s / factor for s in scales)
    return _form(build, node, name, weight=wide, gains=gains)


def _with_multipliers(
    build: Builder, node: Product, source: Pending, *, weight: IntArray, scales: Rationals
) -> _Form:
    """Integer channel multipliers m_c = rne(s_c/unit), as fine as 32-bit sums allow."""
    _require_dense(node, "a scale a channel")
    codes = build.types[source.name]
    assert isinstance(codes, CodeTensor)
    steepest = max(abs(g) for g in source.gain)
    for bits in range(MAX_MULTIPLIER_BITS, 0, -1):
        unit = steepest / 2**bits
        multipliers = np.array([round(g / unit) for g in source.gain])
        wide = weight * multipliers
        if _fits(wide, codes):
            break
    else:
        raise RangeError("no channel multiplier fits 32 bits", where=f"layer {node.name}")
    residues = np.array(
        [abs(float(g - m * unit)) for g, m in zip(source.gain, multipliers.tolist(), strict=True)]
    )
    reaches = np.abs(weight).reshape(-1, weight.shape[-1]) * residues
    largest = max(abs(codes.lo), abs(codes.hi))
    error = reaches.reshape(len(weight), -1).sum(1) * largest
    gains = tuple(unit * s for s in scales)
    errors = error * np.array([float(s) for s in scales])
    build.report(node.name, "channel multipliers", float(errors.max()))
    return replace(_form(build, node, source.name, weight=wide, gains=gains), error=errors)


def _fits(weight: IntArray, codes: CodeTensor) -> bool:
    """Whether every digit's sum, and every partial recombination, stays in 32 bits."""
    digits = digits_of(weight)
    reach = 0
    for k, digit in enumerate(digits):
        zero = np.zeros(len(digit), np.int64)
        interval = product_interval(digit, zero, lo=codes.lo, hi=codes.hi)
        reach += max(map(abs, interval)) * BASE**k
    return len(digits) <= MAX_WEIGHT_DIGITS and reach <= INT32_MAX


def _emit_product(
    build: Builder, node: Product, name: str, form: _Form, *, bias: IntArray | None = None
) -> None:
    """One Conv2d or Linear on weights of at most 8 bits."""
    shown = form.shown[:1] if len(set(form.shown)) == 1 else form.shown
    added = np.zeros(len(form.weight), np.int64) if bias is None else bias
    if isinstance(node, FullyConnected):
        build.emit(Linear(name, form.x, form.weight, form.grid, shown, added))
        return
    build.emit(
        Conv2d(
            name, form.x, form.weight, form.grid, shown, added,
            node.stride, node.padding, node.groups,
        )
    )  # fmt: skip


def _integer_product(build: Builder, node: Product, form: _Form) -> Pending:
    """Emit the product, in digits where its weights are wide."""
    is_narrow = form.grid.lo >= -DIGIT - 1 and form.grid.hi <= DIGIT
    digits = (form.weight,) if is_narrow else digits_of(form.weight)
    if len(digits) > 1:
        _recombined(build, node, form, digits)
        return Pending(node.name, form.scales, form.bias, form.error)
    grid = form.grid if is_narrow else Grid.narrow(8)
    form = replace(form, weight=digits[0], grid=grid)
    if isinstance(node, FullyConnected) and node.name == build.last:
        return _with_integer_bias(build, node, form)
    _emit_product(build, node, node.name, form)
    return Pending(node.name, form.scales, form.bias, form.error)


def _with_integer_bias(build: Builder, node: FullyConnected, form: _Form) -> Pending:
    """The last Linear: its bias is rounded to units of its accumulator."""
    pairs = list(zip(form.bias, form.scales, strict=True))
    units = [round(b / s) if s else 0 for b, s in pairs]
    bias = np.array(units, np.int64)
    _emit_product(build, node, node.name, form, bias=bias)
    rounding = [abs(float(b - u * s)) for (b, s), u in zip(pairs, units, strict=True)]
    build.report(node.name, "bias", max(rounding))
    zeros = (ZERO,) * len(units)
    return Pending(node.name, form.scales, zeros, form.error + np.array(rounding))


def _recombined(build: Builder, node: Product, form: _Form, digits: tuple[IntArray, ...]) -> None:
    """Σ_k 255^k · (product with digit k), exactly, as a wide tensor of integers."""
    scale = float(form.scales[0]) if len(set(form.scales)) == 1 else 1.0
    outs = len(form.weight)
    zeros, total = np.zeros(outs, np.int64), ""
    for k, digit in enumerate(digits):
        name = f"{node.name}.digit{k}"
        shown = tuple(s * BASE**k for s in form.shown)
        part = replace(form, weight=digit, grid=Grid.narrow(8), shown=shown)
        _emit_product(build, node, name, part)
        weighted = Rescale(f"{name}.weighted", name, np.full(outs, BASE**k), zeros, 0, scale)
        build.emit(weighted)
        if k:
            step = node.name if k == len(digits) - 1 else f"{name}.sum"
            build.emit(Add(step, total, weighted.name))
            total = step
        else:
            total = weighted.name


def _input_digits(build: Builder, name: str) -> tuple[Pending, ...]:
    """An unquantized tensor as codes: balanced digits of base 255 of its fixed-point integers."""
    if name in build.digits:
        return build.digits[name]
    source = build.known[name]
    tensor = build.types[source.name]
    if not (source.is_uniform and isinstance(tensor, WideTensor)):
        source = on_stream(build, name)
    count, bits = _room_for(build, source, name)
    if build.largest(source.name) > largest_input(count):
        source = rescaled(build, source, name, bits=bits)
    found, rest, left = [], source.name, build.largest(source.name)
    for k in range(count - 1, -1, -1):
        most = max(1, (left + BASE**k // 2) // BASE**k)
        digit, rest = _split(build, f"{name}.digit{k}", rest, unit=BASE**k, most=most)
        left = min(left, BASE**k // 2)
        gains = tuple(g * BASE**k for g in source.gain)
        errors = source.error if k == 0 else np.zeros(len(gains))
        found.append(replace(source, name=digit, gain=gains, error=errors))
    build.digits[name] = tuple(found)
    return build.digits[name]


def _room_for(build: Builder, source: Pending, name: str) -> tuple[int, int]:
    """(digits, fraction bits) for an unquantized input: one digit more where few bits are left.

    Raises RangeError where no number of bits fits.
    """
    count, bits = INPUT_DIGITS, build.fraction_bits
    if build.largest(source.name) <= largest_input(count):
        return count, bits
    limit = reach(build, source)
    for count in (INPUT_DIGITS, INPUT_DIGITS + 1):
        bits = bits_within(build, limit)
        while bits and limit * 2**bits + 1 > largest_input(count):
            bits -= 1
        if bits >= SATURATE_BELOW:
            break
    if limit * 2**bits + 1 > largest_input(count):
        raise RangeError(f"values up to {float(limit):.4g} do not fit", where=f"tensor {name}")
    return count, bits


def _split(build: Builder, name: str, x: str, *, unit: int, most: int) -> tuple[str, str]:
    """(digit, x − unit·digit) with digit = round(x/unit), at most ``most`` in magnitude.

    ``unit`` is odd: there are no ties.
    """
    tensor = build.integers(x)
    channels = tensor.shape[-1]
    row = [(unit * (2 * k + 1) + 1) // 2 for k in range(-most, most)]
    table = np.tile(np.clip(row, tensor.lo, tensor.hi + 1), (channels, 1))
    grid = Grid(-most, most)
    assert isinstance(tensor, WideTensor)
    build.emit(Thresholds(name, x, table, np.ones(channels, int), grid, tensor.scale * unit))
    if unit == 1:
        return name, x
    zeros = np.zeros(channels, np.int64)
    taken = Rescale(f"{name}.taken", name, np.full(channels, -unit), zeros, 0, tensor.scale)
    build.emit(taken)
    build.emit(Add(f"{name}.rest", x, taken.name))
    return name, f"{name}.rest"


def _on_digit(build: Builder, node: Product, digit: Pending, k: int) -> Pending:
    """The product of the weights with one digit of the input, without the bias."""
    part = replace(node, name=f"{node.name}.on_digit{k}", bias=(ZERO,) * len(node.weight))
    made = _integer_product(build, part, _kernel_form(build, part, digit))
    return replace(made, error=made.error + _carried(node, digit))


def _carried(node: Product, digit: Pending) -> ErrorArray:
    """What the input's own error can amount to in every output channel."""
    scales = np.array([float(s) for s in spread(node.scales, len(node.weight))])
    weight = np.abs(_permuted(node, digit))
    grouped = isinstance(node, Conv) and node.groups != 1
    error = np.full(weight.shape[-1], digit.error.max()) if grouped else digit.error
    reaches = (weight.reshape(-1, weight.shape[-1]) * error).reshape(len(weight), -1).sum(1)
    carried: ErrorArray = scales * reaches
    return carried


def _total(build: Builder, node: Product, terms: Sequence[Pending]) -> Pending:
    """The digits' products on the stream, added up with the bias."""
    terms = [replace(terms[0], bias=_bias(node)), *terms[1:]]
    limit = sum((reach(build, term) for term in terms), Fraction(0))
    bits = bits_within(build, limit)
    total = rescaled(build, terms[0], f"{node.name}.term0", bits=bits)
    for k, term in enumerate(terms[1:], 1):
        name = node.name if k == len(terms) - 1 else f"{node.name}.sum{k}"
        total = add(build, name, total, rescaled(build, term, f"{node.name}.term{k}", bits=bits))
    return total
