"""New networks: every pair of the catalogue can be built, measured and told apart by its logits."""

import json
from dataclasses import replace

import pytest
import torch
from torch import nn

from bitfold.errors import InputError, UsageError
from bitfold.models import (
    METHODS,
    NETS,
    NetSpec,
    Preprocessing,
    PublishedPreprocessing,
    build_network,
    calibrate,
    count_genes,
    new_network,
)
from bitfold.models.loaded_net import value_problems
from bitfold.models.nets.catalogue import PLAIN_NETS, builder_of
from bitfold.models.nets.scheme import SCHEMES
from bitfold.models.quantizers import PactActivation, UniqActivation, UniqWeight
from bitfold.models.quantizers.uniq import ACTIVATION_STEP, WEIGHT_STEP

pytestmark = pytest.mark.torch

PAIRS = [(net, method) for net, methods in NETS.items() for method in methods]
SMALL_PAIRS = [pair for pair in PAIRS if pair[0] not in ("resnet44", "resnet56", "resnet110")]


def spec_of(net="resnet8", method="uniq", bits=None, **changed):
    offered = METHODS[method]
    spec = NetSpec.with_default_grid(
        net=net,
        method=method,
        bits=bits or (max(offered.weights[0], 2), max(offered.activations[0], 2)),
        input_shape=(32, 32, 3),
        class_names=tuple("abcde"),
        preprocessing=Preprocessing(120, 60),
        width=0.25,
    )
    return replace(spec, **changed)


def images(count, seed=1, side=32):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (count, 3, side, side), generator=generator).float()


def assert_sane(model):
    assert not model.training
    assert value_problems(model) == []
    with torch.no_grad():
        logits = model(images(3))
    assert logits.shape == (3, 5)
    assert torch.isfinite(logits).all()
    assert not torch.equal(logits[0], logits[1])
    assert not torch.equal(logits[0], logits[2])


@pytest.mark.parametrize(("net", "method"), SMALL_PAIRS)
def test_every_pair_tells_images_apart(net, method):
    spec = spec_of(net, method)
    assert_sane(new_network(replace(spec, genome=(0,) * count_genes(spec)), seed=0))


@pytest.mark.parametrize(
    ("method", "bits"),
    [(m, (w, w)) for m, b in METHODS.items() for w in b.weights if w in b.activations],
)
def test_every_width_tells_images_apart(method, bits):
    spec = spec_of("resnet8", method, bits)
    assert_sane(new_network(replace(spec, genome=(0,) * count_genes(spec)), seed=0))


@pytest.mark.parametrize("bits", [(1, 1), (2, 2)])
@pytest.mark.parametrize("net", ["resnet20", "mobilenetv2"])
def test_published_preprocessing_makes_networks_too(net, bits):
    published = PublishedPreprocessing((0.5, 0.4, 0.3), (0.2, 0.3, 0.25))
    assert_sane(new_network(spec_of(net, "uniq", bits, preprocessing=published), seed=0))


def test_a_supernet_has_sane_statistics_in_every_branch():
    model = new_network(spec_of("resnet8", "basq"), seed=0)
    assert model.genome == (0,) * count_genes(model.spec)
    for branch in range(7):
        model.select((branch,) * model.num_blocks)
        assert_sane(model)


def test_every_network_and_method_has_a_builder_and_a_scheme():
    assert set(PLAIN_NETS) == set(NETS)
    assert set(SCHEMES) == set(METHODS)
    assert all(issubclass(builder_of(net, method), nn.Module) for net, method in PAIRS)
    assert all("float" in methods for methods in NETS.values())


@pytest.mark.parametrize(
    ("net", "method", "count"),
    [("mobilenetv2", "basq", 17), ("mobilenetv1", "basq", 13), ("resnet8", "uniq", 0)],
)
def test_a_genome_is_as_long_as_the_network_has_branch_units(net, method, count):
    assert count_genes(spec_of(net, method)) == count


def test_calibration_follows_the_rules_of_uniq():
    model = build_network(spec_of("mlp", width=0.125)).train()
    first = {}
    model.act2.register_forward_pre_hook(lambda m, x: first.setdefault("x", x[0]))
    calibrate(model, [images(8)], norm_statistics=True)
    step = (2 * torch.relu(first["x"]).square().mean()).sqrt() * ACTIVATION_STEP[2]
    assert torch.equal(model.act2.delta.detach(), step)
    # Float summation order alone separates the two forms of the standard deviation.
    expected = float(model.fc2.weight.detach().std()) * WEIGHT_STEP[2]
    assert float(model.fc2.weight_quantizer.delta.detach()) == pytest.approx(expected, rel=1e-5)
    assert model.training


def test_norm_statistics_are_the_mean_over_the_batches():
    model = build_network(spec_of("mlp", "float", width=0.125))
    seen = []
    model.bn1.register_forward_pre_hook(lambda m, x: seen.append(x[0].mean(0)))
    calibrate(model, [images(8), images(8, seed=2)], norm_statistics=True)
    # Two float32 means of two numbers: a few units in the last place.
    assert torch.allclose(model.bn1.running_mean, (seen[0] + seen[1]) / 2, rtol=1e-5, atol=1e-6)
    assert model.bn1.momentum == 0.1


def test_norm_statistics_stay_where_nobody_asks_for_new_ones():
    model = new_network(spec_of("resnet8", "pact-sawb"), seed=0)
    norms = [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    before = [{k: v.clone() for k, v in norm.state_dict().items()} for norm in norms]
    clips = [m.clip.clone() for m in model.modules() if isinstance(m, PactActivation)]
    calibrate(model, [images(8) // 2], norm_statistics=False)
    for norm, state in zip(norms, before, strict=True):
        assert all(torch.equal(state[name], now) for name, now in norm.state_dict().items())
    now = [m.clip for m in model.modules() if isinstance(m, PactActivation)]
    assert any(not torch.equal(a, b) for a, b in zip(clips, now, strict=True))
    assert not model.training


def test_calibration_leaves_no_hook_behind_when_a_batch_does_not_fit():
    model = build_network(spec_of("resnet8", "uniq"))
    with pytest.raises(RuntimeError):
        calibrate(model, [torch.zeros(2, 5, 8, 8)], norm_statistics=True)
    assert not any(m._forward_pre_hooks for m in model.modules())
    assert model.bn.momentum == 0.1


def test_a_step_a_kernel_is_measured_a_kernel():
    model = new_network(spec_of("resnet8", "uniq", per_kernel=True), seed=0)
    quantizer = model.layer1[0].conv1.weight_quantizer
    assert isinstance(quantizer, UniqWeight)
    assert quantizer.delta.shape == (4,)
    assert quantizer.delta.unique().numel() == 4
    assert isinstance(model.layer2[0].shortcut_act, UniqActivation)


def test_the_command_line_reads_a_genome(tmp_path):
    from bitfold.cli.inputs import parse_genome

    result = tmp_path / "result.json"
    result.write_text(json.dumps({"genome": [1, 2], "block_bits": [4, 2]}))
    assert parse_genome("5,3,2") == ((5, 3, 2), ())
    assert parse_genome(str(result)) == ((1, 2), (4, 2))
    with pytest.raises(UsageError, match=r"--genome needs numbers .* got '5,x'"):
        parse_genome("5,x")
    result.write_text("{")
    with pytest.raises(InputError, match="no JSON"):
        parse_genome(str(result))


def test_the_command_line_knows_widths_without_torch():
    from bitfold.cli.inputs import known_bits

    assert known_bits("2,3", net="resnet8", method="uniq") == (2, 3)
    assert known_bits(None, net="resnet8", method="sttn") == (2, 2)
    assert known_bits(None, net="mlp", method="float") == (32, 32)
    with pytest.raises(UsageError, match="uniq needs a bit width"):
        known_bits(None, net="resnet8", method="uniq")
    with pytest.raises(UsageError, match="vgg-small has no form for sttn"):
        known_bits(None, net="vgg-small", method="sttn")


@pytest.mark.parametrize("net", ["resnet8", "mobilenetv1", "mlp"])
def test_a_new_file_holds_the_network_that_was_asked_for(net, tmp_path):
    from bitfold.cli.app import main
    from bitfold.models import load_checkpoint

    method = "basq" if "basq" in NETS[net] else "pact-dorefa"
    path = tmp_path / "new.pt"
    arguments = ["new", "--net", net, "--method", method, "--bits", "3,3", "--width", "0.25"]
    assert main([*arguments, "--input", "32x32x3", "--stem", "large", "-o", str(path)]) == 0
    loaded = load_checkpoint(path)
    assert (loaded.spec.net, loaded.spec.method, loaded.spec.stem) == (net, method, "large")
    assert set(loaded.spec.genome) <= {0}
    assert len(loaded.spec.genome) == count_genes(loaded.spec)
