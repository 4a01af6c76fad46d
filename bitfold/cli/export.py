"""``bitfold export``: checkpoint → integer graph → ONNX."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.inputs import CheckpointArgument, OutputOption, require_file, require_folder_of
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
from bitfold.cli.shell import Shell, Verb, one_of
from bitfold.cli.summary import totals

if TYPE_CHECKING:
    from bitfold.export import LayerReport
    from bitfold.models import PublishedOptions

PROFILES = ("qcdq", "lowbit", "integer", "qonnx")

ProfileOption = Annotated[
    str, typer.Option("--profile", help="Form of the ONNX file: qcdq, lowbit, integer or qonnx.")
]


def export(
    shell: Shell,
    checkpoint: CheckpointArgument,
    *,
    output: OutputOption,
    profile: ProfileOption = "qcdq",
    genome: GenomeOption = None,
    edges: EdgesOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    bits: PublishedBitsOption = None,
    calib: CalibrationOption = None,
) -> None:
    """Fold a checkpoint to integers and write ONNX.

    CKPT is a checkpoint of ours or of the UniQ, BASQ, STTN or PACT/SAWB code; a published one needs
    --input, --mean and --std, a BASQ supernet --genome, PACT --bits.
    """
    one_of(profile, PROFILES, option="--profile")
    require_file(checkpoint, kind="checkpoint")
    require_folder_of(output)
    options = published_options(
        genome=genome, edges=edges, input_shape=input_shape, mean=mean, std=std, bits=bits,
        calib=calib,
    )  # fmt: skip
    fields = export_checkpoint(shell, checkpoint, output=output, profile=profile, published=options)
    shell.emit(fields, lambda: (_sentence(fields), *_warnings(fields)))


def export_checkpoint(
    shell: Shell,
    checkpoint: CheckpointArgument,
    *,
    output: OutputOption,
    profile: str,
    published: "PublishedOptions | None" = None,
) -> dict[str, object]:
    """Fold, write, and give the fields of the JSON object."""
    from bitfold.export import fold_network, to_onnx
    from bitfold.models import load_one_network

    shell.log.info("reading %s", checkpoint)
    loaded = load_one_network(checkpoint, published=published)
    folded = fold_network(loaded.model)
    shell.log.info("writing %s", output)
    written = to_onnx(folded.graph, output, profile=profile)
    sums = totals(folded.graph)
    bounded = [layer for layer in folded.layers if not layer.exact]
    w_bits, a_bits = loaded.spec.bits
    return {
        "checkpoint": str(checkpoint),
        "method": loaded.spec.method,
        "net": loaded.spec.net,
        "bits": {"w": w_bits, "a": a_bits},
        "output": str(output),
        "profile": profile,
        "opset": written.opset,
        "layers": sums.layers,
        "macs": sums.macs,
        "packed_weight_bytes": sums.packed_weight_bytes,
        "exact_layers": len(folded.layers) - len(bounded),
        "bounded_layers": len(bounded),
        "warnings": [*loaded.notes, *saturation_warning(folded.layers), *written.warnings],
        "bounds": [
            {"name": layer.name, "kind": layer.kind, "error": layer.error} for layer in bounded
        ],
        "fused": [asdict(layer) for layer in written.fused],
        "not_fused": [asdict(layer) for layer in written.exact],
    }


def saturation_warning(layers: "Sequence[LayerReport]") -> list[str]:
    """A line that counts the tensors which saturate, if any do (ADR 0012)."""
    count = sum(layer.kind == "saturating stream" for layer in layers)
    if not count:
        return []
    return [
        f"{count} tensors of the residual stream saturate at 64 standard deviations of their batch "
        "norm: no proof keeps them in 32 bits"
    ]


def _sentence(fields: dict[str, object]) -> str:
    return (
        f"{fields['output']}: {fields['layers']} layers, {fields['macs']} MACs, "
        f"{fields['packed_weight_bytes']} bytes of packed weights; requantization of "
        f"{fields['exact_layers']} layers exact, of {fields['bounded_layers']} bounded"
    )


def _warnings(fields: dict[str, object]) -> list[str]:
    listed = fields["warnings"]
    return [f"warning: {text}" for text in listed] if isinstance(listed, list) else []


VERB = Verb(
    "export",
    export,
    (
        "bitfold export resnet20.pt -o resnet20.onnx",
        "bitfold export resnet20.pt -o resnet20.onnx --profile integer --json",
        "bitfold export presnet18.pth -o presnet18.onnx --input 224x224x3 "
        "--mean 0.485,0.456,0.406 --std 0.229,0.224,0.225",
    ),
)
