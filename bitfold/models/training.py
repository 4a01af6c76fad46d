"""Quantization-aware training from a request to a checkpoint: resumable, deterministic.

Beside ``CKPT`` lies ``CKPT.state`` until training is done: all that is needed to go on after a
kill at any moment and to end with the very same weights.
"""

import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch

import bitfold
from bitfold.errors import InputError, UsageError
from bitfold.files import write_atomically
from bitfold.models import supernet
from bitfold.models.batches import make_batches
from bitfold.models.checkpoints import read_tensors, save_checkpoint, to_bytes
from bitfold.models.data import ImageSource
from bitfold.models.distillation import load_teacher
from bitfold.models.distributed import Share, choose_device, from_first, process_group
from bitfold.models.evaluation import evaluate
from bitfold.models.first_weights import prepare
from bitfold.models.nets import build_network
from bitfold.models.parameter_groups import freeze_all_but_biases_and_clips
from bitfold.models.reproducible import reproducibly, sound_convolutions
from bitfold.models.request import (
    TrainRequest,
    describe,
    load_splits,
    make_spec,
    pixel_statistics,
)
from bitfold.models.spec import NetSpec
from bitfold.models.trainer import EpochSums, Trainer, TrainerState
from bitfold.models.training_log import write_log

__all__ = [
    "Progress",
    "TrainRequest",
    "TrainResult",
    "load_splits",
    "make_spec",
    "pixel_statistics",
    "resume",
    "train_network",
    "versions",
]

STATE_FORMAT = "bitfold/training-state/3"


@dataclass(frozen=True, slots=True)
class Progress:
    """One report, after every step; ``loss`` and accuracy are of the epoch so far."""

    epoch: int
    step: int
    num_steps: int
    loss: float
    train_accuracy: float
    images_per_s: float
    seconds_left: float


@dataclass(frozen=True, slots=True)
class TrainResult:
    """A finished run; ``seconds`` are this call's, accuracies are fractions.

    Of several processes only the first has tested the network and written files (``is_first``).
    """

    checkpoint: Path
    spec: NetSpec
    test_accuracy: float | None
    history: tuple[Mapping[str, float], ...]
    seconds: float
    resumed_from_step: int
    record: Mapping[str, object] = field(default_factory=dict)
    is_first: bool = True


Report = Callable[[Progress], None]


@dataclass(frozen=True, slots=True)
class _Run:
    """What stays the same while a training runs."""

    request: TrainRequest
    trainer: Trainer
    test_set: ImageSource
    identity: Mapping[str, object]


def train_network(request: TrainRequest, *, report: Report = lambda progress: None) -> TrainResult:
    """Train, or go on training, and write the checkpoint.

    The same request on the same machine with the same number of threads gives the same weights,
    interrupted or not. Started by ``torchrun``, all processes share the work. Raises UsageError
    for a request that makes no sense or differs from the interrupted one, InputError for
    unreadable data, MissingDependencyError without a C++ compiler (unless ``config.compile`` is
    off), OutputError when a file cannot be written.
    """
    started = time.monotonic()
    device = choose_device(request.device)
    with process_group(device) as share, reproducibly(request.threads):
        run = _prepare(request, device, share)
        trainer, is_first = run.trainer, share.is_first
        resumed = resume(trainer, request.state_path, identity=run.identity)
        with sound_convolutions(trainer.model):
            _train_to_the_end(run, report)
        history = tuple(trainer.counters.history)
        accuracy = history[-1].get("test_accuracy") if history else None
        record = _record(request, history, accuracy)
        if is_first:
            save_checkpoint(request.output, trainer.model, record=record)
            _log(run, record)
            request.state_path.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    spec = trainer.model.spec
    return TrainResult(request.output, spec, accuracy, history, seconds, resumed, record, is_first)


def resume(trainer: Trainer, path: Path, *, identity: Mapping[str, object]) -> int:
    """Restore ``trainer`` from ``path`` if there is such a file; the step that it had reached.

    The first of several processes reads it for all.
    """
    is_first = trainer.share.is_first
    content = read_tensors(path) if is_first and path.exists() else None
    content = from_first(content, trainer.share)
    if content is None:
        return 0
    todo = "Repeat the interrupted command as it was, or delete this file to start afresh."
    if not isinstance(content, dict) or content.get("format") != STATE_FORMAT:
        raise InputError("not the state of a training run", where=f"file {path}", todo=todo)
    stored = content.get("identity")
    if stored != identity:
        known = stored if isinstance(stored, dict) else {}
        differing = [name for name in identity if known.get(name) != identity[name]]
        raise UsageError(
            f"an interrupted run with other settings is in the way: {', '.join(differing)}",
            where=f"file {path}",
            todo=todo,
        )
    try:
        trainer.restore(cast(TrainerState, content["trainer"]))
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(
            f"the state is damaged: {error}", where=f"file {path}", todo=todo
        ) from error
    return trainer.counters.step


def _prepare(request: TrainRequest, device: torch.device, share: Share) -> _Run:
    train_set, test_set = load_splits(request)
    spec = make_spec(request, train_set)
    config = request.config
    torch.manual_seed(config.seed)
    model = build_network(spec).to(device)
    alone = make_batches(train_set, config, share=Share())
    with sound_convolutions(model):
        prepare(model, alone, config, init=request.init)
    if request.role == "finetune":
        freeze_all_but_biases_and_clips(model)
    teacher = None if request.teacher is None else load_teacher(request.teacher, spec).to(device)
    batches = make_batches(train_set, config, share=share, workers=request.workers)
    trainer = Trainer(model, batches, config, teacher=teacher, share=share)
    return _Run(request, trainer, test_set, request.identity(spec))


def _train_to_the_end(run: _Run, report: Report) -> None:
    trainer, request = run.trainer, run.request
    counters, is_first = trainer.counters, trainer.share.is_first
    trainer.network.train()
    last_save = time.monotonic()
    while not trainer.is_finished():
        started = time.monotonic()
        trainer.train_step()
        counters.sums.seconds += time.monotonic() - started
        report(_progress(trainer))
        if counters.step % trainer.steps_per_epoch == 0:
            _close_epoch(run)
        due = time.monotonic() - last_save >= request.config.save_every_s
        if is_first and (trainer.is_finished() or due):
            content = {"format": STATE_FORMAT, "identity": run.identity, "trainer": trainer.state()}
            write_atomically(request.state_path, to_bytes(content))
            last_save = time.monotonic()


def _close_epoch(run: _Run) -> None:
    trainer = run.trainer
    counters, sums = trainer.counters, trainer.counters.sums
    record = {
        "epoch": float(counters.step // trainer.steps_per_epoch),
        "learning_rate": trainer.learning_rate(counters.step - 1),
        "loss": sums.loss / sums.images,
        "train_accuracy": sums.hits / sums.images,
        "seconds": sums.seconds,
    }
    if len(run.test_set) and trainer.share.is_first:
        if trainer.is_supernet:
            supernet.select_tested(trainer.model)
        record["test_accuracy"] = evaluate(trainer.model, run.test_set)
    counters.history.append(record)
    counters.sums = EpochSums()
    _log(run, {"finished": False})


def _log(run: _Run, record: Mapping[str, object]) -> None:
    if run.request.log is not None and run.trainer.share.is_first:
        write_log(run.request.log, run.trainer.counters.history, record)


def _progress(trainer: Trainer) -> Progress:
    counters, sums = trainer.counters, trainer.counters.sums
    speed = sums.images / max(sums.seconds, 1e-9)
    return Progress(
        epoch=(counters.step - 1) // trainer.steps_per_epoch,
        step=counters.step,
        num_steps=trainer.num_steps,
        loss=sums.loss / sums.images,
        train_accuracy=sums.hits / sums.images,
        images_per_s=speed,
        seconds_left=(trainer.num_steps - counters.step) * trainer.config.batch_size / speed,
    )


def _record(
    request: TrainRequest, history: tuple[Mapping[str, float], ...], accuracy: float | None
) -> dict[str, object]:
    return {
        **describe(request),
        "history": [dict(entry) for entry in history],
        "test_accuracy": accuracy,
        "versions": versions(),
        "threads": torch.get_num_threads(),
    }


def versions() -> dict[str, str]:
    """Versions that a number depends on."""
    return {
        "bitfold": str(bitfold.__version__),
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "numpy": np.__version__,
    }
