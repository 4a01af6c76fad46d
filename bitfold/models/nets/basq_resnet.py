"""ResNets of BASQ units: BASQ-like, after Kim, Park & Yoo (ECCV 2022).

The paper reports ResNets, but neither text nor code that we could read gives their block diagrams.
Ours are built from the units of the published MobileNet-V2: every dense 3x3 convolution is a
branch unit with a gene and a skip of its own, which halves by an average pool and widens by
repetition. Results must be labelled BASQ-like.
"""

from bitfold.models.nets.basq_units import Body, BranchedNet, BranchUnit, plan_branches
from bitfold.models.nets.stages import DEPTHS, has_large_stem, stage_widths, strided
from bitfold.models.spec import NetSpec


class BasqResNet(BranchedNet):
    """A BASQ-like ResNet: two branch units a residual block, one gene a unit.

    ``spec.channels`` gives one width a stage, each a multiple of the one before.
    """

    @staticmethod
    def body(spec: NetSpec) -> Body:
        """Stem and blocks."""
        widths = stage_widths(spec)
        large = has_large_stem(spec)
        shapes = _shapes(widths, DEPTHS[spec.net])
        plans = plan_branches(spec, shapes, strided(spec.input_shape[:2], 4 if large else 1))
        return Body(
            stem_channels=widths[0],
            stem_kernel=7 if large else 3,
            stem_stride=2 if large else 1,
            max_pool=large,
            blocks=tuple(BranchUnit(plan, depthwise=False) for plan in plans),
            out_channels=widths[-1],
        )


def _shapes(widths: tuple[int, ...], depths: tuple[int, ...]) -> list[tuple[int, int, int]]:
    shapes = []
    before = widths[0]
    for stage, (width, depth) in enumerate(zip(widths, depths, strict=True)):
        for unit in range(2 * depth):
            shapes.append((before, width, 2 if stage and unit == 0 else 1))
            before = width
    return shapes
