"""The tables of networks and methods, and the one function that builds a network from a spec."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bitfold.errors import UsageError
from bitfold.models.nets.preact_resnet import STAGES, PreActResNet
from bitfold.models.spec import NetSpec


@dataclass(frozen=True, slots=True)
class MethodBits:
    """Bit widths that a quantization method offers."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]


METHODS: Mapping[str, MethodBits] = MappingProxyType(
    {"pact-sawb": MethodBits(weights=(2, 3, 4), activations=(1, 2, 3, 4, 8))}
)
NETS: Mapping[str, Callable[[NetSpec], PreActResNet]] = MappingProxyType(
    dict.fromkeys(STAGES, PreActResNet)
)


def check_names(spec: NetSpec) -> None:
    """Raise UsageError unless network, method and bit widths are in the tables."""
    if spec.net not in NETS:
        raise UsageError(
            f"unknown network {spec.net!r}", where="net", todo=f"Known: {', '.join(NETS)}."
        )
    if spec.method not in METHODS:
        raise UsageError(
            f"unknown method {spec.method!r}", where="method", todo=f"Known: {', '.join(METHODS)}."
        )
    offered = METHODS[spec.method]
    weights, activations = spec.bits
    if weights not in offered.weights or activations not in offered.activations:
        raise UsageError(
            f"{spec.method} has no {weights}-bit weights with {activations}-bit activations",
            where="bits",
            todo=f"Weights: {_listed(offered.weights)} bits; "
            f"activations: {_listed(offered.activations)} bits.",
        )


def build_network(spec: NetSpec) -> PreActResNet:
    """An untrained network, weights drawn from torch's global generator; may raise UsageError."""
    check_names(spec)
    return NETS[spec.net](spec)


def _listed(numbers: tuple[int, ...]) -> str:
    return ", ".join(map(str, numbers))
