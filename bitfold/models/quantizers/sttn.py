"""STTN: soft threshold ternary networks (Xu et al., IJCAI 2020; arXiv 2204.01234), and n bits.

The formulas are those of the published code (WeixiangXu/STTN).

Activations:  t(x) = −1 if x < −½,   0 if −½ ≤ x < ½,   +1 if x ≥ ½       (arithmetic.md, eq. 21)

with gradient 1 where |x| ≤ 1. Weights are made of two latent kernels of n elements a filter,

    m = (‖W₁‖₁ + ‖W₂‖₁)/(2n),   T = m·sign(W₁) + m·sign(W₂) ∈ {−2m, 0, 2m}   (eq. 22)

and each kernel's gradient is rewritten, from g = ∂L/∂T, to

    ∂L/∂W = g·1[|W| ≤ 1.96] + sign(W)·(1/n)·Σ_filter sign(W)·g.

``StqnWeight`` and ``StqnActivation`` carry this to b bits. They are *STQN-like*: the STQN paper
(IEEE TCSVT 2022) published no code, and how it forms n-bit numbers is not known to us. Here the
weights are P = 2^b − 2 sign kernels, the activations 2^b − 1 evenly spaced levels; b = 2 is STTN.
"""

from fractions import Fraction

import torch
from torch import Tensor

from bitfold.ir import Grid
from bitfold.models.protocol import ActivationQuantizer, Rationals, Ties, WeightQuantizer
from bitfold.models.quantizers.ste import along, straight_through
from bitfold.models.quantizers.steps import exact

GRADIENT_REACH = 1.96


class StqnActivation(ActivationQuantizer):
    """STQN-like symmetric ``bits``-bit activation of fixed step 2^(2−b); ties go up.

    The step doubles as thresholds per unit: ±½ and step 1 at 2 bits (STTN), then 7 levels to ±1.5
    and 15 to ±1.75. A power of two, so that x/step rounds nothing. Gradient 1 where |x| is at
    most the largest level.
    """

    ties: Ties = "up"

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.step = 2.0 ** (2 - bits)

    @property
    def grid(self) -> Grid:
        """``narrow(b)``."""
        return Grid.narrow(self.bits)

    def exact_scales(self) -> Rationals:
        """2^(2−b)."""
        return (Fraction(self.step),)

    @torch.no_grad()
    def _rounded(self, x: Tensor) -> Tensor:
        ratio = torch.clamp(x / self.step, self.grid.lo, self.grid.hi)
        nearest = torch.round(ratio)
        # rne leaves k + 1/2 at an even k; ties go up.
        return nearest + (ratio - nearest == 0.5).to(x.dtype)

    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""
        return self._rounded(x).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """step·code, straight-through up to the largest level."""
        reach = self.grid.hi * self.step
        return straight_through(self._rounded(x) * self.step, torch.clamp(x, -reach, reach))

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"


class SttnActivation(StqnActivation):
    """STTN's ternary activation: thresholds at ±½, scale 1; −½ is 0 and +½ is +1."""

    def __init__(self) -> None:
        super().__init__(2)


class StqnWeight(WeightQuantizer):
    """STQN-like ``bits``-bit weights, the sum of P = 2^b − 2 sign kernels: latent (P, O, …).

    T = m·Σ sign(W_p) with m = Σ‖W_p‖₁/(P·n) a filter; an even sum 2c has code c and scale 2m.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.kernels = 2**bits - 2

    @property
    def grid(self) -> Grid:
        """``narrow(b)``."""
        return Grid.narrow(self.bits)

    def scale(self, weight: Tensor) -> Tensor:
        """2m of each filter, (O,) float32; 2 for an all-zero one, whose codes are 0."""
        size = weight.detach().float().abs().flatten(2)
        mean = size.sum(2).sum(0) / (self.kernels * size.shape[2])
        return 2 * torch.where(mean == 0, 1, mean)

    def exact_scales(self, weight: Tensor) -> Rationals:
        """The float32 scales' exact values, one a filter."""
        return exact(self.scale(weight))

    def codes(self, weight: Tensor) -> Tensor:
        """Codes (O, …) of the latent (P, O, …), int64; ``faults`` where a latent is 0."""
        total = torch.sign(weight.detach()).sum(0)
        return torch.div(total, 2, rounding_mode="trunc").to(torch.int64)

    def forward(self, weight: Tensor) -> Tensor:
        """T (O, …) with the rewritten gradient of each kernel."""
        sign = torch.sign(weight).detach()
        inside = (weight.detach().abs() <= GRADIENT_REACH).to(weight.dtype)
        mean = (sign * weight).flatten(2).mean(2)
        own = inside * weight + sign * mean.view(*mean.shape, *[1] * (weight.dim() - 2))
        total = sign.sum(0)
        scale = along(self.scale(weight), total, axis=0).to(weight.dtype)
        return straight_through((total * 0.5) * scale, own.sum(0))

    @torch.no_grad()
    def constrain(self, weight: Tensor) -> None:
        """Clamp the latent kernels to [−1, 1], in place; one that is exactly 0 gets a sign."""
        weight.clamp_(-1, 1)
        weight.masked_fill_(weight == 0, torch.finfo(weight.dtype).tiny)

    def faults(self, weight: Tensor) -> list[str]:
        """Latents that are 0, which have no sign, or not finite."""
        zeros = int((weight == 0).sum())
        faults = [f"weight is 0 in {zeros} places, must have a sign"] if zeros else []
        if not bool(torch.isfinite(weight).all()):
            faults.append("weight has numbers that are not finite, must have a scale")
        return faults

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"


class SttnWeight(StqnWeight):
    """STTN's ternary weights of two latent kernels, latent (2, O, …)."""

    def __init__(self) -> None:
        super().__init__(2)


class MergedTernaryWeight(WeightQuantizer):
    """A plain weight (O, …) that already is ternary per filter, {−s, 0, s}: decoded exactly."""

    @property
    def grid(self) -> Grid:
        """``narrow(2)``."""
        return Grid.narrow(2)

    def scale(self, weight: Tensor) -> Tensor:
        """Largest |w| of each filter, (O,) float32; 1 for an all-zero one."""
        largest = weight.detach().float().abs().flatten(1).amax(1)
        return torch.where(largest == 0, 1, largest)

    def exact_scales(self, weight: Tensor) -> Rationals:
        """The float32 scales' exact values, one a filter."""
        return exact(self.scale(weight))

    def _rounded(self, weight: Tensor) -> Tensor:
        return torch.round(weight.detach() / along(self.scale(weight), weight, axis=0))

    def codes(self, weight: Tensor) -> Tensor:
        """w/s (same shape, int64)."""
        return self._rounded(weight).to(torch.int64)

    def forward(self, weight: Tensor) -> Tensor:
        """s·code, which is ``weight`` itself where it is ternary; gradient 1."""
        scale = along(self.scale(weight), weight, axis=0).to(weight.dtype)
        return straight_through(self._rounded(weight) * scale, weight)

    def faults(self, weight: Tensor) -> list[str]:
        """The first filter that has a number other than −s, 0 and s."""
        scale = along(self.scale(weight), weight, axis=0)
        off = (weight != self._rounded(weight) * scale).flatten(1).any(1)
        wrong = off.nonzero().flatten().tolist()
        if not wrong:
            return []
        return [f"weight[{wrong[0]}] has values other than −s, 0, s, must be ternary per filter"]
