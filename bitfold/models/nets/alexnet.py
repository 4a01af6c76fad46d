"""AlexNet with batch norm (Krizhevsky et al. 2012, one tower; PACT's AlexNet-BN).

    large stem   conv11x11 stride 4 → bn → act → max-pool 3 stride 2
    small stem   conv5x5 → bn → act → max-pool 3 stride 2
    body         conv5x5, max-pool, conv3x3, conv3x3, conv3x3, max-pool    bn, act behind each conv
    tail         flatten → fc6 → bn → act → fc7 → bn → relu → act → fc8

The large stem pads to keep the size before the stride; the maps are those of the original: 27, 13
and 6 pixels for an image of 224.
"""

import torch
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.nets.base import QuantNet, initialize_convolutions, scaled_channels
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.stages import has_large_stem
from bitfold.models.spec import NetSpec

WIDTHS = (96, 256, 384, 384, 256, 4096, 4096)
KERNELS = {2: 5, 3: 3, 4: 3, 5: 3}
POOLED = (1, 2, 5)  # a max-pool follows these convolutions


class AlexNet(QuantNet):
    """Five convolutions and three fully connected layers. Channel counts: all but the classes.

    Raises UsageError for an image that three max-pools leave nothing of.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        scheme = Scheme.of(spec)
        widths = scaled_channels(spec, WIDTHS)
        rows, columns = (_side_left(side, spec) for side in spec.input_shape[:2])
        self.norm = scheme.norm()
        self.input_act = scheme.input_act()
        large = has_large_stem(spec)
        self.conv1 = scheme.first(widths[0], 11 if large else 5, stride=4 if large else 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        for i, kernel in KERNELS.items():
            before, after = widths[i - 2 : i]
            self.add_module(f"act{i}", scheme.act(channels=before))
            self.add_module(f"conv{i}", scheme.conv(before, after, kernel))
            self.add_module(f"bn{i}", nn.BatchNorm2d(after))
        self.max_pool = nn.MaxPool2d(3, stride=2)
        self.act6 = scheme.act()
        self.fc6 = scheme.linear(rows * columns * widths[4], widths[5])
        self.bn6 = nn.BatchNorm1d(widths[5])
        self.act7 = scheme.act()
        self.fc7 = scheme.linear(widths[5], widths[6])
        self.bn7 = nn.BatchNorm1d(widths[6])
        self.relu = nn.ReLU()
        self.act = scheme.last_act(signed=False)
        self.fc8 = scheme.last(widths[6], len(spec.class_names))
        initialize_convolutions(self)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        x = self.bn1(self.conv1(self.input_act(self.norm(pixels))))
        for i in KERNELS:
            x = self.get_submodule(f"act{i}")(x)
            if i - 1 in POOLED:
                x = self.max_pool(x)
            x = self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x))
        x = torch.flatten(self.max_pool(self.act6(x)), 1)
        x = self.bn7(self.fc7(self.act7(self.bn6(self.fc6(x)))))
        logits: Tensor = self.fc8(self.act(self.relu(x)))
        return logits


def _side_left(side: int, spec: NetSpec) -> int:
    left = -(-side // 4) if has_large_stem(spec) else side
    for _ in POOLED:
        left = (left - 3) // 2 + 1
    if left < 1:
        raise UsageError(
            f"an image side of {side} pixels is too small for three max-pools",
            where="network specification, input_shape",
            todo="Take larger images, or --stem small where the first layer strides.",
        )
    return left
