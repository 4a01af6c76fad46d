"""What a training run is asked to do, and the data and network that follow from it."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from bitfold.errors import UsageError
from bitfold.models.data import ImageSource, open_images
from bitfold.models.image_folder import split_folder
from bitfold.models.recipe import Role, TrainConfig
from bitfold.models.spec import DEFAULT_GRID, GridKind, NetSpec, Preprocessing, Stem

HELD_OUT_EVERY = 10
STATISTICS_IMAGES = 2000  # of a folder: enough for a mean and a deviation to whole numbers
FOLDER = "folder"


@dataclass(frozen=True, slots=True)
class TrainRequest:
    """What to train, on what, and where to write it.

    ``data`` and ``test_data`` are names for ``load_images``; data with one split is tested on
    every tenth image, held out. ``preprocessing`` defaults to the training pixels' own mean and
    standard deviation, ``weight_grid`` to the width's. ``init`` is a checkpoint of the same
    network at any bits, in float, or BASQ's supernet; ``teacher`` one to learn from. ``genome``
    and ``block_bits`` are BASQ's. ``log`` is where the epochs are logged: ``log``.csv and .json.
    ``threads`` None leaves torch's setting alone; ``workers`` are processes that read image files.
    """

    net: str
    bits: tuple[int, int]
    output: Path
    config: TrainConfig
    method: str = "pact-sawb"
    role: Role = "network"
    data: str = "fashion-mnist"
    test_data: str | None = None
    size: tuple[int, int, int] | None = None
    weight_grid: GridKind | None = None
    width: float = 1.0
    stem: Stem = "auto"
    genome: tuple[int, ...] = ()
    block_bits: tuple[int, ...] = ()
    per_kernel: bool = False
    per_channel: bool = False
    preprocessing: Preprocessing | None = None
    init: Path | None = None
    teacher: Path | None = None
    log: Path | None = None
    threads: int | None = None
    workers: int = 0
    device: str = "auto"

    def __post_init__(self) -> None:
        """Raise UsageError for a role that does not fit the method."""
        if self.method != "basq":
            wrong = self.role != "network" or bool(self.genome)
            todo = "Leave out --supernet, --finetune and --genome."
        else:
            wrong = (self.role == "supernet") == bool(self.genome)
            todo = "Give --supernet for all branches, or --genome with one branch a unit."
        if wrong:
            raise UsageError(
                f"{self.method} with role {self.role} and {len(self.genome)} genes",
                where="training request",
                todo=todo,
            )
        if self.role == "finetune" and self.init is None:
            raise UsageError(
                "finetuning without first weights", where="training request", todo="Give --init."
            )

    @property
    def state_path(self) -> Path:
        """Where the unfinished run is kept."""
        return self.output.with_name(self.output.name + ".state")

    def identity(self, spec: NetSpec) -> dict[str, object]:
        """What must agree for an interrupted run to go on; plain values."""
        fields = asdict(self.config)
        del fields["save_every_s"]
        return {
            **fields,
            "data": self.data,
            "test_data": self.test_data,
            "init": None if self.init is None else str(self.init.absolute()),
            "teacher": None if self.teacher is None else str(self.teacher.absolute()),
            "role": self.role,
            **spec.to_dict(),
        }


def load_splits(request: TrainRequest) -> tuple[ImageSource, ImageSource]:
    """Training and test images; one-split data gives every tenth image to the test."""
    train_set = open_images(request.data, "train", size=request.size)
    if train_set.labels is None:
        raise UsageError(
            "training needs labels", where=f"data {request.data}", todo="Name data that has them."
        )
    if request.test_data is not None:
        return train_set, open_images(request.test_data, "test", size=request.size)
    if _has_two_splits(request.data):
        return train_set, open_images(request.data, "test", size=train_set.shape)
    held_out = np.arange(len(train_set)) % HELD_OUT_EVERY == HELD_OUT_EVERY - 1
    return train_set.subset(~held_out), train_set.subset(held_out)


def pixel_statistics(images: ImageSource) -> Preprocessing:
    """Mean and standard deviation of all pixels, to the nearest integer, the latter at least 1.

    Of a folder, of some 2000 images spread over it.
    """
    stride = 1 if hasattr(images, "images") else max(1, len(images) // STATISTICS_IMAGES)
    counts = np.zeros(256, np.int64)
    for i in range(0, len(images), stride * 500):
        indexes = np.arange(i, min(i + stride * 500, len(images)), stride)
        counts += np.bincount(images.read(indexes).reshape(-1), minlength=256)
    values = np.arange(256)
    mean = float(counts @ values) / float(counts.sum())
    variance = float(counts @ np.square(values - mean)) / float(counts.sum())
    return Preprocessing(round(mean), max(1, round(variance**0.5)))


def make_spec(request: TrainRequest, train_set: ImageSource) -> NetSpec:
    """The network that a request asks for, on the data that it names."""
    return NetSpec(
        net=request.net,
        method=request.method,
        bits=request.bits,
        input_shape=train_set.shape,
        class_names=train_set.class_names,
        preprocessing=request.preprocessing or pixel_statistics(train_set),
        weight_grid=request.weight_grid or DEFAULT_GRID.get(request.bits[0], "odd"),
        width=request.width,
        genome=request.genome,
        block_bits=request.block_bits,
        per_kernel=request.per_kernel,
        per_channel=request.per_channel,
        stem=request.stem,
    )


def describe(request: TrainRequest) -> Mapping[str, object]:
    """The request's part of a checkpoint's record."""
    return {
        "config": asdict(request.config),
        "role": request.role,
        "data": request.data,
        "test_data": request.test_data,
        "init": None if request.init is None else request.init.name,
        "teacher": None if request.teacher is None else request.teacher.name,
        "seed": request.config.seed,
    }


def _has_two_splits(data: str) -> bool:
    kind, _, rest = data.partition(":")
    if kind == FOLDER:
        return all(split_folder(Path(rest), split) for split in ("train", "test"))
    return kind == "fashion-mnist"
