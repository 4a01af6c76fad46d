"""Pre-activation ResNets for small images: ResNet-8, ResNet-20 (He et al. 2016, arXiv 1603.05027).

    stem   r = conv3x3(pixel codes)                                8-bit weights
    block  p = PACT(bn1(r))
           r = conv2(PACT(bn2(conv1(p)))) + (shortcut(p) or r)     shortcut: 1x1, 8-bit weights
    tail   z = mean(relu(bn(r)));  logits = fc(PACT8(z))           8-bit weights

The shortcut keeps 8-bit weights: the high-precision shortcut that PACT+SAWB recommends.
"""

import torch
from torch import Tensor, nn

from bitfold.models.layers import PixelNorm, QuantConv2d, QuantLinear
from bitfold.models.quantizers.minmax import MinMaxWeight
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.quantizers.sawb import SawbWeight
from bitfold.models.spec import GridKind, NetSpec

EDGE_BITS = 8
STAGES = {"resnet8": (1, 1, 1), "resnet20": (3, 3, 3)}
STAGE_WIDTHS = (16, 32, 64)


class PreActBlock(nn.Module):
    """Two quantized 3x3 convolutions around a full-precision residual stream."""

    def __init__(
        self, in_channels: int, channels: int, *, stride: int, bits: tuple[int, int], grid: GridKind
    ) -> None:
        super().__init__()
        w_bits, a_bits = bits
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = PactActivation(a_bits)
        self.conv1 = QuantConv2d(
            in_channels,
            channels,
            3,
            stride=stride,
            weight_quantizer=SawbWeight(w_bits, grid_kind=grid),
        )
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = PactActivation(a_bits)
        self.conv2 = QuantConv2d(
            channels, channels, 3, weight_quantizer=SawbWeight(w_bits, grid_kind=grid)
        )
        self.shortcut: QuantConv2d | None = None
        if stride != 1 or in_channels != channels:
            self.shortcut = QuantConv2d(
                in_channels, channels, 1, stride=stride, weight_quantizer=MinMaxWeight(EDGE_BITS)
            )

    def forward(self, r: Tensor) -> Tensor:
        """Residual stream in, residual stream out."""
        p = self.act1(self.bn1(r))
        skip = r if self.shortcut is None else self.shortcut(p)
        branch: Tensor = self.conv2(self.act2(self.bn2(self.conv1(p))))
        return branch + skip


class PreActResNet(nn.Module):
    """Pre-activation ResNet on raw pixels (N, C, H, W), values 0…255, any float dtype."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec
        widths = tuple(max(1, round(width * spec.width)) for width in STAGE_WIDTHS)
        self.norm = PixelNorm(spec.preprocessing)
        self.conv1 = QuantConv2d(
            spec.input_shape[2], widths[0], 3, weight_quantizer=MinMaxWeight(EDGE_BITS)
        )
        channels = widths[0]
        for i, num_blocks in enumerate(STAGES[spec.net]):
            blocks = []
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                blocks.append(
                    PreActBlock(
                        channels, widths[i], stride=stride, bits=spec.bits, grid=spec.weight_grid
                    )
                )
                channels = widths[i]
            self.add_module(f"layer{i + 1}", nn.Sequential(*blocks))
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.act = PactActivation(EDGE_BITS)
        self.fc = QuantLinear(
            channels, len(spec.class_names), weight_quantizer=MinMaxWeight(EDGE_BITS)
        )
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        r = self.conv1(self.norm(pixels))
        for i in range(len(STAGE_WIDTHS)):
            r = self.get_submodule(f"layer{i + 1}")(r)
        z = self.pool(self.relu(self.bn(r)))
        logits: Tensor = self.fc(self.act(torch.flatten(z, 1)))
        return logits
