"""Quantization-aware training from a request to a checkpoint: resumable, deterministic.

Beside ``CKPT`` lies ``CKPT.state`` until training is done: all that is needed to go on after a
kill at any moment and to end with the very same weights.
"""

import contextlib
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

import bitfold
from bitfold.errors import InputError, UsageError
from bitfold.files import write_atomically
from bitfold.models.checkpoints import load_checkpoint, read_tensors, save_checkpoint, to_bytes
from bitfold.models.data import LabelledImages, load_images
from bitfold.models.evaluation import evaluate
from bitfold.models.nets import PreActResNet, build_network
from bitfold.models.recipe import TrainConfig
from bitfold.models.spec import DEFAULT_GRID, GridKind, NetSpec, Preprocessing
from bitfold.models.trainer import EpochSums, Trainer, TrainerState

STATE_FORMAT = "bitfold/training-state/2"
HELD_OUT_EVERY = 10
# torch 2.13.0: oneDNN's weight gradient of a strided 1x1 convolution, channels last, writes out of
# bounds at 4 input channels or fewer (7 were seen to be right): without oneDNN below 8.
LEAST_ONEDNN_CHANNELS = 8


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to train, on what, and where to write it.

    ``data`` and ``test_data`` are names for ``load_images``; data with one split is tested on
    every tenth image, held out. ``preprocessing`` defaults to the training pixels' own mean and
    standard deviation, ``weight_grid`` to the width's. ``init`` is a checkpoint of the same
    network at any bits. ``threads`` None leaves torch's setting alone.
    """

    net: str
    bits: tuple[int, int]
    output: Path
    config: TrainConfig
    method: str = "pact-sawb"
    data: str = "fashion-mnist"
    test_data: str | None = None
    size: tuple[int, int, int] | None = None
    weight_grid: GridKind | None = None
    width: float = 1.0
    preprocessing: Preprocessing | None = None
    init: Path | None = None
    threads: int | None = None

    @property
    def state_path(self) -> Path:
        """Where the unfinished run is kept."""
        return self.output.with_name(self.output.name + ".state")


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
    """A finished run; ``seconds`` are this call's, accuracies are fractions."""

    checkpoint: Path
    spec: NetSpec
    test_accuracy: float | None
    history: tuple[Mapping[str, float], ...]
    seconds: float
    resumed_from_step: int
    record: Mapping[str, object] = field(default_factory=dict)


Report = Callable[[Progress], None]


def train_network(request: TrainRequest, *, report: Report = lambda progress: None) -> TrainResult:
    """Train, or go on training, and write the checkpoint.

    The same request on the same machine with the same number of threads gives the same weights,
    interrupted or not. Raises UsageError for a request that makes no sense or differs from the
    interrupted one, InputError for unreadable data, MissingDependencyError without a C++ compiler
    (unless ``config.compile`` is off), OutputError when a file cannot be written.
    """
    started = time.monotonic()
    train_set, test_set = load_splits(request)
    spec = make_spec(request, train_set)
    with _reproducibly(request.threads):
        torch.manual_seed(request.config.seed)
        model = build_network(spec)
        if request.init is not None:
            start_from(model, request.init)
        trainer = Trainer(model, train_set, request.config)
        identity = _identity(request, spec)
        resumed = resume(trainer, request.state_path, identity=identity)
        with _sound_convolutions(model):
            _train_to_the_end(trainer, request, test_set=test_set, identity=identity, report=report)
        history = tuple(trainer.counters.history)
        accuracy = history[-1].get("test_accuracy") if history else None
        record = _record(request, history, accuracy)
        save_checkpoint(request.output, trainer.model, record=record)
    request.state_path.unlink(missing_ok=True)
    seconds = time.monotonic() - started
    return TrainResult(request.output, spec, accuracy, history, seconds, resumed, record)


def load_splits(request: TrainRequest) -> tuple[LabelledImages, LabelledImages]:
    """Training and test images; one-split data gives every tenth image to the test."""
    train_set = load_images(request.data, "train", size=request.size)
    if train_set.labels is None:
        raise UsageError(
            "training needs labels", where=f"data {request.data}", todo="Name data that has them."
        )
    if request.test_data is not None:
        return train_set, load_images(request.test_data, "test", size=request.size)
    if request.data.partition(":")[0] == "fashion-mnist":
        return train_set, load_images(request.data, "test")
    held_out = np.arange(len(train_set.images)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return _subset(train_set, ~held_out), _subset(train_set, held_out)


def pixel_statistics(images: LabelledImages) -> Preprocessing:
    """Mean and standard deviation of all pixels, to the nearest integer, the latter at least 1."""
    counts = np.bincount(images.images.reshape(-1), minlength=256)
    values = np.arange(256)
    mean = float(counts @ values) / float(counts.sum())
    variance = float(counts @ np.square(values - mean)) / float(counts.sum())
    return Preprocessing(round(mean), max(1, round(variance**0.5)))


def make_spec(request: TrainRequest, train_set: LabelledImages) -> NetSpec:
    """The network that a request asks for, on the data that it names."""
    height, width, channels = train_set.images.shape[1:]
    return NetSpec(
        net=request.net,
        method=request.method,
        bits=request.bits,
        input_shape=(height, width, channels),
        class_names=train_set.class_names,
        preprocessing=request.preprocessing or pixel_statistics(train_set),
        weight_grid=request.weight_grid or DEFAULT_GRID.get(request.bits[0], "odd"),
        width=request.width,
    )


def start_from(model: PreActResNet, checkpoint: Path) -> None:
    """Copy the weights of the same network at other bits; weight quantizers keep their own state.

    Raises UsageError unless network, width, input and number of classes agree.
    """
    loaded = load_checkpoint(checkpoint)
    for name in ("net", "width", "input_shape", "preprocessing"):
        want, got = getattr(model.spec, name), getattr(loaded.spec, name)
        if want != got:
            raise UsageError(
                f"the first weights are of another network: {name} {got}, not {want}",
                where=f"file {checkpoint}",
                todo="Start from a checkpoint of the same network, or from scratch.",
            )
    if len(model.spec.class_names) != len(loaded.spec.class_names):
        raise UsageError(
            f"the first weights have {len(loaded.spec.class_names)} classes, "
            f"the data {len(model.spec.class_names)}",
            where=f"file {checkpoint}",
            todo="Start from a network with the same classes.",
        )
    weights = {
        name: tensor
        for name, tensor in loaded.model.state_dict().items()
        if ".weight_quantizer." not in name
    }
    model.load_state_dict(weights, strict=False)


def resume(trainer: Trainer, path: Path, *, identity: Mapping[str, object]) -> int:
    """Restore ``trainer`` from ``path`` if there is such a file; the step that it had reached."""
    if not path.exists():
        return 0
    content = read_tensors(path)
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


def _train_to_the_end(
    trainer: Trainer,
    request: TrainRequest,
    *,
    test_set: LabelledImages,
    identity: Mapping[str, object],
    report: Report,
) -> None:
    counters = trainer.counters
    trainer.model.train()
    last_save = time.monotonic()
    while not trainer.is_finished():
        started = time.monotonic()
        trainer.train_step()
        counters.sums.seconds += time.monotonic() - started
        report(_progress(trainer))
        if counters.step % trainer.steps_per_epoch == 0:
            _close_epoch(trainer, test_set)
        if trainer.is_finished() or time.monotonic() - last_save >= request.config.save_every_s:
            content = {"format": STATE_FORMAT, "identity": identity, "trainer": trainer.state()}
            write_atomically(request.state_path, to_bytes(content))
            last_save = time.monotonic()


def _close_epoch(trainer: Trainer, test_set: LabelledImages) -> None:
    counters, sums = trainer.counters, trainer.counters.sums
    record = {
        "epoch": float(counters.step // trainer.steps_per_epoch),
        "loss": sums.loss / sums.images,
        "train_accuracy": sums.hits / sums.images,
        "seconds": sums.seconds,
    }
    if len(test_set.images):
        record["test_accuracy"] = evaluate(trainer.model, test_set)
    counters.history.append(record)
    counters.sums = EpochSums()


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


@contextlib.contextmanager
def _reproducibly(threads: int | None) -> Iterator[None]:
    """Deterministic algorithms, a generator of its own and ``threads`` threads, then as before."""
    before = torch.are_deterministic_algorithms_enabled()
    threads_before = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]):
        torch.use_deterministic_algorithms(True)  # noqa: FBT003  # torch's signature
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.use_deterministic_algorithms(before)
            torch.set_num_threads(threads_before)


@contextlib.contextmanager
def _sound_convolutions(model: PreActResNet) -> Iterator[None]:
    """Without oneDNN for a network so narrow that its gradients would be wrong, then as before."""
    narrow = any(
        isinstance(m, nn.Conv2d)
        and m.kernel_size == (1, 1)
        and m.in_channels < LEAST_ONEDNN_CHANNELS
        for m in model.modules()
    )
    if not narrow:
        yield
        return
    # Without the last argument this setter changes the precision as well.
    flags = torch.backends.mkldnn.set_flags
    before, *_ = flags(_enabled=False, _fp32_precision=None)  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        flags(_enabled=before, _fp32_precision=None)  # type: ignore[no-untyped-call]


def _identity(request: TrainRequest, spec: NetSpec) -> dict[str, object]:
    """What must agree for a run to go on; plain values."""
    fields = asdict(request.config)
    del fields["save_every_s"]
    init = None if request.init is None else str(request.init.absolute())
    return {
        **fields,
        "data": request.data,
        "test_data": request.test_data,
        "init": init,
        **spec.to_dict(),
    }


def _record(
    request: TrainRequest, history: tuple[Mapping[str, float], ...], accuracy: float | None
) -> dict[str, object]:
    return {
        "config": asdict(request.config),
        "data": request.data,
        "test_data": request.test_data,
        "init": None if request.init is None else request.init.name,
        "seed": request.config.seed,
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


def _subset(data: LabelledImages, chosen: NDArray[np.bool_]) -> LabelledImages:
    labels = None if data.labels is None else data.labels[chosen]
    return LabelledImages(data.images[chosen], labels, data.class_names)
