"""What can be built, as plain data: bit widths a method, methods a network.

Nothing here imports torch: the command line reads these tables when it starts.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from types import MappingProxyType

from bitfold.errors import UsageError


@dataclass(frozen=True, slots=True)
class MethodBits:
    """Bit widths that a quantization method offers."""

    weights: tuple[int, ...]
    activations: tuple[int, ...]


METHODS: Mapping[str, MethodBits] = MappingProxyType(
    {
        "pact-sawb": MethodBits(weights=(2, 3, 4, 8), activations=(1, 2, 3, 4, 8)),
        "pact-dorefa": MethodBits(weights=(1, 2, 3, 4, 8), activations=(1, 2, 3, 4, 8)),
        "uniq": MethodBits(weights=(1, 2, 3, 4, 8), activations=(1, 2, 3, 4, 8)),
        "sttn": MethodBits(weights=(2,), activations=(2,)),
        "stqn": MethodBits(weights=(2, 3, 4), activations=(2, 3, 4)),
        "basq": MethodBits(weights=(2, 3, 4), activations=(2, 3, 4)),
        "float": MethodBits(weights=(32,), activations=(32,)),
    }
)

_PLAIN = ("pact-sawb", "pact-dorefa", "uniq", "float")
_TERNARY = ("sttn", "stqn")

NETS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "resnet8": (*_PLAIN, *_TERNARY, "basq"),
        "resnet14": _PLAIN,
        "resnet20": (*_PLAIN, *_TERNARY, "basq"),
        "resnet32": (*_PLAIN, *_TERNARY, "basq"),
        "resnet44": _PLAIN,
        "resnet56": _PLAIN,
        "resnet110": _PLAIN,
        "resnet18": (*_PLAIN, *_TERNARY, "basq"),
        "resnet34": (*_PLAIN, *_TERNARY, "basq"),
        "resnet50": _PLAIN,
        "mobilenetv1": (*_PLAIN, "basq"),
        "mobilenetv2": (*_PLAIN, "basq"),
        "vgg-small": _PLAIN,
        "alexnet": _PLAIN,
        "mlp": _PLAIN,
    }
)


def check_offered(net: str, method: str, bits: tuple[int, int]) -> None:
    """Raise UsageError, naming the choices, unless ``bits`` of ``method`` exist for ``net``."""
    if net not in NETS:
        raise UsageError(f"unknown network {net!r}", where="net", todo=f"Known: {_listed(NETS)}.")
    if method not in METHODS:
        raise UsageError(
            f"unknown method {method!r}", where="method", todo=f"Known: {_listed(METHODS)}."
        )
    if method not in NETS[net]:
        having = [name for name, methods in NETS.items() if method in methods]
        raise UsageError(
            f"{net} has no form for {method}",
            where="net and method",
            todo=f"Networks for {method}: {_listed(having)}. "
            f"Methods for {net}: {_listed(NETS[net])}.",
        )
    offered = METHODS[method]
    if bits[0] not in offered.weights or bits[1] not in offered.activations:
        raise UsageError(
            f"{method} has no {bits[0]}-bit weights with {bits[1]}-bit activations",
            where="bits",
            todo=f"Weights: {_listed(offered.weights)} bits; "
            f"activations: {_listed(offered.activations)} bits.",
        )


def _listed(names: Iterable[object]) -> str:
    return ", ".join(map(str, names))
