"""Arguments that several verbs share, and what stands behind them: a model, a batch of images."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.shell import one_of, parse_pair
from bitfold.errors import InputError, OutputError, UsageError
from bitfold.models.offered import METHODS, NETS, check_offered

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitfold.ir import IntGraph
    from bitfold.models import PublishedOptions

# What torch.save begins its files with: an archive, and before torch 1.6 a pickled number.
TORCH_FILE_MAGICS = (b"PK\x03\x04", b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.")

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
    str | None,
    typer.Option("--bits", metavar="W,A", help="Bits of weights and activations, as in 4,4."),
]
NetOption = Annotated[str, typer.Option("--net", help=f"One of {', '.join(NETS)}.")]
MethodOption = Annotated[
    str, typer.Option("--method", help=f"Quantization method: one of {', '.join(METHODS)}.")
]
GenomeOption = Annotated[
    str | None,
    typer.Option("--genome", metavar="G", help="BASQ: a branch a unit, 5,3,2,…, or a JSON file."),
]
WidthOption = Annotated[float, typer.Option("--width", help="Factor on all channel counts.")]
PerKernelFlag = Annotated[
    bool, typer.Option("--per-kernel", help="UniQ: a weight step a kernel, not a layer.")
]
PerChannelFlag = Annotated[
    bool, typer.Option("--per-channel", help="BASQ: an activation step an input channel.")
]


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


def open_graph(path: Path, *, published: "PublishedOptions | None" = None) -> "IntGraph":
    """The integer graph in an ONNX file or, folded here as ``published`` asks, of a checkpoint.

    It takes uint8 pixels (N, H, W, C), also where another tool's model has an input of its own.
    """
    from bitfold.ir.own_input import without_own_input

    return without_own_input(open_model(path, published=published))


def open_model(path: Path, *, published: "PublishedOptions | None" = None) -> "IntGraph":
    """``open_graph`` with the own input of another tool's model."""
    require_file(path, kind="model")
    if is_torch_file(path):
        from bitfold.export import from_checkpoint

        return from_checkpoint(path, published=published)
    from bitfold.export import read_onnx

    return read_onnx(path)


def is_torch_file(path: Path) -> bool:
    """Whether the file begins as ``torch.save``'s do."""
    with path.open("rb") as stream:
        return stream.read(max(map(len, TORCH_FILE_MAGICS))).startswith(TORCH_FILE_MAGICS)


def open_array(path: Path) -> "NDArray[np.uint8]":
    """uint8 images (N, H, W, C) from an ``.npy`` file."""
    import numpy as np

    images = open_values(path)
    if images.dtype != np.uint8 or images.ndim != 4:
        raise InputError(
            f"images must be uint8 (N, H, W, C), got {images.dtype} {images.shape}",
            where=f"file {path}",
            todo="save raw pixels 0…255, channels last",
        )
    return images.astype(np.uint8, copy=False)


def open_values(path: Path) -> "NDArray[np.generic]":
    """The array in an ``.npy`` file."""
    import numpy as np

    require_file(path, kind="image file")
    try:
        values = np.load(path, allow_pickle=False)
    except (ValueError, EOFError, OSError) as error:
        raise InputError(
            f"not an .npy file of images: {error}", where=f"file {path}", todo="use numpy.save"
        ) from error
    if not isinstance(values, np.ndarray):
        raise InputError("an archive, not one array", where=f"file {path}", todo="use numpy.save")
    return values


def known_method(method: str) -> None:
    """Raise UsageError for an unknown method."""
    one_of(method, tuple(METHODS), option="--method")


def known_bits(text: str | None, *, net: str, method: str) -> tuple[int, int]:
    """``--bits`` as numbers, checked against net and method before torch is loaded.

    A method that comes at one width needs none. Raises UsageError.
    """
    known_method(method)
    offered = METHODS[method]
    if text is not None:
        pair = parse_pair(text, option="--bits")
    elif len(offered.weights) == len(offered.activations) == 1:
        pair = (offered.weights[0], offered.activations[0])
    else:
        raise UsageError(
            f"{method} needs a bit width", where="option --bits", todo="Give --bits, as in 4,4."
        )
    check_offered(net, method, pair)
    return pair


def require_method_of_steps(method: str, *, per_kernel: bool, per_channel: bool) -> None:
    """Raise UsageError where ``method`` does not have the steps that a flag asks for."""
    for is_given, option, owner in (
        (per_kernel, "--per-kernel", "uniq"),
        (per_channel, "--per-channel", "basq"),
    ):
        if is_given and method != owner:
            raise UsageError(
                f"{method} has no such steps",
                where=f"option {option}",
                todo=f"Leave it out; it is for {owner}.",
            )


def parse_genome(text: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Branches and bits a unit (none: the network's own) from ``5,3,2`` or a JSON file.

    Raises UsageError for text that is neither, InputError for a file without a genome.
    """
    from bitfold.models.search.genome import Genome, genome_of_fields

    path = Path(text)
    if not path.is_file():
        try:
            genome = Genome.from_key(text)
        except ValueError as error:
            raise UsageError(
                f"--genome needs numbers as in 5,3,2 or a JSON file, got {text!r}",
                where="option --genome",
            ) from error
        return genome.branches, genome.bits
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        fields = content if isinstance(content, dict) else {"genome": content}
        genome = genome_of_fields(fields)
    except (OSError, ValueError, RecursionError, UsageError) as error:
        what = error.what if isinstance(error, UsageError) else f"no JSON: {error}"
        raise InputError(
            what,
            where=f"file {path}",
            todo='Write {"genome": [5, 3, …]}, as `bitfold search` does.',
        ) from error
    return genome.branches, genome.bits


def parse_shape(text: str) -> tuple[int, int, int]:
    """``"28x28x1"`` as (28, 28, 1); raises UsageError."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdecimal() and int(part) > 0 for part in parts):
        raise UsageError(f"--input needs HxWxC as in 28x28x1, got {text!r}", where="option --input")
    height, width, channels = (int(part) for part in parts)
    return height, width, channels
