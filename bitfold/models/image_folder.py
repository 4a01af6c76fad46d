"""A folder of images, one sub-folder a class, as ImageNet is laid out; read as it is needed."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
# The shorter side before the centre crop, as a fraction of the crop: 256 for 224.
RESIZE_RATIO = (256, 224)
MODES = {1: "L", 3: "RGB"}
SUB_FOLDERS = {"train": ("train",), "test": ("test", "val")}
# A random crop for training: its share of the image's area, and the range of width / height.
LARGEST_CROP, ASPECTS = 1.0, (3 / 4, 4 / 3)
TRIES = 10

Size = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class ImageFolder:
    """Files and ``labels`` (N,), classes and files in sorted order; pixels stay on disk.

    ``shape`` is (H, W, C). With ``scale`` an image that has not that height and width is scaled
    and its centre cropped; without it all must agree.
    """

    files: tuple[Path, ...]
    labels: NDArray[np.int64]
    class_names: tuple[str, ...]
    shape: Size
    scale: bool

    def __len__(self) -> int:
        return len(self.files)

    def read(self, indexes: Sequence[int] | NDArray[np.int64]) -> NDArray[np.uint8]:
        """Images (len(indexes), H, W, C); raises InputError for a file that is none."""
        images = np.empty((len(indexes), *self.shape), np.uint8)
        for i, index in enumerate(indexes):
            images[i] = _pixels(self.files[index], self.shape, scale=self.scale)
        return images

    def read_crop(
        self, index: int, *, least_area: float, generator: np.random.Generator
    ) -> NDArray[np.uint8]:
        """A random part of one image, scaled to (H, W, C)."""
        from PIL import Image

        height, width, channels = self.shape
        image = _open(self.files[index]).convert(MODES[channels])
        box = random_box(image.height, image.width, least_area=least_area, generator=generator)
        scaled = image.resize((width, height), Image.Resampling.BILINEAR, box=box)
        return np.asarray(scaled, np.uint8).reshape(self.shape)

    def subset(self, chosen: NDArray[np.bool_]) -> Self:
        """The images where ``chosen`` (N,) is true."""
        files = tuple(path for path, is_in in zip(self.files, chosen, strict=True) if is_in)
        return type(self)(files, self.labels[chosen], self.class_names, self.shape, self.scale)


def open_image_folder(directory: Path, split: str, *, size: Size | None) -> ImageFolder:
    """The images of ``DIR/split`` where it exists (``val`` is a ``test``), else of ``DIR``."""
    _require_pillow()
    if not directory.is_dir():
        raise InputError("there is no such folder", where=f"folder {directory}", todo="Check it.")
    root = split_folder(directory, split) or directory
    classes = sorted(path for path in root.iterdir() if path.is_dir())
    files = [(path, i) for i, folder in enumerate(classes) for path in _image_files(folder)]
    if not files:
        raise InputError(
            f"no images in {len(classes)} class folders",
            where=f"folder {root}",
            todo=f"Give every class a folder of {', '.join(sorted(SUFFIXES))} files.",
        )
    shape = size or _shape_of(files[0][0])
    if shape[2] not in MODES:
        raise InputError(
            f"{shape[2]} channels; image files give {' or '.join(map(str, MODES))}",
            where=f"folder {root}",
            todo="Use an .npz file for other data.",
        )
    paths = tuple(path for path, _ in files)
    labels = np.array([label for _, label in files], np.int64)
    names = tuple(folder.name for folder in classes)
    return ImageFolder(paths, labels, names, shape, scale=size is not None)


def split_folder(directory: Path, split: str) -> Path | None:
    """The sub-folder that holds ``split``, if there is one."""
    names = SUB_FOLDERS.get(split, (split,))
    return next((directory / name for name in names if (directory / name).is_dir()), None)


def read_image_folder(
    directory: Path, split: str, *, size: Size | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """All images (N, H, W, C), labels (N,) and class names of ``open_image_folder``."""
    folder = open_image_folder(directory, split, size=size)
    return folder.read(range(len(folder))), folder.labels, folder.class_names


def fit(image: "Image.Image", height: int, width: int) -> "Image.Image":
    """Scale so that the crop takes 224/256 of the shorter side, then crop the centre."""
    from PIL import Image

    if image.size == (width, height):
        return image
    over, under = RESIZE_RATIO
    factor = max(height / image.height, width / image.width) * over / under
    scaled = (max(width, round(image.width * factor)), max(height, round(image.height * factor)))
    larger = image.resize(scaled, Image.Resampling.BILINEAR)
    left, top = (larger.width - width) // 2, (larger.height - height) // 2
    return larger.crop((left, top, left + width, top + height))


def random_box(
    height: int, width: int, *, least_area: float, generator: np.random.Generator
) -> tuple[int, int, int, int]:
    """(left, top, right, bottom): random area, aspect and place; the whole image if none fits."""
    for _ in range(TRIES):
        area = height * width * generator.uniform(least_area, LARGEST_CROP)
        aspect = float(np.exp(generator.uniform(*np.log(ASPECTS))))
        w, h = round((area * aspect) ** 0.5), round((area / aspect) ** 0.5)
        if 0 < w <= width and 0 < h <= height:
            left = int(generator.integers(0, width - w + 1))
            top = int(generator.integers(0, height - h + 1))
            return left, top, left + w, top + h
    return 0, 0, width, height


def _require_pillow() -> None:
    try:
        import PIL.Image  # noqa: F401  # only whether it is there
    except ImportError as error:
        raise MissingDependencyError(
            "reading image files needs Pillow", todo="pip install pillow, or give an .npz file."
        ) from error


def _image_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)


def _open(path: Path) -> "Image.Image":
    from PIL import Image

    try:
        with Image.open(path) as image:
            image.load()
            return image.copy()
    # Pillow's decoders raise OSError, ValueError, SyntaxError, DecompressionBombError …
    except Exception as error:
        raise InputError(
            f"not a readable image: {error}", where=f"file {path}", todo="Replace or remove it."
        ) from error


def _shape_of(path: Path) -> Size:
    image = _open(path)
    return (image.height, image.width, 1 if image.mode in ("1", "L") else 3)


def _pixels(path: Path, shape: Size, *, scale: bool) -> NDArray[np.uint8]:
    height, width, channels = shape
    image = _open(path).convert(MODES[channels])
    if scale:
        image = fit(image, height, width)
    if image.size != (width, height):
        raise InputError(
            f"{image.height}x{image.width} pixels where the first image has {height}x{width}",
            where=f"file {path}",
            todo="Give the size that all images shall be brought to.",
        )
    return np.asarray(image, np.uint8).reshape(shape)
