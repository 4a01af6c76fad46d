"""Stored steps and clips: their exact values and what is wrong with them."""

import math
from fractions import Fraction

import torch
from torch import Tensor

from bitfold.models.protocol import Rationals


def exact(numbers: Tensor) -> Rationals:
    """The exact values of float32 ``numbers``, () or (C,)."""
    return tuple(Fraction(number) for number in numbers.detach().flatten().tolist())


# An optimizer may carry a small step past zero, where it has no meaning.
LEAST_STEP = 1e-5


@torch.no_grad()
def keep_positive(numbers: Tensor) -> None:
    """Raise steps below ``LEAST_STEP`` to it, in place."""
    numbers.clamp_(min=LEAST_STEP)


def positive_faults(attribute: str, numbers: Tensor) -> list[str]:
    """One line for the first of ``numbers``, () or (C,), that is not positive and finite."""
    for index, number in enumerate(numbers.detach().flatten().tolist()):
        if not 0 < number < math.inf:
            place = f"[{index}]" if numbers.dim() else ""
            return [f"{attribute}{place} is {number:g}, must be positive"]
    return []
