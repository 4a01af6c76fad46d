"""Networks: shapes, stable names, random initialisation, names that do not exist."""

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from bitfold.errors import UsageError
from bitfold.models import NetSpec, Preprocessing, build_network, load_checkpoint, new_network

pytestmark = pytest.mark.torch


DATA = Path(__file__).parents[2] / "bitfold" / "data"


def spec_of(*, channels=(), stem="auto", **changed):
    fields = {
        "net": "resnet8",
        "method": "pact-sawb",
        "bits": (2, 2),
        "input_shape": (28, 28, 1),
        "class_names": tuple("abcdefghij"),
        "preprocessing": Preprocessing(73, 90),
    }
    spec = NetSpec.with_default_grid(**(fields | changed))
    return replace(spec, channels=channels, stem=stem)


def shapes_of(model):
    return {name: tuple(weight.shape) for name, weight in model.state_dict().items()}


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


@pytest.mark.parametrize("name", ["resnet20_w2a2", "resnet20_w4a4"])
def test_the_embedded_networks_still_load(name):
    assert load_checkpoint(DATA / f"{name}.pt").spec.net == "resnet20"


@pytest.mark.parametrize(
    ("net", "stages", "width"),
    [("resnet14", 3, 64), ("resnet32", 3, 64), ("resnet34", 4, 512), ("resnet50", 4, 2048)],
)
def test_a_resnet_has_the_depth_of_its_name(net, stages, width):
    with torch.device("meta"):
        model = build_network(spec_of(net=net))
    names = [name for name, _ in model.named_modules() if name.startswith("layer")]
    convs = [name for name in names if name.split(".")[-1] in ("conv1", "conv2", "conv3")]
    assert len(convs) + 2 == int(net.removeprefix("resnet"))
    assert max(int(name[5]) for name in names) == stages
    assert model.fc.in_features == width


@pytest.mark.parametrize(
    ("shape", "stem", "kernel"),
    [
        ((63, 64, 3), "auto", 3),
        ((64, 64, 3), "auto", 7),
        ((32, 32, 3), "large", 7),
        ((224, 224, 3), "small", 3),
    ],
)
def test_large_images_have_the_large_stem_unless_asked_otherwise(shape, stem, kernel):
    with torch.device("meta"):
        model = build_network(spec_of(net="resnet18", input_shape=shape, stem=stem))
    assert model.conv1.kernel_size == (kernel, kernel)
    assert hasattr(model, "max_pool") == (kernel == 7)


def test_channel_counts_of_a_spec_override_its_width():
    model = build_network(spec_of(channels=(3, 5, 7), width=2.0))
    convs = [model.conv1, *(model.get_submodule(f"layer{i}.0.conv2") for i in (1, 2, 3))]
    assert [conv.out_channels for conv in convs] == [3, 3, 5, 7]


def test_mobilenet_v2_has_the_published_shapes():
    with torch.device("meta"):
        spec = spec_of(net="mobilenetv2", method="uniq", input_shape=(224, 224, 3))
        shapes = shapes_of(build_network(spec))
    assert shapes["init_block.conv.weight"] == (32, 3, 3, 3)
    assert shapes["stages.stage1.0.conv1.conv.weight"] == (32, 32, 1, 1)
    assert shapes["stages.stage2.0.conv2.conv.weight"] == (96, 1, 3, 3)
    assert shapes["stages.stage5.3.conv3.conv.weight"] == (320, 960, 1, 1)
    assert shapes["stages.final_block.conv.weight"] == (1280, 320, 1, 1)
    blocks = {name.rsplit(".", 3)[0] for name in shapes if name.endswith("conv2.conv.weight")}
    assert len(blocks) == 17


@pytest.mark.parametrize(
    ("width", "stem", "last"), [(1.0, 32, 1280), (0.5, 16, 1280), (0.25, 8, 1280), (0.1, 3, 1280)]
)
def test_a_mobilenet_rounds_its_channels_to_eights(width, stem, last):
    with torch.device("meta"):
        model = build_network(spec_of(net="mobilenetv2", width=width))
    assert (model.init_block.conv.out_channels, model.fc.in_features) == (stem, last)


def test_alexnet_has_the_maps_of_the_original():
    with torch.device("meta"):
        model = build_network(spec_of(net="alexnet", input_shape=(224, 224, 3)))
    assert model.fc6.in_features == 6 * 6 * 256


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
        ({"net": "vgg"}, "unknown network 'vgg'\nnet\nKnown: resnet8, resnet14, resnet20,"),
        ({"method": "lsq"}, "unknown method 'lsq'\nmethod\nKnown: pact-sawb, pact-dorefa, uniq,"),
        ({"net": "mlp", "method": "basq"}, "mlp has no form for basq\nnet and method\nNetworks"),
        ({"channels": (16, 32)}, "2 channel counts for resnet8, which has 3"),
        ({"net": "alexnet", "input_shape": (8, 28, 1)}, "an image side of 8 pixels is too small"),
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
