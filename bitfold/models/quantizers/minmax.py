"""Symmetric 8-bit weights by their largest magnitude, for the edges of a network (ADR 0009).

s_o = max|w_o| / 127,   code = rne(w_o / s_o)                       (arithmetic.md, eq. 4)

A layer that was trained in float is rounded so that, for each pair of output and input channel, the
sum over the taps stays within half a step (``SumPreservingWeight``): neighbouring pixels are much
alike, so it is the sum's error that a network sees.
"""

import torch
from torch import Tensor

from bitfold.ir import Grid
from bitfold.models.protocol import Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import along, straight_through
from bitfold.models.quantizers.steps import exact

TWO_DIGITS = 127 * 255 + 127


class MinMaxWeight(WeightQuantizer):
    """8- or 16-bit symmetric weights, one scale per output channel (1/hi for a zero filter)."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits

    @property
    def grid(self) -> Grid:
        """``narrow(bits)``; beyond 8 bits, what two digits of base 255 in −127 … 127 hold."""
        return Grid.narrow(self.bits) if self.bits <= 8 else Grid(-TWO_DIGITS, TWO_DIGITS)

    def scale(self, weight: Tensor) -> Tensor:
        """Scale per output channel, shape (O,) float32."""
        largest = weight.detach().float().abs().flatten(1).amax(1)
        return torch.where(largest > 0, largest, torch.ones_like(largest)) / self.grid.hi

    def exact_scales(self, weight: Tensor) -> Rationals:
        """The float32 scales' exact values."""
        return exact(self.scale(weight))

    def _rounded(self, weight: Tensor) -> Tensor:
        ratio = weight.detach().float() / along(self.scale(weight), weight, axis=0)
        return torch.round(ratio).clamp(self.grid.lo, self.grid.hi)

    def codes(self, weight: Tensor) -> Tensor:
        """Codes of ``weight`` (same shape, int64), rounded in float32."""
        return self._rounded(weight).to(torch.int64)

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight`` with the identity gradient."""
        scale = along(self.scale(weight), weight, axis=0).to(weight.dtype)
        return straight_through(self._rounded(weight).to(weight.dtype) * scale, weight)

    def faults(self, weight: Tensor) -> list[str]:
        """Weights so small that a scale underflows, or not finite."""
        smallest = float(self.scale(weight).min())
        return [] if smallest > 0 else ["weight is too small to have a scale"]


class SumPreservingWeight(MinMaxWeight):
    """``MinMaxWeight`` for (O, I, KH, KW) weights trained in float: keeps each kernel's sum.

    Where the rounding errors of a kernel add up to n steps, the n weights with the largest errors
    of that sign go to their other neighbour.
    """

    def _rounded(self, weight: Tensor) -> Tensor:
        ratio = weight.detach().float() / along(self.scale(weight), weight, axis=0)
        nearest = torch.round(ratio)
        error = (nearest - ratio).flatten(2)
        excess = torch.round(error.sum(2, keepdim=True))
        highest = error.argsort(dim=2, descending=True, stable=True).argsort(dim=2)
        lowest = error.argsort(dim=2, stable=True).argsort(dim=2)
        moved = (lowest < -excess).float() - (highest < excess).float()
        return (nearest + moved.view_as(nearest)).clamp(self.grid.lo, self.grid.hi)
