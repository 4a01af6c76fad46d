"""Sums of products as plans have them: one layer, or the digits of one with wide weights.

Folding splits weights of more than 8 bits into digits and adds up the products of each, Σ_k m_k ·
(W_k x), with weighting Rescales and Adds (ADR 0010). Where nobody reads what lies between, that is
the product of x with Σ_k m_k W_k, which a kernel computes without wide tensors on the way.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeVar

import numpy as np

from bitfold.errors import UnsupportedError
from bitfold.ir import INT32_MAX, Add, Conv2d, Grid, IntGraph, Linear, Node, Rescale
from bitfold.kernels.steps import Int8Array, Int32Array, Int64Array

T = TypeVar("T")
Layer = Conv2d | Linear


@dataclass(frozen=True, slots=True)
class Product:
    """acc[o] = bias[o] + Σ code · weight[o], with x and geometry of ``layer``.

    ``weight`` (O, KH, KW, C/groups) holds codes on ``grid``, int32 where that is wider than 8 bits.
    ``result`` is the node whose tensor this is, ``covered`` what it took all of whose names.
    """

    layer: Layer
    result: Node
    weight: Int8Array | Int32Array
    grid: Grid
    bias: Int64Array
    covered: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Digit:
    """``factor`` times the product of ``layer``, which only ``weighted`` reads."""

    layer: Layer
    weighted: Rescale
    factor: int


def product_of(layer: Layer) -> Product:
    """The product of one layer; raises UnsupportedError where its weights do not fit 8 bits."""
    grid = layer.weight_grid
    if grid.lo < -128 or grid.hi > 127:
        raise UnsupportedError(f"weights on {grid} do not fit 8 bits", where=f"node {layer.name}")
    weight = np.ascontiguousarray(_as_image(layer), dtype=np.int8)
    return Product(layer, layer, weight, grid, layer.bias, (layer.name,))


def sole_reader(graph: IntGraph, node: Node, kind: type[T]) -> T | None:
    """What reads ``node``, where that is one node and of ``kind``."""
    readers = graph.consumers(node.name)
    return readers[0] if len(readers) == 1 and isinstance(readers[0], kind) else None


def wide_product(graph: IntGraph, nodes: Mapping[str, Node], layer: Layer) -> Product | None:
    """The sum of digits that ``layer`` is the first of; None where there is none."""
    digit = _digit_of(graph, layer)
    if digit is None:
        return None
    digits, total = [digit], None
    names = {layer.name, digit.weighted.name}
    while (found := _next_digit(graph, nodes, total or digit.weighted)) is not None:
        if _geometry(found[1].layer) != _geometry(layer):
            break
        total, other = found
        digits.append(other)
        names |= {total.name, other.layer.name, other.weighted.name}
    if total is None:
        return None
    weight = sum(d.factor * _as_image(d.layer).astype(np.int64) for d in digits)
    bias = np.asarray(sum(d.factor * d.layer.bias for d in digits), np.int64)
    most = int(np.abs(np.asarray(weight)).max(initial=0))
    if most > INT32_MAX:
        return None
    wide = np.ascontiguousarray(weight, dtype=np.int32)
    return Product(layer, total, wide, Grid(-max(1, most), max(1, most)), bias, tuple(names))


def _as_image(layer: Layer) -> Int64Array:
    """Weights (O, KH, KW, C/groups); a Linear is a 1x1 convolution."""
    return layer.weight if isinstance(layer, Conv2d) else layer.weight[:, None, None, :]


def _digit_of(graph: IntGraph, layer: Layer) -> _Digit | None:
    """``layer`` where a Rescale that only multiplies is its one reader."""
    weighted = sole_reader(graph, layer, Rescale)
    if weighted is None or weighted.shift or weighted.negative_multiplier is not None:
        return None
    factors = set(weighted.multiplier.tolist())
    if len(factors) != 1 or weighted.offset.any():
        return None
    return _Digit(layer, weighted, factors.pop())


def _next_digit(
    graph: IntGraph, nodes: Mapping[str, Node], total: Node
) -> tuple[Add, _Digit] | None:
    """The Add that alone reads ``total``, and the digit on its other side."""
    addition = sole_reader(graph, total, Add)
    if addition is None or addition.a == addition.b:
        return None
    weighted = nodes[addition.b if addition.a == total.name else addition.a]
    if not isinstance(weighted, Rescale) or sole_reader(graph, weighted, Add) is None:
        return None
    layer = nodes[weighted.x]
    digit = _digit_of(graph, layer) if isinstance(layer, Conv2d | Linear) else None
    return None if digit is None else (addition, digit)


def _geometry(layer: Layer) -> tuple[object, ...]:
    """Equal for layers that read the same windows of the same tensor."""
    own = (type(layer), layer.x, layer.weight.shape)
    if isinstance(layer, Linear):
        return own
    return (*own, layer.stride, layer.padding, layer.groups)
