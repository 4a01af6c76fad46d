"""Labelled images by name: Fashion-MNIST, the embedded sample, ``.npz`` files, image folders.

Needs numpy alone; folders of images need Pillow.
"""

import gzip
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import InputError, UsageError
from bitfold.models.image_folder import ImageFolder, open_image_folder, read_image_folder

Split = Literal["train", "test"]

FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip
FASHION_MNIST_TODO = (
    "Install the Debian package dataset-fashion-mnist, name its folder as fashion-mnist:DIR, "
    "or use the data `embedded`."
)
EMBEDDED = Path(__file__).parents[1] / "data" / "fashion_mnist_500.npz"
NPZ_TODO = "Write it with numpy.savez(FILE, images=uint8 (N, H, W, C), labels=integers (N,))."
SOURCES = "Known: fashion-mnist, fashion-mnist:DIR, embedded, folder:DIR, FILE.npz."
IDX_BYTES = 8  # type code of unsigned bytes
NPZ_ARRAYS = ("images", "labels", "class_names")
MAX_CLASSES = 100_000


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """``images`` (N, H, W, C) uint8, ``labels`` (N,) int64 or None, one name per class."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64] | None
    class_names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.images)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, W, C) of an image."""
        _, height, width, channels = self.images.shape
        return height, width, channels

    def read(self, indexes: NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (len(indexes), H, W, C)."""
        return self.images[indexes]

    def subset(self, chosen: NDArray[np.bool_]) -> Self:
        """The images where ``chosen`` (N,) is true."""
        labels = None if self.labels is None else self.labels[chosen]
        return type(self)(self.images[chosen], labels, self.class_names)


# In memory, or on disk until read.
ImageSource = LabelledImages | ImageFolder


def open_images(
    spec: str, split: Split = "test", *, size: tuple[int, int, int] | None = None
) -> ImageSource:
    """As ``load_images``, but a folder's images stay on disk."""
    kind, _, rest = spec.partition(":")
    if kind == "folder" and rest:
        return open_image_folder(Path(rest), split, size=size)
    return load_images(spec, split, size=size)


def load_images(
    spec: str, split: Split = "test", *, size: tuple[int, int, int] | None = None
) -> LabelledImages:
    """Images and labels named by ``spec``.

    Args:
        spec: ``fashion-mnist``, ``fashion-mnist:DIR``, ``embedded``, ``folder:DIR``, ``FILE.npz``.
        split: which half of Fashion-MNIST; a folder uses its sub-folder of that name if it has
            one; the other sources have one split only.
        size: (H, W, C) that the images of a folder are scaled and cropped to; without it they
            must all have one size.

    Raises:
        UsageError: no such kind of source.
        InputError: a file is missing, damaged, or not what it should be.
        MissingDependencyError: a folder of images, and no Pillow.
    """
    kind, _, rest = spec.partition(":")
    if spec == "embedded":
        return read_npz(EMBEDDED)
    if spec == "fashion-mnist" or (kind == "fashion-mnist" and rest):
        return read_fashion_mnist(Path(rest) if rest else FASHION_MNIST_DIR, split)
    if kind == "folder" and rest:
        return LabelledImages(*read_image_folder(Path(rest), split, size=size))
    if spec.endswith(".npz"):
        return read_npz(Path(spec))
    raise UsageError(f"unknown data {spec!r}", where="data", todo=SOURCES)


def read_fashion_mnist(directory: Path, split: Split) -> LabelledImages:
    """One split of the four idx files of Fashion-MNIST."""
    if not directory.is_dir():
        raise InputError(
            "there is no such folder", where=f"folder {directory}", todo=FASHION_MNIST_TODO
        )
    stem = "train" if split == "train" else "t10k"
    image_path = directory / f"{stem}-images-idx3-ubyte.gz"
    label_path = directory / f"{stem}-labels-idx1-ubyte.gz"
    images = read_idx(image_path, ndim=3)[..., None]
    labels = read_idx(label_path, ndim=1).astype(np.int64)
    _check_images(images, image_path, FASHION_MNIST_TODO)
    _check_labels(labels, len(images), len(FASHION_MNIST_CLASSES), label_path)
    return LabelledImages(images, labels, FASHION_MNIST_CLASSES)


def read_idx(path: Path, *, ndim: int) -> NDArray[np.uint8]:
    """An idx file of unsigned bytes: 0, 0, 8, ndim, the big-endian sizes, the values."""
    if not path.is_file():
        raise InputError("there is no such file", where=f"file {path}", todo=FASHION_MNIST_TODO)
    try:
        with gzip.open(path, "rb") as stream:
            data = stream.read()
    except (OSError, EOFError, zlib.error) as error:
        raise InputError(
            f"truncated or damaged gzip file: {error}",
            where=f"file {path}",
            todo=FASHION_MNIST_TODO,
        ) from error
    magic = bytes((0, 0, IDX_BYTES, ndim))
    header = 4 + 4 * ndim
    if data[:4] != magic or len(data) < header:
        raise InputError(
            f"not an idx file of {ndim}-dimensional bytes: it starts with {data[:4].hex()!r}, "
            f"not {magic.hex()!r}",
            where=f"file {path}",
            todo=FASHION_MNIST_TODO,
        )
    shape = tuple(int(size) for size in np.frombuffer(data, ">u4", ndim, 4))
    want = header + int(np.prod(shape, dtype=object))
    if len(data) != want:
        raise InputError(
            f"{len(data)} bytes, but shape {shape} takes {want}",
            where=f"file {path}",
            todo=FASHION_MNIST_TODO,
        )
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def read_npz(path: Path) -> LabelledImages:
    """``images`` and, where present, ``labels`` and ``class_names`` of an ``.npz`` file."""
    arrays = _npz_arrays(path)
    if "images" not in arrays:
        raise InputError(
            f"no array `images`; it holds {', '.join(arrays) or 'nothing'}",
            where=f"file {path}",
            todo=NPZ_TODO,
        )
    images = arrays["images"]
    _check_images(images, path, NPZ_TODO)
    named = arrays.get("class_names")
    if named is not None and (named.ndim != 1 or named.dtype.kind != "U"):
        raise InputError(
            f"class_names must be strings (classes,), got {named.dtype} {named.shape}",
            where=f"file {path}",
            todo=NPZ_TODO,
        )
    names = tuple(map(str, named)) if named is not None else None
    if "labels" not in arrays:
        return LabelledImages(images, None, names or ())
    labels = arrays["labels"]
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise InputError(
            f"labels must be integers (N,), got {labels.dtype} {labels.shape}",
            where=f"file {path}",
            todo=NPZ_TODO,
        )
    labels = labels.astype(np.int64)
    _check_labels(labels, len(images), len(names) if names else None, path)
    return LabelledImages(images, labels, names or tuple(map(str, range(int(labels.max()) + 1))))


def _npz_arrays(path: Path) -> dict[str, NDArray[Any]]:
    if not path.is_file():
        raise InputError("there is no such file", where=f"file {path}", todo=NPZ_TODO)
    try:
        if not zipfile.is_zipfile(path):
            raise zipfile.BadZipFile("File is not a zip file")
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in NPZ_ARRAYS if name in archive}
    except (ValueError, OSError, EOFError, KeyError, zlib.error, zipfile.BadZipFile) as error:
        pickled = "allow_pickle" in str(error)
        raise InputError(
            "it holds pickled Python objects, which are never opened"
            if pickled
            else f"not an .npz file, or truncated: {error}",
            where=f"file {path}",
            todo=NPZ_TODO,
        ) from error


def _check_images(images: NDArray[Any], path: Path, todo: str) -> None:
    if images.dtype != np.uint8 or images.ndim != 4 or 0 in images.shape:
        raise InputError(
            f"images must be uint8 (N, H, W, C) with N > 0, got {images.dtype} {images.shape}",
            where=f"file {path}",
            todo=todo,
        )


def _check_labels(
    labels: NDArray[np.int64], count: int, num_classes: int | None, path: Path
) -> None:
    """Raise InputError unless there are ``count`` labels in 0 … num_classes − 1."""
    where = f"file {path}"
    if len(labels) != count:
        raise InputError(
            f"{len(labels)} labels for {count} images", where=where, todo="Use files that match."
        )
    limit = num_classes if num_classes is not None else MAX_CLASSES
    outside = np.flatnonzero((labels < 0) | (labels >= limit))
    if len(outside):
        first = int(outside[0])
        raise InputError(
            f"label {labels[first]} of image {first} is not in 0…{limit - 1} "
            f"({len(outside)} such labels)",
            where=where,
            todo="Number the classes from 0 without gaps.",
        )
