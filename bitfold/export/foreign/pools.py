"""Maxima and means over windows and whole images."""

from dataclasses import replace
from fractions import Fraction

import numpy as np

from bitfold.export.foreign.products import added_pads, slid, window
from bitfold.export.foreign.reading import Operand, Reading
from bitfold.export.foreign.settling import image, real, settled, unpadded
from bitfold.export.foreign.source import Op
from bitfold.export.foreign.values import CHANNELS_FIRST, NO_PADS, VECTOR, Value
from bitfold.export.qgraph import Conv, MaxPool, MeanPool
from bitfold.ir import Grid

MEAN_HOW = "SumPool2d, divisor in the scale"


def _kernel(op: Op) -> tuple[int, int]:
    sides = op.integers("kernel_shape", ())
    if len(sides) != 2 or any(d != 1 for d in op.integers("dilations", (1, 1))):
        raise op.refused(f"a window of {list(sides)}, or dilations", "Use plain 2-D windows.")
    return sides[0], sides[1]


def _rounded_up(
    op: Op, x: Value, kernel: tuple[int, int], stride: tuple[int, int],
    padding: tuple[int, int, int, int],
) -> tuple[int, int, int, int]:  # fmt: skip
    """Padding with what ``ceil_mode`` adds below and to the right."""
    if not op.integer("ceil_mode", 0):
        return padding
    top, left, bottom, right = padding
    more = []
    for size, before, after, k, s in (
        (x.sizes["H"], top, bottom, kernel[0], stride[0]),
        (x.sizes["W"], left, right, kernel[1], stride[1]),
    ):
        left_over = (size + before + after - k) % s
        extra = s - left_over if left_over else 0
        # A window that would begin in the padding is dropped.
        starts = (size + before + after + extra - k) // s * s
        more.append(0 if starts >= size + before else extra)
    return top, left, bottom + more[0], right + more[1]


def max_pool(reading: Reading, op: Op) -> tuple[Operand, str]:
    """MaxPool of codes, of stored integers, or of real values."""
    x = settled(reading, op, 0) if reading.value(op, 0).integers else _image(reading, op)
    if x.is_vector or not x.looks(CHANNELS_FIRST):
        raise op.refused("its input is no image, channels first", "Export channels first.")
    if x.pads != NO_PADS and (x.coding is None or x.coding.grid.lo < 0):
        x = unpadded(reading, op, x, name=op.inputs[0])
    kernel = _kernel(op)
    stride, padding = window(op, x, kernel)
    padding = _rounded_up(op, x, kernel, stride, padding)
    shape = slid(reading, op, x, kernel=kernel, stride=stride, padding=padding, channels=x.channels)
    pads = added_pads(x, padding)
    if max(pads[0], pads[2]) >= kernel[0] or max(pads[1], pads[3]) >= kernel[1]:
        raise op.refused(f"padding {pads} of a window {kernel}", "Pad by less than the window.")
    node = reading.emit(MaxPool(reading.name(op.outputs[0]), x.node, kernel, stride, pads))
    made = replace(x, node=node, shape=shape, view=CHANNELS_FIRST, pads=NO_PADS, product=None)
    return replace(made, chain=None), "MaxPool2d"


def _image(reading: Reading, op: Op) -> Value:
    """The input with a clip left pending: it commutes with a maximum, quantizers read it."""
    value = reading.value(op, 0)
    low, high = value.clip
    if value.is_raw or value.origin is not None or value.parts or (low is None and high is None):
        return real(reading, op, 0)
    return value


def average_pool(reading: Reading, op: Op) -> tuple[Operand, str]:
    """AveragePool: a sum whose divisor goes into the scale; zeros around the image are counted."""
    x = image(reading, op, 0, view=CHANNELS_FIRST)
    kernel = _kernel(op)
    stride, padding = window(op, x, kernel)
    if _rounded_up(op, x, kernel, stride, padding) != padding:
        raise op.refused("ceil_mode with windows that hang over", "Pad the image explicitly.")
    if any(padding) and not op.integer("count_include_pad", 0):
        raise op.refused(
            f"padding {list(padding)} that is not counted in the mean",
            "Use count_include_pad=1, or no padding.",
        )
    shape = slid(reading, op, x, kernel=kernel, stride=stride, padding=padding, channels=x.channels)
    pads = added_pads(x, padding)
    name = reading.name(op.outputs[0])
    if any(pads):
        ones = np.ones((x.channels, *kernel, 1), np.int64)
        scale = (Fraction(1, kernel[0] * kernel[1]),)
        node = reading.emit(
            Conv(name, x.node, ones, Grid.narrow(2), scale, stride, pads, x.channels)
        )
        return Value(
            node, shape, CHANNELS_FIRST, nonnegative=x.is_nonnegative
        ), "a depthwise Conv2d of ones"
    node = reading.emit(MeanPool(name, x.node, kernel, stride))
    return Value(node, shape, CHANNELS_FIRST, nonnegative=x.is_nonnegative), MEAN_HOW


def global_pool(reading: Reading, op: Op) -> tuple[Operand, str]:
    """GlobalAveragePool and GlobalMaxPool."""
    x = image(reading, op, 0, view=CHANNELS_FIRST)
    x = unpadded(reading, op, x, name=op.inputs[0])
    name, shape = reading.name(op.outputs[0]), (1, 1, x.channels)
    if op.kind == "GlobalMaxPool":
        whole = x.shape[:2]
        node = reading.emit(MaxPool(name, x.node, whole, whole, (0, 0, 0, 0)))
        return Value(node, shape, CHANNELS_FIRST, coding=x.coding), "MaxPool2d"
    node = reading.emit(MeanPool(name, x.node, None, None))
    return Value(node, shape, CHANNELS_FIRST, nonnegative=x.is_nonnegative), MEAN_HOW


def reduce_mean(reading: Reading, op: Op) -> tuple[Operand, str]:
    """ReduceMean over height and width."""
    x = unpadded(reading, op, real(reading, op, 0), name=op.inputs[0])
    given = reading.optional(op, 1)
    axes = op.integers("axes", ()) if given is None else tuple(int(v) for v in given.ravel()[:16])
    rank = len(x.dims) + 1
    chosen = sorted(a + rank if a < 0 else a for a in axes)
    inside = [a for a in chosen if 1 <= a < rank]
    letters = {letter for a in inside for letter in x.letters(x.view[a - 1])}
    spatial = set(x.letters(("H", "W")))
    if x.is_vector or inside != chosen or not chosen or letters != spatial:
        raise op.refused(f"a mean over axes {list(axes)}", "Means over height and width are read.")
    node = reading.emit(MeanPool(reading.name(op.outputs[0]), x.node, None, None))
    if op.integer("keepdims", 1):
        view = tuple(() if i + 1 in chosen else group for i, group in enumerate(x.view))
    else:
        view = tuple(group for i, group in enumerate(x.view) if i + 1 not in chosen)
    made = Value(node, (1, 1, x.channels), view or VECTOR, nonnegative=x.is_nonnegative)
    return made, MEAN_HOW
