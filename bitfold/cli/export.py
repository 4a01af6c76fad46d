"""``bitfold export``: checkpoint → integer graph → ONNX."""

from typing import Annotated

import typer

from bitfold.cli.inputs import CheckpointArgument, OutputOption, require_file, require_folder_of
from bitfold.cli.shell import Shell, Verb, one_of
from bitfold.cli.summary import totals
from bitfold.errors import UnsupportedError

PROFILES, EDGES = ("qcdq",), ("8bit",)
PLANNED_PROFILES, PLANNED_EDGES = ("lowbit", "integer", "qonnx"), ("16bit",)

ProfileOption = Annotated[str, typer.Option("--profile", help="Form of the ONNX file: qcdq.")]
EdgesOption = Annotated[str, typer.Option("--edges", help="First and last layer: 8bit.")]


def supported(text: str, known: tuple[str, ...], planned: tuple[str, ...], *, option: str) -> str:
    """``text`` if known; UnsupportedError for a promised one, UsageError for any other."""
    one_of(text, (*known, *planned), option=option)
    if text in planned:
        raise UnsupportedError(
            f"{option} {text} is not available in this version",
            where=f"option {option}",
            todo="available: " + ", ".join(known),
        )
    return text


def export(
    shell: Shell,
    checkpoint: CheckpointArgument,
    *,
    output: OutputOption,
    profile: ProfileOption = "qcdq",
    edges: EdgesOption = "8bit",
) -> None:
    """Fold a checkpoint to integers and write ONNX."""
    supported(profile, PROFILES, PLANNED_PROFILES, option="--profile")
    supported(edges, EDGES, PLANNED_EDGES, option="--edges")
    require_file(checkpoint, kind="checkpoint")
    require_folder_of(output)
    fields = export_checkpoint(shell, checkpoint, output=output, profile=profile)
    shell.emit(fields, lambda: (_sentence(fields), *_warnings(fields)))


def export_checkpoint(
    shell: Shell, checkpoint: CheckpointArgument, *, output: OutputOption, profile: str
) -> dict[str, object]:
    """Fold, write, and give the fields of the JSON object."""
    from bitfold.export import fold_network, to_onnx
    from bitfold.models import load_checkpoint

    shell.log.info("reading %s", checkpoint)
    loaded = load_checkpoint(checkpoint)
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
        "warnings": list(written.warnings),
        "bounds": [{"name": layer.name, "error": layer.error} for layer in bounded],
    }


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
        "bitfold export resnet20.pt -o resnet20.onnx --profile qcdq --json",
    ),
)
