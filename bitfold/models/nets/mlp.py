"""A multilayer perceptron of three hidden layers with batch norm (FINN's SFC, arXiv 1612.07119).

flatten → fc1 → bn → act → fc2 → bn → act → fc3 → bn → relu → act → fc4
"""

import torch
from torch import Tensor, nn

from bitfold.models.nets.base import QuantNet, scaled_channels
from bitfold.models.nets.scheme import Scheme
from bitfold.models.spec import NetSpec

WIDTHS = (256, 256, 256)


class Mlp(QuantNet):
    """Four fully connected layers on the pixels. Channel counts: one a hidden layer."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        scheme = Scheme.of(spec)
        widths = scaled_channels(spec, WIDTHS)
        height, width, channels = spec.input_shape
        self.norm = scheme.norm()
        self.input_act = scheme.input_act()
        self.fc1 = scheme.first_linear(height * width * channels, widths[0])
        self.bn1 = nn.BatchNorm1d(widths[0])
        self.act2 = scheme.act()
        self.fc2 = scheme.linear(widths[0], widths[1])
        self.bn2 = nn.BatchNorm1d(widths[1])
        self.act3 = scheme.act()
        self.fc3 = scheme.linear(widths[1], widths[2])
        self.bn3 = nn.BatchNorm1d(widths[2])
        self.relu = nn.ReLU()
        self.act = scheme.last_act(signed=False)
        self.fc4 = scheme.last(widths[2], len(spec.class_names))

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        x = torch.flatten(self.input_act(self.norm(pixels)), 1)
        x = self.bn2(self.fc2(self.act2(self.bn1(self.fc1(x)))))
        x = self.bn3(self.fc3(self.act3(x)))
        logits: Tensor = self.fc4(self.act(self.relu(x)))
        return logits
