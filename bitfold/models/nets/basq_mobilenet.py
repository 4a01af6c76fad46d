"""MobileNets of BASQ units (Kim, Park & Yoo, ECCV 2022).

``BasqMobileNetV2`` is the network of the authors' published code. ``BasqMobileNetV1`` is
BASQ-like: the paper reports one, its structure is not published; ours is the same units without
expansion.
"""

from collections.abc import Iterable
from itertools import pairwise

from torch import Tensor, nn

from bitfold.models.nets.base import scaled_channels
from bitfold.models.nets.basq_units import (
    Body,
    BranchedNet,
    BranchPlan,
    BranchUnit,
    PointwiseUnit,
    plan_branches,
)
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.stages import Size, has_large_stem, strided
from bitfold.models.spec import NetSpec

EXPANSION = 6
LAST_WIDTH = 1280
# (channels, blocks, stride of the first block); the first row of V2 has no expansion.
V2_STAGES = (
    (16, 1, 1), (24, 2, 2), (32, 3, 2), (64, 4, 2), (96, 3, 1), (160, 3, 2), (320, 1, 1),
)  # fmt: skip
V1_STAGES = ((64, 1, 1), (128, 2, 2), (256, 2, 2), (512, 6, 2), (1024, 2, 2))
STEM_WIDTH = 32


class InvertedBlock(nn.Module):
    """Pointwise expansion (or none), depthwise branch unit, pointwise projection; outer add."""

    def __init__(self, channels: tuple[int, int], plan: BranchPlan) -> None:
        super().__init__()
        in_channels, out_channels = channels
        hidden = plan.in_channels
        self.expand: PointwiseUnit | None = None
        if hidden != in_channels:
            self.expand = PointwiseUnit(in_channels, hidden, scheme=plan.scheme)
        self.depthwise = BranchUnit(plan, depthwise=True)
        self.project = PointwiseUnit(hidden, out_channels, scheme=plan.scheme)
        self.adds_input = plan.stride == 1 and in_channels == out_channels

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) → (N, out, OH, OW)."""
        hidden = x if self.expand is None else self.expand(x)
        out: Tensor = self.project(self.depthwise(hidden))
        return out + x if self.adds_input else out


class BasqMobileNetV2(BranchedNet):
    """BASQ's MobileNet-V2: 17 blocks, one gene each; see ``InvertedBlock``.

    Widths are ``int(width · c)``, as the published code has them; the last is 1280 (times
    ``width`` above 1), cut to a multiple of the width in front of it where it is none.
    ``spec.channels`` gives all 19 of them: stem, blocks, last.
    """

    @staticmethod
    def body(spec: NetSpec) -> Body:
        """Stem and blocks."""
        widths = _v2_widths(spec)
        strides = _strides(V2_STAGES)
        channels = list(pairwise(widths[:-1]))
        shapes = [
            (c * (EXPANSION if i else 1), c * (EXPANSION if i else 1), stride)
            for i, ((c, _), stride) in enumerate(zip(channels, strides, strict=True))
        ]
        plans = plan_branches(spec, shapes, _stem_size(spec))
        blocks: list[nn.Module] = [
            InvertedBlock(pair, plan) for pair, plan in zip(channels, plans, strict=True)
        ]
        blocks.append(PointwiseUnit(widths[-2], widths[-1], scheme=Scheme.of(spec)))
        return _body(spec, widths, blocks)


class BasqMobileNetV1(BranchedNet):
    """BASQ-like MobileNet-V1: 13 blocks of a depthwise branch unit and a pointwise unit.

    The paper's own V1 is not published. Widths are the stem's, ``max(1, int(32 · width))``, times
    1 … 32; ``spec.channels`` gives all 14 of them: stem, blocks.
    """

    @staticmethod
    def body(spec: NetSpec) -> Body:
        """Stem and blocks."""
        widths = _v1_widths(spec)
        channels = list(pairwise(widths))
        strides = _strides(V1_STAGES)
        shapes = [(c, c, stride) for (c, _), stride in zip(channels, strides, strict=True)]
        plans = plan_branches(spec, shapes, _stem_size(spec))
        blocks = [
            nn.Sequential(
                BranchUnit(plan, depthwise=True), PointwiseUnit(*pair, scheme=plan.scheme)
            )
            for pair, plan in zip(channels, plans, strict=True)
        ]
        return _body(spec, widths, blocks)


def _each(stages: tuple[tuple[int, int, int], ...]) -> list[int]:
    return [channels for channels, count, _ in stages for _ in range(count)]


def _strides(stages: tuple[tuple[int, int, int], ...]) -> list[int]:
    return [stride if i == 0 else 1 for _, count, stride in stages for i in range(count)]


def _v1_widths(spec: NetSpec) -> tuple[int, ...]:
    published = (STEM_WIDTH, *_each(V1_STAGES))
    if spec.channels:
        return scaled_channels(spec, published)
    first = max(1, int(STEM_WIDTH * spec.width))
    return tuple(first * c // STEM_WIDTH for c in published)


def _v2_widths(spec: NetSpec) -> tuple[int, ...]:
    published = (STEM_WIDTH, *_each(V2_STAGES))
    if spec.channels:
        return scaled_channels(spec, (*published, LAST_WIDTH))
    inner = tuple(max(1, int(c * spec.width)) for c in published)
    last = int(LAST_WIDTH * max(1.0, spec.width))
    return (*inner, max(1, last // inner[-1]) * inner[-1])


def _stem_size(spec: NetSpec) -> Size:
    return strided(spec.input_shape[:2], 2 if has_large_stem(spec) else 1)


def _body(spec: NetSpec, widths: tuple[int, ...], blocks: Iterable[nn.Module]) -> Body:
    return Body(
        stem_channels=widths[0],
        stem_kernel=3,
        stem_stride=2 if has_large_stem(spec) else 1,
        max_pool=False,
        blocks=tuple(blocks),
        out_channels=widths[-1],
    )
