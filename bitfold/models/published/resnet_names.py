"""How the published pre-activation ResNets name their layers, and what their shapes say."""

from collections.abc import Iterator
from dataclasses import dataclass

from bitfold.models.published.layout import TensorTable


@dataclass(frozen=True, slots=True)
class BlockNames:
    """The five layers of a residual block; ``shortcut`` exists where the size changes."""

    norm1: str
    conv1: str
    norm2: str
    conv2: str
    shortcut: str


@dataclass(frozen=True, slots=True)
class ResNetNames:
    """One naming: stem, blocks (a pattern over stage and block, counted from ``first``), tail."""

    stem: str
    stem_norm: str
    block: str
    first: int
    parts: BlockNames
    tail_norm: str
    last: str

    def of_block(self, stage: int, block: int) -> BlockNames:
        """Full names of block ``block`` of stage ``stage``, both counted from 0."""
        prefix = self.block.format(stage + 1, block + self.first)
        parts = self.parts
        return BlockNames(
            f"{prefix}.{parts.norm1}", f"{prefix}.{parts.conv1}", f"{prefix}.{parts.norm2}",
            f"{prefix}.{parts.conv2}", f"{prefix}.{parts.shortcut}",
        )  # fmt: skip


IMAGENET = ResNetNames(
    "conv1", "bn1", "layer{}.{}", 0,
    BlockNames("bn1", "conv1", "bn2", "conv2", "shortcut.0"), "bn2", "fc",
)  # fmt: skip
CIFAR = ResNetNames(
    "conv1", "bn1", "layer{}.{}", 0,
    BlockNames("bn1", "conv1", "bn2", "conv2", "downsample.0"), "bn", "fc",
)  # fmt: skip
GLUON = ResNetNames(
    "features.init_block.conv", "features.init_block.bn", "features.stage{}.unit{}", 1,
    BlockNames(
        "body.conv1.bn", "body.conv1.conv", "body.conv2.bn", "body.conv2.conv", "identity_conv"
    ),
    "features.post_activ.bn", "output",
)  # fmt: skip
NAMINGS = (IMAGENET, CIFAR, GLUON)


@dataclass(frozen=True, slots=True)
class ResNetShape:
    """What the shapes say: blocks and width a stage, stem width and kernel, inputs, classes."""

    names: ResNetNames
    depths: tuple[int, ...]
    stem: int
    widths: tuple[int, ...]
    stem_kernel: int
    in_channels: int
    num_classes: int

    @property
    def channels(self) -> tuple[int, ...]:
        """``NetSpec.channels``: a width a stage, behind that of the stem where it differs."""
        has_own_stem = self.stem != self.widths[0]
        return (self.stem, *self.widths) if has_own_stem else self.widths

    def blocks(self) -> Iterator[tuple[int, int, int, int]]:
        """(stage, block, input channels, output channels) in order."""
        before = self.stem
        for stage, (depth, width) in enumerate(zip(self.depths, self.widths, strict=True)):
            for block in range(depth):
                yield stage, block, before, width
                before = width


def find_naming(table: TensorTable) -> ResNetNames | None:
    """The naming whose stem, first block, tail and classifier are all there."""
    for names in NAMINGS:
        block = names.of_block(0, 0)
        needed = (names.stem, block.norm1, block.conv2, names.tail_norm, names.last)
        if all(f"{name}.weight" in table for name in needed):
            return names
    return None


def read_shape(table: TensorTable, names: ResNetNames) -> ResNetShape:
    """Depths and widths; raises InputError for weights of impossible shapes."""
    stem, in_channels, kernel, _ = table.shape(f"{names.stem}.weight", 4)
    depths: list[int] = []
    widths: list[int] = []
    while (depth := _depth(table, names, len(depths))) > 0:
        widths.append(table.shape(f"{names.of_block(len(depths), 0).conv2}.weight", 4)[0])
        depths.append(depth)
    num_classes = table.shape(f"{names.last}.weight", 2)[0]
    return ResNetShape(names, tuple(depths), stem, tuple(widths), kernel, in_channels, num_classes)


def _depth(table: TensorTable, names: ResNetNames, stage: int) -> int:
    depth = 0
    while f"{names.of_block(stage, depth).conv2}.weight" in table:
        depth += 1
    return depth
