"""What every quantizer offers; all that layers, checkpoints and export know of one."""

from abc import ABC, abstractmethod
from fractions import Fraction
from typing import Literal

from torch import Tensor, nn

from bitfold.ir import Grid

Rationals = tuple[Fraction, ...]
Ties = Literal["even", "up"]


class ActivationQuantizer(nn.Module, ABC):
    """A module that maps activations to ``scale · code``, the codes on ``grid``.

    In eval mode ``codes(x) · scale == forward(x)`` up to the float32 rounding of the product and
    of the straight-through sum (docs/adding_a_quantizer.md). Index j = (code − lo)/step rises to
    j + 1 where x/scale passes lo + step·(j + 1/2); ``ties`` says who wins on the crossing itself:
    "even", the even index of an odd grid and the even code of any other, or "up", the greater.
    """

    ties: Ties = "even"

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The legal codes."""

    @abstractmethod
    def exact_scales(self) -> Rationals:
        """Real value of code 1, exactly: one number, or one an input channel."""

    @abstractmethod
    def codes(self, x: Tensor, /) -> Tensor:
        """Codes of ``x`` (same shape, int64), rounded in the dtype of ``x``."""

    @abstractmethod
    def forward(self, x: Tensor, /) -> Tensor:
        """Fake-quantized ``x`` with the gradient of the method."""

    def calibrate(self, x: Tensor, /) -> None:
        """Set or widen the stored step from a batch ``x``; called batch by batch, no gradient."""

    def constrain(self) -> None:
        """Bring what was learned back into its legal range, in place, after a training step."""

    def faults(self) -> list[str]:
        """What makes the stored numbers unusable, each "attribute and value, what it must be"."""
        return []


class WeightQuantizer(nn.Module, ABC):
    """A module that maps a layer's latent weights to ``scale · code``, the codes on ``grid``.

    A latent weight is (O, I, KH, KW) or (O, I); with ``kernels`` = K > 1 it is (K, O, …), and the K
    kernels make one weight (STTN). Codes and values have the shape without K.
    """

    kernels: int = 1
    enabled: bool = True  # where False, forward gives the latent weight (BASQ's first stage)

    @property
    @abstractmethod
    def grid(self) -> Grid:
        """The legal codes."""

    @abstractmethod
    def exact_scales(self, weight: Tensor, /) -> Rationals:
        """Real value of code 1, exactly: one number, or one an output channel (O)."""

    @abstractmethod
    def codes(self, weight: Tensor, /) -> Tensor:
        """Codes (O, …) of a latent ``weight``, int64, rounded in its dtype."""

    @abstractmethod
    def forward(self, weight: Tensor, /) -> Tensor:
        """Fake-quantized weight (O, …) with the gradient of the method."""

    def calibrate(self, weight: Tensor, /) -> None:
        """Set the stored step from a latent ``weight``; no gradient."""

    def constrain(self, weight: Tensor, /) -> None:
        """Bring a latent ``weight`` back into its legal range, in place, around training steps."""

    def faults(self, weight: Tensor, /) -> list[str]:
        """What makes stored numbers or ``weight`` unusable, as ``ActivationQuantizer.faults``."""
        return []
