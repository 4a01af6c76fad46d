"""The fixed-point stream: rescales onto it, sums, pools, channel moves on it (ADR 0006).

A tensor is *on the stream* where it is wide and its value is integer · 2^−F for some F.
"""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.errors import RangeError
from bitfold.export.fixed_point import fixed_point
from bitfold.export.lowering.builder import ONE, ZERO, Bend, Builder, ErrorArray, Pending, exactly
from bitfold.export.qgraph import Flex, MaxPool, MeanPool, PadChannels, Rationals
from bitfold.ir import (
    INT32_MAX,
    Add,
    CodeTensor,
    Concat,
    IntArray,
    MaxPool2d,
    Rescale,
    Slice,
    SumPool2d,
    WideTensor,
)

# Fraction bits of a PReLU's slopes, where they are below 128.
SLOPE_BITS = 24
# An adaptive stream leaves room for this many tensors of one range to be added up.
ADAPTIVE_ROOM = 4
# Where proven ranges leave fewer fraction bits than this, batch norms saturate.
SATURATE_BELOW = 14
# A stream of one resolution does not fit where it would have to be coarser than this somewhere.
COARSEST = 12


def resolution(build: Builder, source: Pending) -> int | None:
    """F where ``source`` is on the stream, else None."""
    if not source.is_uniform or not isinstance(build.types[source.name], WideTensor):
        return None
    unit = source.gain[0]
    is_power = unit.numerator == 1 and unit.denominator & (unit.denominator - 1) == 0
    return unit.denominator.bit_length() - 1 if is_power else None


def reach(build: Builder, source: Pending) -> Fraction:
    """Greatest magnitude of the value of ``source``, from proven ranges, before any bend."""
    tensor = build.integers(source.name)
    return max(
        abs(g * x + b)
        for g, b in set(zip(source.gain, source.bias, strict=True))
        for x in (tensor.lo, tensor.hi)
    )


def bits_within(build: Builder, limit: Fraction) -> int:
    """Most fraction bits, at most the stream's, at which ``limit`` fits int32.

    Raises RangeError where a stream of one resolution (not ``adaptive``) would lose too many.
    """
    bits = build.fraction_bits
    while bits and (limit + 1) * 2**bits > INT32_MAX:
        bits -= 1
    if not build.adaptive and bits < min(build.fraction_bits, COARSEST):
        raise RangeError(f"values up to {float(limit):.4g} leave {bits} fraction bits")
    return bits


def _steepest(bend: Bend | None) -> Fraction:
    """How much a bend can enlarge a magnitude."""
    slopes = () if bend is None or bend.slopes is None else bend.slopes
    return max((abs(s) for s in slopes), default=ONE) if slopes else ONE


def _wanted_bits(build: Builder, source: Pending, headroom: int) -> int:
    room = max(headroom, ADAPTIVE_ROOM) if build.adaptive else headroom
    if room == 1:
        return build.fraction_bits
    return bits_within(build, reach(build, source) * room * max(_steepest(source.bend), ONE))


def on_stream(build: Builder, name: str, *, headroom: int = 1) -> Pending:
    """The tensor of graph node ``name`` on the stream; ``headroom`` of them will be added up."""
    source = build.known[name]
    memo = build.streams.get(name, source)
    ready = resolution(build, memo)
    if ready is not None and _has_room(build, memo, headroom):
        return replace(memo, likely=None)
    if ready is not None:
        return rescaled(build, memo, name, bits=_wanted_bits(build, memo, headroom))
    bits = _wanted_bits(build, source, headroom)
    if bits < SATURATE_BELOW and build.adaptive and source.likely is not None:
        build.streams[name] = _saturated(build, source, name, headroom=headroom)
    else:
        build.streams[name] = rescaled(build, source, name, bits=bits)
    return build.streams[name]


def _has_room(build: Builder, source: Pending, headroom: int) -> bool:
    return headroom == 1 or build.largest(source.name) * headroom <= INT32_MAX


def rescaled(build: Builder, source: Pending, name: str, *, bits: int) -> Pending:
    """``source`` with its affine map and bend carried out, in units of 2^−bits."""
    bend = source.bend
    form = fixed_point(
        source.gain, source.bias, fraction_bits=bits, largest=build.largest(source.name)
    )
    slopes, slope_shift = _slopes(bend, len(source.gain))
    node = Rescale(
        build.free_name(name), source.name, form.multiplier, form.offset, form.shift, 2.0**-bits,
        slopes, slope_shift,
    )  # fmt: skip
    build.emit(node)
    unit = Fraction(1, 2**bits)
    error = source.error + form.error * float(unit)
    if slope_shift:
        error = _bent_error(build, node, error, bend, slopes, float(unit))
    build.report(name, "stream", float(error.max()))
    made = replace(exactly(node.name, unit, len(source.gain)), error=error, image=source.image)
    if bend is not None and bend.ceiling is not None:
        return _below(build, made, bend.ceiling, bits=bits)
    return made


def _slopes(bend: Bend | None, channels: int) -> tuple[IntArray | None, int]:
    if bend is None:
        return None, 0
    if bend.slopes is None:
        return np.zeros(channels, np.int64), 0
    steepest = max((abs(s) for s in bend.slopes), default=ONE)
    shift = SLOPE_BITS
    while shift > 1 and steepest * 2**shift > INT32_MAX:
        shift -= 1
    return np.array([round(s * 2**shift) for s in bend.slopes]), shift


def _bent_error(
    build: Builder, node: Rescale, error: ErrorArray, bend: Bend | None,
    slopes: IntArray | None, unit: float,
) -> ErrorArray:  # fmt: skip
    """E ← max(1, |a|)·E + half a unit + what rounding the slope adds on the negative side."""
    assert bend is not None
    assert bend.slopes is not None
    assert slopes is not None
    exact = np.array([float(s) for s in bend.slopes])
    rounding = np.abs(slopes / 2**node.negative_shift - exact)
    source = build.integers(node.x)
    most = max(
        abs(m * x + b) >> node.shift
        for m, b in zip(node.multiplier.tolist(), node.offset.tolist(), strict=True)
        for x in (source.lo, source.hi)
    )
    bent: ErrorArray = error * np.maximum(1, np.abs(exact)) + unit * (0.5 + rounding * (most + 1))
    return bent


def _saturated(build: Builder, source: Pending, name: str, *, headroom: int) -> Pending:
    """``source`` on the stream, brought to −likely … likely by two rectifications (ADR 0012).

    min(max(x, −R), R) = R − max(2R − max(x + R, 0), 0); behind a ReLU R − max(R − max(x, 0), 0).
    A PReLU bends the saturated value.
    """
    assert source.likely is not None
    bend = source.bend
    if bend is not None and bend.slopes is not None:
        straight = _saturated(build, replace(source, bend=None), name, headroom=headroom)
        bent = replace(straight, bend=bend)
        made = rescaled(build, bent, name, bits=_wanted_bits(build, bent, headroom))
        build.report(name, "saturating stream", float(made.error.max()))
        return made
    room = max(headroom, ADAPTIVE_ROOM)
    limit = Fraction(max(source.likely))
    # The rectified value has to fit before its other side is cut as well.
    bits = bits_within(build, max(limit * room * 2, reach(build, source) + limit))
    unit = Fraction(1, 2**bits)
    tops = np.array([math.ceil(r / unit) for r in source.likely])
    if bend is not None and bend.ceiling is not None:
        tops = np.minimum(tops, round(bend.ceiling / unit))
    lift = tuple(int(t) * unit for t in tops) if bend is None else (ZERO,) * len(tops)
    lifted = replace(
        source, bias=tuple(b + r for b, r in zip(source.bias, lift, strict=True)), bend=Bend()
    )
    positive = rescaled(build, lifted, name, bits=bits)
    ends = tops * 2 if bend is None else tops
    made = _mirrored(build, positive, ends=ends, tops=tops)
    if bend is not None and bend.ceiling is not None:
        made = replace(made, error=np.maximum(made.error, float(unit) / 2))
    build.report(name, "saturating stream", float(made.error.max()))
    return made


def _mirrored(build: Builder, x: Pending, *, ends: IntArray, tops: IntArray) -> Pending:
    """The tensor tops − max(ends − x, 0) for integers x ≥ 0 on the stream."""
    scale = float(x.gain[0])
    flat = np.full(len(tops), -1)
    rest = Rescale(f"{x.name}.rest", x.name, flat, ends, 0, scale, np.zeros(len(tops), np.int64))
    build.emit(rest)
    build.emit(Rescale(f"{x.name}.clipped", rest.name, flat, tops, 0, scale))
    return replace(x, name=f"{x.name}.clipped")


def _below(build: Builder, x: Pending, ceiling: Fraction, *, bits: int) -> Pending:
    """min(x, ceiling) = ceiling − max(ceiling − x, 0)."""
    top = round(ceiling * 2**bits)
    tops = np.full(len(x.gain), top)
    rounding = abs(float(ceiling - Fraction(top, 2**bits)))
    made = _mirrored(build, x, ends=tops, tops=tops)
    return replace(made, error=np.maximum(x.error, rounding))


def shifted(build: Builder, x: Pending, name: str, *, bits: int) -> Pending:
    """``x``, on the stream already, at ``bits`` fraction bits."""
    if resolution(build, x) == bits:
        return x
    return rescaled(build, x, name, bits=bits)


def _sum_bits(build: Builder, a: Pending, b: Pending) -> int:
    """Fraction bits at which two stream tensors are added."""
    bits = [resolution(build, x) for x in (a, b)]
    assert bits[0] is not None
    assert bits[1] is not None
    shared = min(bits[0], bits[1])
    if not build.adaptive:
        return shared
    return min(shared, bits_within(build, reach(build, a) + reach(build, b)))


def add(build: Builder, name: str, a: Pending, b: Pending) -> Pending:
    """The sum of two tensors of the stream, both brought to one resolution."""
    bits = _sum_bits(build, a, b)
    a, b = (shifted(build, x, f"{name}.{side}", bits=bits) for x, side in ((a, "a"), (b, "b")))
    build.emit(Add(name, a.name, b.name))
    return replace(a, name=name, error=a.error + b.error)


def lower_max_pool(build: Builder, node: MaxPool) -> None:
    """Codes with one uniform scale are pooled as they are; anything else on the stream."""
    source = build.known[node.x]
    if not (source.is_uniform and isinstance(build.types[source.name], CodeTensor)):
        source = on_stream(build, node.x)
    build.emit(MaxPool2d(node.name, source.name, node.kernel, node.stride, node.padding))
    build.known[node.name] = replace(source, name=node.name)


def lower_mean_pool(build: Builder, node: MeanPool) -> None:
    """A sum over the window; the divisor goes into the pending gain."""
    source = build.known[node.x]
    height, width, _ = build.types[source.name].shape
    kernel = node.kernel or (height, width)
    area = kernel[0] * kernel[1]
    if not (source.is_uniform and isinstance(build.types[source.name], CodeTensor)):
        source = on_stream(build, node.x, headroom=area)
    build.emit(SumPool2d(node.name, source.name, kernel, node.stride or kernel))
    gains: Rationals = tuple(g / area for g in source.gain)
    build.known[node.name] = replace(source, name=node.name, gain=gains)


def lower_flex(build: Builder, node: Flex) -> None:
    """Channels repeated, or summed in groups, the last group short (METHODS: flex)."""
    channels = build.types[build.known[node.x].name].shape[-1]
    if channels <= node.channels:
        _repeat(build, node, channels)
    else:
        _group_sums(build, node, channels)


def _repeat(build: Builder, node: Flex, channels: int) -> None:
    source = on_stream(build, node.x)
    times = node.channels // channels
    if times == 1:
        build.known[node.name] = source
        return
    build.emit(Concat(node.name, (source.name,) * times))
    build.known[node.name] = replace(
        source, name=node.name, gain=source.gain * times, bias=source.bias * times,
        error=np.tile(source.error, times),
    )  # fmt: skip


def _group_sums(build: Builder, node: Flex, channels: int) -> None:
    """Sum of the groups; where the last is short, its channels apart from the others'."""
    out = node.channels
    source = on_stream(build, node.x, headroom=-(-channels // out))
    rest = channels % out
    parts = [(0, rest), (rest, out)] if rest else [(0, out)]
    names, errors = [], []
    for start, stop in parts:
        name = node.name if len(parts) == 1 else f"{node.name}.{start}_{stop}"
        starts = range(start, channels, out)
        names.append(_slice_sum(build, name, source.name, starts=starts, width=stop - start))
        errors.append(sum(source.error[s : s + stop - start] for s in starts))
    if len(parts) > 1:
        build.emit(Concat(node.name, tuple(names)))
    build.known[node.name] = replace(
        exactly(node.name, source.gain[0], out), error=np.concatenate(errors)
    )


def _slice_sum(build: Builder, name: str, x: str, *, starts: range, width: int) -> str:
    """Sum of the slices of ``width`` channels that begin at ``starts``."""
    total = ""
    for i, start in enumerate(starts):
        build.emit(Slice(f"{name}.group{i}", x, start, start + width))
        if i:
            last = i == len(starts) - 1
            step = name if last else f"{name}.sum{i}"
            build.emit(Add(step, total, f"{name}.group{i}"))
            total = step
        else:
            total = f"{name}.group0"
    return total


def lower_pad_channels(build: Builder, node: PadChannels) -> None:
    """Zero channels are the stream times zero; a multiple of x's channels in total."""
    source = on_stream(build, node.x)
    channels = len(source.gain)
    missing = node.channels - channels
    if not missing:
        build.known[node.name] = source
        return
    zeros = np.zeros(channels, np.int64)
    scale = float(source.gain[0])
    nothing = Rescale(f"{node.name}.zero", source.name, zeros, zeros, 0, scale)
    build.emit(nothing)
    names = [source.name]
    while missing > 0:
        width = min(missing, channels)
        if width < channels:
            build.emit(Slice(f"{node.name}.zero_part", nothing.name, 0, width))
        names.append(nothing.name if width == channels else f"{node.name}.zero_part")
        missing -= width
    build.emit(Concat(node.name, tuple(names)))
    extra = node.channels - channels
    build.known[node.name] = replace(
        exactly(node.name, source.gain[0], node.channels),
        error=np.concatenate([source.error, np.zeros(extra)]),
    )
