"""An 8-bit quantizer in front of a classifier that the published network feeds with real numbers.

Its step is min-max: the greatest magnitude that the calibration images bring there is the greatest
code, 127 of the signed grid or 255 of the unsigned one where nothing is negative.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.nets import QuantNet
from bitfold.models.protocol import ActivationQuantizer
from bitfold.models.quantizers.basq import LsqActivation

BITS = 8
BATCH = 32
MAX_IMAGES = 512
PLACE = "act"  # what every network calls the module in front of its classifier


def quantize_last_input(model: QuantNet, images: NDArray[np.uint8]) -> str:
    """Put the quantizer into ``model``, calibrated on the first of ``images`` (N, H, W, C).

    Returns a sentence on what was done: a network that quantizes there itself stays as it is.
    Raises UsageError for images of another shape, none at all, or all-zero values.
    """
    if isinstance(model.get_submodule(PLACE), ActivationQuantizer):
        return "calibration images are not needed: the network quantizes its classifier's input"
    _check_images(model, images)
    smallest, largest = _range_at(model, images[:MAX_IMAGES])
    quantizer = LsqActivation(BITS, signed=smallest < 0)
    step = max(-smallest, largest) / quantizer.grid.hi
    if not step > 0:
        raise UsageError(
            "the classifier's input is 0 on all calibration images",
            where="option --calib",
            todo="Give images like those that the network was trained on.",
        )
    with torch.no_grad():
        quantizer.s.fill_(step)
    model.add_module(PLACE, quantizer.eval())
    kind = "signed" if quantizer.signed else "unsigned"
    used = min(len(images), MAX_IMAGES)
    return f"the classifier's input has {BITS} {kind} bits, calibrated on {used} images"


def _check_images(model: QuantNet, images: NDArray[np.uint8]) -> None:
    wanted = tuple(model.spec.input_shape)
    if not len(images) or images.shape[1:] != wanted:
        raise UsageError(
            f"{len(images)} calibration images of shape {images.shape[1:]}; the network reads "
            f"{wanted}",
            where="option --calib",
            todo="Give images of the network's input shape.",
        )


@torch.no_grad()
def _range_at(model: QuantNet, images: NDArray[np.uint8]) -> tuple[float, float]:
    """Least and greatest value that reaches the module in front of the classifier."""
    smallest, largest = 0.0, 0.0

    def watch(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal smallest, largest
        smallest = min(smallest, float(inputs[0].min()))
        largest = max(largest, float(inputs[0].max()))

    handle = model.get_submodule(PLACE).register_forward_pre_hook(watch)
    try:
        for start in range(0, len(images), BATCH):
            model(torch.from_numpy(images[start : start + BATCH]).permute(0, 3, 1, 2).float())
    finally:
        handle.remove()
    return smallest, largest
