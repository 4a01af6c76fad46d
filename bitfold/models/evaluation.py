"""Top-1 accuracy of a network on labelled images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.data import ImageSource


def to_nchw(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, C) uint8 array → (N, C, H, W) uint8 tensor, a copy of its own."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def evaluate(model: nn.Module, data: ImageSource, *, batch_size: int = 500) -> float:
    """Top-1 accuracy, a fraction, of ``model`` in eval mode in float32; its mode is kept."""
    if data.labels is None or not len(data):
        raise UsageError("accuracy needs labelled images", todo="Name data that has labels.")
    was_training = model.training
    model.eval()
    device = next((parameter.device for parameter in model.parameters()), torch.device("cpu"))
    hits = 0
    for start in range(0, len(data), batch_size):
        indexes = np.arange(start, min(start + batch_size, len(data)))
        logits = model(to_nchw(data.read(indexes)).to(device).float())
        hits += int((logits.argmax(1).cpu() == torch.from_numpy(data.labels[indexes])).sum())
    model.train(was_training)
    return hits / len(data)
