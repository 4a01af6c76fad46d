"""MobileNets in their ReLU6 form: V1 (arXiv 1704.04861) and V2 (Sandler et al., CVPR 2018).

    unit     conv → batch norm → ReLU6, the activation quantizer in front
    V1       stem 3x3, then 13 times: depthwise 3x3 unit, 1x1 unit;                mean, classifier
    V2       stem 3x3, then 17 times: 1x1 unit, depthwise 3x3 unit, 1x1 without ReLU6, and the
             block's input added where sizes agree; 1x1 unit;                      mean, classifier

With UniQ, V2 is the published network: it has the 1x1 unit in the first block too, where nothing
expands, and its unsigned quantizers drop the negative part of a block's output in front of the
next 1x1 while the sum keeps it. Images below 64 pixels a side keep their size in the stem.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from bitfold.models.layers import QuantConv2d
from bitfold.models.nets.base import QuantNet, divisible_channels, initialize_convolutions
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.stages import has_large_stem
from bitfold.models.spec import NetSpec

STEM_WIDTH = 32
LAST_WIDTH = 1280
EXPANSION = 6
# (channels, units) a stage; the first unit of every stage but the first has stride 2.
V1_STAGES = ((64, 1), (128, 2), (256, 2), (512, 6), (1024, 2))
# V2: channels of each unit. Where a width changes inside a stage, the size stays.
V2_STAGES = ((16,), (24, 24), (32, 32, 32), (64, 64, 64, 64, 96, 96, 96), (160, 160, 160, 320))


class ConvUnit(nn.Module):
    """Convolution, batch norm and, where ``is_linear`` is off, ReLU6; a quantizer in front."""

    def __init__(self, act: nn.Module, conv: QuantConv2d, *, is_linear: bool = False) -> None:
        super().__init__()
        self.act = act
        self.conv = conv
        self.bn = nn.BatchNorm2d(conv.out_channels)
        self.relu = nn.Identity() if is_linear else nn.ReLU6()

    def forward(self, x: Tensor) -> Tensor:
        """(N, I, H, W) → (N, O, OH, OW)."""
        y: Tensor = self.relu(self.bn(self.conv(self.act(x))))
        return y


class InvertedUnit(nn.Module):
    """V2's block: 1x1 to more channels, depthwise 3x3, 1x1 back; the input added where it fits."""

    def __init__(
        self, channels: tuple[int, int], *, expansion: int, stride: int, scheme: Scheme
    ) -> None:
        super().__init__()
        in_channels, out_channels = channels
        hidden = in_channels * expansion
        # The block's input may be negative, whatever ran before it ended without a ReLU6.
        act = scheme.act(channels=in_channels, rectify=False)
        self.conv1 = ConvUnit(act, scheme.conv(in_channels, hidden, 1))
        self.conv2 = _depthwise(hidden, stride=stride, scheme=scheme)
        project = scheme.conv(hidden, out_channels, 1)
        act = scheme.act(channels=hidden, rectify=False)
        self.conv3 = ConvUnit(act, project, is_linear=True)
        self.adds_input = stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, OH, OW)."""
        y: Tensor = self.conv3(self.conv2(self.conv1(x)))
        return y + x if self.adds_input else y


class MobileNet(QuantNet):
    """Stem, ``blocks``, global mean, classifier; ``widths`` are those of stem and last block."""

    def __init__(self, spec: NetSpec, stages: nn.ModuleDict, *, widths: tuple[int, int]) -> None:
        super().__init__(spec)
        scheme = Scheme.of(spec)
        self.norm = scheme.norm()
        stride = 2 if has_large_stem(spec) else 1
        stem = scheme.first(widths[0], 3, stride=stride)
        self.init_block = ConvUnit(scheme.input_act(), stem)
        self.stages = stages
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.act = scheme.last_act(signed=False)
        self.fc = scheme.last(widths[1], len(spec.class_names))
        initialize_convolutions(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        x = self.init_block(self.norm(pixels))
        for stage in self.stages.values():
            x = stage(x)
        logits: Tensor = self.fc(self.act(torch.flatten(self.pool(x), 1)))
        return logits


class MobileNetV1(MobileNet):
    """13 depthwise-separable blocks. Channel counts: stem, then each block."""

    def __init__(self, spec: NetSpec) -> None:
        scheme = Scheme.of(spec)
        published = [STEM_WIDTH, *(c for c, count in V1_STAGES for _ in range(count))]
        widths = divisible_channels(spec, published)
        pairs = iter(pairwise(widths))
        stages = nn.ModuleDict()
        for i, (_, count) in enumerate(V1_STAGES):
            stage = nn.Sequential()
            for j in range(count):
                before, after = next(pairs)
                stride = 2 if i > 0 and j == 0 else 1
                stage.append(_depthwise(before, stride=stride, scheme=scheme))
                act = scheme.act(channels=before, rectify=False)
                stage.append(ConvUnit(act, scheme.conv(before, after, 1)))
            stages[f"stage{i + 1}"] = stage
        super().__init__(spec, stages, widths=(widths[0], widths[-1]))


class MobileNetV2(MobileNet):
    """17 inverted-residual blocks. Channel counts: stem, each block, last 1x1 unit.

    The last unit keeps its 1280 channels where ``spec.width`` is below 1.
    """

    def __init__(self, spec: NetSpec) -> None:
        scheme = Scheme.of(spec)
        last = round(LAST_WIDTH * max(1.0, 1 / spec.width))
        published = [STEM_WIDTH, *(c for stage in V2_STAGES for c in stage), last]
        widths = divisible_channels(spec, published)
        pairs = iter(pairwise(widths))
        stages = nn.ModuleDict()
        for i, counts in enumerate(V2_STAGES):
            stage = nn.Sequential()
            for j in range(len(counts)):
                stage.append(
                    InvertedUnit(
                        next(pairs),
                        expansion=EXPANSION if i or j else 1,
                        stride=2 if i > 0 and j == 0 else 1,
                        scheme=scheme,
                    )
                )
            stages[f"stage{i + 1}"] = stage
        before, after = next(pairs)
        act = scheme.act(channels=before, rectify=False)
        stages["final_block"] = ConvUnit(act, scheme.conv(before, after, 1))
        super().__init__(spec, stages, widths=(widths[0], widths[-1]))


def _depthwise(channels: int, *, stride: int, scheme: Scheme) -> ConvUnit:
    conv = scheme.conv(channels, channels, 3, stride=stride, groups=channels)
    return ConvUnit(scheme.act(channels=channels, rectify=False), conv)
