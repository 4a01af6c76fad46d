"""SAWB: statistics-aware weight binning (Choi et al. 2018, arXiv 1807.06964; MLSys 2019).

    alpha = c1·sqrt(E[w²]) − c2·E|w|                                    (arithmetic.md, eq. 3)
    q     = rne((clamp(w/alpha, −1, 1)/2 + 1/2)·(n − 1))
    w_q   = alpha·(2q/(n − 1) − 1)                                      n levels

``n = 2^b`` gives the odd grid (no zero level), ``n = 2^b − 1`` the zero-aligned one. The clip
carries no gradient and is stored in the checkpoint: the coefficients that different codebases
print differ, the clip is what the network was trained with.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from bitfold.ir import Grid
from bitfold.models.protocol import Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import straight_through
from bitfold.models.spec import DEFAULT_GRID, GridKind

# (c1, c2) per number of levels. 3, 4, 8, 15 and 16: fms-model-optimizer; 7: quantlib, symmetric.
COEFFICIENTS = {
    3: (2.6, 1.71),
    4: (3.12, 2.064),
    7: (6.99146, 6.34798),
    8: (7.509, 6.892),
    15: (12.035, 12.03),
    16: (12.68, 12.80),
}


def sawb_clip(weight: Tensor, levels: int) -> Tensor:
    """Clip alpha of ``weight`` for a grid of ``levels`` levels, a positive float32 scalar.

    Falls back to max|w| where the fit turns negative (near-binary weights, ≥ 15 levels).
    """
    c1, c2 = COEFFICIENTS[levels]
    w = weight.detach().float()
    clip = c1 * w.square().mean().sqrt() - c2 * w.abs().mean()
    return torch.where(clip > 0, clip, w.abs().amax().clamp(min=1e-12))


class SawbWeight(WeightQuantizer):
    """SAWB quantizer of one layer's weights: one clip per tensor, recomputed in training."""

    clip: Tensor

    def __init__(self, bits: int, *, grid_kind: GridKind | None = None) -> None:
        super().__init__()
        self.bits = bits
        self.grid_kind: GridKind = grid_kind or DEFAULT_GRID[bits]
        self.levels: int = 2**bits if self.grid_kind == "odd" else 2**bits - 1
        self.register_buffer("clip", torch.zeros(()))

    @property
    def grid(self) -> Grid:
        """``odd(b)`` or ``narrow(b)``."""
        return Grid.odd(self.bits) if self.grid_kind == "odd" else Grid.narrow(self.bits)

    @property
    def unit(self) -> int:
        """Codes from 0 to the clip."""
        return self.levels - 1 if self.grid_kind == "odd" else (self.levels - 1) // 2

    def exact_scales(self, weight: Tensor) -> Rationals:
        """Real value of code 1, one for the whole tensor: alpha / unit."""
        return (Fraction(float(self.clip)) / self.unit,)

    def indices(self, weight: Tensor) -> Tensor:
        """Level q ∈ 0…n−1 of each weight (float), rounded in the dtype of ``weight``."""
        unit = torch.clamp(weight / self.clip, -1, 1) / 2 + 0.5
        return torch.round(unit * (self.levels - 1))

    def codes(self, weight: Tensor) -> Tensor:
        """Codes of ``weight`` on ``grid`` (same shape, int64)."""
        grid = self.grid
        return self.indices(weight).to(torch.int64) * grid.step + grid.lo

    @torch.no_grad()
    def refresh(self, weight: Tensor) -> None:
        """Recompute the stored clip from ``weight``."""
        self.clip.copy_(sawb_clip(weight, self.levels))

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight``; gradient 1 inside [−alpha, alpha], 0 outside."""
        if self.training:
            self.refresh(weight)
        value = self.clip * (2 * self.indices(weight) / (self.levels - 1) - 1)
        return straight_through(value, torch.clamp(weight, -self.clip, self.clip))

    def faults(self, weight: Tensor) -> list[str]:
        """A clip that is not positive and finite."""
        clip = float(self.clip)
        sound = 0 < clip / self.unit < math.inf
        return [] if sound else [f"weight_quantizer.clip is {clip:g}, must be positive"]

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}, grid={self.grid_kind}"
