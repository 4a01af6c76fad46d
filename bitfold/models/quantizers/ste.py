"""Straight-through rounding: the forward value of a quantizer with the gradient of its input."""

from torch import Tensor


def straight_through(value: Tensor, surrogate: Tensor) -> Tensor:
    """Return ``value`` in the forward pass and the gradient of ``surrogate`` in the backward pass.

    Written in plain tensor operations, so that ``torch.compile`` fuses it with its neighbours.
    """
    return surrogate + (value - surrogate).detach()
