"""``bitfold verify``: the certificate that every form of a network gives the same integers."""

from pathlib import Path
from typing import Annotated

import typer

from bitfold.cli.certificate_table import mismatch, render_certificate
from bitfold.cli.inputs import DataOption, OptionalOutput, require_folder_of
from bitfold.cli.published_options import (
    CalibrationOption,
    EdgesOption,
    GenomeOption,
    InputOption,
    MeanOption,
    PublishedBitsOption,
    StdOption,
)
from bitfold.cli.shell import Shell, Verb, write_json
from bitfold.cli.verify_against import against as compare_models
from bitfold.cli.verify_replay import replay as replay_certificate
from bitfold.cli.verify_replay import without_overrides
from bitfold.cli.verify_request import DEFAULT_LIMIT, Request, load
from bitfold.errors import UsageError

OptionalModel = Annotated[
    Path | None, typer.Argument(metavar="MODEL", help="ONNX file to read.", show_default=False)
]
CheckpointOption = Annotated[
    Path | None,
    typer.Option("--checkpoint", metavar="CKPT", help="Compare the trained network as well."),
]
LimitOption = Annotated[
    int | None, typer.Option("--limit", min=1, help=f"Images to use at most ({DEFAULT_LIMIT}).")
]
ReplayOption = Annotated[
    Path | None,
    typer.Option("--replay", metavar="FILE", help="Make this certificate again and compare."),
]
AgainstOption = Annotated[
    Path | None,
    typer.Option("--against", metavar="OTHER", help="Find where MODEL and this model part."),
]


def verify(
    shell: Shell,
    model: OptionalModel = None,
    *,
    data: DataOption = None,
    checkpoint: CheckpointOption = None,
    limit: LimitOption = None,
    output: OptionalOutput = None,
    against: AgainstOption = None,
    replay: ReplayOption = None,
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
    texts = {
        "genome": genome, "edges": edges, "input_shape": input_shape, "mean": mean, "std": std,
        "bits": bits, "calib": calib,
    }  # fmt: skip
    options = {key: text for key, text in texts.items() if text is not None}
    if output is not None:
        require_folder_of(output)
    if against is not None:
        _refuse_with_against(options, checkpoint=checkpoint, replay=replay)
        known = _known_model(model)
        wanted = limit or DEFAULT_LIMIT
        compare_models(shell, known, against, data=data, limit=wanted, output=output)
        return
    if replay is not None:
        without_overrides(options, limit=limit)
        replay_certificate(
            shell, replay, model=model, data=data, checkpoint=checkpoint, output=output
        )
        return
    request = _request(model, data, checkpoint, limit or DEFAULT_LIMIT, options)
    certificate = load(request).certificate(shell)
    if output is not None:
        write_json(output, certificate.to_dict())
    shell.emit(certificate.to_dict(), lambda: render_certificate(certificate))
    if not certificate.ok:
        raise mismatch(certificate, request.model)


def _request(
    model: Path | None,
    data: str | None,
    checkpoint: Path | None,
    limit: int,
    options: dict[str, str],
) -> Request:
    known = _known_model(model)
    if data is None:
        raise UsageError("no images to compare on", where="option --data", todo="--data embedded")
    return Request(known, data, checkpoint, limit, options)


def _known_model(model: Path | None) -> Path:
    if model is None:
        raise UsageError(
            "no model to verify",
            where="argument MODEL",
            todo="Name an ONNX file, or a certificate with --replay.",
        )
    return model


def _refuse_with_against(
    options: dict[str, str], *, checkpoint: Path | None, replay: Path | None
) -> None:
    given = [*options]
    given += [name for name, path in (("checkpoint", checkpoint), ("replay", replay)) if path]
    if given:
        raise UsageError(
            "--against compares two files as they are",
            where=f"option --{given[0].replace('input_shape', 'input')}",
            todo="Leave it out.",
        )


VERB = Verb(
    "verify",
    verify,
    (
        "bitfold verify resnet20.onnx --data fashion-mnist --limit 200",
        "bitfold verify resnet20.onnx --data embedded --checkpoint resnet20.pt -o certificate.json",
        "bitfold verify --replay certificate.json",
        "bitfold verify mine.onnx --against yours.onnx --data embedded",
    ),
)
