"""Each method's defaults, and which parameter decays and learns how fast."""

import pytest
import torch

from bitfold.errors import UsageError
from bitfold.models import NetSpec, Preprocessing, TrainConfig, build_network
from bitfold.models.parameter_groups import (
    freeze_all_but_biases_and_clips,
    make_optimizer,
    parameter_kinds,
)
from bitfold.models.quantizers.basq import BRANCH_DECAYS

pytestmark = pytest.mark.torch


def network(method, bits=2, **fields):
    spec = NetSpec(
        "resnet8", method, (bits, bits), (8, 8, 1), ("a", "b"), Preprocessing(100, 70), width=0.25,
        **fields,
    )  # fmt: skip
    return build_network(spec)


def kinds_of(model):
    return {name: kind for kind, name, _ in parameter_kinds(model)}


def test_sttn_trains_with_adam_and_without_decay():
    config = TrainConfig.for_method("sttn", bits=(2, 2), epochs=8)
    assert (config.optimizer, config.learning_rate, config.weight_decay) == ("adam", 0.005, 0.0)


def test_one_bit_uniq_does_not_decay():
    assert TrainConfig.for_method("uniq", bits=(1, 1), epochs=8).weight_decay == 0
    assert TrainConfig.for_method("uniq", bits=(2, 2), epochs=8).weight_decay > 0


def test_basq_supernet_clips_the_gradient_as_published():
    config = TrainConfig.for_method("basq", bits=(2, 2), epochs=8, role="supernet")
    assert (config.optimizer, config.weight_decay, config.gradient_norm) == ("adam", 5e-6, 10.0)


def test_given_numbers_replace_the_defaults():
    config = TrainConfig.for_method("sttn", bits=(2, 2), epochs=2, learning_rate=0.1, seed=3)
    assert (config.learning_rate, config.seed, config.epochs) == (0.1, 3, 2)


def test_a_short_run_warms_up_for_a_tenth_of_it():
    assert TrainConfig.for_method("float", bits=(32, 32), epochs=5).warmup_epochs == 0.5
    assert TrainConfig.for_method("float", bits=(32, 32), epochs=50).warmup_epochs == 1.0


@pytest.mark.parametrize("wrong", [{"optimizer": "sdg"}, {"teacher_weight": 2.0}])
def test_impossible_numbers_are_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} cannot be"):
        TrainConfig(epochs=1, **wrong)


def test_every_parameter_is_in_one_group():
    for method in ("pact-sawb", "uniq", "sttn", "basq"):
        model = network(method)
        optimizer = make_optimizer(model, TrainConfig(epochs=1))
        grouped = [p for group in optimizer.param_groups for p in group["params"]]
        assert len(grouped) == len({id(p) for p in grouped})
        assert {id(p) for p in grouped} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("per_kernel", [False, True])
def test_uniq_steps_do_not_decay_and_have_their_own_rate(per_kernel):
    model = network("uniq", per_kernel=per_kernel)
    deltas = {id(p) for name, p in model.named_parameters() if name.endswith(".delta")}
    optimizer = make_optimizer(model, TrainConfig(epochs=1, step_rate=0.5))
    groups = [g for g in optimizer.param_groups if deltas & {id(p) for p in g["params"]}]
    assert [(g["weight_decay"], g["rate"]) for g in groups] == [(0.0, 0.5)]
    assert {id(p) for p in groups[0]["params"]} == deltas


def test_each_branch_of_basq_decays_by_its_own_lambda():
    model = network("basq")
    clips = {n: p for n, p in model.named_parameters() if n.endswith(".upper_bound")}
    assert len(clips) == 7 * model.num_blocks
    found = {}
    for group in make_optimizer(model, TrainConfig(epochs=1)).param_groups:
        found |= {id(p): group["weight_decay"] for p in group["params"]}
    for name, clip in clips.items():
        branch = int(name.split(".branches.")[1].split(".")[0])
        assert found[id(clip)] == BRANCH_DECAYS[branch]


def test_a_chosen_branch_keeps_the_lambda_of_its_number():
    genome = (6, 0, 3, 5, 2, 1)
    model = network("basq", genome=genome)
    kinds = [kind for name, kind in kinds_of(model).items() if name.endswith(".upper_bound")]
    assert kinds == [f"branch {gene}" for gene in genome]


def test_vectors_and_lsq_steps_do_not_decay():
    model = network("basq")
    kinds = kinds_of(model)
    assert kinds["bn1.weight"] == "vectors"
    assert kinds["act.s"] == "steps"
    assert kinds["conv1.weight"] == "weights"
    for group in make_optimizer(model, TrainConfig(epochs=1)).param_groups:
        names = {kinds[n] for n, p in model.named_parameters() for q in group["params"] if p is q}
        if names & {"vectors", "steps"}:
            assert group["weight_decay"] == 0


def test_finetuning_moves_biases_and_clips_only():
    model = network("basq", genome=(0, 1, 2, 3, 4, 5))
    freeze_all_but_biases_and_clips(model)
    moving = {name.rpartition(".")[2] for name, p in model.named_parameters() if p.requires_grad}
    assert moving == {"bias", "upper_bound"}
    assert isinstance(make_optimizer(model, TrainConfig(epochs=1)), torch.optim.SGD)
