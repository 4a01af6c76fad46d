"""Folding a network: names, exact layers, negative and zero batch-norm gains."""

import numpy as np
import pytest
import torch

from bitfold.errors import UnsupportedError
from bitfold.export import compare_codes, fold_network, quantizer_names
from bitfold.ir import Conv2d, Linear, Rescale, Thresholds, trace_oracle, verify
from bitfold.models import NetSpec, Preprocessing, new_network

pytestmark = pytest.mark.torch


def small_spec(bits=(2, 2), net="resnet8", shape=(12, 12, 1)):
    return NetSpec.with_default_grid(
        net=net,
        method="pact-sawb",
        bits=bits,
        input_shape=shape,
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(73, 90),
        width=0.5,
    )


def disturb_gains(model):
    """Give every batch norm a negative and a zero gain."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, torch.nn.BatchNorm2d):
                module.weight[0] *= -1
                module.weight[1] = 0


def random_images(count, shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (count, *shape), dtype=np.uint8)


@pytest.mark.parametrize("bits", [(2, 2), (3, 3), (4, 4)])
def test_layers_folded_into_exact_thresholds_never_flip(bits):
    spec = small_spec(bits)
    model = new_network(spec, seed=1)
    disturb_gains(model)
    folded = fold_network(model)
    images = random_images(8, spec.input_shape)
    codes = trace_oracle(folded.graph, images)
    names = quantizer_names(folded.graph, model)
    flips, _ = compare_codes(model, names, images, codes=codes, layer_by_layer=True)
    exact = {layer.name for layer in folded.layers if layer.exact}
    assert len(exact) == 3
    assert {flip.name: flip.flips for flip in flips if flip.name in exact} == dict.fromkeys(
        exact, 0
    )
    stream = [flip for flip in flips if flip.name not in exact]
    assert sum(flip.flips for flip in stream) <= 0.002 * sum(flip.compared for flip in stream)
    assert all(flip.max_abs_diff <= 1 for flip in stream)


def test_node_names_follow_the_modules():
    graph = fold_network(new_network(small_spec(), seed=0)).graph
    names = [node.name for node in graph.nodes]
    assert names[:3] == ["norm", "conv1", "conv1.wide"]
    assert {"layer1.0.act1", "layer1.0.conv1", "layer1.0.add", "fc", "logits"} <= set(names)


def test_negative_gains_become_signs_and_zero_gains_constants():
    model = new_network(small_spec(), seed=0)
    disturb_gains(model)
    graph = fold_network(model).graph
    tables = [n for n in graph.nodes if isinstance(n, Thresholds) and n.name.endswith("act2")]
    for node in tables:
        assert node.sign[0] == -1
        source = graph.types[node.x]
        assert set(node.table[1].tolist()) <= {source.lo, source.hi + 1}


def test_graph_of_every_size_verifies():
    for shape in ((1, 1, 1), (28, 28, 1), (9, 7, 3)):
        verify(fold_network(new_network(small_spec(shape=shape), seed=0)).graph)


def test_edges_and_shortcuts_have_eight_bit_weights():
    graph = fold_network(new_network(small_spec(), seed=0)).graph
    wide = {
        n.name for n in graph.nodes if isinstance(n, Conv2d | Linear) and n.weight_grid.bits == 8
    }
    assert wide == {"conv1", "layer2.0.shortcut", "layer3.0.shortcut", "fc"}


def test_residual_stream_has_one_scale():
    graph = fold_network(new_network(small_spec(), seed=0)).graph
    scales = {n.scale for n in graph.nodes if isinstance(n, Rescale) and n.name.endswith(".wide")}
    assert len(scales) == 1


def test_unknown_module_is_named():
    model = new_network(small_spec(), seed=0)
    model.relu = torch.nn.GELU()
    with pytest.raises(UnsupportedError, match=r"module GELU\nlayer relu\nSupported: "):
        fold_network(model)
