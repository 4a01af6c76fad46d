"""Pre-activation ResNets (He et al. 2016, arXiv 1603.05027), for small images and for ImageNet.

    small stem   r = conv3x3(pixels)
    large stem   r = maxpool3(relu(bn1(conv7x7 stride 2(pixels))))
    block        n = bn1(r);  p = act1(n)
                 r = conv2(act2(bn2(conv1(p)))) + skip
    skip         r, or where a size changes conv1x1(shortcut_act(n)), or conv1x1(p) without one
    tail         z = mean(relu(bn(r)));  logits = fc(act(z))

With UniQ this is the published network; with PACT its activations replace the ReLUs and the
shortcut keeps 8-bit weights, the high precision that PACT+SAWB recommends.
"""

import torch
from torch import Tensor, nn

from bitfold.models.nets.base import QuantNet, initialize_convolutions, scaled_channels
from bitfold.models.nets.bottleneck_resnet import EXPANSION, PreActBottleneck
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.stages import (
    BOTTLENECK_DEPTHS,
    DEPTHS,
    has_large_stem,
    plain_widths,
)
from bitfold.models.spec import NetSpec


def _depths(spec: NetSpec) -> tuple[int, ...]:
    return {**DEPTHS, **BOTTLENECK_DEPTHS}[spec.net]


def _widths(spec: NetSpec) -> tuple[int, ...]:
    """Channels of the stem and of each stage; UsageError where ``spec.channels`` has other counts.

    ``spec.channels`` may leave the stem out where it has those of the first stage.
    """
    published = plain_widths(len(_depths(spec)))
    if len(spec.channels) == len(published) + 1:
        return spec.channels
    widths = scaled_channels(spec, published)
    return (widths[0], *widths)


class PreActBlock(nn.Module):
    """Two quantized 3x3 convolutions around a full-precision residual stream."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, scheme: Scheme) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = scheme.act(channels=in_channels)
        self.conv1 = scheme.conv(in_channels, channels, 3, stride=stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = scheme.act(channels=channels)
        self.conv2 = scheme.conv(channels, channels, 3)
        changes = stride != 1 or in_channels != channels
        self.shortcut_act = scheme.shortcut_act() if changes else None
        self.shortcut = scheme.shortcut(in_channels, channels, stride=stride) if changes else None

    def forward(self, r: Tensor) -> Tensor:
        """Residual stream in, residual stream out."""
        n = self.bn1(r)
        p = self.act1(n)
        skip = r
        if self.shortcut is not None:
            skip = self.shortcut(p if self.shortcut_act is None else self.shortcut_act(n))
        branch: Tensor = self.conv2(self.act2(self.bn2(self.conv1(p))))
        return branch + skip


class PreActResNet(QuantNet):
    """Pre-activation ResNet on raw pixels (N, C, H, W), values 0…255, any float dtype.

    Channel counts: one a stage; the stem has those of the first, or its own in front of them. The
    stem of ImageNet networks comes from 64 pixels a side on, unless ``spec.stem`` says otherwise.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        scheme = Scheme.of(spec)
        is_bottleneck = spec.net in BOTTLENECK_DEPTHS
        channels, *widths = _widths(spec)
        self.norm = scheme.norm()
        self.input_act = scheme.input_act()
        self.has_large_stem = has_large_stem(spec)
        if self.has_large_stem:
            self.conv1 = scheme.first(channels, 7, stride=2)
            self.bn1 = nn.BatchNorm2d(channels)
            self.relu1 = nn.ReLU()
            self.max_pool = nn.MaxPool2d(3, stride=2, padding=1)
        else:
            self.conv1 = scheme.first(channels, 3)
        for i, num_blocks in enumerate(_depths(spec)):
            stage = nn.Sequential()
            for j in range(num_blocks):
                stride = 2 if i > 0 and j == 0 else 1
                block = PreActBottleneck if is_bottleneck else PreActBlock
                stage.append(block(channels, widths[i], stride=stride, scheme=scheme))
                channels = widths[i] * (EXPANSION if is_bottleneck else 1)
            self.add_module(f"layer{i + 1}", stage)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.act = scheme.last_act(signed=False)
        self.fc = scheme.last(channels, len(spec.class_names))
        initialize_convolutions(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        r = self.conv1(self.input_act(self.norm(pixels)))
        if self.has_large_stem:
            r = self.max_pool(self.relu1(self.bn1(r)))
        for i in range(len(_depths(self.spec))):
            r = self.get_submodule(f"layer{i + 1}")(r)
        z = self.pool(self.relu(self.bn(r)))
        logits: Tensor = self.fc(self.act(torch.flatten(z, 1)))
        return logits
