"""UniQ: learnable symmetric quantizers (Pham et al. 2021, IEEE Access 9:47194; arXiv 2104.00210).

The formulas are those of the published code (phuocphn/uniq). With L = 2^b − 1 and a step Δ,

    weights      α = (Δ·L)·½,   q = rne(clamp((w + α)/Δ, 0, L)),   ŵ = (Δ/2)·(2q − L)
    activations  q = rne(clamp(x/Δ, 0, L)),                        x̂ = Δ·q

(arithmetic.md, eq. 17 and 18). Weights lie halfway between multiples of Δ, there is no zero: at
w = 0 the even q wins, +Δ/2 from 2 bits on and −Δ/2 at 1 bit. The code evaluates ŵ as q·Δ − α,
which float32 rounds up to L ulp off; here it is one product.

Gradients: rne counts as the identity, everything else is differentiated, so

    ∂ŵ/∂Δ = (ŵ − w)/Δ inside, ∓L/2 beyond the ends;   ∂x̂/∂Δ = q − x/Δ inside, 0 below, L above,

and the sum over a tensor of N elements is multiplied by 1/sqrt(N·(2^(b−1) − 1)) (weights; at
least 1 for the bracket) or 1/sqrt(N·(2^b − 1)) (activations).
"""

import math

import torch
from torch import Tensor, nn

from bitfold.ir import Grid
from bitfold.models.protocol import ActivationQuantizer, Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import along, round_straight_through, scale_gradient
from bitfold.models.quantizers.steps import exact, keep_positive, positive_faults

# Step of least mean square error for N(0, 1) on a mid-rise grid, by bits (the published table).
WEIGHT_STEP = {
    1: 1.595769,
    2: 0.995687,
    3: 0.586019,
    4: 0.335201,
    5: 0.188139,
    6: 0.104063,
    7: 0.0568677,
    8: 0.0307624,
    9: 0.01649896,
}

# The same for a rectified N(0, 1) on an unsigned grid (the published table).
ACTIVATION_STEP = {
    1: 1.223992,
    2: 0.650770,
    3: 0.353410,
    4: 0.193249,
    5: 0.105488,
    6: 0.0572659,
    7: 0.0308713,
    8: 0.0165292,
    9: 0.00879047,
}


def rectified_step(x: Tensor, bits: int) -> Tensor:
    """Best unsigned step for a rectified Gaussian of the power of ``x``: sqrt(2·E[x²])·p_b, ()."""
    return (2 * x.float().square().mean()).sqrt() * ACTIVATION_STEP[bits]


def _mid_rise(x: Tensor, step: Tensor, bits: int) -> Tensor:
    """Level q ∈ 0 … L of ``x``, float, straight-through; ``step`` broadcasts."""
    levels = 2**bits - 1
    alpha = (step * levels) * 0.5
    return round_straight_through(torch.clamp((x + alpha) / step, 0, levels))


def _weight_gradient_factor(count: int, bits: int) -> float:
    return 1 / math.sqrt(count * max(2 ** (bits - 1) - 1, 1))


class UniqWeight(WeightQuantizer):
    """Mid-rise ``bits``-bit weights with a learnable step: one a layer, or one a kernel.

    ``delta`` is () or, with ``out_channels``, (O,). Codes are rounded in float32, whatever the
    dtype of the weight.
    """

    def __init__(self, bits: int, *, out_channels: int | None = None) -> None:
        super().__init__()
        self.bits = bits
        shape = () if out_channels is None else (out_channels,)
        self.delta = nn.Parameter(torch.full(shape, WEIGHT_STEP[bits]))

    @property
    def grid(self) -> Grid:
        """``odd(b)``: ±1, ±3, … ±(2^b − 1)."""
        return Grid.odd(self.bits)

    def exact_scales(self, weight: Tensor) -> Rationals:
        """Δ/2, one number or one a kernel."""
        return tuple(step / 2 for step in exact(self.delta))

    def codes(self, weight: Tensor) -> Tensor:
        """2q − L (same shape, int64)."""
        step = along(self.delta.detach().float(), weight, axis=0)
        index = _mid_rise(weight.detach().float(), step, self.bits)
        return 2 * index.to(torch.int64) + self.grid.lo

    def forward(self, weight: Tensor) -> Tensor:
        """(Δ/2)·(2q − L) with UniQ's gradients."""
        count = weight.numel() // max(self.delta.numel(), 1)
        factor = _weight_gradient_factor(count, self.bits)
        step = along(scale_gradient(self.delta, factor), weight, axis=0)
        index = _mid_rise(weight.float(), step.float(), self.bits).to(weight.dtype)
        return (2 * index + self.grid.lo) * (step * 0.5)

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        """Set Δ = std(w)·c_b, unbiased; kept where that is no positive number."""
        flat = weight.float().reshape(max(self.delta.numel(), 1), -1)
        step = (flat.std(1) * WEIGHT_STEP[self.bits]).view_as(self.delta)
        self.delta.copy_(torch.where(step > 0, step, self.delta))

    def constrain(self, weight: Tensor) -> None:
        """Keep the steps positive; the published code does not."""
        keep_positive(self.delta)

    def faults(self, weight: Tensor) -> list[str]:
        """A step that is not positive and finite."""
        return positive_faults("weight_quantizer.delta", self.delta)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}, steps={self.delta.numel()}"


class _OneStep(ActivationQuantizer):
    """A quantizer with one learnable step ``delta``, ().

    ``batch_shards`` is the number of processes that share a batch: the gradient's N counts all.
    """

    batch_shards: int = 1

    def __init__(self, bits: int, *, step: float) -> None:
        super().__init__()
        self.bits = bits
        self.delta = nn.Parameter(torch.tensor(step))

    def constrain(self) -> None:
        """Keep the step positive; the published code does not."""
        keep_positive(self.delta)

    def faults(self) -> list[str]:
        """A step that is not positive and finite."""
        return positive_faults("delta", self.delta)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"


class UniqActivation(_OneStep):
    """Unsigned ``bits``-bit activation with one learnable step a layer."""

    def __init__(self, bits: int) -> None:
        super().__init__(bits, step=ACTIVATION_STEP[bits])
        self._calibrated = False

    @property
    def grid(self) -> Grid:
        """Codes 0 … 2^b − 1."""
        return Grid.unsigned(self.bits)

    def exact_scales(self) -> Rationals:
        """Δ."""
        return exact(self.delta)

    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""
        ratio = x.detach() / self.delta.detach()
        return torch.round(torch.clamp(ratio, 0, self.grid.hi)).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """Δ·q with UniQ's gradients."""
        levels = self.grid.hi
        step = scale_gradient(self.delta, 1 / math.sqrt(x.numel() * self.batch_shards * levels))
        return round_straight_through(torch.clamp(x / step, 0, levels)) * step

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set Δ to the greatest sqrt(2·E[x²])·p_b of all batches since construction."""
        step = rectified_step(x, self.bits)
        if self._calibrated:
            step = torch.maximum(step, self.delta)
        self.delta.copy_(torch.where(step > 0, step, self.delta))
        self._calibrated = True


class UniqInput(_OneStep):
    """The mid-rise, signed quantizer of the image in front of the first layer; no code 0."""

    def __init__(self, bits: int = 8) -> None:
        super().__init__(bits, step=WEIGHT_STEP[bits])

    @property
    def grid(self) -> Grid:
        """``odd(b)``."""
        return Grid.odd(self.bits)

    def exact_scales(self) -> Rationals:
        """Δ/2."""
        return tuple(step / 2 for step in exact(self.delta))

    def codes(self, x: Tensor) -> Tensor:
        """2q − L (same shape, int64), rounded in the dtype of ``x``."""
        index = _mid_rise(x.detach(), self.delta.detach(), self.bits)
        return 2 * index.to(torch.int64) + self.grid.lo

    def forward(self, x: Tensor) -> Tensor:
        """(Δ/2)·(2q − L) with the gradients of UniQ's weights."""
        factor = _weight_gradient_factor(x.numel() * self.batch_shards, self.bits)
        step = scale_gradient(self.delta, factor)
        return (2 * _mid_rise(x, step, self.bits) + self.grid.lo) * (step * 0.5)

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set Δ = std(x)·c_b of this batch, unbiased: the last batch decides."""
        step = x.float().std() * WEIGHT_STEP[self.bits]
        self.delta.copy_(torch.where(step > 0, step, self.delta))
