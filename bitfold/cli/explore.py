"""``bitfold explore``: a sweep over arrays, resumable after a kill at any moment."""

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.explore_plot import draw_front
from bitfold.cli.inputs import ModelArgument, open_graph, require_file, require_folder_of
from bitfold.cli.shell import Shell, Verb, write_output
from bitfold.cli.simulate import DeviceOption
from bitfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from bitfold.fpga_sim.explore import Exploration, ExploreRequest, Row, Sweep, Variant

MOST_SHOWN = 40

OutputOption = Annotated[
    Path | None,
    typer.Option("-o", "--output", metavar="FILE.csv", help="All points; results lie beside it."),
]
SweepOption = Annotated[
    Path | None, typer.Option("--sweep", metavar="FILE.toml", help="A [sweep] table of lists.")
]
VaryOption = Annotated[
    list[str] | None,
    typer.Option("--vary", metavar="KEY=A,B,…", help="An axis of the sweep; may be repeated."),
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY=VALUE", help="A key of the array that stays; repeatable."),
]
PointsOption = Annotated[
    int | None, typer.Option("--points", min=1, help="A sample of so many points, by --seed.")
]
AccuracyOption = Annotated[
    float | None, typer.Option("--accuracy", help="Accuracy of MODEL, for the front.")
]
VariantOption = Annotated[
    list[str] | None,
    typer.Option("--variant", metavar="FILE[:ACC]", help="Another model of the family."),
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes; default: one a core.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="dask:HOST:PORT|ray", help="Simulate on a cluster."),
]
PlotOption = Annotated[
    Path | None, typer.Option("--plot", metavar="FILE.png", help="Draw the Pareto front.")
]


def explore(
    shell: Shell,
    model: ModelArgument,
    *,
    device: DeviceOption = "zu3eg",
    sweep: SweepOption = None,
    vary: VaryOption = None,
    settings: SetOption = None,
    points: PointsOption = None,
    accuracy: AccuracyOption = None,
    variant: VariantOption = None,
    jobs: JobsOption = None,
    cluster: ClusterOption = None,
    plot: PlotOption = None,
    output: OutputOption = None,
) -> None:
    """Sweep arrays on an FPGA for the best.

    Least latency, LUT and BRAM among what fits, and the most accurate model. With -o, every result
    is appended to FILE.csv.results: run the same line again to go on where it stopped.
    """
    for path in (output, plot):
        if path is not None:
            require_folder_of(path)
    import tempfile

    with tempfile.TemporaryDirectory() as scratch:
        results = Path(scratch) / "results" if output is None else _beside(output)
        request = _request(
            _variants(model, accuracy, variant or []), device, results, settings or [],
            _sweep(sweep, vary or [], points=points, seed=shell.seed),
            jobs=jobs, cluster=cluster,
        )  # fmt: skip
        found = _run(shell, request)
    if output is not None:
        write_output(output, _csv(found).encode())
    if plot is not None:
        write_output(plot, draw_front(found))
    shell.emit(_fields(found), lambda: [_table(found), _sentence(found, output)])


def _beside(output: Path) -> Path:
    return output.with_name(output.name + ".results")


def _variants(model: Path, accuracy: float | None, others: Sequence[str]) -> "tuple[Variant, ...]":
    from bitfold.fpga_sim.explore import Variant

    found = [Variant(model, accuracy)]
    for text in others:
        path, colon, value = text.rpartition(":")
        try:
            found.append(Variant(Path(path), float(value)) if colon else Variant(Path(text)))
        except ValueError as error:
            raise UsageError(
                f"{value!r} is no accuracy", where="option --variant", todo="Write FILE:ACC."
            ) from error
    for variant in found:
        require_file(variant.path, kind="model")
    if len({variant.accuracy is None for variant in found}) > 1:
        raise UsageError(
            "some models have an accuracy and some do not",
            where="options --accuracy and --variant",
            todo="Give one for each model, or none.",
        )
    return tuple(found)


def _sweep(path: Path | None, vary: Sequence[str], *, points: int | None, seed: int) -> "Sweep":
    from bitfold.fpga_sim.explore import Sweep, read_sweep
    from bitfold.fpga_sim.explore.sweep import DEFAULT

    axes = DEFAULT
    if path is not None:
        require_file(path, kind="sweep")
        axes = read_sweep(path)
    found = Sweep(axes, points, seed)
    for text in vary:
        found = found.with_axis(text)
    return found


def _request(
    variants: "tuple[Variant, ...]", device: str, results: Path, settings: Sequence[str],
    sweep: "Sweep", *, jobs: int | None, cluster: str | None,
) -> "ExploreRequest":  # fmt: skip
    from bitfold.fpga_sim import ArrayConfig
    from bitfold.fpga_sim.explore import ExploreRequest

    base = ArrayConfig().with_settings(settings)
    return ExploreRequest(variants, device, open_graph, results, sweep, base, jobs, cluster)


def _run(shell: Shell, request: "ExploreRequest") -> "Exploration":
    from bitfold.fpga_sim.explore import explore as run

    with shell.progress() as bar:
        task = bar.add_task("explore", total=None)
        return run(
            request, report=lambda done, total: bar.update(task, completed=done, total=total)
        )


def _fields(found: "Exploration") -> dict[str, object]:
    return {
        "device": found.device,
        "points": list(found.points),
        "refused": list(found.refused),
        "resumed": found.resumed,
    }


def _csv(found: "Exploration") -> str:
    stream = io.StringIO()
    names = list(dict.fromkeys(key for point in found.points for key in point))
    rows = csv.DictWriter(stream, names, lineterminator="\n")
    rows.writeheader()
    rows.writerows(found.points)
    return stream.getvalue()


def _table(found: "Exploration") -> "Table":
    from rich.table import Table

    table = Table(box=None, header_style="", pad_edge=False)
    front = found.front
    names = [key for key in (front[0] if front else {}) if not _is_beside(key)]
    for name in names:
        table.add_column(name, justify="right")
    for point in front[:MOST_SHOWN]:
        table.add_row(*(_shown(point, name) for name in names))
    return table


def _is_beside(key: str) -> bool:
    """Errors stand behind what they are of; cycles are in the time, the front all fits."""
    return key in ("fits", "pareto", "cycles") or key.endswith("_error")


def _shown(point: "Row", name: str) -> str:
    """A value, with its error in percent where there is one."""
    value = point[name]
    text = f"{value:.4g}" if isinstance(value, float) else str(value)
    error = point.get("cycles_error" if name == "latency_ms" else f"{name}_error")
    return f"{text} ±{error:.1%}" if error else text


def _sentence(found: "Exploration", output: Path | None) -> str:
    fitting = sum(bool(point["fits"]) for point in found.points)
    front = found.front
    text = (
        f"{len(found.points)} points on {found.device}, {fitting} fit, {len(front)} on the front"
        f" of latency, LUT and BRAM"
    )
    if len(front) > MOST_SHOWN:
        text += f" ({MOST_SHOWN} shown)"
    if found.refused:
        text += f"; {len(found.refused)} refused, the first: {found.refused[0]['refused']}"
    return text if output is None else f"{output}: {text}"


VERB = Verb(
    "explore",
    explore,
    (
        "bitfold explore resnet20.onnx --device zu3eg -o points.csv --plot front.png",
        "bitfold explore resnet20.onnx --vary array=8x8,16x16 --vary lanes=4,8 --jobs 2",
        "bitfold explore w2.onnx --accuracy 93.6 --variant w4.onnx:94.1 -o points.csv",
    ),
)
