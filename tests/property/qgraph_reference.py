"""What a ``QGraph`` means: every value an exact Fraction, image by image. The twin of lowering.

Codes may be forced: then each layer is fed by the integer graph's codes and answers for itself.
Images are (H, W, C); a flattened tensor is in torch's order (C, H, W).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from bitfold.errors import RangeError
from bitfold.export.lowering.builder import Builder, Pending
from bitfold.export.lowering.lower import lower_node
from bitfold.export.lowering.stream import on_stream
from bitfold.export.qgraph import (
    Activation,
    Affine,
    AppendOne,
    Conv,
    Flatten,
    Flex,
    FullyConnected,
    MaxPool,
    MeanPool,
    PadChannels,
    Pixels,
    Prelu,
    QGraph,
    Relu,
    Sum,
)
from bitfold.ir import Dequantize, IntGraph, trace_oracle

HALF, ZERO = Fraction(1, 2), Fraction(0)
FLOAT_ROUNDING = Fraction(1, 10**9)  # bounds are doubles: their own rounding, relative


def nearest_index(value, grid, scale, ties):
    """Index of ``value`` by definition: divide, round, clamp."""
    code = value / scale
    if ties == "up":
        index = math.floor((code - grid.lo) / grid.step + HALF)
    elif grid.step == 1:
        index = round(code) - grid.lo
    else:
        index = round((code - grid.lo) / grid.step)
    return min(max(index, 0), grid.levels - 1)


def _padded(x, padding, fill):
    top, left, bottom, right = padding
    height, width, channels = x.shape
    shape = (height + top + bottom, width + left + right, channels)
    out = np.full(shape, fill, dtype=object)
    out[top : top + height, left : left + width] = x
    return out


def _windows(x, kernel, stride):
    """(row, column, window) of every place of a window."""
    rows = (x.shape[0] - kernel[0]) // stride[0] + 1
    columns = (x.shape[1] - kernel[1]) // stride[1] + 1
    for i in range(rows):
        for j in range(columns):
            top, left = i * stride[0], j * stride[1]
            yield i, j, x[top : top + kernel[0], left : left + kernel[1]]


def _gathered(x, kernel, stride, reduce):
    found = {(i, j): reduce(window) for i, j, window in _windows(x, kernel, stride)}
    rows, columns = (1 + max(place[axis] for place in found) for axis in (0, 1))
    return np.array([[found[i, j] for j in range(columns)] for i in range(rows)], dtype=object)


def _spread(values, count):
    return list(values) * count if len(values) == 1 else list(values)


def _conv(node, x):
    outs, kh, kw, depth = node.weight.shape
    scales, biases = _spread(node.scales, outs), node.bias or [ZERO] * outs

    def products(window):
        sums = []
        for o in range(outs):
            start = o // (outs // node.groups) * depth
            taps = window[:, :, start : start + depth].ravel()
            sums.append(scales[o] * (taps @ node.weight[o].astype(object).ravel()) + biases[o])
        return sums

    return _gathered(_padded(x, node.padding, ZERO), (kh, kw), node.stride, products)


def _pooled(node, x):
    kernel = node.kernel or x.shape[:2]
    stride = node.stride or kernel
    if isinstance(node, MeanPool):
        area = kernel[0] * kernel[1]
        return _gathered(x, kernel, stride, lambda w: [s / area for s in w.sum((0, 1))])
    padded = _padded(x, node.padding, -(10**30))
    return _gathered(padded, kernel, stride, lambda w: list(w.max((0, 1))))


def _flex(x, channels):
    have = x.shape[-1]
    if have <= channels:
        return np.concatenate([x] * (channels // have), axis=-1)
    out = np.full((*x.shape[:-1], channels), ZERO, dtype=object)
    for c in range(have):
        out[..., c % channels] += x[..., c]
    return out


def _quantized(node, x, forced):
    scales = np.array(_spread(node.scales, x.shape[-1]), dtype=object)
    if forced is None:
        flat = [
            nearest_index(value, node.grid, scale, node.ties)
            for value, scale in zip(
                x.ravel(), np.broadcast_to(scales, x.shape).ravel(), strict=True
            )
        ]
        index = np.array(flat, dtype=object).reshape(x.shape)
        return scales * (node.grid.lo + node.grid.step * index)
    codes = forced if node.grid.step == 1 else node.grid.lo + node.grid.step * forced
    return scales * codes.astype(object)


def _bent(x, slopes):
    return np.where(x < 0, x * np.array(_spread(slopes, x.shape[-1]), dtype=object), x)


def _append_one(node, x):
    return np.concatenate([x, np.full((*x.shape[:2], 1), Fraction(node.code))], axis=-1)


def _fully_connected(node, x):
    scales = np.array(_spread(node.scales, len(node.weight)), dtype=object)
    return scales * (node.weight.astype(object) @ x) + np.array(node.bias, dtype=object)


def _rectified(node, x):
    above = np.where(x < 0, ZERO, x)
    return above if node.ceiling is None else np.minimum(above, node.ceiling)


def _with_zero_channels(node, x):
    zeros = np.full((*x.shape[:-1], node.channels - x.shape[-1]), ZERO, dtype=object)
    return np.concatenate([x, zeros], axis=-1)


MEANINGS = {
    AppendOne: _append_one,
    Conv: _conv,
    FullyConnected: _fully_connected,
    Affine: lambda node, x: x * np.array(node.gain, object) + np.array(node.bias, object),
    Relu: _rectified,
    Prelu: lambda node, x: _bent(x, node.slopes),
    Flex: lambda node, x: _flex(x, node.channels),
    PadChannels: _with_zero_channels,
    Flatten: lambda _node, x: x.transpose(2, 0, 1).ravel(),
    MaxPool: _pooled,
    MeanPool: _pooled,
}


def exact_values(graph: QGraph, image, codes: Mapping[str, np.ndarray] | None = None):
    """Name → array of Fractions; ``codes`` are the integer graph's, by quantizer, without batch."""
    values = {}
    for node in graph.nodes:
        match node:
            case Pixels():
                pixels = image.astype(object) * Fraction(1)
                means = np.array(node.means, dtype=object)
                values[node.name] = (pixels - means) / np.array(node.stds, dtype=object)
            case Sum():
                values[node.name] = values[node.a] + values[node.b]
            case Activation():
                forced = None if codes is None else codes[node.name]
                values[node.name] = _quantized(node, values[node.x], forced)
            case _:
                values[node.name] = MEANINGS[type(node)](node, values[node.x])
    return values


@dataclass(frozen=True)
class Lowered:
    """An integer graph and what its integers mean."""

    graph: IntGraph
    build: Builder

    def pending(self, name: str) -> Pending:
        """The stream tensor of a node where there is one, else what is pending."""
        return self.build.streams.get(name, self.build.known[name])

    def kinds(self, name: str) -> list[str]:
        """Kinds of the reports of one layer."""
        return [report.kind for report in self.build.reports if report.name == name]


RESOLUTIONS = ((16, False), (12, False), (16, True))


def lowered_at(graph: QGraph, fraction_bits: int = 16, *, adaptive: bool = False) -> Lowered:
    """``graph`` lowered at one resolution; its result is brought to the stream."""
    last = graph.nodes[-1].name
    build = Builder(fraction_bits, adaptive, last)
    for node in graph.nodes:
        lower_node(build, node)
    reports = list(build.reports)
    build.emit(Dequantize("logits", on_stream(build, last).name))
    build.reports = reports
    return Lowered(build.graph({}), build)


def lowered(graph: QGraph) -> Lowered | None:
    """``graph`` at the first of a few resolutions that its ranges allow."""
    for bits, adaptive in RESOLUTIONS:
        try:
            return lowered_at(graph, bits, adaptive=adaptive)
        except RangeError:
            continue
    return None


def meaning(pending: Pending, integers):
    """Real values of a tensor's integers (no batch), in torch's order."""
    gain, bias = (np.array(values, dtype=object) for values in (pending.gain, pending.bias))
    value = gain * integers.astype(object) + bias
    bend = pending.bend
    if bend is not None:
        value = _bent(value, bend.slopes or (ZERO,))
        value = value if bend.ceiling is None else np.minimum(value, bend.ceiling)
    return _as_torch(value, pending)


def _as_torch(values, pending):
    if pending.image is None or values.ndim > 1:
        return values
    return values.reshape(pending.image).transpose(2, 0, 1).ravel()


def bound(pending: Pending, like):
    """The error of ``pending`` as Fractions, one for every element of ``like``."""
    errors = np.array([Fraction(e) * (1 + FLOAT_ROUNDING) for e in pending.error], dtype=object)
    return np.broadcast_to(_as_torch(errors, pending), like.shape)


def assert_within_bounds(graph: QGraph, low: Lowered, images: Sequence[np.ndarray]) -> int:
    """Every tensor means the exact value to within its bound, every code lies between two.

    Each image is traced by the oracle and evaluated exactly with its codes. Returns how many codes
    differ from the exact ones.
    """
    traced = trace_oracle(low.graph, np.stack(images))
    quantizers = {node.name for node in graph.nodes if isinstance(node, Activation)}
    flips = 0
    for i, image in enumerate(images):
        integers = {name: values[i] for name, values in traced.items()}
        exact = exact_values(graph, image, {name: integers[name] for name in quantizers})
        for node in graph.nodes:
            if isinstance(node, Activation):
                flips += _assert_codes(node, low, exact[node.x], integers)
            for pending in (low.build.known[node.name], low.pending(node.name)):
                got = meaning(pending, integers[pending.name])
                excess = abs(got - exact[node.name]) - bound(pending, got)
                assert excess.max() <= 0, (node.name, float(excess.max()))
    return flips


def _assert_codes(node, low, values, integers):
    """Codes lie between those of value − error and value + error; reports say that error."""
    pending = low.pending(node.x)
    errors = bound(pending, values)
    scales = np.broadcast_to(_spread(node.scales, values.shape[-1]), values.shape)
    found = _as_torch(integers[node.name], pending)
    first = 0 if node.grid.step != 1 else node.grid.lo
    flips = 0
    for value, error, scale, code in zip(
        *(array.ravel() for array in (values, errors, scales, found)), strict=True
    ):
        low_end, exact, high_end = (
            nearest_index(v, node.grid, scale, node.ties)
            for v in (value - error, value, value + error)
        )
        assert low_end <= code - first <= high_end, (node.name, value, error)
        flips += exact != code - first
    reported = {
        report.error for report in low.build.reports if report.name == (node.layer or node.name)
    }
    assert float(pending.error.max()) in reported
    return flips
