"""``bitfold train``: quantization-aware training, resumable at any step."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypeVar

import typer

from bitfold.cli.inputs import (
    BitsOption,
    DataOption,
    GenomeOption,
    MethodOption,
    NetOption,
    OutputOption,
    PerChannelFlag,
    PerKernelFlag,
    WidthOption,
    known_bits,
    parse_genome,
    parse_shape,
    require_file,
    require_folder_of,
    require_method_of_steps,
)
from bitfold.cli.shell import Shell, Verb, one_of, write_output
from bitfold.errors import OutputError, UsageError

if TYPE_CHECKING:
    from bitfold.models import Progress, TrainRequest, TrainResult
    from bitfold.models.recipe import Role
    from bitfold.models.spec import Stem

Grid = Literal["odd", "narrow"]
GRIDS: tuple[Grid, ...] = ("odd", "narrow")
STEMS: tuple["Stem", ...] = ("auto", "large", "small")
OPTIMIZERS = ("sgd", "adam")
T = TypeVar("T", bound=str)
TestDataOption = Annotated[
    str | None,
    typer.Option("--test-data", metavar="SPEC", help="Test on this; default: part of the data."),
]
ShapeOption = Annotated[
    str | None,
    typer.Option("--input", metavar="HxWxC", help="Crop and scale images of a folder to this."),
]
EpochsOption = Annotated[int, typer.Option("--epochs", min=1, help="Passes over the data.")]
BatchOption = Annotated[int, typer.Option("--batch-size", min=1, help="Images per step.")]
RateOption = Annotated[
    float | None, typer.Option("--lr", min=0, help="Highest learning rate; default: the method's.")
]
DecayOption = Annotated[
    float | None,
    typer.Option("--weight-decay", min=0, help="L2 on the weights; default: the method's."),
]
OptimizerOption = Annotated[
    str | None, typer.Option("--optimizer", help="sgd or adam; default: the method's.")
]
GridOption = Annotated[
    str | None,
    typer.Option("--weight-grid", help="odd or narrow; default: the better one for the width."),
]
InitOption = Annotated[
    Path | None, typer.Option("--init", metavar="CKPT", help="Start from this network's weights.")
]
TeacherOption = Annotated[
    Path | None,
    typer.Option("--teacher", metavar="CKPT", help="Learn from what this network answers, too."),
]
ShareOption = Annotated[
    float | None,
    typer.Option("--teacher-weight", min=0, max=1, help="Teacher's share of the loss (0.5)."),
]
SupernetFlag = Annotated[
    bool, typer.Option("--supernet", help="BASQ: train all branches, one at random a step.")
]
FinetuneFlag = Annotated[
    bool, typer.Option("--finetune", help="BASQ: move biases and clips only, from --init.")
]
ThreadsOption = Annotated[
    int | None, typer.Option("--threads", min=1, help="CPU threads; default: all cores.")
]
WorkersOption = Annotated[
    int, typer.Option("--workers", min=0, help="Processes that read image files.")
]
DeviceOption = Annotated[str, typer.Option("--device", help="auto, cpu or cuda.")]
BfloatFlag = Annotated[bool, typer.Option("--bf16", help="Convolve in bfloat16.")]
NoCompileFlag = Annotated[
    bool, typer.Option("--no-compile", help="Skip torch.compile: starts at once, runs slower.")
]
StemOption = Annotated[
    str, typer.Option("--stem", help="large (it halves), small, or auto: by the image's size.")
]
LogOption = Annotated[
    Path | None,
    typer.Option("--log-dir", metavar="DIR", help="Folder of the CSV and JSON log; default: none."),
]
PlotFlag = Annotated[bool, typer.Option("--plot", help="Draw the curves: PNG beside the log.")]


def train(
    shell: Shell,
    *,
    net: NetOption,
    output: OutputOption,
    bits: BitsOption = None,
    method: MethodOption = "pact-sawb",
    data: DataOption = "fashion-mnist",
    test_data: TestDataOption = None,
    input_shape: ShapeOption = None,
    epochs: EpochsOption = 20,
    batch_size: BatchOption = 128,
    optimizer: OptimizerOption = None,
    lr: RateOption = None,
    weight_decay: DecayOption = None,
    weight_grid: GridOption = None,
    init: InitOption = None,
    teacher: TeacherOption = None,
    teacher_weight: ShareOption = None,
    supernet: SupernetFlag = False,
    finetune: FinetuneFlag = False,
    genome: GenomeOption = None,
    threads: ThreadsOption = None,
    workers: WorkersOption = 0,
    device: DeviceOption = "auto",
    bf16: BfloatFlag = False,
    no_compile: NoCompileFlag = False,
    width: WidthOption = 1.0,
    stem: StemOption = "auto",
    per_kernel: PerKernelFlag = False,
    per_channel: PerChannelFlag = False,
    log_dir: LogOption = None,
    plot: PlotFlag = False,
) -> None:
    """Train a quantized network; resumes where it stopped.

    The state lies beside the checkpoint (CKPT.state): run the same line again to go on.
    """
    pair = known_bits(bits, net=net, method=method)
    require_method_of_steps(method, per_kernel=per_kernel, per_channel=per_channel)
    for path in (init, teacher):
        if path is not None:
            require_file(path, kind="checkpoint")
    if data is None:
        raise UsageError("no images to train on", where="option --data")
    require_folder_of(output)
    role: Role = "supernet" if supernet else "finetune" if finetune else "network"
    genes, block_bits = ((), ()) if genome is None else parse_genome(genome)
    from bitfold.models import TrainConfig, TrainRequest

    config = TrainConfig.for_method(
        method, bits=pair, epochs=epochs, role=role, warm_start=init is not None,
        batch_size=batch_size, seed=shell.seed, compile=not no_compile,
        precision="bfloat16" if bf16 else "float32",
        **_given(
            optimizer=_choice(optimizer, OPTIMIZERS, option="--optimizer"),
            learning_rate=lr, weight_decay=weight_decay, teacher_weight=teacher_weight,
        ),
    )  # fmt: skip
    request = TrainRequest(
        net=net, method=method, bits=pair, role=role, output=output, config=config, width=width,
        data=data, test_data=test_data,
        size=None if input_shape is None else parse_shape(input_shape),
        weight_grid=_choice(weight_grid, GRIDS, option="--weight-grid"),
        stem=one_of(stem, STEMS, option="--stem"),
        per_kernel=per_kernel, per_channel=per_channel,
        genome=genes, block_bits=block_bits, init=init, teacher=teacher,
        log=_log_stem(log_dir, output), threads=threads, workers=workers, device=device,
    )  # fmt: skip
    result = run_training(shell, request)
    if not result.is_first:
        return
    curves = _plot(shell, request, result) if plot else None
    fields = {**_fields(request, result), "plot": curves}
    shell.emit(fields, lambda: [_sentence(output, result)])


def _choice(text: str | None, choices: Sequence[T], *, option: str) -> T | None:
    return None if text is None else one_of(text, choices, option=option)


def _given(**values: object) -> dict[str, Any]:
    """The options that were given: the others keep the method's own value."""
    return {name: value for name, value in values.items() if value is not None}


def _log_stem(folder: Path | None, output: Path) -> Path | None:
    """``DIR/net`` of ``-o net.pt``: .csv and .json follow."""
    if folder is None:
        return None
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(
            f"cannot make the folder: {error}", where="option --log-dir", todo="Name another."
        ) from error
    return folder / output.stem


def _plot(shell: Shell, request: "TrainRequest", result: "TrainResult") -> str | None:
    from importlib.util import find_spec

    if find_spec("matplotlib") is None:
        shell.note("no plot: matplotlib is not installed (pip install 'bitfold[report]')")
        return None
    from bitfold.cli.train_plot import draw_curves

    stem = request.log or request.output.with_suffix("")
    path = stem.with_name(stem.name + ".png")
    write_output(path, draw_curves(result.history))
    return str(path)


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
        "bitfold train --method float --net resnet8 --epochs 10 -o float.pt",
        "bitfold train --method uniq --net resnet8 --bits 2,2 --init float.pt -o uniq.pt",
    ),
)
