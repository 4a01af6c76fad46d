"""Genomes and BASQ's evolution, on fitnesses that need no network."""

import dataclasses
from random import Random

import pytest

from bitfold.errors import UsageError
from bitfold.models.search import EvolutionConfig, GeneSpace, Genome, evolve, genome_of_fields

# The genome with the best finetuned accuracy in the log of the published code.
TARGET = (1, 4, 5, 5, 1, 5, 1, 5, 6, 5, 4, 1, 6, 4, 3, 2, 3)
SPACE = GeneSpace(len(TARGET))
SMALL = EvolutionConfig(8, 4, parents=3, mutations=3, crossovers=2)


def closeness(genomes):
    return [sum(a == b for a, b in zip(g.branches, TARGET, strict=True)) / 17 for g in genomes]


def run(config=SMALL, *, space=SPACE, seed=0, fold=0, evaluate=closeness):
    return evolve(space, config, seed=seed, fold=fold, evaluate=evaluate)


def recorded(config, **options):
    batches = []

    def evaluate(genomes):
        batches.append(list(genomes))
        return closeness(genomes)

    return batches, run(config, evaluate=evaluate, **options)


def test_the_defaults_are_the_published_numbers():
    assert dataclasses.astuple(EvolutionConfig()) == (45, 20, 10, 15, 15, 0.1)


def test_a_genome_is_its_key():
    for genome in (Genome((5, 3, 2)), Genome((5, 3), (4, 2))):
        assert Genome.from_key(genome.key) == genome
    assert Genome((5, 3), (4, 2)).key == "5,3/4,2"


@pytest.mark.parametrize("key", ["", "5,x", "5,3/4", "1/2/3"])
def test_another_text_is_no_genome(key):
    with pytest.raises(ValueError, match=r"genome|invalid literal"):
        Genome.from_key(key)


def test_a_result_file_gives_its_genome():
    genome = Genome((5, 3), (4, 2))
    assert genome_of_fields(genome.to_dict()) == genome
    assert genome_of_fields({"genome": [1, 2], "block_bits": None}) == Genome((1, 2))


@pytest.mark.parametrize("fields", [{}, {"genome": "5,3"}, {"genome": [1.5]}, {"genome": [True]}])
def test_a_file_without_a_genome_is_refused(fields):
    with pytest.raises(UsageError, match="no genome"):
        genome_of_fields(fields)


def test_a_space_without_blocks_is_refused():
    with pytest.raises(UsageError, match="0 blocks has nothing to choose"):
        GeneSpace(0)


def test_genes_are_branches_and_where_asked_widths():
    space = GeneSpace(3, with_bits=True)
    genome = space.random(Random(0))
    assert [gene in range(7) for gene in genome.branches] == [True] * 3
    assert [bits in (2, 3, 4) for bits in genome.bits] == [True] * 3
    assert space.size == 7**3 * 3**3


def test_a_crossover_takes_every_gene_from_a_parent():
    first, second = Genome((0,) * 17), Genome((1,) * 17)
    child = SPACE.crossed(first, second, Random(0))
    assert set(child.branches) == {0, 1}


def test_a_mutation_at_rate_one_draws_every_gene():
    child = SPACE.mutated(Genome((0,) * 17), Random(0), rate=1.0)
    assert len(set(child.branches)) > 3


def test_the_same_seed_and_fold_give_the_same_search():
    assert run() == run()


@pytest.mark.parametrize("other", [{"seed": 1}, {"fold": 1}])
def test_another_seed_or_fold_gives_another(other):
    assert run().history != run(**other).history


def test_no_genome_is_evaluated_twice_and_every_generation_is_full():
    batches, evolved = recorded(EvolutionConfig(generations=5))
    genomes = [genome for batch in batches for genome in batch]
    assert len(set(genomes)) == len(genomes) == 5 * 45
    assert [step.evaluated for step in evolved.history] == [45] * 5


def test_the_published_search_finds_the_target():
    evolved = run(EvolutionConfig())
    assert evolved.ranking[0][0].branches == TARGET
    assert evolved.history[-1].best == 1.0


def test_the_best_so_far_never_falls():
    best = [step.best for step in run(EvolutionConfig(generations=8)).history]
    assert best == sorted(best)


def test_of_equal_genomes_the_first_met_is_the_better():
    batches, evolved = recorded(SMALL)
    same = run(evaluate=lambda genomes: [0.5] * len(genomes))
    assert same.ranking[0][0] == batches[0][0]
    assert evolved.ranking[0][1] == max(fitness for _, fitness in evolved.ranking)


def test_children_without_parents_in_reach_of_mutation_are_random():
    config = EvolutionConfig(8, 2, parents=1, mutations=8, crossovers=0, mutation_rate=1e-9)
    batches, evolved = recorded(config)
    # Mutations never leave the parent: random genomes fill the second generation.
    assert [len(batch) for batch in batches] == [8, 8]
    assert evolved.history[1].evaluated == 8


def test_a_space_that_is_used_up_ends_the_search():
    tiny = GeneSpace(1)
    evolved = run(space=tiny, evaluate=lambda genomes: [g.branches[0] / 7 for g in genomes])
    assert [step.evaluated for step in evolved.history] == [7]
    assert evolved.ranking[0] == (Genome((6,)), 6 / 7)


@pytest.mark.parametrize(
    "wrong",
    [
        {"population": 0},
        {"generations": 0},
        {"parents": 0},
        {"mutations": -1},
        {"crossovers": -1},
        {"mutation_rate": 0.0},
    ],
)
def test_settings_that_make_no_search_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} cannot be"):
        EvolutionConfig(**wrong)


def test_children_that_overfill_a_generation_are_refused():
    with pytest.raises(UsageError, match=r"40 mutations and 15 crossovers do not fit into a .* 45"):
        EvolutionConfig(mutations=40)
