"""Pixels, and activation quantizers as threshold tables."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.export.lowering.builder import (
    ZERO,
    Builder,
    Decision,
    Pending,
    exactly,
    require_unflattened,
    spread,
)
from bitfold.export.lowering.stream import on_stream
from bitfold.export.qgraph import Activation, AppendOne, Pixels, Rationals, Steps
from bitfold.export.thresholds import Staircase, threshold_table
from bitfold.ir import CodeTensor, Concat, Grid, Quantize, Slice, Thresholds


def lower_pixels(build: Builder, node: Pixels) -> None:
    """Codes pixel − mean where one whole mean serves all channels, else the raw pixels."""
    channels = node.shape[2]
    mean = node.means[0]
    shared = len(set(zip(node.means, node.stds, strict=True))) == 1
    if shared and mean.denominator == 1 and 0 <= mean <= 255:
        scale = 1 / node.stds[0]
        build.emit(Quantize(node.name, node.shape, Grid.pixels(int(mean)), float(scale)))
        build.known[node.name] = exactly(node.name, scale, channels)
        return
    build.emit(Quantize(node.name, node.shape, Grid.pixels(0), 1 / float(max(node.stds))))
    gains = tuple(1 / std for std in node.stds)
    biases = tuple(-m / std for m, std in zip(node.means, node.stds, strict=True))
    build.known[node.name] = Pending(node.name, gains, biases, np.zeros(channels))


def append_one(build: Builder, name: str, x: str) -> None:
    """Behind the channels of code tensor ``x`` one of its greatest code."""
    codes = build.types[x]
    assert isinstance(codes, CodeTensor)
    first = Slice(f"{name}.first", x, 0, 1)
    build.emit(first)
    table = np.full((1, codes.grid.levels - 1), codes.grid.lo)
    always = Thresholds(f"{name}.one", first.name, table, np.ones(1, int), codes.grid, codes.scale)
    build.emit(always)
    build.emit(Concat(name, (x, always.name)))


def lower_append_one(build: Builder, node: AppendOne) -> None:
    """One more channel; its code must be the greatest of the grid."""
    source = build.known[node.x]
    codes = build.types[source.name]
    assert source.is_uniform
    assert isinstance(codes, CodeTensor)
    assert node.code == codes.grid.hi
    append_one(build, node.name, source.name)
    build.known[node.name] = exactly(node.name, source.gain[0], len(source.gain) + 1)


def _stairs(node: Activation, source: Pending) -> tuple[Staircase, ...]:
    """The quantizer of every channel, with a ReLU in front of it where there is one."""
    bend = source.bend
    floor = None if bend is None else ZERO
    ceiling = None if bend is None else bend.ceiling
    scales = spread(node.scales, len(source.gain))
    return tuple(Staircase(node.grid, scale, node.ties, floor, ceiling) for scale in scales)


def lower_activation(build: Builder, node: Activation) -> None:
    """One threshold table. An odd grid's codes become its indices, which have a zero to pad with.

    With indices i the value is scale·(2·i + lo): a pending offset, which the reader takes over.
    """
    source = build.known[node.x]
    require_unflattened(source, node.name)
    if source.bend is not None and source.bend.slopes is not None:
        source = on_stream(build, node.x)
    tensor = build.integers(source.name)
    stairs = _stairs(node, source)
    table, sign = threshold_table(source.gain, source.bias, stairs, lo=tensor.lo, hi=tensor.hi)
    build.decisions.append(Decision(node.name, source.gain, source.bias, stairs))
    step = node.grid.step
    grid = node.grid if step == 1 else Grid(0, node.grid.levels - 1)
    scales = spread(node.scales, len(source.gain))
    name = node.name
    build.emit(Thresholds(name, source.name, table, sign, grid, float(max(scales) * step)))
    build.report(node.layer or name, "thresholds", float(source.error.max()))
    offset = Fraction(0 if step == 1 else node.grid.lo)
    build.known[name] = Pending(
        name,
        tuple(scale * step for scale in scales),
        tuple(scale * offset for scale in scales),
        np.zeros(len(scales)),
        image=source.image,
    )


def _crossing_row(
    gain: Fraction, bias: Fraction, node: Steps, row: Rationals, *, lo: int, hi: int
) -> tuple[list[int], int]:
    """(table, sign) of a channel: least sign·X in lo … hi with gain·X + bias past each crossing."""
    sign = -1 if gain < 0 else 1
    least, most = (lo, hi) if sign == 1 else (-hi, -lo)
    strict = node.strict or (False,) * len(row)
    if gain == 0:
        passed = [t < bias or (t == bias and not s) for t, s in zip(row, strict, strict=True)]
        return [least if past else most + 1 for past in passed], 1
    ends = [(t - bias) / abs(gain) for t in row]
    integers = [math.floor(t) + 1 if s else math.ceil(t) for t, s in zip(ends, strict, strict=True)]
    return [min(max(t, least), most + 1) for t in integers], sign


def lower_steps(build: Builder, node: Steps) -> None:
    """One threshold table from given crossings; an offset stays pending, as for odd grids."""
    source = build.known[node.x]
    if source.bend is not None:
        source = on_stream(build, node.x)
    require_unflattened(source, node.name)
    tensor, channels = build.integers(source.name), len(source.gain)
    rows = node.crossings * channels if len(node.crossings) == 1 else node.crossings
    made = [
        _crossing_row(gain, bias, node, row, lo=tensor.lo, hi=tensor.hi)
        for gain, bias, row in zip(source.gain, source.bias, rows, strict=True)
    ]
    table = np.array([row for row, _ in made], dtype=np.int64)
    sign = np.array([sign for _, sign in made], dtype=np.int64)
    build.emit(Thresholds(node.name, source.name, table, sign, node.grid, float(node.scale)))
    build.report(node.name, "thresholds", float(source.error.max()))
    known = exactly(node.name, node.scale, channels)
    build.known[node.name] = replace(known, bias=(node.offset,) * channels, image=source.image)
