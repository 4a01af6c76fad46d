"""What a search is asked for and what it answers."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, Protocol

from bitfold.errors import UsageError
from bitfold.models.search.evolution import EvolutionConfig, Generation
from bitfold.models.search.folds import Folds
from bitfold.models.search.genome import Genome
from bitfold.models.search.pareto import LatencyTable, Scored
from bitfold.models.spec import NetSpec

Objective = Literal["accuracy", "accuracy,latency"]


class MeasureLatency(Protocol):
    """What gives the latency table of a network; the package's own lie above the models."""

    def __call__(self, spec: NetSpec, /, *, num_blocks: int) -> LatencyTable:
        """The table of ``num_blocks`` blocks of the network that ``spec`` describes."""


@dataclass(frozen=True, slots=True)
class SearchRequest:
    """What to search, on what, and where to write it.

    ``measure_latency`` gives the table for "accuracy,latency"; ``budget_ms`` then bounds the
    winner. ``jobs`` None is one process a core; ``cluster`` is ``dask:HOST:PORT`` or ``ray``.
    Neither changes the result.
    """

    supernet: Path
    output: Path
    folds: Folds
    evolution: EvolutionConfig = field(default_factory=EvolutionConfig)
    objective: Objective = "accuracy"
    measure_latency: MeasureLatency | None = None
    budget_ms: float | None = None
    seed: int = 0
    jobs: int | None = None
    cluster: str | None = None

    def __post_init__(self) -> None:
        """Check what belongs together."""
        if self.with_latency != (self.measure_latency is not None):
            raise UsageError(
                f"objective {self.objective} {'without' if self.with_latency else 'with'} latency",
                where="search settings",
                todo="Measure latency for accuracy,latency, and only for it.",
            )
        if self.budget_ms is not None and not self.with_latency:
            raise UsageError(
                f"a budget of {self.budget_ms:g} ms needs the objective accuracy,latency",
                where="search settings",
                todo="Add --objective accuracy,latency.",
            )

    @property
    def with_latency(self) -> bool:
        """Whether latency is an objective."""
        return self.objective == "accuracy,latency"

    @property
    def state_path(self) -> Path:
        """Where the unfinished search is kept."""
        return self.output.with_name(self.output.name + ".state")


@dataclass(frozen=True, slots=True)
class SearchProgress:
    """One report after every batch; ``best`` is the fitness of the fold's best so far, or None."""

    fold: int
    generation: int
    evaluated: int
    total: int
    best: float | None


@dataclass(frozen=True, slots=True)
class FoldResult:
    """One fold's winner among its ``finalists`` (one, or a front), and how it was found.

    ``fitness`` is the winner's accuracy on the fold, ``held_out`` on the images of all the others
    (None where there is no other).
    """

    fold: int
    winner: Scored
    fitness: float
    held_out: float | None
    history: tuple[Generation, ...]
    finalists: tuple[Scored, ...]

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        return {
            "fold": self.fold,
            **self.winner.genome.to_dict(),
            "fitness": self.fitness,
            "held_out_accuracy": self.held_out,
            "latency_ms": self.winner.latency_ms,
            "history": [_generation_fields(generation) for generation in self.history],
        }


def _generation_fields(step: Generation) -> dict[str, object]:
    numbers = {"evaluated": step.evaluated, "best": step.best, "mean": step.mean}
    return {"generation": step.number, **numbers, **step.genome.to_dict()}


@dataclass(frozen=True, slots=True)
class SearchResult:
    """A finished search: ``fields`` are the file's; ``resumed`` fitnesses were known before."""

    best: FoldResult
    folds: tuple[FoldResult, ...]
    pareto: tuple[Scored, ...]
    fields: Mapping[str, object]
    evaluations: int
    resumed: int

    @property
    def genome(self) -> Genome:
        """The winner over all folds."""
        return self.best.winner.genome


def result_fields(
    folds: tuple[FoldResult, ...], best: FoldResult, pareto: tuple[Scored, ...]
) -> dict[str, object]:
    """The winner, one entry a fold and the front, JSON-ready."""
    return {
        **best.winner.genome.to_dict(),
        "fold": best.fold,
        "fitness": best.fitness,
        "held_out_accuracy": best.held_out,
        "latency_ms": best.winner.latency_ms,
        "folds": [fold.to_dict() for fold in folds],
        "pareto": [point.to_dict() for point in pareto],
    }
