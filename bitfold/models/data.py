"""Labelled images by name: Fashion-MNIST, the embedded sample, ``.npz`` files and image folders."""

import gzip
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

FASHION_MNIST_DIR = Path("/usr/share/datasets/fashion-mnist")
FASHION_MNIST_CLASSES = (
    "T-shirt/top", "Trouser", "Pullover", "Dress", "Coat",
    "Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class LabelledImages:
    """``images`` (N, H, W, C) uint8, ``labels`` (N,) int64, one name per class."""

    images: NDArray[np.uint8]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]


def read_idx(path: Path) -> NDArray[np.uint8]:
    with gzip.open(path, "rb") as stream:
        data = stream.read()
    ndim = data[3]
    shape = tuple(int.from_bytes(data[4 + 4 * i : 8 + 4 * i], "big") for i in range(ndim))
    return np.frombuffer(data, np.uint8, offset=4 + 4 * ndim).reshape(shape)


def read_fashion_mnist(directory: Path, split: str) -> LabelledImages:
    stem = "train" if split == "train" else "t10k"
    images = read_idx(directory / f"{stem}-images-idx3-ubyte.gz")[..., None]
    labels = read_idx(directory / f"{stem}-labels-idx1-ubyte.gz").astype(np.int64)
    return LabelledImages(images, labels, FASHION_MNIST_CLASSES)
