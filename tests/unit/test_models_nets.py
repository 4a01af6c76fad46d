"""Networks: shapes, stable names, random initialisation, names that do not exist."""

import subprocess
import sys

import pytest
import torch

from bitfold.errors import UsageError
from bitfold.models import NetSpec, Preprocessing, build_network, new_network

pytestmark = pytest.mark.torch


def spec_of(**changed):
    fields = {
        "net": "resnet8",
        "method": "pact-sawb",
        "bits": (2, 2),
        "input_shape": (28, 28, 1),
        "class_names": tuple("abcdefghij"),
        "preprocessing": Preprocessing(73, 90),
    }
    return NetSpec.with_default_grid(**(fields | changed))


@pytest.mark.parametrize("net", ["resnet8", "resnet20"])
@pytest.mark.parametrize("shape", [(28, 28, 1), (32, 32, 3)])
def test_networks_give_one_logit_a_class(net, shape):
    model = new_network(spec_of(net=net, input_shape=shape), seed=0)
    pixels = torch.zeros(2, shape[2], *shape[:2])
    with torch.no_grad():
        assert model(pixels).shape == (2, 10)


def test_state_names_are_stable():
    names = set(build_network(spec_of()).state_dict())
    block = {"act1.clip", "act2.clip", "conv1.weight", "conv2.weight"}
    block |= {"conv1.weight_quantizer.clip", "conv2.weight_quantizer.clip"}
    norm = {"weight", "bias", "running_mean", "running_var", "num_batches_tracked"}
    block |= {f"{bn}.{part}" for bn in ("bn1", "bn2") for part in norm}
    want = {f"layer{i}.0.{name}" for i in (1, 2, 3) for name in block}
    want |= {"layer2.0.shortcut.weight", "layer3.0.shortcut.weight"}
    want |= {f"bn.{part}" for part in norm}
    want |= {"conv1.weight", "act.clip", "fc.weight", "fc.bias"}
    assert names == want


@pytest.mark.parametrize("bits", [(2, 2), (3, 1), (4, 8)])
def test_a_new_network_has_sane_activations(bits):
    model = new_network(spec_of(bits=bits), seed=5)
    assert not model.training
    used = {}
    for name, module in model.named_modules():
        if name.endswith(("act1", "act2")):
            module.register_forward_hook(
                lambda m, x, y, name=name: used.update({name: m.codes(x[0]).unique().numel()})
            )
    with torch.no_grad():
        logits = model(torch.randint(0, 256, (8, 1, 28, 28)).float())
    assert torch.isfinite(logits).all()
    assert all(count >= min(4, 2 ** bits[1]) for count in used.values())


def test_a_seed_gives_one_network_and_leaves_the_generator_alone():
    torch.manual_seed(1)
    before = torch.get_rng_state()
    first, second = (new_network(spec_of(width=0.25), seed=7).state_dict() for _ in range(2))
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert torch.equal(before, torch.get_rng_state())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"net": "vgg"}, "unknown network 'vgg'\nnet\nKnown: resnet8, resnet20."),
        ({"method": "lsq"}, "unknown method 'lsq'\nmethod\nKnown: pact-sawb."),
        ({"bits": (5, 4)}, "has no 5-bit weights with 4-bit activations"),
        ({"bits": (2, 7)}, "has no 2-bit weights with 7-bit activations"),
        ({"width": float("nan")}, "width nan is not in"),
        ({"input_shape": (0, 28, 1)}, "is not (H, W, C) within"),
        ({"class_names": ()}, "0 classes"),
    ],
)
def test_what_is_not_offered_is_named(changed, message):
    with pytest.raises(UsageError) as caught:
        build_network(spec_of(**changed))
    assert message in str(caught.value)


@pytest.mark.parametrize("values", [(-1, 90), (256, 90), (73, 0)])
def test_preprocessing_stays_in_the_range_of_pixels(values):
    with pytest.raises(UsageError, match="mean must be 0…255 and std 1…255"):
        Preprocessing(*values)


def test_a_spec_survives_its_dict():
    spec = spec_of(width=0.5)
    assert NetSpec.from_dict(spec.to_dict()) == spec


@pytest.mark.parametrize("statement", ["models.data import load_images", "models import NetSpec"])
def test_reading_data_loads_no_torch(statement):
    code = f"import sys; from bitfold.{statement}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
