"""The pre-activation bottleneck block of ResNet-50 (He et al. 2016, arXiv 1603.05027).

n = bn1(r);  p = act1(n)
r = conv1x1(act3(bn3(conv3x3(act2(bn2(conv1x1(p))))))) + skip         skip as in preact_resnet
"""

from torch import Tensor, nn

from bitfold.models.nets.scheme import Scheme

EXPANSION = 4


class PreActBottleneck(nn.Module):
    """1x1 to ``channels``, 3x3 with the stride, 1x1 to four times ``channels``."""

    def __init__(self, in_channels: int, channels: int, *, stride: int, scheme: Scheme) -> None:
        super().__init__()
        out_channels = EXPANSION * channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = scheme.act(channels=in_channels)
        self.conv1 = scheme.conv(in_channels, channels, 1)
        self.bn2 = nn.BatchNorm2d(channels)
        self.act2 = scheme.act(channels=channels)
        self.conv2 = scheme.conv(channels, channels, 3, stride=stride)
        self.bn3 = nn.BatchNorm2d(channels)
        self.act3 = scheme.act(channels=channels)
        self.conv3 = scheme.conv(channels, out_channels, 1)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut_act = scheme.shortcut_act() if changes else None
        self.shortcut = (
            scheme.shortcut(in_channels, out_channels, stride=stride) if changes else None
        )

    def forward(self, r: Tensor) -> Tensor:
        """Residual stream in, residual stream out."""
        n = self.bn1(r)
        p = self.act1(n)
        skip = r
        if self.shortcut is not None:
            skip = self.shortcut(p if self.shortcut_act is None else self.shortcut_act(n))
        inner = self.conv2(self.act2(self.bn2(self.conv1(p))))
        branch: Tensor = self.conv3(self.act3(self.bn3(inner)))
        return branch + skip
