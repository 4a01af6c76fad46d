"""The images that fitness is counted on: folds of the training split, never of the test split."""

import hashlib
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import UsageError
from bitfold.models.data import ImageSource, LabelledImages, open_images

FoldOrder = Literal["spread", "stored"]
# `train` tests on every tenth image of data that has no test split of its own.
TESTED_EVERY = 10


@dataclass(frozen=True, slots=True)
class Folds:
    """Which images are validated on: ``count`` folds of ``images`` each from ``data``.

    They lie evenly spaced in the training split. "spread" deals them out in turn; "stored" cuts
    them into runs, as published: where data lies class by class, a fold then holds few classes.
    """

    data: str
    count: int = 10
    images: int = 5000
    order: FoldOrder = "spread"
    size: tuple[int, int, int] | None = None

    def __post_init__(self) -> None:
        """Check the sizes."""
        if self.count < 1 or self.images < 1:
            raise UsageError(
                f"{self.count} folds of {self.images} images",
                where="search settings",
                todo="Use at least one fold and one image.",
            )


@dataclass(frozen=True, slots=True)
class ValidationSet:
    """``chosen`` images of ``source``, fold after fold; a folder's pixels stay on disk."""

    source: ImageSource
    chosen: NDArray[np.int64]
    folds: Folds

    def read(self, fold: int) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
        """Images (n, H, W, C) and labels (n,) of a fold."""
        indexes = self.chosen[fold * self.folds.images : (fold + 1) * self.folds.images]
        assert self.source.labels is not None
        return self.source.read(indexes), self.source.labels[indexes]

    def sha256(self) -> str:
        """Hexadecimal digest of labels and pixels; of files, of their names and sizes."""
        assert self.source.labels is not None
        digest = hashlib.sha256(self.source.labels[self.chosen].tobytes())
        if isinstance(self.source, LabelledImages):
            digest.update(self.source.read(self.chosen).tobytes())
            return digest.hexdigest()
        for index in self.chosen:
            path = self.source.files[index]
            digest.update(f"{path.parent.name}/{path.name} {path.stat().st_size}\n".encode())
        return digest.hexdigest()


def open_validation_set(folds: Folds) -> ValidationSet:
    """The images of all folds.

    Raises InputError and UsageError as ``open_images``, and UsageError for too few images.
    """
    source = open_images(folds.data, "train", size=folds.size)
    if source.labels is None:
        raise UsageError(
            "a search needs labels", where=f"data {folds.data}", todo="Name data that has them."
        )
    usable = np.arange(len(source))
    if folds.data.partition(":")[0] != "fashion-mnist":
        usable = usable[usable % TESTED_EVERY != TESTED_EVERY - 1]
    wanted = folds.count * folds.images
    if wanted > len(usable):
        raise UsageError(
            f"{folds.count} folds of {folds.images} images need {wanted}; "
            f"there are {len(usable)} training images",
            where=f"data {folds.data}",
            todo=f"Use --fold-images {len(usable) // folds.count}.",
        )
    chosen = usable[np.arange(wanted) * len(usable) // wanted]
    if folds.order == "spread":
        chosen = chosen.reshape(folds.images, folds.count).T.reshape(-1)
    return ValidationSet(source, chosen, folds)
