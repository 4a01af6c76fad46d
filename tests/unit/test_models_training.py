"""Training: recipe, determinism, resuming in the same process, and requests that make no sense."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from bitfold.errors import InputError, MissingDependencyError, OutputError, UsageError
from bitfold.models import TrainConfig, TrainRequest, load_checkpoint, train_network
from bitfold.models import training as training_module
from bitfold.models.data import LabelledImages
from bitfold.models.recipe import augment, learning_rate_factor
from bitfold.models.training import pixel_statistics

pytestmark = pytest.mark.torch

CONFIG = TrainConfig(epochs=2, batch_size=16, save_every_s=0.0, compile=False, warmup_epochs=0.5)


@pytest.fixture
def request_(tmp_path):
    generator = np.random.default_rng(0)
    labels = np.arange(60) % 2
    images = generator.integers(0, 120, (60, 8, 8, 1)) + 100 * labels[:, None, None, None]
    np.savez(tmp_path / "two.npz", images=images.astype(np.uint8), labels=labels)
    return TrainRequest(
        net="resnet8",
        bits=(2, 2),
        data=str(tmp_path / "two.npz"),
        output=tmp_path / "net.pt",
        config=CONFIG,
        width=0.125,
    )


def weights_of(path):
    return load_checkpoint(path).model.state_dict()


def same_weights(first, second):
    return all(torch.equal(first[name], second[name]) for name in first)


class InterruptionError(Exception):
    pass


def interrupted_at(step):
    def report(progress):
        if progress.step == step:
            raise InterruptionError

    return report


def test_training_writes_a_checkpoint_with_its_record(request_):
    steps = []
    result = train_network(request_, report=lambda progress: steps.append(progress.step))
    loaded = load_checkpoint(request_.output)
    assert steps == list(range(1, 7))
    assert not request_.state_path.exists()
    assert loaded.spec == result.spec
    assert loaded.record["test_accuracy"] == result.test_accuracy
    assert loaded.record["seed"] == 0
    assert loaded.record["config"]["epochs"] == 2
    assert [entry["epoch"] for entry in loaded.record["history"]] == [1, 2]
    assert {"bitfold", "torch", "numpy", "python"} == set(loaded.record["versions"])
    assert (result.resumed_from_step, result.checkpoint) == (0, request_.output)


@pytest.mark.parametrize("step", [1, 2, 3, 5, 6])
def test_an_interrupted_run_ends_with_the_same_weights(request_, tmp_path, step):
    train_network(request_)
    broken = replace(request_, output=tmp_path / "broken.pt")
    with pytest.raises(InterruptionError):
        train_network(broken, report=interrupted_at(step))
    result = train_network(broken)
    assert result.resumed_from_step == step - 1
    assert same_weights(weights_of(request_.output), weights_of(broken.output))
    want, got = (load_checkpoint(r.output).record["history"] for r in (request_, broken))
    assert [e["loss"] for e in want] == [e["loss"] for e in got]


def test_training_leaves_torch_as_it_was(request_):
    torch.manual_seed(4)
    before = torch.get_rng_state()
    train_network(replace(request_, threads=1))
    assert torch.equal(before, torch.get_rng_state())
    assert not torch.are_deterministic_algorithms_enabled()


def test_a_changed_request_does_not_resume(request_):
    with pytest.raises(InterruptionError):
        train_network(request_, report=interrupted_at(3))
    other = replace(request_, bits=(4, 4), config=replace(CONFIG, seed=1))
    with pytest.raises(UsageError, match="other settings is in the way: seed, bits, weight_grid"):
        train_network(other)


@pytest.mark.parametrize("cut", [0, 100, -50])
def test_a_damaged_state_is_named(request_, cut):
    with pytest.raises(InterruptionError):
        train_network(request_, report=interrupted_at(3))
    request_.state_path.write_bytes(request_.state_path.read_bytes()[:cut])
    with pytest.raises(InputError) as caught:
        train_network(request_)
    assert str(request_.state_path) in caught.value.where


def test_another_file_is_not_a_state(request_):
    torch.save({"format": "bitfold/checkpoint/1"}, request_.state_path)
    with pytest.raises(InputError, match="not the state of a training run"):
        train_network(request_)


def test_a_full_disk_keeps_the_previous_state(request_, monkeypatch):
    real, calls = training_module.write_atomically, []

    def full_at_the_third(path, data):
        calls.append(path)
        if len(calls) == 3:
            raise OutputError("cannot write: No space left on device")
        real(path, data)

    monkeypatch.setattr(training_module, "write_atomically", full_at_the_third)
    with pytest.raises(OutputError, match="No space left"):
        train_network(request_)
    monkeypatch.undo()
    assert train_network(request_).resumed_from_step == 2


def test_first_weights_come_from_other_bits(request_, tmp_path):
    train_network(request_)
    at_rest = replace(CONFIG, epochs=1, learning_rate=0.0)
    narrow = replace(
        request_, bits=(4, 4), init=request_.output, output=tmp_path / "narrow.pt", config=at_rest
    )
    train_network(narrow)
    first, second = weights_of(request_.output), weights_of(narrow.output)
    assert torch.equal(first["layer1.0.conv1.weight"], second["layer1.0.conv1.weight"])
    assert torch.equal(first["layer1.0.act1.clip"], second["layer1.0.act1.clip"])
    quantizer = "layer1.0.conv1.weight_quantizer.clip"
    assert not torch.equal(first[quantizer], second[quantizer])


def test_first_weights_of_another_network_are_refused(request_, tmp_path):
    train_network(request_)
    wide = replace(request_, init=request_.output, output=tmp_path / "wide.pt", width=0.25)
    with pytest.raises(UsageError, match=r"of another network: width 0.125, not 0.25"):
        train_network(wide)


def test_a_diverged_run_stops(request_):
    wild = replace(request_, config=replace(CONFIG, epochs=40, learning_rate=1e30))
    with pytest.raises(UsageError, match="training diverged: the loss is"):
        train_network(wild)


def test_a_batch_larger_than_the_data_is_refused(request_):
    large = replace(request_, config=replace(CONFIG, batch_size=100))
    with pytest.raises(UsageError, match="54 training images do not fill one batch of 100"):
        train_network(large)


def test_data_without_labels_is_refused(request_, tmp_path):
    np.savez(tmp_path / "bare.npz", images=np.zeros((40, 8, 8, 1), np.uint8))
    with pytest.raises(UsageError, match="labels"):
        train_network(replace(request_, data=str(tmp_path / "bare.npz")))


def test_a_missing_compiler_is_named(request_, monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    compiled = replace(request_, config=replace(CONFIG, compile=True))
    with pytest.raises(MissingDependencyError) as caught:
        train_network(compiled)
    assert "no-such-compiler" in caught.value.what
    assert "--no-compile" in caught.value.todo


@pytest.mark.parametrize(
    "wrong",
    [{"epochs": 0}, {"batch_size": 1}, {"learning_rate": float("nan")}, {"seed": -1}],
)
def test_a_recipe_out_of_range_is_refused(wrong):
    with pytest.raises(UsageError, match=f"{next(iter(wrong))} cannot be"):
        TrainConfig(**({"epochs": 1} | wrong))


def test_learning_rate_rises_linearly_and_falls_to_zero():
    factors = [learning_rate_factor(i, warmup_steps=4, num_steps=20) for i in range(21)]
    assert factors[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert factors[4:] == sorted(factors[4:], reverse=True)
    assert factors[20] == 0


def test_augmentation_moves_pixels_and_fills_the_rest():
    images = torch.arange(1, 10, dtype=torch.uint8).view(1, 1, 3, 3).repeat(64, 1, 1, 1)
    moved, again = (
        augment(images, padding=1, fill=0, flip=True, generator=torch.Generator().manual_seed(1))
        for _ in range(2)
    )
    assert torch.equal(moved, again)
    assert moved.shape == images.shape
    centres = set(moved[:, 0, 1, 1].tolist())
    assert centres == set(range(1, 10))
    still = augment(images, padding=0, fill=0, flip=False, generator=torch.Generator())
    assert torch.equal(still, images)


def test_pixel_statistics_are_the_nearest_integers():
    images = np.array([0, 0, 255, 255], np.uint8).reshape(1, 2, 2, 1)
    found = pixel_statistics(LabelledImages(images, None, ()))
    assert (found.mean, found.std) == (128, 128)
    flat = pixel_statistics(LabelledImages(np.full((1, 2, 2, 1), 7, np.uint8), None, ()))
    assert (flat.mean, flat.std) == (7, 1)
