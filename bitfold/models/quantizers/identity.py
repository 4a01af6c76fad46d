"""No quantization: the float baseline and teacher, in the same networks."""

from typing import NoReturn

import torch
from torch import Tensor

from bitfold.errors import UnsupportedError
from bitfold.ir import Grid
from bitfold.models.protocol import ActivationQuantizer, Rationals, WeightQuantizer


def _refuse() -> NoReturn:
    raise UnsupportedError(
        "full precision: there are no codes",
        where="float network",
        todo="Export a network of a quantized method; the float one is its baseline and teacher.",
    )


class FullPrecisionWeight(WeightQuantizer):
    """Weights as they are; has no grid."""

    @property
    def grid(self) -> Grid:
        """Raises UnsupportedError."""
        _refuse()

    def exact_scales(self, weight: Tensor) -> Rationals:
        """Raises UnsupportedError."""
        _refuse()

    def codes(self, weight: Tensor) -> Tensor:
        """Raises UnsupportedError."""
        _refuse()

    def forward(self, weight: Tensor) -> Tensor:
        """``weight``."""
        return weight


class FullPrecisionActivation(ActivationQuantizer):
    """A ReLU, or nothing where ``relu`` is false; has no grid."""

    def __init__(self, *, relu: bool) -> None:
        super().__init__()
        self.relu = relu

    @property
    def grid(self) -> Grid:
        """Raises UnsupportedError."""
        _refuse()

    def exact_scales(self) -> Rationals:
        """Raises UnsupportedError."""
        _refuse()

    def codes(self, x: Tensor) -> Tensor:
        """Raises UnsupportedError."""
        _refuse()

    def forward(self, x: Tensor) -> Tensor:
        """relu(x) or ``x``, float."""
        return torch.relu(x) if self.relu else x

    def extra_repr(self) -> str:
        """Shown by ``print(module)``."""
        return f"relu={self.relu}"
