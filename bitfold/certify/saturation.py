"""Evidence of saturation: machine limits in the values, 16-bit limits in pairs of products."""

from itertools import product

import numpy as np
from numpy.typing import NDArray

from bitfold.ir import Conv2d, Grid, IntArray, Linear

INT16 = 2**15 - 1
WIDTHS = (32, 24, 16, 8)
PLACES_EXAMINED = 16


def clip_cause(got: IntArray, want: IntArray, grid: Grid | None) -> str | None:
    """A limit at which ``got`` is ``want`` clipped or wrapped; codes on ``grid`` clip anywhere."""
    if grid is None:
        for bits in WIDTHS:
            half = 1 << bits >> 1
            fits = -half <= got.min() and got.max() < half
            if fits and ((got - want) % (1 << bits) == 0).all():
                return f"sums wrapped at {bits} bits"
    low, high = int(got.min()), int(got.max())
    if not np.array_equal(got, want.clip(low, high)):
        return None
    ends = [end for end, beyond in ((low, want.min() < low), (high, want.max() > high)) if beyond]
    limits = {sign * (1 << bits) - (sign > 0) for bits in range(7, 33) for sign in (1, -1)}
    limits |= {1 - (1 << bits) for bits in range(7, 33)}
    is_limit = low < high if grid is not None else all(end in limits for end in ends)
    return f"clipped at {' and '.join(map(str, ends))}" if is_limit else None


def pair_cause(
    node: Conv2d | Linear, x: IntArray, wrong: NDArray[np.bool_], *, lo: int, sums: IntArray | None
) -> str | None:
    """Whether adding pairs of products in saturating 16 bits explains the wrong places.

    ``x`` (N, …) are the codes that ``node`` reads, ``lo`` the least of them: kernels multiply codes
    or indices, code − lo. ``sums``: what the form has for the accumulators, where it has them.
    """
    at = np.argwhere(wrong)[:PLACES_EXAMINED]
    operands = [_operands(node, x, tuple(int(i) for i in place)) for place in at]
    if any(operand is None for operand in operands):
        return None
    for offset, is_first in product((0, lo), (False, True)):
        made = [_saturated(*o, offset=offset, is_first=is_first) for o in operands if o]
        if not all(leaves for _, leaves in made):
            continue
        totals = [
            total + int(node.bias[place[-1]]) for (total, _), place in zip(made, at, strict=True)
        ]
        if sums is None:
            return "pairs of products leave 16 bits at every place that differs"
        if all(total == sums[tuple(place)] for total, place in zip(totals, at, strict=True)):
            return "exactly the sums of pairs of products that saturate at 16 bits"
    return None


Operands = tuple[IntArray, IntArray]


def _operands(node: Conv2d | Linear, x: IntArray, place: tuple[int, ...]) -> Operands | None:
    """Codes and weights (KH, KW, I) of one sum; None for a place that is none of the node's."""
    if isinstance(node, Linear):
        shape = (1, 1, node.weight.shape[1])
        return x[place[0]].reshape(shape), node.weight[place[-1]].reshape(shape)
    if len(place) != 4:
        return None
    image, row, column, out = place
    _, height, width, depth = node.weight.shape
    top, left, bottom, right = node.padding
    padded = np.pad(x[image], ((top, bottom), (left, right), (0, 0)))
    start = out // (len(node.weight) // node.groups) * depth
    y, z = row * node.stride[0], column * node.stride[1]
    return padded[y : y + height, z : z + width, start : start + depth], node.weight[out]


def _saturated(
    codes: IntArray, weight: IntArray, *, offset: int, is_first: bool
) -> tuple[int, bool]:
    """Σ code·weight with pairs of (code − offset)·weight saturating, and whether any pair does.

    Pairs are neighbours with channels last, or first where ``is_first``.
    """
    products = (codes - offset) * weight
    flat = (products.transpose(2, 0, 1) if is_first else products).reshape(-1)
    flat = np.pad(flat, (0, len(flat) % 2))
    pairs = flat.reshape(-1, 2).sum(1)
    clipped = pairs.clip(-INT16 - 1, INT16)
    return int(clipped.sum() + offset * weight.sum()), bool((pairs != clipped).any())
