"""A folder of images, one sub-folder a class, as ImageNet is laid out."""

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from bitfold.errors import InputError, MissingDependencyError

if TYPE_CHECKING:
    from PIL import Image

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".webp"})
# The shorter side before the centre crop, as a fraction of the crop: 256 for 224.
RESIZE_RATIO = (256, 224)
MODES = {1: "L", 3: "RGB"}

Size = tuple[int, int, int]


def read_image_folder(
    directory: Path, split: str, *, size: Size | None
) -> tuple[NDArray[np.uint8], NDArray[np.int64], tuple[str, ...]]:
    """Images (N, H, W, C), labels (N,) and class names, classes and files in sorted order.

    ``DIR/split`` is read where it exists, else ``DIR``. With ``size`` (H, W, C) an image that has
    not that height and width is scaled and its centre cropped; without it all must agree.
    """
    _require_pillow()
    if not directory.is_dir():
        raise InputError("there is no such folder", where=f"folder {directory}", todo="Check it.")
    root = directory / split if (directory / split).is_dir() else directory
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
    images = np.empty((len(files), *shape), np.uint8)
    for i, (path, _) in enumerate(files):
        images[i] = _pixels(path, shape, scale=size is not None)
    labels = np.array([label for _, label in files], np.int64)
    return images, labels, tuple(folder.name for folder in classes)


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
