"""VGG-Small, the plain network of the low-bit literature (as in LQ-Nets, arXiv 1807.10029).

    3 stages of   act → conv3x3 → bn,  twice;  act;  max-pool 2x2       128, 256, 512 channels
    tail          z = mean(relu(bn(conv)));  logits = fc(act(z))

The first convolution reads the image. The literature flattens the last 4x4 maps of a 32x32 image;
the mean over them makes the classifier independent of the image's size.
"""

import torch
from torch import Tensor, nn

from bitfold.models.nets.base import QuantNet, initialize_convolutions, scaled_channels
from bitfold.models.nets.scheme import Scheme
from bitfold.models.spec import NetSpec

WIDTHS = (128, 128, 256, 256, 512, 512)


class VggSmall(QuantNet):
    """Six 3x3 convolutions. Channel counts: one a convolution."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        scheme = Scheme.of(spec)
        widths = scaled_channels(spec, WIDTHS)
        self.norm = scheme.norm()
        self.input_act = scheme.input_act()
        self.conv1 = scheme.first(widths[0], 3)
        self.bn1 = nn.BatchNorm2d(widths[0])
        for i in range(2, len(widths) + 1):
            before, after = widths[i - 2 : i]
            self.add_module(f"act{i}", scheme.act(channels=before))
            if i % 2:
                self.add_module(f"pool{i}", nn.MaxPool2d(2))
            self.add_module(f"conv{i}", scheme.conv(before, after, 3))
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.act = scheme.last_act(signed=False)
        self.fc = scheme.last(widths[-1], len(spec.class_names))
        initialize_convolutions(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        x = self.bn1(self.conv1(self.input_act(self.norm(pixels))))
        for i in range(2, len(WIDTHS) + 1):
            x = self.get_submodule(f"act{i}")(x)
            if i % 2:
                x = self.get_submodule(f"pool{i}")(x)
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
        z = self.pool(self.relu(x))
        logits: Tensor = self.fc(self.act(torch.flatten(z, 1)))
        return logits
