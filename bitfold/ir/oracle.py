"""The oracle: what an integer graph computes, by definition (docs/ir.md). Never optimised.

One function an operation, int64 throughout, layout (N, H, W, C). Codes are codes, not indices.
Everything fast in this repository is compared with these functions by ``==``.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, assert_never

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import InputError, OrderError
from bitfold.ir.graph import IntGraph
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
from bitfold.ir.ranges import rounding_half, scales_of
from bitfold.ir.types import IntArray, Scales

Images = NDArray[np.uint8]
FloatArray = NDArray[np.float32]
TracedArray = IntArray | FloatArray
Xs = Sequence[IntArray]
T = TypeVar("T", np.int64, np.float64)
Evaluator = Callable[[Node, Xs], IntArray]

IMAGES_AT_A_TIME = 16


def quantize(node: Quantize, images: Images) -> IntArray:
    """Code = grid.lo + pixel (arithmetic.md, eq. 1)."""
    return images.astype(np.int64) + node.grid.lo


def conv2d(node: Conv2d, x: IntArray) -> IntArray:
    """Sum tap by tap, group by group: acc = bias + Σ code · weight; padding is code 0 (eq. 5)."""
    num_out, kh, kw, depth = node.weight.shape
    outs = num_out // node.groups
    groups = []
    for g in range(node.groups):
        codes = padded(x[..., g * depth : (g + 1) * depth], node.padding, fill=0)
        weight = node.weight[g * outs : (g + 1) * outs]
        acc = node.bias[g * outs : (g + 1) * outs]
        for i, j, tap in taps(codes, (kh, kw), node.stride):
            acc = acc + tap @ weight[:, i, j].T
        groups.append(acc)
    return np.concatenate(groups, axis=-1)


def linear(node: Linear, x: IntArray) -> IntArray:
    """Sum over the whole vector: acc = bias + Σ code · weight (eq. 5)."""
    return x @ node.weight.T + node.bias


def thresholds(node: Thresholds, x: IntArray) -> IntArray:
    """Count index = #{j : table[c, j] ≤ sign[c] · x[c]}; code = lo + step · index (eq. 7, 8)."""
    oriented = node.sign * x
    index = np.zeros_like(oriented)
    for j in range(node.table.shape[1]):
        index += node.table[:, j] <= oriented
    return node.grid.lo + node.grid.step * index


def rescale(node: Rescale, x: IntArray) -> IntArray:
    """Multiply, add, shift with rounding; once more where the result is negative (eq. 9, 10)."""
    y = (node.multiplier * x + node.offset + rounding_half(node.shift)) >> node.shift
    if node.negative_multiplier is None:
        return y
    half = rounding_half(node.negative_shift)
    return np.where(y < 0, (node.negative_multiplier * y + half) >> node.negative_shift, y)


def max_pool2d(node: MaxPool2d, x: IntArray) -> IntArray:
    """Maximum over each window; padding holds the least int64, so it never wins (eq. 11)."""
    codes = padded(x, node.padding, fill=np.iinfo(np.int64).min)
    best: IntArray = np.maximum.reduce([t for *_, t in taps(codes, node.kernel, node.stride)])
    return best


def sum_pool2d(node: SumPool2d, x: IntArray) -> IntArray:
    """Sum over each window (eq. 12)."""
    total: IntArray = np.add.reduce([t for *_, t in taps(x, node.kernel, node.stride)])
    return total


def dequantize(x: IntArray, scales: Scales) -> FloatArray:
    """float32(x) · float32(scale), one float32 multiplication (eq. 13)."""
    return x.astype(np.float32) * np.array(scales, dtype=np.float32)


def padded(x: NDArray[T], padding: tuple[int, int, int, int], *, fill: int) -> NDArray[T]:
    """(N, H, W, C) with (top, left, bottom, right) rows and columns of ``fill`` around it."""
    top, left, bottom, right = padding
    return np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)


def taps(
    x: NDArray[T], kernel: tuple[int, int], stride: tuple[int, int]
) -> Iterator[tuple[int, int, NDArray[T]]]:
    """(i, j, the pixel at row i, column j of every window): each tap is (N, OH, OW, C)."""
    rows = x.shape[1] - kernel[0] + 1
    columns = x.shape[2] - kernel[1] + 1
    for i in range(kernel[0]):
        for j in range(kernel[1]):
            yield i, j, x[:, i : i + rows : stride[0], j : j + columns : stride[1]]


def _moved(node: Add | Concat | Slice | Reshape | Quantize | Dequantize, xs: Xs) -> IntArray:
    """Evaluate a node that adds or moves integers."""
    match node:
        case Add():
            return xs[0] + xs[1]
        case Concat():
            return np.concatenate(xs, axis=-1)
        case Slice(start=start, stop=stop):
            return xs[0][..., start:stop]
        case Reshape(shape=shape):
            return xs[0].reshape(-1, *shape)
        case Quantize() | Dequantize():
            raise OrderError(
                "only the first and the last node meet pixels and floats", where=node.name
            )
        case _:
            assert_never(node)


def apply(node: Node, xs: Xs) -> IntArray:
    """Integers that ``node`` defines, from those of its inputs; both with a batch dimension."""
    match node:
        case Conv2d():
            return conv2d(node, xs[0])
        case Linear():
            return linear(node, xs[0])
        case Thresholds():
            return thresholds(node, xs[0])
        case Rescale():
            return rescale(node, xs[0])
        case MaxPool2d():
            return max_pool2d(node, xs[0])
        case SumPool2d():
            return sum_pool2d(node, xs[0])
        case _:
            return _moved(node, xs)


def _evaluate(
    graph: IntGraph, images: Images, evaluator: Evaluator
) -> Iterator[tuple[str, TracedArray]]:
    """(name, value) of every node in order; a tensor is forgotten after its last reader."""
    last_reader = {x: node.name for node in graph.nodes for x in inputs_of(node)}
    values = {graph.input.name: quantize(graph.input, images)}
    yield graph.input.name, values[graph.input.name]
    for node in graph.nodes[1:-1]:
        inputs = inputs_of(node)
        values[node.name] = evaluator(node, [values[x] for x in inputs])
        yield node.name, values[node.name]
        for x in set(inputs):
            if last_reader[x] == node.name:
                del values[x]
    source = graph.output.x
    yield graph.output.name, dequantize(values[source], scales_of(graph.types[source]))


def _batches(graph: IntGraph, images: Images, chunk: int) -> Iterator[Images]:
    """Slices of at most ``chunk`` images, at least one slice; raises InputError on other images."""
    expected = graph.input.shape
    if images.dtype != np.uint8 or images.shape[1:] != expected:
        raise InputError(
            f"images are {images.dtype} {images.shape}",
            where=f"graph input {graph.input.name}",
            todo=f"Pass uint8 images of shape (N, {', '.join(map(str, expected))}).",
        )
    for i in range(0, max(1, len(images)), chunk):
        yield images[i : i + chunk]


def run_oracle(graph: IntGraph, images: Images, *, chunk: int = IMAGES_AT_A_TIME) -> FloatArray:
    """Logits (N, classes) float32 of uint8 ``images`` (N, H, W, C), ``chunk`` of them at a time.

    ``graph`` must pass ``verify``. Raises InputError where the images do not fit its input.
    """
    logits = []
    for batch in _batches(graph, images, chunk):
        *_, (_, last) = _evaluate(graph, batch, apply)
        logits.append(last.astype(np.float32, copy=False))
    return np.concatenate(logits)


def trace_oracle(
    graph: IntGraph,
    images: Images,
    *,
    chunk: int = IMAGES_AT_A_TIME,
    evaluator: Evaluator = apply,
) -> dict[str, TracedArray]:
    """Every node's tensor (N, …): int64 codes and integers, the float32 logits last.

    ``evaluator`` is what a node computes; another one than ``apply`` must give the same integers.
    """
    traces = [dict(_evaluate(graph, batch, evaluator)) for batch in _batches(graph, images, chunk)]
    return {
        node.name: np.concatenate([trace[node.name] for trace in traces]) for node in graph.nodes
    }
