"""Symmetric 8-bit weights by their largest magnitude, for the edges of a network (ADR 0009).

s_o = max|w_o| / 127,   code = rne(w_o / s_o)                       (arithmetic.md, eq. 4)
"""

from fractions import Fraction

import torch
from torch import Tensor

from bitfold.ir import Grid
from bitfold.models.protocol import Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import straight_through


TWO_DIGITS = 127 * 255 + 127


class MinMaxWeight(WeightQuantizer):
    """8- or 16-bit symmetric weights, one scale per output channel (1/hi for an all-zero filter)."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits

    @property
    def grid(self) -> Grid:
        """``narrow(bits)``; beyond 8 bits, what two digits of base 255 in −127 … 127 hold."""
        return Grid.narrow(self.bits) if self.bits <= 8 else Grid(-TWO_DIGITS, TWO_DIGITS)

    def scale(self, weight: Tensor) -> Tensor:
        """Scale per output channel, shape (O,) float32."""
        largest = weight.detach().abs().flatten(1).amax(1)
        return torch.where(largest > 0, largest, torch.ones_like(largest)) / self.grid.hi

    def exact_scales(self, weight: Tensor) -> Rationals:
        """The float32 scales' exact values."""
        return tuple(Fraction(s) for s in self.scale(weight).tolist())

    def codes(self, weight: Tensor) -> Tensor:
        """Codes of ``weight`` (same shape, int64)."""
        scale = self.scale(weight).view(-1, *[1] * (weight.dim() - 1))
        return (
            torch.round(weight.detach() / scale).clamp(self.grid.lo, self.grid.hi).to(torch.int64)
        )

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight`` with the identity gradient."""
        scale = self.scale(weight).view(-1, *[1] * (weight.dim() - 1))
        return straight_through(torch.round(weight / scale) * scale, weight)

    def faults(self, weight: Tensor) -> list[str]:
        """Weights so small that a scale underflows."""
        smallest = float(self.scale(weight).min())
        return [] if smallest > 0 else ["weight is too small to have a scale"]
