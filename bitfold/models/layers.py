"""The layers that meet pixels, and those whose weights pass through a weight quantizer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfold.models.protocol import WeightQuantizer
from bitfold.models.spec import Preprocessing, PublishedPreprocessing

WHITE = 255


class PixelNorm(nn.Module):
    """Raw pixels 0…255 → (pixel − mean)/std; as published, (pixel/255 − mean)/std a channel."""

    def __init__(self, preprocessing: Preprocessing | PublishedPreprocessing) -> None:
        super().__init__()
        self.preprocessing = preprocessing

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) float pixels → normalized, same shape."""
        match self.preprocessing:
            case Preprocessing(mean=mean, std=std):
                return (pixels - mean) / std
            case PublishedPreprocessing(means=means, stds=stds):
                shape = (1, -1, 1, 1)
                centred = pixels / WHITE - pixels.new_tensor(means).view(shape)
                return centred / pixels.new_tensor(stds).view(shape)


class QuantConv2d(nn.Conv2d):
    """``Conv2d`` on fake-quantized weights, padded to keep the size; its input is quantized."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        weight_quantizer: WeightQuantizer,
        stride: int = 1,
        groups: int = 1,
        bias: bool = False,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=kernel_size // 2,
            groups=groups,
            bias=bias,
        )
        if weight_quantizer.kernels > 1:
            kernels = (weight_quantizer.kernels, *self.weight.shape)
            self.weight = nn.Parameter(torch.empty(kernels).normal_(0, 0.1))
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, H, W) → (N, O, OH, OW)."""
        sums: Tensor = self._conv_forward(x, self.weight_quantizer(self.weight), self.bias)
        return sums


class PixelConv2d(QuantConv2d):
    """A first convolution straight from raw pixels, exact at the borders for any mean and std.

    Σ w_c·(p_c/255 − m_c)/σ_c over the taps inside the image is a convolution of the pixels and of
    one channel that is 255 everywhere, zero-padded, with the weights

        u_c = w_c/(255·σ_c)     and     u_one = −Σ_c w_c·m_c/(255·σ_c);

    these are what the weight quantizer sees (arithmetic.md, eq. 24). What rounding them changes on
    an image of mean colour is taken off again as a bias.
    """

    def __init__(
        self,
        preprocessing: PublishedPreprocessing,
        out_channels: int,
        kernel_size: int,
        *,
        weight_quantizer: WeightQuantizer,
        stride: int = 1,
    ) -> None:
        super().__init__(
            len(preprocessing.means), out_channels, kernel_size,
            weight_quantizer=weight_quantizer, stride=stride,
        )  # fmt: skip
        self.preprocessing = preprocessing

    def pixel_weight(self) -> Tensor:
        """Weights (O, C + 1, KH, KW) on pixels and on the channel of 255, always float32."""
        shape, weight = (1, -1, 1, 1), self.weight.float()
        stds = weight.new_tensor(self.preprocessing.stds).view(shape)
        means = weight.new_tensor(self.preprocessing.means).view(shape)
        scaled = weight / (WHITE * stds)
        return torch.cat([scaled, -(scaled * means).sum(1, keepdim=True)], 1)

    def mean_error(self) -> Tensor:
        """Error (O,) of the quantized weights on an image of the mean colour; no gradient."""
        weight = self.pixel_weight().detach()
        error = (self.weight_quantizer(weight).detach() - weight).sum((2, 3))
        mean_pixel = weight.new_tensor((*self.preprocessing.means, 1.0)) * WHITE
        moved: Tensor = error @ mean_pixel
        return moved

    def forward(self, x: Tensor) -> Tensor:
        """Raw pixels (N, C, H, W), values 0…255 → (N, O, OH, OW)."""
        with_one = torch.cat([x, torch.full_like(x[:, :1], WHITE)], 1)
        weight = self.weight_quantizer(self.pixel_weight().to(x.dtype))
        sums: Tensor = self._conv_forward(with_one, weight, -self.mean_error().to(x.dtype))
        return sums


class QuantLinear(nn.Linear):
    """``Linear`` on fake-quantized weights."""

    def __init__(
        self, in_features: int, out_features: int, *, weight_quantizer: WeightQuantizer
    ) -> None:
        super().__init__(in_features, out_features)
        if weight_quantizer.kernels > 1:
            kernels = (weight_quantizer.kernels, *self.weight.shape)
            self.weight = nn.Parameter(torch.empty(kernels).normal_(0, 0.1))
        self.weight_quantizer = weight_quantizer

    def forward(self, x: Tensor) -> Tensor:
        """(N, C) → (N, O)."""
        return functional.linear(x, self.weight_quantizer(self.weight), self.bias)
