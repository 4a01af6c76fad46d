"""BASQ: branch-wise activation-clipping search quantization (Kim et al., ECCV 2022).

The formulas are those of the published code (HanByulKim/BASQ).

(a) Branch activations, one clip u a branch, L = 2^b − 1, ``bin`` = float32(1 − 1/L) as stored:

    D = u·(1 − bin)          (D = u where 1 − bin ≥ 1, D = u/255 where it is ≤ 1/255)
    x̂ = D·rne(clamp(x, 0, u)/D)                                          (arithmetic.md, eq. 19)

Both operations of D are float32: 1 − bin is an ulp below 1/L, D·L a little below u. The gradient
is PACT's, 1[0 < x < u] to x and 1[x > u] to u, without a rounding residual.

(b) LSQ steps for activations and weights, on the codes lo … hi:

    x̂ = s·rne(clamp(x/s, lo, hi))                                        (arithmetic.md, eq. 20)

rne counts as the identity; s gets rne(x/s) − x/s inside and lo or hi outside, summed and
multiplied by 1/sqrt(N·hi) with N the elements of the whole tensor.
"""

import math

import torch
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.ir import Grid
from bitfold.models.protocol import ActivationQuantizer, Rationals, WeightQuantizer
from bitfold.models.quantizers.ste import (
    along,
    round_straight_through,
    scale_gradient,
    straight_through,
)
from bitfold.models.quantizers.steps import exact, keep_positive, positive_faults

# L2 decay λ_j of the clip of branch j: all that tells the seven branches of a block apart.
BRANCH_DECAYS = (1e-2, 5e-3, 1e-3, 5e-4, 1e-4, 5e-5, 1e-5)
INITIAL_CLIP = 6.0
FINEST = 1 / 255


class BranchActivation(ActivationQuantizer):
    """Unsigned ``bits``-bit activation of one branch: a learnable clip ``upper_bound``, ().

    ``bin`` is a stored constant, (); a checkpoint's own value is used as it is.
    """

    BRANCH_DECAYS = BRANCH_DECAYS
    bin: Tensor

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.upper_bound = nn.Parameter(torch.tensor(INITIAL_CLIP))
        self.register_buffer("bin", torch.tensor(1 - 1 / (2**bits - 1)))

    @property
    def grid(self) -> Grid:
        """Codes 0 … 2^b − 1."""
        return Grid.unsigned(self.bits)

    def step(self) -> Tensor:
        """D, () float32, whatever the dtype that the module was moved to."""
        clip = self.upper_bound.detach().float()
        share = 1 - self.bin.float()
        inner = torch.where(share <= FINEST, clip / 255, clip * share)
        return torch.where(share >= 1, clip, inner)

    def exact_scales(self) -> Rationals:
        """The float32 D's exact value."""
        return exact(self.step())

    @torch.no_grad()
    def _rounded(self, x: Tensor) -> Tensor:
        clipped = torch.minimum(torch.relu(x), self.upper_bound)
        return torch.round(clipped / self.step())

    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""
        return self._rounded(x).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """D·code with the plain PACT gradient."""
        clip = self.upper_bound
        surrogate = torch.where(x < clip, torch.relu(x), 0) + torch.where(x > clip, clip, 0)
        return straight_through(self._rounded(x) * self.step(), surrogate)

    def faults(self) -> list[str]:
        """A clip that is not positive and finite, or a ``bin`` of another bit width."""
        faults = positive_faults("upper_bound", self.upper_bound)
        share = 1 - float(self.bin)
        if not share > 0 or round(1 / share) != self.grid.hi:
            faults.append(f"bin is {float(self.bin):g}, must be 1 − 1/{self.grid.hi}")
        return faults

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}"


def _check_bits(bits: int, hi: int) -> None:
    if hi < 1:
        raise UsageError(
            f"{bits} bits leave no code but 0 on a symmetric grid",
            where="LSQ quantizer",
            todo="Use 2 bits or more.",
        )


class LsqActivation(ActivationQuantizer):
    """LSQ activation with learnable steps ``s``: () or, with ``channels``, one an input channel.

    The published networks have one an input channel, (C,), on axis 1. ``batch_shards`` is the
    number of processes that share a batch: the gradient's N counts all of it.
    """

    batch_shards: int = 1

    def __init__(self, bits: int, *, channels: int | None = None, signed: bool = False) -> None:
        super().__init__()
        self.bits = bits
        self.signed = signed
        _check_bits(bits, self.grid.hi)
        self.s = nn.Parameter(torch.ones(() if channels is None else (channels,)))

    @property
    def grid(self) -> Grid:
        """``unsigned(b)``, or ``narrow(b)`` where signed."""
        return Grid.narrow(self.bits) if self.signed else Grid.unsigned(self.bits)

    def exact_scales(self) -> Rationals:
        """s, one number or one an input channel."""
        return exact(self.s)

    def codes(self, x: Tensor) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""
        ratio = x.detach() / along(self.s.detach(), x, axis=1)
        return torch.round(torch.clamp(ratio, self.grid.lo, self.grid.hi)).to(torch.int64)

    def forward(self, x: Tensor) -> Tensor:
        """s·code with LSQ's gradients."""
        grid = self.grid
        factor = 1 / math.sqrt(x.numel() * self.batch_shards * grid.hi)
        step = along(scale_gradient(self.s, factor), x, axis=1)
        return round_straight_through(torch.clamp(x / step, grid.lo, grid.hi)) * step

    @torch.no_grad()
    def calibrate(self, x: Tensor) -> None:
        """Set s = 2·E|x|/sqrt(hi) of this batch, |x| of the signed input as published."""
        size = x.float().abs()
        mean = size.mean() if self.s.dim() == 0 else size.transpose(0, 1).flatten(1).mean(1)
        step = 2 * mean / math.sqrt(self.grid.hi)
        self.s.copy_(torch.where(step > 0, step, self.s))

    def constrain(self) -> None:
        """Keep the steps positive; the published code does not."""
        keep_positive(self.s)

    def faults(self) -> list[str]:
        """A step that is not positive and finite."""
        return positive_faults("s", self.s)

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}, signed={self.signed}, steps={self.s.numel()}"


class LsqWeight(WeightQuantizer):
    """Symmetric ``bits``-bit weights with one learnable step ``s`` a kernel, (O,).

    Until ``calibrate`` has seen the weights, the steps are 1. Codes are rounded in float32,
    whatever the dtype of the weight.
    """

    def __init__(self, bits: int, *, out_channels: int) -> None:
        super().__init__()
        self.bits = bits
        _check_bits(bits, self.grid.hi)
        self.s = nn.Parameter(torch.ones(out_channels))

    @property
    def grid(self) -> Grid:
        """``narrow(b)``."""
        return Grid.narrow(self.bits)

    def exact_scales(self, weight: Tensor) -> Rationals:
        """|s|, one number a kernel: on a symmetric grid its sign changes codes, never values."""
        return exact(self.s.abs())

    def _rounded(self, weight: Tensor, step: Tensor) -> Tensor:
        ratio = weight.float() / step.float()
        return round_straight_through(torch.clamp(ratio, self.grid.lo, self.grid.hi))

    @torch.no_grad()
    def codes(self, weight: Tensor) -> Tensor:
        """Codes of ``weight`` (same shape, int64)."""
        return self._rounded(weight, along(self.s.abs(), weight, axis=0)).to(torch.int64)

    def forward(self, weight: Tensor) -> Tensor:
        """s·code with LSQ's gradients; the latent weight where not ``enabled``."""
        if not self.enabled:
            return weight
        factor = 1 / math.sqrt(weight.numel() * self.grid.hi)
        step = along(scale_gradient(self.s, factor), weight, axis=0)
        return self._rounded(weight, step).to(weight.dtype) * step

    @torch.no_grad()
    def calibrate(self, weight: Tensor) -> None:
        """Set s_o = 2·mean|w_o|/sqrt(hi), kept for an all-zero kernel."""
        step = 2 * weight.float().abs().flatten(1).mean(1) / math.sqrt(self.grid.hi)
        self.s.copy_(torch.where(step > 0, step, self.s))

    def faults(self, weight: Tensor) -> list[str]:
        """A step that is 0 or not finite."""
        return positive_faults("weight_quantizer.s", self.s.abs())

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"bits={self.bits}, steps={self.s.numel()}"
