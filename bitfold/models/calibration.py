"""Steps, clips and batch-norm statistics from data, without training anything.

Weights are measured themselves, activations where they reach a quantizer: UniQ's published
calibration pass, which every method's ``calibrate`` fits into.
"""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from bitfold.models.layers import PixelConv2d, QuantConv2d, QuantLinear
from bitfold.models.protocol import ActivationQuantizer
from bitfold.models.quantizers.uniq import UniqActivation


@torch.no_grad()
def calibrate(model: nn.Module, batches: Iterable[Tensor], *, norm_statistics: bool) -> None:
    """Set every quantizer of ``model`` from ``batches`` of pixels (N, C, H, W), values 0…255.

    Each batch runs once, in training mode but for dropout: batch norm normalizes with the batch's
    own statistics. With ``norm_statistics`` the running ones become the mean over the batches,
    else they stay. A quantizer's input is already quantized by those in front of it. Batch norm
    needs more than one value a channel: at 1x1 maps, more than one image.
    """
    for module in model.modules():
        match module:
            case PixelConv2d():
                module.weight_quantizer.calibrate(module.pixel_weight())
            case QuantConv2d() | QuantLinear():
                module.weight_quantizer.calibrate(module.weight)
            case _:
                pass
    handles = [
        module.register_forward_pre_hook(_measure)
        for module in model.modules()
        if isinstance(module, ActivationQuantizer)
    ]
    try:
        with _training_mode(model), _norms(model, averaging=norm_statistics):
            for pixels in batches:
                model(pixels)
    finally:
        for handle in handles:
            handle.remove()


def _measure(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    assert isinstance(module, ActivationQuantizer)
    # UniQ's rule is for the output of a ReLU, which its unsigned quantizer stands for here.
    rectified = isinstance(module, UniqActivation)
    module.calibrate(torch.relu(inputs[0]) if rectified else inputs[0])


@contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    modes = {module: module.training for module in model.modules()}
    model.train()
    for module in modes:
        if isinstance(module, nn.Dropout):
            module.eval()
    try:
        yield
    finally:
        for module, mode in modes.items():
            module.training = mode


@contextmanager
def _norms(model: nn.Module, *, averaging: bool) -> Iterator[None]:
    """Running statistics that average over all batches from now on, or stand still."""
    counts = {
        norm: norm.num_batches_tracked
        for norm in model.modules()
        if isinstance(norm, _BatchNorm) and norm.num_batches_tracked is not None
    }
    before = [(norm.momentum, count.clone()) for norm, count in counts.items()]
    for norm, count in counts.items():
        norm.momentum = None if averaging else 0.0  # None: the plain mean of all batches
        if averaging:
            count.zero_()
    try:
        yield
    finally:
        for (norm, count), (momentum, seen) in zip(counts.items(), before, strict=True):
            norm.momentum = momentum
            if not averaging:
                count.copy_(seen)
