"""Gradients that differ from the derivative: straight-through rounding and scaled step gradients.

Plain tensor operations throughout, so that ``torch.compile`` fuses them with their neighbours. A
difference of a tensor with its own detached value is exactly 0 and carries its gradient: forward
values are those of the quantizer's formula to the last bit.
"""

import torch
from torch import Tensor


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """``value`` in the forward pass, the gradient of ``surrogate`` in the backward pass.

    ``surrogate`` has to be finite.
    """
    return value.detach() + (surrogate - surrogate.detach())


def round_straight_through(x: Tensor) -> Tensor:
    """rne(x) with gradient 1."""
    return straight_through(torch.round(x), x)


def scale_gradient(parameter: Tensor, factor: float) -> Tensor:
    """``parameter``, its gradient multiplied by ``factor``.

    The published UniQ and BASQ code computes ``(p − p·g) + p·g``, which misses p by an ulp for some
    values and lets the step depend on the batch size; here the value is p.
    """
    return (parameter - parameter.detach()) * factor + parameter.detach()


def along(numbers: Tensor, x: Tensor, *, axis: int) -> Tensor:
    """``numbers``, () or (C,), shaped to broadcast along ``axis`` of ``x``."""
    if numbers.dim() == 0:
        return numbers
    return numbers.view(*[1] * axis, -1, *[1] * (x.dim() - axis - 1))
