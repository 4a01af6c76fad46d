"""The recipe of a training run: its numbers, learning rate, weight decay and augmentation."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfold.errors import UsageError
from bitfold.models.quantizers import PactActivation


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """SGD with Nesterov momentum, one linear warm-up, then half a cosine to zero.

    Times are in seconds, ``warmup_epochs`` in epochs, ``crop_padding`` and ``crop_fill`` in pixels
    and pixel values. ``save_every_s`` says how often the state is saved; 0 saves after every step.
    """

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    clip_decay: float = 5e-4
    momentum: float = 0.9
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    crop_padding: int = 2
    crop_fill: int = 0
    flip: bool = True
    seed: int = 0
    compile: bool = True
    save_every_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges; raises UsageError."""
        rates = ("learning_rate", "weight_decay", "clip_decay", "warmup_epochs", "save_every_s")
        claims = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "momentum": 0 < self.momentum < 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "crop_padding": self.crop_padding >= 0,
            "crop_fill": 0 <= self.crop_fill <= 255,
            "seed": 0 <= self.seed < 2**31,
            **{name: 0 <= getattr(self, name) < math.inf for name in rates},
        }
        wrong = next((name for name, holds in claims.items() if not holds), None)
        if wrong is not None:
            raise UsageError(
                f"{wrong} cannot be {getattr(self, wrong)}",
                where="training recipe",
                todo="Change it.",
            )


def learning_rate_factor(step: int, *, warmup_steps: int, num_steps: int) -> float:
    """Factor in [0, 1]: linear to 1 over the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, num_steps - warmup_steps)))


def augment(
    images: Tensor, *, padding: int, fill: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Shift each image by up to ``padding`` pixels and mirror half; (N, C, H, W) in and out."""
    n, _, height, width = images.shape
    out = images
    if padding:
        padded = functional.pad(images, [padding] * 4, value=fill)
        offsets = torch.randint(0, 2 * padding + 1, (2, n), generator=generator)
        rows = offsets[0][:, None] + torch.arange(height)
        cols = offsets[1][:, None] + torch.arange(width)
        if flip:
            mirrored = torch.rand(n, generator=generator) < 0.5
            cols = torch.where(mirrored[:, None], cols.flip(1), cols)
        out = padded[torch.arange(n)[:, None, None], :, rows[:, :, None], cols[:, None, :]]
        out = out.permute(0, 3, 1, 2)
    elif flip:
        mirrored = torch.rand(n, generator=generator) < 0.5
        out = torch.where(mirrored[:, None, None, None], images.flip(3), images)
    return out


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.SGD:
    """SGD where weights decay by ``weight_decay``, PACT clips by ``clip_decay``, vectors not."""
    clips = {id(m.clip) for m in model.modules() if isinstance(m, PactActivation)}
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "clips": [], "rest": []}
    for parameter in model.parameters():
        kind = "clips" if id(parameter) in clips else "weights" if parameter.dim() > 1 else "rest"
        groups[kind].append(parameter)
    decay = {"weights": config.weight_decay, "clips": config.clip_decay, "rest": 0.0}
    return torch.optim.SGD(
        [{"params": params, "weight_decay": decay[kind]} for kind, params in groups.items()],
        lr=config.learning_rate,
        momentum=config.momentum,
        nesterov=True,
    )
