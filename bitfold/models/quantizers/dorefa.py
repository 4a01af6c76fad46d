"""DoReFa weights (Zhou et al. 2016, arXiv 1606.06160), the weights of PACT's own tables.

As in IntelLabs/distiller, L = 2^b − 1, the maximum over the layer:

    v = tanh(w)/(2·max|tanh w|) + ½,   q = rne(v·L),   ŵ = 2q/L − 1          (arithmetic.md, eq. 23)

codes 2q − L on the odd grid and the fixed scale 1/L. One bit: ŵ = E|w|·sign(w), sign(0) = +1.
rne counts as the identity and everything else is differentiated, the maximum included; at one bit
the gradient is the identity.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor

from bitfold.ir import Grid
from bitfold.models.protocol import Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import round_straight_through, straight_through


class DorefaWeight(WeightQuantizer):
    """``bits``-bit weights through a tanh: nothing is stored, nothing but the weight learned.

    Codes are rounded in float32, whatever the dtype of the weight.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits

    @property
    def grid(self) -> Grid:
        """``odd(b)``."""
        return Grid.odd(self.bits)

    def scale(self, weight: Tensor) -> Tensor:
        """Mean of |w| over the layer, () float32: the scale of one bit."""
        return weight.detach().float().abs().mean()

    def exact_scales(self, weight: Tensor) -> Rationals:
        """1/L; at one bit the float32 E|w|."""
        if self.bits == 1:
            return (Fraction(float(self.scale(weight))),)
        return (Fraction(1, self.grid.hi),)

    def _indices(self, weight: Tensor) -> Tensor:
        bent = torch.tanh(weight.float())
        largest = bent.abs().amax()
        share = bent / (2 * torch.where(largest == 0, 1, largest)) + 0.5
        return round_straight_through(share * self.grid.hi)

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Tensor:
        """2q − L (same shape, int64); ±1 at one bit."""
        index = (weight >= 0) if self.bits == 1 else self._indices(weight)
        return 2 * index.to(torch.int64) + self.grid.lo

    def forward(self, weight: Tensor) -> Tensor:
        """Fake-quantized ``weight`` with DoReFa's gradient."""
        if self.bits == 1:
            sign = torch.where(weight >= 0, 1.0, -1.0).to(weight.dtype)
            return straight_through(sign * self.scale(weight), weight)
        return (2 * self._indices(weight).to(weight.dtype) + self.grid.lo) / self.grid.hi

    def faults(self, weight: Tensor) -> list[str]:
        """Weights that are not finite, or all zero at one bit."""
        scale = float(self.scale(weight))
        sound = math.isfinite(scale) and (self.bits > 1 or scale > 0)
        return [] if sound else [f"mean of |weight| is {scale:g}, must be positive"]

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"
