"""The search over folds, with hits that need no network."""

from pathlib import Path

import pytest

from bitfold.errors import UsageError
from bitfold.models.search import (
    EvolutionConfig,
    Folds,
    GeneSpace,
    LatencyTable,
    SearchRequest,
)
from bitfold.models.search.kfold import HitCounter, search_folds
from bitfold.models.search.state import open_state
from bitfold.pool import Pool

pytestmark = pytest.mark.torch

BLOCKS = 4
TABLE = LatencyTable(tuple({2: 1.0, 3: 2.0, 4: 4.0} for _ in range(BLOCKS)), 0.5, "a table")


def table(spec, *, num_blocks):
    return TABLE


def hits(fold, genome):
    """Of 100 images: the more branches equal the fold's number, and the more bits, the better."""
    return 10 * sum(b == fold for b in genome.branches) + sum(genome.bits) + 3 * fold


class KilledError(Exception):
    pass


def request(*, folds=3, **changes):
    return SearchRequest(
        Path("net.pt"),
        Path("genome.json"),
        Folds("embedded", folds, 100),
        EvolutionConfig(8, 4, parents=3, mutations=3, crossovers=2),
        **changes,
    )


def run(path, wish, *, count=hits, size=1, reports=None):
    state = open_state(path, {})
    state.latency = TABLE if wish.with_latency else None
    pool = Pool(size, lambda calls: [call() for call in calls])
    return search_folds(
        wish,
        GeneSpace(BLOCKS, with_bits=wish.with_latency),
        counter=HitCounter(count, state, pool),
        report=(lambda progress: None) if reports is None else reports.append,
    )


TWO = {"objective": "accuracy,latency", "measure_latency": table}


@pytest.mark.parametrize("changes", [{}, TWO])
def test_the_number_of_jobs_does_not_change_the_result(tmp_path, changes):
    wish = request(**changes)
    assert run(tmp_path / "a", wish) == run(tmp_path / "b", wish, size=5)


@pytest.mark.parametrize("changes", [{}, TWO])
def test_a_search_that_dies_again_and_again_ends_as_if_it_had_not(tmp_path, changes):
    wish = request(**changes)
    path = tmp_path / "state"
    whole = run(tmp_path / "whole", wish)

    def dying(after):
        left = [after]

        def count(fold, genome):
            left[0] -= 1
            if left[0] < 0:
                raise KilledError
            return hits(fold, genome)

        return count

    for after in (3, 9, 20, 7, 33):
        with pytest.raises(KilledError):
            run(path, wish, count=dying(after))
    assert run(path, wish) == whole


def test_a_fitness_is_counted_once(tmp_path):
    counted = []

    def count(fold, genome):
        counted.append((fold, genome))
        return hits(fold, genome)

    run(tmp_path / "state", request(), count=count)
    assert len(set(counted)) == len(counted)


def test_folds_are_judged_on_the_images_of_the_others(tmp_path):
    for result in run(tmp_path / "state", request()):
        genome = result.winner.genome
        assert result.fitness == hits(result.fold, genome) / 100
        others = [hits(fold, genome) for fold in range(3) if fold != result.fold]
        assert result.held_out == result.winner.accuracy == sum(others) / 200


def test_a_single_fold_is_judged_by_its_fitness(tmp_path):
    (result,) = run(tmp_path / "state", request(folds=1))
    assert result.held_out is None
    assert result.winner.accuracy == result.fitness


def test_a_budget_bounds_the_winner(tmp_path):
    free = run(tmp_path / "a", request(folds=1, **TWO))
    tight = run(tmp_path / "b", request(folds=1, budget_ms=8.0, **TWO))
    assert free[0].finalists == tight[0].finalists
    assert tight[0].winner.latency_ms <= 8.0 < free[0].winner.latency_ms
    within = [p.accuracy for p in tight[0].finalists if p.latency_ms <= 8.0]
    assert tight[0].winner.accuracy == max(within)


def test_a_budget_that_nothing_meets_gives_the_fastest(tmp_path):
    (result,) = run(tmp_path / "state", request(folds=1, budget_ms=0.1, **TWO))
    assert result.winner.latency_ms == min(p.latency_ms for p in result.finalists)


def test_progress_never_falls_and_ends_at_the_total(tmp_path):
    reports = []
    run(tmp_path / "state", request(), reports=reports)
    counts = [report.evaluated for report in reports]
    assert counts == sorted(counts)
    assert reports[-1].evaluated == reports[-1].total


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"objective": "accuracy,latency"}, "accuracy,latency without latency"),
        ({"measure_latency": table}, "accuracy with latency"),
        ({"budget_ms": 3.0}, "a budget of 3 ms needs the objective accuracy,latency"),
    ],
)
def test_settings_that_do_not_belong_together_are_refused(changes, message):
    with pytest.raises(UsageError, match=message):
        request(**changes)
