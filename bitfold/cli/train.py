"""``bitfold train``: quantization-aware training, resumable at any step."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from bitfold.cli.inputs import (
    BitsOption,
    DataOption,
    MethodOption,
    NetOption,
    OutputOption,
    WidthOption,
    known_method,
    parse_shape,
    require_file,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, one_of, parse_pair
from bitfold.errors import UsageError

if TYPE_CHECKING:
    from bitfold.models import Progress, TrainRequest, TrainResult

Grid = Literal["odd", "narrow"]
GRIDS: tuple[Grid, ...] = ("odd", "narrow")

TestDataOption = Annotated[
    str | None,
    typer.Option("--test-data", metavar="SPEC", help="Test on this; default: part of the data."),
]
ShapeOption = Annotated[
    str | None,
    typer.Option("--input", metavar="HxWxC", help="Scale and crop images of a folder to this."),
]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the data.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per step.")]
RateOption = Annotated[float, typer.Option("--lr", min=0, help="Highest learning rate.")]
DecayOption = Annotated[float, typer.Option("--weight-decay", min=0, help="L2 on the weights.")]
GridOption = Annotated[
    str | None,
    typer.Option("--weight-grid", help="odd or narrow; default: the better one for the width."),
]
InitOption = Annotated[
    Path | None, typer.Option("--init", metavar="CKPT", help="Start from this network's weights.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; default: all cores.")
]
NoCompileFlag = Annotated[
    bool, typer.Option("--no-compile", help="Skip torch.compile: starts at once, runs slower.")
]


def train(
    shell: Shell,
    *,
    net: NetOption,
    output: OutputOption,
    bits: BitsOption,
    method: MethodOption = "pact-sawb",
    data: DataOption = "fashion-mnist",
    test_data: TestDataOption = None,
    input_shape: ShapeOption = None,
    epochs: EpochsOption = 20,
    batch_size: BatchOption = 128,
    lr: RateOption = 0.1,
    weight_decay: DecayOption = 5e-4,
    weight_grid: GridOption = None,
    init: InitOption = None,
    threads: ThreadsOption = None,
    no_compile: NoCompileFlag = False,
    width: WidthOption = 1.0,
) -> None:
    """Train a quantized network; resumes where it stopped.

    The state lies beside the checkpoint (CKPT.state): run the same line again to go on.
    """
    known_method(method)
    pair = parse_pair(bits, option="--bits")
    grid = None if weight_grid is None else one_of(weight_grid, GRIDS, option="--weight-grid")
    if init is not None:
        require_file(init, kind="checkpoint")
    if data is None:
        raise UsageError("no images to train on", where="option --data")
    require_folder_of(output)
    from bitfold.models import TrainConfig, TrainRequest

    request = TrainRequest(
        net=net,
        method=method,
        bits=pair,
        data=data,
        test_data=test_data,
        size=None if input_shape is None else parse_shape(input_shape),
        output=output,
        config=TrainConfig(
            epochs=epochs,
            batch_size=batch_size,
            learning_rate=lr,
            weight_decay=weight_decay,
            seed=shell.seed,
            compile=not no_compile,
        ),
        weight_grid=grid,
        width=width,
        init=init,
        threads=threads,
    )
    result = run_training(shell, request)
    shell.emit(_fields(request, result), lambda: [_sentence(output, result)])


def _fields(request: "TrainRequest", result: "TrainResult") -> dict[str, object]:
    """The JSON form."""
    return {
        "checkpoint": str(request.output),
        "method": request.method,
        "net": request.net,
        "bits": {"w": request.bits[0], "a": request.bits[1]},
        "epochs": request.config.epochs,
        "test_accuracy": result.test_accuracy,
        "seconds": result.seconds,
        "resumed_from_step": result.resumed_from_step,
    }


def run_training(shell: Shell, request: "TrainRequest") -> "TrainResult":
    """Train with a progress bar: loss, accuracy, images/s, time left."""
    from bitfold.models import train_network

    with shell.progress("loss", "accuracy", "speed") as bar:
        task = bar.add_task("train", total=None, loss="", accuracy="", speed="")

        def show(progress: "Progress") -> None:
            bar.update(
                task,
                description=f"epoch {progress.epoch + 1}",
                completed=progress.step,
                total=progress.num_steps,
                loss=f"loss {progress.loss:.3f}",
                accuracy=f"accuracy {progress.train_accuracy:.1%}",
                speed=f"{progress.images_per_s:.0f} images/s",
            )

        return train_network(request, report=show)


def _sentence(output: Path, result: "TrainResult") -> str:
    accuracy = result.test_accuracy
    shown = "not tested" if accuracy is None else f"test accuracy {accuracy:.2%}"
    return f"{output}: {shown} after {result.seconds:.0f} s"


VERB = Verb(
    "train",
    train,
    (
        "bitfold train --net resnet20 --bits 4,4 --data fashion-mnist -o w4a4.pt",
        "bitfold train --net resnet20 --bits 2,2 --init w4a4.pt --epochs 7 --lr 0.05 -o w2a2.pt",
    ),
)
