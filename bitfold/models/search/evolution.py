"""BASQ's evolution over one fold: a function of the seed, the fold and the fitnesses alone.

The published search (BASQ, ECCV 2022): 45 genomes a generation, 20 generations. The first is
random. Every later one has 15 mutations of the ten best genomes so far (each gene drawn anew with
probability 0.1), 15 crossovers of two of them (gene by gene), and random genomes for the rest. No
genome is evaluated twice.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random

from bitfold.errors import UsageError
from bitfold.models.search.genome import GeneSpace, Genome

DRAWS_PER_CHILD = 100  # before a kind of child is given up: the space around the parents is used up

Evaluate = Callable[[Sequence[Genome]], Sequence[float]]


@dataclass(frozen=True, slots=True)
class EvolutionConfig:
    """The published numbers; ``mutation_rate`` is the probability of drawing a gene anew."""

    population: int = 45
    generations: int = 20
    parents: int = 10
    mutations: int = 15
    crossovers: int = 15
    mutation_rate: float = 0.1

    def __post_init__(self) -> None:
        """Check the ranges; raises UsageError."""
        claims = {
            "population": self.population >= 1,
            "generations": self.generations >= 1,
            "parents": self.parents >= 1,
            "mutations": self.mutations >= 0,
            "crossovers": self.crossovers >= 0,
            "mutation_rate": 0 < self.mutation_rate <= 1,
        }
        wrong = next((name for name, holds in claims.items() if not holds), None)
        if wrong is not None:
            raise UsageError(
                f"{wrong} cannot be {getattr(self, wrong)}",
                where="search settings",
                todo="Change it.",
            )
        if self.mutations + self.crossovers > self.population:
            raise UsageError(
                f"{self.mutations} mutations and {self.crossovers} crossovers do not fit into a "
                f"population of {self.population}",
                where="search settings",
                todo="Give --mutations and --crossovers that do, a third of it each as published.",
            )


@dataclass(frozen=True, slots=True)
class Generation:
    """What one generation found; ``best`` is the best of all so far, ``mean`` of this one."""

    number: int
    evaluated: int
    best: float
    mean: float
    genome: Genome


@dataclass(frozen=True, slots=True)
class Evolved:
    """A finished evolution: genomes with their fitness, best first, and what each step found."""

    ranking: tuple[tuple[Genome, float], ...]
    history: tuple[Generation, ...]


def evolve(
    space: GeneSpace,
    config: EvolutionConfig,
    *,
    seed: int,
    fold: int,
    evaluate: Evaluate,
    report: Callable[[Generation], None] = lambda generation: None,
) -> Evolved:
    """Search ``space`` for the genome of greatest fitness.

    ``evaluate`` gives one fitness a genome, in order. Of two genomes with equal fitness the one
    met first is the better. Fewer than ``config.population`` genomes are evaluated in a generation
    only where no unseen one is left; with none at all the evolution ends.
    """
    scores: dict[Genome, float] = {}
    history: list[Generation] = []
    ranking: list[Genome] = []
    for number in range(config.generations):
        generator = Random(f"{seed}/{fold}/{number}")
        children = _children(space, config, ranking[: config.parents], scores, generator)
        if not children:
            break
        scores |= dict(zip(children, evaluate(children), strict=True))
        # A stable sort: insertion order, which is the order of evaluation, breaks ties.
        ranking = sorted(scores, key=lambda genome: -scores[genome])
        mean = sum(scores[child] for child in children) / len(children)
        best = ranking[0]
        history.append(Generation(number, len(children), scores[best], mean, best))
        report(history[-1])
    return Evolved(tuple((genome, scores[genome]) for genome in ranking), tuple(history))


def _children(
    space: GeneSpace,
    config: EvolutionConfig,
    parents: Sequence[Genome],
    seen: dict[Genome, float],
    generator: Random,
) -> list[Genome]:
    """The genomes of the next generation, all different and none in ``seen``."""
    children: dict[Genome, None] = {}

    def add(limit: int, draw: Callable[[], Genome]) -> None:
        """Draw until there are ``limit`` children or the draws are used up."""
        for _ in range(DRAWS_PER_CHILD * max(1, limit - len(children))):
            if len(children) >= limit:
                return
            child = draw()
            if child not in seen:
                children[child] = None

    if parents:
        add(
            config.mutations,
            lambda: space.mutated(generator.choice(parents), generator, rate=config.mutation_rate),
        )
        add(
            len(children) + config.crossovers,
            lambda: space.crossed(generator.choice(parents), generator.choice(parents), generator),
        )
    add(min(config.population, space.size - len(seen)), lambda: space.random(generator))
    return list(children)
