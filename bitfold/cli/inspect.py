"""``bitfold inspect``: what a model consists of, layer by layer."""

from dataclasses import asdict
from typing import TYPE_CHECKING

from bitfold.cli.inputs import ModelArgument, open_graph
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
from bitfold.cli.shell import Shell, Verb
from bitfold.cli.summary import LayerRow, Totals, layer_rows, totals

if TYPE_CHECKING:
    from rich.console import RenderableType

    from bitfold.ir import IntGraph


def inspect(
    shell: Shell,
    model: ModelArgument,
    *,
    genome: GenomeOption = None,
    edges: EdgesOption = None,
    input_shape: InputOption = None,
    mean: MeanOption = None,
    std: StdOption = None,
    bits: PublishedBitsOption = None,
    calib: CalibrationOption = None,
) -> None:
    """Show every layer of a model.

    Operation, shape, bits and grids, MACs, packed size, proven range, and the kernel that runs it.
    MODEL is an ONNX file of ours or a checkpoint, a published one with the options of `export`.
    """
    options = published_options(
        genome=genome, edges=edges, input_shape=input_shape, mean=mean, std=std, bits=bits,
        calib=calib,
    )  # fmt: skip
    graph = open_graph(model, published=options)
    kernels, reasons = chosen_kernels(graph)
    rows = layer_rows(graph, kernels=kernels)
    sums = totals(graph)
    fields = {
        "model": str(model),
        "meta": dict(graph.meta),
        "input": list(graph.input.shape),
        "classes": graph.types[graph.output.name].shape[0],
        **asdict(sums),
        "layers": [row.to_dict() | {"why": reasons.get(row.name)} for row in rows],
        "num_layers": sums.layers,
    }
    shell.emit(fields, lambda: _render(rows, sums, reasons))


def chosen_kernels(graph: "IntGraph") -> tuple[dict[str, str], dict[str, str]]:
    """Node name → kernel that would run it here, and node name → why."""
    from bitfold.runtime import Session

    with Session(graph) as session:
        names = [step.name for step in session.plan.steps]
        kernels = dict(zip(names, session.kernels, strict=True))
        reasons = dict(zip(names, session.kernel_reasons, strict=True))
    return {name: kernel for name, kernel in kernels.items() if kernel}, reasons


def _cells(row: LayerRow) -> list[str]:
    def text(value: object) -> str:
        return "" if value is None or value == 0 else str(value)

    weights = "" if row.w_bits is None else f"{row.w_bits} ({row.w_grid})"
    codes = "" if row.a_bits is None else f"{row.a_bits} ({row.a_grid})"
    span = "" if row.acc_bits is None else f"{row.lo} … {row.hi} ({row.acc_bits} bit)"
    shape = "×".join(map(str, row.shape))
    return [
        row.name, row.op, shape, weights, codes, text(row.macs), text(row.parameters),
        text(row.packed_bytes), span, text(row.kernel),
    ]  # fmt: skip


def _render(
    rows: tuple[LayerRow, ...], sums: Totals, reasons: dict[str, str]
) -> list["RenderableType"]:
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("layer", "op", "shape", "W bits", "A bits"):
        table.add_column(heading)
    for heading in ("MACs", "parameters", "packed B", "proven range"):
        table.add_column(heading, justify="right")
    table.add_column("kernel")
    table.add_column("why")
    for row in rows:
        table.add_row(*_cells(row), reasons.get(row.name, ""))
    line = (
        f"{sums.layers} layers with weights, {sums.macs / 1e6:.1f} MMAC, "
        f"{sums.parameters} parameters, {sums.packed_weight_bytes} bytes packed"
    )
    return [table, line]


VERB = Verb(
    "inspect",
    inspect,
    ("bitfold inspect resnet20.onnx", "bitfold inspect resnet20.pt --json"),
)
