"""``bitfold run``: integer inference on a batch of images."""

import io
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bitfold.cli.inputs import (
    BackendOption,
    DataOption,
    ModelArgument,
    OutputOption,
    ThreadsOption,
    open_array,
    open_model,
    open_values,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, one_of, write_output
from bitfold.errors import UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from bitfold.ir import IntGraph

Backend = Literal["auto", "c", "numba", "oracle"]
BACKENDS: tuple[Backend, ...] = ("auto", "c", "numba", "oracle")

InputOption = Annotated[
    Path | None,
    typer.Option(
        "--input", metavar="X.npy", help="uint8 images (N, H, W, C), or what MODEL itself takes."
    ),
]


def run(
    shell: Shell,
    model: ModelArgument,
    *,
    output: OutputOption,
    data: DataOption = None,
    images_file: InputOption = None,
    backend: BackendOption = "auto",
    threads: ThreadsOption = 1,
) -> None:
    """Run a model on images.

    Writes logits (float32) and top1 (int64) to an .npz file.
    """
    chosen = one_of(backend, BACKENDS, option="--backend")
    if (data is None) == (images_file is None):
        raise UsageError(
            "give exactly one of --data and --input",
            where="options --data, --input",
            todo="for instance --data embedded",
        )
    require_folder_of(output)
    from bitfold.ir.own_input import without_own_input

    graph = open_model(model)
    images, labels = _pixels(graph, data, images_file)
    logits, used = _logits(without_own_input(graph), images, backend=chosen, threads=threads)
    top1 = logits.argmax(1)
    write_output(output, _archive(logits, top1))
    accuracy = None if labels is None else float((top1 == labels).mean())
    fields: dict[str, object] = {
        "backend": used,
        "threads": threads,
        "images": len(images),
        "top1": accuracy,
        "output": str(output),
    }
    known = "no labels" if accuracy is None else f"top-1 {accuracy:.2%}"
    line = f"{output}: {len(images)} images, {known}, backend {used}, {threads} thread(s)"
    shell.emit(fields, lambda: [line])


def _pixels(
    graph: "IntGraph", data: str | None, images_file: Path | None
) -> tuple["NDArray[np.uint8]", "NDArray[np.int64] | None"]:
    """What the graph takes; another tool's model has an input of its own."""
    from bitfold.ir.own_input import own_input

    own = own_input(graph)
    if own is None:
        return _images(data, images_file)
    if images_file is not None:
        return own.to_pixels(open_values(images_file)), None
    images, labels = _images(data, None)
    return own.to_pixels(own.of_images(images)), labels


def _images(
    data: str | None, images_file: Path | None
) -> tuple["NDArray[np.uint8]", "NDArray[np.int64] | None"]:
    if images_file is not None:
        return open_array(images_file), None
    from bitfold.models import load_images

    labelled = load_images(str(data))
    return labelled.images, labelled.labels


def _logits(
    graph: "IntGraph", images: "NDArray[np.uint8]", *, backend: Backend, threads: int
) -> tuple["NDArray[np.float32]", str]:
    if backend == "oracle":
        from bitfold.ir import run_oracle

        return run_oracle(graph, images), "oracle"
    from bitfold.kernels import choose_backend
    from bitfold.runtime import Session

    with Session(graph, backend=backend, threads=threads) as session:
        return session.run(images), choose_backend(backend, force=None)


def _archive(logits: "NDArray[np.float32]", top1: "NDArray[np.intp]") -> bytes:
    import numpy as np

    stream = io.BytesIO()
    np.savez(stream, logits=logits, top1=top1.astype(np.int64))
    return stream.getvalue()


VERB = Verb(
    "run",
    run,
    (
        "bitfold run resnet20.onnx --data fashion-mnist -o predictions.npz",
        "bitfold run resnet20.onnx --input images.npy -o predictions.npz --threads 2 --json",
    ),
)
