"""Symmetric 8-bit weights by their largest magnitude, for the edges of a network (ADR 0009).

s_o = max|w_o| / 127,   code = rne(w_o / s_o)                       (arithmetic.md, eq. 4)
"""

import torch
from torch import Tensor, nn

from bitfold.ir import Grid
from bitfold.models.quantizers.ste import straight_through


class MinMaxWeight(nn.Module):
    """``narrow(bits)`` weights, one scale per output channel (1/hi for an all-zero filter)."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__()
        self.bits = bits

    @property
    def grid(self) -> Grid:
        """Codes −(2^(b−1) − 1) … 2^(b−1) − 1."""
        return Grid.narrow(self.bits)

    def scale(self, weight: Tensor) -> Tensor:
        """Scale per output channel, shape (O,) float32."""
        largest = weight.detach().abs().flatten(1).amax(1)
        return torch.where(largest > 0, largest, torch.ones_like(largest)) / self.grid.hi

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
