"""The sizes that ResNets of one name share, whatever the method: depths, widths, stem, maps."""

from collections.abc import Mapping
from types import MappingProxyType

from bitfold.models.nets.base import scaled_channels
from bitfold.models.spec import NetSpec

# Blocks a stage: three stages for small images, four for ImageNet's.
DEPTHS: Mapping[str, tuple[int, ...]] = MappingProxyType(
    {
        "resnet8": (1, 1, 1),
        "resnet14": (2, 2, 2),
        "resnet20": (3, 3, 3),
        "resnet32": (5, 5, 5),
        "resnet44": (7, 7, 7),
        "resnet56": (9, 9, 9),
        "resnet110": (18, 18, 18),
        "resnet18": (2, 2, 2, 2),
        "resnet34": (3, 4, 6, 3),
    }
)
BOTTLENECK_DEPTHS: Mapping[str, tuple[int, ...]] = MappingProxyType({"resnet50": (3, 4, 6, 3)})
FIRST_WIDTH = {3: 16, 4: 64}  # by the number of stages; each later stage is twice as wide
LARGE_SIDE = 64

Size = tuple[int, int]


def has_large_stem(spec: NetSpec) -> bool:
    """Whether the first layer shrinks the image: as the spec says, "auto" from 64 pixels on."""
    if spec.stem == "auto":
        return min(spec.input_shape[:2]) >= LARGE_SIDE
    return spec.stem == "large"


def plain_widths(num_stages: int) -> tuple[int, ...]:
    """Channels a stage at width 1."""
    return tuple(FIRST_WIDTH[num_stages] << i for i in range(num_stages))


def stage_widths(spec: NetSpec) -> tuple[int, ...]:
    """Channels a stage; the stem has those of the first. ``spec.channels`` overrides ``width``.

    Each is twice the one before it, whatever the width: a skip path without weights needs that.

    Raises:
        UsageError: ``spec.channels`` has another length.
    """
    published = plain_widths(len(DEPTHS[spec.net]))
    if spec.channels:
        return scaled_channels(spec, published)
    first = max(1, round(published[0] * spec.width))
    return tuple(first << i for i in range(len(published)))


def strided(size: Size, stride: int) -> Size:
    """Height and width after a 3x3 (or 7x7) convolution padded to keep the size, or a pool."""
    return -(-size[0] // stride), -(-size[1] // stride)


def halving_kernel(size: Size) -> Size:
    """Window of a stride-2 pool that gives the size a stride-2 convolution gives.

    2 along an even side, as published; 1, every second position, along an odd one: there a window
    of 2 would miss the last position.
    """
    return 2 - size[0] % 2, 2 - size[1] % 2
