"""Training of every method: it learns, resumes bit for bit, starts from where it is told to."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from bitfold.errors import UsageError
from bitfold.models import TrainConfig, TrainRequest, load_checkpoint, train_network
from bitfold.models.distillation import mixed_loss, soft_cross_entropy
from bitfold.models.supernet import random_genome

pytestmark = pytest.mark.torch

GENOME = (6, 0, 3, 5, 2, 1)
RUNS = {
    "float": ("float", 32, {}),
    "pact-sawb": ("pact-sawb", 2, {}),
    "pact-dorefa": ("pact-dorefa", 3, {}),
    "uniq-1": ("uniq", 1, {}),
    "uniq-2": ("uniq", 2, {}),
    "sttn": ("sttn", 2, {}),
    "stqn": ("stqn", 3, {}),
    "supernet": ("basq", 2, {"role": "supernet"}),
    "basq": ("basq", 2, {"genome": GENOME}),
}


@pytest.fixture
def make_request(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(40) % 2
    images = generator.integers(0, 120, (40, 8, 8, 1)) + 100 * labels[:, None, None, None]
    np.savez(tmp_path / "two.npz", images=images.astype(np.uint8), labels=labels)

    def make(run, name="net.pt", **changes):
        method, bits, fields = RUNS[run]
        config = TrainConfig.for_method(
            method, bits=(bits, bits), epochs=2, role=fields.get("role", "network"),
            batch_size=12, compile=False, save_every_s=0.0,
            **{key: changes.pop(key) for key in list(changes) if key in TrainConfig.__slots__},
        )  # fmt: skip
        return TrainRequest(
            net="resnet8", method=method, bits=(bits, bits), output=tmp_path / name, width=0.25,
            data=str(tmp_path / "two.npz"), config=config, **{**fields, **changes},
        )  # fmt: skip

    return make


def state_of(path):
    return load_checkpoint(path).model.state_dict()


def differing(first, second):
    return [name for name in first if not torch.equal(first[name], second[name])]


class InterruptionError(Exception):
    pass


def interrupted_at(step):
    def report(progress):
        if progress.step == step:
            raise InterruptionError

    return report


@pytest.mark.parametrize("run", RUNS)
def test_an_interrupted_run_of_any_method_ends_with_the_same_weights(make_request, run):
    whole, broken = make_request(run), make_request(run, "broken.pt")
    train_network(whole)
    for step in (2, 4, 5):
        with pytest.raises(InterruptionError):
            train_network(broken, report=interrupted_at(step))
    assert train_network(broken).resumed_from_step == 4
    assert differing(state_of(whole.output), state_of(broken.output)) == []


@pytest.mark.parametrize("run", ["uniq-1", "uniq-2", "pact-sawb", "pact-dorefa"])
def test_a_float_network_gives_the_first_weights_and_calibration_the_steps(make_request, run):
    start = make_request("float", "float.pt")
    train_network(start)
    still = make_request(run, init=start.output, learning_rate=0.0)
    train_network(still)
    first, second = state_of(start.output), state_of(still.output)
    name = "layer1.0.conv1.weight"
    assert torch.equal(first[name], second[name])
    quantizers = [name for name in second if name not in first]
    assert quantizers
    assert all(torch.isfinite(second[name]).all() for name in quantizers)


def test_a_teacher_changes_what_is_learned(make_request):
    teacher = make_request("float", "teacher.pt")
    train_network(teacher)
    alone, taught = make_request("sttn"), make_request("sttn", "t.pt", teacher=teacher.output)
    train_network(alone)
    train_network(taught)
    assert differing(state_of(alone.output), state_of(taught.output))
    assert load_checkpoint(taught.output).record["teacher"] == "teacher.pt"


def test_a_teacher_of_other_images_is_refused(make_request, tmp_path):
    teacher = make_request("float", "teacher.pt")
    train_network(teacher)
    np.savez(tmp_path / "wide.npz", images=np.zeros((40, 8, 9, 1), np.uint8), labels=[0, 1] * 20)
    other = make_request("sttn", teacher=teacher.output)
    with pytest.raises(UsageError, match="the teacher has other data: input"):
        train_network(replace(other, data=str(tmp_path / "wide.npz")))


def test_soft_cross_entropy_is_least_at_the_teachers_own_answer():
    teacher = torch.tensor([[2.0, 0.0, -1.0]])
    entropy = -(teacher.softmax(1) * teacher.log_softmax(1)).sum()
    assert torch.isclose(soft_cross_entropy(teacher, teacher), entropy)
    assert soft_cross_entropy(-teacher, teacher) > entropy


def test_the_teachers_share_mixes_two_losses():
    logits, teacher = torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]])
    labels = torch.tensor([0])
    hard, soft = (
        mixed_loss(logits, labels, teacher, share=share, label_smoothing=0.0) for share in (0.0, 1)
    )
    half = mixed_loss(logits, labels, teacher, share=0.5, label_smoothing=0.0)
    assert torch.isclose(half, (hard + soft) / 2)
    assert torch.isclose(soft, soft_cross_entropy(logits, teacher))


def test_a_supernet_trains_in_two_stages(make_request):
    from bitfold.models import training

    request = make_request("supernet")
    enabled = []

    def report(progress):
        enabled.append((progress.step, watched[0].model.blocks[0].conv.weight_quantizer.enabled))

    watched = []
    real = training.Trainer

    class Watched(real):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            watched.append(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(training, "Trainer", Watched)
        train_network(request, report=report)
    assert enabled == [(1, False), (2, False), (3, False), (4, True), (5, True), (6, True)]
    assert load_checkpoint(request.output).spec.genome == ()


def test_a_random_genome_is_a_function_of_seed_and_step():
    genomes = [random_genome(6, seed=1, step=step) for step in range(200)]
    assert genomes == [random_genome(6, seed=1, step=step) for step in range(200)]
    assert {gene for genome in genomes for gene in genome} == set(range(7))
    assert len(set(genomes)) > 190
    assert genomes[0] != random_genome(6, seed=2, step=0)


def test_a_genome_takes_its_branches_from_the_supernet(make_request):
    supernet = make_request("supernet", "supernet.pt")
    train_network(supernet)
    chosen = make_request("basq", init=supernet.output, learning_rate=0.0, weight_decay=0.0)
    train_network(chosen)
    first, second = state_of(supernet.output), state_of(chosen.output)
    moved = differing(second, {name: first[name] for name in second})
    assert all("running" in name or "num_batches" in name for name in moved)


def test_finetuning_leaves_every_weight_alone(make_request):
    supernet = make_request("supernet", "supernet.pt")
    train_network(supernet)
    tuned = make_request(
        "basq", role="finetune", init=supernet.output, optimizer="sgd", learning_rate=0.1
    )
    train_network(tuned)
    first, second = state_of(supernet.output), state_of(tuned.output)
    moved = {name.rpartition(".")[2] for name in differing(second, {n: first[n] for n in second})}
    assert "bias" in moved
    assert moved <= {"bias", "upper_bound", "running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize(
    ("run", "changes"),
    [
        ("basq", {"genome": ()}),
        ("basq", {"role": "supernet"}),
        ("basq", {"role": "finetune"}),
        ("uniq-2", {"role": "supernet"}),
        ("uniq-2", {"genome": (1,)}),
    ],
)
def test_roles_that_do_not_fit_are_refused(make_request, run, changes):
    with pytest.raises(UsageError):
        make_request(run, **changes)


def test_first_weights_with_other_layers_are_refused(make_request):
    start = make_request("float", "float.pt")
    train_network(start)
    with pytest.raises(UsageError, match="the first weights do not fit; missing"):
        train_network(make_request("sttn", init=start.output))


def test_bfloat16_trains_and_keeps_float32_weights(make_request):
    request = make_request("uniq-2", precision="bfloat16")
    result = train_network(request)
    assert all(np.isfinite(entry["loss"]) for entry in result.history)
    assert {t.dtype for n, t in state_of(request.output).items() if n.endswith("weight")} == {
        torch.float32
    }


def test_the_log_holds_every_epoch_even_across_an_interruption(make_request, tmp_path):
    request = make_request("uniq-2", log=tmp_path / "net")
    with pytest.raises(InterruptionError):
        train_network(request, report=interrupted_at(5))
    assert len((tmp_path / "net.csv").read_text().splitlines()) == 2
    result = train_network(request)
    with (tmp_path / "net.csv").open() as stream:
        rows = list(csv.DictReader(stream))
    assert [row["epoch"] for row in rows] == ["1", "2"]
    assert [float(row["loss"]) for row in rows] == [entry["loss"] for entry in result.history]
    logged = json.loads((tmp_path / "net.json").read_text())
    assert logged["schema"] == "bitfold/training-log/1"
    assert logged["test_accuracy"] == result.test_accuracy
    assert logged["history"] == [dict(entry) for entry in result.history]


def test_the_learning_rate_of_the_log_falls_with_the_cosine(make_request):
    rates = [e["learning_rate"] for e in train_network(make_request("sttn")).history]
    assert rates[0] > rates[1] > 0
