"""Evidence of another rounding: what a rescale or a threshold table would give under it."""

from collections.abc import Callable
from typing import Literal

import numpy as np

from bitfold.ir import IntArray, Rescale, Thresholds

Found = tuple[Literal["tie", "rounding mode"], str]

# Next to a threshold on a stream, of the distance to the next threshold.
NEAR = 2.0**-12
AGREEMENT = 0.9


def _half_up(s: IntArray, n: int) -> IntArray:
    return (s + (1 << n >> 1)) >> n


def _half_down(s: IntArray, n: int) -> IntArray:
    return -_half_up(-s, n)


def _half_even(s: IntArray, n: int) -> IntArray:
    up = _half_up(s, n)
    is_half = (s & ((1 << n) - 1)) == (1 << n >> 1) if n else np.zeros_like(s, dtype=np.bool_)
    return np.where(is_half & (up & 1 == 1), up - 1, up)


def _half_away(s: IntArray, n: int) -> IntArray:
    return np.where(s < 0, -_half_up(-s, n), _half_up(s, n))


def _ceil(s: IntArray, n: int) -> IntArray:
    return -((-s) >> n)


def _truncated(s: IntArray, n: int) -> IntArray:
    return np.where(s < 0, _ceil(s, n), s >> n)


RESCALES: tuple[tuple[Found, Callable[[IntArray, int], IntArray]], ...] = (
    (("tie", "halves rounded to even, not up"), _half_even),
    (("tie", "halves rounded away from zero, not up"), _half_away),
    (("tie", "halves rounded down, not up"), _half_down),
    (("rounding mode", "rounded down, not to the nearest"), np.right_shift),
    (("rounding mode", "rounded up, not to the nearest"), _ceil),
    (("rounding mode", "rounded toward zero, not to the nearest"), _truncated),
)


def rescale_cause(node: Rescale, x: IntArray, got: IntArray) -> Found | None:
    """The rounding under which ``node`` gives ``got`` on every integer of ``x``."""
    for found, rounded in RESCALES:
        y = rounded(node.multiplier * x + node.offset, node.shift)
        if node.negative_multiplier is not None:
            bent = rounded(node.negative_multiplier * y, node.negative_shift)
            y = np.where(y < 0, bent, y)
        if np.array_equal(y, got):
            return found
    return None


def threshold_cause(node: Thresholds, x: IntArray, got: IntArray, want: IntArray) -> Found | None:
    """Codes off by one: all beside their threshold, or as half a step more or less makes them."""
    grid = node.grid
    got, want = ((codes - grid.lo) // grid.step for codes in (got, want))
    at = np.nonzero(got != want)
    is_on_grid = bool((got >= 0).all() and (got < grid.levels).all())
    if not is_on_grid or not (np.abs(got[at] - want[at]) == 1).all():
        return None
    channels = np.broadcast_to(np.arange(len(node.table)), want.shape)[at]
    between = node.table[channels, np.minimum(got[at], want[at])]
    u = node.sign[channels] * x.reshape(want.shape)[at]
    distance = np.where(want[at] > got[at], u - between, between - 1 - u)
    gap = _gaps(node)[channels]
    if ((distance == 0) | (distance <= NEAR * gap)).all():
        farthest = int(distance.max())
        beside = "beside" if farthest == 0 else f"at most {farthest} from"
        return (
            "tie",
            f"every code that differs is off by one, with its integer {beside} a threshold",
        )
    return _half_a_step(node, x.reshape(want.shape), got, want)


def _gaps(node: Thresholds) -> IntArray:
    """(C,) typical distance between neighbouring thresholds of a channel; 0 where there is none."""
    found = []
    for row in node.table:
        steps = np.diff(row)
        steps = steps[steps > 0]
        found.append(int(np.median(steps)) if len(steps) else 0)
    return np.array(found, dtype=np.int64)


def _half_a_step(node: Thresholds, x: IntArray, got: IntArray, want: IntArray) -> Found | None:
    """Whether thresholds half a step higher (rounding down) or lower (up) explain ``got``."""
    is_low = bool((got <= want).all())
    if not is_low and not (got >= want).all():
        return None
    half = (_gaps(node) + 1) // 2
    if not half.any():
        return None
    shifted = node.table + (half if is_low else -half)[:, None]
    u = node.sign * x
    made = (u[..., None] >= shifted).sum(-1)
    right, wrong = got == want, got != want
    agrees = made == got
    if agrees[wrong].mean() < AGREEMENT or (right.any() and agrees[right].mean() < AGREEMENT):
        return None
    way = "down" if is_low else "up"
    return (
        "rounding mode",
        f"codes are as if rounded {way}: thresholds half a step away explain them",
    )
