"""Accuracy against latency: tables, fronts, NSGA-II."""

import pytest

from bitfold.errors import InputError
from bitfold.models.search import (
    EvolutionConfig,
    GeneSpace,
    Genome,
    LatencyTable,
    Scored,
    evolve_two_objectives,
    pareto_front,
)

TABLE = LatencyTable(tuple({2: 1.0, 3: 2.0, 4: 4.0} for _ in range(3)), 0.5, "a table")
SPACE = GeneSpace(3, with_bits=True)
CONFIG = EvolutionConfig(16, 12, mutations=0, crossovers=0)


def accuracy(genomes):
    return [(sum(g.bits) + sum(branch == 3 for branch in g.branches)) / 15 for g in genomes]


def run(*, seed=0):
    return evolve_two_objectives(
        SPACE, CONFIG, seed=seed, fold=0, evaluate=accuracy, latency_ms=TABLE.latency_ms
    )


def point(accuracy, latency):
    return Scored(Genome((0,)), accuracy, latency, 0)


def test_latency_adds_up_blocks_and_the_rest():
    assert TABLE.latency_ms(Genome((0, 1, 2), (2, 4, 3))) == 0.5 + 1 + 4 + 2


def test_a_table_survives_json():
    assert LatencyTable.from_dict(TABLE.to_dict()) == TABLE


def test_a_damaged_table_is_refused():
    with pytest.raises(InputError, match="latency table is damaged"):
        LatencyTable.from_dict({"rest": "x"})


def test_the_front_holds_what_nothing_beats():
    points = [point(0.5, 2.0), point(0.6, 2.0), point(0.4, 1.0), point(0.6, 3.0), point(0.7, 4.0)]
    front = pareto_front(points)
    assert [(p.latency_ms, p.accuracy) for p in front] == [(1.0, 0.4), (2.0, 0.6), (4.0, 0.7)]


def test_of_equal_points_the_first_stays():
    first, second = (Scored(Genome((i,)), 0.5, 1.0, i) for i in range(2))
    assert pareto_front([first, second]) == [first]


def test_two_objectives_are_a_function_of_the_seed():
    assert run() == run()
    assert run().history != run(seed=1).history


def test_the_ranking_is_a_front_best_first():
    ranking = run().ranking
    latencies = [TABLE.latency_ms(genome) for genome, _ in ranking]
    fitnesses = [fitness for _, fitness in ranking]
    assert fitnesses == sorted(set(fitnesses), reverse=True)
    assert latencies == sorted(set(latencies), reverse=True)
    # Both ends of 3 blocks: all at 2 bits, and nearly the best there is.
    assert latencies[-1] == 3.5
    assert fitnesses[0] > 0.9


def test_the_history_counts_whole_generations():
    history = run().history
    assert [(step.number, step.evaluated) for step in history] == [(i, 16) for i in range(12)]
    assert [step.best for step in history] == sorted(step.best for step in history)
