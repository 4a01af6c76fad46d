"""The training loop's state and one step of it: a function of the seed and the step number."""

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import TypedDict

import torch
from torch import Tensor, nn

from bitfold.errors import MissingDependencyError, UsageError
from bitfold.models import supernet
from bitfold.models.batches import STEP_SHIFT, Batches
from bitfold.models.distillation import mixed_loss, teacher_logits
from bitfold.models.distributed import Share, average, check_batch, parallel
from bitfold.models.layers import QuantConv2d, QuantLinear
from bitfold.models.nets import QuantNet
from bitfold.models.parameter_groups import make_optimizer
from bitfold.models.precision import autocast, in_full_precision
from bitfold.models.protocol import ActivationQuantizer
from bitfold.models.recipe import TrainConfig, learning_rate_factor

LossAndHits = Callable[[Tensor, Tensor, Tensor | None], tuple[Tensor, Tensor]]
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
    """A network, its optimizer and batches; ``train_step`` moves it by one batch.

    A supernet is trained in two stages (``bitfold.models.supernet``), anything else in one; each
    has its own optimizer and the whole schedule of the learning rate.
    """

    def __init__(
        self,
        model: QuantNet,
        batches: Batches,
        config: TrainConfig,
        *,
        teacher: nn.Module | None = None,
        share: Share | None = None,
    ) -> None:
        self.model = model
        _channels_last(model)
        self.batches = batches
        self.config = config
        self.teacher = teacher
        self.share = share or Share()
        check_batch(config.batch_size, self.share)
        self.steps_per_epoch = batches.steps_per_epoch
        self.num_steps = self.steps_per_epoch * config.epochs
        self.is_supernet = supernet.is_supernet(model)
        self.stage_starts = _stage_starts(self.is_supernet, config.epochs, self.steps_per_epoch)
        self.network = parallel(self.model, self.share, some_unused=self.is_supernet)
        if config.precision == "bfloat16":
            in_full_precision(self.model)
        first = next(self.model.parameters())
        self.device, self.dtype = first.device, first.dtype
        self.counters = Counters()
        self._enter_stage(0)
        constrain(model)
        self.loss_and_hits: LossAndHits = self._eager_loss_and_hits
        # Branches switch at every step, processes talk inside every batch norm: both run eagerly.
        if config.compile and not self.is_supernet and self.share.size == 1:
            if self.device.type == "cpu":
                require_compiler()
            self.loss_and_hits = torch.compile(self._eager_loss_and_hits)

    def is_finished(self) -> bool:
        """Whether all steps are done."""
        return self.counters.step >= self.num_steps

    def train_step(self) -> None:
        """One optimizer step; raises UsageError when the loss is no longer a number."""
        counters = self.counters
        self._prepare_step(counters.step)
        images, labels = self.batch(counters.step)
        loss, hits = self._evaluated(images, labels)
        sums = average(torch.stack([loss.detach(), hits.to(loss.dtype)]), self.share).tolist()
        if not math.isfinite(sums[0]):
            raise UsageError(
                f"training diverged: the loss is {sums[0]}",
                where=f"step {counters.step} of {self.num_steps}",
                todo="Lower the learning rate (--lr) and start again without the .state file.",
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        if self.config.gradient_norm:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_norm)
        self.optimizer.step()
        constrain(self.model)
        counters.step += 1
        counters.sums.images += self.config.batch_size
        counters.sums.hits += round(sums[1] * self.share.size)
        counters.sums.loss += sums[0] * self.config.batch_size

    def batch(self, step: int) -> tuple[Tensor, Tensor]:
        """This process's augmented images (channels last) and labels of one step."""
        images, labels = self.batches.batch(step)
        pixels = images.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        return pixels, labels.to(self.device)

    def learning_rate(self, step: int) -> float:
        """The rate of step ``step``, before the factors of the parameter groups."""
        stage = self._stage_of(step)
        ends = [*self.stage_starts[1:], self.num_steps]
        return self.config.learning_rate * learning_rate_factor(
            step - self.stage_starts[stage],
            warmup_steps=int(self.config.warmup_epochs * self.steps_per_epoch),
            num_steps=ends[stage] - self.stage_starts[stage],
        )

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
        # A state that was saved just before a stage begins still has the last stage's optimizer.
        self._enter_stage(self._stage_of(max(0, state["step"] - 1)))
        self.optimizer.load_state_dict(state["optimizer"])
        sums = state["sums"]
        self.counters = Counters(
            state["step"],
            list(state["history"]),
            EpochSums(int(sums["images"]), int(sums["hits"]), sums["loss"], sums["seconds"]),
        )

    def _prepare_step(self, step: int) -> None:
        if step in self.stage_starts[1:]:
            supernet.refit_weight_steps(self.model)
            self._enter_stage(self._stage_of(step))
        rate = self.learning_rate(step)
        for group in self.optimizer.param_groups:
            group["lr"] = rate * group["rate"]
        if self.is_supernet:
            supernet.select_random(self.model, seed=self.config.seed, step=step)
        # Dropout draws from torch's generator, as in a run that was never interrupted.
        torch.manual_seed((self.config.seed << STEP_SHIFT) + step)

    def _enter_stage(self, stage: int) -> None:
        if self.is_supernet:
            supernet.quantize_weights(self.model, enabled=stage > 0)
        self.optimizer = make_optimizer(self.model, self.config)

    def _stage_of(self, step: int) -> int:
        return sum(step >= start for start in self.stage_starts) - 1

    def _eager_loss_and_hits(
        self, images: Tensor, labels: Tensor, soft: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        with autocast(self.config.precision, self.device):
            logits = self.network(images)
        loss = mixed_loss(
            logits.to(self.dtype),
            labels,
            soft,
            share=self.config.teacher_weight,
            label_smoothing=self.config.label_smoothing,
        )
        return loss, (logits.argmax(1) == labels).sum()

    def _evaluated(self, images: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        soft = teacher_logits(self.teacher, images)
        try:
            return self.loss_and_hits(images, labels, soft)
        except RuntimeError as error:
            if not type(error).__module__.startswith(("torch._dynamo", "torch._inductor")):
                raise
            raise MissingDependencyError(
                f"torch.compile failed: {str(error).partition(chr(10))[0]}",
                where="torch.compile",
                todo=WITHOUT_COMPILER,
            ) from error


def _channels_last(model: nn.Module) -> None:
    """Bring every convolution's weights into the order of its inputs; pairs of kernels stay."""
    for parameter in model.parameters():
        if parameter.dim() == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _stage_starts(is_supernet: bool, epochs: int, steps_per_epoch: int) -> tuple[int, ...]:  # noqa: FBT001
    """First step of each stage; an odd epoch more goes to the last."""
    return (0, epochs // 2 * steps_per_epoch) if is_supernet and epochs > 1 else (0,)


@torch.no_grad()
def constrain(model: nn.Module) -> None:
    """Bring latent weights and learned steps back into their legal ranges."""
    for module in model.modules():
        if isinstance(module, ActivationQuantizer):
            module.constrain()
        elif isinstance(module, QuantConv2d | QuantLinear):
            module.weight_quantizer.constrain(module.weight)


def require_compiler() -> None:
    """Raise MissingDependencyError unless the C++ compiler of torch.compile is installed."""
    compiler = os.environ.get("CXX") or "g++"
    if shutil.which(compiler) is None:
        raise MissingDependencyError(
            f"torch.compile needs a C++ compiler, and there is no {compiler}",
            where="torch.compile",
            todo=WITHOUT_COMPILER,
        )
