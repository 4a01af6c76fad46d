"""Which parameter learns how: kinds of parameters, their weight decay and learning rate."""

from collections.abc import Iterator

import torch
from torch import nn

from bitfold.models.protocol import ActivationQuantizer, WeightQuantizer
from bitfold.models.quantizers.basq import BranchActivation
from bitfold.models.quantizers.pact import PactActivation
from bitfold.models.recipe import TrainConfig

QUANTIZERS = (ActivationQuantizer, WeightQuantizer)
WEIGHTS, VECTORS, STEPS, CLIPS, BRANCH = "weights", "vectors", "steps", "clips", "branch"
BIAS = "bias"


def parameter_kinds(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """(kind, name, parameter), each parameter once.

    Kinds: "weights" (two dimensions and more), "vectors" (batch norm, biases, slopes), "clips"
    (PACT), "branch j" (the clip of BASQ's branch j), "steps" (all else that quantizers learn).
    """
    for path, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            kind = WEIGHTS if parameter.dim() > 1 else VECTORS
            if isinstance(module, QUANTIZERS):
                kind = _quantizer_kind(path, module)
            yield kind, f"{path}.{name}", parameter


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """SGD with Nesterov momentum or Adam; only what ``requires_grad`` is in it.

    Weights decay by ``weight_decay``, PACT clips by ``clip_decay``, the clips of BASQ's branch j
    by λ_j (METHODS: added to the gradient, in Adam too), steps and vectors not at all. Each group
    has ``rate``: its factor on the learning rate.
    """
    grouped: dict[str, list[nn.Parameter]] = {}
    for kind, _, parameter in parameter_kinds(model):
        if parameter.requires_grad:
            grouped.setdefault(kind, []).append(parameter)
    groups = [
        {"params": params, "weight_decay": _decay(kind, config), "rate": _rate(kind, config)}
        for kind, params in sorted(grouped.items())
    ]
    if config.optimizer == "adam":
        return torch.optim.Adam(groups, lr=config.learning_rate)
    return torch.optim.SGD(groups, lr=config.learning_rate, momentum=config.momentum, nesterov=True)


def freeze_all_but_biases_and_clips(model: nn.Module) -> None:
    """BASQ's finetuning: only batch norm's betas, biases and the branches' clips learn."""
    for kind, name, parameter in parameter_kinds(model):
        is_bias = name.rpartition(".")[2] == BIAS
        parameter.requires_grad_(is_bias or kind.startswith((CLIPS, BRANCH)))


def _quantizer_kind(path: str, module: nn.Module) -> str:
    if isinstance(module, PactActivation):
        return CLIPS
    if isinstance(module, BranchActivation):
        return f"{BRANCH} {_branch_of(path)}"
    return STEPS


def _branch_of(path: str) -> int:
    """The branch that a quantizer's place in its list says: "…quantizer.3" is 3."""
    return int(next(part for part in reversed(path.split(".")) if part.isdecimal()))


def _decay(kind: str, config: TrainConfig) -> float:
    if kind.startswith(BRANCH):
        return BranchActivation.BRANCH_DECAYS[int(kind.split()[1])]
    return {WEIGHTS: config.weight_decay, CLIPS: config.clip_decay}.get(kind, 0.0)


def _rate(kind: str, config: TrainConfig) -> float:
    return 1.0 if kind in (WEIGHTS, VECTORS) else config.step_rate
