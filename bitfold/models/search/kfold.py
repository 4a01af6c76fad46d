"""The search over all folds: from a supernet to the best genome, going on after any kill."""

import functools
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path

import torch

from bitfold.files import write_atomically
from bitfold.models.search.evolution import Evolved, Generation, evolve
from bitfold.models.search.fitness import (
    BATCH_SIZE,
    FitnessSource,
    count_hits,
    file_sha256,
    load_supernet,
)
from bitfold.models.search.folds import open_validation_set
from bitfold.models.search.genome import GeneSpace, Genome
from bitfold.models.search.pareto import (
    LatencyTable,
    Scored,
    evolve_two_objectives,
    pareto_front,
)
from bitfold.models.search.request import (
    FoldResult,
    SearchProgress,
    SearchRequest,
    SearchResult,
    result_fields,
)
from bitfold.models.search.state import SearchState, open_state
from bitfold.pool import Pool, open_pool

SEARCH_SCHEMA = "bitfold/search/1"

CountHits = Callable[[int, Genome], int]
Report = Callable[[SearchProgress], None]


def search(request: SearchRequest, *, report: Report = lambda progress: None) -> SearchResult:
    """Search and write ``request.output``; the state lies beside it until then.

    The same request gives the same file, byte for byte, whether interrupted or not, with any
    number of jobs and on any cluster of machines that compute alike. Raises UsageError for a
    request that makes no sense or differs from the interrupted one, InputError for unreadable
    files, OutputError when one cannot be written.
    """
    supernet = load_supernet(request.supernet)
    source = FitnessSource(
        request.supernet.absolute(), file_sha256(request.supernet), request.folds
    )
    identity = _identity(request, source)
    state = open_state(request.state_path, identity)
    if request.measure_latency is not None and state.latency is None:
        # Times differ from run to run: what was measured first holds for the whole search.
        state.latency = request.measure_latency(supernet.spec, num_blocks=supernet.num_blocks)
        state.save()
    space = GeneSpace(supernet.num_blocks, with_bits=request.with_latency)
    resumed = len(state.hits)
    with open_pool(request.jobs, request.cluster) as pool:
        counter = HitCounter(functools.partial(count_hits, source), state, pool)
        folds = search_folds(request, space, counter=counter, report=report)
    best, pareto = _best(folds, request), _merged_front(folds, request)
    spec = supernet.spec
    fields = {
        "supernet": request.supernet.name,
        **{"net": spec.net, "bits": {"w": spec.bits[0], "a": spec.bits[1]}},
        **result_fields(folds, best, pareto),
        "latency": None if state.latency is None else state.latency.to_dict(),
        "settings": state.identity,
    }
    _write(request.output, {"schema": SEARCH_SCHEMA, **fields})
    request.state_path.unlink(missing_ok=True)
    return SearchResult(best, folds, pareto, fields, len(state.hits), resumed)


class HitCounter:
    """Counts hits in a pool, each once: known ones are looked up, new ones saved after a batch."""

    def __init__(self, count: CountHits, state: SearchState, pool: Pool) -> None:
        self.count = count
        self.state = state
        self.pool = pool

    def __call__(
        self, wanted: Sequence[tuple[int, Genome]], *, after_batch: Callable[[], None]
    ) -> list[int]:
        """Hits of each (fold, genome), in order."""
        known = self.state.hits
        missing = [pair for pair in dict.fromkeys(wanted) if pair not in known]
        for start in range(0, len(missing), self.pool.batch):
            batch = missing[start : start + self.pool.batch]
            calls = [functools.partial(self.count, fold, genome) for fold, genome in batch]
            known.update(zip(batch, self.pool.run(calls), strict=True))
            self.state.save()
            after_batch()
        return [known[pair] for pair in wanted]


def search_folds(
    request: SearchRequest, space: GeneSpace, *, counter: HitCounter, report: Report
) -> tuple[FoldResult, ...]:
    """One evolution a fold, then its finalists on the images of all other folds."""
    watch = _Watch(request, counter.state, report)
    found = []
    for fold in range(request.folds.count):
        watch.fold, watch.last = fold, None
        found.append(_evolved(request, space, fold, counter=counter, watch=watch))
    return tuple(
        _fold_result(request, fold, evolved, counter=counter, watch=watch)
        for fold, evolved in enumerate(found)
    )


class _Watch:
    """Tells how far the search has come."""

    def __init__(self, request: SearchRequest, state: SearchState, report: Report) -> None:
        config = request.evolution
        self.total = request.folds.count * config.generations * config.population
        self.state = state
        self.report = report
        self.fold = 0
        self.last: Generation | None = None

    def generation(self, generation: Generation) -> None:
        """Keep the last finished generation."""
        self.last = generation
        self.batch()

    def batch(self) -> None:
        """Report after a batch."""
        number = 0 if self.last is None else self.last.number + 1
        best = None if self.last is None else self.last.best
        done = len(self.state.hits)
        self.report(SearchProgress(self.fold, number, done, max(done, self.total), best))


def _evolved(
    request: SearchRequest, space: GeneSpace, fold: int, *, counter: HitCounter, watch: _Watch
) -> Evolved:
    def evaluate(genomes: Sequence[Genome]) -> list[float]:
        counts = counter([(fold, genome) for genome in genomes], after_batch=watch.batch)
        return [count / request.folds.images for count in counts]

    table = counter.state.latency
    if table is None:
        return evolve(
            space, request.evolution,
            seed=request.seed, fold=fold, evaluate=evaluate, report=watch.generation,
        )  # fmt: skip
    return evolve_two_objectives(
        space, request.evolution,
        seed=request.seed, fold=fold, evaluate=evaluate, latency_ms=table.latency_ms,
        report=watch.generation,
    )  # fmt: skip


def _fold_result(
    request: SearchRequest, fold: int, evolved: Evolved, *, counter: HitCounter, watch: _Watch
) -> FoldResult:
    table = counter.state.latency
    finalists = evolved.ranking if table else evolved.ranking[:1]
    others = [other for other in range(request.folds.count) if other != fold]
    pairs = [(other, genome) for genome, _ in finalists for other in others]
    hits = counter(pairs, after_batch=watch.batch)
    scored = []
    for i, (genome, fitness) in enumerate(finalists):
        right = sum(hits[i * len(others) : (i + 1) * len(others)])
        accuracy = right / (len(others) * request.folds.images) if others else fitness
        scored.append(Scored(genome, accuracy, _latency(table, genome), fold))
    winner = _winner(scored, request.budget_ms)
    fitness = counter.state.hits[fold, winner.genome] / request.folds.images
    held_out = winner.accuracy if others else None
    return FoldResult(fold, winner, fitness, held_out, evolved.history, tuple(scored))


def _latency(table: LatencyTable | None, genome: Genome) -> float | None:
    return None if table is None else table.latency_ms(genome)


def _winner(points: Sequence[Scored], budget_ms: float | None) -> Scored:
    """The most accurate point within the budget, the first of equals; else the fastest."""
    within = [p for p in points if budget_ms is None or (p.latency_ms or 0.0) <= budget_ms]
    if within:
        return max(within, key=lambda point: point.accuracy)
    return min(points, key=lambda point: point.latency_ms or 0.0)


def _best(folds: Sequence[FoldResult], request: SearchRequest) -> FoldResult:
    """The fold of the winner among the winners."""
    best = _winner([fold.winner for fold in folds], request.budget_ms)
    return folds[best.fold]


def _merged_front(folds: Sequence[FoldResult], request: SearchRequest) -> tuple[Scored, ...]:
    if not request.with_latency:
        return ()
    return tuple(pareto_front([point for fold in folds for point in fold.finalists]))


def _identity(request: SearchRequest, source: FitnessSource) -> dict[str, object]:
    """What must agree for a search to go on, and what its numbers depend on; plain values."""
    folds = asdict(request.folds)
    return {
        "supernet_sha256": source.sha256,
        "images_sha256": open_validation_set(request.folds).sha256(),
        "split": "train",
        "folds": folds,
        "evolution": asdict(request.evolution),
        "objective": request.objective,
        "budget_ms": request.budget_ms,
        "seed": request.seed,
        "batch_size": BATCH_SIZE,
        "torch": str(torch.__version__),
    }


def _write(path: Path, fields: dict[str, object]) -> None:
    text = json.dumps(fields, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(path, (text + "\n").encode())
