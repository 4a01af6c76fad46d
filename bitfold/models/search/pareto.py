"""Accuracy against latency: an additive latency table, NSGA-II over one fold, Pareto fronts."""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from random import Random
from typing import TYPE_CHECKING, Self

from bitfold.errors import InputError
from bitfold.models.search.evolution import Evaluate, EvolutionConfig, Evolved, Generation
from bitfold.models.search.genome import BLOCK_BITS, GeneSpace, Genome

if TYPE_CHECKING:
    import optuna

SEED_BITS = 31


@dataclass(frozen=True, slots=True)
class LatencyTable:
    """Milliseconds of every block at every width, and of the rest; ``source`` says whence.

    latency(genome) = rest + Σ_i blocks[i][bits_i]: an estimate that adds up layers timed in
    networks of one width; the branch costs nothing.
    """

    blocks: tuple[Mapping[int, float], ...]
    rest: float
    source: str

    def latency_ms(self, genome: Genome) -> float:
        """The estimate for a genome that carries bits."""
        return self.rest + sum(
            table[bits] for table, bits in zip(self.blocks, genome.bits, strict=True)
        )

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form, the inverse of ``from_dict``."""
        blocks = [{str(bits): ms for bits, ms in table.items()} for table in self.blocks]
        return {"source": self.source, "rest": self.rest, "blocks": blocks}

    @classmethod
    def from_dict(cls, fields: Mapping[str, object]) -> Self:
        """Rebuild from ``to_dict``'s result; raises InputError if it is not one."""
        source, rest, blocks = (fields.get(name) for name in ("source", "rest", "blocks"))
        if not (isinstance(source, str) and isinstance(rest, float) and isinstance(blocks, list)):
            raise InputError("the latency table is damaged", todo="Delete the file and start anew.")
        tables = tuple({int(bits): float(ms) for bits, ms in table.items()} for table in blocks)
        return cls(tables, rest, source)


@dataclass(frozen=True, slots=True)
class Scored:
    """A genome with what it is judged by; ``fold`` is the one that found it."""

    genome: Genome
    accuracy: float
    latency_ms: float | None
    fold: int

    def to_dict(self) -> dict[str, object]:
        """JSON-ready form."""
        numbers = {"accuracy": self.accuracy, "latency_ms": self.latency_ms, "fold": self.fold}
        return {**self.genome.to_dict(), **numbers}


def pareto_front(points: Sequence[Scored]) -> list[Scored]:
    """The points that no other beats in one objective and equals in the other; fastest first.

    Of several with the same accuracy and latency the first stays.
    """
    front: list[Scored] = []
    for point in sorted(points, key=lambda p: (p.latency_ms or 0.0, -p.accuracy)):
        if not front or point.accuracy > front[-1].accuracy:
            front.append(point)
    return front


def evolve_two_objectives(
    space: GeneSpace,
    config: EvolutionConfig,
    *,
    seed: int,
    fold: int,
    evaluate: Evaluate,
    latency_ms: Callable[[Genome], float],
    report: Callable[[Generation], None] = lambda generation: None,
) -> Evolved:
    """NSGA-II (Deb et al. 2002, optuna's) for accuracy up and latency down; the front, best first.

    Population and generations are ``config``'s; mutation and crossover rates are optuna's own.
    A function of seed, fold and fitnesses: the study lives in memory and is told the same again
    when a search goes on.
    """
    import optuna

    generator = Random(f"{seed}/{fold}/nsga2")
    history: list[Generation] = []
    scores: dict[Genome, float] = {}
    with _quietly():
        sampler = optuna.samplers.NSGAIISampler(
            population_size=config.population, seed=generator.getrandbits(SEED_BITS)
        )
        study = optuna.create_study(directions=["maximize", "minimize"], sampler=sampler)
        for number in range(config.generations):
            trials = [study.ask() for _ in range(config.population)]
            children = [_suggested(trial, space) for trial in trials]
            fitnesses = evaluate(children)
            for trial, child, fitness in zip(trials, children, fitnesses, strict=True):
                study.tell(trial, [fitness, latency_ms(child)])
                scores[child] = fitness
            best = max(scores, key=lambda genome: scores[genome])
            mean = sum(fitnesses) / len(fitnesses)
            history.append(Generation(number, len(children), scores[best], mean, best))
            report(history[-1])
    front = pareto_front([Scored(g, scores[g], latency_ms(g), fold) for g in scores])
    ranking = tuple((point.genome, point.accuracy) for point in reversed(front))
    return Evolved(ranking, tuple(history))


def _suggested(trial: "optuna.Trial", space: GeneSpace) -> Genome:
    """Branches are unordered choices, widths are numbers."""
    genes = [
        trial.suggest_int(f"bits{i}", values[0], values[-1])
        if values == BLOCK_BITS
        else int(trial.suggest_categorical(f"branch{i}", values))
        for i, values in enumerate(space.choices)
    ]
    return space.genome(genes)


@contextlib.contextmanager
def _quietly() -> Iterator[None]:
    """Without optuna's log lines and notes on experimental features, then as before."""
    import optuna

    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        optuna.logging.set_verbosity(before)
