"""Files and kernels broken on purpose: the certificate names the place and the likely cause."""

import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from bitfold.certify import compare_traces
from bitfold.certify.roundings import rescale_cause
from bitfold.export import fold_network, onnx_model, trace_onnxruntime
from bitfold.ir import (
    Conv2d,
    Dequantize,
    Grid,
    IntGraph,
    MaxPool2d,
    Quantize,
    Rescale,
    Thresholds,
    trace_oracle,
)
from bitfold.ir.oracle import apply
from bitfold.models import NetSpec, Preprocessing, new_network

pytestmark = [pytest.mark.torch, pytest.mark.ort]

SIZE = 8


@pytest.fixture(scope="module")
def graph():
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(SIZE, SIZE, 1),
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(73, 90),
        width=0.25,
    )
    return fold_network(new_network(spec, seed=3)).graph


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(5).integers(0, 256, (6, SIZE, SIZE, 1), dtype=np.uint8)


def named(model, name):
    return next(node for node in model.graph.node if name in node.output)


def constant(model, name):
    tensor = next(t for t in model.graph.initializer if t.name == name)
    return tensor, numpy_helper.to_array(tensor)


def replaced(model, name, values):
    tensor, old = constant(model, name)
    tensor.CopyFrom(numpy_helper.from_array(values.astype(old.dtype), name))


def inserted(model, node, *, before):
    at = next(i for i, other in enumerate(model.graph.node) if before in other.output)
    model.graph.node.insert(at, node)


def add_constant(model, name, values):
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))


def moved_by_one(model):
    """The fused layer's thresholds one accumulator higher."""
    _, bias = constant(model, "layer1.0.conv1.bias")
    _, stored = constant(model, "layer1.0.conv1.weight")
    factor = np.gcd.reduce(np.abs(stored.reshape(len(stored), -1).astype(np.int64)), axis=1)
    replaced(model, "layer1.0.conv1.bias", bias - factor)


def floored_codes(model):
    """The fused layer rounds down."""
    _, bias = constant(model, "layer1.0.conv1.bias")
    _, scale = constant(model, "layer1.0.conv1.weight.scale")
    replaced(model, "layer1.0.conv1.bias", bias - np.round(0.5 / scale).astype(np.int64))


def floored_stream(model):
    """The stream rounds down."""
    _, offset = constant(model, "conv1.wide.offset")
    replaced(model, "conv1.wide.offset", offset - 0.5)


def padded_with_three(model):
    conv = named(model, "conv1")
    pads = next(a for a in conv.attribute if a.name == "pads")
    add_constant(model, "broken.pads", np.array([0, 0, *pads.ints[:2], 0, 0, *pads.ints[2:]]))
    add_constant(model, "broken.three", np.float32(3))
    del pads.ints[:]
    pads.ints.extend([0, 0, 0, 0])
    pad = onnx.helper.make_node("Pad", [conv.input[0], "broken.pads", "broken.three"], ["padded"])
    conv.input[0] = "padded"
    inserted(model, pad, before="conv1")


def padded_before_the_thresholds(model):
    """The same in a layer whose accumulators are not in the file."""
    conv = named(model, "layer1.0.conv1")
    pads = next(a for a in conv.attribute if a.name == "pads")
    add_constant(model, "broken.pads", np.array([0, 0, *pads.ints[:2], 0, 0, *pads.ints[2:]]))
    add_constant(model, "broken.three", np.float32(3))
    del pads.ints[:]
    pads.ints.extend([0, 0, 0, 0])
    pad = onnx.helper.make_node("Pad", [conv.input[0], "broken.pads", "broken.three"], ["padded"])
    conv.input[0] = "padded"
    inserted(model, pad, before="layer1.0.conv1")


def clipped_sums(model):
    named(model, "conv1").output[0] = "conv1/raw"
    add_constant(model, "broken.min", np.float32(-4096))
    add_constant(model, "broken.max", np.float32(4095))
    clip = onnx.helper.make_node("Clip", ["conv1/raw", "broken.min", "broken.max"], ["conv1"])
    inserted(model, clip, before="conv1.wide/double")


def clipped_codes(model):
    replaced(model, "layer1.0.act2.max", np.array(2))


def turned_image(model):
    transpose = named(model, "norm")
    transpose.attribute[0].ints[:] = [0, 3, 2, 1]


def exchanged_weights(model):
    """Channels of the first layer in another order."""
    _, weight = constant(model, "conv1.weight")
    replaced(model, "conv1.weight", weight[::-1])


def other_weight(model):
    _, weight = constant(model, "conv1.weight")
    changed = weight.copy()
    changed[1, 0, 1, 1] += 5
    replaced(model, "conv1.weight", changed)


BROKEN = {
    moved_by_one: ("layer1.0.act2", "tie"),
    floored_codes: ("layer1.0.act2", "rounding mode"),
    floored_stream: ("conv1.wide", "rounding mode"),
    padded_with_three: ("conv1", "padding value"),
    padded_before_the_thresholds: ("layer1.0.act2", "padding value"),
    clipped_sums: ("conv1", "saturation"),
    clipped_codes: ("layer1.0.act2", "saturation"),
    turned_image: ("norm", "layout"),
    exchanged_weights: ("conv1", "layout"),
    other_weight: ("conv1", "unknown"),
}


@pytest.mark.parametrize("breaks", BROKEN, ids=lambda f: f.__name__)
def test_a_broken_file_is_named_with_its_cause(graph, images, breaks):
    model = onnx.ModelProto.FromString(onnx_model(graph))
    breaks(model)
    got = trace_onnxruntime(model.SerializeToString(), images, optimized=False)
    stage = compare_traces("broken", got, trace_oracle(graph, images), graph=graph)
    assert stage.first is not None
    layer, cause = BROKEN[breaks]
    assert (stage.first.layer, stage.first.cause) == (layer, cause)
    assert bool(stage.first.why) == (cause != "unknown")


def test_the_code_that_pads_is_read_from_the_accumulators(graph, images):
    model = onnx.ModelProto.FromString(onnx_model(graph))
    padded_with_three(model)
    got = trace_onnxruntime(model.SerializeToString(), images)
    stage = compare_traces("broken", got, trace_oracle(graph, images), graph=graph)
    assert stage.first.why == "positions outside the image count as code 3, not 0"


def wide_products(channels=4):
    """8-bit pixels by 8-bit weights: pairs of products leave 16 bits."""
    rng = np.random.default_rng(1)
    weight = rng.integers(-127, 128, (5, 3, 3, channels))
    nodes = [
        Quantize("image", (6, 6, channels), Grid.pixels(0), 1.0),
        Conv2d("conv", "image", weight, Grid.narrow(8), (1.0,), np.arange(5), padding=(1, 1, 1, 1)),
        Rescale("wide", "conv", np.full(5, 3), np.zeros(5, int), 2, 1.0),
        Dequantize("out", "wide"),
    ]
    pixels = rng.integers(0, 256, (2, 6, 6, channels), dtype=np.uint8)
    return IntGraph.of(nodes), pixels


def pairs_in_int16(node, xs):
    """A kernel that adds neighbouring products in saturating 16 bits."""
    if not isinstance(node, Conv2d):
        return apply(node, xs)
    padded = np.pad(xs[0], ((0, 0), (1, 1), (1, 1), (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
    windows = windows.transpose(0, 1, 2, 4, 5, 3)[..., None, :, :, :]
    products = (windows * node.weight).reshape(*windows.shape[:3], len(node.weight), -1, 2)
    return products.sum(-1).clip(-(2**15), 2**15 - 1).sum(-1) + node.bias


def wrapped(node, xs):
    """A kernel whose sums have 16 bits."""
    made = apply(node, xs)
    return (made + 2**15) % 2**16 - 2**15 if isinstance(node, Conv2d) else made


def halves_to_even(node, xs):
    if not isinstance(node, Rescale):
        return apply(node, xs)
    return np.rint(xs[0] * node.multiplier / 2.0**node.shift).astype(np.int64)


@pytest.mark.parametrize(
    ("kernel", "layer", "cause", "why"),
    [
        (pairs_in_int16, "conv", "saturation", "pairs of products that saturate at 16 bits"),
        (wrapped, "conv", "saturation", "wrapped at 16 bits"),
        (halves_to_even, "wide", "tie", "halves rounded to even"),
    ],
)
def test_a_broken_kernel_is_named_with_its_cause(kernel, layer, cause, why):
    graph, pixels = wide_products()
    got = trace_oracle(graph, pixels, evaluator=kernel)
    stage = compare_traces("broken", got, trace_oracle(graph, pixels), graph=graph)
    assert (stage.first.layer, stage.first.cause) == (layer, cause)
    assert why in stage.first.why


def test_saturation_is_seen_behind_accumulators_that_are_not_held():
    graph, pixels = wide_products()
    got = trace_oracle(graph, pixels, evaluator=pairs_in_int16)
    del got["conv"]
    stage = compare_traces("broken", got, trace_oracle(graph, pixels), graph=graph)
    assert (stage.first.layer, stage.first.cause) == ("wide", "saturation")


def test_a_maximum_that_lets_padding_win():
    nodes = [
        Quantize("image", (6, 6, 1), Grid.pixels(255), 1.0),
        MaxPool2d("pool", "image", (3, 3), (1, 1), (1, 1, 1, 1)),
        Dequantize("out", "pool"),
    ]
    graph = IntGraph.of(nodes)
    pixels = np.random.default_rng(2).integers(0, 200, (2, 6, 6, 1), dtype=np.uint8)

    def zero_wins(node, xs):
        made = apply(node, xs)
        if isinstance(node, MaxPool2d):
            made[:, [0, -1]] = made[:, :, [0, -1]] = 0
        return made

    got = trace_oracle(graph, pixels, evaluator=zero_wins)
    stage = compare_traces("broken", got, trace_oracle(graph, pixels), graph=graph)
    assert (stage.first.layer, stage.first.cause) == ("pool", "padding value")


@pytest.mark.parametrize("shift", [0, 2, 5])
def test_every_other_rounding_of_a_rescale_is_told_from_the_right_one(shift):
    node = Rescale("r", "x", np.array([3]), np.array([1]), shift, 1.0)
    x = np.arange(-40, 41).reshape(1, -1, 1, 1)
    right = apply(node, [x])
    exact = (3 * x + 1) / 2.0**shift
    for rounded, kind in (
        (np.floor, "rounding mode"),
        (np.ceil, "rounding mode"),
        (np.trunc, "rounding mode"),
        (np.rint, "tie"),
        (lambda v: np.ceil(v - 0.5), "tie"),
    ):
        got = rounded(exact).astype(np.int64)
        if np.array_equal(got, right):
            assert shift == 0
        else:
            assert rescale_cause(node, x, got)[0] == kind


def test_codes_beyond_their_grid_have_no_known_cause():
    graph = IntGraph.of(
        [
            Quantize("image", (2, 2, 1), Grid.pixels(0), 1.0),
            Thresholds("act", "image", np.array([[10]]), np.array([1]), Grid.unsigned(1), 1.0),
            Dequantize("out", "act"),
        ]
    )
    pixels = np.array([[[[0], [10]], [[20], [30]]]], dtype=np.uint8)
    want = trace_oracle(graph, pixels)
    got = dict(want, act=want["act"] + (pixels == 30))
    stage = compare_traces("broken", got, want, graph=graph)
    assert (stage.first.layer, stage.first.got, stage.first.cause) == ("act", 2, "unknown")


def test_one_code_that_differs_far_from_its_threshold_has_no_known_cause():
    table = np.array([[10, 20, 30]])
    nodes = [
        Quantize("image", (4, 4, 1), Grid.pixels(0), 1.0),
        Thresholds("act", "image", table, np.array([1]), Grid.unsigned(2), 1.0),
        Dequantize("out", "act"),
    ]
    graph = IntGraph.of(nodes)
    pixels = np.full((1, 4, 4, 1), 18, dtype=np.uint8)
    pixels[0, :2] = 15
    want = trace_oracle(graph, pixels)
    got = dict(want, act=want["act"].copy())
    got["act"][0, 0, 1, 0] = 3
    stage = compare_traces("broken", got, want, graph=graph)
    assert (stage.first.cause, stage.first.why) == ("unknown", "")
    assert stage.first.index == (0, 0, 1, 0)
