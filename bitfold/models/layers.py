"""Convolution and fully connected layers whose weights pass through a weight quantizer."""

from torch import Tensor, nn
from torch.nn import functional

from bitfold.models.quantizers.minmax import MinMaxWeight
from bitfold.models.quantizers.sawb import SawbWeight

WeightQuantizer = MinMaxWeight | SawbWeight


class QuantConv2d(nn.Conv2d):
    """Bias-free ``Conv2d`` on fake-quantized weights; its input is quantized already."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        weight_quantizer: WeightQuantizer,
        stride: int = 1,
        groups: int = 1,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=False,
        )
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, O, OH, OW)."""
        sums: Tensor = self._conv_forward(x, self.weight_quantizer(self.weight), None)
        return sums


class QuantLinear(nn.Linear):
    """``Linear`` on fake-quantized weights."""

    def __init__(
        self, in_features: int, out_features: int, *, weight_quantizer: WeightQuantizer
    ) -> None:
        super().__init__(in_features, out_features)
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) → (N, O)."""
        return functional.linear(x, self.weight_quantizer(self.weight), self.bias)
