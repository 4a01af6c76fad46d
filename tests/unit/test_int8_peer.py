"""The int8 network that other engines run: its topology, its numbers, its files."""

from collections import Counter

import numpy as np
import onnx
import pytest

from bitfold.export import fold_network, int8_peer, peer_onnx, peer_tflite
from bitfold.export.int8 import Affine, Int8Peer, PeerLayer, peer_layers
from bitfold.export.int8.calibration import Product
from bitfold.ir import Conv2d
from bitfold.models import NetSpec, Preprocessing, new_network

pytestmark = [pytest.mark.torch, pytest.mark.ort]


def folded(net="resnet8", method="pact-sawb", bits=(2, 2), shape=(16, 16, 3)):
    spec = NetSpec.with_default_grid(
        net=net,
        method=method,
        bits=bits,
        input_shape=shape,
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(100, 60),
    )
    return fold_network(new_network(spec, seed=0)).graph


@pytest.fixture(scope="module")
def graph():
    return folded()


@pytest.fixture(scope="module")
def peer(graph):
    return int8_peer(graph)


def images(batch=2, shape=(16, 16, 3)):
    return np.random.default_rng(1).integers(0, 256, (batch, *shape), dtype=np.uint8)


def test_every_layer_is_fused_by_onnx_runtime(graph, peer, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.log_severity_level = 3
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    model = peer_onnx(peer, batch=2)
    session = onnxruntime.InferenceSession(model, settings, ["CPUExecutionProvider"])
    assert session.run(None, {"image": images()})[0].shape == (2, 3)
    kinds = Counter(n.op_type for n in onnx.load(tmp_path / "optimized.onnx").graph.node)
    assert kinds["QLinearConv"] == sum(isinstance(node, Conv2d) for node in graph.nodes)
    assert kinds["QGemm"] == 1
    assert not {"Conv", "Gemm", "Add", "QuantizeLinear"} & set(kinds)


def test_every_convolution_is_int8_in_openvino(peer):
    openvino = pytest.importorskip("openvino")
    core = openvino.Core()
    compiled = core.compile_model(core.read_model(peer_onnx(peer)), "CPU")
    nodes = [node.get_rt_info() for node in compiled.get_runtime_model().get_ordered_ops()]
    primitives = [
        node["primitiveType"].astype(str)
        for node in nodes
        if node["layerType"].astype(str) in ("Convolution", "FullyConnected")
    ]
    assert len(primitives) == sum(layer.is_product for layer in peer.layers)
    assert all(name.endswith("I8") for name in primitives), primitives


def test_all_networks_reach_litert(peer):
    interpreter = litert(peer_tflite(peer, batch=2), threads=1)
    assert run_litert(interpreter, images()).shape == (2, 3)
    assert interpreter._get_ops_details()[-1]["op_name"] == "DELEGATE"


def litert(model, *, threads):
    module = pytest.importorskip("ai_edge_litert.interpreter")
    interpreter = module.Interpreter(model_content=model, num_threads=threads)
    interpreter.allocate_tensors()
    return interpreter


def run_litert(interpreter, pixels):
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], pixels)
    interpreter.invoke()
    return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])


def one_layer(layer, weight, source_shape):
    """A peer of one layer whose real output is Σ pixel · weight / 64."""
    scales = np.full(len(weight), 1 / 64, np.float32)
    bias = np.arange(len(weight), dtype=np.int32)
    return Int8Peer(
        source_shape,
        (layer,),
        {"image": Affine(1.0, 0), layer.name: Affine(8.0, 100)},
        {layer.name: Product(weight.astype(np.int8), scales, bias)},
    )


@pytest.mark.parametrize("depthwise", [False, True])
def test_a_convolution_is_what_numpy_says_in_both_files(depthwise):
    onnxruntime = pytest.importorskip("onnxruntime")
    rng = np.random.default_rng(0)
    weight = rng.integers(-20, 21, (4, 3, 3, 1 if depthwise else 4))
    layer = PeerLayer(
        "conv", "conv", ("image",), (5, 6, 4),
        weight=weight, kernel=(3, 3), padding=(1, 1, 1, 1), groups=4 if depthwise else 1,
    )  # fmt: skip
    peer = one_layer(layer, weight, (5, 6, 4))
    pixels = rng.integers(0, 60, (1, 5, 6, 4), dtype=np.uint8)
    padded = np.pad(pixels[0].astype(np.int64), ((1, 1), (1, 1), (0, 0)))
    sums = np.zeros((5, 6, 4), np.int64) + np.arange(4)
    for i in range(3):
        for j in range(3):
            part, tap = padded[i : i + 5, j : j + 6], weight[:, i, j]
            sums += part * tap[:, 0] if depthwise else part @ tap.T
    exact = np.rint(sums / 64 / 8) * 8
    wanted = np.clip(exact, -100 * 8, 155 * 8)

    found = run_litert(litert(peer_tflite(peer), threads=1), pixels)[0]
    # A sum that lies on a tie may be rounded the other way by fixed-point arithmetic.
    assert np.abs(found - wanted).max() <= 8
    assert (found != wanted).mean() < 0.1

    session = onnxruntime.InferenceSession(peer_onnx(peer), None, ["CPUExecutionProvider"])
    found = session.run(None, {"image": pixels})[0][0].transpose(1, 2, 0)
    assert np.abs(found - wanted).max() <= 8
    assert (found != wanted).mean() < 0.1


def test_digits_of_an_edge_layer_are_one_convolution():
    graph = folded(method="uniq")
    layers = peer_layers(graph)
    first = next(layer for layer in layers if layer.is_product)
    assert first.codes.shape[-1] == 3  # the channel of ones is a bias
    assert [layer.inputs for layer in layers].count(("image",)) == 1
    counts = Counter(layer.op for layer in layers)
    plain = Counter(layer.op for layer in peer_layers(folded(net="resnet8", bits=(3, 3))))
    assert counts["conv"] == plain["conv"]
    assert counts["add"] == plain["add"]


@pytest.mark.parametrize(
    ("net", "method", "shape"),
    [("resnet8", "basq", (16, 16, 3)), ("mobilenetv2", "basq", (32, 32, 3))],
)
def test_slices_and_concatenations_run_in_both(net, method, shape):
    onnxruntime = pytest.importorskip("onnxruntime")
    peer = int8_peer(folded(net, method, shape=shape))
    assert {"concat"} <= {layer.op for layer in peer.layers}
    pixels = images(1, shape)
    session = onnxruntime.InferenceSession(peer_onnx(peer), None, ["CPUExecutionProvider"])
    theirs = session.run(None, {"image": pixels})[0]
    ours = run_litert(litert(peer_tflite(peer), threads=1), pixels)
    assert theirs.shape == ours.shape == (1, 3)


def test_the_files_are_the_same_bytes_every_time(graph):
    assert peer_onnx(int8_peer(graph)) == peer_onnx(int8_peer(graph))
    pytest.importorskip("ai_edge_litert")
    assert peer_tflite(int8_peer(graph)) == peer_tflite(int8_peer(graph))
