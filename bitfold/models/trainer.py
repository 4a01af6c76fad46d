"""The training loop's state and one step of it: a function of the seed and the step number."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import torch
from torch import Tensor
from torch.nn import functional

from bitfold.errors import MissingDependencyError, UsageError
from bitfold.models.data import LabelledImages
from bitfold.models.evaluation import to_nchw
from bitfold.models.nets import PreActResNet
from bitfold.models.recipe import TrainConfig, augment, learning_rate_factor, make_optimizer

LossAndHits = Callable[[Tensor, Tensor], tuple[Tensor, Tensor]]
# The order of images in an epoch and the augmentation in a step come from separate streams.
ORDER_STRIDE = 7919
STEP_SHIFT = 32
WITHOUT_COMPILER = "Install g++ and the Python headers, or pass --no-compile: slower, same recipe."


@dataclass(slots=True)
class EpochSums:
    """What an unfinished epoch has added up so far."""

    images: int = 0
    hits: int = 0
    loss: float = 0.0
    seconds: float = 0.0


class TrainerState(TypedDict):
    """Everything that ``Trainer.restore`` needs to go on as if it had never stopped."""

    step: int
    model: dict[str, Tensor]
    optimizer: dict[str, object]
    history: list[dict[str, float]]
    sums: dict[str, float]


@dataclass(slots=True)
class Counters:
    """How far a run has come; one record in ``history`` for every finished epoch."""

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    sums: EpochSums = field(default_factory=EpochSums)


class Trainer:
    """A network, its optimizer and data; ``train_step`` moves it by one batch."""

    def __init__(self, model: PreActResNet, data: LabelledImages, config: TrainConfig) -> None:
        if data.labels is None:
            raise UsageError("training needs labels", todo="Name data that has labels.")
        if len(data.images) < config.batch_size:
            raise UsageError(
                f"{len(data.images)} training images do not fill one batch of {config.batch_size}",
                where="batch size",
                todo=f"Use batches of at most {len(data.images)} images.",
            )
        self.model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.config = config
        self.images = to_nchw(data.images)
        self.labels = torch.from_numpy(data.labels.copy())
        self.steps_per_epoch = len(self.images) // config.batch_size
        self.num_steps = self.steps_per_epoch * config.epochs
        self.optimizer = make_optimizer(model, config)
        self.counters = Counters()
        self.loss_and_hits: LossAndHits = self._eager_loss_and_hits
        if config.compile:
            require_compiler()
            self.loss_and_hits = torch.compile(self._eager_loss_and_hits)

    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.counters.step >= self.num_steps

    def train_step(self) -> None:
        """One optimizer step; raises UsageError when the loss is no longer a number."""
        counters, config = self.counters, self.config
        factor = learning_rate_factor(
            counters.step,
            warmup_steps=int(config.warmup_epochs * self.steps_per_epoch),
            num_steps=self.num_steps,
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * factor
        images, labels = self.batch(counters.step)
        loss, hits = self._evaluated(images, labels)
        value = float(loss.detach())
        if not math.isfinite(value):
            raise UsageError(
                f"training diverged: the loss is {value}",
                where=f"step {counters.step} of {self.num_steps}",
                todo="Lower the learning rate (--lr) and start again without the .state file.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self.optimizer.step()
        counters.step += 1
        counters.sums.images += config.batch_size
        counters.sums.hits += int(hits)
        counters.sums.loss += value * config.batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """Augmented images (float32, channels last) and labels of one step."""
        config = self.config
        epoch, i = divmod(step, self.steps_per_epoch)
        order = torch.randperm(
            len(self.images),
            generator=torch.Generator().manual_seed(config.seed * ORDER_STRIDE + epoch),
        )
        chosen = order[i * config.batch_size : (i + 1) * config.batch_size]
        images = augment(
            self.images[chosen],
            padding=config.crop_padding,
            fill=config.crop_fill,
            flip=config.flip,
            generator=torch.Generator().manual_seed((config.seed << STEP_SHIFT) + step),
        )
        return images.float().contiguous(memory_format=torch.channels_last), self.labels[chosen]

    def state(self) -> TrainerState:
        """The state between two steps."""
        return {
            "step": self.counters.step,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "history": self.counters.history,
            "sums": asdict(self.counters.sums),
        }

    def restore(self, state: TrainerState) -> None:
        """Continue from ``state``."""
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        sums = state["sums"]
        self.counters = Counters(
            state["step"],
            list(state["history"]),
            EpochSums(int(sums["images"]), int(sums["hits"]), sums["loss"], sums["seconds"]),
        )

    def _eager_loss_and_hits(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.model(images)
        smoothing = self.config.label_smoothing
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        return loss, (logits.argmax(1) == labels).sum()

    def _evaluated(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        try:
            return self.loss_and_hits(images, labels)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise MissingDependencyError(
                f"torch.compile failed: {str(error).partition(chr(10))[0]}",
                where="torch.compile",
                todo=WITHOUT_COMPILER,
            ) from error


def require_compiler() -> None:
    """Raise MissingDependencyError unless the C++ compiler of torch.compile is installed."""
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        raise MissingDependencyError(
            f"torch.compile needs a C++ compiler, and there is no {compiler}",
            where="torch.compile",
            todo=WITHOUT_COMPILER,
        )
