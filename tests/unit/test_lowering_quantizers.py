"""Networks of every method, folded: each quantizer agrees with the trained network's, and every
backend with the oracle.
"""

import numpy as np
import pytest
import torch
from torch import nn

from bitfold.errors import UnsupportedError
from bitfold.export import compare_codes, fold_network, onnx_model, quantizer_names, run_onnxruntime
from bitfold.export.model_files import graph_of
from bitfold.export.onnx.check import is_available
from bitfold.export.trace import trace
from bitfold.ir import to_text, trace_oracle
from bitfold.kernels.c_backend import c_rows
from bitfold.models import (
    ActivationQuantizer,
    NetSpec,
    Preprocessing,
    PublishedPreprocessing,
    new_network,
)
from bitfold.runtime import Session

pytestmark = pytest.mark.torch

HERE = Preprocessing(73, 90)
PUBLISHED = PublishedPreprocessing((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NETWORKS = {
    "pact-sawb": ("resnet8", "pact-sawb", (2, 2), HERE, {}),
    "pact-sawb published": ("resnet8", "pact-sawb", (3, 3), PUBLISHED, {}),
    "pact-dorefa": ("resnet8", "pact-dorefa", (2, 2), HERE, {}),
    "uniq 1": ("resnet8", "uniq", (1, 1), HERE, {}),
    "uniq 1 published": ("resnet8", "uniq", (1, 1), PUBLISHED, {}),
    "uniq 2": ("resnet8", "uniq", (2, 2), HERE, {}),
    "uniq 3 published": ("resnet8", "uniq", (3, 3), PUBLISHED, {"per_kernel": True}),
    "uniq 4 published": ("resnet8", "uniq", (4, 4), PUBLISHED, {}),
    "sttn": ("resnet8", "sttn", (2, 2), HERE, {}),
    "sttn published": ("resnet8", "sttn", (2, 2), PUBLISHED, {"edge_bits": 16}),
    "stqn published": ("resnet8", "stqn", (3, 3), PUBLISHED, {}),
    "basq": ("resnet8", "basq", (2, 2), HERE, {"genome": (0,) * 6}),
    "basq published": (
        "resnet8", "basq", (3, 3), PUBLISHED, {"genome": (5,) * 6, "per_channel": True},
    ),
    "basq mobilenetv1": (
        "mobilenetv1", "basq", (2, 2), HERE, {"genome": (3,) * 13, "width": 0.125},
    ),
    "mobilenetv1": ("mobilenetv1", "uniq", (2, 2), PUBLISHED, {"width": 0.125}),
    "mobilenetv2": ("mobilenetv2", "uniq", (1, 1), PUBLISHED, {"width": 0.125}),
    "vgg-small": ("vgg-small", "pact-sawb", (2, 2), PUBLISHED, {"width": 0.125}),
    "alexnet": ("alexnet", "pact-dorefa", (2, 2), HERE, {"width": 0.0625}),
    "mlp": ("mlp", "uniq", (4, 4), PUBLISHED, {"width": 0.125}),
}  # fmt: skip
NO_EXACT_LAYER = ("sttn", "stqn", "basq")  # each quantizer reads the stream
SLOW_IN_ONNX = {"mobilenetv2", "basq mobilenetv1"}  # hundreds of nodes of kinds seen elsewhere


def disturb_gains(model):
    """Give every batch norm a negative and a zero gain."""
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d | nn.BatchNorm1d):
                module.weight[0] *= -1
                module.weight[-1] = 0


def network(name):
    net, method, bits, preprocessing, options = NETWORKS[name]
    size = 16 if net == "alexnet" else 8
    spec = NetSpec(
        net, method, bits, (size, size, 3), ("a", "b", "c"), preprocessing,
        **{"width": 0.25, **options},
    )  # fmt: skip
    model = new_network(spec, seed=1)
    disturb_gains(model)
    return model


@pytest.fixture(scope="module", params=NETWORKS)
def folded(request):
    """(name, network, what it folded to, images, the oracle's trace)."""
    model = network(request.param)
    result = fold_network(model)
    shape = (3, *model.spec.input_shape)
    images = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
    return request.param, model, result, images, trace_oracle(result.graph, images)


def watched(model):
    """Name → what every quantizer is given, filled when a copy of ``model`` runs."""
    seen = {}
    for name, module in model.named_modules():
        if isinstance(module, ActivationQuantizer):
            module.register_forward_pre_hook(
                lambda _module, args, name=name: seen.__setitem__(name, args[0].detach())
            )
    return seen


def distance_from(quantizer, codes, values):
    """How far ``values`` lie outside what ``quantizer`` rounds to the graph's ``codes``."""
    grid, shape = quantizer.grid, (1, -1, *[1] * (values.dim() - 2))
    scale = torch.tensor([float(s) for s in quantizer.exact_scales()], dtype=torch.float64)
    scale = scale.view(shape)
    index = torch.from_numpy(codes if grid.step != 1 else codes - grid.lo)
    index = (index.permute(0, 3, 1, 2) if index.dim() == 4 else index).reshape(values.shape)
    lower = torch.where(index > 0, scale * (grid.lo + grid.step * (index - 0.5)), -torch.inf)
    last = grid.levels - 1
    upper = torch.where(index < last, scale * (grid.lo + grid.step * (index + 0.5)), torch.inf)
    return torch.maximum(lower - values, values - upper).max()


def test_exact_layers_never_flip_and_stream_layers_only_within_their_bound(folded):
    name, model, result, images, traced = folded
    names = quantizer_names(result.graph, model)
    reports = {report.name: report for report in result.layers}
    quantizers = {key: model.get_submodule(key) for key in names}
    seen = watched(model)
    flips, _ = compare_codes(model, names, images, codes=traced, layer_by_layer=True)
    assert set(names) == set(seen)
    for flip in flips:
        report = reports[flip.name]
        assert flip.flips == 0 or not report.exact
        assert flip.max_abs_diff <= 1
        outside = distance_from(quantizers[flip.name], traced[flip.name], seen[flip.name])
        assert float(outside) <= report.error + 1e-9
    assert any(reports[key].exact for key in names) == (not name.startswith(NO_EXACT_LAYER))


def test_every_backend_gives_the_oracles_logits(folded):
    *_, result, images, traced = folded
    backends = ("numba", "c") if c_rows() else ("numba",)
    for backend in backends:
        assert np.array_equal(Session(result.graph, backend).run(images), traced["logits"])


def test_onnx_says_the_same_and_is_read_back(folded):
    name, _, result, images, traced = folded
    if name in SLOW_IN_ONNX:
        pytest.skip("the other networks have the same kinds of nodes")
    data = onnx_model(result.graph)
    assert to_text(graph_of(data)) == to_text(result.graph)
    if is_available():
        assert np.array_equal(run_onnxruntime(data, images), traced["logits"])


def with_one_module(module):
    model = network("pact-sawb")
    model.relu = module
    return model


@pytest.mark.parametrize(
    ("module", "text"),
    [
        (nn.MaxPool2d(2, ceil_mode=True), "max pooling with dilation 1, ceil_mode True"),
        (nn.MaxPool2d(2, dilation=2), "max pooling with dilation 2, ceil_mode False"),
        (nn.AvgPool2d(2, divisor_override=3), "divisor_override = "),
        (nn.AvgPool2d(3, padding=1), "average pooling with padding"),
        (nn.AdaptiveAvgPool2d(2), "adaptive average pooling to 2"),
        (nn.Flatten(2), "flattening dimensions 2 to -1"),
        (nn.BatchNorm2d(16, track_running_stats=False), "batch norm without running statistics"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_has_no_integer_form_is_named(module, text):
    with pytest.raises(UnsupportedError, match=text) as caught:
        trace(with_one_module(module))
    assert "layer relu" in str(caught.value)
