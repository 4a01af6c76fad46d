"""``bitfold verify``: the certificate that every form of a network gives the same integers."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.inputs import (
    DataOption,
    ModelArgument,
    OptionalOutput,
    open_model,
    open_values,
    require_file,
    require_folder_of,
)
from bitfold.cli.published_options import (
    CalibrationOption,
    EdgesOption,
    GenomeOption,
    InputOption,
    MeanOption,
    PublishedBitsOption,
    StdOption,
    published_options,
)
from bitfold.cli.shell import Shell, Verb, write_json
from bitfold.errors import MismatchError, UsageError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from rich.console import RenderableType

    from bitfold.certify import Certificate, Stage
    from bitfold.ir import IntGraph
    from bitfold.models import PublishedOptions

CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="CKPT", help="Compare the trained network as well."),
]
LimitOption = Annotated[int, typer.Option("--limit", min=1, help="Images to use at most.")]


def verify(
    shell: Shell,
    model: ModelArgument,
    *,
    data: DataOption = None,
    checkpoint: CheckpointOption = None,
    limit: LimitOption = 500,
    output: OptionalOutput = None,
    genome: GenomeOption = None,
    edges: EdgesOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    bits: PublishedBitsOption = None,
    calib: CalibrationOption = None,
) -> None:
    """Prove that every form of a model agrees.

    Fake-quantized network, integer graph, ONNX Runtime, every kernel and the stepped FPGA array.
    Exit code 1 if any of them differs anywhere; the first layer, pixel and channel are named.
    """
    if data is None:
        raise UsageError("no images to compare on", where="option --data", todo="--data embedded")
    if checkpoint is not None:
        require_file(checkpoint, kind="checkpoint")
    if output is not None:
        require_folder_of(output)
    options = published_options(
        genome=genome, edges=edges, input_shape=input_shape, mean=mean, std=std, bits=bits,
        calib=calib,
    )  # fmt: skip
    certificate = make_certificate(
        shell, model, data=data, checkpoint=checkpoint, limit=limit, published=options
    )
    if output is not None:
        write_json(output, certificate.to_dict())
    shell.emit(certificate.to_dict(), lambda: render_certificate(certificate))
    if not certificate.ok:
        raise mismatch(certificate, model)


def make_certificate(
    shell: Shell,
    model: Path,
    *,
    data: str,
    checkpoint: Path | None,
    limit: int,
    published: "PublishedOptions | None" = None,
) -> "Certificate":
    """Certify ``model`` on at most ``limit`` images of ``data``, showing each stage."""
    from bitfold.certify import certify
    from bitfold.ir.own_input import without_own_input

    graph = open_model(model, published=published)
    images, labels, own_values = _images(graph, data, limit)
    with shell.progress() as bar:
        task = bar.add_task("verify", total=None)
        return certify(
            without_own_input(graph),
            images,
            labels=labels,
            stages=() if own_values is None else _runtime_stages(model, own_values),
            model_path=model if model.suffix == ".onnx" else None,
            checkpoint=checkpoint,
            published=published,
            report=lambda stage: bar.update(task, description=f"verify: {stage}"),
        )


def _images(
    graph: "IntGraph", data: str, limit: int
) -> tuple["NDArray[np.uint8]", "NDArray[np.int64] | None", "NDArray[np.generic] | None"]:
    """Pixels, labels, and the same in the form of another tool's model, which may be a file."""
    from bitfold.ir.own_input import own_input
    from bitfold.models import load_images

    own = own_input(graph)
    if own is not None and data.endswith(".npy"):
        values = open_values(Path(data))[:limit]
        return own.to_pixels(values), None, values
    labelled = load_images(data)
    labels = None if labelled.labels is None else labelled.labels[:limit]
    if own is None:
        return labelled.images[:limit], labels, None
    given = own.of_images(labelled.images[:limit])
    return own.to_pixels(given), labels, given


def _runtime_stages(model: Path, values: "NDArray[np.generic]") -> tuple["Stage", ...]:
    """The model itself under ONNX Runtime: layers fed with its codes, float32 rounding differs."""
    from bitfold.certify import runtime_stage
    from bitfold.export import compare_file

    return tuple(
        runtime_stage(name, compare_file(model, values, optimized=optimized))
        for name, optimized in (
            ("the given model in onnxruntime", True),
            ("the given model in onnxruntime unoptimized", False),
        )
    )


def mismatch(certificate: "Certificate", model: Path) -> MismatchError:
    """The error for a certificate that is not ok, naming the first place that differs."""
    broken = [stage for stage in certificate.stages if stage.exact and stage.mismatches]
    stage = broken[0]
    return MismatchError(
        f"{stage.name} and {stage.against} differ in {stage.mismatches} of {stage.compared} values",
        where=f"{model}, {_place(stage)}",
        todo="that kernel or writer is wrong for this network: please report it with the model",
    )


def _place(stage: "Stage") -> str:
    first = stage.first
    if first is None:
        return "no place given"
    index = ", ".join(map(str, first.index))
    return f"layer {first.layer}, index ({index}): got {first.got:g}, want {first.want:g}"


def render_certificate(certificate: "Certificate") -> list["RenderableType"]:
    """The stages as a table and a last line."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    table.add_column("stage")
    table.add_column("against")
    for heading in ("compared", "mismatches", "max |diff|"):
        table.add_column(heading, justify="right")
    table.add_column("first difference")
    for stage in certificate.stages:
        table.add_row(
            stage.name + ("" if stage.exact else " (bounded)"),
            stage.against,
            str(stage.compared),
            str(stage.mismatches),
            f"{stage.max_abs_diff:g}",
            stage.detail if not stage.compared else "" if stage.first is None else _place(stage),
        )
    verdict = "equal everywhere" if certificate.ok else "NOT EQUAL"
    line = (
        f"{verdict}: {certificate.images} images, {certificate.accumulators_proved} accumulators "
        f"proved, {certificate.requant_pairs_checked} requantization pairs"
    )
    return [table, line]


VERB = Verb(
    "verify",
    verify,
    (
        "bitfold verify resnet20.onnx --data fashion-mnist --limit 200",
        "bitfold verify resnet20.onnx --data embedded --checkpoint resnet20.pt -o certificate.json",
    ),
)
