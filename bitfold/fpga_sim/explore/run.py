"""A sweep over arrays and models on all cores or a cluster, going on after any kill."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from bitfold.errors import BitfoldError
from bitfold.fpga_sim.array import ArrayConfig
from bitfold.fpga_sim.cycles import ceil_div
from bitfold.fpga_sim.device import find_device
from bitfold.fpga_sim.explore.pareto import pareto_front
from bitfold.fpga_sim.explore.results import ResultFile, Row, open_results
from bitfold.fpga_sim.explore.sweep import DEFAULT, Sweep, Value, changes_of
from bitfold.fpga_sim.report import configure, simulate
from bitfold.ir.graph import IntGraph
from bitfold.pool import Pool, open_pool

LoadGraph = Callable[[Path], IntGraph]
# Most points of one call: starting it costs nothing beside them, and a kill loses little.
CHUNK = 100
MEASURED = ("cycles", "latency_ms", "images_per_s", "utilisation", "dram_bytes")
COUNTED = ("lut", "ff", "dsp", "bram36", "uram")


@dataclass(frozen=True, slots=True)
class Variant:
    """One model of the family; ``accuracy`` is the user's, a fraction or percent."""

    path: Path
    accuracy: float | None = None


@dataclass(frozen=True, slots=True)
class ExploreRequest:
    """``load`` is importable by workers; ``base`` is what the sweep's keys are set on."""

    variants: tuple[Variant, ...]
    device: str
    load: LoadGraph
    results: Path
    sweep: Sweep = field(default_factory=lambda: Sweep(DEFAULT))
    base: ArrayConfig = field(default_factory=ArrayConfig)
    jobs: int | None = None
    cluster: str | None = None


@dataclass(frozen=True, slots=True)
class Exploration:
    """Every point that could be built, in order; ``refused`` are the others with their reasons."""

    device: str
    points: tuple[Row, ...]
    refused: tuple[Row, ...]
    resumed: int
    dropped_bytes: int

    @property
    def front(self) -> tuple[Row, ...]:
        """The points that no other beats, fastest first."""
        best = [point for point in self.points if point["pareto"]]
        return tuple(sorted(best, key=lambda point: (point["latency_ms"], point["lut"])))


def explore(
    request: ExploreRequest, *, report: Callable[[int, int], None] = lambda done, total: None
) -> Exploration:
    """Simulate every point of the sweep that the results file does not hold yet.

    ``report`` hears how many of how many points are known. Raises UsageError on a wrong sweep or
    the results of another one; a point that cannot be built is a result with its reason.
    """
    device = find_device(request.device)
    known = open_results(request.results, _identity(request, device.name))
    wanted = [(m, n) for m in range(len(request.variants)) for n in request.sweep.numbers()]
    missing = [key for key in wanted if key not in known.rows]
    resumed = len(wanted) - len(missing)
    report(resumed, len(wanted))
    if missing:
        with open_pool(request.jobs, request.cluster) as pool:
            for batch in _batches(missing, pool):
                calls = [functools.partial(simulate_points, request, keys) for keys in batch]
                for rows in pool.run(calls):
                    known.append(rows)
                report(sum(key in known.rows for key in wanted), len(wanted))
    return _exploration(request, known, wanted, resumed)


def _batches(
    missing: Sequence[tuple[int, int]], pool: Pool
) -> Iterator[list[Sequence[tuple[int, int]]]]:
    """Calls of neighbouring points, as many at once as the pool takes between two writes.

    A short sweep is cut into smaller calls, so that every worker has some.
    """
    size = min(CHUNK, ceil_div(len(missing), pool.batch))
    chunks = [missing[i : i + size] for i in range(0, len(missing), size)]
    for i in range(0, len(chunks), pool.batch):
        yield chunks[i : i + pool.batch]


def _identity(request: ExploreRequest, device: str) -> dict[str, object]:
    digests = [hashlib.sha256(v.path.read_bytes()).hexdigest() for v in request.variants]
    return {
        "device": device,
        "models": digests,
        "base": repr(request.base),
        "sweep": request.sweep.identity(),
    }


@functools.lru_cache(maxsize=4)
def _graph(load: LoadGraph, path: Path) -> IntGraph:
    """The model, read once in each worker."""
    return load(path)


def simulate_points(request: ExploreRequest, keys: Sequence[tuple[int, int]]) -> list[Row]:
    """Results of (model, point) pairs; runs in a worker, which reads the model itself."""
    return [_simulate_point(request, model, number) for model, number in keys]


def _simulate_point(request: ExploreRequest, model: int, number: int) -> Row:
    graph = _graph(request.load, request.variants[model].path)
    settings = request.sweep.settings(number)
    row: Row = {"model": model, "number": number}
    try:
        array = configure(request.base, changes_of(settings))
        found = simulate(graph, device=request.device, config=array)
    except BitfoldError as error:
        return row | {"refused": f"{error.where}: {error.what}"}
    assert found.resources is not None  # a sweep has no other mode
    counts, errors = found.resources.counts(), found.resources.errors()
    shape = found.mapping.array
    return (
        row
        | {"w_bits": shape.w_bits, "a_bits": shape.a_bits, "clock_mhz": found.clock_mhz}
        | {key: getattr(found, key) for key in MEASURED}
        | {"cycles_error": found.model_error.cycles}
        | {key: counts[key] for key in COUNTED}
        | {f"{key}_error": errors[key] for key in COUNTED}
        | {"fits": found.fits}
    )


def _exploration(
    request: ExploreRequest, known: ResultFile, wanted: Sequence[tuple[int, int]], resumed: int
) -> Exploration:
    rows = [_described(request, known.rows[key]) for key in wanted]
    points = [row for row in rows if "refused" not in row]
    for point, best in zip(points, _front(points), strict=True):
        point["pareto"] = best
    return Exploration(
        device=find_device(request.device).name,
        points=tuple(points),
        refused=tuple(row for row in rows if "refused" in row),
        resumed=resumed,
        dropped_bytes=known.dropped,
    )


def _described(request: ExploreRequest, row: Row) -> Row:
    """A result with what it is the result of: array and dataflow, then the sweep's other keys."""
    settings: dict[str, Value] = request.sweep.settings(row["number"])
    variant = request.variants[row["model"]]
    base = request.base
    shown = {"array": f"{base.rows}x{base.cols}", "dataflow": base.dataflow, **settings}
    described: Row = {"model": variant.path.name, **shown}
    if variant.accuracy is not None:
        described["accuracy"] = variant.accuracy
    return described | {k: v for k, v in row.items() if k not in ("model", "number")}


def _front(points: Sequence[Row]) -> list[bool]:
    """Least latency, LUT and BRAM, greatest accuracy, among what fits the device."""
    fitting = [i for i, point in enumerate(points) if point["fits"]]
    costs = [
        (
            points[i]["latency_ms"],
            points[i]["lut"],
            points[i]["bram36"],
            -points[i].get("accuracy", 0.0),
        )
        for i in fitting
    ]
    best = [False] * len(points)
    for i, kept in zip(fitting, pareto_front(costs), strict=True):
        best[i] = bool(kept)
    return best
