"""Schemes: which quantizer a method puts where, trained here and as published."""

import pytest
import torch
from torch import nn

from bitfold.errors import UnsupportedError, UsageError
from bitfold.ir import Grid
from bitfold.models import NetSpec, Preprocessing, PublishedPreprocessing, build_network
from bitfold.models.layers import PixelConv2d, PixelNorm, QuantConv2d
from bitfold.models.nets import Scheme
from bitfold.models.quantizers import (
    DorefaWeight,
    FullPrecisionWeight,
    LsqActivation,
    LsqWeight,
    MinMaxWeight,
    PactActivation,
    SawbWeight,
    StqnActivation,
    StqnWeight,
    SttnActivation,
    SttnWeight,
    UniqActivation,
    UniqInput,
    UniqWeight,
)

pytestmark = pytest.mark.torch

HERE = Preprocessing(73, 90)
PUBLISHED = PublishedPreprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
FLOAT_EDGES = [
    ("pact-sawb", (2, 2)), ("pact-dorefa", (2, 2)), ("uniq", (1, 1)),
    ("sttn", (2, 2)), ("stqn", (3, 3)), ("basq", (2, 2)),
]  # fmt: skip


def scheme_of(method, bits=(2, 2), preprocessing=HERE, **options):
    return Scheme.of(spec_of(method, bits, preprocessing, **options))


def spec_of(method, bits, preprocessing, *, net="resnet8", **options):
    return NetSpec(net, method, bits, (32, 32, 3), ("a", "b"), preprocessing, **options)


@pytest.mark.parametrize(
    ("method", "bits", "act", "weight"),
    [
        ("pact-sawb", (2, 3), PactActivation, SawbWeight),
        ("pact-dorefa", (2, 3), PactActivation, DorefaWeight),
        ("uniq", (1, 1), UniqActivation, UniqWeight),
        ("uniq", (2, 3), UniqActivation, UniqWeight),
        ("sttn", (2, 2), SttnActivation, SttnWeight),
        ("stqn", (3, 3), StqnActivation, StqnWeight),
        ("basq", (2, 3), LsqActivation, LsqWeight),
    ],
)
def test_a_body_layer_has_the_quantizers_of_its_method(method, bits, act, weight):
    scheme = scheme_of(method, bits)
    activation, conv = scheme.act(channels=4), scheme.conv(4, 6, 3, stride=2, groups=2, bias=True)
    assert (type(activation), type(conv.weight_quantizer)) == (act, weight)
    assert conv.weight_quantizer.grid.bits == bits[0]
    assert activation.grid.bits == bits[1]
    assert (conv.stride, conv.groups, conv.bias.shape) == ((2, 2), 2, (6,))


@pytest.mark.parametrize(("method", "bits"), FLOAT_EDGES)
def test_float_edges_trained_here_have_8_bits(method, bits):
    scheme = scheme_of(method, bits)
    assert isinstance(scheme.norm(), PixelNorm)
    assert isinstance(scheme.input_act(), nn.Identity)
    first, last = scheme.first(4, 3), scheme.last(4, 2)
    assert type(first) is QuantConv2d
    assert first.weight_quantizer.grid == last.weight_quantizer.grid == Grid.narrow(8)
    assert scheme.last_act(signed=False).grid == Grid.unsigned(8)
    assert scheme.last_act(signed=True).grid == Grid.narrow(8)


@pytest.mark.parametrize(("method", "bits"), FLOAT_EDGES)
@pytest.mark.parametrize("edge_bits", [8, 16])
def test_published_float_edges_read_unquantized_numbers(method, bits, edge_bits):
    scheme = scheme_of(method, bits, PUBLISHED, edge_bits=edge_bits)
    assert isinstance(scheme.norm(), nn.Identity)
    assert isinstance(scheme.input_act(), nn.Identity)
    assert isinstance(scheme.last_act(signed=False), nn.Identity)
    first = scheme.first(4, 7, stride=2)
    assert isinstance(first, PixelConv2d)
    for layer in (first, scheme.last(4, 2), scheme.shortcut(4, 8, stride=2)):
        if method != "basq" or layer is first:
            assert isinstance(layer.weight_quantizer, MinMaxWeight)
            assert layer.weight_quantizer.bits == edge_bits


@pytest.mark.parametrize("preprocessing", [HERE, PUBLISHED])
def test_uniq_quantizes_its_edges_itself(preprocessing):
    scheme = scheme_of("uniq", (2, 2), preprocessing, per_kernel=True)
    assert isinstance(scheme.norm(), PixelNorm)
    assert isinstance(scheme.input_act(), UniqInput)
    for layer in (scheme.first(4, 3), scheme.last(4, 2)):
        assert isinstance(layer.weight_quantizer, UniqWeight)
        assert layer.weight_quantizer.grid == Grid.odd(8)
        assert layer.weight_quantizer.delta.shape == ()
    assert scheme.last_act(signed=False).grid == Grid.unsigned(8)


def test_uniq_quantizes_a_shortcut_as_the_body_with_a_step_of_its_own():
    scheme = scheme_of("uniq", (2, 3), per_kernel=True)
    shortcut = scheme.shortcut(4, 6, stride=2)
    assert shortcut.weight_quantizer.grid == Grid.odd(2)
    assert shortcut.weight_quantizer.delta.shape == (6,)
    assert scheme.shortcut_act().grid == Grid.unsigned(3)


@pytest.mark.parametrize(("preprocessing", "kind"), [(HERE, UniqActivation), (PUBLISHED, nn.ReLU)])
def test_one_bit_uniq_has_a_float_shortcut(preprocessing, kind):
    scheme = scheme_of("uniq", (1, 1), preprocessing)
    assert type(scheme.shortcut_act()) is kind
    assert isinstance(scheme.shortcut(4, 6, stride=2).weight_quantizer, MinMaxWeight)


def test_pact_shares_the_codes_of_the_block_with_its_shortcut():
    assert scheme_of("pact-sawb").shortcut_act() is None


@pytest.mark.parametrize(("per_channel", "shape"), [(False, ()), (True, (5,))])
def test_basq_has_a_step_a_layer_or_an_input_channel(per_channel, shape):
    assert scheme_of("basq", per_channel=per_channel).act(channels=5).s.shape == shape


def test_a_float_network_computes_what_its_plain_layers_do():
    model = build_network(spec_of("float", (32, 32), HERE, net="mobilenetv2", width=0.25)).eval()
    quantized = [m for m in model.modules() if hasattr(m, "weight_quantizer")]
    assert {type(m.weight_quantizer) for m in quantized} == {FullPrecisionWeight}
    # Behind a linear bottleneck a float network reads negative numbers, too.
    act = model.get_submodule("stages.stage2.1.conv1.act")
    assert torch.equal(act(torch.tensor([-1.0, 2.0])), torch.tensor([-1.0, 2.0]))


def test_means_must_fit_the_images():
    with pytest.raises(UsageError, match="1 means for images of 3 channels"):
        scheme_of("sttn", (2, 2), PublishedPreprocessing((0.5,), (0.2,)))


def test_a_fully_connected_first_layer_takes_whole_means_alone():
    with pytest.raises(UnsupportedError, match="first layer on pixels with real-valued means"):
        scheme_of("pact-sawb", (2, 2), PUBLISHED).first_linear(12, 4)


def test_an_unknown_method_is_named():
    with pytest.raises(UsageError, match="unknown method 'lsq'"):
        scheme_of("lsq")
