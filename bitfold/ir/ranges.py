"""Interval analysis: the type, and with it the proven range, of every tensor (arithmetic.md § 3).

The interval of a sum of products is exact for independent codes: per output channel the least sum
takes, for every weight, the code that makes its product least.
"""

from collections.abc import Mapping
from typing import assert_never

import numpy as np

from bitfold.errors import DomainError, ScaleError, ShapeError
from bitfold.ir.ops import (
    Add,
    Concat,
    Conv2d,
    Dequantize,
    Linear,
    MaxPool2d,
    Node,
    Quantize,
    Reshape,
    Rescale,
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


def product_interval(weight: IntArray, bias: IntArray, *, lo: int, hi: int) -> tuple[int, int]:
    """Least and greatest accumulator over all output channels; ``weight`` (O, …), codes lo … hi."""
    flat = weight.reshape(len(weight), -1)
    least = np.minimum(flat * lo, flat * hi).sum(1) + bias
    most = np.maximum(flat * lo, flat * hi).sum(1) + bias
    return int(least.min()), int(most.max())


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
        raise ShapeError(f"an (H, W, C) image is needed, got shape {shape}", where=where)
    top, left, bottom, right = padding
    oh = (shape[0] + top + bottom - kernel[0]) // stride[0] + 1
    ow = (shape[1] + left + right - kernel[1]) // stride[1] + 1
    if oh < 1 or ow < 1:
        raise ShapeError(f"a {kernel} window does not fit {shape} padded by {padding}", where=where)
    return oh, ow


def rescale_interval(node: Rescale, *, lo: int, hi: int) -> tuple[int, int]:
    """Least and greatest result of ``node`` on integers lo … hi (Python integers: no overflow)."""
    ends: list[int] = []
    half = 1 << (node.shift - 1) if node.shift else 0
    for multiplier, offset in zip(node.multiplier.tolist(), node.offset.tolist(), strict=True):
        ends += [(multiplier * x + offset + half) >> node.shift for x in (lo, hi)]
    least, most = min(ends), max(ends)
    if node.negative_multiplier is None or least >= 0:
        return least, most
    half = 1 << (node.negative_shift - 1) if node.negative_shift else 0
    tops = min(most, -1)
    bent = [
        (slope * y + half) >> node.negative_shift
        for slope in node.negative_multiplier.tolist()
        for y in (least, tops)
    ]
    return (min(bent), max(bent)) if most < 0 else (min(*bent, 0), max(*bent, most))


def _codes(x: TensorType, where: str) -> CodeTensor:
    if not isinstance(x, CodeTensor):
        raise DomainError(f"codes are needed, got {type(x).__name__}", where=where)
    return x


def _accumulate(node: Conv2d | Linear, x: CodeTensor, shape: Shape) -> Accumulator:
    lo, hi = product_interval(node.weight, node.bias, lo=x.lo, hi=x.hi)
    scales = tuple(x.scale * s for s in node.weight_scales)
    return Accumulator(shape, lo, hi, scales)


def _conv_type(node: Conv2d, x: CodeTensor) -> Accumulator:
    where = f"node {node.name}"
    num_out, kh, kw, depth = node.weight.shape
    oh, ow = window_shape(
        x.shape, kernel=(kh, kw), stride=node.stride, padding=node.padding, where=where
    )
    if x.shape[2] != depth * node.groups or num_out % node.groups:
        raise ShapeError(
            f"weight {node.weight.shape} in {node.groups} groups does not fit input {x.shape}",
            where=where,
        )
    return _accumulate(node, x, (oh, ow, num_out))


def _sum_type(node: SumPool2d, x: TensorType) -> Accumulator | WideTensor:
    oh, ow = window_shape(
        x.shape, kernel=node.kernel, stride=node.stride, where=f"node {node.name}"
    )
    shape, area = (oh, ow, x.shape[2]), node.kernel[0] * node.kernel[1]
    match x:
        case CodeTensor():
            return Accumulator(shape, x.lo * area, x.hi * area, (x.scale / area,))
        case WideTensor():
            return WideTensor(shape, x.lo * area, x.hi * area, x.scale / area)
        case _:
            raise DomainError(
                f"codes or a wide tensor are needed, got {type(x).__name__}",
                where=f"node {node.name}",
            )


def _reshaped(x: TensorType, shape: Shape, where: str) -> TensorType:
    """``x``'s type with another shape."""
    match x:
        case CodeTensor():
            return CodeTensor(shape, x.grid, x.scale)
        case WideTensor():
            return WideTensor(shape, x.lo, x.hi, x.scale)
        case Accumulator():
            scales: Scales = x.scales
            if len(scales) > 1 and shape[-1] != len(scales):
                raise ScaleError(f"{len(scales)} channel scales do not fit {shape}", where=where)
            return Accumulator(shape, x.lo, x.hi, scales)
        case FloatTensor():
            raise DomainError("no operation may follow Dequantize", where=where)
        case _:
            assert_never(x)


def _slice_type(node: Slice, x: TensorType) -> TensorType:
    where = f"node {node.name}"
    if not 0 <= node.start < node.stop <= x.shape[-1]:
        raise ShapeError(f"channels {node.start}:{node.stop} of {x.shape}", where=where)
    if isinstance(x, Accumulator) and len(x.scales) > 1:
        scales = x.scales[node.start : node.stop]
        x = Accumulator(x.shape[:-1] + (node.stop - node.start,), x.lo, x.hi, scales)
        return x
    return _reshaped(x, (*x.shape[:-1], node.stop - node.start), where)


def _concat_type(node: Concat, xs: tuple[TensorType, ...]) -> TensorType:
    where = f"node {node.name}"
    first = xs[0]
    if any(type(x) is not type(first) or x.shape[:-1] != first.shape[:-1] for x in xs):
        raise ShapeError(f"cannot join {[x.shape for x in xs]} of mixed kinds", where=where)
    shape = (*first.shape[:-1], sum(x.shape[-1] for x in xs))
    match first:
        case CodeTensor():
            if any(
                isinstance(x, CodeTensor) and (x.grid, x.scale) != (first.grid, first.scale)
                for x in xs
            ):
                raise ScaleError("joined codes differ in grid or scale", where=where)
            return CodeTensor(shape, first.grid, first.scale)
        case WideTensor():
            wides = [x for x in xs if isinstance(x, WideTensor)]
            if any(x.scale != first.scale for x in wides):
                raise ScaleError("joined wide tensors differ in scale", where=where)
            return WideTensor(
                shape, min(x.lo for x in wides), max(x.hi for x in wides), first.scale
            )
        case _:
            raise DomainError(f"cannot join {type(first).__name__}", where=where)


def _add_type(node: Add, a: TensorType, b: TensorType) -> WideTensor:
    where = f"node {node.name}"
    if not (isinstance(a, WideTensor) and isinstance(b, WideTensor)):
        raise DomainError("two wide tensors are needed", where=where)
    if a.shape != b.shape:
        raise ShapeError(f"operands of shape {a.shape} and {b.shape}", where=where)
    if a.scale != b.scale:
        raise ScaleError(f"operands of scale {a.scale} and {b.scale}", where=where)
    return WideTensor(a.shape, a.lo + b.lo, a.hi + b.hi, a.scale)


def _linear_type(node: Linear, x: CodeTensor) -> Accumulator:
    if x.shape != (node.weight.shape[1],):
        raise ShapeError(
            f"weight {node.weight.shape} does not fit input {x.shape}", where=f"node {node.name}"
        )
    return _accumulate(node, x, (len(node.weight),))


def output_type(node: Node, xs: tuple[TensorType, ...]) -> TensorType:
    """Type of the tensor that ``node`` defines, from the types of its inputs.

    Raises ShapeError, DomainError or ScaleError where they do not fit.
    """
    where = f"node {node.name}"
    match node:
        case Quantize():
            return CodeTensor(node.shape, node.grid, node.scale)
        case Conv2d():
            return _conv_type(node, _codes(xs[0], where))
        case Linear():
            return _linear_type(node, _codes(xs[0], where))
        case Add():
            return _add_type(node, *xs)
        case Thresholds():
            return CodeTensor(xs[0].shape, node.grid, node.scale)
        case Rescale():
            x = xs[0]
            if isinstance(x, FloatTensor):
                raise DomainError("no operation may follow Dequantize", where=where)
            lo, hi = rescale_interval(node, lo=x.lo, hi=x.hi)
            return WideTensor(x.shape, lo, hi, node.scale)
        case MaxPool2d():
            oh, ow = window_shape(
                xs[0].shape,
                kernel=node.kernel,
                stride=node.stride,
                padding=node.padding,
                where=where,
            )
            return _reshaped(xs[0], (oh, ow, xs[0].shape[2]), where)
        case SumPool2d():
            return _sum_type(node, xs[0])
        case Slice():
            return _slice_type(node, xs[0])
        case Concat():
            return _concat_type(node, xs)
        case Reshape():
            if int(np.prod(node.shape)) != int(np.prod(xs[0].shape)):
                raise ShapeError(f"{xs[0].shape} does not reshape to {node.shape}", where=where)
            return _reshaped(xs[0], node.shape, where)
        case Dequantize():
            return FloatTensor(xs[0].shape)
        case _:
            assert_never(node)


def infer_types(nodes: tuple[Node, ...]) -> Mapping[str, TensorType]:
    """Types of all tensors of a topologically ordered node list."""
    types: dict[str, TensorType] = {}
    for node in nodes:
        types[node.name] = output_type(node, tuple(types[x] for x in inputs_of(node)))
    return types


__all__ = ["infer_types", "output_type", "product_interval", "rescale_interval", "window_shape"]
