"""Quantization-aware training: one loop, resumable at any step, deterministic for a seed."""

import math
import os
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from bitfold.models.data import LabelledImages
from bitfold.models.quantizers.pact import PactActivation

STATE_FORMAT = "bitfold/training-state/1"


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """Recipe: SGD with Nesterov momentum, one linear warm-up, then cosine to zero."""

    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.1
    weight_decay: float = 5e-4
    clip_decay: float = 5e-4
    momentum: float = 0.9
    warmup_epochs: float = 1.0
    label_smoothing: float = 0.0
    crop_padding: int = 2
    flip: bool = True
    seed: int = 0
    compile: bool = True
    save_every_s: float = 60.0


@dataclass(frozen=True, slots=True)
class Progress:
    """One report of the loop; accuracies are fractions."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    train_accuracy: float
    images_per_s: float


def learning_rate_factor(step: int, *, warmup_steps: int, num_steps: int) -> float:
    """Factor in [0, 1]: linear to 1 over the warm-up, then half a cosine to 0."""
    if step < warmup_steps:
        return (step + 1) / warmup_steps
    return 0.5 * (1 + math.cos(math.pi * (step - warmup_steps) / max(1, num_steps - warmup_steps)))


def augment(
    images: Tensor, *, padding: int, fill: int, flip: bool, generator: torch.Generator
) -> Tensor:
    """Shift each image by up to ``padding`` pixels and mirror half of them; (N, C, H, W) in and out."""
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


def parameter_groups(model: nn.Module, config: TrainConfig) -> list[dict[str, Any]]:
    """Weights decay by ``weight_decay``, PACT clips by ``clip_decay``, vectors not at all."""
    clips = {id(m.clip) for m in model.modules() if isinstance(m, PactActivation)}
    groups: dict[str, list[nn.Parameter]] = {"weights": [], "clips": [], "rest": []}
    for parameter in model.parameters():
        kind = "clips" if id(parameter) in clips else "weights" if parameter.dim() > 1 else "rest"
        groups[kind].append(parameter)
    decay = {"weights": config.weight_decay, "clips": config.clip_decay, "rest": 0.0}
    return [{"params": params, "weight_decay": decay[kind]} for kind, params in groups.items()]


def to_nchw(images: np.ndarray) -> Tensor:
    """(N, H, W, C) uint8 array → (N, C, H, W) uint8 tensor."""
    return torch.from_numpy(np.ascontiguousarray(images.transpose(0, 3, 1, 2)))


@torch.no_grad()
def evaluate(model: nn.Module, data: LabelledImages, *, batch_size: int = 500) -> float:
    """Top-1 accuracy (a fraction) of ``model`` in eval mode, float32."""
    was_training = model.training
    model.eval()
    images, labels = to_nchw(data.images), torch.from_numpy(data.labels)
    hits = 0
    for start in range(0, len(images), batch_size):
        logits = model(images[start : start + batch_size].float())
        hits += int((logits.argmax(1) == labels[start : start + batch_size]).sum())
    model.train(was_training)
    return hits / len(images)


class Trainer:
    """The state of one training run: model, optimizer and the number of steps done."""

    def __init__(
        self, model: nn.Module, data: LabelledImages, config: TrainConfig, *, fill: int
    ) -> None:
        self.model = model.to(memory_format=torch.channels_last)
        self.config = config
        self.fill = fill
        self.images = to_nchw(data.images)
        self.labels = torch.from_numpy(data.labels)
        self.steps_per_epoch = len(self.images) // config.batch_size
        self.num_steps = self.steps_per_epoch * config.epochs
        self.step = 0
        self.history: list[dict[str, float]] = []
        self.optimizer = torch.optim.SGD(
            parameter_groups(model, config),
            lr=config.learning_rate,
            momentum=config.momentum,
            nesterov=True,
        )

        def loss_and_hits(images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
            logits = self.model(images)
            loss = functional.cross_entropy(logits, labels, label_smoothing=config.label_smoothing)
            return loss, (logits.argmax(1) == labels).sum()

        self.loss_and_hits = torch.compile(loss_and_hits) if config.compile else loss_and_hits

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Augmented images (float32, channels last) and labels of one step: a function of the seed."""
        epoch, i = divmod(step, self.steps_per_epoch)
        order = torch.randperm(
            len(self.images),
            generator=torch.Generator().manual_seed(self.config.seed * 7919 + epoch),
        )
        chosen = order[i * self.config.batch_size : (i + 1) * self.config.batch_size]
        generator = torch.Generator().manual_seed((self.config.seed << 32) + step)
        images = augment(
            self.images[chosen],
            padding=self.config.crop_padding,
            fill=self.fill,
            flip=self.config.flip,
            generator=generator,
        )
        return images.float().contiguous(memory_format=torch.channels_last), self.labels[chosen]

    def train_step(self) -> tuple[float, int]:
        """One optimizer step; returns the loss and the number of right answers in the batch."""
        factor = learning_rate_factor(
            self.step,
            warmup_steps=int(self.config.warmup_epochs * self.steps_per_epoch),
            num_steps=self.num_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.learning_rate * factor
        images, labels = self.batch(self.step)
        loss, hits = self.loss_and_hits(images, labels)
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        self.step += 1
        return float(loss.detach()), int(hits)

    def state(self) -> dict[str, Any]:
        """Everything ``restore`` needs to continue as if never stopped."""
        return {
            "format": STATE_FORMAT,
            "config": asdict(self.config),
            "step": self.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.history,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.step = state["step"]
        self.history = state["history"]


def save_atomically(state: dict[str, Any], path: Path) -> None:
    """Write beside ``path`` and rename."""
    partial = path.with_name(path.name + ".partial")
    torch.save(state, partial)
    os.replace(partial, path)


def run_training(
    trainer: Trainer,
    *,
    state_path: Path,
    test: LabelledImages | None,
    report: Callable[[Progress], None] = lambda progress: None,
) -> None:
    """Train to the end, saving to ``state_path`` now and then and resuming from it if it exists."""
    if state_path.exists():
        trainer.restore(torch.load(state_path, weights_only=True))
    trainer.model.train()
    last_save = time.monotonic()
    hits, seen, loss_sum, started = 0, 0, 0.0, time.monotonic()
    while trainer.step < trainer.num_steps:
        loss, batch_hits = trainer.train_step()
        hits, seen, loss_sum = (
            hits + batch_hits,
            seen + trainer.config.batch_size,
            loss_sum + loss * trainer.config.batch_size,
        )
        if trainer.step % 20 == 0:
            report(
                Progress(
                    trainer.step // trainer.steps_per_epoch,
                    trainer.step,
                    trainer.num_steps,
                    loss_sum / seen,
                    hits / seen,
                    seen / (time.monotonic() - started),
                )
            )
        if trainer.step % trainer.steps_per_epoch == 0:
            record = {
                "epoch": trainer.step // trainer.steps_per_epoch,
                "loss": loss_sum / seen,
                "train_accuracy": hits / seen,
                "seconds": time.monotonic() - started,
            }
            if test is not None:
                record["test_accuracy"] = evaluate(trainer.model, test)
                trainer.model.train()
            trainer.history.append(record)
            print(record, flush=True)
            hits, seen, loss_sum, started = 0, 0, 0.0, time.monotonic()
        if (
            time.monotonic() - last_save > trainer.config.save_every_s
            or trainer.step == trainer.num_steps
        ):
            save_atomically(trainer.state(), state_path)
            last_save = time.monotonic()
