"""``bitfold bench``: latency, alone or interleaved with other engines at int8."""

from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.inputs import (
    ModelArgument,
    OptionalOutput,
    ThreadsOption,
    require_file,
    require_folder_of,
)
from bitfold.cli.shell import Shell, Verb, one_of, write_json
from bitfold.errors import MismatchError, UnsupportedError, UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from rich.console import RenderableType

    from bitfold.benchmark import BenchReport

PLANNED_PEERS = ("openvino", "litert")

AgainstOption = Annotated[
    str, typer.Option("--against", metavar="ENGINES", help="Other engines: onnxruntime.")
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
    output: OptionalOutput = None,
) -> None:
    """Measure latency and images/s.

    A ratio is the other engine's median divided by ours: above 1 we are faster.
    """
    engines = parse_engines(against)
    if fail_under is not None and not engines:
        raise UsageError(
            "--fail-under needs an engine to compare with",
            where="option --fail-under",
            todo="add --against onnxruntime",
        )
    require_file(model, kind="model")
    if output is not None:
        require_folder_of(output)
    report = measure(shell, model, against=engines, threads=threads, batch=batch, rounds=rounds)
    if output is not None:
        write_json(output, report.to_dict())
    shell.emit(report.to_dict(), lambda: render_bench(report, per_layer=per_layer))
    slow = {name: ratio for name, ratio in report.ratios.items() if ratio < (fail_under or 0)}
    if slow:
        shown = ", ".join(f"{name} {ratio:.2f}" for name, ratio in slow.items())
        raise MismatchError(
            f"ratio below {fail_under:g}: {shown}",
            where=f"{model}, {threads} thread(s), batch {batch}",
            todo="see the layers with --per-layer",
        )


def parse_engines(text: str) -> tuple[str, ...]:
    """``"a,b"`` as known engine names; raises UsageError or UnsupportedError."""
    from bitfold.benchmark import PEERS

    names = tuple(name.strip() for name in text.split(",") if name.strip())
    for name in names:
        one_of(name, (*PEERS, *PLANNED_PEERS), option="--against")
        if name in PLANNED_PEERS:
            raise UnsupportedError(
                f"no comparison with {name} in this version",
                where="option --against",
                todo="available: " + ", ".join(PEERS),
            )
    return names


def measure(
    shell: Shell, model: "Path", *, against: tuple[str, ...], threads: int, batch: int, rounds: int
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
        )


def render_bench(report: "BenchReport", *, per_layer: bool) -> list["RenderableType"]:
    """Engines, and the layers where asked, as tables."""
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("engine", "version", "precision"):
        table.add_column(heading)
    for heading in ("p50 ms", "p90 ms", "p99 ms", "min ms", "images/s", "peak MB", "ratio"):
        table.add_column(heading, justify="right")
    for engine in report.engines:
        times = (engine.p50_ms, engine.p90_ms, engine.p99_ms, engine.min_ms)
        ratio = report.ratios.get(f"{engine.name}-{engine.precision}")
        table.add_row(
            engine.name, engine.version, engine.precision, *(f"{ms:.3f}" for ms in times),
            f"{engine.images_per_s:.0f}", f"{engine.peak_rss_mb:.0f}",
            "" if ratio is None else f"{ratio:.2f}",
        )  # fmt: skip
    line = (
        f"{report.cpu}: {report.threads} thread(s), batch {report.batch}, {report.rounds} rounds; "
        "ratio = their p50 / ours"
    )
    return [table, line, *([_layer_table(report)] if per_layer else [])]


def _layer_table(report: "BenchReport") -> "RenderableType":
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("layer", "op", "kernel"):
        table.add_column(heading)
    for heading in ("ms", "MACs", "GMAC/s", "share"):
        table.add_column(heading, justify="right")
    for layer in report.layers:
        table.add_row(
            layer.name, layer.op, layer.kernel, f"{layer.ms:.4f}", str(layer.macs),
            f"{layer.gmac_per_s:.1f}", f"{layer.share:.1%}",
        )  # fmt: skip
    return table


VERB = Verb(
    "bench",
    bench,
    (
        "bitfold bench resnet20.onnx --against onnxruntime --per-layer",
        "bitfold bench resnet20.onnx --against onnxruntime --fail-under 1.0 --json",
    ),
)
