"""STTN networks: the block's dataflow, zero-padded skips, stems, initialisation, merging."""

import pytest
import torch
from torch import fx, nn

from bitfold.errors import UsageError
from bitfold.models import NetSpec, Preprocessing
from bitfold.models.layers import QuantConv2d
from bitfold.models.nets.scheme import Scheme
from bitfold.models.nets.sttn_resnet import (
    SttnResNet,
    TernaryBlock,
    ZeroPadShortcut,
    merge_ternary,
)
from bitfold.models.protocol import ActivationQuantizer, WeightQuantizer

pytestmark = pytest.mark.torch


def spec_of(**changed):
    fields = {
        "net": "resnet8",
        "method": "sttn",
        "bits": (2, 2),
        "input_shape": (16, 16, 3),
        "class_names": tuple("abcdefghij"),
        "preprocessing": Preprocessing(73, 90),
        "width": 0.125,
    }
    return NetSpec(**(fields | changed))


def pixels_of(shape):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(0, 256, (2, shape[2], *shape[:2]), generator=generator).float()


def settled(model):
    """In eval mode with batch-norm statistics of its own activations, so that codes vary."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
    with torch.no_grad():
        model.train()(pixels_of(model.spec.input_shape))
    return model.eval()


def logits_of(model):
    with torch.no_grad():
        return model(pixels_of((16, 16, 3)))


def test_the_zero_padded_skip_appends_zero_channels():
    x = torch.randn(2, 3, 4, 4)
    out = ZeroPadShortcut(3, 6)(x)
    assert torch.equal(out, torch.cat((x, x * 0), 1))


def test_a_stage_may_not_be_narrower_than_the_one_before():
    with pytest.raises(UsageError, match="from 4 to 2 channels"):
        SttnResNet(spec_of(channels=(4, 2, 2)))


def test_channels_are_counted():
    with pytest.raises(UsageError, match="which has 3"):
        SttnResNet(spec_of(channels=(4, 8)))


@pytest.mark.parametrize("stride", [1, 2])
def test_a_block_has_a_skip_around_each_convolution(stride):
    channels = (2, 2 * stride)
    block = TernaryBlock(channels, Scheme.of(spec_of()), stride=stride, size=(4, 4))
    for name, tensor in block.state_dict().items():
        if "running_var" not in name and tensor.is_floating_point():
            tensor.normal_(generator=torch.Generator().manual_seed(tensor.numel()))
    x = torch.randn(1, 2, 4, 4)
    block.eval()
    skip = x
    if stride == 2:
        half = nn.functional.max_pool2d(x, 2)
        skip = torch.cat((half, half * 0), 1)
    v = block.prelu1(block.bn_add1(block.conv1(block.act1(block.bn1(x)))) + skip)
    y = block.prelu2(block.bn_add2(block.conv2(block.act2(block.bn2(v)))) + v)
    assert torch.equal(block(x), y)


@pytest.mark.parametrize("net", ["resnet8", "resnet20", "resnet18", "resnet34"])
@pytest.mark.parametrize(("method", "bits"), [("sttn", (2, 2)), ("stqn", (3, 4))])
def test_networks_give_one_logit_a_class(net, method, bits):
    model = SttnResNet(spec_of(net=net, method=method, bits=bits)).eval()
    assert logits_of(model).shape == (2, 10)


@pytest.mark.parametrize("stem", ["small", "large"])
def test_odd_maps_are_halved_on_the_skip_as_by_the_convolution(stem):
    shape = (25, 30, 1)
    model = SttnResNet(spec_of(net="resnet18", width=0.05, input_shape=shape, stem=stem)).eval()
    assert model(pixels_of(shape)).shape == (2, 10)


def test_the_published_stem_is_for_images_of_64_pixels_and_more():
    large = SttnResNet(spec_of(net="resnet18", width=0.05, input_shape=(64, 64, 3)))
    assert (large.conv1.kernel_size, large.conv1.stride) == ((7, 7), (2, 2))
    small = SttnResNet(spec_of(net="resnet18", width=0.05, input_shape=(63, 64, 3)))
    assert (small.conv1.kernel_size, small.conv1.stride) == ((3, 3), (1, 1))


def test_resnet18_has_the_published_blocks():
    with torch.device("meta"):
        model = SttnResNet(spec_of(net="resnet18", width=1.0))
    outs = [block.conv1.out_channels for block in model.blocks]
    assert outs == [64, 64, 128, 128, 256, 256, 512, 512]
    assert [i for i, block in enumerate(model.blocks) if block.pool is not None] == [2, 4, 6]
    assert all(block.conv1.bias is not None for block in model.blocks)
    assert model.blocks[7].prelu2.weight.shape == (512,)


def test_latents_start_with_a_deviation_of_one_over_the_fan():
    torch.manual_seed(0)
    conv = SttnResNet(spec_of(width=1.0)).blocks[2].conv2
    assert conv.weight.shape == (2, 64, 64, 3, 3)
    # 73 728 draws: the sample deviation is within 1 % of the true one by four of its own.
    assert conv.weight.std().item() == pytest.approx(1 / (64 * 9), rel=0.01)


@pytest.mark.parametrize("net", ["resnet8", "resnet18"])
def test_a_merged_network_gives_the_same_logits_bit_for_bit(net):
    model = settled(SttnResNet(spec_of(net=net)))
    before = logits_of(model)
    merge_ternary(model)
    convs = [m for m in model.blocks.modules() if isinstance(m, QuantConv2d)]
    assert {conv.weight.dim() for conv in convs} == {4}
    assert not any(conv.weight_quantizer.faults(conv.weight) for conv in convs)
    assert torch.equal(logits_of(model), before)


def test_all_latents_get_a_gradient():
    model = SttnResNet(spec_of())
    model(pixels_of((16, 16, 3))).square().sum().backward()
    assert all(p.grad is not None for p in model.parameters())


class Tracer(fx.Tracer):
    def is_leaf_module(self, m, qualified_name):
        leaves = (ActivationQuantizer, WeightQuantizer, ZeroPadShortcut)
        return isinstance(m, leaves) or super().is_leaf_module(m, qualified_name)


@pytest.mark.parametrize(("method", "bits"), [("sttn", (2, 2)), ("stqn", (3, 3))])
def test_a_network_can_be_traced(method, bits):
    model = settled(SttnResNet(spec_of(method=method, bits=bits)))
    traced = fx.GraphModule(model, Tracer().trace(model))
    assert torch.equal(logits_of(traced), logits_of(model))


def test_a_weight_drawn_as_zero_gets_a_sign(monkeypatch):
    """Of the tens of millions that a large network draws, one or two are exactly 0."""
    monkeypatch.setattr(nn.init, "normal_", lambda tensor, *_: tensor.data.zero_())
    block = SttnResNet(spec_of()).blocks[0]
    assert block.conv1.weight_quantizer.faults(block.conv1.weight) == []
