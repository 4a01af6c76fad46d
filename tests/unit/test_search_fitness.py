"""A supernet at a genome: the hits it scores and the network it becomes."""

import numpy as np
import pytest
import torch

from bitfold.errors import InputError, UsageError
from bitfold.models import (
    NetSpec,
    Preprocessing,
    evaluate,
    load_images,
    new_network,
    save_checkpoint,
)
from bitfold.models.evaluation import to_nchw
from bitfold.models.nets.basq_units import extract
from bitfold.models.search import Folds, Genome, assemble, open_validation_set
from bitfold.models.search.fitness import (
    FitnessSource,
    FoldEvaluator,
    count_hits,
    file_sha256,
    load_supernet,
)

pytestmark = pytest.mark.torch

GENOME = (0, 3, 6, 1, 5, 2)
FOLDS = Folds("embedded", 2, 60)


def spec(**changes):
    fields = {
        "net": "resnet8",
        "method": "basq",
        "bits": (3, 3),
        "input_shape": (28, 28, 1),
        "class_names": tuple("abcdefghij"),
        "preprocessing": Preprocessing(73, 90),
        "width": 0.25,
    }
    return NetSpec(**fields | changes)


@pytest.fixture(scope="module")
def supernet():
    """Random weights; branches that differ by their clips."""
    model = new_network(spec(), seed=0)
    with torch.no_grad():
        for unit in model.branch_units():
            for j, branch in unit.branches.items():
                branch.act.upper_bound.mul_(0.3 + 0.2 * int(j))
    return model


@pytest.fixture(scope="module")
def path(supernet, tmp_path_factory):
    path = tmp_path_factory.mktemp("supernet") / "net.pt"
    save_checkpoint(path, supernet)
    return path


def pixels():
    return to_nchw(load_images("embedded").images[:20]).float()


def test_hits_are_the_accuracy_of_the_network_cut_out(supernet):
    evaluator = FoldEvaluator(supernet, open_validation_set(FOLDS))
    chosen = extract(supernet, GENOME).eval()
    for fold in (0, 1, 0):
        images, labels = open_validation_set(FOLDS).read(fold)
        data = type(load_images("embedded"))(images, labels, ())
        assert evaluator.hits(fold, Genome(GENOME)) == round(evaluate(chosen, data) * 60)


def test_threads_are_as_before(supernet):
    before = torch.get_num_threads()
    FoldEvaluator(supernet, open_validation_set(FOLDS)).hits(0, Genome(GENOME))
    assert torch.get_num_threads() == before


def test_a_genome_without_bits_is_cut_out_as_it_is(supernet):
    supernet.select(GENOME)
    chosen = assemble(supernet, Genome(GENOME))
    assert chosen.spec.genome == GENOME
    with torch.no_grad():
        assert torch.equal(chosen(pixels()), supernet(pixels()))


def test_the_supernets_own_bits_change_nothing(supernet):
    supernet.select(GENOME)
    chosen = assemble(supernet, Genome(GENOME, (3,) * 6))
    with torch.no_grad():
        assert torch.equal(chosen(pixels()), supernet(pixels()))


def test_another_width_keeps_the_clips_and_fits_the_weight_steps_anew(supernet):
    bits = (2, 3, 4, 3, 4, 2)
    chosen = assemble(supernet, Genome(GENOME, bits))
    pairs = zip(chosen.branch_units(), supernet.branch_units(), GENOME, bits, strict=True)
    for unit, trained, gene, width in pairs:
        act, before = unit.branches[str(gene)].act, trained.branches[str(gene)].act
        assert act.bits == unit.conv.weight_quantizer.bits == width
        assert torch.equal(act.upper_bound, before.upper_bound)
        assert act.faults() == []
        assert torch.equal(unit.conv.weight, trained.conv.weight)
        steps = unit.conv.weight_quantizer.s
        if width == 3:
            assert torch.equal(steps, trained.conv.weight_quantizer.s)
        else:
            sizes = trained.conv.weight.abs().flatten(1).mean(1)
            want = 2 * sizes / (2 ** (width - 1) - 1) ** 0.5
            assert torch.allclose(steps, want, rtol=1e-5)  # one float32 rounding more or less


def test_pointwise_steps_keep_their_clip_at_another_width():
    small = new_network(spec(net="mobilenetv1", channels=(4, 8) + (8,) * 12), seed=0)
    widths = (4,) * small.num_blocks
    chosen = assemble(small, Genome((0,) * small.num_blocks, widths))
    trained, rescaled = small.blocks[0][1].act, chosen.blocks[0][1].act
    # 7 steps to the clip at 3 bits, 15 at 4; one float32 rounding of the quotient.
    assert torch.allclose(rescaled.s * 15, trained.s * 7, rtol=1e-6)


def test_a_genome_that_does_not_fit_is_refused(supernet):
    with pytest.raises(UsageError, match="5 genes"):
        assemble(supernet, Genome((0,) * 5))
    with pytest.raises(UsageError):
        assemble(supernet, Genome((7,) * 6))


@pytest.mark.parametrize("changes", [{"genome": GENOME}, {"method": "pact-sawb", "bits": (2, 2)}])
def test_a_network_without_branches_to_choose_is_refused(tmp_path, changes):
    path = tmp_path / "net.pt"
    save_checkpoint(path, new_network(spec(**changes), seed=0))
    with pytest.raises(UsageError, match="not a BASQ supernet"):
        load_supernet(path)


def test_any_process_counts_the_same_hits(supernet, path):
    source = FitnessSource(path, file_sha256(path), FOLDS)
    evaluator = FoldEvaluator(supernet, open_validation_set(FOLDS))
    genome = Genome(GENOME, (2, 3, 4, 3, 4, 2))
    assert count_hits(source, 1, genome) == evaluator.hits(1, genome)


def test_another_supernet_on_a_worker_is_refused(path):
    source = FitnessSource(path, "0" * 64, FOLDS)
    with pytest.raises(InputError, match="not the one the search started with"):
        count_hits(source, 0, Genome(GENOME))


def test_a_missing_supernet_is_refused(tmp_path):
    with pytest.raises(InputError, match="cannot be read"):
        file_sha256(tmp_path / "none.pt")


def test_branches_matter_to_this_supernet(supernet):
    with torch.no_grad():
        logits = []
        for branch in (0, 6):
            supernet.select((branch,) * 6)
            logits.append(supernet(pixels()).numpy())
    assert not np.array_equal(*logits)
