"""The batches of a training: every one a function of the seed and the step number."""

from collections.abc import Iterator
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from bitfold.errors import UsageError
from bitfold.models.data import ImageSource, LabelledImages
from bitfold.models.distributed import Share
from bitfold.models.evaluation import to_nchw
from bitfold.models.image_folder import ImageFolder
from bitfold.models.recipe import TrainConfig, augment

# The order of images in an epoch and the augmentation in a step come from separate streams.
ORDER_STRIDE = 7919
STEP_SHIFT = 32

Batch = tuple[Tensor, Tensor]


class Batches(Protocol):
    """Where training images come from."""

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch; what is left over waits for another epoch."""
        ...

    def batch(self, step: int) -> Batch:
        """This process's share of a batch: uint8 pixels (N, C, H, W), labels (N,)."""
        ...


def make_batches(
    source: ImageSource, config: TrainConfig, *, share: Share, workers: int = 0
) -> Batches:
    """Batches of arrays in memory, shifted and mirrored; of files, cropped at random by workers.

    A folder without a size to scale to is augmented as arrays are.
    """
    if source.labels is None:
        raise UsageError("training needs labels", todo="Name data that has labels.")
    if len(source) < config.batch_size:
        raise UsageError(
            f"{len(source)} training images do not fill one batch of {config.batch_size}",
            where="batch size",
            todo=f"Use batches of at most {len(source)} images.",
        )
    if isinstance(source, LabelledImages):
        return ArrayBatches(source, config, share=share)
    return FileBatches(source, config, share=share, workers=workers)


class EpochOrder:
    """Which images make the batch of a step: another permutation each epoch."""

    def __init__(self, count: int, config: TrainConfig) -> None:
        self.count = count
        self.batch_size = config.batch_size
        self.seed = config.seed
        self.steps_per_epoch = count // config.batch_size
        self._epoch = -1
        self._order = torch.empty(0, dtype=torch.int64)

    def chosen(self, step: int) -> Tensor:
        """Indexes (batch size,)."""
        epoch, i = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self.seed * ORDER_STRIDE + epoch)
            self._order = torch.randperm(self.count, generator=generator)
            self._epoch = epoch
        return self._order[i * self.batch_size : (i + 1) * self.batch_size]


def step_generator(seed: int, step: int) -> torch.Generator:
    """The source of everything random in one step's images."""
    return torch.Generator().manual_seed((seed << STEP_SHIFT) + step)


class ArrayBatches:
    """Batches of images in memory."""

    def __init__(self, data: LabelledImages, config: TrainConfig, *, share: Share) -> None:
        assert data.labels is not None
        self.images = to_nchw(data.images)
        self.labels = torch.from_numpy(data.labels.copy())
        self.config = config
        self.share = share
        self.order = EpochOrder(len(data), config)

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.order.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """Augmented pixels (N, C, H, W) and labels (N,)."""
        chosen = self.order.chosen(step)
        mine = self.share.of(len(chosen))
        images = _augmented(self.images[chosen], self.config, step)
        return images[mine], self.labels[chosen[mine]]


class FileBatches:
    """Batches of image files, read ahead by ``workers`` processes (0: by this one)."""

    def __init__(
        self, folder: ImageFolder, config: TrainConfig, *, share: Share, workers: int
    ) -> None:
        self.steps = FileSteps(folder, config, share)
        self.num_steps = self.steps.order.steps_per_epoch * config.epochs
        self.workers = workers
        self._next = -1
        self._stream: Iterator[Batch] = iter(())

    @property
    def steps_per_epoch(self) -> int:
        """Whole batches in an epoch."""
        return self.steps.order.steps_per_epoch

    def batch(self, step: int) -> Batch:
        """Augmented pixels (N, C, H, W) and labels (N,); fastest in the order of the steps."""
        if self.workers == 0:
            return self.steps[step]
        if step != self._next:
            loader = DataLoader(
                self.steps,
                batch_size=None,
                sampler=range(step, self.num_steps),
                num_workers=self.workers,
            )
            self._stream = iter(loader)
        self._next = step + 1
        return next(self._stream)


class FileSteps(Dataset[Batch]):
    """Item i is the batch of step i: what a worker process makes."""

    def __init__(self, folder: ImageFolder, config: TrainConfig, share: Share) -> None:
        self.folder = folder
        self.config = config
        self.share = share
        self.order = EpochOrder(len(folder), config)

    def __getitem__(self, step: int) -> Batch:
        """Read, crop and mirror this process's share."""
        chosen = self.order.chosen(step).numpy()
        mine = self.share.of(len(chosen))
        labels = torch.from_numpy(self.folder.labels[chosen[mine]])
        if not self.folder.scale:
            images = to_nchw(self.folder.read(chosen))
            return _augmented(images, self.config, step)[mine], labels
        places = range(len(chosen))[mine]
        return to_nchw(np.stack([self._crop(int(chosen[i]), step, i) for i in places])), labels

    def _crop(self, index: int, step: int, place: int) -> Any:  # noqa: ANN401  # numpy's typing
        generator = np.random.default_rng((self.config.seed, step, place))
        image = self.folder.read_crop(
            index, least_area=self.config.least_crop_area, generator=generator
        )
        mirrored = self.config.flip and generator.random() < 0.5
        return image[:, ::-1] if mirrored else image


def _augmented(images: Tensor, config: TrainConfig, step: int) -> Tensor:
    return augment(
        images,
        padding=config.crop_padding,
        fill=config.crop_fill,
        flip=config.flip,
        generator=step_generator(config.seed, step),
    )
