"""A network that came from a file, and what must hold before anyone computes with it."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitfold.models.layers import PixelConv2d, QuantConv2d, QuantLinear
from bitfold.models.nets import QuantNet, build_network
from bitfold.models.protocol import ActivationQuantizer
from bitfold.models.spec import NetSpec

NAMES_SHOWN = 5


@dataclass(frozen=True, slots=True)
class LoadedNet:
    """A network in eval mode, what it is, how it came to be, and what to know about it."""

    model: QuantNet
    spec: NetSpec
    record: Mapping[str, object] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


def empty_network(spec: NetSpec) -> QuantNet:
    """The network of ``spec`` on the meta device: names, shapes and dtypes, no memory."""
    with torch.device("meta"):
        return build_network(spec)


def tensor_faults(want: Mapping[str, Tensor], got: Mapping[str, object]) -> list[str]:
    """Which tensors are missing, unexpected, of another kind or not finite, by kind."""
    known = {name: got[name] for name in want if name in got}
    kinds = {name: (kind_of(value), kind_of(want[name])) for name, value in known.items()}
    fitting = [name for name, (found, wanted) in kinds.items() if found == wanted]
    faults = {
        "missing": [name for name in want if name not in got],
        "unexpected": [str(name) for name in got if name not in want],
        "of another kind": [
            f"{name} is {found}, not {wanted}"
            for name, (found, wanted) in kinds.items()
            if found != wanted
        ],
        "not finite": [name for name in fitting if not _is_finite(known[name])],
    }
    return [f"{kind}: {shortened(names)}" for kind, names in faults.items() if names]


def value_problems(model: nn.Module) -> list[str]:
    """What makes a module of finite numbers impossible to evaluate."""
    problems = []
    for name, module in model.named_modules():
        match module:
            case ActivationQuantizer():
                problems += [f"{name}.{fault}" for fault in module.faults()]
            case _BatchNorm(running_var=Tensor() as variance):
                if float((variance + module.eps).min()) <= 0:
                    problems.append(f"{name}.running_var falls to {float(variance.min()):g}")
            case PixelConv2d():
                faults = module.weight_quantizer.faults(module.pixel_weight().detach())
                problems += [f"{name}.{fault}" for fault in faults]
            case QuantConv2d() | QuantLinear():
                faults = module.weight_quantizer.faults(module.weight.detach())
                problems += [f"{name}.{fault}" for fault in faults]
            case _:
                pass
    return problems


def kind_of(value: object) -> str:
    """Dtype, layout and shape of a tensor that holds all its elements, or the type of another."""
    if not isinstance(value, Tensor):
        return type(value).__name__
    layout = "" if value.layout == torch.strided else f" {value.layout}"
    return f"{str(value.dtype).removeprefix('torch.')}{layout} {tuple(value.shape)}"


def shortened(names: Iterable[str]) -> str:
    """The first names, and how many more there are."""
    every = list(names)
    more = f" and {len(every) - NAMES_SHOWN} more" if len(every) > NAMES_SHOWN else ""
    return ", ".join(every[:NAMES_SHOWN]) + more


def _is_finite(value: object) -> bool:
    return isinstance(value, Tensor) and bool(torch.isfinite(value).all())
