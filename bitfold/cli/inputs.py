"""Arguments that several verbs share, and what stands behind them: a model, a batch of images."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.shell import one_of
from bitfold.errors import InputError, OutputError, UnsupportedError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitfold.ir import IntGraph

TORCH_FILE_MAGIC = b"PK\x03\x04"

ModelArgument = Annotated[Path, typer.Argument(metavar="MODEL", help="ONNX file to read.")]
CheckpointArgument = Annotated[Path, typer.Argument(metavar="CKPT", help="Checkpoint to read.")]
DataOption = Annotated[
    str | None,
    typer.Option(
        "--data",
        metavar="SPEC",
        help="fashion-mnist[:DIR], embedded, folder:DIR, or FILE.npz with images and labels.",
    ),
]
ThreadsOption = Annotated[int, typer.Option("--threads", min=1, help="Threads to run on.")]
BackendOption = Annotated[str, typer.Option("--backend", help="auto, c, numba or oracle.")]
OutputOption = Annotated[Path, typer.Option("-o", "--output", help="File to write.")]
OptionalOutput = Annotated[
    Path | None, typer.Option("-o", "--output", help="Write the JSON result to this file too.")
]
BitsOption = Annotated[
    str, typer.Option("--bits", metavar="W,A", help="Bits of weights and activations, as in 4,4.")
]
NetOption = Annotated[str, typer.Option("--net", help="resnet8 or resnet20.")]
MethodOption = Annotated[str, typer.Option("--method", help="Quantization method: pact-sawb.")]
WidthOption = Annotated[float, typer.Option("--width", help="Factor on all channel counts.")]


def require_file(path: Path, *, kind: str) -> None:
    """Raise InputError unless ``path`` is a file with something in it."""
    if not path.is_file():
        what = "is a folder, not a file" if path.is_dir() else "does not exist"
        raise InputError(f"the {kind} {what}", where=f"file {path}", todo="check the path")
    if path.stat().st_size == 0:
        raise InputError(f"the {kind} is empty", where=f"file {path}", todo="write it again")


def require_folder_of(path: Path) -> None:
    """Raise OutputError, before hours of work, if ``path`` cannot be a file to write."""
    if path.is_file() or (not path.exists() and path.absolute().parent.is_dir()):
        return
    # Files are written beside and renamed: a device in that place would be replaced.
    reason = f"there is no folder {path.parent}"
    if path.exists():
        reason = "it is a folder" if path.is_dir() else "it is a device, not a file"
    raise OutputError(
        f"cannot write to {path}: {reason}",
        where="option -o",
        todo="name a file in a folder that exists",
    )


def open_graph(path: Path) -> "IntGraph":
    """The integer graph in an ONNX file or, folded here, of a checkpoint."""
    require_file(path, kind="model")
    with path.open("rb") as stream:
        is_checkpoint = stream.read(len(TORCH_FILE_MAGIC)) == TORCH_FILE_MAGIC
    if is_checkpoint:
        from bitfold.export import from_checkpoint

        return from_checkpoint(path)
    from bitfold.export import read_onnx

    return read_onnx(path)


def open_array(path: Path) -> "NDArray[np.uint8]":
    """uint8 images (N, H, W, C) from an ``.npy`` file."""
    import numpy as np

    require_file(path, kind="image file")
    try:
        images = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"not an .npy file of images: {error}", where=f"file {path}", todo="use numpy.save"
        ) from error
    if not isinstance(images, np.ndarray) or images.dtype != np.uint8 or images.ndim != 4:
        found = f"{images.dtype} {images.shape}" if isinstance(images, np.ndarray) else "an archive"
        raise InputError(
            f"images must be uint8 (N, H, W, C), got {found}",
            where=f"file {path}",
            todo="save raw pixels 0…255, channels last",
        )
    return images


METHODS, PLANNED_METHODS = ("pact-sawb",), ("uniq", "sttn", "stqn", "basq")


def known_method(method: str) -> None:
    """Raise UsageError for an unknown method, UnsupportedError for one that is still to come."""
    one_of(method, (*METHODS, *PLANNED_METHODS), option="--method")
    if method in PLANNED_METHODS:
        raise UnsupportedError(
            f"method {method} is not available in this version",
            where="option --method",
            todo="available: " + ", ".join(METHODS),
        )


def parse_shape(text: str) -> tuple[int, int, int]:
    """``"28x28x1"`` as (28, 28, 1); raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--input needs HxWxC as in 28x28x1, got {text!r}", where="option --input")
    height, width, channels = (int(part) for part in parts)
    return height, width, channels
