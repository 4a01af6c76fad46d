"""Checkpoint files: round trip, and every way in which a file can be bad."""

import contextlib
import pathlib
import tracemalloc
import warnings
import zipfile

import pytest
import torch

from bitfold.errors import InputError, OutputError, UnsupportedError, UsageError
from bitfold.models import (
    NetSpec,
    Preprocessing,
    PublishedOptions,
    load_checkpoint,
    load_one_network,
    new_network,
    save_checkpoint,
)

pytestmark = pytest.mark.torch


@pytest.fixture(scope="module")
def model():
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 4),
        input_shape=(12, 12, 1),
        class_names=("a", "b"),
        preprocessing=Preprocessing(73, 90),
        width=0.25,
    )
    return new_network(spec, seed=0)


@pytest.fixture
def path(model, tmp_path):
    path = tmp_path / "net.pt"
    save_checkpoint(path, model, record={"seed": 0, "history": [{"loss": 1.5}]})
    return path


def test_a_checkpoint_comes_back_as_it_was(model, path):
    loaded = load_checkpoint(path)
    assert loaded.spec == model.spec
    assert loaded.record == {"seed": 0, "history": [{"loss": 1.5}]}
    assert not loaded.model.training
    pixels = torch.arange(144.0).view(1, 1, 12, 12)
    with torch.no_grad():
        assert torch.equal(loaded.model(pixels), model(pixels))


def test_a_loaded_network_can_be_trained(path):
    model = load_checkpoint(path).model.train()
    model(torch.rand(4, 1, 12, 12) * 255).sum().backward()
    assert model.fc.weight.grad is not None


def test_equal_networks_give_equal_bytes(model, path, tmp_path):
    other = tmp_path / "other.pt"
    save_checkpoint(other, model, record={"seed": 0, "history": [{"loss": 1.5}]})
    assert other.read_bytes() == path.read_bytes()


def test_saving_to_a_missing_folder_is_an_output_error(model, tmp_path):
    with pytest.raises(OutputError, match="cannot write"):
        save_checkpoint(tmp_path / "none" / "net.pt", model)


def error_of(path, kind=InputError):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(kind) as caught:
            load_checkpoint(path)
    assert str(path) in caught.value.where
    assert caught.value.todo
    return caught.value.what


def test_a_missing_file_is_named(tmp_path):
    assert error_of(tmp_path / "none.pt") == "the checkpoint does not exist"
    assert error_of(tmp_path) == "the checkpoint is a folder"


@pytest.mark.parametrize("part", [0.0, 0.001, 0.5, 0.99])
def test_a_truncated_file_is_refused(path, part):
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * part)])
    assert error_of(path).startswith("the checkpoint is truncated, damaged or no checkpoint (")


@pytest.mark.parametrize("data", [b"hello", b"PK\x03\x04rest", b"\x80\x02.", b"\x00" * 500])
def test_another_file_is_refused(tmp_path, data):
    path = tmp_path / "other.pt"
    path.write_bytes(data)
    assert "damaged or no checkpoint" in error_of(path)


def test_a_compressed_archive_is_refused_before_it_is_unfolded(path, tmp_path):
    bomb = tmp_path / "bomb.pt"
    with zipfile.ZipFile(path) as whole, zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as folded:
        for entry in whole.infolist():
            folded.writestr(entry.filename, whole.read(entry))
        with folded.open("archive/data/999", "w") as entry:
            for _ in range(256):
                entry.write(bytes(2**20))
    tracemalloc.start()
    message = error_of(bomb)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert "its content is compressed and claims" in message
    assert peak < 2**24


@pytest.mark.parametrize("at", range(0, 400, 7))
def test_a_damaged_directory_of_the_archive_is_one_clean_error(path, at):
    data = bytearray(path.read_bytes())
    data[-1 - at] ^= 0x5A
    path.write_bytes(data)
    with contextlib.suppress(InputError, UnsupportedError):
        load_checkpoint(path)


class _Payload:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path(self.target),))


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_not_executed(tmp_path, zipped):
    path, target = tmp_path / "evil.pt", tmp_path / "executed"
    torch.save(
        {"format": "bitfold/checkpoint/1", "spec": _Payload(target)},
        path,
        _use_new_zipfile_serialization=zipped,
    )
    assert "holds Python objects beside tensors and was not opened" in error_of(path)
    assert not target.exists()


@pytest.mark.parametrize(
    "content", [{"net": {}, "acc": 1.0}, {"format": "other/1"}, [1, 2], torch.zeros(2)]
)
def test_another_layout_is_readable_but_not_supported(tmp_path, content):
    path = tmp_path / "other.pt"
    torch.save(content, path)
    what = error_of(path, UnsupportedError)
    assert what.startswith("readable, but neither a checkpoint of bitfold nor a published one")


def rewrite(path, **changes):
    content = torch.load(path, weights_only=True)
    torch.save(content | changes, path)


def edit(path, part, **changes):
    content = torch.load(path, weights_only=True)
    rewrite(path, **{part: content[part] | changes})


def test_another_version_is_named(path):
    rewrite(path, format="bitfold/checkpoint/9")
    assert "'bitfold/checkpoint/9'" in error_of(path, UnsupportedError)


def test_missing_parts_are_named(path):
    rewrite(path, spec=3, model=None)
    assert error_of(path) == "the checkpoint has no spec, model"


@pytest.mark.parametrize(
    ("change", "kind", "message"),
    [
        ({"net": "vgg"}, UnsupportedError, "unknown network 'vgg'"),
        ({"method": "lsq"}, UnsupportedError, "unknown method 'lsq'"),
        ({"bits": (9, 9)}, UnsupportedError, "has no 9-bit weights"),
        ({"width": 1e9}, UnsupportedError, "width 1000000000.0"),
        ({"bits": 2}, InputError, "the network specification is damaged"),
        ({"net": [1]}, InputError, "the network specification is damaged"),
        ({"input_shape": ("a", 1, 1)}, InputError, "the network specification is damaged"),
        ({"color": 2}, InputError, "the network specification is damaged"),
    ],
)
def test_a_bad_specification_is_named(path, change, kind, message):
    edit(path, "spec", **change)
    assert message in error_of(path, kind)


@pytest.mark.parametrize(
    ("name", "value", "message"),
    [
        ("surprise", torch.zeros(1), "unexpected: surprise"),
        ("fc.bias", torch.zeros(3), "fc.bias is float32 (3,), not float32 (2,)"),
        ("fc.bias", torch.zeros(2).double(), "fc.bias is float64 (2,), not float32 (2,)"),
        ("fc.bias", 5, "fc.bias is int, not float32 (2,)"),
        ("fc.bias", torch.tensor([0, float("nan")]), "not finite: fc.bias"),
        ("conv1.weight", torch.full((4, 1, 3, 3), float("inf")), "not finite: conv1.weight"),
        ("layer1.0.act1.clip", torch.tensor(0.0), "layer1.0.act1.clip is 0, must be positive"),
        (
            "layer1.0.conv1.weight_quantizer.clip",
            torch.tensor(-1.0),
            "layer1.0.conv1.weight_quantizer.clip is -1, must be positive",
        ),
        ("bn.running_var", torch.full((16,), -1.0), "bn.running_var falls to -1"),
        ("fc.weight", torch.full((2, 16), 1e-45), "fc.weight is too small to have a scale"),
    ],
)
def test_a_bad_tensor_is_named(path, name, value, message):
    edit(path, "model", **{name: value})
    assert message in error_of(path)


def test_missing_tensors_are_named(path):
    content = torch.load(path, weights_only=True)
    del content["model"]["fc.bias"]
    torch.save(content, path)
    assert "missing: fc.bias" in error_of(path)


@pytest.fixture(scope="module")
def supernet():
    spec = NetSpec(
        "resnet8", "basq", (2, 2), (8, 8, 1), ("a", "b"), Preprocessing(73, 90), width=0.25
    )
    return new_network(spec, seed=0)


def test_a_supernet_needs_a_genome_to_be_one_network(supernet, tmp_path):
    path = tmp_path / "supernet.pt"
    save_checkpoint(path, supernet)
    assert load_checkpoint(path).spec.genome == ()
    with pytest.raises(UsageError, match=f"a supernet of {supernet.num_blocks} blocks"):
        load_one_network(path)
    genome = (3,) * supernet.num_blocks
    loaded = load_one_network(path, published=PublishedOptions(genome=genome))
    supernet.select(genome)
    pixels = torch.arange(64.0).view(1, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(loaded.model(pixels), supernet(pixels))
    assert loaded.spec.genome == genome


def test_a_genome_for_a_network_without_branches_is_a_usage_error(path):
    with pytest.raises(UsageError, match="the checkpoint holds no supernet"):
        load_checkpoint(path, published=PublishedOptions(genome=(1,)))


def test_edge_bits_may_be_asked_for_when_a_checkpoint_is_read(path):
    loaded = load_checkpoint(path, published=PublishedOptions(edge_bits=16))
    assert loaded.model.fc.weight_quantizer.bits == 16
    assert loaded.spec.edge_bits == 16
