"""PACT: parameterized clipping activation (Choi et al. 2018, arXiv 1805.06085), replaces a ReLU.

    y   = clamp(x, 0, alpha)
    y_q = rne(y · L/alpha) · alpha/L            L = 2^b − 1            (arithmetic.md, eq. 2)

The paper leaves ties open: we round half to even and multiply by L/alpha before rounding.
"""

import torch
from torch import Tensor, nn

from bitfold.ir import Grid
from bitfold.models.protocol import ActivationQuantizer, Rationals
from bitfold.models.quantizers.ste import straight_through
from bitfold.models.quantizers.steps import exact, positive_faults
from bitfold.models.quantizers.uniq import rectified_step

DEFAULT_CLIP = 8.0
LEAST_CLIP = 1e-3


class PactActivation(ActivationQuantizer):
    """Unsigned ``bits``-bit activation with one learnable clip alpha per layer.

    Gradient (paper, eq. 3): dy/dx = 1 on [0, alpha), dy/dalpha = 1 where x ≥ alpha, 0 elsewhere.
    """

    def __init__(self, bits: int, *, clip: float = DEFAULT_CLIP) -> None:
        super().__init__()
        self.bits = bits
        self.clip = nn.Parameter(torch.tensor(clip))
        self._calibrated = False

    @property
    def grid(self) -> Grid:
        """Codes 0 … 2^b − 1."""
        return Grid.unsigned(self.bits)

    def exact_scales(self) -> Rationals:
        """Real value of code 1: alpha / (2^b − 1)."""
        return (exact(self.clip)[0] / self.grid.hi,)

    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""
        levels = 2**self.bits - 1
        clip = self.clip.detach()
        return torch.round(torch.minimum(torch.relu(x), clip) * (levels / clip)).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Fake-quantized ``x``: code · alpha/L in the forward pass, PACT's gradient backwards."""
        levels = 2**self.bits - 1
        clip = self.clip
        clipped = torch.where(x < clip, torch.clamp(x, min=0), clip)
        return straight_through(torch.round(clipped * (levels / clip)) * (clip / levels), clipped)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """The best clip for a rectified Gaussian of the power of relu(x), greatest of all batches.

        The paper starts from a large clip and lets its decay find the size; this is for networks
        that are not trained, or start from trained weights.
        """
        clip = (rectified_step(torch.relu(x), self.bits) * self.grid.hi).clamp(min=LEAST_CLIP)
        self.clip.copy_(torch.maximum(clip, self.clip) if self._calibrated else clip)
        self._calibrated = True

    def faults(self) -> list[str]:
        """A clip that is not positive and finite."""
        return positive_faults("clip", self.clip)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"
