"""The recipe of a training run: its numbers, each method's defaults, augmentation."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, Self

import torch
from torch import Tensor
from torch.nn import functional

from bitfold.errors import UsageError

OptimizerKind = Literal["sgd", "adam"]
Precision = Literal["float32", "bfloat16"]
# What a run is for: one network; BASQ's network of all branches; BASQ's last touch, which moves
# biases and clips only.
Role = Literal["network", "supernet", "finetune"]


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """An optimizer, one linear warm-up, then half a cosine to zero.

    Times are in seconds, ``warmup_epochs`` in epochs, ``crop_padding`` and ``crop_fill`` in pixels
    and pixel values; ``least_crop_area`` is the smallest part of an image file that a random crop
    takes. ``clip_decay`` is PACT's, ``step_rate`` a factor on the learning rate of what
    quantizers learn, ``gradient_norm`` the largest length of a step's gradient (0: any),
    ``teacher_weight`` the teacher's share of the loss where there is one,
    ``calibration_batches`` how many batches set the quantizers before the first step.
    ``save_every_s`` says how often the state is saved; 0 saves after every step.
    """

    epochs: int
    batch_size: int = 128
    optimizer: OptimizerKind = "sgd"
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    clip_decay: float = 5e-4
    momentum: float = 0.9
    step_rate: float = 1.0
    gradient_norm: float = 0.0
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    teacher_weight: float = 0.5
    calibration_batches: int = 20
    crop_padding: int = 2
    crop_fill: int = 0
    least_crop_area: float = 0.25
    flip: bool = True
    seed: int = 0
    precision: Precision = "float32"
    compile: bool = True
    save_every_s: float = 60.0

    def __post_init__(self) -> None:
        """Check the ranges; raises UsageError."""
        rates = (
            "learning_rate", "weight_decay", "clip_decay", "step_rate", "gradient_norm",
            "warmup_epochs", "save_every_s",
        )  # fmt: skip
        claims = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 2,
            "optimizer": self.optimizer in ("sgd", "adam"),
            "precision": self.precision in ("float32", "bfloat16"),
            "momentum": 0 < self.momentum < 1,
            "label_smoothing": 0 <= self.label_smoothing < 1,
            "teacher_weight": 0 <= self.teacher_weight <= 1,
            "calibration_batches": self.calibration_batches >= 1,
            "crop_padding": self.crop_padding >= 0,
            "crop_fill": 0 <= self.crop_fill <= 255,
            "least_crop_area": 0 < self.least_crop_area <= 1,
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

    @classmethod
    def for_method(
        cls,
        method: str,
        *,
        bits: tuple[int, int],
        epochs: int,
        role: Role = "network",
        warm_start: bool = False,
        **changes: Any,  # noqa: ANN401  # any field of this class
    ) -> Self:
        """The defaults of docs/training.md for a method, with ``changes`` on top.

        Args:
            method: a key of ``METHODS``; unknown ones get the plain defaults.
            bits: of weights and activations; one bit has a recipe of its own in UniQ.
            epochs: how long; warm-up takes a tenth of it, one epoch at most.
            role: see ``Role``.
            warm_start: whether the weights come from a trained network.
            changes: fields that replace the defaults.
        """
        chosen = _defaults(method, one_bit=min(bits) == 1, role=role, warm_start=warm_start)
        timing = {"epochs": epochs, "warmup_epochs": min(1.0, epochs / 10)}
        return cls(**{**timing, **chosen, **changes})


SGD_WARM = MappingProxyType({"learning_rate": 0.05})
ADAM = MappingProxyType({"optimizer": "adam", "weight_decay": 0.0})
UNIQ = MappingProxyType({"learning_rate": 0.05, "weight_decay": 1e-4})
UNIQ_ONE_BIT = UNIQ | {"weight_decay": 0.0}
STTN = ADAM | {"learning_rate": 5e-3}
BASQ = ADAM | {"learning_rate": 2e-3, "weight_decay": 5e-6, "gradient_norm": 10.0}
BASQ_FINETUNE = MappingProxyType({"learning_rate": 1e-3, "weight_decay": 0.0})


def _defaults(method: str, *, one_bit: bool, role: Role, warm_start: bool) -> Mapping[str, Any]:
    match method:
        case "uniq":
            return UNIQ_ONE_BIT if one_bit else UNIQ
        case "sttn" | "stqn":
            return STTN
        case "basq":
            return BASQ_FINETUNE if role == "finetune" else BASQ
        case "pact-sawb" | "pact-dorefa" if warm_start:
            return SGD_WARM
        case _:
            return {}


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
