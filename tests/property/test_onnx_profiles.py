"""Every profile against the oracle, on every graph that hypothesis can find."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bitfold.export import is_openvino_available, run_openvino, trace_openvino
from bitfold.export.model_files import graph_of
from bitfold.export.onnx.check import compare_onnxruntime, is_available
from bitfold.export.onnx.qdq import onnx_model
from bitfold.ir import IntGraph, to_text, trace_oracle
from tests.property.strategies import int_graphs

profiles = st.sampled_from(("integer", "lowbit", "qonnx"))


def images_of(graph: IntGraph, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.integers(0, 256, (2, *graph.input.shape), dtype=np.uint8)


@pytest.mark.skipif(not is_available(), reason="needs ONNX Runtime")
@given(
    graph=int_graphs(),
    profile=st.sampled_from(("integer", "lowbit")),
    level=st.sampled_from(("off", "all")),
    seed=st.integers(0, 999),
)
def test_onnxruntime_equals_the_oracle_in_every_tensor(graph, profile, level, seed) -> None:
    data = onnx_model(graph, profile=profile)
    found = compare_onnxruntime(graph, data, images_of(graph, seed), level=level)
    assert found.differences == ()


@pytest.mark.skipif(not is_openvino_available(), reason="needs OpenVINO")
@given(graph=int_graphs(), seed=st.integers(0, 999))
def test_openvino_equals_the_oracle_in_every_tensor(graph, seed) -> None:
    data, images = onnx_model(graph, profile="integer"), images_of(graph, seed)
    want = trace_oracle(graph, images)
    got = trace_openvino(data, images)
    assert set(got) == set(want)
    assert {name for name in want if (got[name] != want[name]).any()} == set()
    assert (run_openvino(data, images) == want[graph.output.name]).all()


@given(graph=int_graphs(), profile=profiles)
def test_reading_a_written_graph_gives_the_same_graph(graph, profile) -> None:
    data = onnx_model(graph, profile=profile)
    again = graph_of(data)
    assert to_text(again) == to_text(graph)
    assert onnx_model(again, profile=profile) == data


@given(graph=int_graphs(), profile=profiles)
def test_a_written_model_passes_the_onnx_checker(graph, profile) -> None:
    model = onnx.load_from_string(onnx_model(graph, profile=profile))
    onnx.checker.check_model(model, full_check=True)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True)
