"""The int8 peer runs under ONNX Runtime and has the network's shape."""

import numpy as np
import onnx
import pytest

from bitfold.export import fold_network, int8_peer
from bitfold.ir import Conv2d
from bitfold.models import NetSpec, Preprocessing, new_network

pytestmark = [pytest.mark.torch, pytest.mark.ort]


@pytest.fixture(scope="module")
def graph():
    spec = NetSpec.with_default_grid(
        net="resnet8",
        method="pact-sawb",
        bits=(2, 2),
        input_shape=(16, 16, 3),
        class_names=("a", "b", "c"),
        preprocessing=Preprocessing(100, 60),
    )
    return fold_network(new_network(spec, seed=0)).graph


def test_peer_has_every_convolution_and_fuses_them(graph, tmp_path):
    onnxruntime = pytest.importorskip("onnxruntime")
    settings = onnxruntime.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    session = onnxruntime.InferenceSession(int8_peer(graph), settings, ["CPUExecutionProvider"])
    images = np.zeros((2, 16, 16, 3), np.uint8)
    assert session.run(None, {"image": images})[0].shape == (2, 3)
    optimized = onnx.load(tmp_path / "optimized.onnx")
    kinds = [node.op_type for node in optimized.graph.node]
    num_convs = sum(isinstance(node, Conv2d) for node in graph.nodes)
    assert kinds.count("QLinearConv") == num_convs
    assert "Conv" not in kinds


def test_peer_is_the_same_bytes_every_time(graph):
    assert int8_peer(graph) == int8_peer(graph)
