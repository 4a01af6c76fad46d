"""What every quantizer offers; all that export knows of one."""

from collections.abc import Callable
from typing import Protocol, runtime_checkable

from torch import Tensor

from bitfold.ir import Grid


@runtime_checkable
class Quantizer(Protocol):
    """A module that maps reals to ``scale · code``, the codes on ``grid``.

    In eval mode ``codes(x) · scale == forward(x)`` up to the float32 rounding of the product and
    of the straight-through sum (docs/adding_a_quantizer.md). A quantizer whose scale follows from
    its input, one an output channel, takes that input: ``scale(weight)``.
    """

    @property
    def grid(self) -> Grid:
        """The legal codes."""

    @property
    def scale(self) -> Callable[..., float | Tensor]:
        """``scale()`` or ``scale(weight)``: a float, or float32 (O,), one an output channel."""

    def codes(self, x: Tensor, /) -> Tensor:
        """Codes of ``x``: same shape, int64."""

    def forward(self, x: Tensor, /) -> Tensor:
        """Fake-quantized ``x`` with the gradient of the method."""
