"""``bitfold simulate``: cycles, latency and resources of an FPGA array, estimated."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Protocol

import typer

from bitfold.cli.inputs import (
    ModelArgument,
    OptionalOutput,
    open_graph,
    require_file,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, parse_pair, write_json, write_output
from bitfold.cli.simulate_plot import draw_report
from bitfold.errors import UsageError

if TYPE_CHECKING:
    from bitfold.fpga_sim import ArrayConfig
    from bitfold.fpga_sim.finn import PipelineReport
    from bitfold.fpga_sim.report import Report
    from bitfold.fpga_sim.scalesim import TopologyReport

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
    typer.Option("--config", metavar="FILE.toml", help="An [array] table, or FINN's folding."),
]
ModeOption = Annotated[str | None, typer.Option("--mode", help="native, scalesim or finn.")]
LanesOption = Annotated[
    int | None, typer.Option("--lanes", metavar="L", help="Multipliers in every PE.")
]
DrainOption = Annotated[
    str | None, typer.Option("--drain", help="How results leave the array: shared or shadow.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="Any key of [array]; may be repeated."),
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.png", help="Draw cycles a layer and PE utilisation."),
]
TraceOption = Annotated[
    Path | None,
    typer.Option("--trace", metavar="FILE.json", help="Write a Chrome/Perfetto timeline."),
]
ReportCsvOption = Annotated[
    Path | None,
    typer.Option(
        "--report-csv",
        metavar="PATH",
        help="Write SCALE-Sim's compute report, or into a folder its three reports.",
    ),
]
TopologyOption = Annotated[
    Path | None,
    typer.Option(
        "--topology", metavar="FILE.csv", help="Write the layers as SCALE-Sim reads them."
    ),
]
SynthOption = Annotated[
    bool,
    typer.Option("--synth", help="Run Yosys on the design too and report both (minutes)."),
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
    settings: SetOption = None,
    plot: PlotOption = None,
    trace: TraceOption = None,
    report_csv: ReportCsvOption = None,
    topology: TopologyOption = None,
    synth: SynthOption = False,
    output: OptionalOutput = None,
) -> None:
    """Estimate cycles and resources on an FPGA.

    A systolic array: cycles, latency, utilisation, LUT, FF, DSP, BRAM and URAM, layer by layer.
    In mode scalesim MODEL may be a topology CSV; mode finn reads a folding from --config.
    """
    size = None if array is None else parse_pair(array, option="--array", separator="x")
    if config is not None:
        require_file(config, kind="array description")
    for path in (output, plot, trace, report_csv, topology):
        if path is not None and not (path is report_csv and path.is_dir()):
            require_folder_of(path)
    if mode == "finn":
        _require_absent("finn", plot=plot, trace=trace, report_csv=report_csv, topology=topology,
                        synth=synth or None)  # fmt: skip
        _finish(shell, _pipeline(model, config, clock_mhz=clock_mhz, device=device), output)
        return
    chosen = _array(config, settings or [], {
        "rows": size and size[0], "cols": size and size[1], "dataflow": dataflow, "mode": mode,
        "lanes": lanes, "drain": drain, "clock_mhz": clock_mhz,
    })  # fmt: skip
    if report_csv is not None or topology is not None or model.suffix == ".csv":
        _require_absent("scalesim's files", plot=plot, trace=trace, synth=synth or None)
        _finish(shell, _topology(model, chosen, topology=topology, report_csv=report_csv), output)
        return
    from bitfold.fpga_sim import simulate as simulate_graph

    report = simulate_graph(open_graph(model), device=device, config=chosen)
    if synth:
        report = _synthesised(shell, report)
    _draw(report, trace=trace, plot=plot)
    _finish(shell, report, output)


def _draw(report: "Report", *, trace: Path | None, plot: Path | None) -> None:
    if trace is not None:
        from bitfold.fpga_sim.timeline import chrome_trace

        write_json(trace, chrome_trace(report))
    if plot is not None:
        write_output(plot, draw_report(report))


def _synthesised(shell: Shell, report: "Report") -> "Report":
    """Yosys' counts beside the report's, with a line on stderr for each step."""
    from bitfold.fpga_sim.report import with_synthesis

    with shell.progress() as bar:
        task = bar.add_task("yosys", total=None)

        def step(what: str) -> None:
            bar.update(task, description=f"yosys: {what}")
            if not shell.interactive:
                shell.note(f"yosys: {what} …")

        return with_synthesis(report, step=step)


class Rendered(Protocol):
    """What every mode's report can do."""

    def to_dict(self) -> dict[str, object]:
        """The JSON object."""

    def to_text(self) -> str:
        """A table for people."""


def _finish(shell: Shell, report: Rendered, output: Path | None) -> None:
    if output is not None:
        write_json(output, report.to_dict())
    shell.emit(report.to_dict(), lambda: [report.to_text()])


def _require_absent(mode: str, **options: Path | bool | None) -> None:
    for name, given in options.items():
        if given is not None:
            raise UsageError(
                f"{mode} and --{name.replace('_', '-')} do not go together",
                where=f"option --{name.replace('_', '-')}",
                todo="Drop one of them.",
            )


def _array(
    config: Path | None, settings: list[str], options: Mapping[str, object]
) -> "ArrayConfig":
    """The file's array, then ``--set``, then the options that were given."""
    from bitfold.fpga_sim import ArrayConfig
    from bitfold.fpga_sim.report import configure

    base = ArrayConfig() if config is None else ArrayConfig.from_toml(config)
    return configure(base.with_settings(settings), options)


def _pipeline(
    model: Path, config: Path | None, *, clock_mhz: float | None, device: str
) -> "PipelineReport":
    from bitfold.fpga_sim import find_device
    from bitfold.fpga_sim.finn import read_folding, simulate_folding, units_of

    if config is None:
        raise UsageError(
            "mode finn needs a folding",
            where="option --config",
            todo="Add --config FOLDING.json.",
        )
    clock = clock_mhz or find_device(device).clock_mhz
    units = units_of(open_graph(model))
    return simulate_folding(units, read_folding(config), clock_mhz=clock, where=f"file {config}")


def _topology(
    model: Path, array: "ArrayConfig", *, topology: Path | None, report_csv: Path | None
) -> "TopologyReport":
    from bitfold.fpga_sim.scalesim import (
        read_topology,
        simulate_topology,
        topology_of,
        write_topology,
    )

    if array.mode != "scalesim":
        raise UsageError(
            "a topology is counted as SCALE-Sim does",
            where="option --mode",
            todo="Add --mode scalesim.",
        )
    is_csv = model.suffix == ".csv"
    layers = read_topology(model) if is_csv else topology_of(open_graph(model))
    report = simulate_topology(layers, array)
    if topology is not None:
        write_output(topology, write_topology(layers).encode())
    if report_csv is not None:
        _write_reports(report, report_csv)
    return report


def _write_reports(report: "TopologyReport", path: Path) -> None:
    """The compute report as a file, or all three of SCALE-Sim's into a folder."""
    from bitfold.fpga_sim.scalesim_access import access_csv, bandwidth_csv

    if not path.is_dir():
        write_output(path, report.to_csv().encode())
        return
    write_output(path / "COMPUTE_REPORT.csv", report.to_csv().encode())
    write_output(path / "BANDWIDTH_REPORT.csv", bandwidth_csv(report).encode())
    write_output(path / "DETAILED_ACCESS_REPORT.csv", access_csv(report).encode())


VERB = Verb(
    "simulate",
    simulate,
    (
        "bitfold simulate resnet20.onnx --device zu3eg --array 16x16",
        "bitfold simulate resnet20.onnx --set lanes=4 --set depthwise=vector --trace t.json",
        "bitfold simulate resnet20.onnx --mode scalesim --dataflow ws --array 32x32 --json",
        "bitfold simulate resnet20.onnx --array 4x4 --synth",
        "bitfold simulate topology.csv --mode scalesim --report-csv COMPUTE_REPORT.csv",
        "bitfold simulate cnv.onnx --mode finn --config folding.json",
    ),
)
