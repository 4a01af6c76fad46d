"""Top-1 accuracy of a network on labelled images."""

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from bitfold.errors import UsageError
from bitfold.models.data import LabelledImages


def to_nchw(images: NDArray[np.uint8]) -> Tensor:
    """(N, H, W, C) uint8 array → (N, C, H, W) uint8 tensor, a copy of its own."""
    return torch.from_numpy(images.transpose(0, 3, 1, 2).copy())


@torch.no_grad()
def evaluate(model: nn.Module, data: LabelledImages, *, batch_size: int = 500) -> float:
    """Top-1 accuracy, a fraction, of ``model`` in eval mode in float32; its mode is kept."""
    if data.labels is None or not len(data.images):
        raise UsageError("accuracy needs labelled images", todo="Name data that has labels.")
    was_training = model.training
    model.eval()
    hits = 0
    for start in range(0, len(data.images), batch_size):
        logits = model(to_nchw(data.images[start : start + batch_size]).float())
        labels = torch.from_numpy(data.labels[start : start + batch_size].copy())
        hits += int((logits.argmax(1) == labels).sum())
    model.train(was_training)
    return hits / len(data.images)
