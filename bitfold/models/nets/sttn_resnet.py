"""ResNets of soft threshold ternary networks (Xu et al., IJCAI 2020, arXiv 2204.01234).

    half 1   v = prelu1( bn_add1(conv1(t(bn1(x)))) + sc(x) )
    half 2   y = prelu2( bn_add2(conv2(t(bn2(v)))) + v )
    sc(x)  = x, or max-pool 2x2 and as many zero channels where a stage halves the map

Every 3x3 convolution has a bias and a skip around it. With the method "stqn" the same network has
the n-bit quantizers (Xu et al., IEEE TCSVT 2022); that paper's construction could not be read, so
results of it are STQN-like.
"""

from itertools import pairwise

import torch
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.layers import QuantConv2d, QuantLinear
from bitfold.models.nets.base import QuantNet
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.stages import (
    DEPTHS,
    Size,
    halving_kernel,
    has_large_stem,
    stage_widths,
    strided,
)
from bitfold.models.quantizers.sttn import MergedTernaryWeight, SttnWeight
from bitfold.models.spec import NetSpec


class ZeroPadShortcut(nn.Module):
    """Appends ``out_channels − in_channels`` zero channels; UsageError where that is negative."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        if out_channels < in_channels:
            raise UsageError(
                f"a skip path from {in_channels} to {out_channels} channels",
                where="STTN network, channels",
                todo="Give no stage fewer channels than the one before it has.",
            )
        self.in_channels = in_channels
        self.out_channels = out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, H, W)."""
        zeros = x.new_zeros(1).expand(
            x.shape[0], self.out_channels - self.in_channels, *x.shape[2:]
        )
        return torch.cat([x, zeros], 1)


class TernaryBlock(nn.Module):
    """Two 3x3 convolutions of quantized numbers, each around its own skip."""

    def __init__(
        self, channels: tuple[int, int], scheme: Scheme, *, stride: int, size: Size
    ) -> None:
        super().__init__()
        in_channels, out_channels = channels
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.act1 = scheme.act()
        self.conv1 = scheme.conv(in_channels, out_channels, 3, stride=stride, bias=True)
        self.bn_add1 = nn.BatchNorm2d(out_channels)
        self.prelu1 = nn.PReLU(out_channels)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.act2 = scheme.act()
        self.conv2 = scheme.conv(out_channels, out_channels, 3, bias=True)
        self.bn_add2 = nn.BatchNorm2d(out_channels)
        self.prelu2 = nn.PReLU(out_channels)
        self.pool: nn.MaxPool2d | None = None
        if stride == 2:
            self.pool = nn.MaxPool2d(halving_kernel(size), stride=2)
        self.widen: ZeroPadShortcut | None = None
        if in_channels != out_channels:
            self.widen = ZeroPadShortcut(in_channels, out_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Residual stream in, residual stream out."""
        skip = x if self.pool is None else self.pool(x)
        skip = skip if self.widen is None else self.widen(skip)
        v = self.prelu1(self.bn_add1(self.conv1(self.act1(self.bn1(x)))) + skip)
        y: Tensor = self.prelu2(self.bn_add2(self.conv2(self.act2(self.bn2(v)))) + v)
        return y


class SttnResNet(QuantNet):
    """An STTN (or STQN-like) ResNet on raw pixels (N, C, H, W), values 0…255.

    ResNet-18 and -34 as published: stem 7x7 stride 2, batch norm, PReLU, max-pool. The small stem
    is 3x3 without a pool; the three-stage networks are the same block at CIFAR sizes. A map with
    an odd side is halved by every second position of it, not by a 2x2 maximum.

    Raises:
        UsageError: ``spec.channels`` does not fit.
    """

    def __init__(self, spec: NetSpec) -> None:
        super().__init__(spec)
        scheme = Scheme.of(spec)
        widths = stage_widths(spec)
        large = has_large_stem(spec)
        self.norm = scheme.norm()
        self.conv1 = scheme.first(widths[0], 7 if large else 3, stride=2 if large else 1)
        self.bn1 = nn.BatchNorm2d(widths[0])
        self.prelu = nn.PReLU(widths[0])
        self.max_pool = nn.MaxPool2d(3, stride=2, padding=1) if large else nn.Identity()
        self.blocks = _blocks(spec, strided(spec.input_shape[:2], 4 if large else 1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.act = scheme.last_act(signed=True)
        self.fc = scheme.last(widths[-1], len(spec.class_names))
        self._initialize()

    def _initialize(self) -> None:
        # As published: the standard deviation, not the variance, is one over the fan.
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                fan = module.weight[0].numel()
                if isinstance(module, QuantConv2d) and module.weight_quantizer.kernels > 1:
                    fan = module.weight[0, 0].numel()
                nn.init.normal_(module.weight, 0, 1 / fan)
            # Of some ten million draws one or two are exactly 0.
            if isinstance(module, QuantConv2d | QuantLinear):
                module.weight_quantizer.constrain(module.weight)

    def forward(self, pixels: Tensor) -> Tensor:
        """(N, C, H, W) → logits (N, classes)."""
        x = self.prelu(self.bn1(self.conv1(self.norm(pixels))))
        x = self.blocks(self.max_pool(x))
        logits: Tensor = self.fc(self.act(torch.flatten(self.pool(x), 1)))
        return logits


@torch.no_grad()
def merge_ternary(model: SttnResNet) -> None:
    """Replace each pair of latent kernels by the one ternary weight it makes, in place.

    Afterwards each body weight is (O, I, 3, 3) on {-s, 0, s} a filter, as the published merged
    files have it, and can be trained no further.
    """
    for module in model.blocks.modules():
        if isinstance(module, QuantConv2d) and isinstance(module.weight_quantizer, SttnWeight):
            module.weight = nn.Parameter(module.weight_quantizer(module.weight))
            module.weight_quantizer = MergedTernaryWeight()


def _blocks(spec: NetSpec, size: Size) -> nn.Sequential:
    scheme = Scheme.of(spec)
    widths, depths = stage_widths(spec), DEPTHS[spec.net]
    channels = [widths[0]]
    channels += [width for width, n in zip(widths, depths, strict=True) for _ in range(n)]
    firsts = {sum(depths[:stage]) for stage in range(1, len(depths))}
    blocks = nn.Sequential()
    for i, pair in enumerate(pairwise(channels)):
        stride = 2 if i in firsts else 1
        blocks.append(TernaryBlock(pair, scheme, stride=stride, size=size))
        size = strided(size, stride)
    return blocks
