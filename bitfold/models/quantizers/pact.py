"""PACT: parameterized clipping activation (Choi et al. 2018, arXiv 1805.06085), replaces a ReLU.

    y   = clamp(x, 0, alpha)
    y_q = rne(y · L/alpha) · alpha/L            L = 2^b − 1            (arithmetic.md, eq. 2)

The paper leaves ties open: we round half to even and multiply by L/alpha before rounding.
"""

import math
from fractions import Fraction

import torch
from torch import Tensor, nn

from bitfold.ir import Grid
from bitfold.models.protocol import ActivationQuantizer, Rationals
from bitfold.models.quantizers.ste import straight_through

DEFAULT_CLIP = 8.0


class PactActivation(ActivationQuantizer):
    """Unsigned ``bits``-bit activation with one learnable clip alpha per layer.

    Gradient (paper, eq. 3): dy/dx = 1 on [0, alpha), dy/dalpha = 1 where x ≥ alpha, 0 elsewhere.
    At x = alpha itself autograd's tie rule halves the two.
    """

    def __init__(self, bits: int, *, clip: float = DEFAULT_CLIP) -> None:
        super().__init__()
        self.bits = bits
        self.clip = nn.Parameter(torch.tensor(clip))

    @property
    def grid(self) -> Grid:
        """Codes 0 … 2^b − 1."""
        return Grid.unsigned(self.bits)

    def exact_scales(self) -> Rationals:
        """Real value of code 1: alpha / (2^b − 1)."""
        return (Fraction(float(self.clip.detach())) / self.grid.hi,)

    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""
        levels = 2**self.bits - 1
        clip = self.clip.detach()
        return torch.round(torch.minimum(torch.relu(x), clip) * (levels / clip)).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized ``x``: code · alpha/L in the forward pass, PACT's gradient backwards."""
        levels = 2**self.bits - 1
        clip = self.clip
        clipped = torch.minimum(torch.relu(x), clip)
        return straight_through(torch.round(clipped * (levels / clip)) * (clip / levels), clipped)

    def faults(self) -> list[str]:
        """A clip that is not positive and finite."""
        clip = float(self.clip.detach())
        scale = clip / self.grid.hi
        return [] if 0 < scale < math.inf else [f"clip is {clip:g}, must be positive"]

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}, clip={float(self.clip.detach()):.4g}"
