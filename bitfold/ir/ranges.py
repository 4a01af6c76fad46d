"""Interval analysis: the type, and with it the proven range, of every tensor (arithmetic.md § 3).

The interval of a sum of products is exact for independent codes: per output channel the least sum
takes, for every weight, the code that makes its product least.
"""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import assert_never

import numpy as np

from bitfold.errors import DomainError, RangeError, ScaleError, ShapeError
from bitfold.ir.ops import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Rescale,
    Reshape,
    Slice,
    SumPool2d,
    Thresholds,
    inputs_of,
)
from bitfold.ir.types import (
    Accumulator,
    CodeTensor,
    FloatTensor,
    IntArray,
    Scales,
    Shape,
    TensorType,
    WideTensor,
)

MAX_SHIFT = 62


def product_interval(weight: IntArray, bias: IntArray, *, lo: int, hi: int) -> tuple[int, int]:
    """Least and greatest accumulator over all output channels; ``weight`` (O, …), codes lo … hi."""
    flat = weight.reshape(len(weight), -1)
    positive = np.maximum(flat, 0).sum(1)
    negative = flat.sum(1) - positive
    # As Python integers: a bias near the end of int64 must be reported, not wrap.
    sums = [*zip(positive.tolist(), negative.tolist(), bias.tolist(), strict=True)]
    return (
        min(lo * above + hi * below + b for above, below, b in sums),
        max(hi * above + lo * below + b for above, below, b in sums),
    )


def window_shape(
    shape: Shape,
    *,
    kernel: tuple[int, int],
    stride: tuple[int, int],
    padding: tuple[int, int, int, int] = (0, 0, 0, 0),
    where: str,
) -> tuple[int, int]:
    """(OH, OW) = floor((size + padding − kernel)/stride) + 1; raises ShapeError below 1."""
    if len(shape) != 3:
        raise ShapeError(
            f"an (H, W, C) image is needed, got shape {shape}",
            where=where,
            todo="Windows slide over images: move the Reshape behind this node.",
        )
    if min(kernel) < 1 or min(stride) < 1 or min(padding) < 0:
        raise ShapeError(
            f"kernel {kernel}, stride {stride}, padding {padding}",
            where=where,
            todo="Kernel and stride are at least 1, padding at least 0.",
        )
    top, left, bottom, right = padding
    oh = (shape[0] + top + bottom - kernel[0]) // stride[0] + 1
    ow = (shape[1] + left + right - kernel[1]) // stride[1] + 1
    if oh < 1 or ow < 1:
        raise ShapeError(
            f"a {kernel} window does not fit {shape} padded by {padding}",
            where=where,
            todo="Use larger images, a smaller window or more padding.",
        )
    return oh, ow


def rounding_half(shift: int) -> int:
    """2^(shift−1), or 0 where nothing is shifted out: the floor shift then rounds half up."""
    return 1 << (shift - 1) if shift else 0


def rescale_interval(node: Rescale, *, lo: int, hi: int) -> tuple[int, int]:
    """Least and greatest result of ``node`` on integers lo … hi (Python integers: no overflow)."""
    half = rounding_half(node.shift)
    ends = [
        (multiplier * x + offset + half) >> node.shift
        for multiplier, offset in zip(node.multiplier.tolist(), node.offset.tolist(), strict=True)
        for x in (lo, hi)
    ]
    least, most = min(ends), max(ends)
    if node.negative_multiplier is None or least >= 0:
        return least, most
    half = rounding_half(node.negative_shift)
    bent = [
        (slope * y + half) >> node.negative_shift
        for slope in node.negative_multiplier.tolist()
        for y in (least, min(most, -1))
    ]
    return (min(bent), max(bent)) if most < 0 else (min(*bent, 0), max(*bent, most))


def scales_of(x: TensorType) -> Scales:
    """Real value of integer 1: one scale, or one a channel. Floats have none: DomainError."""
    match x:
        case CodeTensor() | WideTensor():
            return (x.scale,)
        case Accumulator():
            return x.scales
        case FloatTensor():
            raise DomainError("floats have no scale", todo="Nothing may follow Dequantize.")
        case _:
            assert_never(x)


def _domain_error(node: Node, needed: str, x: TensorType) -> DomainError:
    return DomainError(
        f"{type(node).__name__} takes {needed}, got {type(x).__name__}",
        where=f"node {node.name}",
        todo="Thresholds make codes, Rescale makes wide tensors: put one in front.",
    )


def _channel_error(node: Node, what: str, x: TensorType) -> ShapeError:
    return ShapeError(
        f"{what} does not fit input {x.shape}",
        where=f"node {node.name}",
        todo="Weights are (O, KH, KW, C/groups) or (O, C); bias and multipliers one a channel.",
    )


def _accumulator(node: Conv2d | Linear, x: CodeTensor, shape: Shape) -> Accumulator:
    if node.bias.shape != (len(node.weight),):
        raise _channel_error(node, f"weight {node.weight.shape} with bias {node.bias.shape}", x)
    lo, hi = product_interval(node.weight, node.bias, lo=x.lo, hi=x.hi)
    return Accumulator(shape, lo, hi, tuple(x.scale * s for s in node.weight_scales))


def _conv_type(node: Conv2d, x: CodeTensor) -> Accumulator:
    if node.weight.ndim != 4 or node.groups < 1 or not node.weight.size:
        raise _channel_error(node, f"weight {node.weight.shape} in {node.groups} groups", x)
    num_out, kh, kw, depth = node.weight.shape
    oh, ow = window_shape(
        x.shape,
        kernel=(kh, kw),
        stride=node.stride,
        padding=node.padding,
        where=f"node {node.name}",
    )
    if x.shape[2] != depth * node.groups or num_out % node.groups:
        raise _channel_error(node, f"weight {node.weight.shape} in {node.groups} groups", x)
    return _accumulator(node, x, (oh, ow, num_out))


def _linear_type(node: Linear, x: CodeTensor) -> Accumulator:
    if node.weight.ndim != 2 or x.shape != node.weight.shape[1:] or not node.weight.size:
        raise _channel_error(node, f"weight {node.weight.shape}", x)
    return _accumulator(node, x, (len(node.weight),))


def _product_type(node: Conv2d | Linear, x: TensorType) -> Accumulator:
    if not isinstance(x, CodeTensor):
        raise _domain_error(node, "codes", x)
    return _conv_type(node, x) if isinstance(node, Conv2d) else _linear_type(node, x)


def _rescale_type(node: Rescale, x: CodeTensor | Accumulator | WideTensor) -> WideTensor:
    if not (0 <= node.shift <= MAX_SHIFT and 0 <= node.negative_shift <= MAX_SHIFT):
        raise RangeError(
            f"shifts {node.shift} and {node.negative_shift}",
            where=f"node {node.name}",
            todo=f"Products are taken in 64 bits: shift by 0 … {MAX_SHIFT}.",
        )
    for values in (node.multiplier, node.offset, node.negative_multiplier):
        if values is not None and values.shape != x.shape[-1:]:
            raise _channel_error(node, f"a multiplier or offset of shape {values.shape}", x)
    lo, hi = rescale_interval(node, lo=x.lo, hi=x.hi)
    return WideTensor(x.shape, lo, hi, node.scale)


def _channelwise_type(node: Thresholds | Rescale | Dequantize, x: TensorType) -> TensorType:
    """Operations that treat every integer alone."""
    if isinstance(x, FloatTensor):
        raise _domain_error(node, "integers", x)
    match node:
        case Thresholds():
            return CodeTensor(x.shape, node.grid, node.scale)
        case Rescale():
            return _rescale_type(node, x)
        case Dequantize():
            return FloatTensor(x.shape)
        case _:
            assert_never(node)


def _pool_type(node: MaxPool2d | SumPool2d, x: TensorType) -> TensorType:
    if not isinstance(x, CodeTensor | WideTensor):
        raise _domain_error(node, "codes or a wide tensor", x)
    padding = node.padding if isinstance(node, MaxPool2d) else (0, 0, 0, 0)
    oh, ow = window_shape(
        x.shape,
        kernel=node.kernel,
        stride=node.stride,
        padding=padding,
        where=f"node {node.name}",
    )
    shape, area = (oh, ow, x.shape[2]), node.kernel[0] * node.kernel[1]
    if isinstance(node, MaxPool2d):
        return replace(x, shape=shape)
    lo, hi, scale = x.lo * area, x.hi * area, x.scale / area
    if isinstance(x, WideTensor):
        return WideTensor(shape, lo, hi, scale)
    return Accumulator(shape, lo, hi, (scale,))


def _slice_type(node: Slice, x: CodeTensor | Accumulator | WideTensor) -> TensorType:
    if not 0 <= node.start < node.stop <= x.shape[-1]:
        raise ShapeError(
            f"channels {node.start}:{node.stop} of {x.shape}",
            where=f"node {node.name}",
            todo="Take at least one channel, inside the input.",
        )
    shape = (*x.shape[:-1], node.stop - node.start)
    if isinstance(x, Accumulator) and len(x.scales) > 1:
        return replace(x, shape=shape, scales=x.scales[node.start : node.stop])
    return replace(x, shape=shape)


def _reshape_type(node: Reshape, x: CodeTensor | Accumulator | WideTensor) -> TensorType:
    where = f"node {node.name}"
    if min(node.shape, default=0) < 1 or math.prod(node.shape) != math.prod(x.shape):
        raise ShapeError(
            f"{x.shape} does not reshape to {node.shape}",
            where=where,
            todo=f"Give a shape of {math.prod(x.shape)} elements, without the batch.",
        )
    if isinstance(x, Accumulator) and len(x.scales) > 1 and node.shape[-1] != len(x.scales):
        raise ScaleError(
            f"{len(x.scales)} channel scales do not fit {node.shape}",
            where=where,
            todo="Bring the channels to one scale first, with Thresholds or Rescale.",
        )
    return replace(x, shape=node.shape)


def _moved_type(node: Slice | Reshape, x: TensorType) -> TensorType:
    if isinstance(x, FloatTensor):
        raise _domain_error(node, "integers", x)
    return _slice_type(node, x) if isinstance(node, Slice) else _reshape_type(node, x)


def _concat_type(node: Concat, xs: tuple[TensorType, ...]) -> TensorType:
    codes = [x for x in xs if isinstance(x, CodeTensor)]
    wides = [x for x in xs if isinstance(x, WideTensor)]
    for x in xs:
        if not isinstance(x, CodeTensor | WideTensor) or (codes and wides):
            raise _domain_error(node, "codes or wide tensors, never both", x)
    if not xs or len({x.shape[:-1] for x in xs}) > 1:
        raise ShapeError(
            f"cannot join {[x.shape for x in xs]} along channels",
            where=f"node {node.name}",
            todo="Join one or more tensors of the same height and width.",
        )
    if len({(x.grid, x.scale) for x in codes} | {x.scale for x in wides}) > 1:
        raise ScaleError(
            "joined tensors differ in grid or scale",
            where=f"node {node.name}",
            todo="Quantize or rescale all parts alike.",
        )
    shape = (*xs[0].shape[:-1], sum(x.shape[-1] for x in xs))
    if codes:
        return replace(codes[0], shape=shape)
    return WideTensor(shape, min(x.lo for x in wides), max(x.hi for x in wides), wides[0].scale)


def _add_type(node: Add, a: TensorType, b: TensorType) -> WideTensor:
    where = f"node {node.name}"
    if not isinstance(a, WideTensor):
        raise _domain_error(node, "two wide tensors", a)
    if not isinstance(b, WideTensor):
        raise _domain_error(node, "two wide tensors", b)
    if a.shape != b.shape:
        raise ShapeError(
            f"operands of shape {a.shape} and {b.shape}",
            where=where,
            todo="There is no broadcasting: give both operands one shape.",
        )
    if a.scale != b.scale:
        raise ScaleError(
            f"operands of scale {a.scale} and {b.scale}",
            where=where,
            todo="Rescale both operands to one number of fraction bits.",
        )
    return WideTensor(a.shape, a.lo + b.lo, a.hi + b.hi, a.scale)


def _input_type(node: Quantize) -> CodeTensor:
    if len(node.shape) != 3 or min(node.shape) < 1:
        raise ShapeError(
            f"input shape {node.shape}",
            where=f"node {node.name}",
            todo="The input is one image (H, W, C), without the batch.",
        )
    return CodeTensor(node.shape, node.grid, node.scale)


def output_type(node: Node, xs: tuple[TensorType, ...]) -> TensorType:
    """Type of the tensor that ``node`` defines, from the types of its inputs.

    Raises ShapeError, DomainError, ScaleError or RangeError where they do not fit.
    """
    match node:
        case Quantize():
            return _input_type(node)
        case Conv2d() | Linear():
            return _product_type(node, xs[0])
        case Thresholds() | Rescale() | Dequantize():
            return _channelwise_type(node, xs[0])
        case MaxPool2d() | SumPool2d():
            return _pool_type(node, xs[0])
        case Slice() | Reshape():
            return _moved_type(node, xs[0])
        case Add():
            return _add_type(node, *xs)
        case Concat():
            return _concat_type(node, xs)
        case _:
            assert_never(node)


def infer_types(nodes: tuple[Node, ...]) -> Mapping[str, TensorType]:
    """Types of all tensors of a topologically ordered node list."""
    types: dict[str, TensorType] = {}
    for node in nodes:
        types[node.name] = output_type(node, tuple(types[x] for x in inputs_of(node)))
    return types


__all__ = [
    "MAX_SHIFT",
    "infer_types",
    "output_type",
    "product_interval",
    "rescale_interval",
    "rounding_half",
    "scales_of",
    "window_shape",
]
