"""What all networks share: a spec, and channel counts from it."""

from collections.abc import Sequence

from torch import nn

from bitfold.errors import UsageError
from bitfold.models.spec import NetSpec

DIVISOR = 8
LEAST_SHARE = 0.9


class QuantNet(nn.Module):
    """A classifier that knows its ``spec``: pixels (N, C, H, W) 0…255 → logits (N, classes)."""

    def __init__(self, spec: NetSpec) -> None:
        super().__init__()
        self.spec = spec


def scaled_channels(spec: NetSpec, published: Sequence[int]) -> tuple[int, ...]:
    """``spec.channels``, or the ``published`` counts times ``spec.width``, each at least 1.

    Raises UsageError where ``spec.channels`` has another length.
    """
    return _given(spec, len(published)) or tuple(max(1, round(c * spec.width)) for c in published)


def divisible_channels(spec: NetSpec, published: Sequence[int]) -> tuple[int, ...]:
    """As ``scaled_channels``, rounded as MobileNets are: to multiples of 8, from 8 on.

    A count that would fall by more than a tenth takes the next multiple. Below 8 channels the
    nearest whole number counts.
    """
    return _given(spec, len(published)) or tuple(_divisible(c * spec.width) for c in published)


def initialize_convolutions(model: nn.Module) -> None:
    """Kaiming-normal weights by fan-out (He et al. 2015), in module order."""
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")


def _given(spec: NetSpec, count: int) -> tuple[int, ...]:
    if len(spec.channels) in (0, count):
        return spec.channels
    raise UsageError(
        f"{len(spec.channels)} channel counts for {spec.net}, which has {count}",
        where="network specification, channels",
        todo=f"Give {count}, from the first layer on.",
    )


def _divisible(wanted: float) -> int:
    if wanted < DIVISOR:
        return max(1, round(wanted))
    nearest = int(wanted + DIVISOR / 2) // DIVISOR * DIVISOR
    return nearest if nearest >= LEAST_SHARE * wanted else nearest + DIVISOR
