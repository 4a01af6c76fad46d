"""``bitfold search``: BASQ's evolution over a supernet, resumable after a kill at any moment."""

import functools
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from bitfold.cli.inputs import (
    DataOption,
    OutputOption,
    parse_shape,
    require_file,
    require_folder_of,
)
from bitfold.cli.search_plot import draw_pareto
from bitfold.cli.shell import Shell, Verb, one_of, write_output
from bitfold.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from bitfold.models.search import (
        FoldOrder,
        FoldResult,
        MeasureLatency,
        Objective,
        SearchProgress,
        SearchRequest,
        SearchResult,
    )

OBJECTIVES: tuple["Objective", ...] = ("accuracy", "accuracy,latency")
FOLD_ORDERS: tuple["FoldOrder", ...] = ("spread", "stored")

SupernetArgument = Annotated[Path, typer.Argument(metavar="SUPERNET", help="Trained supernet.")]
ShapeOption = Annotated[
    str | None,
    typer.Option("--input", metavar="HxWxC", help="Scale and crop images of a folder to this."),
]
FoldsOption = Annotated[int, typer.Option("--folds", min=1, help="Searches, each on its images.")]
FoldImagesOption = Annotated[
    int, typer.Option("--fold-images", min=1, help="Training images in a fold.")
]
FoldOrderOption = Annotated[
    str,
    typer.Option("--fold-order", help="spread: dealt out in turn; stored: runs, as published."),
]
PopulationOption = Annotated[int, typer.Option("--population", min=1, help="Genomes a generation.")]
GenerationsOption = Annotated[int, typer.Option("--generations", min=1, help="Generations a fold.")]
ParentsOption = Annotated[int, typer.Option("--parents", min=1, help="Best genomes that breed.")]
MutationsOption = Annotated[
    int, typer.Option("--mutations", min=0, help="Mutations in a generation.")
]
CrossoversOption = Annotated[
    int, typer.Option("--crossovers", min=0, help="Crossovers in a generation; the rest is random.")
]
RateOption = Annotated[
    float, typer.Option("--mutation-rate", help="Probability of drawing a gene anew.")
]
ObjectiveOption = Annotated[
    str, typer.Option("--objective", help="accuracy, or accuracy,latency: a bit width a block too.")
]
LatencyOption = Annotated[
    str,
    typer.Option("--latency", metavar="cpu|fpga:DEVICE", help="Whose latency, as in fpga:zu3eg."),
]
BudgetOption = Annotated[
    float | None,
    typer.Option("--budget-ms", min=0, help="The winner is the most accurate within this latency."),
]
JobsOption = Annotated[
    int | None, typer.Option("--jobs", min=1, help="Processes; default: one a core.")
]
ClusterOption = Annotated[
    str | None,
    typer.Option("--cluster", metavar="dask:HOST:PORT|ray", help="Evaluate on a cluster."),
]
PlotOption = Annotated[
    Path | None,
    typer.Option("--plot", metavar="FILE.png", help="Draw accuracy against latency."),
]


def search(
    shell: Shell,
    supernet: SupernetArgument,
    *,
    output: OutputOption,
    data: DataOption = "fashion-mnist",
    input_shape: ShapeOption = None,
    folds: FoldsOption = 10,
    fold_images: FoldImagesOption = 5000,
    fold_order: FoldOrderOption = "spread",
    population: PopulationOption = 45,
    generations: GenerationsOption = 20,
    parents: ParentsOption = 10,
    mutations: MutationsOption = 15,
    crossovers: CrossoversOption = 15,
    mutation_rate: RateOption = 0.1,
    objective: ObjectiveOption = "accuracy",
    latency: LatencyOption = "cpu",
    budget_ms: BudgetOption = None,
    jobs: JobsOption = None,
    cluster: ClusterOption = None,
    plot: PlotOption = None,
) -> None:
    """Search a BASQ supernet for its best branches.

    Fitness is top-1 on images of the training split, fold by fold. The state lies beside the
    result (GENOME.json.state): run the same line again to go on where it stopped.
    """
    require_file(supernet, kind="supernet")
    order = one_of(fold_order, FOLD_ORDERS, option="--fold-order")
    wish = one_of(objective, OBJECTIVES, option="--objective")
    if data is None:
        raise UsageError("no images to search on", where="option --data")
    for path in (output, plot):
        if path is not None:
            require_folder_of(path)
    if plot is not None and wish == "accuracy":
        raise UsageError(
            "a search for accuracy alone has no Pareto plot",
            where="option --plot",
            todo="Add --objective accuracy,latency, or drop --plot.",
        )
    from bitfold.models.search import EvolutionConfig, Folds, SearchRequest

    size = None if input_shape is None else parse_shape(input_shape)
    request = SearchRequest(
        supernet=supernet,
        output=output,
        folds=Folds(data, folds, fold_images, order, size),
        evolution=EvolutionConfig(
            population, generations, parents, mutations, crossovers, mutation_rate
        ),
        objective=wish,
        measure_latency=None if wish == "accuracy" else _measurement(latency),
        budget_ms=budget_ms,
        seed=shell.seed,
        jobs=jobs,
        cluster=cluster,
    )
    result = run_search(shell, request)
    if plot is not None:
        write_output(plot, draw_pareto(result.pareto, chosen=result.best.winner))
    shell.emit(
        {"output": str(output), **result.fields}
        | {"evaluations": result.evaluations, "resumed_evaluations": result.resumed},
        lambda: [_fold_table(result), _sentence(output, result)],
    )


def _measurement(latency: str) -> "MeasureLatency":
    """The measurement that ``--latency`` names; raises UsageError."""
    kind, _, device = latency.partition(":")
    if latency == "cpu":
        from bitfold.latency import cpu_latency

        return cpu_latency
    if kind == "fpga" and device:
        from bitfold.latency import fpga_latency

        return functools.partial(fpga_latency, device=device)
    raise UsageError(
        f"--latency {latency!r} is not known",
        where="option --latency",
        todo="choose cpu, or fpga:DEVICE as in fpga:zu3eg",
    )


def run_search(shell: Shell, request: "SearchRequest") -> "SearchResult":
    """Search with a progress bar: fold, generation, best fitness, time left."""
    from bitfold.models.search import search as run

    with shell.progress("generation", "best") as bar:
        task = bar.add_task("search", total=None, generation="", best="")

        def show(progress: "SearchProgress") -> None:
            best = "" if progress.best is None else f"best {progress.best:.2%}"
            bar.update(
                task,
                description=f"fold {progress.fold + 1} of {request.folds.count}",
                completed=progress.evaluated,
                total=progress.total,
                generation=f"generation {progress.generation}",
                best=best,
            )

        return run(request, report=show)


def _fold_table(result: "SearchResult") -> "Table":
    from rich.table import Table

    with_latency = bool(result.pareto)
    table = Table(box=None, header_style="", pad_edge=False)
    for name in ("fold", "fitness", "other folds", *(["ms"] * with_latency)):
        table.add_column(name, justify="right")
    table.add_column("genome")
    for fold in result.folds:
        table.add_row(*_cells(fold))
    return table


def _cells(fold: "FoldResult") -> list[str]:
    others = "" if fold.held_out is None else f"{fold.held_out:.2%}"
    ms = fold.winner.latency_ms
    shown = [] if ms is None else [f"{ms:.3f}"]
    return [str(fold.fold), f"{fold.fitness:.2%}", others, *shown, fold.winner.genome.key]


def _sentence(output: Path, result: "SearchResult") -> str:
    return (
        f"{output}: genome {result.genome.key} of fold {result.best.fold}, "
        f"{result.best.winner.accuracy:.2%}, {result.evaluations} fitnesses counted"
    )


VERB = Verb(
    "search",
    search,
    (
        "bitfold search supernet.pt --data fashion-mnist -o genome.json",
        "bitfold search supernet.pt --objective accuracy,latency --latency fpga:zu3eg "
        "--plot pareto.png -o genome.json",
    ),
)
