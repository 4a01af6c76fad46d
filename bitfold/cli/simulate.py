"""``bitfold simulate``: cycles, latency and resources of an FPGA array, estimated."""

from pathlib import Path
from typing import Annotated

import typer

from bitfold.cli.inputs import (
    ModelArgument,
    OptionalOutput,
    open_graph,
    require_file,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, parse_pair, write_json

DeviceOption = Annotated[str, typer.Option("--device", help="FPGA part, as in zu3eg.")]
ArrayOption = Annotated[
    str | None, typer.Option("--array", metavar="RxC", help="Rows and columns of PEs, as in 16x16.")
]
DataflowOption = Annotated[
    str | None, typer.Option("--dataflow", help="Stationary operand: os, ws or is.")
]
ClockOption = Annotated[
    float | None, typer.Option("--clock-mhz", help="Clock; default: the device's.")
]
ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", metavar="FILE.toml", help="An [array] table; options override it."),
]
ModeOption = Annotated[str | None, typer.Option("--mode", help="native, scalesim or finn.")]
LanesOption = Annotated[
    int | None, typer.Option("--lanes", metavar="L", help="Multipliers in every PE.")
]
DrainOption = Annotated[
    str | None, typer.Option("--drain", help="How results leave the array: shared or shadow.")
]


def simulate(
    shell: Shell,
    model: ModelArgument,
    *,
    device: DeviceOption = "zu3eg",
    array: ArrayOption = None,
    dataflow: DataflowOption = None,
    clock_mhz: ClockOption = None,
    config: ConfigOption = None,
    mode: ModeOption = None,
    lanes: LanesOption = None,
    drain: DrainOption = None,
    output: OptionalOutput = None,
) -> None:
    """Estimate cycles and resources on an FPGA.

    A systolic array: cycles, latency, utilisation, LUT, FF, DSP, BRAM and URAM, layer by layer.
    """
    size = None if array is None else parse_pair(array, option="--array", separator="x")
    if config is not None:
        require_file(config, kind="array description")
    if output is not None:
        require_folder_of(output)
    from bitfold.fpga_sim import simulate as simulate_graph

    report = simulate_graph(
        open_graph(model),
        device=device,
        array=size,
        dataflow=dataflow,
        lanes=lanes,
        drain=drain,
        mode=mode,
        clock_mhz=clock_mhz,
        config=config,
    )
    if output is not None:
        write_json(output, report.to_dict())
    shell.emit(report.to_dict(), lambda: [report.to_text()])


VERB = Verb(
    "simulate",
    simulate,
    (
        "bitfold simulate resnet20.onnx --device zu3eg --array 16x16",
        "bitfold simulate resnet20.onnx --mode scalesim --dataflow ws --array 32x32 --json",
    ),
)
