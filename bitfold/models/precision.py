"""Training in bfloat16: convolutions and linear layers in it, everything else in float32."""

from contextlib import AbstractContextManager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitfold.models.protocol import ActivationQuantizer
from bitfold.models.recipe import Precision


def autocast(precision: Precision, device: torch.device) -> AbstractContextManager[object]:
    """The context of a forward pass."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


def in_full_precision(model: nn.Module) -> None:
    """Let batch norms and quantizers read float32, whatever the layer in front of them gives.

    A code is then rounded from the number that it is rounded from when the network is tested.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm | ActivationQuantizer):
            module.register_forward_pre_hook(_widened)


def _widened(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return tuple(value.float() for value in inputs)
