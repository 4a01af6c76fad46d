"""``bitfold bench``: latency, alone or interleaved with other engines at int8."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.inputs import (
    ModelArgument,
    OptionalOutput,
    ThreadsOption,
    require_file,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, one_of, write_json, write_output
from bitfold.errors import MismatchError, UsageError

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

    from bitfold.benchmark import BenchReport, Peak

AgainstOption = Annotated[
    str,
    typer.Option(
        "--against", metavar="ENGINES", help="Other engines: onnxruntime,openvino,litert."
    ),
]
TopologyOption = Annotated[
    Path | None,
    typer.Option("--topology", metavar="MODEL", help="The network that other engines run instead."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the layers' roofline.")
]
BatchOption = Annotated[int, typer.Option("--batch", min=1, help="Images per inference.")]
RoundsOption = Annotated[int, typer.Option("--rounds", min=1, help="Turns of every engine.")]
PerLayerFlag = Annotated[bool, typer.Option("--per-layer", help="Show the time of every layer.")]
FailUnderOption = Annotated[
    float | None,
    typer.Option("--fail-under", metavar="RATIO", help="Exit 1 if any ratio is below RATIO."),
]


def bench(
    shell: Shell,
    model: ModelArgument,
    *,
    against: AgainstOption = "",
    threads: ThreadsOption = 1,
    batch: BatchOption = 1,
    rounds: RoundsOption = 15,
    per_layer: PerLayerFlag = False,
    fail_under: FailUnderOption = None,
    topology: TopologyOption = None,
    plot: PlotOption = None,
    output: OptionalOutput = None,
) -> None:
    """Measure latency and images/s, alone or in a race at int8.

    A ratio is the other engine's median divided by ours: above 1 we are faster.
    """
    engines = parse_engines(against)
    if fail_under is not None and not engines:
        raise UsageError(
            "--fail-under needs an engine to compare with",
            where="option --fail-under",
            todo="add --against onnxruntime",
        )
    for path in (model, topology):
        if path is not None:
            require_file(path, kind="model")
    for path in (output, plot):
        if path is not None:
            require_folder_of(path)
    report = measure(
        shell, model, against=engines, threads=threads, batch=batch, rounds=rounds,
        topology=topology,
    )  # fmt: skip
    _write_files(report, output, plot)
    shell.emit(report.to_dict(), lambda: render_bench(report, per_layer=per_layer))
    if fail_under is not None:
        _require_ratio(report, fail_under, where=f"{model}, {threads} thread(s), batch {batch}")


def _write_files(report: "BenchReport", output: Path | None, plot: Path | None) -> None:
    if plot is not None:
        from bitfold.cli.bench_plot import draw_roofline

        write_output(plot, draw_roofline(report))
    if output is not None:
        write_json(output, report.to_dict())


def _require_ratio(report: "BenchReport", least: float, *, where: str) -> None:
    slow = {name: ratio for name, ratio in report.ratios.items() if ratio < least}
    if slow:
        shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in slow.items())
        raise MismatchError(
            f"ratio below {least:g}: {shown}",
            where=where,
            todo="see the layers with --per-layer",
        )


def parse_engines(text: str) -> tuple[str, ...]:
    """``"a,b"`` as known engine names, each once; UsageError or MissingDependencyError."""
    from bitfold.benchmark import PEERS, require_engines

    names = tuple(dict.fromkeys(name.strip() for name in text.split(",") if name.strip()))
    for name in names:
        one_of(name, PEERS, option="--against")
    require_engines(names)
    return names


def measure(
    shell: Shell,
    model: Path,
    *,
    against: tuple[str, ...],
    threads: int,
    batch: int,
    rounds: int,
    topology: Path | None = None,
) -> "BenchReport":
    """Run the race with a progress bar."""
    from bitfold.benchmark import BenchOptions, run_bench

    options = BenchOptions(threads=threads, batch=batch, rounds=rounds, seed=shell.seed)
    with shell.progress() as bar:
        task = bar.add_task("bench", total=rounds)
        return run_bench(
            model,
            against=against,
            options=options,
            report=lambda number: bar.update(task, completed=number),
            topology=topology,
        )


def render_bench(report: "BenchReport", *, per_layer: bool) -> list["RenderableType"]:
    """Engines, and the layers where asked, as tables."""
    table = _table(
        ("engine", "version", "precision"),
        ("p50 ms", "p90 ms", "p99 ms", "min ms", "images/s", "peak MB", "import ms", "cold ms",
         "ratio"),
    )  # fmt: skip
    for engine in report.engines:
        times = (engine.p50_ms, engine.p90_ms, engine.p99_ms, engine.min_ms)
        ratio = report.ratios.get(f"{engine.name}-{engine.precision}")
        table.add_row(
            engine.name, engine.version, engine.precision, *(f"{ms:.3f}" for ms in times),
            f"{engine.images_per_s:.0f}", f"{engine.peak_rss_mb:.0f}", f"{engine.import_ms:.0f}",
            f"{engine.cold_start_ms:.0f}", "" if ratio is None else f"{ratio:.2f}",
        )  # fmt: skip
    lines = [
        f"{report.cpu}: {report.threads} thread(s), batch {report.batch}, {report.rounds} rounds; "
        "ratio = their p50 / ours",
        f"weights {report.weights.packed} bytes packed, {report.weights.least} at least",
    ]
    if report.peak is not None:
        lines.append(_peak_line(report.peak))
    return [table, *lines, *([_layer_table(report)] if per_layer else [])]


def _peak_line(peak: "Peak") -> str:
    cycles = "" if peak.macs_per_cycle is None else f" ({peak.macs_per_cycle:.0f} a cycle"
    clock = "" if peak.clock_ghz is None else f" at {peak.clock_ghz:.2f} GHz)"
    return (
        f"measured peak of one core: {peak.gmac_per_s:.0f} GMAC/s{cycles}{clock} with {peak.isa}, "
        f"reading {peak.cache_gb_per_s:.0f} GB/s from cache, {peak.memory_gb_per_s:.0f} from memory"
    )


def _layer_table(report: "BenchReport") -> "RenderableType":
    table = _table(
        ("layer", "op", "kernel"),
        ("ms", "MACs", "GMAC/s", "MAC/cycle", "of peak", "share"),
    )
    for layer in report.layers:
        cycles, peak = layer.macs_per_cycle, layer.peak_share
        table.add_row(
            layer.name, layer.op, layer.kernel, f"{layer.ms:.4f}", str(layer.macs),
            f"{layer.gmac_per_s:.1f}", "" if not cycles else f"{cycles:.1f}",
            "" if not peak else f"{peak:.0%}", f"{layer.share:.1%}",
        )  # fmt: skip
    return table


def _table(words: tuple[str, ...], numbers: tuple[str, ...]) -> "Table":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in words:
        table.add_column(heading)
    for heading in numbers:
        table.add_column(heading, justify="right")
    return table


VERB = Verb(
    "bench",
    bench,
    (
        "bitfold bench resnet20.onnx --against onnxruntime --per-layer",
        "bitfold bench resnet20.onnx --against onnxruntime,openvino,litert --plot roofline.png",
        "bitfold bench resnet20.onnx --against onnxruntime --fail-under 1.0 --json",
    ),
)
